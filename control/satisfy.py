"""Exact corrections: a motion that comes near a track is made to keep it.

    rotations, pelvis, misses = satisfy(rotations, pelvis, track)

The corrections follow one another from the whole to the parts: place and heading of the pelvis, pose, trunk, feet,
hands. Each is exact at the frames that ask for it and fades around them, so that no frame jumps.
"""

from typing import NamedTuple

import numpy as np
from scipy.spatial import KDTree

from control.calm import calm
from control.feet import plant
from control.pins import lean, reach
from control.pose_offsets import pose
from control.root_offsets import place
from control.targets import Targets
from control.track import Track
from motion.features272 import heading_angle
from motion.rotation import y_rotation
from motion.skeleton import JOINT_NAMES, forward_kinematics
from motion.spread import known_spans
from utils.errors import InputError


class Miss(NamedTuple):
    """Remaining error of one constraint after the corrections."""

    kind: str
    """keyframe, pin, place, path or path end."""
    first: int
    """First frame of the constraint."""
    last: int
    """Last frame of the constraint."""
    joint: str
    """Name of the joint with the largest error."""
    metres: float
    """Largest error; of a path, the mean distance."""


class Satisfied(NamedTuple):
    """Result of ``satisfy``."""

    rotations: np.ndarray  # (T, 22, 3, 3) float64
    pelvis: np.ndarray  # (T, 3) float64
    misses: list[Miss]  # one per constraint, also of those that are met


def satisfy(
    rotations: np.ndarray, pelvis: np.ndarray, track: Track, unbent: tuple[np.ndarray, np.ndarray] | None = None
) -> Satisfied:
    """Correct a motion so that it keeps a track.

    Args:
        rotations: (T, 22, 3, 3) local rotations, the root's in the world frame.
        pelvis: (T, 3) metres, y up.
        track: What is asked of the T frames, without batch dimensions.
        unbent: Rotations and pelvis of the motion before its root was turned (``control.steering``), whose feet slide
            less; by default the motion itself.

    Raises:
        InputError: the track has another number of frames.
    """
    if len(track.root_known) != len(pelvis):
        raise InputError(
            f"the track has {len(track.root_known)} frames and the motion {len(pelvis)}; make the track with "
            "Constraints.track(frames) of the motion"
        )
    targets = Targets(track)
    before = rotations.astype(np.float64), pelvis.astype(np.float64)
    if targets.empty:
        return Satisfied(*before, [])
    before = calm(*before)
    placed = place(*before, targets)
    posed = pose(*placed, targets)
    lifted = (forward_kinematics(*posed) - forward_kinematics(*placed))[..., 1]
    rotations, pelvis = lean(*posed, targets)
    rotations, pelvis = plant(unbent or before, rotations, pelvis, lifted, targets)
    rotations = reach(rotations, pelvis, targets)
    return Satisfied(rotations, pelvis, measure(rotations, pelvis, targets))


def measure(rotations: np.ndarray, pelvis: np.ndarray, targets: Targets) -> list[Miss]:
    """Return the errors of a motion (arguments as of ``satisfy``), one per constraint."""
    joints, place = forward_kinematics(rotations, pelvis), pelvis[:, [0, 2]]
    steps = np.where(targets.joints_known, targets.joints - joints, 0)  # (T, 22, 3)
    errors = np.linalg.norm(np.where(targets.pinned, 0, steps), axis=2)
    misses = _misses("keyframe", targets.posed, np.maximum(errors, _pose_errors(rotations, pelvis, targets)))
    for joint in np.flatnonzero(targets.asked.any(axis=0)):
        errors = np.zeros(joints.shape[:2])
        errors[:, joint] = np.linalg.norm(np.where(targets.pinned[:, joint], steps[:, joint], 0), axis=1)
        misses += _misses("pin", targets.asked[:, joint], errors)
    misses += _misses(
        "place", targets.root_known & ~targets.posed, np.linalg.norm(place - targets.root, axis=1)[:, None]
    )
    if len(targets.path) > 0:
        last = len(pelvis) - 1
        fine = np.linspace(0, len(targets.path) - 1, 10 * len(targets.path))
        points = np.stack([np.interp(fine, np.arange(len(targets.path)), axis) for axis in targets.path.T], axis=1)
        misses.append(Miss("path", 0, last, "pelvis", float(np.mean(KDTree(points).query(place)[0]))))
        misses.append(Miss("path end", last, last, "pelvis", float(np.linalg.norm(place[-1] - targets.path[-1]))))
    return misses


def _pose_errors(rotations: np.ndarray, pelvis: np.ndarray, targets: Targets) -> np.ndarray:
    """Return (T, 22) distances from the joints of the known pose, of which all other rotations are the motion's."""
    asked = targets.rotations.copy()
    asked[:, 0] = y_rotation(heading_angle(rotations[:, 0])) @ asked[:, 0]
    asked = np.where(targets.rotations_known[..., None, None], asked, rotations)
    return np.linalg.norm(forward_kinematics(asked, pelvis) - forward_kinematics(rotations, pelvis), axis=2)


def _misses(kind: str, known: np.ndarray, errors: np.ndarray) -> list[Miss]:
    """Return the largest error of each span of known frames (T,), of errors (T, J) by frame and joint."""
    return [
        Miss(kind, first, end - 1, JOINT_NAMES[errors[first:end].max(axis=0).argmax()], float(errors[first:end].max()))
        for first, end in known_spans(known)
    ]
