"""Motions with captions and corrupted copies, for the training of a text-motion evaluator."""

import random
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from dataset.caption_groups import caption_groups, named_sides
from dataset.clips import ATTEMPTS, Clip, Clips
from dataset.corruptions import change_speed, freeze, reflect, reverse, swap_limbs
from motion.features272 import LAYOUT
from motion.resample import FPS
from utils.errors import InputError

STILL = 0.05  # m/s, mean speed of the joints below which only limbs are swapped or sides reflected
TEMPO = 0.1  # largest relative change of the speed of a recorded motion, which its caption still describes


class ClipItem(NamedTuple):
    """A training item."""

    id: str
    caption: str
    group: int  # equal for clips with equivalent captions
    features: Tensor  # (T, 272)
    corrupted: Tensor  # (T', 272), a copy that the caption does not describe; of no frames if there is none
    is_reflected: bool  # whether the copy is a reflection, which may match other captions


class ClipBatch(NamedTuple):
    """Collated items; motions are padded with zeros on the right."""

    ids: list[str]
    captions: list[str]
    groups: Tensor  # (B,)
    features: Tensor  # (B, T, 272)
    lengths: Tensor  # (B,)
    corrupted: Tensor  # (B, T', 272)
    corrupted_lengths: Tensor  # (B,); 0 without a copy
    is_reflected: Tensor  # (B,) bool


def long_enough(clips: Clips, min_frames: int) -> np.ndarray:
    """Return the rows (n,) of the clips of which captions describe at least ``min_frames`` frames."""
    return np.flatnonzero(clips.frames - clips.table["context"].to_numpy() >= min_frames)


def described_features(clips: Clips, clip: Clip) -> np.ndarray:
    """Return the validated features (T, 272) of the frames that the captions of a clip describe.

    Raises:
        InputError: The file is missing, truncated or invalid, or a value is not finite.
    """
    return clips.features(clip, clip.context)


class CaptionedClips(Dataset):
    """Training items of type ``ClipItem``.

    All random choices depend only on the item number (see ``dataset/batches.py``): the caption, the window of a clip
    of more than ``max_frames``, a change of its speed by up to 10 %, and the corruption. A corrupted copy is played
    backward, frozen, played at 0.4 to 0.7 or 1.5 to 2.2 times the speed, has its limbs swapped, or, if its caption
    names a side, is reflected. It has at most as many frames as the motion.

    Args:
        clips: Clips to train on, with captions.
        min_frames: Shortest motion of the evaluator; shorter clips are left out.
        max_frames: Longest motion of an item.

    Raises:
        InputError: No clip is long enough.
    """

    def __init__(self, clips: Clips, min_frames: int, max_frames: int):
        self.clips, self.min_frames, self.max_frames = clips, min_frames, max_frames
        self.rows = long_enough(clips, min_frames)
        if not len(self.rows):
            raise InputError(f"no training clip has {min_frames} frames; add longer clips, or lower --model.min-frames")
        self.groups = caption_groups(clips.table["captions"].take(self.rows).to_pylist())

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def lengths(self) -> np.ndarray:
        """Frames of each item, (items,)."""
        return np.minimum(self.clips.frames[self.rows], self.max_frames)

    def __getitem__(self, number: int) -> ClipItem:
        row, choose = number % len(self), random.Random(number)
        for _ in range(ATTEMPTS):
            clip = self.clips[int(self.rows[row])]
            features = self.clips.valid_features(clip, clip.context)
            if features is not None:
                return self._item(clip, int(self.groups[row]), torch.from_numpy(features), choose)
            row = choose.randrange(len(self))  # a damaged motion is replaced by another one
        raise InputError(
            f"{ATTEMPTS} motions in a row are damaged, the last one {self.clips.source(clip)}; check the data"
        )

    def _item(self, clip: Clip, group: int, features: Tensor, choose: random.Random) -> ClipItem:
        caption = choose.choice(clip.captions)
        first = choose.randint(0, max(0, len(features) - self.max_frames))
        features = features[first : first + self.max_frames]
        if choose.random() < 0.5:
            varied = change_speed(features, choose.uniform(1 - TEMPO, 1 + TEMPO))[: self.max_frames]
            features = varied if len(varied) >= self.min_frames else features
        corrupted, is_reflected = self._corrupt(features, caption, choose)
        return ClipItem(clip.name, caption, group, features, corrupted, is_reflected)

    def _corrupt(self, features: Tensor, caption: str, choose: random.Random) -> tuple[Tensor, bool]:
        """Return a corrupted copy (T', 272), without frames if it is too short, and whether it is a reflection."""
        corruptions: list[Callable[[Tensor], Tensor]] = [swap_limbs]
        if mean_speed(features) > STILL:
            slow, fast = choose.uniform(0.4, 0.7), choose.uniform(1.5, 2.2)
            corruptions += [
                reverse,
                partial(freeze, start=choose.uniform(0, 0.5)),
                *2 * [partial(change_speed, speed=slow)],  # the hardest to detect
                partial(change_speed, speed=fast),
            ]
        if named_sides(caption):
            corruptions.append(reflect)
        corruption = choose.choice(corruptions)
        corrupted = corruption(features)[: len(features)]
        return (corrupted if len(corrupted) >= self.min_frames else features[:0]), corruption is reflect


def mean_speed(features: Tensor) -> float:
    """Return the mean speed of a motion (T, 272) in m/s: of the joints around the pelvis, plus that of the pelvis."""
    joints = features[1:, LAYOUT["joint_velocities"]].unflatten(-1, (-1, 3)).norm(dim=-1).mean()
    return float(FPS * (joints + features[1:, LAYOUT["root_velocity"]].norm(dim=-1).mean()))


def collate(items: list[ClipItem]) -> ClipBatch:
    """Collate items into a batch."""
    ids, captions, groups, features, corrupted, is_reflected = zip(*items, strict=True)
    padded = [torch.nn.utils.rnn.pad_sequence(list(motions), batch_first=True) for motions in (features, corrupted)]
    lengths = [torch.tensor([len(motion) for motion in motions]) for motions in (features, corrupted)]
    return ClipBatch(
        list(ids), list(captions), torch.tensor(groups), padded[0], lengths[0], padded[1], lengths[1],
        torch.tensor(is_reflected),
    )  # fmt: skip
