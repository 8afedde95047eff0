"""The constant rotation between our joints and those of a foreign skeleton, from the directions of its bones.

A source joint has a frame F: the directions of its local axes in a reference pose of a person who stands upright and
faces +z. It comes from, in this order: a skeleton map; the file's zero pose, if a person stands in it (arms anywhere);
the motion itself, where the zero pose is no pose (all bones along x, for example). There the trunk's frames follow
hips, shoulders and spine, and a limb's turn about its bone is the one for which the limb is not twisted on average;
frames found from the motion are then set to the nearest frame that an exporter would choose.

In the reference pose our joint is turned by W, so that our bone points as the source's; C = F^T W. Trunk and collars
keep our rest pose, whose curves differ between skeletons; hands, feet and toes follow larger turns only, as of hanging
arms. If all bones have our lengths (times a factor), it is our own skeleton and every bone is matched.
"""

from itertools import permutations, product
from typing import NamedTuple

import numpy as np

from motion.skeleton import JOINT_NAMES, PARENTS, REST_OFFSETS
from motion.source_motion import SourceMotion, sample_frames

REST = {name: REST_OFFSETS[joint].astype(np.float64) for joint, name in enumerate(JOINT_NAMES)}
PARENT = {name: JOINT_NAMES[PARENTS[joint]] for joint, name in enumerate(JOINT_NAMES) if joint}
CHILDREN = {name: [child for child, parent in PARENT.items() if parent == name] for name in JOINT_NAMES}
TIPS = {"head": (0.0, 1.0, 0.0), "left_wrist": (1.0, 0.0, 0.0), "right_wrist": (-1.0, 0.0, 0.0),
        "left_foot": (0.0, 0.0, 1.0), "right_foot": (0.0, 0.0, 1.0)}  # fmt: skip  # our ends, in the rest pose
SIDES = ("left", "right")
LIMBS = tuple(f"{side}_{joint}" for side in SIDES for joint in ("hip", "knee", "shoulder", "elbow"))
FEET = tuple(f"{side}_{joint}" for side in SIDES for joint in ("ankle", "foot"))
X, Y, Z = np.eye(3)
# Angles in degrees
SAME_POSE = 30.0  # limbs within this of ours are in our rest pose; the difference is one of proportions
SAME_END = 35.0  # likewise for hands, feet and toes
DUMMY = 75.0  # end sites further off hold no direction of a hand, head or toe
UPRIGHT = 25.0  # a zero pose this close to the file's axes is meant to be along them
TURNED_BACK = 75.0  # a trunk joint this far from the trunk is turned back by its children
BENT = 2.0  # knees and elbows whose bend varies less (standard deviation) do not tell their axis,
STAYS_BENT = 45.0  # unless they are always bent by more
NEAR_FRAME = 40.0  # a frame found from the motion is set to one along the axes within this
OTHER = 20.0  # an unusual frame must be nearer by this
SAME_LENGTH = 0.015  # relative spread of bone lengths below which a skeleton is ours


