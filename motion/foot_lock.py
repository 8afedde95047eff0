"""Foot lock: keep standing feet from sliding, and all feet above the floor.

While a foot stands (``measures.standing_feet``), its joint at the ball of the foot is held over its mean position on
the floor, if it stays near that position; the correction fades in before and fades out after. A foot below the floor
is lifted. The leg follows by two-bone inverse kinematics: hip and knee rotate so that the ankle reaches its target, the
knee stays in its plane, and the foot keeps its orientation. All other joints, including the pelvis, keep their exact
positions.
"""

import numpy as np
from scipy.ndimage import maximum_filter1d, uniform_filter1d

from motion.body_shape import rest_offsets
from motion.clip import AnyMotion, smplx85_of
from motion.limbs import LEGS, move_end
from motion.measures import standing_feet
from motion.resample import FPS
from motion.rotation import matrix_to_axis_angle
from motion.skeleton import JOINT_INDEX, parent_relative, world_pose
from motion.smplx import SMPLX85, smplx85_to_motion
from motion.spread import known_spans, smoothstep

FADE = 6  # frames over which a correction fades in and out
FARTHEST = 0.2  # metres; a foot that moves farther from its mean position glides with the body, and is not held
DEEPEST = 0.1  # metres; a motion whose feet are lower has its floor elsewhere than at y = 0


def lock_feet(motion: AnyMotion, fps: float = FPS) -> np.ndarray:
    """Return a (T, 85) motion whose feet do not slide while they stand, and do not sink below the floor (y = 0).

    Args:
        motion: A clip or a (T, 85) array.
        fps: Frames per second of the motion.

    Raises:
        InputError: unusable motion, as in ``check_smplx85``.
    """
    smplx85 = smplx85_of(motion)
    rotations, pelvis = smplx85_to_motion(smplx85)
    world, joints = world_pose(rotations, rest_offsets(smplx85[0, SMPLX85["betas"]]), root=pelvis)
    feet = joints[:, [JOINT_INDEX[f"{side}_foot"] for side in LEGS]]  # (T, 2, 3)
    ankles = joints[:, [leg.end for leg in LEGS.values()]]
    raised = lifts(np.minimum(feet[..., 1], ankles[..., 1]))
    for number, (leg, contacts) in enumerate(zip(LEGS.values(), standing_feet(joints, fps).T, strict=True)):
        steps = held_steps(feet[:, number] * (1, 0, 1), contacts)
        steps[:, 1] = raised[:, number]
        move_end(leg, world, joints, steps)
    axis_angle = smplx85[:, SMPLX85["axis_angle"]].reshape(len(smplx85), -1, 3)
    changed = [joint for leg in LEGS.values() for joint in leg.joints]
    axis_angle[:, changed] = matrix_to_axis_angle(parent_relative(world)[:, changed])
    smplx85[:, SMPLX85["axis_angle"]] = axis_angle.reshape(len(smplx85), -1)
    return smplx85


def held_steps(positions: np.ndarray, contacts: np.ndarray) -> np.ndarray:
    """Return (T, 3) steps that hold a foot at (T, 3) positions still during (T,) contacts and fade around them."""
    steps, runs = np.zeros_like(positions), []
    for first, end in known_spans(contacts):
        held = positions[first:end].mean(axis=0) - positions[first:end]
        if np.linalg.norm(held, axis=1).max() <= FARTHEST:
            steps[first:end] = held
            runs.append((first, end))
    for number in range(len(runs) + 1):  # the frames before, between and after the contacts
        start = runs[number - 1][1] if number > 0 else 0
        stop = runs[number][0] if number < len(runs) else len(positions)
        gap = np.arange(start, stop)
        width = min(FADE, len(gap) + 1)  # in a short gap one correction blends into the next
        if number > 0:
            steps[gap] += _fade((gap - start + 1) / width) * steps[start - 1]
        if number < len(runs):
            steps[gap] += _fade((stop - gap) / width) * steps[stop]
    return steps


def _fade(share: np.ndarray) -> np.ndarray:
    """Map (N,) shares to a column that falls smoothly from 1 at share 0 to 0 at share 1 and beyond."""
    return (1 - smoothstep(np.minimum(share, 1)))[:, None]


def lifts(heights: np.ndarray) -> np.ndarray:
    """Return smooth lifts (T, 2) that keep the lowest joint of each foot, at heights (T, 2), on or above the floor.

    They are zero if a foot is deeper than ``DEEPEST`` in any frame.
    """
    depths = np.maximum(-heights, 0)
    if depths.max() > DEEPEST:
        return np.zeros_like(heights)
    return uniform_filter1d(maximum_filter1d(depths, FADE + 1, axis=0), FADE + 1, axis=0)
