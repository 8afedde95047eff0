"""Keep feet that stand on the floor from sliding: find the contacts, hold the foot in place, bend the leg to reach it.

While a foot joint (the ball of the foot) is low and slow, it is held over the mean of its places on the floor; before
and after, the correction fades. The leg follows by two-bone inverse kinematics: hip and knee turn so that the ankle
gets where it must, the knee stays in its plane, the foot keeps its orientation. All other joints stay exactly as they
are, the pelvis among them.
"""

import numpy as np
from scipy.ndimage import binary_closing, binary_opening, gaussian_filter1d
from scipy.spatial.transform import Rotation

from motion.body_shape import rest_offsets
from motion.resample import FPS
from motion.rotation import matrix_to_axis_angle
from motion.skeleton import JOINT_INDEX, PARENTS
from motion.smplx import SMPLX85, check_smplx85, smplx85_to_motion

HEIGHT = 0.06  # metres above the lowest that a foot joint gets, below which it may stand
SPEED = 0.4  # metres per second below which it may stand
SHORTEST, GAP = 4, 2  # frames: contacts are at least so long; breaks up to so long are none
FADE = 6  # frames in which a correction comes and goes
REACH = 0.998  # of the length of thigh and shin: a leg is not stretched further, unless it was before
SIDES = ("left", "right")


def lock_feet(smplx85: np.ndarray, fps: float = FPS) -> np.ndarray:
    """(T, 85) motion with feet that do not slide while they stand; errors as in ``check_smplx85``."""
    smplx85 = check_smplx85(smplx85).copy()
    offsets = rest_offsets(smplx85[0, SMPLX85["betas"]])
    rotations, pelvis = smplx85_to_motion(smplx85)
    world, joints = forward(rotations, pelvis, offsets)
    for side, contacts in zip(SIDES, foot_contacts(joints, fps).T, strict=True):
        foot = joints[:, JOINT_INDEX[f"{side}_foot"]]
        _reach(side, world, joints, _corrections(foot * (1, 0, 1), contacts))
    axis_angle = smplx85[:, SMPLX85["axis_angle"]].reshape(len(smplx85), -1, 3)
    for joint in (JOINT_INDEX[f"{side}_{name}"] for side in SIDES for name in ("hip", "knee", "ankle")):
        axis_angle[:, joint] = matrix_to_axis_angle(world[:, PARENTS[joint]].swapaxes(1, 2) @ world[:, joint])
    smplx85[:, SMPLX85["axis_angle"]] = axis_angle.reshape(len(smplx85), -1)
    return smplx85


