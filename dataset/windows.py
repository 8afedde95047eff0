"""Windows of features for the training of the tokenizer."""

import random

import numpy as np
import pyarrow as pa
import torch
from torch.utils.data import Dataset

from dataset.motion_folder import MotionFolder, open_features
from motion.features272 import check_features
from utils.reading.arrays import to_float32


class WindowDataset(Dataset):
    """Random windows of the clips of a split; each clip counts once per full window it holds, and at least once.

    An item is (clip id, features (window, 272) float32, number of valid frames). The features are not normalized and
    are zero-padded. The offset of the window depends only on the item number (see ``dataset/batches.py``). Opening
    reads only the file headers and keeps an index of about 40 bytes per clip. An item maps its file and reads only its
    window.

    Args:
        folder: Data folder.
        split: "train", "val" or "test".
        window: Frames per window.

    Raises:
        InputError: the split is missing or empty, or a file is invalid. Values are validated when they are read.
    """

    def __init__(self, folder: MotionFolder, split: str, window: int):
        self.folder, self.window = folder, window
        ids = folder.ids(split)
        self.ids = pa.array(ids)
        windows = [max(1, folder.frames(clip_id) // window) for clip_id in ids]
        self.ends = np.cumsum(windows)  # number of windows up to and including each clip

    def __len__(self) -> int:
        return int(self.ends[-1])

    def __getitem__(self, number: int) -> tuple[str, torch.Tensor, int]:
        clip_id = self.ids[np.searchsorted(self.ends, number % len(self), "right")].as_py()
        file = self.folder.motion_file(clip_id)
        clip = open_features(file)
        start = random.Random(number).randrange(max(1, len(clip) - self.window + 1))
        part = to_float32(clip[start : start + self.window])
        check_features(part, str(file))
        features = torch.zeros(self.window, clip.shape[1])
        features[: len(part)] = torch.from_numpy(np.array(part))
        return clip_id, features, len(part)
