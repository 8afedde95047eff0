"""The constant rotation between target joints (SMPL-X) and source joints, from the directions of the source bones.

A source joint has a frame F: the directions of its local axes in a reference pose of a person who stands upright and
faces +z. It is determined by, in this order: a skeleton map; the zero pose of the file, if a person stands in it (arms
in any position); the motion, if the zero pose is not a standing pose (for example all bones along x). In the last case,
the frames of the trunk follow hips, shoulders and spine, and the rotation of a limb about its bone is chosen so that
the limb is not twisted on average; the frames are then set to the nearest frame that exporters commonly use.

In the reference pose the target joint is rotated by W, so that the target bone has the direction of the source bone; C
= F^T W. Trunk and collars keep the rest pose of SMPL-X, because their curves differ between skeletons; hands, feet and
toes follow large rotations only, as in hanging arms. If all bones have the lengths of SMPL-X (times a factor), the
source is the SMPL-X skeleton and every bone is matched. In this file "ours" is the target and "theirs" the source.
"""

from typing import NamedTuple

import numpy as np

from motion.directions import (
    AXIS_TURNS,
    angle_about,
    degrees_between,
    fit_turn,
    mean_turn,
    mean_twist,
    nearest_axes,
    nearest_direction,
    shortest_turn,
    turn_about,
    turn_angle,
    unit,
)
from motion.skeleton import JOINT_NAMES, PARENTS, REST_OFFSETS
from motion.source_motion import SourceMotion, sample_frames
from motion.zero_pose import zero_pose_body

REST = {name: REST_OFFSETS[joint].astype(np.float64) for joint, name in enumerate(JOINT_NAMES)}
PARENT = {name: JOINT_NAMES[PARENTS[joint]] for joint, name in enumerate(JOINT_NAMES) if joint}
CHILDREN = {name: [child for child, parent in PARENT.items() if parent == name] for name in JOINT_NAMES}
TIPS = {"head": (0.0, 1.0, 0.0), "left_wrist": (1.0, 0.0, 0.0), "right_wrist": (-1.0, 0.0, 0.0),
        "left_foot": (0.0, 0.0, 1.0), "right_foot": (0.0, 0.0, 1.0)}  # fmt: skip  # ends, in the rest pose
SIDES = ("left", "right")
LIMBS = tuple(f"{side}_{joint}" for side in SIDES for joint in ("hip", "knee", "shoulder", "elbow"))
FEET = tuple(f"{side}_{joint}" for side in SIDES for joint in ("ankle", "foot"))
X, Y, Z = np.eye(3)
# Angles in degrees
SAME_POSE = 30.0  # limbs within this angle are in the rest pose of SMPL-X; the rest is a difference of proportions
SAME_END = 35.0  # likewise for hands, feet and toes
DUMMY = 75.0  # end sites further off are not the direction of a hand, head or toe
TURNED_BACK = 75.0  # a trunk joint rotated this far from the trunk is rotated back by its children
BENT = 2.0  # standard deviation of the bend of a knee or elbow, below which its axis is not determined,
STAYS_BENT = 45.0  # unless the joint is always bent by more than this
NEAR_FRAME = 40.0  # a frame inferred from the motion is set to one along the axes within this angle
OTHER = 20.0  # an uncommon frame must be nearer by this
SAME_LENGTH = 0.015  # relative spread of bone lengths below which a skeleton is that of SMPL-X


class _Source(NamedTuple):
    """Measures of a file at sample frames."""

    joints: dict[str, list[int]]
    turns: np.ndarray  # (S, J, 3, 3) world
    places: np.ndarray  # (S, J, 3) world
    bones: dict[str, np.ndarray]  # target joint -> (3) its position in the local axes of the source of its parent
    tips: dict[str, np.ndarray]  # hand, head, foot -> (3) its direction in local axes, if the file has it
    same: bool  # it is the SMPL-X skeleton, scaled
    up: np.ndarray  # (3) in the file's axes


