"""Up axis and floor of a motion file, and removal of a leading rest pose."""

import numpy as np

from motion.directions import unit
from motion.rest_pose import PARENT
from motion.skeleton import JOINT_NAMES
from motion.source_motion import SourceMotion, sample_frames

AXES = {sign + axis: (-1 if sign else 1) * np.eye(3)[number]
        for sign in ("", "-") for number, axis in enumerate("xyz")}  # fmt: skip
SIDES = ("left", "right")
TURNS = {  # up axis -> rotation (3, 3) of the file's axes to y up
    "y": np.eye(3),
    "z": np.array([[1, 0, 0], [0, 0, 1], [0, -1, 0]]),
    "x": np.array([[0, -1, 0], [1, 0, 0], [0, 0, 1]]),
    "-y": np.diag([1, -1, -1]),
    "-z": np.array([[1, 0, 0], [0, 0, -1], [0, 1, 0]]),
    "-x": np.array([[0, 1, 0], [-1, 0, 0], [0, 0, 1]]),
}
UNIT_FACTORS = (0.001, 0.01, 0.0254, 0.1, 1 / 2.54, 2.54, 10.0, 1 / 0.0254, 100.0, 1000.0)
JUMP = 30.0  # degrees: largest rotation of a limb from a leading pose to the motion
STILL = 0.1  # degrees


def axis_name(direction: np.ndarray) -> str:
    """Return the axis nearest to a direction (3): y, -z, ..."""
    return max(AXES, key=lambda name: float(AXES[name] @ direction))


def world_turn(up: str, body: np.ndarray | None) -> np.ndarray:
    """Return the rotation (3, 3) of the file's axes to y up; a zero pose ``body`` along the same axes then faces +z."""
    if body is not None and np.abs(body).max(axis=0).min() > 0.999 and axis_name(body[:, 1]) == up:
        return body.T
    return TURNS[up]


def up_axis(places: np.ndarray, joints: dict[str, list[int]], expected: str | None, notes: list[str]) -> str:
    """Return the up axis (y, z, -y, ...) of the file: head, pelvis and feet are in order along it in most frames.

    Args:
        places: World positions (T, J, 3) in the file's axes.
        joints: Source joints of each of the 22 joints.
        expected: Up axis of the zero pose; kept unless the motion contradicts it.
        notes: List to which a decision against the expected axis is added.
    """
    head, pelvis, feet, size = _column(places[sample_frames(len(places))], joints)
    expected = expected or "y"
    if stands(head, pelvis, feet, size, AXES[expected]) >= 0.25:
        return expected
    for name, axis in AXES.items():
        if stands(head, pelvis, feet, size, axis) >= 0.9:
            floor = (feet @ axis).min(axis=1) / size
            spread, level = np.subtract(*np.percentile(floor, [90, 10])), np.median(floor)
            if spread < 0.15 and abs(level) < 0.25:
                notes.append(f"the person stands along {name}, which is taken as up; --up {expected} overrides it")
                return name
    return expected


def up_of_body(places: np.ndarray, expected: str, notes: list[str]) -> str:
    """Return ``up_axis`` of positions (T, 22, 3) of the 22 joints."""
    return up_axis(places, {name: [joint] for joint, name in enumerate(JOINT_NAMES)}, expected, notes)


def stands(head: np.ndarray, pelvis: np.ndarray, feet: np.ndarray, size: float, axis: np.ndarray) -> float:
    """Return the share of frames with the head above the pelvis and the pelvis above both feet, along ``axis``."""
    upper = (head - pelvis) @ axis > 0.25 * size
    lower = (pelvis[:, None] - feet).mean(axis=1) @ axis > 0.25 * size
    return float((upper & lower).mean())


def _column(places: np.ndarray, joints: dict[str, list[int]]) -> tuple[np.ndarray, np.ndarray, np.ndarray, float]:
    """Return head (T, 3), pelvis (T, 3), lower ends of the legs (T, 2 or 4, 3), and the length of legs and trunk."""
    at = {name: places[:, entry[0]] for name, entry in joints.items() if entry}
    ends = [f"{side}_{joint}" for side in SIDES for joint in ("ankle", "foot")]
    pelvis = (at["left_hip"] + at["right_hip"]) / 2
    size = np.linalg.norm(at["head"] - pelvis, axis=-1).mean()
    for name in ("left_knee", "left_ankle"):
        size += np.linalg.norm(at[name] - at[PARENT[name]], axis=-1).mean()
    return at["head"], pelvis, np.stack([at[name] for name in ends if name in at], axis=1), float(size)


