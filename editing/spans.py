"""Edits of one clip: a part of it, its mirror image, another speed, the same motion in place.

Each function takes a clip and returns another, in the world of the first.
"""

from dataclasses import replace

import numpy as np
from scipy.interpolate import CubicSpline
from scipy.ndimage import correlate1d
from scipy.spatial.transform import Rotation, RotationSpline

from editing.places import FLOOR, Move
from formats.import_options import MAX_FRAMES
from motion.clip import Clip
from motion.features272 import heading_angle
from motion.measures import FEET, standing_feet
from motion.resample import FPS
from motion.rotation import y_rotation
from motion.skeleton import JOINTS
from motion.skeleton import mirror as mirror_motion
from utils.errors import InputError, counted, shown

TREND = 0.4  # seconds: standard deviation of the window that separates travel from sway


def span_frames(clip: Clip, start: float = 0.0, end: float | None = None) -> tuple[int, int]:
    """Return the frames of a span: the first one and the one after the last.

    Args:
        clip: T frames, frame t of which is shown from t / 30 s to (t + 1) / 30 s.
        start: Time in seconds.
        end: Time in seconds; None is the end of the clip.

    Raises:
        InputError: the span is outside the clip or empty.
    """
    length = len(clip.smplx85) / FPS
    end = length if end is None else end
    if not (0 <= start <= length + 1e-3 and 0 <= end <= length + 1e-3):
        raise InputError(f"the span from {start:g} to {end:g} s is outside the motion of {length:.2f} s")
    first, last = round(start * FPS), min(round(end * FPS), len(clip.smplx85))
    if first >= last:
        raise InputError(f"the span from {start:g} to {end:g} s holds no frame; give an end after the start")
    return first, last


def trim(clip: Clip, start: float = 0.0, end: float | None = None) -> Clip:
    """Return a part of a clip, whose frames are unchanged; arguments and errors as in ``span_frames``."""
    first, last = span_frames(clip, start, end)
    return replace(clip, smplx85=clip.smplx85[first:last].copy())


def mirror(clip: Clip) -> Clip:
    """Swap left and right; the clip starts at the same place with the same heading."""
    rotations, pelvis = clip.motion()
    heading = float(heading_angle(rotations[0, 0]))
    rotations, pelvis = Move(-heading, pelvis[0], np.zeros(3)).apply(rotations, pelvis)
    rotations, pelvis = mirror_motion(rotations, pelvis)
    return clip.with_motion(*Move(heading, np.zeros(3), clip.motion()[1][0]).apply(rotations, pelvis))


def change_speed(clip: Clip, factor: float) -> Clip:
    """Play a clip faster or slower on the same path; its first and last frames are kept.

    The frames between are those of a rotation spline per joint and a cubic spline of the pelvis, both with a
    continuous acceleration.

    Args:
        clip: At least 2 frames.
        factor: 2 is twice as fast, 0.5 half as fast.

    Raises:
        InputError: the factor is not positive, or the clip or the result has fewer than 2 frames.
    """
    if not (np.isfinite(factor) and factor > 0):
        raise InputError(f"the factor of the speed is {factor:g}; give a number above 0")
    check_moving(clip, "change its speed")
    rotations, pelvis = clip.motion()
    count = round(len(pelvis) / factor)
    check_count(count)
    given, times = np.arange(len(pelvis)), np.linspace(0, len(pelvis) - 1, count)
    moved = np.empty((count, JOINTS, 3, 3))
    for joint in range(JOINTS):
        moved[:, joint] = RotationSpline(given, Rotation.from_matrix(rotations[:, joint]))(times).as_matrix()
    return clip.with_motion(moved, CubicSpline(given, pelvis)(times))


def check_moving(clip: Clip, action: str) -> None:
    """Raise InputError if a clip has fewer than 2 frames, and so no velocity."""
    if len(clip.smplx85) < 2:
        raise InputError(f"the motion has 1 frame, which is too short to {action}; give at least 2")


def check_count(frames: int) -> None:
    """Raise InputError if a result would have too few frames for a motion, or too many."""
    if not 2 <= frames <= MAX_FRAMES:
        count = shown(counted(frames, "frame"), 30)
        raise InputError(f"the result would have {count}; choose values that give 2 to {MAX_FRAMES}")


def in_place(clip: Clip, heading: bool = False) -> Clip:
    """Remove the horizontal travel of a clip, which then stays where it starts; the sway of the body is kept.

    Args:
        clip: At least 2 frames.
        heading: Remove the turning too, so that the body faces its first direction throughout.

    Raises:
        InputError: the clip has 1 frame.
    """
    check_moving(clip, "remove its travel")
    rotations, pelvis = clip.motion()
    travel = trend(_travel(clip.joints()))  # (T, 3)
    around = pelvis - travel
    if heading:
        facing = np.unwrap(heading_angle(rotations[:, 0]))
        turn = y_rotation(facing[0] - trend(facing[:, None])[:, 0])  # (T, 3, 3)
        around = (turn @ around[..., None])[..., 0]
        rotations[:, 0] = turn @ rotations[:, 0]
    return clip.with_motion(rotations, around + (pelvis[0] - around[0]) * FLOOR)


def _travel(joints: np.ndarray) -> np.ndarray:
    """Return the (T, 3) path of the feet on the floor from (T, 22, 3) joints; it is constant while both stand.

    A foot is held relative to the pelvis where it is in the air: it moves with the pelvis from one place where it
    stands to the next.
    """
    pelvis, frames = joints[:, 0] * FLOOR, np.arange(len(joints))
    paths = []
    for side, standing in zip(FEET, standing_feet(joints).T, strict=True):
        if standing.any():
            ahead = joints[standing, side] * FLOOR - pelvis[standing]
            paths.append(pelvis + np.stack([np.interp(frames, frames[standing], axis) for axis in ahead.T], axis=1))
    return np.mean(paths, axis=0) if paths else pelvis


def trend(values: np.ndarray) -> np.ndarray:
    """Return the smooth part of (T, D) values: local linear regression with a Gaussian window of ``TREND``."""
    sigma = TREND * FPS
    offset = np.arange(-round(4 * sigma), round(4 * sigma) + 1, dtype=float)
    weight = np.exp(-0.5 * (offset / sigma) ** 2)

    def moment(data: np.ndarray, power: int) -> np.ndarray:
        return correlate1d(data, weight * offset**power, axis=0, mode="constant")

    ones = np.ones((len(values), 1))
    spread = moment(ones, 0) * moment(ones, 2) - moment(ones, 1) ** 2
    return (moment(ones, 2) * moment(values, 0) - moment(ones, 1) * moment(values, 1)) / spread