class _Source(NamedTuple):
    """Measures of a file at sample frames."""

    joints: dict[str, list[int]]
    turns: np.ndarray  # (S, J, 3, 3) world
    places: np.ndarray  # (S, J, 3) world
    bones: dict[str, np.ndarray]  # our joint -> (3) its place in the local axes of our parent's source
    tips: dict[str, np.ndarray]  # hand, head, foot -> (3) its direction in local axes, where the file has it
    same: bool  # it is our skeleton, scaled
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
    """Find the constant rotation C (3, 3) of each of our joints and each source joint that it follows.

    Args:
        source, joints, rest, notes: As in ``motion.retarget.retarget``.
        turns: World rotations (T, J, 3, 3) of the source.
        places: World positions (T, J, 3) of the source.
        up: Direction (3) that is up in the file.
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
        notes.append(f"{names} is turned against the trunk and back by its children; hips and shoulders tell its axes")
    return _constants(data, turned | back, known=True)


def zero_pose_body(source: SourceMotion, joints: dict[str, list[int]]) -> np.ndarray | None:
    """Columns left, up and forward (3, 3) of the file's zero pose, or None if nobody stands in it.

    They are set to the file's axes if they are near.
    """
    zero = source.zero_pose()
    return _body({name: zero[entry[0]] for name, entry in joints.items() if entry})


def _local_bones(joints: dict, turns: np.ndarray, places: np.ndarray) -> dict[str, np.ndarray]:
    """Mean place of each joint in the local axes of our parent's source joint."""
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
    """Whether all bones, and the angles between those of pelvis and chest, are ours times one factor."""
    if set(bones) != set(PARENT) or any(len(entry) != 1 for entry in joints.values()):
        return False
    ratios = {name: np.linalg.norm(bone) / np.linalg.norm(REST[name]) for name, bone in bones.items()}
    scale = float(np.median(list(ratios.values())))
    if any(abs(ratio / scale - 1) > SAME_LENGTH for ratio in ratios.values()):
        return False
    for parent in ("pelvis", "spine3"):
        ours = np.array([REST[child] for child in CHILDREN[parent]])
        theirs = np.array([bones[child] for child in CHILDREN[parent]]) / scale
        if np.linalg.norm(theirs - ours @ _fit(ours, theirs).T) > 0.03 * np.linalg.norm(ours):
            return False
    return True


def _body(at: dict[str, np.ndarray]) -> np.ndarray | None:
    """Columns left, up and forward (3, 3) of a pose of joint places, or None if nobody stands in it."""
    hips, shoulders, ankles = ((at[f"left_{part}"] + at[f"right_{part}"]) / 2 for part in ("hip", "shoulder", "ankle"))
    trunk, legs = unit(at["head"] - hips), unit(hips - ankles)
    left = unit(at["left_hip"] - at["right_hip"])
    across = unit(at["left_shoulder"] - at["right_shoulder"])
    if not trunk @ legs > 0.7 or not left @ across > 0.5 or abs(left @ legs) > 0.5:
        return None
    up = unit(unit(at["head"] - ankles) + unit(shoulders - ankles))
    left = unit(unit(left + across) - (left + across) @ up / np.linalg.norm(left + across) * up)
    for side, sign in (("left", 1), ("right", -1)):
        parts = [at[f"{side}_{part}"] for part in ("hip", "knee", "ankle")]
        thigh, shin = unit(parts[1] - parts[0]), unit(parts[2] - parts[1])
        arm = unit(at[f"{side}_elbow"] - at[f"{side}_shoulder"])
        if max(thigh @ up, shin @ up) > -0.25 or sign * (arm @ left) < -0.5:
            return None
    body = np.stack((left, up, np.cross(left, up)), axis=1)
    nearest = nearest_axes(body)
    return nearest if angle(nearest, body) < UPRIGHT else body


def _fits(rest: dict[int, np.ndarray], data: _Source) -> bool:
    """Whether limbs and trunk point roughly as ours in the T-pose of these frames."""
    for name in (*(child for limb in LIMBS for child in CHILDREN[limb]), "left_hip", "right_hip"):
        frame = rest[data.joints[PARENT[name]][0]]
        ours = REST[name] * (X if name.endswith("hip") else 1)
        theirs = frame @ data.bones.get(name, np.zeros(3)) * (X if name.endswith("hip") else 1)
        if unit(ours) @ unit(theirs) < np.cos(np.deg2rad(50)):
            return False
    return True


def _turned_back(data: _Source, frames: dict[int, np.ndarray]) -> dict[int, np.ndarray]:
    """Frames of trunk joints that are turned away from hips and shoulders throughout, and back by their children."""
    changed = {}
    for name in ("pelvis", "spine1", "spine2", "spine3"):
        for index in data.joints[name]:
            frame = frames[index]
            found = _trunk_frame(data, index)
            if angle(found, frame) > TURNED_BACK:
                changed[index] = _set_to_axes(found, frame)
    return changed


