"""Windows of features for the training of the tokenizer."""

import numpy as np
import torch

from dataset.windows import WindowDataset


def test_windows_are_parts_of_their_clips(small_folder):
    windows = WindowDataset(small_folder.motions("train"), 32)
    clips = [small_folder.motion(name) for name in small_folder.ids("train")]
    assert len(windows) == sum(len(clip) // 32 for clip in clips)
    starts = set()
    for number in range(len(windows)):
        _, features, valid = windows[number]
        assert features.shape == (32, 272) and features.dtype == torch.float32 and valid == 32
        found = [
            (index, start)
            for index, clip in enumerate(clips)
            for start in np.flatnonzero((clip[: len(clip) - 31] == features[0].numpy()).all(axis=1))
            if np.array_equal(clip[start : start + 32], features)
        ]
        assert found
        starts.update(found)
    assert len(starts) > 0.8 * len(windows)


def test_short_clip_is_padded_with_zeros(small_folder):
    windows = WindowDataset(small_folder.motions("train"), 500)
    assert len(windows) == 7
    for number, clip_id in enumerate(small_folder.ids("train")):
        _, features, valid = windows[number]
        clip = small_folder.motion(clip_id)
        assert valid == len(clip) and features.shape == (500, 272)
        np.testing.assert_array_equal(features[:valid], clip)
        assert not features[valid:].any()


def test_some_windows_begin_with_their_clip(small_folder):
    windows = WindowDataset(small_folder.motions("train"), 16, beginnings=0.5)
    drawn = [windows[number] for number in range(200)]
    begin = [np.array_equal(features[0], small_folder.motion(name)[0]) for name, features, _ in drawn]
    assert 0.4 < np.mean(begin) < 0.65


def test_window_depends_only_on_the_item_number(small_folder):
    one, other = (WindowDataset(small_folder.motions("train"), 32) for _ in range(2))
    for number in (0, 3, len(one) + 3, 5 * len(one) + 3):
        assert one[number][0] == other[number][0] and torch.equal(one[number][1], other[number][1])
    assert len({one[3 + epoch * len(one)][1].numpy().tobytes() for epoch in range(6)}) > 2