def find_rest(
    source: SourceMotion,
    joints: dict[str, list[int]],
    turns: np.ndarray,
    places: np.ndarray,
    up: np.ndarray,
    rest: dict[int, np.ndarray] | None,
    notes: list[str],
) -> dict[tuple[str, int], np.ndarray]:
    """Find the constant rotation C (3, 3) of each target joint and each source joint that it follows.

    Args:
        source, joints, rest, notes: As in ``motion.retarget.retarget``.
        turns: World rotations (T, J, 3, 3) of the source.
        places: World positions (T, J, 3) of the source.
        up: Up direction (3) in the file.
    """
    frames = sample_frames(len(turns))
    turns, places = turns[frames], places[frames]
    bones = _local_bones(joints, turns, places)
    data = _Source(joints, turns, places, bones, _tips(source, joints), _is_ours(bones, joints), up)
    if rest and _fits(rest, data):
        return _constants(data, rest, known=True)
    if rest:
        notes.append("the rest axes of the skeleton map do not fit the bones of the file and are not used")
    body = zero_pose_body(source, joints)
    if body is None:
        return _constants(data, {}, known=False)
    turned = {index: body.T for entry in joints.values() for index in entry}
    back = _turned_back(data, turned)
    if back:
        names = ", ".join(source.names[index] for index in back)
        notes.append(
            f"{names} is turned against the trunk and back by its children; its axes follow hips and shoulders"
        )
    return _constants(data, turned | back, known=True)


def _local_bones(joints: dict, turns: np.ndarray, places: np.ndarray) -> dict[str, np.ndarray]:
    """Return the mean position of each joint in the local axes of the source of its parent."""
    bones = {}
    for name, parent in PARENT.items():
        if joints[name] and joints[parent]:
            start, end = joints[parent][0], joints[name][0]
            bone = ((places[:, end] - places[:, start])[:, None] @ turns[:, start])[:, 0].mean(axis=0)
            if np.linalg.norm(bone) > 1e-6:
                bones[name] = bone
    return bones


def _tips(source: SourceMotion, joints: dict[str, list[int]]) -> dict[str, np.ndarray]:
    tips = {}
    for name in (*TIPS, "left_ankle", "right_ankle"):
        for index in joints[name]:
            below = [source.positions[:, child].mean(axis=0) for child in source.children(index)]
            below = below if name != "head" or len(below) == 1 else []  # eyes and jaw are not the top of a head
            tip = source.tips.get(index, np.mean(below, axis=0) if below else np.zeros(3))
            if np.linalg.norm(tip) > 1e-6:
                tips[name] = unit(tip)
    return tips


def _is_ours(bones: dict[str, np.ndarray], joints: dict[str, list[int]]) -> bool:
    """Whether all bones, and the angles between those of pelvis and chest, are those of SMPL-X times one factor."""
    if set(bones) != set(PARENT) or any(len(entry) != 1 for entry in joints.values()):
        return False
    ratios = {name: np.linalg.norm(bone) / np.linalg.norm(REST[name]) for name, bone in bones.items()}
    scale = float(np.median(list(ratios.values())))
    if any(abs(ratio / scale - 1) > SAME_LENGTH for ratio in ratios.values()):
        return False
    for parent in ("pelvis", "spine3"):
        ours = np.array([REST[child] for child in CHILDREN[parent]])
        theirs = np.array([bones[child] for child in CHILDREN[parent]]) / scale
        if np.linalg.norm(theirs - ours @ fit_turn(ours, theirs).T) > 0.03 * np.linalg.norm(ours):
            return False
    return True


def _fits(rest: dict[int, np.ndarray], data: _Source) -> bool:
    """Whether limbs and trunk have roughly the directions of SMPL-X in the T-pose of these frames."""
    for name in (*(child for limb in LIMBS for child in CHILDREN[limb]), "left_hip", "right_hip"):
        frame = rest[data.joints[PARENT[name]][0]]
        ours = REST[name] * (X if name.endswith("hip") else 1)
        theirs = frame @ data.bones.get(name, np.zeros(3)) * (X if name.endswith("hip") else 1)
        if unit(ours) @ unit(theirs) < np.cos(np.deg2rad(50)):
            return False
    return True


