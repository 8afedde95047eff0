"""Inverse kinematics: rotations of our skeleton from joint positions, for data sets and generators without rotations.

The rotations are fitted on a body with the bone lengths of the source and then applied to our skeleton, so that limbs
keep their directions on any proportions:

1. Pelvis and chest follow three joints each, by the best rigid fit. The spine between them shares their rotation.
2. Every other joint points its bone at the next joint, from its fitted position, so that errors do not add up.
3. Hips and shoulders turn about their bone until the knee bends backward and the elbow forward, as far as the limb is
   bent. A straight limb is not twisted.

Positions do not determine the rotations of head, hands and toes about themselves; these follow their parents.
"""

from typing import NamedTuple

import numpy as np
from scipy.ndimage import gaussian_filter1d

from motion.directions import fit_turn, shortest_turn, turn_about, unit
from motion.features263 import HUMANML3D, KIT, check_joints
from motion.rotation import slerp
from motion.skeleton import JOINT_INDEX, JOINTS, PARENTS, REST_OFFSETS, forward_kinematics
from motion.source_motion import sample_frames
from utils.errors import InputError

OURS = REST_OFFSETS.astype(np.float64)
SIDES = ("left", "right")
LEGS = [JOINT_INDEX[f"{side}_{joint}"] for side in SIDES for joint in ("knee", "ankle")]
HIPS = [JOINT_INDEX[f"{side}_hip"] for side in SIDES]
GROUPS = {  # joints that are rigidly attached to the first one
    name: [JOINT_INDEX[joint] for joint in (name, *attached)]
    for name, attached in (
        ("pelvis", ("left_hip", "right_hip", "spine1")),
        ("spine3", ("neck", "left_collar", "right_collar")),
    )
}
BONES = [  # joint that points at the next one; parents come first
    (JOINT_INDEX[joint], JOINT_INDEX[child])
    for joint, child in (
        ("neck", "head"),
        *((f"{side}_{joint}", f"{side}_{child}")
          for side in SIDES
          for joint, child in (("hip", "knee"), ("knee", "ankle"), ("ankle", "foot"),
                               ("collar", "shoulder"), ("shoulder", "elbow"), ("elbow", "wrist"))),
    )
]  # fmt: skip
HINGES = {  # joint that turns about its bone -> end of the limb, axis about which the limb bends in the rest pose
    JOINT_INDEX[f"{side}_{joint}"]: (JOINT_INDEX[f"{side}_{end}"], np.array(axis))
    for side, sign in (("left", 1.0), ("right", -1.0))
    for joint, end, axis in (("hip", "ankle", (1.0, 0.0, 0.0)), ("shoulder", "wrist", (0.0, -sign, 0.0)))
}
STRAIGHT = np.sin(np.deg2rad(15))  # limbs bent by less are mostly turned as if they were straight
TWIST_SIGMA = 2  # frames of the Gaussian filter of the turn of a limb about its bone


class FittedMotion(NamedTuple):
    """Motion of our skeleton that follows joint positions."""

    rotations: np.ndarray  # (T, 22, 3, 3) local, float64
    pelvis: np.ndarray  # (T, 3) metres, scaled to our leg length
    error: float  # mean distance in metres of the joints from those of the fit on a body of their own bone lengths
    offsets: np.ndarray  # (22, 3) rest offsets of that body in metres
    scale: float  # our leg length divided by that of the source


def fit_joints(joints: np.ndarray) -> FittedMotion:
    """Fit rotations to the positions of the 22 joints of SMPL.

    Args:
        joints: (T, 22, 3) positions in metres, y up, of any body, in the order of ``JOINT_NAMES``.

    Raises:
        InputError: another shape, no frames, values that are not finite, or a body without legs.
    """
    joints = check_joints(joints, HUMANML3D)
    return _fit(joints, list(range(JOINTS)))


def fit_kit_joints(joints: np.ndarray) -> FittedMotion:
    """Fit rotations to the positions of the 21 joints of KIT-ML.

    Args:
        joints: (T, 21, 3) positions in millimetres, y up.

    Returns:
        The fit; its error is that of the joints which both skeletons have.

    Raises:
        InputError: as ``fit_joints``.
    """
    raise NotImplementedError


def _fit(joints: np.ndarray, observed: list[int]) -> FittedMotion:
    """Fit rotations to (T, 22, 3); the error is that of the ``observed`` joints."""
    offsets = body_offsets(joints)
    world, fitted = _world_rotations(joints, offsets)
    scale = float(np.linalg.norm(OURS[LEGS], axis=-1).sum() / np.linalg.norm(offsets[LEGS], axis=-1).sum())
    pelvis = fitted[:, HIPS].mean(axis=1) * scale - world[:, 0] @ OURS[HIPS].mean(axis=0)
    rotations = world.copy()
    rotations[:, 1:] = world[:, PARENTS[1:]].swapaxes(-1, -2) @ world[:, 1:]
    error = float(np.linalg.norm(fitted - joints, axis=-1)[:, observed].mean())
    return FittedMotion(rotations, pelvis, error, offsets, scale)


