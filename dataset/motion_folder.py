"""The data folder of motions and captions, in the layout of MotionMillion.

motion_data/vector_272/<id>.npy     (T, 272) float32 features at 30 fps, not normalized
texts/<id>.txt                      one caption per line, plain or as HumanML3D's ``caption#tokens#from#to``
split/{train,val,test}.txt          one clip id per line
mean_std/vector_272/{mean,std}.npy  (272,) float32, over the training clips
"""

import hashlib
import os
from pathlib import Path

import numpy as np

from dataset.captions import CaptionLine
from motion.features272 import FEATURES, LAYOUT, check_features
from utils.errors import InputError, shown
from utils.reading.arrays import read_npy, read_npy_header, read_vector, to_float32
from utils.reading.texts import read_lines

VECTORS = Path("motion_data/vector_272")
STATISTICS = Path("mean_std/vector_272")
SPLITS = ("train", "val", "test")
MIRRORED = "_mirrored"  # suffix of the id of a mirrored clip


def split_of(clip_id: str, val_share: float = 0.03, test_share: float = 0.05) -> str:
    """Return the split of a clip, given by the hash of its id; a mirrored clip is in the split of its original."""
    digest = hashlib.sha256(clip_id.removesuffix(MIRRORED).encode()).digest()
    place = int.from_bytes(digest[:4], "big") / 2**32
    return "test" if place < test_share else "val" if place < test_share + val_share else "train"


class Statistics:
    """Mean and standard deviation of features, accumulated clip by clip."""

    def __init__(self) -> None:
        self.count, self.sum, self.square = 0, np.zeros(FEATURES), np.zeros(FEATURES)

    def add(self, count: int, total: np.ndarray, square: np.ndarray) -> None:
        """Add ``count`` frames with the sum ``total`` (272,) and the sum of squares ``square`` (272,)."""
        self.count, self.sum, self.square = self.count + count, self.sum + total, self.square + square

    def mean_std(self) -> tuple[np.ndarray, np.ndarray]:
        """Return mean (272,) and std (272,) in float32.

        The std is the same within each block of the layout, as in the public statistics.
        """
        mean = self.sum / self.count
        std = np.sqrt(np.maximum(self.square / self.count - mean**2, 0.0))
        for block in LAYOUT.values():
            std[block] = max(std[block].mean(), 1e-5)
        return mean.astype(np.float32), std.astype(np.float32)


class MotionFolder:
    """Reader of a data folder.

    Raises:
        InputError: the folder has no motions.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)
        if not (self.path / VECTORS).is_dir():
            raise InputError(f"{self.path} holds no {VECTORS}; create a data folder with prepare_data.py")

    def ids(self, split: str, required: bool = True) -> list[str]:
        """Return the clip ids of a split.

        Raises:
            InputError: the split file is missing, lists a clip that does not exist, or is empty although ``required``.
        """
        file = self.path / "split" / f"{split}.txt"
        if not os.path.exists(file):
            raise InputError(f"{file} is missing; list the clip ids of the split in it, one per line")
        lines = read_lines(file, "a list of clip ids")
        ids = list(dict.fromkeys(line.strip() for line in lines if line.strip()))  # without repetitions
        vectors = str(self.path / VECTORS)  # a Path per clip would be slow for millions of clips
        missing = next((name for name in ids if not os.path.isfile(f"{vectors}/{name}.npy")), None)
        if missing is not None:
            raise InputError(
                f"{shown(file, 180)} lists {shown(missing)}, but {shown(self.motion_file(missing), 180)} does not "
                "exist; prepare the data again"
            )
        if required and not ids:
            raise InputError(f"{file} is empty; prepare more clips")
        return ids

    def motion_file(self, clip_id: str) -> Path:
        """Return the path of the features of a clip."""
        return self.path / VECTORS / f"{clip_id}.npy"

    def motion(self, clip_id: str) -> np.ndarray:
        """Return the validated features of a clip, (T, 272) float32."""
        return load_features(self.motion_file(clip_id))

    def frames(self, clip_id: str) -> int:
        """Return the number of frames of a clip; see ``count_frames``."""
        return count_frames(self.motion_file(clip_id))

    def caption_file(self, clip_id: str) -> Path:
        """Return the path of the captions of a clip."""
        return self.path / "texts" / f"{clip_id}.txt"

    def captions(self, clip_id: str) -> list[str]:
        """Return the captions of a whole clip, without those of its parts."""
        return self.spans(clip_id).get(None, [])

    def spans(self, clip_id: str) -> dict[tuple[float, float] | None, list[str]]:
        """Return the captions of a clip by the part they describe: (from, to) in seconds, or None for the whole clip.

        Raises:
            InputError: the clip has no caption file, or the times of a line are not numbers.
        """
        file = self.caption_file(clip_id)
        if not os.path.exists(file):
            raise InputError(f"clip {clip_id} has no captions: {file} is missing; write them to it, one per line")
        spans: dict[tuple[float, float] | None, list[str]] = {}
        for number, line in enumerate(read_lines(file, "captions"), start=1):
            try:
                caption, span = CaptionLine.parse(line)
            except InputError as error:
                raise InputError(f"line {number} of {file} {error}") from error
            if caption:
                spans.setdefault(span, []).append(caption)
        return spans

    def mean_std(self) -> tuple[np.ndarray, np.ndarray]:
        """Return mean (272,) and std (272,) of the training clips, float32."""
        return self._statistic("mean"), self._statistic("std")

    def _statistic(self, name: str) -> np.ndarray:
        file = self.path / STATISTICS / f"{name}.npy"
        values = read_vector(file, FEATURES)
        if name == "std" and (values <= 0).any():
            raise InputError(f"{file} must hold values above zero; prepare the data again")
        return values


def count_frames(path: Path) -> int:
    """Return the number of frames of a feature file, from its header alone.

    Raises:
        InputError: the file is missing, truncated or invalid.
    """
    shape, dtype = read_npy_header(path)
    _check_shape(shape, dtype, path)
    return shape[0]


def open_features(path: Path) -> np.ndarray:
    """Map a (T, 272) feature file into memory; its values are not validated.

    Raises:
        InputError: the file is missing, truncated or invalid.
    """
    features = read_npy(path, mapped=True)
    _check_shape(features.shape, features.dtype, path)
    return features


def load_features(path: Path) -> np.ndarray:
    """Load and validate a (T, 272) feature file as float32.

    Raises:
        InputError: the file is missing, damaged or invalid.
    """
    features = read_npy(path)
    _check_shape(features.shape, features.dtype, path)
    features = to_float32(features)
    check_features(features, str(path))
    return features


def _check_shape(shape: tuple[int, ...], dtype: np.dtype, path: Path) -> None:
    if len(shape) != 2 or shape[1] != FEATURES or dtype.kind not in "fiu":
        raise InputError(
            f"{path} has shape {shown(shape, 60)} of {dtype} where (frames, {FEATURES}) of numbers is needed; "
            "convert the motion with prepare_data.py"
        )
    if not shape[0]:
        raise InputError(f"{path} holds no frames; remove it or record it again")