def _turned_back(data: _Source, frames: dict[int, np.ndarray]) -> dict[int, np.ndarray]:
    """Return frames of trunk joints that are rotated away from hips and shoulders, and back by their children."""
    changed = {}
    for name in ("pelvis", "spine1", "spine2", "spine3"):
        for index in data.joints[name]:
            frame = frames[index]
            found = _trunk_frame(data, index)
            if turn_angle(found, frame) > TURNED_BACK:
                changed[index] = _set_to_axes(found, frame)
    return changed


def _trunk_frame(data: _Source, index: int) -> np.ndarray:
    """Return the frame of a trunk joint from the positions of hips and shoulders in its local axes."""
    at = {name: data.places[:, entry[0]] for name, entry in data.joints.items() if entry}
    hips, shoulders = ((at[f"left_{part}"] + at[f"right_{part}"]) / 2 for part in ("hip", "shoulder"))
    up = unit(shoulders - hips)
    left = unit(unit(at["left_hip"] - at["right_hip"]) + unit(at["left_shoulder"] - at["right_shoulder"]))
    left = unit(left - (left * up).sum(axis=-1, keepdims=True) * up)
    body = np.stack((left, up, np.cross(left, up)), axis=-1)  # (S, 3, 3)
    return mean_turn(data.turns[:, index].transpose(0, 2, 1) @ body).T


def _constants(data: _Source, frames: dict[int, np.ndarray], known: bool) -> dict:
    """Return C of each joint and source joint; unknown frames (source joint -> F) are inferred from the motion."""
    frames = dict(frames)
    constants: dict[tuple[str, int], np.ndarray] = {}
    pose: dict[str, np.ndarray] = {}  # target joint -> rotation of the reference pose from which its children start
    for name in JOINT_NAMES:
        entry = data.joints[name]
        if not entry:
            pose[name] = pose[PARENT[name]]
            continue
        if not known:
            for index in entry:
                if index not in frames:
                    frames[index] = _estimated_frame(name, index, data, constants)
        turn, pose[name] = _reference_turn(name, frames[entry[0]], data, pose, known)
        constants |= {(name, index): frames[index].T @ turn for index in entry}
    return constants


def _reference_turn(name: str, frame: np.ndarray, data: _Source, pose: dict, known: bool):
    """Return the rotation W of a target joint in the reference pose, and the rotation from which its children start."""
    before = pose[PARENT[name]] if name in PARENT else np.eye(3)
    children = [child for child in CHILDREN[name] if child in data.bones]
    if data.same and len(children) > 1:
        theirs = np.array([data.bones[child] for child in children]) @ frame.T
        turn = fit_turn(np.array([REST[child] for child in children]), theirs)
        return turn, turn
    ours, theirs = _bone(name, data)
    if theirs is None:
        return before, before
    theirs = frame @ theirs
    if data.same and name not in TIPS:
        turn = _turn_to(before, ours, theirs, name, data, frame, 0.1)
        turn = shortest_turn(turn @ ours, theirs) @ turn
        return turn, turn
    if name in LIMBS:
        begin = _turn_to(before, ours, theirs, name, data, frame, SAME_POSE if known else 60.0)
        return shortest_turn(begin @ ours, theirs) @ begin, begin
    if name in TIPS and known and degrees_between(before @ ours, theirs) > DUMMY:
        return before, before
    if name in FEET:
        by = _slope(before.T @ theirs) - (_slope(ours) if known else _flat_slope(name, data))
        turn = before if known and abs(by) < np.deg2rad(SAME_END) else before @ turn_about(X, by)
        return turn, turn
    if name in TIPS:
        turn = _turn_to(before, ours, theirs, name, data, frame, SAME_END)
        return turn, turn
    return before, before


def _flat_slope(name: str, data: _Source) -> float:
    """Return the slope of the source bone from ankle to toe joint, or of the toes, while the foot is on the floor."""
    side = name.partition("_")[0]
    start, end = f"{side}_ankle", f"{side}_foot"
    if name == end or not data.joints[end]:
        return _slope(_bone(name, data)[0])
    ankle, toe = (data.places[:, data.joints[joint][0]] for joint in (start, end))
    size = np.linalg.norm(data.bones[f"{side}_knee"]) + np.linalg.norm(data.bones[f"{side}_ankle"])
    toe_height, ankle_height = toe @ data.up, ankle @ data.up
    on_floor = toe_height < np.percentile(toe_height, 10) + 0.02 * size
    on_floor &= ankle_height < np.percentile(ankle_height[on_floor], 25) + 0.02 * size
    rise = np.median((ankle_height - toe_height)[on_floor]) / np.linalg.norm(data.bones[end])
    return float(np.arcsin(np.clip(rise, -1, 1)))