def body_offsets(joints: np.ndarray) -> np.ndarray:
    """Estimate the rest offsets (22, 3) of the body of (T, 22, 3) joints, in metres.

    Bones have their mean length and the directions of our rest pose, except those at pelvis and chest, whose angles
    are measured.
    """
    joints = joints[sample_frames(len(joints))]
    bones = joints - joints[:, PARENTS]
    lengths = np.median(np.linalg.norm(bones, axis=-1), axis=0)  # (22)
    if not lengths[LEGS].min() > 0:
        raise InputError("the legs have no length; give the positions of the joints")
    offsets = unit(OURS) * lengths[:, None]
    offsets[0] = 0
    for _, *attached in GROUPS.values():
        ours = offsets[attached]
        for _ in range(3):  # mean of the frames in the frame of the mean
            turns = fit_turn(offsets[attached], bones[:, attached])
            mean = (bones[:, attached] @ turns).mean(axis=0)
            offsets[attached] = mean @ fit_turn(mean, ours).T
    return offsets


def _world_rotations(joints: np.ndarray, offsets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return world rotations (T, 22, 3, 3) and positions (T, 22, 3) of the fitted body."""
    world, fitted = np.empty((*joints.shape, 3)), np.empty_like(joints)

    def put(joint: int) -> None:
        parent = PARENTS[joint]
        fitted[:, joint] = fitted[:, parent] + world[:, parent] @ offsets[joint]

    def point(joint: int, child: int, turns: np.ndarray) -> None:
        """Rotate a joint by the smallest angle from ``turns`` so that its bone points at the child."""
        put(joint)
        world[:, joint] = shortest_turn(turns @ offsets[child], joints[:, child] - fitted[:, joint]) @ turns

    pelvis, spine1, spine2, spine3, neck, head = (
        JOINT_INDEX[name] for name in ("pelvis", "spine1", "spine2", "spine3", "neck", "head")
    )
    world[:, pelvis], fitted[:, pelvis] = _rigid_fit("pelvis", joints, offsets)
    world[:, spine3], _ = _rigid_fit("spine3", joints, offsets)
    for joint, child, share in ((spine1, spine2, 1 / 3), (spine2, spine3, 2 / 3)):
        point(joint, child, slerp(world[:, pelvis], world[:, spine3], np.full(len(joints), share)))
    put(spine3)
    for joint, child in BONES:
        point(joint, child, world[:, PARENTS[joint]])
        if joint in HINGES:
            end, axis = HINGES[joint]
            lower = joints[:, end] - (fitted[:, joint] + world[:, joint] @ offsets[child])
            turn = _hinge_turn(world[:, joint], lower, offsets[child], offsets[end], axis)
            world[:, joint] = world[:, joint] @ turn_about(unit(offsets[child]), turn)
    for joint in (head, *(JOINT_INDEX[f"{side}_{end}"] for side in SIDES for end in ("foot", "wrist"))):
        put(joint)
        world[:, joint] = world[:, PARENTS[joint]]
    return world, fitted


def _rigid_fit(name: str, joints: np.ndarray, offsets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the rotations (T, 3, 3) and positions (T, 3) of pelvis or chest that best fit the joints attached to it."""
    group = GROUPS[name]
    places, rest = joints[:, group], np.concatenate((np.zeros((1, 3)), offsets[group[1:]]))  # (T, 4, 3), (4, 3)
    middle, rest_middle = places.mean(axis=1), rest.mean(axis=0)
    turns = fit_turn(rest - rest_middle, places - middle[:, None])
    return turns, middle - turns @ rest_middle


def _hinge_turn(
    turns: np.ndarray, lower: np.ndarray, upper_rest: np.ndarray, lower_rest: np.ndarray, axis: np.ndarray
) -> np.ndarray:
    """Return the angles (T) about the upper bone of a limb by which the limb bends about its axis.

    A limb whose bones are not in line when it is straight, as in the rest pose, keeps this angle to the side. It is at
    most the smallest bend of the clip, because other bodies have straighter limbs.

    Args:
        turns: (T, 3, 3) rotations of the upper bone, not turned about itself.
        lower: (T, 3) lower bone in the world.
        upper_rest, lower_rest: (3) bones in the rest pose.
        axis: (3) axis about which the lower bone rotates from its rest direction.
    """
    bone = unit(upper_rest)
    lower = unit((lower[:, None] @ turns)[:, 0])
    side = axis - (axis @ bone) * bone
    side, size = unit(side), np.linalg.norm(side)
    front = np.cross(side, bone)
    bend = np.hypot(lower @ front, lower @ side)  # (T) sine of the angle between the bones
    aside = (axis @ unit(lower_rest) - (axis @ bone) * (lower @ bone)) / size  # part to the side of a bend about the axis
    most = np.percentile(bend, 5)
    aside = np.clip(aside, -most, most)
    bent = np.sqrt(np.maximum(bend**2 - aside**2, 0))
    turn = np.arctan2(lower @ side, lower @ front) - np.arctan2(aside, bent)
    vote = bent**2 * np.exp(1j * turn) + STRAIGHT**2
    vote = gaussian_filter1d(vote.real, TWIST_SIGMA, mode="nearest") + 1j * gaussian_filter1d(
        vote.imag, TWIST_SIGMA, mode="nearest"
    )
    return np.angle(vote)
