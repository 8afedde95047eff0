"""The canonical folder of motions and captions, MotionMillion's layout:

motion_data/vector_272/<id>.npy   (T, 272) float32 features at 30 fps, not normalised
texts/<id>.txt                    a caption a line, plain or HumanML3D's ``caption#tokens#from#to``
split/{train,val,test}.txt        an id a line
mean_std/vector_272/{mean,std}.npy
"""

import hashlib
import math
import os
from pathlib import Path

import numpy as np

from motion.features272 import FEATURES, LAYOUT, check_features
from utils.errors import InputError, reason_of

VECTORS = Path("motion_data/vector_272")
STATISTICS = Path("mean_std/vector_272")
SPLITS = ("train", "val", "test")
MIRRORED = "_mirrored"  # suffix of a mirrored clip's id


def split_of(clip_id: str, val_share: float = 0.03, test_share: float = 0.05) -> str:
    """The split of a clip by the hash of its id: the same on every machine; a mirrored clip stays with its original."""
    digest = hashlib.sha256(clip_id.removesuffix(MIRRORED).encode()).digest()
    place = int.from_bytes(digest[:4], "big") / 2**32
    return "test" if place < test_share else "val" if place < test_share + val_share else "train"


class Statistics:
    """Mean and standard deviation of features, gathered clip by clip."""

    def __init__(self):
        self.count, self.sum, self.square = 0, np.zeros(FEATURES), np.zeros(FEATURES)

    def add(self, count: int, total: np.ndarray, square: np.ndarray) -> None:
        self.count, self.sum, self.square = self.count + count, self.sum + total, self.square + square

    def mean_std(self) -> tuple[np.ndarray, np.ndarray]:
        """mean (272) and std (272) in float32; std is one value a block of the layout, as in the public statistics."""
        mean = self.sum / self.count
        std = np.sqrt(np.maximum(self.square / self.count - mean**2, 0.0))
        for block in LAYOUT.values():
            std[block] = max(std[block].mean(), 1e-5)
        return mean.astype(np.float32), std.astype(np.float32)


class MotionFolder:
    """Reads a canonical folder."""

    def __init__(self, path: str | Path):
        self.path = Path(path)
        if not (self.path / VECTORS).is_dir():
            raise InputError(f"{self.path} holds no {VECTORS}; make a data folder with prepare_data.py")

    def ids(self, split: str, required: bool = True) -> list[str]:
        """Clip ids of a split.

        Raises:
            InputError: the split file is missing, names a clip that is not there, or is empty although ``required``.
        """
        file = self.path / "split" / f"{split}.txt"
        if not file.is_file():
            raise InputError(f"{file} is missing; list the clip ids of the split there, one a line")
        ids = list(dict.fromkeys(line.strip() for line in read_lines(file) if line.strip()))  # each once
        vectors = self.path / VECTORS  # of text, as a Path for each of millions of clips would take a while
        missing = next((name for name in ids if not os.path.isfile(f"{vectors}/{name}.npy")), None)
        if missing is not None:
            raise InputError(
                f"{file} names {missing}, which has no {self.motion_file(missing)}; prepare the data again"
            )
        if required and not ids:
            raise InputError(f"{file} is empty; prepare more clips")
        return ids

    def motion_file(self, clip_id: str) -> Path:
        return self.path / VECTORS / f"{clip_id}.npy"

    def motion(self, clip_id: str) -> np.ndarray:
        """Features (T, 272) float32 of a clip, checked."""
        return load_features(self.motion_file(clip_id))

    def frames(self, clip_id: str) -> int:
        """How many frames a clip has; see ``count_frames``."""
        return count_frames(self.motion_file(clip_id))

    def caption_file(self, clip_id: str) -> Path:
        return self.path / "texts" / f"{clip_id}.txt"

    def captions(self, clip_id: str) -> list[str]:
        """Captions of the whole clip: the text before the first ``#``; lines for parts of a clip are left out."""
        return self.spans(clip_id).get(None, [])

    def spans(self, clip_id: str) -> dict[tuple[float, float] | None, list[str]]:
        """Captions of a clip by what they describe: from one second to another, or (None) the whole clip.

        Raises:
            InputError: the clip has no caption file, or a line of it has no times where they belong.
        """
        file = self.caption_file(clip_id)
        if not file.is_file():
            raise InputError(f"clip {clip_id} has no captions: {file} is missing; write them there, one a line")
        spans = {}
        for number, line in enumerate(read_lines(file), start=1):
            caption, *others = (part.strip() for part in line.split("#"))
            if caption:
                spans.setdefault(_span(others[1:3], f"line {number} of {file}"), []).append(caption)
        return spans

    def mean_std(self) -> tuple[np.ndarray, np.ndarray]:
        """mean (272) and std (272), float32."""
        return tuple(self._statistic(name) for name in ("mean", "std"))

    def _statistic(self, name: str) -> np.ndarray:
        file = self.path / STATISTICS / f"{name}.npy"
        values = load_array(file)
        if values.shape != (FEATURES,) or not np.isfinite(values).all() or (name == "std" and (values <= 0).any()):
            raise InputError(f"{file} is not {FEATURES} finite values (std: above zero); prepare the data again")
        return values.astype(np.float32)


def _span(times: list[str], source: str) -> tuple[float, float] | None:
    """The seconds (from, to) of a caption line; None for the whole clip, which HumanML3D writes as 0.0#0.0 or nan."""
    if len(times) < 2:
        return None
    try:
        start, end = (0.0 if math.isnan(time) else time for time in map(float, times))
    except ValueError as error:
        raise InputError(f"{source} has {'#'.join(times)} where from#to in seconds is needed; correct it") from error
    return (start, end) if start or end else None


def read_lines(path: Path) -> list[str]:
    """The lines of a UTF-8 text file; InputError names the file if it cannot be read."""
    try:
        return path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read as UTF-8 text ({error}); write it again") from error


def load_array(path: Path, mmap_mode: str | None = None) -> np.ndarray:
    """Load or map a .npy file (no pickles); InputError names the file if it is missing, damaged or no array."""
    try:
        return np.load(path, mmap_mode, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise InputError(
            f"{path} cannot be read as a NumPy array ({reason_of(error)}); prepare the data again"
        ) from error


def count_frames(path: Path) -> int:
    """Frames of a feature file by its header alone; InputError names the file if it is missing, cut short or unfit."""
    try:
        with open(path, "rb") as file:
            np.lib.format.read_magic(file)
            (frames, width), _, dtype = np.lib.format.read_array_header_1_0(file)
            if width == FEATURES and os.fstat(file.fileno()).st_size >= file.tell() + frames * width * dtype.itemsize:
                return frames
    except (OSError, ValueError):
        pass
    clip = load_array(path, mmap_mode="r")  # says what is wrong, or reads what NumPy writes only for unusual types
    check_features(clip[:1], str(path))
    return len(clip)


def load_features(path: Path) -> np.ndarray:
    """Load and check a (T, 272) feature file as float32."""
    features = load_array(path)
    check_features(features, str(path))
    return features.astype(np.float32, copy=False)
