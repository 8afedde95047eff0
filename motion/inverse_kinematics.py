"""Inverse kinematics: rotations of our skeleton from joint positions, for data sets and generators without rotations.

The positions are first given the bone lengths of our skeleton. Then, from the pelvis outward:

1. Pelvis and chest follow three joints each, by the best rigid fit. The spine between them shares their rotation and
   points at the chest as a whole, because the curves of spines differ between bodies.
2. Every other joint points its bone at the position of the next joint, so that errors do not accumulate.
3. Hips and shoulders rotate about their bone, so that knees bend backward and elbows forward. The more a limb is bent,
   the more its bend counts. A straight leg follows its foot instead, and a straight arm is not rotated.

Positions do not determine the rotation of head, hands and toes; these follow their parents.
"""

from typing import NamedTuple

import numpy as np
from scipy.ndimage import gaussian_filter1d

from motion.directions import fit_turn, shortest_turn, turn_about, unit
from motion.features263 import HUMANML3D, KIT, check_joints
from motion.rotation import slerp
from motion.skeleton import JOINT_INDEX, JOINT_NAMES, JOINTS, PARENTS, REST_OFFSETS
from utils.errors import InputError

OFFSETS = REST_OFFSETS.astype(np.float64)
LENGTHS = np.linalg.norm(OFFSETS, axis=-1)
SIDES = ("left", "right")
LEGS = [JOINT_INDEX[f"{side}_{joint}"] for side in SIDES for joint in ("knee", "ankle")]
PELVIS = [JOINT_INDEX[name] for name in ("pelvis", "left_hip", "right_hip", "spine1")]  # joints of a rigid body
CHEST = [JOINT_INDEX[name] for name in ("spine3", "neck", "left_collar", "right_collar")]
BENT_ARM = np.sin(np.deg2rad(15))  # sine of the bend at which the bend of an arm counts as much as "not rotated"
BENT_LEG = 0.7  # likewise for the direction of the foot
STRAIGHTEST = 5  # percentile of the bend over a clip that counts as the bend of the straight limb
HEAD_OF_SMPL = np.array([0.0, 0.87, 0.49])  # direction from neck to head in the rest pose of SMPL (public tables, EDGE)
SHORT_NECK = 0.7  # length of neck to head divided by chest to neck: 0.5 in SMPL and SMPL-H, 1.0 in SMPL-X
SHORTEST = 1e-4  # metres: bones below this length have no direction
TWIST_SIGMA = 2  # frames of the Gaussian filter of the rotation of a limb about its bone


class FittedMotion(NamedTuple):
    """Motion of our skeleton that follows joint positions.

    The head joint of SMPL has another place in the head than ours, so that the error of the head is that of the neck.
    """

    rotations: np.ndarray  # (T, 22, 3, 3) local, float64
    pelvis: np.ndarray  # (T, 3) metres
    error: float  # mean distance in metres between the joints of the motion and ``targets``
    targets: np.ndarray  # (T, 22, 3) given positions with the bone lengths of our skeleton, metres


def fit_joints(joints: np.ndarray) -> FittedMotion:
    """Fit rotations to the positions of the 22 joints of SMPL, as in HumanML3D.

    Args:
        joints: (T, 22, 3) positions in metres, y up, of any body, in the order of ``JOINT_NAMES``.

    Returns:
        The motion, scaled to our leg length. Its error measures the fit of our skeleton, not the change of lengths.

    Raises:
        InputError: another shape, no frames, values that are not finite, or bones without length.
    """
    joints = check_joints(joints, HUMANML3D)
    return _fit(joints, list(range(JOINTS)), HEAD_OF_SMPL if _has_short_neck(joints) else OFFSETS[JOINT_INDEX["head"]])


def fit_kit_joints(joints: np.ndarray) -> FittedMotion:
    """Fit rotations to the positions of the 21 joints of KIT-ML.

    Args:
        joints: (T, 21, 3) positions in millimetres, y up, in the order of KIT-ML.

    Returns:
        The motion, scaled to our leg length. Its error is the mean over the joints that both skeletons have.

    Raises:
        InputError: as ``fit_joints``.
    """
    joints = check_joints(joints, KIT) * KIT.metres
    return _fit(kit_to_smpl_joints(joints), [JOINT_INDEX[name] for name in KIT_JOINTS], OFFSETS[JOINT_INDEX["head"]])


