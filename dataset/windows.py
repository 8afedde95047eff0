"""Windows of features for the training of the tokenizer."""

import random

import numpy as np
import torch
from torch.utils.data import Dataset

from dataset.clips import ATTEMPTS, Clips
from utils.errors import InputError


class WindowDataset(Dataset):
    """Random windows of clips; each clip counts once per full window it holds, and at least once.

    An item is (clip id, features (window, 272) float32, number of valid frames). The features are not normalized and
    are zero-padded. The offset of the window depends only on the item number (see ``dataset/batches.py``). Opening
    keeps 8 bytes per clip. An item reads only its window.

    Args:
        clips: Motions of a split (``MotionFolder.motions``).
        window: Frames per window.
        beginnings: Fraction of windows that begin with their clip; the offsets of the others are random.
    """

    def __init__(self, clips: Clips, window: int, beginnings: float = 0.0):
        self.clips, self.window, self.beginnings = clips, window, beginnings
        self.ends = np.cumsum(np.maximum(1, clips.frames // window), dtype=np.int64)  # windows up to each clip

    def __len__(self) -> int:
        return int(self.ends[-1])

    def __getitem__(self, number: int) -> tuple[str, torch.Tensor, int]:
        choose = random.Random(number)
        for _ in range(ATTEMPTS):
            clip = self.clips[int(np.searchsorted(self.ends, number % len(self), "right"))]
            start = choose.randrange(max(1, clip.frames - self.window + 1))
            if choose.random() < self.beginnings:
                start = 0
            part = self.clips.valid_features(clip, start, start + self.window)
            if part is not None:
                features = torch.zeros(self.window, part.shape[1])
                features[: len(part)] = torch.from_numpy(part)
                return clip.name, features, len(part)
            number = choose.randrange(len(self))  # a damaged motion is replaced by another one
        raise InputError(
            f"{ATTEMPTS} motions in a row are damaged, the last one {self.clips.source(clip)}; check the data"
        )