def _trunk_frame(data: _Source, index: int) -> np.ndarray:
    """Frame of a trunk joint by the places of hips and shoulders in its local axes."""
    at = {name: data.places[:, entry[0]] for name, entry in data.joints.items() if entry}
    hips, shoulders = ((at[f"left_{part}"] + at[f"right_{part}"]) / 2 for part in ("hip", "shoulder"))
    up = unit(shoulders - hips)
    left = unit(unit(at["left_hip"] - at["right_hip"]) + unit(at["left_shoulder"] - at["right_shoulder"]))
    left = unit(left - (left * up).sum(axis=-1, keepdims=True) * up)
    body = np.stack((left, up, np.cross(left, up)), axis=-1)  # (S, 3, 3)
    return _mean_turn(data.turns[:, index].transpose(0, 2, 1) @ body).T


def _constants(data: _Source, frames: dict[int, np.ndarray], known: bool) -> dict:
    """C of every joint and source joint; frames that are not known are found from the motion."""
    frames, constants = dict(frames), {}
    pose = {}  # our joint -> rotation of the reference pose that its children start from
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
    """Rotation W of our joint in the reference pose, and the rotation from which its children start."""
    before = pose[PARENT[name]] if name in PARENT else np.eye(3)
    children = [child for child in CHILDREN[name] if child in data.bones]
    if data.same and len(children) > 1:
        theirs = np.array([data.bones[child] for child in children]) @ frame.T
        turn = _fit(np.array([REST[child] for child in children]), theirs)
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
    if name in TIPS and known and _degrees(before @ ours, theirs) > DUMMY:
        return before, before
    if name in FEET:
        by = _slope(before.T @ theirs) - (_slope(ours) if known else _flat_slope(name, data))
        turn = before if known and abs(by) < np.deg2rad(SAME_END) else before @ _about(X, by)
        return turn, turn
    if name in TIPS:
        turn = _turn_to(before, ours, theirs, name, data, frame, SAME_END)
        return turn, turn
    return before, before


def _flat_slope(name: str, data: _Source) -> float:
    """Slope of the source's bone from ankle to toe joint, or of its toes, while the foot stands on the floor."""
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
    """Our bone (unit vector, rest pose) and the source's in the joint's local axes: to the child, or to the tip."""
    child = CHILDREN[name][0] if CHILDREN[name] else None
    if child in data.bones:
        return unit(REST[child]), unit(data.bones[child])
    ours = unit(REST[child]) if child else np.array(TIPS[name])
    return ours, data.tips.get(name)


def _turn_to(before, ours, theirs, name, data, frame, tolerance) -> np.ndarray:
    """Rotation of the reference pose at a joint: that of its parent, or turned on if the bone points elsewhere.

    Arms are raised about the forward axis, legs and feet turn about the axis from left to right, as people do.
    """
    if _degrees(before @ ours, theirs) <= tolerance:
        return before
    side, _, joint = name.partition("_")
    if joint == "shoulder":
        # the whole arm tells the pose best, if it is straight in the zero pose, where all frames are the same
        whole, whole_theirs = (bones[f"{side}_elbow"] + bones[f"{side}_wrist"] for bones in (REST, data.bones))
        if _degrees(theirs, frame @ whole_theirs) < SAME_POSE:
            return _turned_about(before @ Z, before, whole, frame @ whole_theirs, snap=not data.same)
        return _turned_about(before @ Z, before, ours, theirs)
    if joint in ("hip", "knee", "ankle", "foot"):
        return _turned_about(before @ X, before, ours, theirs)
    return shortest_turn(before @ ours, theirs) @ before


def _turned_about(axis, before, ours, theirs, snap: bool = False) -> np.ndarray:
    """``before``, turned about ``axis`` towards ``theirs``; by the shortest way if that is along the axis."""
    start = before @ unit(ours)
    if max(abs(start @ axis), abs(unit(theirs) @ axis)) > 0.85:
        return shortest_turn(start, unit(theirs)) @ before
    by = np.degrees(_angle_about(axis, start, theirs))
    right_angle = round(by / 90) * 90
    if snap and right_angle and abs(by - right_angle) < 10:
        by = right_angle
    return _about(axis, np.deg2rad(by)) @ before


