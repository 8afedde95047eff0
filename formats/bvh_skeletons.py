"""Skeletons of exported BVH files: the 22 joints under the names and with the local axes of other skeletons.

In the zero pose of a BVH file, no joint is rotated. With the names of SMPL-X it is the rest pose of SMPL-X. With
``mixamo`` and ``cmu`` it is a T-pose with straight arms and legs, as in their files. With ``lafan1`` the bones of the
limbs point along the local x axis, as in the LAFAN1 data set (Harvey et al., SIGGRAPH 2020).
"""

import numpy as np

from formats.bvh_options import Names
from formats.skeleton_map import AXES
from motion.directions import shortest_turn, unit
from motion.skeleton import JOINT_INDEX, JOINT_NAMES, JOINTS, PARENTS, REST_OFFSETS
from motion.source_motion import SourceMotion

SIDES = ("left", "right")
TRUNK = ("pelvis", "spine1", "spine2", "spine3", "neck", "head")
ARM = ("collar", "shoulder", "elbow", "wrist")
LEG = ("hip", "knee", "ankle", "foot")
# Names of trunk, arm and leg. A name before "/" is a joint at the same place without a rotation of its own.
OTHER_NAMES = {
    "lafan1": (
        "Hips Spine Spine1 Spine2 Neck Head",
        "{Side}Shoulder {Side}Arm {Side}ForeArm {Side}Hand",
        "{Side}UpLeg {Side}Leg {Side}Foot {Side}Toe",
    ),
    "mixamo": (
        "mixamorig:Hips mixamorig:Spine mixamorig:Spine1 mixamorig:Spine2 mixamorig:Neck mixamorig:Head",
        "mixamorig:{Side}Shoulder mixamorig:{Side}Arm mixamorig:{Side}ForeArm mixamorig:{Side}Hand",
        "mixamorig:{Side}UpLeg mixamorig:{Side}Leg mixamorig:{Side}Foot mixamorig:{Side}ToeBase",
    ),
    "cmu": (
        "Hips LowerBack Spine Spine1 Neck Neck1/Head",
        "{Side}Shoulder {Side}Arm {Side}ForeArm {Side}Hand",
        "{S}HipJoint/{Side}UpLeg {Side}Leg {Side}Foot {Side}ToeBase",
    ),
}
# Directions of the bones of the left side in the T-pose of the file; bones of other joints keep those of SMPL-X
STRAIGHT = {"hip": "D", "knee": "D", "shoulder": "L", "elbow": "L"}
STRAIGHT_LAFAN1 = STRAIGHT | {"collar": "L", "ankle": "F"}
ALONG_X = 0.97  # cosine of the largest angle between the x axis and a limb of LAFAN1
# LAFAN1: directions of the local x, y and z axes in a T-pose that faces forward (left L, right R, up U, down D,
# forward F, back B), as its clips have them and the retargeter GMR expects them (ik_configs/bvh_lafan1_to_*.json)
LAFAN1_AXES = {
    **dict.fromkeys(TRUNK, "UFL"),
    **{f"{side}_{joint}": axes for side, axes in (("left", "LBU"), ("right", "RBD")) for joint in ARM},
    **{f"{side}_{joint}": "DFR" if joint in ("hip", "knee") else "FUR" for side in SIDES for joint in LEG},
}


def joint_names(names: Names) -> list[str]:
    """Return the name of each of the 22 joints; see ``OTHER_NAMES``."""
    if names == "smplx":
        return list(JOINT_NAMES)
    trunk, arm, leg = (part.split() for part in OTHER_NAMES[names])
    found = dict(zip(TRUNK, trunk, strict=True))
    for side in SIDES:
        for joint, name in zip(ARM + LEG, arm + leg, strict=True):
            found[f"{side}_{joint}"] = name.format(Side=side.title(), S=side[0].upper())
    return [found[joint] for joint in JOINT_NAMES]


def rest_frames(names: Names, offsets: np.ndarray) -> np.ndarray:
    """Return the directions of the local axes of each joint (columns, (22, 3, 3)) in the rest pose of SMPL-X.

    Args:
        names: Skeleton of the file.
        offsets: Rest offsets (22, 3) of the joints from their parents.
    """
    frames = np.tile(np.eye(3), (JOINTS, 1, 1))
    if names == "smplx":
        return frames
    straight = STRAIGHT_LAFAN1 if names == "lafan1" else STRAIGHT
    for joint, name in enumerate(JOINT_NAMES):
        if names == "lafan1":
            frames[joint] = np.transpose([AXES[letter] for letter in LAFAN1_AXES[name]])
        side, _, part = name.partition("_")
        if part in straight:
            letter = "R" if straight[part] == "L" and side == "right" else straight[part]
            direction, bone = np.array(AXES[letter], dtype=np.float64), offsets[PARENTS.index(joint)]
            frames[joint] = shortest_turn(direction, bone) @ frames[joint]
    return frames


def lafan1_rest(clip: SourceMotion) -> dict[int, np.ndarray] | None:
    """Return the rest rotation (3, 3) of each of the 22 joints of a LAFAN1 file, by index; None for another file.

    The zero pose of such a file, with all bones along x, does not show how the joints are turned about their bones.
    """
    names = joint_names("lafan1")
    if not set(names) <= set(clip.names):
        return None
    order = [clip.names.index(name) for name in names]
    limbs = [order[JOINT_INDEX[f"{side}_{end}"]] for side in SIDES for end in ("knee", "ankle", "elbow", "wrist")]
    if (unit(clip.offsets[limbs])[:, 0] < ALONG_X).any():
        return None
    return dict(zip(order, rest_frames("lafan1", REST_OFFSETS.astype(np.float64)), strict=True))
