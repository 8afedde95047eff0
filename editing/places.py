"""Places of motions on the floor: a motion is turned and moved as a whole, with its heights unchanged.

A motion is local rotations (T, 22, 3, 3), the root's in the world frame, and the pelvis (T, 3) in metres.
"""

from dataclasses import dataclass

import numpy as np

from motion.features272 import heading_angle
from motion.rotation import y_rotation
from motion.skeleton import turn_world

Motion = tuple[np.ndarray, np.ndarray]  # rotations and pelvis
FLOOR = np.array([1.0, 0.0, 1.0])  # factor that drops the height of a position


@dataclass(frozen=True)
class Move:
    """A turn about the vertical axis through a point, followed by the movement of this point on the floor."""

    turn: float
    """Angle in radians; positive turns +z toward +x."""
    start: np.ndarray
    """(3,) the point in metres; its height is not used."""
    end: np.ndarray
    """(3,) the place of the point after the movement."""

    @classmethod
    def between(cls, source: Motion, target: Motion) -> "Move":
        """Return the move that takes the root of a frame, (22, 3, 3) and (3,), to the place and heading of another."""
        turn = heading_angle(target[0][0]) - heading_angle(source[0][0])
        return cls(float(turn), source[1], target[1])

    def apply(self, rotations: np.ndarray, pelvis: np.ndarray) -> Motion:
        """Return the moved motion."""
        turned, around = turn_world(rotations, pelvis - self.start * FLOOR, y_rotation(np.array(self.turn)))
        return turned, around + self.end * FLOOR

    def inverse(self) -> "Move":
        """Return the move that undoes this one."""
        return Move(-self.turn, self.end, self.start)


def frames(motion: Motion, at: int | slice) -> Motion:
    """Return one frame of a motion, (22, 3, 3) and (3,), or those of a slice."""
    return motion[0][at], motion[1][at]