def _estimated_frame(name: str, index: int, data: _Source, constants: dict) -> np.ndarray:
    """Frame of a source joint from the motion."""
    if name == "pelvis":
        return _set_to_axes(_trunk_frame(data, index), np.eye(3))
    parent = PARENT[name]
    while not data.joints[parent]:
        parent = PARENT[parent]
    above = data.joints[parent][0]
    turns = data.turns[:, above].transpose(0, 2, 1) @ data.turns[:, index]  # (S, 3, 3)
    turns = constants[parent, above].T @ turns  # times C: our local rotation
    ours, theirs = _bone(name, data)
    if theirs is None or not (name in LIMBS or name in FEET or name in TIPS and name != "head"):
        return _set_to_axes(_mean_turn(turns), np.eye(3))
    if name in TIPS and _degrees(theirs, data.bones.get(name, theirs)) > DUMMY:
        return _set_to_axes(_mean_turn(turns), np.eye(3))
    base = shortest_turn(ours, theirs)
    found = base @ _about(ours, -_mean_twist(turns @ base, ours))  # C without twist on average
    bend = _bend(name, index, data)
    if bend is not None:  # or with the knee bending backward, the elbow forward
        forward = base @ (Z if name.endswith("shoulder") else -Z)
        found = _about(theirs, _angle_about(theirs, forward, bend)) @ base
    frames = [turned for turned in AXIS_TURNS if _degrees(turned @ theirs, ours) < 50]  # along the axes of the T-pose
    usual = [turned.T @ shortest_turn(ours, turned @ theirs) for turned in frames]
    flat = ours * (0, 1, 1) if name in FEET else ours  # or turned there by the shortest way, from T-pose or parent
    along = nearest_direction(theirs) if name in FEET else theirs
    others = [shortest_turn(flat, along), constants[parent, above]]
    others = [shortest_turn(turned @ ours, theirs) @ turned for turned in others]
    offs = [angle(constant, found) for constant in usual] + [angle(constant, found) + OTHER for constant in others]
    frames += [constant.T for constant in others]
    if name.endswith("ankle") and (sole := _sole(name, data)) is not None:
        offs, frames = [angle(sole, found)], [sole.T]
    best = int(np.argmin(offs))
    return frames[best] if offs[best] < NEAR_FRAME else found.T


def _bend(name: str, index: int, data: _Source) -> np.ndarray | None:
    """Direction (3), in a hip's or shoulder's local axes, towards which the next bone bends, if it does."""
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
    if size.std() > np.sin(np.deg2rad(BENT)):  # the way in which the bend grows; straight limbs are not quite straight
        return (size - size.mean()) @ (across - across.mean(axis=0))
    return across.mean(axis=0) if np.median(size) > np.sin(np.deg2rad(STAYS_BENT)) else None


def _sole(name: str, data: _Source) -> np.ndarray | None:
    """C of an ankle whose toe joint and toes form our angle, if the toes are straight on average."""
    foot = name.replace("ankle", "foot")
    if foot not in data.tips or foot not in data.bones:
        return None
    ankle, toe = data.joints[name][0], data.joints[foot][0]
    bend = _mean_turn(data.turns[:, ankle].transpose(0, 2, 1) @ data.turns[:, toe])
    ours, theirs = [unit(REST[foot]), np.array(TIPS[foot])], [unit(data.bones[foot]), data.tips[foot]]
    if angle(bend, np.eye(3)) > 20 or abs(_degrees(*ours) - _degrees(*theirs)) > 3:
        return None
    return _fit(np.array(ours), np.array(theirs))


def _set_to_axes(frame: np.ndarray, base: np.ndarray) -> np.ndarray:
    """The nearest of the 24 frames along the axes of ``base``, if it is near."""
    nearest = nearest_axes(frame @ base.T) @ base
    return nearest if angle(nearest, frame) < NEAR_FRAME else frame


