"""Joints as constraints name them: friendly names, groups, and the largest distance between two joints."""

from collections.abc import Sequence

import numpy as np

from motion.skeleton import JOINT_INDEX, JOINT_NAMES, JOINTS, LIMBS, PARENTS, REST_OFFSETS
from utils.errors import InputError, nearest, shown

ALIASES = {
    "left_hand": "left_wrist",
    "right_hand": "right_wrist",
    "left_toe": "left_foot",
    "right_toe": "right_foot",
    "root": "pelvis",
    "hips": "pelvis",
}
PINNED = ("pelvis", "head", *(f"{side}_{end}" for side in ("left", "right") for end in ("wrist", "ankle", "foot")))


def _limb(name: str) -> tuple[str, ...]:
    return tuple(JOINT_NAMES[joint] for joint in LIMBS[name][1:])  # without the joint that it hangs from


ARMS, LEGS = (*_limb("left_arm"), *_limb("right_arm")), (*_limb("left_leg"), *_limb("right_leg"))
GROUPS = {
    "full_body": JOINT_NAMES,
    "upper_body": (*_limb("spine"), *ARMS),
    "lower_body": ("pelvis", *LEGS),
    "trunk": ("spine1", "spine2", "spine3"),
    "arms": ARMS,
    "legs": LEGS,
    "left_arm": _limb("left_arm"),
    "right_arm": _limb("right_arm"),
    "left_leg": _limb("left_leg"),
    "right_leg": _limb("right_leg"),
}


def joint_named(name: object, allowed: Sequence[str] = JOINT_NAMES) -> str:
    """Return the joint of a name or alias.

    Raises:
        InputError: no joint, or none of those ``allowed``.
    """
    joint = ALIASES.get(name, name) if isinstance(name, str) else name
    if isinstance(joint, str) and joint in allowed:
        return joint
    if isinstance(joint, str) and joint in JOINT_NAMES:
        raise InputError(f"the joint {joint} cannot be pinned; use {', '.join(allowed)}")
    known = [*allowed, *(alias for alias, of in ALIASES.items() if of in allowed)]
    raise InputError(f"the joint {shown(name, 40)} is unknown; {nearest(name, known)}")


def joints_named(names: Sequence[str]) -> tuple[str, ...]:
    """Return the joints of joint names, aliases and groups, in the order of the skeleton.

    Raises:
        InputError: a name is unknown, or there is none.
    """
    found: set[str] = set()
    for name in names:
        if isinstance(name, str) and name in GROUPS:
            found |= set(GROUPS[name])
        elif isinstance(name, str) and ALIASES.get(name, name) in JOINT_NAMES:
            found.add(ALIASES.get(name, name))
        else:
            known = [*GROUPS, *JOINT_NAMES, *ALIASES]
            raise InputError(f"the joint or group {shown(name, 40)} is unknown; {nearest(name, known)}")
    if not found:
        raise InputError(f"there are no joints; give some, for example {', '.join(list(GROUPS)[:3])}")
    return tuple(name for name in JOINT_NAMES if name in found)


def _largest_distances() -> np.ndarray:
    """Return (22, 22): the lengths of the bones between two joints, along the skeleton."""
    lengths = np.linalg.norm(REST_OFFSETS.astype(np.float64), axis=-1)
    distances = np.zeros((JOINTS, JOINTS))
    for joint in range(1, JOINTS):  # a parent comes before its children
        distances[joint, :joint] = distances[PARENTS[joint], :joint] + lengths[joint]
        distances[:joint, joint] = distances[joint, :joint]
    return distances


LARGEST_DISTANCES = _largest_distances()  # (22, 22) metres
STRETCHED_LIMB = {  # pinned joint -> joints between it and the one that it hangs from, whose rotations a pin changes
    end: tuple(JOINT_INDEX[joint] for joint in joints)
    for end, joints in {
        **{f"{side}_wrist": (f"{side}_shoulder", f"{side}_elbow") for side in ("left", "right")},
        **{f"{side}_ankle": (f"{side}_hip", f"{side}_knee") for side in ("left", "right")},
        **{f"{side}_foot": (f"{side}_hip", f"{side}_knee", f"{side}_ankle") for side in ("left", "right")},
        "head": ("spine1", "spine2", "spine3", "neck"),
        "pelvis": (),
    }.items()
}
