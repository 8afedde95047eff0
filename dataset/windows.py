"""Windows of features, for training the tokenizer."""

import random

import numpy as np
import torch
from torch.utils.data import Dataset

from dataset.motion_folder import MotionFolder, load_array
from utils.motion272 import check_features


class WindowDataset(Dataset):
    """Random windows of a split's clips; a clip counts once for every full window it holds, and at least once.

    An item is (clip id, features (window, 272) float32, not normalised, zero-padded; valid frames int). Files are
    memory-mapped, so an item reads its window alone. The offset depends on the item number alone (see
    ``EndlessBatches``).

    Raises:
        InputError: the split is missing or empty, or a file of it is unfit; values are checked as they are read.
    """

    def __init__(self, folder: MotionFolder, split: str, window: int):
        self.window = window
        self.clips = []  # one entry a window
        for clip_id in folder.ids(split):
            file = folder.motion_file(clip_id)
            clip = load_array(file, mmap_mode="r")
            check_features(clip[:1], str(file))
            self.clips += [file] * max(1, len(clip) // window)

    def __len__(self) -> int:
        return len(self.clips)

    def __getitem__(self, number: int) -> tuple[str, torch.Tensor, int]:
        file = self.clips[number % len(self.clips)]
        clip = load_array(file, mmap_mode="r")
        start = random.Random(number).randrange(max(1, len(clip) - self.window + 1))
        part = clip[start : start + self.window]
        check_features(part, str(file))
        features = torch.zeros(self.window, clip.shape[1])
        features[: len(part)] = torch.from_numpy(np.array(part, dtype=np.float32))
        return file.stem, features, len(part)
