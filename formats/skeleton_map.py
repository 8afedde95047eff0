"""Skeleton maps: YAML files that assign the joints of a motion file to the 22 SMPL-X joints."""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from motion.skeleton import JOINT_NAMES
from motion.source_motion import SourceMotion
from utils.errors import InputError, shown
from utils.reading.files import refusing
from utils.reading.texts import read_yaml

AXES = {"L": (1, 0, 0), "R": (-1, 0, 0), "U": (0, 1, 0), "D": (0, -1, 0), "F": (0, 0, 1), "B": (0, 0, -1)}


@dataclass
class SkeletonMap:
    """Map from a BVH hierarchy to the 22 joints, read from YAML (``configs/data/bandai_skeleton.yaml`` shows the keys).

    The file's length unit does not matter: motion is scaled by leg length.

    Raises:
        InputError: a joint is missing or unknown, or an entry is not of this form.
    """

    joints: dict[str, str | list[str]]
    """Source joint of each of the 22 SMPL-X joints, or two source joints whose orientations are averaged."""

    rest_axes: dict[str, dict] = field(default_factory=dict)
    """For source joints, the directions of the local x, y and z axes in a T-pose facing +z (L R U D F B), optionally
    with a pitch in degrees about +x. Default of a joint: x to the left, y up, z forward. A map without rest axes only
    names the joints; their axes are inferred from the file. Axes that do not fit the bones of a file are not used."""

    def __post_init__(self):
        wrong = sorted(set(JOINT_NAMES) ^ set(self.joints))
        if wrong:
            raise InputError(
                f"the skeleton map must name exactly the 22 joints of motion/skeleton.py; check {', '.join(wrong)}"
            )
        self._sources = {name: [entry] if isinstance(entry, str) else entry for name, entry in self.joints.items()}
        for name, entry in self._sources.items():
            if (
                not isinstance(entry, list)
                or len(entry) not in (1, 2)
                or not all(isinstance(part, str) for part in entry)
            ):
                raise InputError(
                    f"the skeleton map gives {entry!r} for {name}; give the name of one source joint, or two"
                )
        self.rest_axes = self.rest_axes or {}  # a key without a value in YAML
        self._rest_rotations = {name: _rest_rotation(name, **entry) for name, entry in self.rest_axes.items()}

    @classmethod
    def from_yaml(cls, path: str | Path) -> "SkeletonMap":
        """Read a map from a YAML file."""
        values = read_yaml(path)
        with refusing(Path(path), "a skeleton map", "start from configs/data/bandai_skeleton.yaml"):
            if not isinstance(values, dict):
                raise InputError("it is no table with the key joints")
            if "joints" not in values or values.keys() - {"joints", "rest_axes"}:
                raise InputError(
                    f"its keys should be joints and rest_axes, and are {shown(', '.join(map(str, values)))}"
                )
            return cls(**values)

    def fits(self, names: list[str]) -> bool:
        """Whether these joint names include all source joints of the map."""
        return not self._missing(names)

    def find(self, clip: SourceMotion) -> dict[str, list[int]]:
        """Return the indices of the source joints of each of the 22 joints.

        Raises:
            InputError: the file lacks a joint that the map names.
        """
        missing = self._missing(clip.names)
        if missing:
            raise InputError(
                f"the file has no joint {listed(missing, 6)} (it has {listed(clip.names)}); change the skeleton map"
            )
        return {name: [clip.names.index(source) for source in entry] for name, entry in self._sources.items()}

    def rest_rotations(self, clip: SourceMotion) -> dict[int, np.ndarray] | None:
        """Return the world rotation (3, 3) in the T-pose of each source joint by index; None without rest axes."""
        if not self.rest_axes:
            return None
        return {joint: self._rest_rotations.get(name, np.eye(3)) for joint, name in enumerate(clip.names)}

    def _missing(self, names: list[str]) -> list[str]:
        return sorted({source for entry in self._sources.values() for source in entry} - set(names))


def _rest_rotation(joint: str, axes: list[str], pitch: float = 0.0) -> np.ndarray:
    """Return the world rotation (3, 3) of a joint in the T-pose; see ``SkeletonMap.rest_axes``."""
    directions = np.array([AXES.get(letter, (0, 0, 0)) for letter in axes], dtype=np.float64).T  # columns: x, y, z
    if directions.shape != (3, 3) or round(np.linalg.det(directions)) != 1:
        raise InputError(
            f"rest_axes of {joint} are {axes}; name three right-handed axes with the letters {' '.join(AXES)}"
        )
    cos, sin = np.cos(np.deg2rad(pitch)), np.sin(np.deg2rad(pitch))
    return np.array([[1, 0, 0], [0, cos, -sin], [0, sin, cos]]) @ directions


def listed(names: list[str], most: int = 24) -> str:
    """Return the first names and the number of the others, for a message."""
    others = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + others
