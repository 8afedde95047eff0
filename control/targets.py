"""The values of one track as NumPy arrays, sorted by the corrections that meet them."""

from functools import cached_property

import numpy as np

from control.track import Track
from motion.skeleton import JOINT_INDEX, PARENTS

SPAN = 15  # frames: longer spans of known places are paths in time, around which the pelvis may sway
LEG_JOINTS = [JOINT_INDEX[f"{side}_{name}"] for side in ("left", "right") for name in ("hip", "knee")]


class Targets:
    """Arrays of a track without batch dimensions: float64 and bool, of the names and shapes of ``Track``."""

    def __init__(self, track: Track) -> None:
        self.root: np.ndarray = track.root.double().numpy()  # (T, 2)
        self.root_known: np.ndarray = track.root_known.numpy()
        self.heading: np.ndarray = track.heading.double().numpy()  # (T,)
        self.heading_known: np.ndarray = track.heading_known.numpy()
        self.joints: np.ndarray = track.joints.double().numpy()  # (T, 22, 3)
        self.joints_known: np.ndarray = track.joints_known.numpy()
        self.rotations: np.ndarray = track.rotations.double().numpy()  # (T, 22, 3, 3)
        self.rotations_known: np.ndarray = track.rotations_known.numpy()
        self.path: np.ndarray = track.path.double().numpy()  # (P, 2)

    @property
    def empty(self) -> bool:
        """Whether nothing is asked."""
        known = (self.root_known, self.heading_known, self.joints_known, self.rotations_known)
        return len(self.path) == 0 and not any(each.any() for each in known)

    @cached_property
    def pinned(self) -> np.ndarray:
        """(T, 22, 3) known positions that do not follow from known rotations."""
        pinned: np.ndarray = self.joints_known.copy()
        pinned[:, 1:] &= ~self.rotations_known[:, PARENTS[1:], None]
        pinned[:, 0] &= ~self.rotations_known[:, :1]
        return pinned

    @cached_property
    def asked(self) -> np.ndarray:
        """(T, 22) joints that are pinned along some axis."""
        return np.any(self.pinned, axis=2)

    @cached_property
    def posed(self) -> np.ndarray:
        """(T,) frames with known rotations."""
        return np.any(self.rotations_known, axis=1)

    @cached_property
    def posed_legs(self) -> np.ndarray:
        """(T,) frames in which a leg is given by its rotations."""
        return np.any(self.rotations_known[:, LEG_JOINTS], axis=1)