def our_bones(joints: np.ndarray) -> np.ndarray:
    """Give (T, 22, 3) joints of any body the bone lengths of our skeleton; bones keep their directions.

    Each bone is multiplied by the ratio of our length to its median length over the clip, and the path of the pelvis by
    the ratio of the leg lengths. The lowest joint keeps its height times this ratio, so that the floor remains.

    Raises:
        InputError: a bone has no length.
    """
    bones = joints - joints[:, PARENTS]
    lengths = np.median(np.linalg.norm(bones, axis=-1), axis=0)
    if not lengths[1:].min() > SHORTEST:
        name = JOINT_NAMES[1 + int(lengths[1:].argmin())]
        raise InputError(f"the bone that ends in {name} has no length; give the positions of all joints")
    scaled = joints * (LENGTHS[LEGS].sum() / lengths[LEGS].sum())
    result = scaled.copy()
    for joint in range(1, JOINTS):
        result[:, joint] = result[:, PARENTS[joint]] + bones[:, joint] * (LENGTHS[joint] / lengths[joint])
    result[..., 1] += scaled[..., 1].min() - result[..., 1].min()
    return result


def _has_short_neck(joints: np.ndarray) -> bool:
    """Whether the joints (T, 22, 3) are those of SMPL or SMPL-H, whose head joint is lower and further forward."""
    chain = joints[:, [JOINT_INDEX[name] for name in ("spine3", "neck", "head")]]
    below, above = np.median(np.linalg.norm(np.diff(chain, axis=1), axis=-1), axis=0)
    return bool(above < SHORT_NECK * below)


def _fit(joints: np.ndarray, observed: list[int], head: np.ndarray) -> FittedMotion:
    """Fit rotations to (T, 22, 3) joints in metres.

    Args:
        observed: Joints whose mean distance is the error.
        head: (3) direction from neck to head in the rest pose of the source.
    """
    targets = our_bones(joints)
    body = _Body(targets)
    body.follow_trunk()
    body.follow_head(head)
    for side in SIDES:
        body.follow(f"{side}_hip", f"{side}_knee")
        body.turn_leg(side)
        body.follow(f"{side}_knee", f"{side}_ankle")
        body.follow(f"{side}_ankle", f"{side}_foot")
        body.follow(f"{side}_collar", f"{side}_shoulder")
        body.follow(f"{side}_shoulder", f"{side}_elbow")
        body.turn_arm(side)
        body.follow(f"{side}_elbow", f"{side}_wrist")
    for end in ("head", *(f"{side}_{part}" for side in SIDES for part in ("foot", "wrist"))):
        body.keep(end)
    rotations = body.world.copy()
    rotations[:, 1:] = body.world[:, PARENTS[1:]].swapaxes(-1, -2) @ body.world[:, 1:]
    error = np.linalg.norm(body.places - targets, axis=-1)[:, observed].mean()
    return FittedMotion(rotations, body.places[:, 0], float(error), targets)


