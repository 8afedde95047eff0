"""The data folder: splits, statistics, caption lines, and faults of its files."""

import numpy as np
import pytest

from dataset.motion_folder import STATISTICS, MotionFolder, Statistics
from dataset.splits import MIRRORED, split_of
from dataset.windows import WindowDataset
from utils.errors import InputError


def test_split_depends_on_the_name_and_is_shared_with_the_mirrored_copy():
    known = {"run_00045": "val", "jump_00053": "test", "walk_00088": "val", "walk_00000": "train"}
    assert {name: split_of(name) for name in known} == known
    names = [f"{number:06d}" for number in range(20000)]
    splits = [split_of(name) for name in names]
    assert [split_of(name + MIRRORED) for name in names] == splits
    assert splits.count("val") / 20000 == pytest.approx(0.03, abs=0.005)
    assert splits.count("test") / 20000 == pytest.approx(0.05, abs=0.005)


def test_statistics_do_not_depend_on_how_frames_are_divided_into_clips():
    features = np.random.default_rng(0).normal(3, 2, (90, 272))
    whole, parts = Statistics(), Statistics()
    whole.add(90, features.sum(axis=0), (features**2).sum(axis=0))
    for part in np.split(features, [10, 37]):
        parts.add(len(part), part.sum(axis=0), (part**2).sum(axis=0))
    for one, other in zip(whole.mean_std(), parts.mean_std(), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5)
    constant = Statistics()
    constant.add(2, np.full(272, 2.0), np.full(272, 2.0))
    assert (constant.mean_std()[1] > 0).all()


def test_caption_lines_of_humanml3d_are_read(small_folder):
    clip_id = small_folder.ids("train")[0]
    lines = ["a plain caption", "a person walks#a/DET person/NOUN walk/VERB#0.0#0.0", "he walks#he/PRON#nan#nan",
             "a part of it#a/DET part/NOUN#1.5#3.0", "", "  #x#0.0#0.0", "with tokens only#with/ADP"]  # fmt: skip
    (small_folder.path / "texts" / f"{clip_id}.txt").write_text("\n".join(lines))
    whole = ["a plain caption", "a person walks", "he walks", "with tokens only"]
    assert small_folder.captions(clip_id) == whole
    clips = [clip for clip in small_folder.clips("train") if clip.id == clip_id]
    assert [(clip.captions, clip.is_part, clip.start) for clip in clips] == [
        (whole, False, 0),
        (["a part of it"], True, 45),
    ]
    assert clips[1].name == f"{clip_id}_45_{45 + clips[1].frames}"
    (small_folder.path / "texts" / f"{clip_id}.txt").write_text("he walks\nhe runs#he/PRON#soon#3.0\n")
    with pytest.raises(InputError, match=rf"line 2 of .*{clip_id}\.txt has soon#3\.0 instead of from#to in seconds"):
        small_folder.captions(clip_id)


def test_error_names_the_faulty_file_of_a_folder(small_folder):
    path, clip_id = small_folder.path, small_folder.ids("train")[0]
    with pytest.raises(InputError, match="holds no motion_data"):
        MotionFolder(path / "texts")
    with pytest.raises(InputError, match=r"split/val\.txt is empty"):
        small_folder.ids("val")
    with pytest.raises(InputError, match=r"split/other\.txt is missing"):
        small_folder.ids("other")
    with pytest.raises(InputError, match=r"none\.txt is missing"):
        small_folder.captions("none")
    (path / "texts" / f"{clip_id}.txt").write_bytes(b"\xff\x00")
    with pytest.raises(InputError, match=f"{clip_id}.txt: .*; save it as UTF-8"):
        small_folder.captions(clip_id)
    (path / "split" / "val.txt").write_text("gone\n")
    with pytest.raises(InputError, match="lists gone, but .*gone.npy does not exist"):
        small_folder.ids("val")
    np.save(path / STATISTICS / "std.npy", np.zeros(272))
    with pytest.raises(InputError, match=r"std\.npy must hold values above zero"):
        small_folder.mean_std()
    (path / STATISTICS / "mean.npy").unlink()
    with pytest.raises(InputError, match=r"mean\.npy: the file is missing"):
        small_folder.mean_std()


FAULTS = {
    "half-written": (lambda file: file.write_bytes(file.read_bytes()[:5000]), "bytes and has 4872"),
    "empty": (lambda file: file.write_bytes(b""), "cannot be read as a NumPy array"),
    "pickled": (
        lambda file: np.save(file, np.array([{}], dtype=object)),
        "Python objects where numbers",
    ),
    "width": (
        lambda file: np.save(file, np.zeros((40, 263), np.float32)),
        r"263\) of float32 where \(frames, 272\) of numbers is needed",
    ),
    "no frames": (lambda file: np.save(file, np.zeros((0, 272), np.float32)), "holds no frames"),
    "NaN": (lambda file: np.save(file, np.full((40, 272), np.nan, np.float32)), "NaN or infinite"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_error_names_the_invalid_feature_file(small_folder, fault):
    damage, words = FAULTS[fault]
    clip_id = small_folder.ids("train")[2]
    file = small_folder.motion_file(clip_id)
    damage(file)
    with pytest.raises(InputError, match=words) as caught:
        small_folder.motion(clip_id)
    assert str(file) in str(caught.value)
    with pytest.raises(InputError, match=words) as caught:
        windows = WindowDataset(small_folder.motions("train"), 32)
        for number in range(len(windows)):
            windows[number]
    assert str(file) in str(caught.value)