def _mean_twist(turns: np.ndarray, axis: np.ndarray) -> float:
    """Mean angle in radians by which rotations (S, 3, 3) turn about ``axis`` before they swing it."""
    # The quaternion's part along the axis and its real part, from the matrix: twist = 2 atan2(v . axis, w)
    cos = 1 + np.trace(turns, axis1=1, axis2=2)  # 4 w^2
    skew = np.stack((turns[:, 2, 1] - turns[:, 1, 2], turns[:, 0, 2] - turns[:, 2, 0], turns[:, 1, 0] - turns[:, 0, 1]))
    along = axis @ skew  # 4 w (v . axis)
    # (w + i v.a)^2 = w^2 - (v.a)^2 + 2 i w (v.a); (v.a)^2 from the symmetric part
    square = 1 - np.trace(turns, axis1=1, axis2=2) + 2 * np.einsum("i,sij,j->s", axis, turns, axis)  # 4 (v.a)^2
    return float(np.angle(np.sum(cos - square + 2j * along)))


def _mean_turn(turns: np.ndarray) -> np.ndarray:
    """Mean rotation (3, 3) of rotations (S, 3, 3)."""
    return _nearest_rotation(turns.sum(axis=0))


def _fit(start: np.ndarray, end: np.ndarray) -> np.ndarray:
    """Rotation (3, 3) that best turns the vectors ``start`` (N, 3) to ``end``."""
    return _nearest_rotation(end.T @ start)


def _nearest_rotation(matrix: np.ndarray) -> np.ndarray:
    left, _, right = np.linalg.svd(matrix)
    return left @ np.diag([1, 1, np.sign(np.linalg.det(left @ right))]) @ right


def nearest_axes(turn: np.ndarray) -> np.ndarray:
    """The rotation along the axes (one of 24) that is nearest to ``turn`` (3, 3)."""
    return max(AXIS_TURNS, key=lambda candidate: float((candidate * turn).sum()))


AXIS_TURNS = [
    matrix
    for order in permutations(range(3))
    for signs in product((1.0, -1.0), repeat=3)
    if np.linalg.det(matrix := np.diag(signs)[list(order)]) > 0
]


def nearest_direction(vector: np.ndarray) -> np.ndarray:
    """The axis, with its sign, that is nearest to ``vector`` (3)."""
    axis = np.zeros(3)
    axis[np.abs(vector).argmax()] = np.sign(vector[np.abs(vector).argmax()])
    return axis


def shortest_turn(start: np.ndarray, end: np.ndarray) -> np.ndarray:
    """Rotation (3, 3) of least angle that turns direction ``start`` (3) to ``end`` (3)."""
    start, end = unit(start), unit(end)
    if start @ end < -0.9999:  # half a turn about any axis across
        axis = unit(np.cross(start, np.eye(3)[np.abs(start).argmin()]))
        return 2 * np.outer(axis, axis) - np.eye(3)
    cross = np.cross(start, end)
    skew = np.array([[0, -cross[2], cross[1]], [cross[2], 0, -cross[0]], [-cross[1], cross[0], 0]])
    return np.eye(3) + skew + skew @ skew / (1.0 + start @ end)


def _about(axis: np.ndarray, radians: float) -> np.ndarray:
    skew = np.array([[0, -axis[2], axis[1]], [axis[2], 0, -axis[0]], [-axis[1], axis[0], 0]])
    return np.eye(3) + np.sin(radians) * skew + (1 - np.cos(radians)) * skew @ skew


def _angle_about(axis: np.ndarray, start: np.ndarray, end: np.ndarray) -> float:
    """Angle in radians about ``axis`` from ``start`` to ``end``."""
    start, end = (vector - (vector @ axis) * axis for vector in (start, end))
    return float(np.arctan2(np.cross(start, end) @ axis, start @ end))


def _slope(direction: np.ndarray) -> float:
    """Angle in radians about +x from +z to a direction, seen from the side."""
    return float(np.arctan2(-direction[1], direction[2]))


def angle(one: np.ndarray, other: np.ndarray) -> float:
    """Degrees between two rotations (3, 3)."""
    return float(np.degrees(np.arccos(np.clip((np.sum(one * other) - 1) / 2, -1, 1))))


def _degrees(one: np.ndarray, other: np.ndarray) -> float:
    return float(np.degrees(np.arccos(np.clip(unit(one) @ unit(other), -1, 1))))


def unit(vectors: np.ndarray) -> np.ndarray:
    """Vectors (..., 3) at length 1; zero vectors stay."""
    length = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return vectors / np.where(length > 0, length, 1)
