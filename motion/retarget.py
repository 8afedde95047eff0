"""Retarget motion of any skeleton to the 22 joints of SMPL-X.

The world rotation of a target joint is W = M G C. G is the world rotation of the source joint, by forward kinematics of
the file. M rotates the axes of the file to y up. C is constant per joint: the rotation of the target joint in the local
axes of the source joint. It rotates the target bone onto the source bone, so that limbs have the directions of the file
for any joint axes; motion/rest_pose.py computes it from the directions of the bones. The midpoint of the hips follows
that of the file, scaled by leg length.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from motion.directions import shortest_turn, unit
from motion.resample import resample_positions, resample_rotations
from motion.rest_pose import find_rest
from motion.rotation import slerp
from motion.skeleton import JOINT_INDEX, JOINT_NAMES, JOINTS, PARENTS, REST_OFFSETS
from motion.source_motion import SourceMotion
from motion.world_axes import AXES, axis_name, drop_leading_pose, place_root, up_axis, world_turn
from motion.zero_pose import zero_pose_body
from utils.errors import InputError

SIDES = ("left", "right")
UNITS = {"m": 1.0, "cm": 0.01, "mm": 0.001, "in": 0.0254, "ft": 0.3048}  # metres
BONE_CHILD = {  # joints whose bone has the direction of the source bone in every frame, with the joint at its other end
    f"{side}_{joint}": f"{side}_{child}"
    for joint, child in (("hip", "knee"), ("knee", "ankle"), ("shoulder", "elbow"), ("elbow", "wrist"))
    for side in SIDES
}
LEGS = tuple(BONE_CHILD.values())[:4]
OFF_BONE = np.deg2rad(0.05)  # a bone that deviates more from its mean direction is corrected frame by frame


class Retargeted(NamedTuple):
    """Motion of the 22 SMPL-X joints."""

    rotations: np.ndarray  # (T, 22, 3, 3) local, float32
    pelvis: np.ndarray  # (T, 3) metres, float32
    bones: np.ndarray  # (T', 8) lengths of the source's limbs in its own frames and unit
    notes: list[str]  # decisions that the user should know


@dataclass
class Axes:
    """Up axis and length unit of the file; None infers them."""

    up: str | None = None
    units: str | None = None


def retarget(
    source: SourceMotion,
    joints: dict[str, list[int]],
    fps: float,
    rest: dict[int, np.ndarray] | None = None,
    axes: Axes | None = None,
) -> Retargeted:
    """Retarget a clip to the 22 joints.

    Args:
        source: The clip, in any length unit.
        joints: Source joints of each of the 22 joints: one, two (averaged), or none (the joint follows its parent).
        fps: Frames per second of the result.
        rest: World rotations (3, 3) of the source joints in a T-pose that faces +z, if they are known; not used if the
            bones contradict them.
        axes: Up axis and length unit, if they are known.

    Raises:
        InputError: the joints do not form a body, or the motion has no frame.
    """
    source, joints, rest = _needed(source, joints, rest)
    axes = axes or Axes()
    notes: list[str] = []
    source = drop_leading_pose(source, joints, notes)
    turns, places = source.world()
    body = zero_pose_body(source, joints)
    up = axes.up or up_axis(places, joints, None if body is None else axis_name(body[:, 1]), notes)
    constants = find_rest(source, joints, turns, places, AXES[up], rest, notes)
    unit_size = UNITS[axes.units] if axes.units else None
    places = places + place_root(source, turns, places, joints, AXES[up], unit_size, notes)[:, None]
    world_axes = world_turn(up, None if rest else body)
    turns, places = world_axes @ turns, places @ world_axes.T
    world = _world_rotations(joints, turns, places, constants)
    pelvis = _pelvis(world[:, 0], places, joints)
    local = world.copy()
    for joint in range(1, JOINTS):
        local[:, joint] = world[:, PARENTS[joint]].transpose(0, 2, 1) @ world[:, joint]
    rotations = resample_rotations(local, source.fps, fps).astype(np.float32)
    path = resample_positions(pelvis, source.fps, fps).astype(np.float32)
    return Retargeted(rotations, path, _limb_lengths(places, joints), notes)


def _needed(source: SourceMotion, joints: dict[str, list[int]], rest: dict[int, np.ndarray] | None):
    """Reduce the arguments to the joints that are used, their ancestors, and the joints near hands, feet and head."""
    used = {index for entry in joints.values() for index in entry}
    ends = {entry[0] for name, entry in joints.items() if entry and name.endswith(("wrist", "foot", "ankle", "head"))}
    kept = {above for index in used for above in source.ancestors(index)}
    kept |= {index for index in range(len(source.names)) if ends & set(source.ancestors(index)[:3])}
    order = sorted(kept)
    number = {index: place for place, index in enumerate(order)}
    _check_body(source, joints)
    return (
        source.joints(order),
        {name: [number[index] for index in entry] for name, entry in joints.items()},
        rest and {number[index]: turn for index, turn in rest.items() if index in number},
    )


def _check_body(source: SourceMotion, joints: dict[str, list[int]]) -> None:
    zero = source.zero_pose()
    for start, end in BONE_CHILD.items():
        first, last = joints[start][0], joints[end][0]
        if first not in source.ancestors(last)[1:]:
            raise InputError(
                f"{source.names[last]} does not hang below {source.names[first]} in the file; change the skeleton map"
            )
        if np.linalg.norm(zero[last] - zero[first]) < 1e-6:
            raise InputError(
                f"the bone from {source.names[first]} to {source.names[last]} has no length in the file; change the "
                "skeleton map"
            )


def _world_rotations(joints: dict, turns: np.ndarray, places: np.ndarray, constants: dict) -> np.ndarray:
    """Return the world rotations (T, 22, 3, 3) of the 22 joints."""
    world = np.empty((len(turns), JOINTS, 3, 3))
    for number, name in enumerate(JOINT_NAMES):
        entry = joints[name]
        if not entry:
            world[:, number] = world[:, PARENTS[number]]
            continue
        parts = [turns[:, index] @ constants[name, index] for index in entry]
        world[:, number] = parts[0] if len(parts) == 1 else slerp(*parts, np.full(len(turns), 0.5))
        if name in BONE_CHILD:
            child = JOINT_INDEX[BONE_CHILD[name]]
            wanted = unit(places[:, joints[BONE_CHILD[name]][0]] - places[:, entry[0]])
            world[:, number] = _pointing(world[:, number], unit(REST_OFFSETS[child].astype(np.float64)), wanted)
    return world


def _pointing(turns: np.ndarray, bone: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Rotate ``turns`` (T, 3, 3) by the smallest angle so that ``bone`` (3) points to ``wanted`` (T, 3)."""
    is_at = turns @ bone
    off = np.linalg.norm(is_at - wanted, axis=-1) > OFF_BONE
    if off.any():
        turns = turns.copy()
        turns[off] = shortest_turn(is_at[off], wanted[off]) @ turns[off]
    return turns