def _bone(name: str, data: _Source) -> tuple[np.ndarray, np.ndarray | None]:
    """Return the target bone (unit vector, rest pose) and the source bone in local axes, to the child or tip."""
    child = CHILDREN[name][0] if CHILDREN[name] else None
    if child in data.bones:
        return unit(REST[child]), unit(data.bones[child])
    ours = unit(REST[child]) if child else np.array(TIPS[name])
    return ours, data.tips.get(name)


def _turn_to(
    before: np.ndarray,
    ours: np.ndarray,
    theirs: np.ndarray,
    name: str,
    data: _Source,
    frame: np.ndarray,
    tolerance: float,
) -> np.ndarray:
    """Return the rotation (3, 3) of the reference pose at a joint, which differs from its parent's if the bone does.

    Arms rotate about the forward axis, legs and feet about the axis from left to right.

    Args:
        before: Rotation of the reference pose at the parent.
        ours, theirs: The bone (3) in the rest pose of SMPL-X, and in the reference pose.
        frame: F of the joint.
        tolerance: Angle in degrees up to which the rotation of the parent is kept.
    """
    if degrees_between(before @ ours, theirs) <= tolerance:
        return before
    side, _, joint = name.partition("_")
    if joint == "shoulder":
        # the whole arm is the best measure, if it is straight in the zero pose, where all frames are equal
        whole, whole_theirs = (bones[f"{side}_elbow"] + bones[f"{side}_wrist"] for bones in (REST, data.bones))
        if degrees_between(theirs, frame @ whole_theirs) < SAME_POSE:
            return _turned_about(before @ Z, before, whole, frame @ whole_theirs, snap=not data.same)
        return _turned_about(before @ Z, before, ours, theirs)
    if joint in ("hip", "knee", "ankle", "foot"):
        return _turned_about(before @ X, before, ours, theirs)
    return shortest_turn(before @ ours, theirs) @ before


def _turned_about(
    axis: np.ndarray, before: np.ndarray, ours: np.ndarray, theirs: np.ndarray, snap: bool = False
) -> np.ndarray:
    """Rotate ``before`` about ``axis`` toward ``theirs``; by the shortest rotation if that is along the axis.

    ``snap`` sets angles near a right angle to it, because the proportions of skeletons differ.
    """
    start = before @ unit(ours)
    if max(abs(start @ axis), abs(unit(theirs) @ axis)) > 0.85:
        return shortest_turn(start, unit(theirs)) @ before
    by = np.degrees(angle_about(axis, start, theirs))
    right_angle = round(by / 90) * 90
    if snap and right_angle and abs(by - right_angle) < 10:
        by = right_angle
    return turn_about(axis, np.deg2rad(by)) @ before


def _estimated_frame(name: str, index: int, data: _Source, constants: dict) -> np.ndarray:
    """Infer the frame of a source joint from the motion."""
    if name == "pelvis":
        return _set_to_axes(_trunk_frame(data, index), np.eye(3))
    parent = PARENT[name]
    while not data.joints[parent]:
        parent = PARENT[parent]
    above = data.joints[parent][0]
    turns = data.turns[:, above].transpose(0, 2, 1) @ data.turns[:, index]  # (S, 3, 3)
    turns = constants[parent, above].T @ turns  # times C: local rotation of the target
    ours, theirs = _bone(name, data)
    if theirs is None or not (name in LIMBS or name in FEET or name in TIPS and name != "head"):
        return _set_to_axes(mean_turn(turns), np.eye(3))
    if name in TIPS and degrees_between(theirs, data.bones.get(name, theirs)) > DUMMY:
        return _set_to_axes(mean_turn(turns), np.eye(3))
    base = shortest_turn(ours, theirs)
    found = base @ turn_about(ours, -mean_twist(turns @ base, ours))  # C without twist on average
    bend = _bend(name, index, data)
    if bend is not None:  # or with the knee bending backward, the elbow forward
        forward = base @ (Z if name.endswith("shoulder") else -Z)
        found = turn_about(theirs, angle_about(theirs, forward, bend)) @ base
    if name.endswith("ankle") and (sole := _sole(name, data)) is not None:
        return sole.T if turn_angle(sole, found) < NEAR_FRAME else found.T
    return _usual_frame(found, ours, theirs, constants[parent, above], foot=name in FEET)


