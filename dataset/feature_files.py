"""Files of 272-dim features: one .npy file per motion, or many of them in an uncompressed .tar file."""

import mmap
from pathlib import Path
from typing import NamedTuple

import numpy as np

from motion.features272 import FEATURES, check_features
from utils.errors import InputError, shown
from utils.reading.arrays import read_npy, read_npy_header, to_float32, view_npy
from utils.reading.files import open_regular

OWN_FILE = -1


class Place(NamedTuple):
    """Place of a motion: a file of its own, or an .npy file within a container."""

    container: int = OWN_FILE
    """Number of the container."""
    offset: int = 0
    """Position in the container, in bytes."""
    size: int = 0
    """Size in the container, in bytes."""


class FeatureFiles:
    """Motions of a folder, in files of their own or in containers (.tar files).

    Containers are mapped into memory when they are first used, and again in another process.

    Args:
        folder: Folder of the motions.
        containers: Names of the containers in it.
    """

    def __init__(self, folder: Path, containers: list[str]):
        self.folder, self.containers = folder, containers
        self._mapped: dict[int, memoryview] = {}

    def source(self, name: str, place: Place) -> str:
        """Return where a motion is, for messages."""
        inside = "" if place.container == OWN_FILE else f"/{self.containers[place.container]}"
        return f"{self.folder}{inside}/{name}.npy"

    def open(self, name: str, place: Place) -> np.ndarray:
        """Map the features of a motion, (T, 272); their values are not validated.

        Raises:
            InputError: the file is missing, truncated or invalid.
        """
        source = self.source(name, place)
        if place.container == OWN_FILE:
            features = read_npy(source, mapped=True)
        else:
            content = self._map(place.container)
            if place.offset + place.size > len(content):
                raise InputError(f"{source} lies beyond the end of its archive; copy the archive again")
            features = view_npy(content[place.offset : place.offset + place.size], source)
        check_shape(features.shape, features.dtype, source)
        return features

    def count_frames(self, name: str, place: Place) -> int:
        """Return the number of frames of a motion, from its header alone; raises InputError as ``open``."""
        if place.container != OWN_FILE:
            return len(self.open(name, place))
        source = self.source(name, place)
        header = read_npy_header(source)
        check_shape(*header, source)
        return header.shape[0]

    def _map(self, container: int) -> memoryview:
        if container not in self._mapped:
            with open_regular(self.folder / self.containers[container], "an archive of motions") as file:
                self._mapped[container] = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
        return self._mapped[container]

    def __getstate__(self) -> dict:
        return self.__dict__ | {"_mapped": {}}


def load_features(path: str | Path) -> np.ndarray:
    """Load and validate a (T, 272) feature file as float32.

    Raises:
        InputError: the file is missing, damaged or invalid.
    """
    features = read_npy(path)
    check_shape(features.shape, features.dtype, path)
    return checked_features(features, path)


def checked_features(features: np.ndarray, source: str | Path) -> np.ndarray:
    """Return features (T, 272) as float32; raises InputError if they are not finite."""
    features = to_float32(features)
    check_features(features, str(source))
    return features


def check_shape(shape: tuple[int, ...], dtype: np.dtype, source: str | Path) -> None:
    """Raise InputError if an array is not (frames, 272) of numbers with at least one frame."""
    if len(shape) != 2 or shape[1] != FEATURES or dtype.kind not in "fiu":
        raise InputError(
            f"{source} has shape {shown(shape, 60)} of {dtype} where (frames, {FEATURES}) of numbers is needed; "
            "convert the motion with prepare_data.py"
        )
    if not shape[0]:
        raise InputError(f"{source} holds no frames; remove it or record it again")
