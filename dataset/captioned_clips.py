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
from dataset.corruptions import change_speed, freeze, reflect, reverse, swap_limbs
from dataset.motion_folder import MotionFolder
from motion.features272 import LAYOUT
from motion.resample import FPS
from utils.errors import InputError

STILL = 0.05  # m/s, mean speed of the joints below which a motion is not corrupted: it would remain the same
TEMPO = 0.1  # largest change of the speed of a recorded motion, which remains right


class CaptionedClip(NamedTuple):
    """A clip, or the part of a clip that captions with times describe."""

    id: str
    first: int  # frame
    last: int  # frame after the last one
    captions: list[str]


class ClipItem(NamedTuple):
    """A training item."""

    id: str
    caption: str
    group: int  # clips whose captions say the same have the same group
    features: Tensor  # (T, 272)
    corrupted: Tensor  # (T', 272), a copy that the caption does not describe; of no frames if there is none
    is_reflected: bool  # whether the copy is a reflection, which may be right for other captions


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


def captioned_clips(folder: MotionFolder, split: str, min_frames: int) -> list[CaptionedClip]:
    """List the clips of a split, and the parts of clips that captions with times describe.

    Clips without captions, and clips and parts shorter than ``min_frames``, are left out.

    Raises:
        InputError: The split or a file is missing or invalid.
    """
    clips = []
    for clip_id in folder.ids(split, required=False):
        frames = folder.frames(clip_id)
        for span, captions in folder.spans(clip_id).items():
            first, last = (0, frames) if span is None else (int(second * FPS + 1e-6) for second in span)
            if min(last, frames) - max(first, 0) >= min_frames:
                clips.append(CaptionedClip(clip_id, max(first, 0), min(last, frames), captions))
    return clips


class CaptionedClips(Dataset):
    """Training items of type ``ClipItem``.

    All random choices depend only on the item number (see ``dataset/batches.py``): the caption, the window of a clip
    of more than ``max_frames``, a change of its speed by up to 10 %, and the corruption. A corrupted copy is played
    backward, frozen, played at 0.4 to 0.7 or 1.5 to 2.2 times the speed, has its limbs swapped, or, if its caption
    names a side, is reflected. It has at most as many frames as the motion.

    Args:
        folder: Data folder.
        clips: Clips to train on.
        min_frames: Shortest motion of the evaluator.
        max_frames: Longest motion of an item.

    Raises:
        InputError: There are no clips.
    """

    def __init__(self, folder: MotionFolder, clips: list[CaptionedClip], min_frames: int, max_frames: int):
        if not clips:
            raise InputError(
                f"no training clip of {folder.path} has a caption and {min_frames} frames; add captions to its texts/"
            )
        self.folder, self.clips, self.min_frames, self.max_frames = folder, clips, min_frames, max_frames
        self.groups = caption_groups([clip.captions for clip in clips])

    def __len__(self) -> int:
        return len(self.clips)

    @property
    def lengths(self) -> np.ndarray:
        """Frames of each item, (clips,)."""
        return np.array([min(clip.last - clip.first, self.max_frames) for clip in self.clips])

    def __getitem__(self, number: int) -> ClipItem:
        clip, choose = self.clips[number % len(self)], random.Random(number)
        caption = choose.choice(clip.captions)
        frames = min(clip.last - clip.first, self.max_frames)
        first = choose.randint(clip.first, clip.last - frames)
        features = torch.from_numpy(self.folder.motion(clip.id)[first : first + frames])
        if choose.random() < 0.5:
            varied = change_speed(features, choose.uniform(1 - TEMPO, 1 + TEMPO))[: self.max_frames]
            features = varied if len(varied) >= self.min_frames else features
        corrupted, is_reflected = self._corrupt(features, caption, choose)
        return ClipItem(clip.id, caption, int(self.groups[number % len(self)]), features, corrupted, is_reflected)

    def _corrupt(self, features: Tensor, caption: str, choose: random.Random) -> tuple[Tensor, bool]:
        """Return a corrupted copy (T', 272), without frames if it is too short, and whether it is a reflection."""
        corruptions: list[Callable[[Tensor], Tensor]] = [swap_limbs]
        if mean_speed(features) > STILL:
            slow, fast = choose.uniform(0.4, 0.7), choose.uniform(1.5, 2.2)
            corruptions += [
                reverse,
                partial(freeze, start=choose.uniform(0, 0.5)),
                *2 * [partial(change_speed, speed=slow)],  # the hardest to notice
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
