"""Foot lock: keep standing feet from sliding.

While a foot stands (``measures.standing_feet``), its joint at the ball of the foot is held over its mean position on
the floor; the correction fades in before and fades out after. The leg follows by two-bone inverse kinematics: hip and
knee rotate so that the ankle reaches its target, the knee stays in its plane, and the foot keeps its orientation. All
other joints, including the pelvis, keep their exact positions.
"""

import numpy as np
from scipy.spatial.transform import Rotation

from motion.body_shape import rest_offsets
from motion.clip import AnyMotion, smplx85_of
from motion.measures import standing_feet
from motion.resample import FPS
from motion.rotation import matrix_to_axis_angle
from motion.skeleton import JOINT_INDEX, PARENTS, world_pose
from motion.smplx import SMPLX85, smplx85_to_motion

FADE = 6  # frames over which a correction fades in and out
REACH = 0.998  # share of the leg's length to which a leg is stretched at most, unless it was straighter before
SIDES = ("left", "right")


def lock_feet(motion: AnyMotion, fps: float = FPS) -> np.ndarray:
    """Return a (T, 85) motion whose feet do not slide while they stand.

    Args:
        motion: A clip or a (T, 85) array.
        fps: Frames per second of the motion.

    Raises:
        InputError: unusable motion, as in ``check_smplx85``.
    """
    smplx85 = smplx85_of(motion)
    rotations, pelvis = smplx85_to_motion(smplx85)
    world, joints = world_pose(rotations, rest_offsets(smplx85[0, SMPLX85["betas"]]), root=pelvis)
    for side, contacts in zip(SIDES, standing_feet(joints, fps).T, strict=True):
        foot = joints[:, JOINT_INDEX[f"{side}_foot"]]
        _move_ankle(side, world, joints, _corrections(foot * (1, 0, 1), contacts))
    axis_angle = smplx85[:, SMPLX85["axis_angle"]].reshape(len(smplx85), -1, 3)
    for joint in (JOINT_INDEX[f"{side}_{name}"] for side in SIDES for name in ("hip", "knee", "ankle")):
        axis_angle[:, joint] = matrix_to_axis_angle(world[:, PARENTS[joint]].swapaxes(1, 2) @ world[:, joint])
    smplx85[:, SMPLX85["axis_angle"]] = axis_angle.reshape(len(smplx85), -1)
    return smplx85


def _corrections(positions: np.ndarray, contacts: np.ndarray) -> np.ndarray:
    """Return (T, 3) steps that hold a foot at (T, 3) positions still during (T,) contacts and fade around them."""
    steps = np.zeros_like(positions)
    edges = np.flatnonzero(np.diff(np.pad(contacts, 1).astype(int)))
    runs = list(zip(edges[::2], edges[1::2], strict=True))  # first frame, and the one after the last
    for first, end in runs:
        steps[first:end] = positions[first:end].mean(axis=0) - positions[first:end]
    for number in range(len(runs) + 1):  # the frames before, between and after the contacts
        start = runs[number - 1][1] if number > 0 else 0
        stop = runs[number][0] if number < len(runs) else len(positions)
        gap = np.arange(start, stop)
        width = min(FADE, len(gap) + 1)  # in a short gap one correction blends into the next
        if number > 0:
            steps[gap] += _fade((gap - start + 1) / width) * steps[start - 1]
        if number < len(runs):
            steps[gap] += _fade((stop - gap) / width) * steps[stop]
    return steps


def _fade(share: np.ndarray) -> np.ndarray:
    """Map (N,) shares to a column that falls smoothly from 1 at share 0 to 0 at share 1 and beyond."""
    share = np.minimum(share, 1)
    return (1 - share * share * (3 - 2 * share))[:, None]


def _move_ankle(side: str, world: np.ndarray, joints: np.ndarray, steps: np.ndarray) -> None:
    """Rotate hip and knee so that the ankle moves by the steps as far as the leg reaches.

    Args:
        side: ``left`` or ``right``.
        world: (T, 22, 3, 3) world rotations, changed in place.
        joints: (T, 22, 3) joint positions in metres.
        steps: (T, 3) displacement of the ankle in metres.
    """
    hip, knee, ankle = (JOINT_INDEX[f"{side}_{name}"] for name in ("hip", "knee", "ankle"))
    moved = np.flatnonzero(np.abs(steps).max(axis=1) > 1e-6)  # (N,) frames
    thigh = joints[moved, knee] - joints[moved, hip]  # (N, 3)
    shin = joints[moved, ankle] - joints[moved, knee]
    target = thigh + shin + steps[moved]
    lengths = np.linalg.norm(thigh, axis=1), np.linalg.norm(shin, axis=1)
    longest = np.maximum(REACH * sum(lengths), np.linalg.norm(thigh + shin, axis=1))
    distance = np.clip(np.linalg.norm(target, axis=1), 1.001 * np.abs(lengths[0] - lengths[1]), longest)

    def knee_angle(chord: np.ndarray) -> np.ndarray:  # by the law of cosines; 0 for a straight leg
        cosine = (chord**2 - lengths[0] ** 2 - lengths[1] ** 2) / (2 * lengths[0] * lengths[1])
        return np.arccos(np.clip(cosine, -1, 1))

    bend = np.cross(thigh, shin)
    straight = np.linalg.norm(bend, axis=1) < 1e-6
    bend[straight] = world[moved[straight], hip, :, 0]  # a straight knee bends about the hip's x axis
    bend /= np.linalg.norm(bend, axis=1, keepdims=True)
    change = knee_angle(distance) - knee_angle(np.linalg.norm(thigh + shin, axis=1))
    turn_knee = Rotation.from_rotvec(bend * change[:, None])
    turn_leg = _shortest_turns(thigh + turn_knee.apply(shin), target)
    world[moved, hip] = turn_leg.as_matrix() @ world[moved, hip]
    world[moved, knee] = (turn_leg * turn_knee).as_matrix() @ world[moved, knee]


def _shortest_turns(start: np.ndarray, end: np.ndarray) -> Rotation:
    """Return N rotations of least angle from directions (N, 3) to others, which are never opposite here."""
    axis = np.cross(start, end)
    sine = np.linalg.norm(axis, axis=1)
    angle = np.arctan2(sine, (start * end).sum(axis=1))
    return Rotation.from_rotvec(axis * (angle / np.maximum(sine, 1e-12))[:, None])
