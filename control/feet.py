"""Corrections of the feet: they stand as in the motion before the corrections, meet their pins, and stay above ground.

While a foot stood before the corrections, it moves over the floor as it did then, turned and displaced as a whole, so
that a correction adds no sliding. The difference fades within a second around the contact.
"""

import numpy as np
from scipy.ndimage import distance_transform_edt, gaussian_filter1d, maximum_filter1d

from control.pins import TRUNK, put_end
from control.targets import Targets
from motion.features272 import heading_angle
from motion.limbs import EASY, LEGS
from motion.measures import standing_feet
from motion.rotation import y_rotation
from motion.skeleton import JOINT_INDEX, forward_kinematics
from motion.spread import known_spans, smoothstep, spread

LIFTED = 0.08  # metres: a foot that poses have lifted by more does not stand any more
DEEPEST = 0.06  # metres: largest drop of the pelvis
EASE = 8  # frames before and after a stretched leg in which the pelvis sinks and rises


def plant(
    before: tuple[np.ndarray, np.ndarray],
    rotations: np.ndarray,
    pelvis: np.ndarray,
    lifted: np.ndarray,
    targets: Targets,
) -> tuple[np.ndarray, np.ndarray]:
    """Rotate hips and knees so that standing feet stand and pinned feet are in place.

    Args:
        before: Rotations (T, 22, 3, 3) and pelvis (T, 3) before all corrections.
        rotations: (T, 22, 3, 3) local rotations after the corrections of trunk and pelvis.
        pelvis: (T, 3) metres.
        lifted: (T, 22) metres by which the corrections of the pose have lifted joints.
        targets: What is asked of the T frames.

    Returns:
        Rotations and pelvis of the same shapes; the pelvis sinks where a leg would have to stretch.
    """
    old = forward_kinematics(*before)
    turn = np.unwrap(heading_angle(rotations[:, 0]) - heading_angle(before[0][:, 0]))
    joints = forward_kinematics(rotations, pelvis)
    contacts = standing_feet(old)
    steps, exact = {}, {}
    for number, (side, leg) in enumerate(LEGS.items()):
        foot = JOINT_INDEX[f"{side}_foot"]
        pinned = np.any(targets.asked[:, [leg.end, foot]], axis=1)
        near_pin = maximum_filter1d(pinned, 4 * EASE + 1)
        stands = contacts[:, number] & (np.abs(lifted[:, foot]) < LIFTED) & ~near_pin
        exact[side] = targets.posed_legs | pinned
        known = np.zeros_like(pelvis)
        for joint in (leg.end, foot):
            pinned = targets.pinned[:, joint]
            known[pinned] = (targets.joints[:, joint] - joints[:, joint])[pinned]
        for first, end in known_spans(stands):
            run = slice(first, end)
            standing = _standing(old[run, foot], joints[run, foot], turn[run])
            known[run] = _anchored(standing, exact[side][run], known[run])
        steps[side] = spread(stands | exact[side], known)
        sunk = np.minimum(old[:, foot, 1], 0) - (joints[:, foot, 1] + steps[side][:, 1])
        steps[side][:, 1] += np.where(exact[side], 0, np.maximum(sunk, 0))
    drop = _drop(joints, steps, targets)
    pelvis = pelvis - drop
    for side, leg in LEGS.items():
        rotations = put_end(leg, rotations, pelvis, steps[side] + drop, exact[side])
    return rotations, pelvis


def _drop(joints: np.ndarray, steps: dict[str, np.ndarray], targets: Targets) -> np.ndarray:
    """Return (T, 3) by which the pelvis sinks, smoothly, so that legs that reach farther are not stretched straight."""
    drop = np.zeros(len(joints))
    for side, leg in LEGS.items():
        bones = np.diff(joints[:, leg.joints], axis=1)  # (T, 2, 3)
        length, before = np.linalg.norm(bones, axis=2).sum(axis=1), np.linalg.norm(bones.sum(axis=1), axis=1)
        longest = before + np.maximum(EASY * length - before, 0) / 2
        chord = bones.sum(axis=1) + steps[side]
        high = np.sqrt(np.maximum(longest**2 - (chord[:, [0, 2]] ** 2).sum(axis=1), 0))
        drop = np.maximum(drop, np.where(steps[side].any(axis=1), -chord[:, 1] - high, 0))
    smooth = gaussian_filter1d(maximum_filter1d(np.minimum(drop, DEEPEST), 2 * EASE + 1), EASE / 2)
    fixed = targets.posed | np.any(targets.asked[:, TRUNK], axis=1)
    away = distance_transform_edt(~fixed) if fixed.any() else np.full(len(fixed), np.inf)  # frames
    return (smooth * smoothstep(np.minimum(away / (2 * EASE), 1)))[:, None] * (0, 1, 0)


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
