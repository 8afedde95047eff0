"""Corrections of the feet: they stand as in the motion before the corrections, meet their pins, and stay above ground.

While a foot stood before the corrections, it moves over the floor as it did then, turned and displaced as a whole, so
that a correction adds no sliding. The difference fades within a second around the contact.
"""

import numpy as np

from control.targets import Targets
from motion.features272 import heading_angle
from motion.limbs import LEGS, move_end
from motion.measures import standing_feet
from motion.rotation import y_rotation
from motion.skeleton import JOINT_INDEX, REST_OFFSETS, forward_kinematics, parent_relative, world_pose
from motion.spread import known_spans, spread

LIFTED = 0.08  # metres: a foot that poses have lifted by more does not stand any more


def plant(
    before: tuple[np.ndarray, np.ndarray],
    rotations: np.ndarray,
    pelvis: np.ndarray,
    lifted: np.ndarray,
    targets: Targets,
) -> np.ndarray:
    """Rotate hips and knees so that standing feet stand and pinned feet are in place.

    Args:
        before: Rotations (T, 22, 3, 3) and pelvis (T, 3) before all corrections.
        rotations: (T, 22, 3, 3) local rotations after the corrections of trunk and pelvis.
        pelvis: (T, 3) metres.
        lifted: (T, 22) metres by which the corrections of the pose have lifted joints.
        targets: What is asked of the T frames.

    Returns:
        Rotations of the same shape.
    """
    old = forward_kinematics(*before)
    turn = np.unwrap(heading_angle(rotations[:, 0]) - heading_angle(before[0][:, 0]))
    world, joints = world_pose(rotations, REST_OFFSETS, root=pelvis)
    contacts = standing_feet(old)
    for number, (side, leg) in enumerate(LEGS.items()):
        foot = JOINT_INDEX[f"{side}_foot"]
        stands = contacts[:, number] & (np.abs(lifted[:, foot]) < LIFTED)
        known = targets.posed_legs | np.any(targets.asked[:, [leg.end, foot]], axis=1)
        steps = np.zeros_like(pelvis)
        for joint in (leg.end, foot):
            pinned = targets.pinned[:, joint]
            steps[pinned] = (targets.joints[:, joint] - joints[:, joint])[pinned]
        for first, end in known_spans(stands):
            run = slice(first, end)
            standing = _standing(old[run, foot], joints[run, foot], turn[run])
            steps[run] = _anchored(standing, known[run], steps[run])
        steps = spread(stands | known, steps)
        sunk = np.minimum(old[:, foot, 1], 0) - (joints[:, foot, 1] + steps[:, 1])
        steps[:, 1] += np.where(known, 0, np.maximum(sunk, 0))
        move_end(leg, world, joints, steps)
    return parent_relative(world)


def _standing(old: np.ndarray, now: np.ndarray, turn: np.ndarray) -> np.ndarray:
    """Return the (N, 3) steps from positions (N, 3) of a standing foot to those that slide as little as before.

    Args:
        old: Positions (N, 3) before the corrections.
        now: Positions (N, 3) after them.
        turn: (N,) change of the heading in radians.
    """
    middle = old.mean(axis=0)
    kept = now.mean(axis=0) + (old - middle) @ y_rotation(turn.mean(keepdims=True))[0].T
    kept[:, 1] = old[:, 1]
    return kept - now


def _anchored(steps: np.ndarray, known: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Shift steps (N, 3) so that they take the given values (N, 3) at known frames (N,)."""
    frames = np.flatnonzero(known)
    if len(frames) == 0:
        return steps
    shift = values[frames] - steps[frames]
    return steps + np.stack([np.interp(np.arange(len(steps)), frames, axis) for axis in shift.T], axis=1)