def _usual_frame(found: np.ndarray, ours: np.ndarray, theirs: np.ndarray, above: np.ndarray, foot: bool) -> np.ndarray:
    """Return the frame that exporters commonly use and whose C is nearest to ``found``, if it is near.

    Args:
        found: C (3, 3) inferred from the motion.
        ours, theirs: The bone (3) in the rest pose of SMPL-X and in the joint's local axes.
        above: C of the parent.
        foot: Whether it is an ankle or toe joint, whose bone slopes downward in the rest pose.
    """
    frames = [turn for turn in AXIS_TURNS if degrees_between(turn @ theirs, ours) < 50]  # along the T-pose's axes
    offs = [turn_angle(turn.T @ shortest_turn(ours, turn @ theirs), found) for turn in frames]
    # Other exporters rotate the axes by the shortest rotation from the T-pose, or from the axes of the parent.
    shortest = shortest_turn(ours * (0, 1, 1), nearest_direction(theirs)) if foot else shortest_turn(ours, theirs)
    for turn in (shortest, above):
        constant = shortest_turn(turn @ ours, theirs) @ turn
        frames.append(constant.T)
        offs.append(turn_angle(constant, found) + OTHER)
    best = int(np.argmin(offs))
    return frames[best] if offs[best] < NEAR_FRAME else found.T


def _bend(name: str, index: int, data: _Source) -> np.ndarray | None:
    """Return the direction (3), in local axes of a hip or shoulder, in which the next bone bends, if it does."""
    side, _, joint = name.partition("_")
    if joint not in ("hip", "shoulder"):
        return None
    middle, end = ("knee", "ankle") if joint == "hip" else ("elbow", "wrist")
    first, last = (data.joints[f"{side}_{part}"][0] for part in (middle, end))
    lower = unit(data.places[:, last] - data.places[:, first])
    lower = (lower[:, None] @ data.turns[:, index])[:, 0]
    bone = unit(data.bones[f"{side}_{middle}"])
    across = lower - (lower @ bone)[:, None] * bone  # (S, 3), as long as the sine of the bend
    size = np.linalg.norm(across, axis=-1)
    if size.std() > np.sin(np.deg2rad(BENT)):  # direction of increasing bend; straight limbs are not exactly straight
        return (size - size.mean()) @ (across - across.mean(axis=0))
    return across.mean(axis=0) if np.median(size) > np.sin(np.deg2rad(STAYS_BENT)) else None


def _sole(name: str, data: _Source) -> np.ndarray | None:
    """Return C of an ankle if toe joint and toes have the angle of SMPL-X and the toes are straight on average."""
    foot = name.replace("ankle", "foot")
    if foot not in data.tips or foot not in data.bones:
        return None
    ankle, toe = data.joints[name][0], data.joints[foot][0]
    bend = mean_turn(data.turns[:, ankle].transpose(0, 2, 1) @ data.turns[:, toe])
    ours, theirs = [unit(REST[foot]), np.array(TIPS[foot])], [unit(data.bones[foot]), data.tips[foot]]
    if turn_angle(bend, np.eye(3)) > 20 or abs(degrees_between(*ours) - degrees_between(*theirs)) > 3:
        return None
    return fit_turn(np.array(ours), np.array(theirs))


def _set_to_axes(frame: np.ndarray, base: np.ndarray) -> np.ndarray:
    """Return the nearest of the 24 frames along the axes of ``base`` if it is near, else ``frame``."""
    nearest = nearest_axes(frame @ base.T) @ base
    return nearest if turn_angle(nearest, frame) < NEAR_FRAME else frame


def _slope(direction: np.ndarray) -> float:
    """Return the angle in radians about +x from +z to a direction."""
    return float(np.arctan2(-direction[1], direction[2]))
