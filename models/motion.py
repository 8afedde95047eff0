"""Generated motion: whole, or in the chunks of a stream."""

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from control.constraints import Constraints
from control.poses import Placement
from control.report import ConstraintError
from motion.features272 import local_rotations, recover_root, recover_rotations
from motion.rotation import y_rotation
from motion.skeleton import forward_kinematics
from motion.smplx import motion_to_smplx85

ORIGIN = Placement(0.0, 0.0, 0.0)


@dataclass
class Motion:
    """One generated motion at 30 frames per second.

    Attributes:
        prompt: Text of the prompt; " | " separates the sentences of a sequence.
        seed: Seed of the sampling.
        tokens: (n,) int64.
        features: (T, 272) float32, not normalized; under constraints, after the corrections.
        start: Place of the first frame: x and z of the pelvis in metres, heading in radians (0 is +z).
        constraints: Constraints that it was generated under.
        errors: Remaining distance in metres from each of them.
    """

    prompt: str
    seed: int
    tokens: np.ndarray
    features: np.ndarray
    start: Placement = ORIGIN
    constraints: Constraints | None = None
    errors: list[ConstraintError] = field(default_factory=list)

    @cached_property
    def smplx85(self) -> np.ndarray:
        """(T, 85) SMPL-X body parameters; see ``motion.features272.features_to_smplx85``."""
        return motion_to_smplx85(*self._world())

    @cached_property
    def joints(self) -> np.ndarray:
        """(T, 22, 3) world joint positions in metres, y up, by forward kinematics."""
        return forward_kinematics(*self._world())

    def _world(self) -> tuple[np.ndarray, np.ndarray]:
        """Return local rotations (T, 22, 3, 3), the root's in the world, and the pelvis (T, 3)."""
        heading, position = place_of(self.start)
        return recover_rotations(
            self.features, heading.astype(self.features.dtype), position.astype(self.features.dtype)
        )


@dataclass
class MotionChunk:
    """The next frames of a streamed motion; the concatenated chunks are the motion.

    Attributes:
        part: Number of the sentence, from 0; -1 for the initial motion.
        tokens: (n,) int64.
        features: (T, 272) float32, not normalized.
        smplx85: (T, 85) SMPL-X body parameters.
        joints: (T, 22, 3) metres.
    """

    part: int
    tokens: np.ndarray
    features: np.ndarray
    smplx85: np.ndarray
    joints: np.ndarray

    @classmethod
    def of(
        cls, part: int, tokens: list[int], features: np.ndarray, rotations: np.ndarray, pelvis: np.ndarray
    ) -> "MotionChunk":
        """Return the chunk of local rotations (T, 22, 3, 3), the root's in the world, and the pelvis (T, 3)."""
        smplx85, joints = motion_to_smplx85(rotations, pelvis), forward_kinematics(rotations, pelvis)
        values = (each.astype(np.float32) for each in (features, smplx85, joints))
        return cls(part, np.array(tokens, dtype=np.int64), *values)


class RootTracker:
    """World position and heading of the root after the frames so far."""

    def __init__(self, start: Placement = ORIGIN) -> None:
        self.heading, self.position = place_of(start)

    def place(self, features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Place the next frames (T, 272) where the previous ones ended.

        Returns:
            Local rotations (T, 22, 3, 3), the root's in the world, and the pelvis (T, 3), in float64.
        """
        exact = features.astype(np.float64)
        heading, pelvis = recover_root(exact, self.heading, self.position)
        self.heading, self.position = heading[-1], pelvis[-1]
        rotations = local_rotations(exact)
        rotations[:, 0] = heading @ rotations[:, 0]
        return rotations, pelvis


def place_of(start: Placement) -> tuple[np.ndarray, np.ndarray]:
    """Return the heading (3, 3) and the position (3,) of the root before the first frame."""
    return y_rotation(np.array(start.heading)), np.array([start.x, 0.0, start.z])