def _pelvis(root: np.ndarray, places: np.ndarray, joints: dict[str, list[int]]) -> np.ndarray:
    """Return the pelvis (T, 3) with which the midpoint of the hips follows that of the file, scaled by leg length."""
    hips = [JOINT_INDEX["left_hip"], JOINT_INDEX["right_hip"]]
    sources = [joints["left_hip"][0], joints["right_hip"][0]]
    midpoint = places[:, sources].mean(axis=1) * leg_scale(places, joints)
    return midpoint - root @ REST_OFFSETS[hips].mean(axis=0).astype(np.float64)


def leg_scale(places: np.ndarray, joints: dict[str, list[int]]) -> float:
    """Return the ratio of the leg length of SMPL-X to that of the file."""
    ours = sum(np.linalg.norm(REST_OFFSETS[JOINT_INDEX[name]]) for name in LEGS)
    return float(ours / _limb_lengths(places, joints)[:, : len(LEGS)].mean(axis=0).sum())


def _limb_lengths(places: np.ndarray, joints: dict[str, list[int]]) -> np.ndarray:
    """Return the lengths (T, 8) of the bones of legs and arms."""
    starts, ends = ([joints[name][0] for name in names] for names in (BONE_CHILD, BONE_CHILD.values()))
    return np.linalg.norm(places[:, ends] - places[:, starts], axis=-1)
