"""The data folder of motions and captions: our own, in the layout of MotionMillion, or a published one.

motion_data/vector_272/<id>.npy     (T, 272) float32 features at 30 fps, not normalized
texts/<id>.txt                      one caption per line, plain or as HumanML3D's ``caption#tokens#from#to``
split/{train,val,test}.txt          one clip id per line
mean_std/vector_272/{mean,std}.npy  (272,) float32, over the training clips

Published layouts are in dataset/layouts.py. In every layout, the folder of the motions may hold uncompressed .tar files
of the .npy files instead (dataset/packing.py).
"""

import os
from pathlib import Path

import numpy as np

from dataset.clip_index import Motions, open_clips
from dataset.clip_rules import NO_CAPTION, NO_TEXT, read_descriptions
from dataset.clips import Clips
from dataset.feature_files import Place, load_features
from dataset.layouts import OURS, Split, layout_of
from dataset.packing import read_tars
from dataset.splits import split_of
from motion.features272 import FEATURES, LAYOUT
from utils.errors import InputError, shown
from utils.reading.arrays import read_vector
from utils.reading.files import MB
from utils.reading.texts import read_lines

VECTORS = Path(OURS.motions)
STATISTICS = Path(OURS.statistics[0])
LARGEST_LIST = 1024 * MB  # bytes of a split file


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
        InputError: the folder has none of the known layouts.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)
        self.layout = layout_of(self.path)

    # --- Clips

    def motions(self, split: str, required: bool = True) -> Clips:
        """Return all motions of a split of the tokenizer, without captions.

        Raises:
            InputError: the split is missing, or is empty although ``required``; in a folder of our own, a motion is
                missing or invalid.
        """
        return self._clips(split, has_captions=False, required=required)

    def clips(self, split: str, required: bool = True) -> Clips:
        """Return the captioned clips of a split of the generator, by the rules of the data set (dataset/clip_rules.py).

        Raises:
            InputError: the split is missing, or is empty although ``required``; in a folder of our own, a motion or its
                captions are missing or invalid.
        """
        return self._clips(split, has_captions=True, required=required)

    def ids(self, split: str, required: bool = True) -> list[str]:
        """Return the names of the motions of a split; arguments and errors as ``motions``."""
        return self.motions(split, required).ids

    def _clips(self, split: str, has_captions: bool, required: bool) -> Clips:
        described = Split(self.path, self.layout, split, self._split_file(split, has_captions), has_captions)
        clips = open_clips(described, list_motions)
        if required and not len(clips):
            listed = described.listed_in or described.motions
            if not clips.left_out:
                raise InputError(f"{listed} is empty; prepare more clips")
            is_silent = clips.left_out.keys() <= {NO_TEXT, NO_CAPTION}
            advice = f"write captions into {described.texts}" if is_silent else "correct or replace them"
            raise InputError(f"no clip of {listed} can be used: {clips.describe_left_out()}; {advice}")
        return clips

    def _split_file(self, split: str, has_captions: bool) -> Path | None:
        """Return the file that lists the motions of a split; None if the folder of the motions determines them."""
        layout = self.layout
        if layout.lists_all:
            return None
        folders = layout.generator_splits if has_captions else layout.tokenizer_splits
        folder = next((self.path / name for name in folders if (self.path / name).is_dir()), None)
        if folder is None and not layout.strict:
            return None
        file = (folder or self.path / folders[0]) / f"{split}.txt"
        if not os.path.exists(file):
            raise InputError(f"{file} is missing; list the clip ids of the split in it, one per line")
        return file

    # --- A motion of the split "train" by its name, in a folder with a file per motion

    def motion_file(self, name: str) -> Path:
        """Return the path of the features of a motion."""
        return self.path / self.layout.motion_folder("train") / f"{name}.npy"

    def motion(self, name: str) -> np.ndarray:
        """Return the validated features of a motion, (T, 272) float32."""
        return load_features(self.motion_file(name))

    def caption_file(self, name: str) -> Path:
        """Return the path of the captions of a motion."""
        return self.path / self.layout.text_folder("train") / f"{name}.txt"

    def captions(self, name: str) -> list[str]:
        """Return the captions of a whole motion, without those of its parts.

        Raises:
            InputError: the motion has no caption file, or the times of a line are not numbers.
        """
        split = Split(self.path, self.layout, "train", None, has_captions=True)
        described = read_descriptions(self.caption_file(name), name, split)
        return [caption for captions, part, _ in described if part is None for caption in captions]

    # --- Statistics

    def mean_std(self) -> tuple[np.ndarray, np.ndarray]:
        """Return mean (272,) and std (272,) of the training clips, float32."""
        return self._statistic("mean"), self._statistic("std")

    def _statistic(self, name: str) -> np.ndarray:
        names = (f"{name}.npy", f"{name.title()}.npy")  # Mean.npy in HumanML3D-272
        files = [self.path / folder / file for folder in self.layout.statistics for file in names]
        file = next((file for file in files if file.exists()), files[0])
        values = read_vector(file, FEATURES)
        if name == "std" and (values <= 0).any():
            raise InputError(f"{file} must hold values above zero; prepare the data again")
        return values


def list_motions(split: Split) -> Motions:
    """List the motions of a split, with their places in .tar files.

    A split without a list has the motions of its folder, or, if the folder is that of all splits, those that their
    name assigns to it (``split_of``).

    Raises:
        InputError: the list is missing or invalid, or a .tar file is damaged.
    """
    containers = sorted(file.name for file in split.motions.glob("*.tar"))
    places: dict[str, Place] = read_tars(split.motions, containers) if containers else {}
    if split.listed_in is not None:
        lines = read_lines(split.listed_in, "a list of clip ids", LARGEST_LIST)
        names = list(dict.fromkeys(line.strip() for line in lines if line.strip()))  # without repetitions
        return Motions(names, containers, places)
    if not split.motions.is_dir():
        raise InputError(f"{split.motions} is missing; add the motions of the split {shown(split.name)}")
    files = (file.relative_to(split.motions).with_suffix("") for file in split.motions.rglob("*.npy"))
    names = sorted({*places, *(file.as_posix() for file in files)})
    if not split.layout.lists_all:
        names = [name for name in names if split_of(name) == split.name]
    return Motions(names, containers, places)