def place_root(
    source: SourceMotion,
    turns: np.ndarray,
    places: np.ndarray,
    joints: dict[str, list[int]],
    up: np.ndarray,
    unit_size: float | None,
    notes: list[str],
) -> np.ndarray:
    """Return the shift of the positions of each frame (T, 3) that puts the feet on the floor.

    Root positions may be relative to the root's OFFSET, or in a different unit than the bones. If the feet are far from
    the level 0, the interpretation that puts them there is used. A person who remains below the floor, as in files
    without root positions, is lifted onto it.
    """
    _, pelvis, feet, size = _column(places, joints)
    root = max(
        source.ancestors(joints["pelvis"][0]), key=lambda joint: np.ptp(source.positions[:, joint], axis=0).max()
    )
    above = turns[:, source.parents[root]] if source.parents[root] >= 0 else np.eye(3)[None]
    moves = (above @ source.positions[:, root, :, None])[..., 0]
    lowest = feet @ up  # (T, 2 or 4)
    level = float(np.percentile(lowest.min(axis=1), 5)) / size

    def on_floor(shift: np.ndarray) -> bool:
        return abs(float(np.percentile((lowest.min(axis=1) + shift @ up), 5))) / size < 0.15

    shift = np.zeros_like(moves)
    if unit_size is not None:
        return moves * (unit_size / _bone_unit(size) - 1)
    if -0.3 < level < 3:
        return shift
    offset = np.broadcast_to(above @ source.offsets[root], moves.shape)
    if level < 0 and np.linalg.norm(offset) > 0.1 * size and on_floor(offset):
        notes.append("root positions are relative to the root's OFFSET")
        return offset
    for factor in UNIT_FACTORS:
        if (factor > 1) == (level < 0) and np.ptp(moves @ up) > 0 and on_floor(moves * (factor - 1)):
            notes.append(f"root positions are taken times {factor:g}, the unit of the bones; --units overrides it")
            return moves * (factor - 1)
    if level < 0:
        notes.append("the feet are far below the level 0 and are lifted to it")
        return shift - level * size * up
    return shift


def _bone_unit(size: float) -> float:
    """Return the unit in metres in which legs and trunk, about 1.4 m long, have this length."""
    return min((1.0, 0.01, 0.001, 0.0254, 0.3048), key=lambda metres: abs(np.log(size * metres / 1.4)))


def drop_leading_pose(source: SourceMotion, joints: dict[str, list[int]], notes: list[str]) -> SourceMotion:
    """Remove a T-pose (or other rest pose) before the motion: still frames followed by a jump of the limbs."""
    limbs = [joints[f"{side}_{joint}"][0] for side in SIDES for joint in ("shoulder", "elbow", "hip", "knee")]
    most = min(len(source.rotations) - 2, int(np.ceil(source.fps)) + 1)
    if most < 3:
        return source
    turns = source.rotations[: most + 1, limbs]
    cos = (np.einsum("tjab,tjab->tj", turns[1:], turns[:-1]) - 1) / 2
    steps = np.degrees(np.arccos(np.clip(cos, -1, 1)))  # (most, 8)
    still = int(np.argmax(steps.max(axis=1) > STILL))  # number of frame steps before the first motion
    jump, after = steps[still].max(), steps[still + 1 :]
    if len(after) < 2 or jump < JUMP or jump < 3 * after.max() or not _is_rest_pose(source, joints):
        return source
    notes.append(f"the first {still + 1} frame(s) hold a rest pose and are removed")
    return source.frames(still + 1)


def _is_rest_pose(source: SourceMotion, joints: dict[str, list[int]]) -> bool:
    """Whether arms and legs are straight in the first frame."""
    places = source.first(1).world()[1][0]
    for side in SIDES:
        for parts in (("shoulder", "elbow", "wrist"), ("hip", "knee", "ankle")):
            start, middle, end = (places[joints[f"{side}_{part}"][0]] for part in parts)
            if unit(middle - start) @ unit(end - middle) < np.cos(np.deg2rad(30)):
                return False
    return True
