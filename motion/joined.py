"""Joining of two clips into one, which teaches the generator to continue any motion with another sentence.

Recordings show one action each. At the seam, the pose, height, velocity and turn of the second clip start with the
values that end the first clip, and the difference decays like a critically damped spring (inertialization: Bollo, GDC
2018, in the closed form of Holden, "Spring-It-On", 2021). This works on the features, which hold neither a place nor a
heading.
"""

import numpy as np

from motion.features272 import LAYOUT, PELVIS_HEIGHT, local_joints, local_rotations
from motion.resample import FPS
from motion.rotation import (
    axis_angle_to_matrix,
    matrix_to_axis_angle,
    matrix_to_rotation_6d,
    rotation_6d_to_matrix,
    rotation_between,
    y_rotation,
)
from motion.skeleton import forward_kinematics

HALF_LIFE = 0.16  # seconds in which a difference halves


def join(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Join two clips with a smooth transition.

    Args:
        first: Features of the first clip, (T1, 272), T1 >= 2.
        second: Features of the second clip, (T2, 272), T2 >= 2.

    Returns:
        Features (T1 + T2, 272). The first T1 frames are ``first``, unchanged.
    """
    start, end = first[-2:].astype(np.float64), second.astype(np.float64)
    end[0, LAYOUT["root_velocity"]] = end[1, LAYOUT["root_velocity"]]  # the first frame of a clip has no predecessor
    end[0, LAYOUT["heading_change"]] = end[1, LAYOUT["heading_change"]]
    joined = end.copy()

    difference = start[-1, LAYOUT["root_velocity"]] - end[0, LAYOUT["root_velocity"]]
    joined[:, LAYOUT["root_velocity"]] += decaying(difference, np.zeros(2), len(end))
    turns = [_heading_step(part[:, LAYOUT["heading_change"]]) for part in (start, end)]
    heading_steps = turns[1] + decaying(turns[0][-1] - turns[1][0], 0.0, len(end))
    joined[:, LAYOUT["heading_change"]] = matrix_to_rotation_6d(y_rotation(heading_steps))

    before, after = local_rotations(start), local_rotations(end)  # (2, 22, 3, 3), (T2, 22, 3, 3)
    turn = rotation_between(after[0], after[1])  # per frame, also from the frame before the second clip to its first
    offset = decaying(
        rotation_between(axis_angle_to_matrix(-turn) @ after[0], before[1]),
        rotation_between(before[0], before[1]) - turn,
        len(end),
    )
    rotations = axis_angle_to_matrix(offset) @ after
    joined[:, LAYOUT["joint_rotations"]] = matrix_to_rotation_6d(rotations).reshape(len(end), -1)

    heights = [part[:, PELVIS_HEIGHT] for part in (start, end)]
    rises = [height[1] - height[0] for height in heights]
    lift = decaying(heights[0][1] - (heights[1][0] - rises[1]), rises[0] - rises[1], len(end))
    pelvis = np.zeros((len(end), 3))
    pelvis[:, 1] = heights[1]
    moved = forward_kinematics(rotations, pelvis + lift[:, None] * (0, 1, 0)) - forward_kinematics(after, pelvis)
    positions = (local_joints(end) + moved).reshape(len(end), -1)
    joined[:, LAYOUT["joint_positions"]] = positions
    last = start[-1:, LAYOUT["joint_positions"]]
    joined[:, LAYOUT["joint_velocities"]] = np.diff(np.concatenate((last, positions)), axis=0)
    return np.concatenate((first, joined.astype(first.dtype)))


def decaying(difference: np.ndarray, velocity: np.ndarray | float, frames: int) -> np.ndarray:
    """Return a decaying difference at frames 1, 2, ..., (frames, ...).

    Args:
        difference: Difference at frame 0, (...).
        velocity: Change of the difference per frame at frame 0, (...).
    """
    decay = 2 * np.log(2) / (HALF_LIFE * FPS)  # per frame
    time = np.arange(1, frames + 1).reshape(-1, *[1] * np.ndim(difference))
    return np.exp(-decay * time) * (difference + (velocity + decay * difference) * time)


def _heading_step(heading_change: np.ndarray) -> np.ndarray:
    """Angles (T,) in radians of stored heading changes (T, 6), which are rotations about the vertical axis."""
    return matrix_to_axis_angle(rotation_6d_to_matrix(heading_change))[:, 1]
