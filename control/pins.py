"""Corrections for pinned joints: the trunk leans and the pelvis moves as far as needed, then limbs reach their pins.

A correction is exact at the frames of a pin and fades within a second around them. Feet are corrected in between, by
``control/feet.py``.
"""

import numpy as np

from control.targets import Targets
from motion.directions import shortest_turn, unit
from motion.limbs import ARMS, LEGS, Limb, move_end, out_of_reach
from motion.rotation import axis_angle_to_matrix, matrix_to_axis_angle
from motion.skeleton import (
    JOINT_INDEX,
    JOINTS,
    PARENTS,
    REST_OFFSETS,
    forward_kinematics,
    parent_relative,
    world_pose,
)
from motion.spread import spread, spread_rotations

SPINE = [JOINT_INDEX[name] for name in ("spine1", "spine2", "spine3")]
BASE = [JOINT_INDEX[name] for name in ("pelvis", "left_hip", "right_hip", "spine1")]  # joints that the pelvis carries
LIMBS = (*ARMS.values(), *LEGS.values())
MIDDLES = [limb.middle for limb in LIMBS]
FEET = {JOINT_INDEX[f"{side}_foot"]: leg for side, leg in LEGS.items()}
ENDS = {**{limb.end: limb for limb in LIMBS}, **FEET}  # joint -> limb that moves it
TRUNK = [joint for joint in range(JOINTS) if joint not in MIDDLES and joint not in ENDS]
ARM = [joint for arm in ARMS.values() for joint in (arm.middle, arm.end)]
UPPER = [joint for joint in (*TRUNK, *ARM) if joint not in BASE]
LEAN, SHRUG = np.deg2rad(15), np.deg2rad(10)  # largest lean of the trunk and lift of a shoulder per round
SHIFT = 0.2  # metres per round: largest shift of the pelvis for a limb that does not reach its pin
RISE = 0.01  # metres per round: largest rise of the pelvis, which stands on its legs
LEVER = 0.5  # metres: length of the trunk and of an arm, for the widths of fades
ROUNDS = 3  # lean and shift change each other's part


def lean(rotations: np.ndarray, pelvis: np.ndarray, targets: Targets) -> tuple[np.ndarray, np.ndarray]:
    """Bend the trunk and move the pelvis toward the pins of their joints, and toward pins that a limb does not reach.

    Args:
        rotations: (T, 22, 3, 3) local rotations, the root's in the world frame.
        pelvis: (T, 3) metres.
        targets: What is asked of the T frames.

    Returns:
        Rotations and pelvis of the same shapes.
    """
    asked = targets.asked
    pelvis = pelvis + _mean_shift(_missing(rotations, pelvis, targets), asked, BASE)
    held = np.any(targets.pinned[:, BASE], axis=1)  # (T, 3) axes along which the pelvis does not give way any more
    others = [joint for joint in range(JOINTS) if joint not in BASE]
    for _ in range(ROUNDS if asked[:, others].any() else 0):
        for side, arm in ARMS.items():
            collar = [JOINT_INDEX[f"{side}_collar"]]
            rotations = _bend(collar, [arm.middle, arm.end], SHRUG, rotations, pelvis, targets)
        rotations = _bend(SPINE, UPPER, LEAN, rotations, pelvis, targets)
        missing = np.where(held[:, None], 0, _missing(rotations, pelvis, targets))
        pelvis = pelvis + _mean_shift(missing, asked, others)
    return rotations, pelvis


def reach(rotations: np.ndarray, pelvis: np.ndarray, targets: Targets) -> np.ndarray:
    """Rotate limbs so that pinned elbows, knees and wrists are met as far as they reach.

    Args and result as of ``lean``, without the pelvis.
    """
    steps = targets.joints - forward_kinematics(rotations, pelvis)
    for joint in MIDDLES:
        if targets.asked[:, joint].any():
            rotations = _point(joint, rotations, pelvis, spread_pin(joint, steps, targets))
    for arm in ARMS.values():
        known = targets.asked[:, arm.end]
        if known.any():
            steps = np.where(targets.pinned, targets.joints - forward_kinematics(rotations, pelvis), 0)
            moved = put_end(arm, rotations, pelvis, steps[:, arm.end])
            moved[:, arm.end] = rotations[:, arm.end]  # the hand follows the forearm
            rotations = spread_limb(arm, rotations, moved, known)
    return rotations


def spread_pin(joint: int, steps: np.ndarray, targets: Targets) -> np.ndarray:
    """Return the (T, 3) displacement of a pinned joint, of the steps (T, 22, 3) to all targets."""
    return spread(targets.asked[:, joint], np.where(targets.pinned[:, joint], steps[:, joint], 0))