class _Body:
    """Our skeleton while it is fitted to targets, from the pelvis outward."""

    def __init__(self, targets: np.ndarray):
        self.targets = targets  # (T, 22, 3)
        self.world = np.empty((*targets.shape, 3))  # rotations (T, 22, 3, 3)
        self.places = np.empty_like(targets)  # (T, 22, 3)

    def follow_trunk(self) -> None:
        """Fit pelvis and chest as rigid bodies, and the spine between them."""
        pelvis, spine1, spine2, chest = (JOINT_INDEX[name] for name in ("pelvis", "spine1", "spine2", "spine3"))
        self.world[:, pelvis], self.places[:, pelvis] = _rigid_fit(PELVIS, self.targets)
        self.world[:, chest], chest_target = _rigid_fit(CHEST, self.targets)
        shared = [slerp(self.world[:, pelvis], self.world[:, chest], np.full(len(chest_target), share))
                  for share in (1 / 3, 2 / 3)]  # fmt: skip
        self._put(spine1)
        spine = shared[0] @ OFFSETS[spine2] + shared[1] @ OFFSETS[chest]  # (T, 3) spine1 to chest
        turn = shortest_turn(spine, chest_target - self.places[:, spine1])
        self.world[:, spine1], self.world[:, spine2] = (turn @ part for part in shared)
        self._put(spine2)
        self._put(chest)

    def follow_head(self, rest: np.ndarray) -> None:
        """Rotate the neck; the target of the head becomes our head joint, which has another place in the head."""
        chest, neck, head = (JOINT_INDEX[name] for name in ("spine3", "neck", "head"))
        self._put(neck)
        turn = shortest_turn(self.world[:, chest] @ rest, self.targets[:, head] - self.targets[:, neck])
        self.world[:, neck] = turn @ self.world[:, chest]
        self.targets[:, head] = self.targets[:, neck] + self.world[:, neck] @ OFFSETS[head]

    def follow(self, name: str, child: str) -> None:
        """Rotate a joint by the smallest angle from its parent, so that its bone points at the target of the child."""
        joint, end, start = JOINT_INDEX[name], JOINT_INDEX[child], self.world[:, PARENTS[JOINT_INDEX[name]]]
        self._put(joint)
        turn = shortest_turn(start @ OFFSETS[end], self.targets[:, end] - self.places[:, joint])
        self.world[:, joint] = turn @ start

    def keep(self, name: str) -> None:
        """Place a joint that rotates with its parent."""
        self._put(JOINT_INDEX[name])
        self.world[:, JOINT_INDEX[name]] = self.world[:, PARENTS[JOINT_INDEX[name]]]

    def turn_leg(self, side: str) -> None:
        """Rotate a thigh about itself: the knee bends backward, and the foot of a straight leg points forward."""
        hip, knee, ankle, foot = (JOINT_INDEX[f"{side}_{part}"] for part in ("hip", "knee", "ankle", "foot"))
        shin = self.targets[:, ankle] - self._end(hip, knee)
        straight = shortest_turn(self.world[:, hip] @ OFFSETS[ankle], shin) @ self.world[:, hip]  # of the shin
        toes = _to_local(straight, self.targets[:, foot] - self.targets[:, ankle])
        across = np.cross(OFFSETS[ankle], OFFSETS[foot])
        twist = BENT_LEG**2 * _direction_about(OFFSETS[ankle], across, toes)
        self._turn(hip, knee, twist + _bend_twist(self._local(hip, shin), knee, ankle, np.array([1.0, 0.0, 0.0])))

    def turn_arm(self, side: str) -> None:
        """Rotate an upper arm about itself: the elbow bends forward in the rest pose."""
        shoulder, elbow, wrist = (JOINT_INDEX[f"{side}_{part}"] for part in ("shoulder", "elbow", "wrist"))
        forearm = self._local(shoulder, self.targets[:, wrist] - self._end(shoulder, elbow))
        axis = np.array([0.0, -1.0 if side == "left" else 1.0, 0.0])
        self._turn(shoulder, elbow, BENT_ARM**2 + _bend_twist(forearm, elbow, wrist, axis))

    def _put(self, joint: int) -> None:
        self.places[:, joint] = self._end(PARENTS[joint], joint)

    def _end(self, joint: int, child: int) -> np.ndarray:
        return self.places[:, joint] + self.world[:, joint] @ OFFSETS[child]

    def _local(self, joint: int, vectors: np.ndarray) -> np.ndarray:
        return _to_local(self.world[:, joint], vectors)

    def _turn(self, joint: int, child: int, twist: np.ndarray) -> None:
        """Rotate a joint about its bone by the angle of complex numbers (T), smoothed over time."""
        parts = gaussian_filter1d(np.stack((twist.real, twist.imag)), TWIST_SIGMA, mode="nearest")
        self.world[:, joint] = self.world[:, joint] @ turn_about(unit(OFFSETS[child]), np.arctan2(parts[1], parts[0]))