def forward(rotations: np.ndarray, pelvis: np.ndarray, offsets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """World rotations (T, 22, 3, 3) and joints (T, 22, 3) of local rotations and the pelvis (T, 3)."""
    world, joints = rotations.copy(), np.repeat(pelvis[:, None], len(PARENTS), axis=1)
    for joint, parent in list(enumerate(PARENTS))[1:]:
        world[:, joint] = world[:, parent] @ rotations[:, joint]
        joints[:, joint] = joints[:, parent] + world[:, parent] @ offsets[joint]
    return world, joints


def foot_contacts(joints: np.ndarray, fps: float = FPS) -> np.ndarray:
    """(T, 22, 3) joints to (T, 2) booleans: whether the left and the right foot stand."""
    feet = joints[:, [JOINT_INDEX[f"{side}_foot"] for side in SIDES]]  # (T, 2, 3)
    low = feet[..., 1] < np.quantile(feet[..., 1].min(axis=1), 0.05) + HEIGHT
    smooth = gaussian_filter1d(feet, 1.0, axis=0, mode="nearest")
    slow = np.linalg.norm(np.gradient(smooth, axis=0), axis=-1) * fps < SPEED if len(feet) > 1 else np.ones_like(low)
    still = np.pad(low & slow, ((GAP, GAP), (0, 0)), mode="edge")
    still = binary_closing(still, np.ones((GAP + 1, 1)))[GAP:-GAP]
    padded = np.pad(still, ((SHORTEST, SHORTEST), (0, 0)), mode="edge")  # what a clip's end cuts off counts whole
    return binary_opening(padded, np.ones((SHORTEST, 1)))[SHORTEST:-SHORTEST]


def _corrections(places: np.ndarray, contacts: np.ndarray) -> np.ndarray:
    """(T, 3) steps that hold (T, 3) places of a foot still during (T) contacts and fade around them."""
    steps = np.zeros_like(places)
    edges = np.flatnonzero(np.diff(np.pad(contacts, 1).astype(int)))
    runs = list(zip(edges[::2], edges[1::2], strict=True))  # first frame, and the one after the last
    for first, end in runs:
        steps[first:end] = places[first:end].mean(axis=0) - places[first:end]
    for number in range(len(runs) + 1):  # the frames before, between and after the contacts
        start = runs[number - 1][1] if number > 0 else 0
        stop = runs[number][0] if number < len(runs) else len(places)
        gap = np.arange(start, stop)
        width = min(FADE, len(gap) + 1)  # in a short gap one correction turns into the next
        if number > 0:
            steps[gap] += _fade((gap - start + 1) / width) * steps[start - 1]
        if number < len(runs):
            steps[gap] += _fade((stop - gap) / width) * steps[stop]
    return steps


def _fade(share: np.ndarray) -> np.ndarray:
    """(N) shares to a column that goes smoothly from 1 at share 0 to 0 at share 1 and beyond."""
    share = np.minimum(share, 1)
    return (1 - share * share * (3 - 2 * share))[:, None]


def _reach(side: str, world: np.ndarray, joints: np.ndarray, steps: np.ndarray) -> None:
    """Turn hip and knee, in the world rotations (T, 22, 3, 3), so that the ankle makes the steps (T, 3), if it can."""
    hip, knee, ankle = (JOINT_INDEX[f"{side}_{name}"] for name in ("hip", "knee", "ankle"))
    moved = np.flatnonzero(np.abs(steps).max(axis=1) > 1e-6)
    thigh = joints[moved, knee] - joints[moved, hip]  # (N, 3)
    shin = joints[moved, ankle] - joints[moved, knee]
    wanted = thigh + shin + steps[moved]
    lengths = np.linalg.norm(thigh, axis=1), np.linalg.norm(shin, axis=1)
    longest = np.maximum(REACH * sum(lengths), np.linalg.norm(thigh + shin, axis=1))
    distance = np.clip(np.linalg.norm(wanted, axis=1), 1.001 * np.abs(lengths[0] - lengths[1]), longest)

    def angle(chord: np.ndarray) -> np.ndarray:  # of the knee, 0 for a straight leg, by the law of cosines
        cosine = (chord**2 - lengths[0] ** 2 - lengths[1] ** 2) / (2 * lengths[0] * lengths[1])
        return np.arccos(np.clip(cosine, -1, 1))

    bend = np.cross(thigh, shin)
    straight = np.linalg.norm(bend, axis=1) < 1e-6
    bend[straight] = world[moved[straight], hip, :, 0]  # a straight knee bends about the hip's x axis
    bend /= np.linalg.norm(bend, axis=1, keepdims=True)
    more = angle(distance) - angle(np.linalg.norm(thigh + shin, axis=1))
    turn_knee = Rotation.from_rotvec(bend * more[:, None])
    turn_leg = _shortest_turns(thigh + turn_knee.apply(shin), wanted)
    world[moved, hip] = turn_leg.as_matrix() @ world[moved, hip]
    world[moved, knee] = (turn_leg * turn_knee).as_matrix() @ world[moved, knee]


def _shortest_turns(start: np.ndarray, end: np.ndarray) -> Rotation:
    """N rotations of least angle from directions (N, 3) to others; they are never opposite here."""
    axis = np.cross(start, end)
    sine = np.linalg.norm(axis, axis=1)
    angle = np.arctan2(sine, (start * end).sum(axis=1))
    return Rotation.from_rotvec(axis * (angle / np.maximum(sine, 1e-12))[:, None])