def put_end(
    limb: Limb, rotations: np.ndarray, pelvis: np.ndarray, steps: np.ndarray, exact: np.ndarray | None = None
) -> np.ndarray:
    """Return local rotations after the end of a limb has moved by the steps (T, 3); see ``motion.limbs.move_end``."""
    world, joints = world_pose(rotations, REST_OFFSETS, root=pelvis)
    move_end(limb, world, joints, steps, exact)
    return parent_relative(world)


def spread_limb(limb: Limb, rotations: np.ndarray, moved: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Return rotations with those of a limb from ``moved`` at known frames (T,), and a fading difference around them.

    The angles fade, not the place of the end: a limb that is nearly straight would bend by leaps.
    """
    result = rotations.copy()
    joints = list(limb.joints)
    mask = np.repeat(known[:, None], len(joints), axis=1)
    result[:, joints] = spread_rotations(rotations[:, joints], moved[:, joints], mask, LEVER)
    return result


def _missing(rotations: np.ndarray, pelvis: np.ndarray, targets: Targets) -> np.ndarray:
    """Return (T, 22, 3) vectors to the pins, of joints of limbs only the part that the limb does not reach."""
    joints = forward_kinematics(rotations, pelvis)
    missing = np.where(targets.pinned, targets.joints - joints, 0)
    for joint in MIDDLES:
        bone = joints[:, joint] + missing[:, joint] - joints[:, PARENTS[joint]]
        length = np.linalg.norm(bone, axis=1, keepdims=True)
        missing[:, joint] = bone * (1 - np.linalg.norm(REST_OFFSETS[joint]) / np.maximum(length, 1e-9))
    for end, limb in ENDS.items():
        missing[:, end] = out_of_reach(limb, joints, joints[:, limb.end] + missing[:, end])
    return np.where(targets.asked[..., None], missing, 0)


def _mean_shift(missing: np.ndarray, asked: np.ndarray, group: list[int]) -> np.ndarray:
    """Return the (T, 3) shift of the pelvis by the mean of what is missing at the asked joints of a group.

    The pelvis follows its own pins as far as they ask, and those of other joints as far as a body can.
    """
    shift = _mean(missing[:, group])
    if group is BASE:
        return spread(np.any(asked[:, group], axis=1), shift)
    by_limb = ~np.any(asked[:, [joint for joint in group if joint in TRUNK]], axis=1)
    length = np.linalg.norm(shift, axis=1)
    limit = np.where(by_limb, np.minimum(length, SHIFT), length)
    shift *= (limit / np.maximum(length, 1e-9))[:, None]
    shift[:, 1] = np.minimum(shift[:, 1], RISE)
    return spread(np.any(asked[:, group], axis=1), shift)


def _mean(vectors: np.ndarray) -> np.ndarray:
    """Return the (T, 3) means of those of the vectors (T, J, 3) that are not zero."""
    count = np.sum(np.linalg.norm(vectors, axis=2) > 1e-6, axis=1)
    return vectors.sum(axis=1) / np.maximum(count, 1)[:, None]


def _bend(
    chain: list[int], group: list[int], limit: float, rotations: np.ndarray, pelvis: np.ndarray, targets: Targets
) -> np.ndarray:
    """Rotate a chain of joints, by at most a limit in radians, so that a group of joints comes nearer to its pins."""
    world, joints = world_pose(rotations, REST_OFFSETS, root=pelvis)
    missing = _missing(rotations, pelvis, targets)
    turns = np.zeros_like(joints)
    for joint in group:
        carried = joint
        while carried in ARM:  # the chain moves the shoulder
            carried = PARENTS[carried]
        lever = joints[:, carried] - joints[:, chain[0]]
        turns[:, joint] = matrix_to_axis_angle(shortest_turn(lever, lever + missing[:, joint]))
    turn = _mean(turns)  # (T, 3)
    angle = np.linalg.norm(turn, axis=1, keepdims=True)
    known = np.any(targets.asked[:, group], axis=1)
    turn = spread(known, unit(turn) * np.minimum(angle, limit), LEVER) / len(chain)
    result = rotations.copy()
    for joint in chain:
        parent = world[:, PARENTS[joint]]
        result[:, joint] = parent.swapaxes(1, 2) @ axis_angle_to_matrix(turn) @ parent @ rotations[:, joint]
    return result


def _point(joint: int, rotations: np.ndarray, pelvis: np.ndarray, steps: np.ndarray) -> np.ndarray:
    """Rotate the parent of a joint so that the joint moves by the steps (T, 3) as far as its bone allows."""
    world, joints = world_pose(rotations, REST_OFFSETS, root=pelvis)
    upper = PARENTS[joint]
    bone = joints[:, joint] - joints[:, upper]
    before = world[:, PARENTS[upper]]
    result = rotations.copy()
    result[:, upper] = before.swapaxes(1, 2) @ shortest_turn(bone, bone + steps) @ before @ rotations[:, upper]
    return result