def _rigid_fit(joints: list[int], targets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return rotations (T, 3, 3) and positions (T, 3) of pelvis or chest that best fit it and the joints attached."""
    places, rest = targets[:, joints], np.stack((np.zeros(3), *OFFSETS[joints[1:]]))  # (T, 4, 3), (4, 3)
    middle, rest_middle = places.mean(axis=1), rest.mean(axis=0)
    turns = fit_turn(rest - rest_middle, places - middle[:, None])
    return turns, middle - turns @ rest_middle


def _bend_twist(lower: np.ndarray, middle: int, end: int, axis: np.ndarray) -> np.ndarray:
    """Return complex numbers (T): the rotation about the upper bone of a limb with which the limb bends about its axis.

    The magnitude is the squared sine of the bend. The bones of a limb are not in line in the rest pose of our skeleton,
    and a bend keeps this angle to the side. The angle is limited to the smallest bend of the clip, because other bodies
    have straighter limbs.

    Args:
        lower: (T, 3) lower bone in the local axes of the upper one.
        middle, end: Joints at the ends of upper and lower bone.
        axis: (3) axis about which the lower bone rotates from its rest direction.
    """
    bone, lower = unit(OFFSETS[middle]), unit(lower)
    along = axis @ bone
    across = axis - along * bone
    twist = _direction_about(bone, across, lower)  # (T) real part: bend about the axis
    aside = (axis @ unit(OFFSETS[end]) - along * (lower @ bone)) / np.linalg.norm(across)  # (T)
    bend = np.abs(twist)
    straightest = np.percentile(bend, STRAIGHTEST)
    aside = np.clip(aside, -straightest, straightest)
    front = np.sqrt(np.maximum(bend**2 - aside**2, 0))
    return front**2 * np.exp(1j * (np.angle(twist) - np.arctan2(aside, front)))


def _direction_about(bone: np.ndarray, across: np.ndarray, vectors: np.ndarray) -> np.ndarray:
    """Return directions (T, 3), seen along a bone, as complex numbers (T).

    The imaginary axis is ``across`` (3), perpendicular to the bone. Angles count about the bone.
    """
    side = unit(across)
    vectors = unit(vectors)
    return vectors @ np.cross(side, unit(bone)) + 1j * (vectors @ side)


def _to_local(turns: np.ndarray, vectors: np.ndarray) -> np.ndarray:
    return (vectors[:, None] @ turns)[:, 0]


# KIT-ML

KIT_JOINTS = {
    "pelvis": 0, "neck": 3, "head": 4,
    "left_hip": 16, "left_knee": 17, "left_ankle": 18, "left_foot": 19,
    "right_hip": 11, "right_knee": 12, "right_ankle": 13, "right_foot": 14,
    "left_shoulder": 8, "left_elbow": 9, "left_wrist": 10,
    "right_shoulder": 5, "right_elbow": 6, "right_wrist": 7,
}  # fmt: skip
KIT_SPINE = [0, 1, 2, 3]  # pelvis, lower and upper spine, neck


def kit_to_smpl_joints(joints: np.ndarray) -> np.ndarray:
    """Return the 22 joints of SMPL (T, 22, 3) of the 21 joints of KIT-ML (T, 21, 3), in the same unit.

    KIT-ML has two joints between pelvis and neck and no collars. The spine joints are placed on its spine at our
    proportions, and the collars between chest, neck and shoulders. The second toe joint is not used.
    """
    result = np.empty((len(joints), JOINTS, 3))
    for name, index in KIT_JOINTS.items():
        result[:, JOINT_INDEX[name]] = joints[:, index]
    spine = joints[:, KIT_SPINE]
    knots = np.cumsum([0.0, *np.median(np.linalg.norm(np.diff(spine, axis=1), axis=-1), axis=0)])  # (4)
    chain = [JOINT_INDEX[name] for name in ("spine1", "spine2", "spine3", "neck")]
    shares = np.cumsum(LENGTHS[chain]) / LENGTHS[chain].sum()
    rest = np.cumsum(OFFSETS[chain], axis=0)
    curve = (rest - shares[:, None] * rest[-1]) * (knots[-1] / LENGTHS[chain].sum())  # our rest pose, from a line
    trunk = _trunk_axes(result)
    for joint, share, off_line in zip(chain[:3], shares, curve, strict=False):
        weights = np.array([np.interp(share * knots[-1], knots, one) for one in np.eye(4)])
        result[:, joint] = spine.swapaxes(1, 2) @ weights + trunk @ off_line
    neck, chest = (result[:, JOINT_INDEX[name]] for name in ("neck", "spine3"))
    for side in SIDES:
        outward = result[:, JOINT_INDEX[f"{side}_shoulder"]] - neck
        result[:, JOINT_INDEX[f"{side}_collar"]] = chest + 0.5 * (neck - chest) + 0.28 * outward
    return result


def _trunk_axes(joints: np.ndarray) -> np.ndarray:
    """Return rotations (T, 3, 3) whose columns are the directions left, up and forward of the trunk."""
    at = {name: joints[:, JOINT_INDEX[name]] for name in KIT_JOINTS}
    up = unit(at["neck"] - at["pelvis"])
    left = at["left_hip"] - at["right_hip"] + at["left_shoulder"] - at["right_shoulder"]
    forward = unit(np.cross(left, up))
    return np.stack((np.cross(up, forward), up, forward), axis=-1)
