"""A clip: one validated motion with a title. Functions that draw or export motion accept a clip or a plain array."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from torch import Tensor

from motion.body_shape import leg_scale, rest_offsets
from motion.features272 import features_from_motion
from motion.skeleton import forward_kinematics
from motion.smplx import SMPLX85, check_smplx85, motion_to_smplx85, smplx85_to_motion


@dataclass(frozen=True, eq=False)
class Clip:
    """One motion at 30 frames per second, y up, validated on construction.

    Raises:
        InputError: unusable motion, as in ``check_smplx85``.
    """

    smplx85: np.ndarray
    """(T, 85) poses, float32 or float64."""
    title: str = ""
    """Any text, for example the prompt."""
    notes: tuple[str, ...] = ()
    """Decisions of the reader that the user should know."""
    arrays: Mapping[str, Any] = field(default_factory=dict)
    """Further arrays for its .npz file, which belong to these poses: motion tokens, for example."""
    rights: str = ""
    """License, in one line; files of the motion state it."""

    def __post_init__(self):
        object.__setattr__(self, "smplx85", check_smplx85(self.smplx85))

    def features(self) -> np.ndarray:
        """Return (T, 272) features, not normalized; the clip is turned to face +z, grounded and scaled to mean legs."""
        rotations, pelvis = smplx85_to_motion(self.smplx85)
        return features_from_motion(rotations, pelvis * leg_scale(self.betas)).astype(np.float32)

    @property
    def betas(self) -> np.ndarray:
        """(10,) body shape, that of the first frame."""
        return self.smplx85[0, SMPLX85["betas"]]

    def motion(self) -> tuple[np.ndarray, np.ndarray]:
        """Return local rotations (T, 22, 3, 3), the root's in the world, and the pelvis (T, 3) in metres, float64."""
        return smplx85_to_motion(self.smplx85.astype(np.float64))

    def joints(self) -> np.ndarray:
        """Return the (T, 22, 3) joint positions of the clip's body in metres, in float64."""
        return forward_kinematics(*self.motion(), rest_offsets(self.betas))

    def with_motion(self, rotations: np.ndarray, pelvis: np.ndarray) -> "Clip":
        """Return a clip of the same body and title with the motion (T, 22, 3, 3) and (T, 3)."""
        return replace(self, smplx85=motion_to_smplx85(rotations, pelvis, self.betas))


AnyMotion = Clip | np.ndarray | Tensor


def rights_of(motions: AnyMotion | Sequence[AnyMotion]) -> str:
    """Return the licenses of motions in one line; empty if none is stated."""
    several = motions if isinstance(motions, list | tuple) else [motions]
    return "; ".join(dict.fromkeys(clip.rights for clip in several if isinstance(clip, Clip) and clip.rights))


def smplx85_of(motion: AnyMotion) -> np.ndarray:
    """Return a (T, 85) float64 copy of the poses of a clip, or of an array, which is validated first.

    Args:
        motion: A clip, or a (T, 85) or (1, T, 85) array, NumPy or torch.

    Raises:
        InputError: unusable motion, as in ``check_smplx85``.
    """
    return (motion.smplx85 if isinstance(motion, Clip) else check_smplx85(motion)).astype(np.float64)
