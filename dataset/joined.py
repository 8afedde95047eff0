"""Two clips joined into one: what teaches the generator to go on from any motion with another sentence.

Recordings show one action each. Where a second one begins, its pose, height, walk and turn start as they were at the
end of the first one, and the difference fades like a critically damped spring (inertialization: Bollo, GDC 2018, in the
closed form of Holden, "Spring-It-On", 2021). All of this is done on the features, which hold no place and no heading.
"""

import numpy as np

from motion.features272 import LAYOUT, PELVIS_HEIGHT, local_joints, local_rotations
from motion.resample import FPS
from motion.rotation import (
    axis_angle_to_matrix,
    matrix_to_axis_angle,
    matrix_to_rotation_6d,
    rotation_6d_to_matrix,
    y_rotation,
)
from motion.skeleton import forward_kinematics

HALF_LIFE = 0.16  # seconds in which half of a difference fades


def join(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Features (T1 + T2, 272) of one motion that goes from ``first`` (T1, 272) over to ``second`` (T2, 272).

    The first T1 frames are ``first``. Both need at least two frames.
    """
    start, end = first[-2:].astype(np.float64), second.astype(np.float64)
    end[0, LAYOUT["root_velocity"]] = end[1, LAYOUT["root_velocity"]]  # a clip's first frame has no frame before
    end[0, LAYOUT["heading_change"]] = end[1, LAYOUT["heading_change"]]
    joined = end.copy()

    difference = start[-1, LAYOUT["root_velocity"]] - end[0, LAYOUT["root_velocity"]]
    joined[:, LAYOUT["root_velocity"]] += fading(difference, np.zeros(2), len(end))
    turns = [_heading_step(part[:, LAYOUT["heading_change"]]) for part in (start, end)]
    turn = turns[1] + fading(turns[0][-1] - turns[1][0], 0.0, len(end))
    joined[:, LAYOUT["heading_change"]] = matrix_to_rotation_6d(y_rotation(turn))

    before, after = local_rotations(start), local_rotations(end)  # (2, 22, 3, 3), (T2, 22, 3, 3)
    offset = fading(_turn(after[0], before[1]), _turn(before[0], before[1]) - _turn(after[0], after[1]), len(end))
    rotations = axis_angle_to_matrix(offset) @ after
    joined[:, LAYOUT["joint_rotations"]] = matrix_to_rotation_6d(rotations).reshape(len(end), -1)

    heights = [part[:, PELVIS_HEIGHT] for part in (start, end)]
    lift = fading(
        heights[0][1] - heights[1][0], (heights[0][1] - heights[0][0]) - (heights[1][1] - heights[1][0]), len(end)
    )
    pelvis = np.zeros((len(end), 3))
    pelvis[:, 1] = heights[1]
    moved = forward_kinematics(rotations, pelvis + lift[:, None] * (0, 1, 0)) - forward_kinematics(after, pelvis)
    positions = (local_joints(end) + moved).reshape(len(end), -1)
    joined[:, LAYOUT["joint_positions"]] = positions
    last = start[-1:, LAYOUT["joint_positions"]]
    joined[:, LAYOUT["joint_velocities"]] = np.diff(np.concatenate((last, positions)), axis=0)
    return np.concatenate((first, joined.astype(first.dtype)))


def fading(difference: np.ndarray, velocity: np.ndarray, frames: int) -> np.ndarray:
    """A difference (...) that changes by ``velocity`` a frame and fades: its values from frame 1, (frames, ...)."""
    decay = 2 * np.log(2) / (HALF_LIFE * FPS)  # a frame
    time = np.arange(1, frames + 1).reshape(-1, *[1] * np.ndim(difference))
    return np.exp(-decay * time) * (difference + (velocity + decay * difference) * time)


def _turn(start: np.ndarray, end: np.ndarray) -> np.ndarray:
    """Axis-angle (..., 3) of the turn that leads from ``start`` to ``end`` (..., 3, 3), in the parent's axes."""
    return matrix_to_axis_angle(end @ start.swapaxes(-1, -2))


def _heading_step(heading_change: np.ndarray) -> np.ndarray:
    """Angle (T) of the stored heading changes (T, 6), which are turns about the vertical axis."""
    return matrix_to_axis_angle(rotation_6d_to_matrix(heading_change))[:, 1]
