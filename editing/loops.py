"""Seamless loops: the part of a clip whose end leads into its start, repeated in place or on its way.

The two ends are frames of the clip that are most alike: in pose, height and velocity, all relative to the root. Of the
best pairs, the one with the least speed and acceleration at the seam is taken.
Their remaining difference is spread over the frames on both sides of the seam, so that pose, velocity and height are
continuous there. The horizontal velocity and the turning of the root are evened out in the same way; the place and the
heading at which a cycle ends are where the next one starts.
"""

from dataclasses import dataclass, replace

import numpy as np
from scipy.spatial.distance import cdist

from editing.options import SHORTEST
from editing.places import FLOOR, Motion, Move, frames
from editing.seams import SPREAD, fade
from editing.spans import TREND, check_count, in_place
from motion.clip import Clip
from motion.features272 import heading_angle
from motion.foot_lock import lock_feet
from motion.measures import frame_acceleration
from motion.resample import FPS
from motion.rotation import axis_angle_to_matrix, rotation_between, y_rotation
from utils.errors import InputError

LONGEST_CLIP = 120.0  # seconds; the search compares every frame with every other
VELOCITY_WEIGHT = 0.1  # seconds: a difference of 1 m/s counts as much as one of 0.1 m
ALIKE = 0.05  # metres: frames of a smaller distance are alike; the longest cycle between such frames is taken
CANDIDATES = 40  # best pairs of frames, of which the one with the least visible seam is taken
DIFFERENT = 0.15  # metres: a seam of a larger distance is refused


@dataclass(frozen=True)
class Seam:
    """The ends of a cycle: the motion continues with frame ``first`` in place of frame ``last``."""

    first: int
    last: int
    distance: float
    """Distance of the two frames in metres: root mean square over the joints, velocities included."""

    @property
    def frames(self) -> int:
        """Length of the cycle."""
        return self.last - self.first


def distances(clip: Clip) -> np.ndarray:
    """Return the (T, T) distances in metres of all pairs of frames, in pose, height and velocity."""
    joints, rotations = clip.joints(), clip.motion()[0]
    to_body = y_rotation(-heading_angle(rotations[:, 0]))[:, None]  # (T, 1, 3, 3)
    poses = (to_body @ (joints - joints[:, :1] * FLOOR)[..., None])[..., 0]  # (T, 22, 3)
    velocities = (to_body @ np.gradient(joints, axis=0)[..., None])[..., 0] * FPS
    both = np.concatenate((poses, VELOCITY_WEIGHT * velocities), axis=-1) / np.sqrt(joints.shape[1])
    flat = both.reshape(len(both), -1)
    return cdist(flat, flat)


def find_seam(clip: Clip, shortest: float = SHORTEST) -> Seam:
    """Find the ends of the best cycle: among the longest between frames that are alike, that with the calmest seam.

    Args:
        clip: T frames.
        shortest: Length of the shortest cycle in seconds.

    Raises:
        InputError: no two frames of the clip are similar, or it is shorter than the shortest cycle or too long to be
            searched.
    """
    count, least = len(clip.smplx85), max(4, round(shortest * FPS))
    if count < least + 3:  # the velocities at both ends need a frame on each side
        raise InputError(
            f"the motion has {count} frames; a loop of at least {least / FPS:.2g} s needs {least + 3}, so give a "
            "longer motion or a smaller --shortest"
        )
    if count > LONGEST_CLIP * FPS:
        raise InputError(f"the motion has {count / FPS:.0f} s; trim it to at most {LONGEST_CLIP:.0f} s before the loop")
    inner = distances(clip)[1:-1, 1:-1]
    first, last = np.triu_indices(len(inner), least)
    distance, length = inner[first, last], last - first
    alike = distance < ALIKE
    if alike.any():
        distance = np.where(alike & (length >= 0.9 * length[alike].max()), distance, np.inf)
    seams = [
        Seam(int(first[index]) + 1, int(last[index]) + 1, float(distance[index]))
        for index in distance.argsort()[:CANDIDATES]
    ]
    best = seams[0]
    if best.distance > DIFFERENT:
        raise InputError(
            f"the motion has no two similar frames: at the best seam, from {best.last / FPS:.2f} back to "
            f"{best.first / FPS:.2f} s, the joints jump by {100 * best.distance:.0f} cm; give a motion that repeats "
            "itself or returns to its first pose"
        )
    near = [seam for seam in seams if seam.distance <= max(ALIKE, 1.25 * best.distance)]
    return min(near, key=lambda seam: _visibility(clip, seam))


def _visibility(clip: Clip, seam: Seam) -> float:
    """Return the speed and the acceleration at a seam as shares of the 99th percentiles elsewhere; the larger one."""
    joints = clip.with_motion(*repeat(*close_cycle(clip, seam), 0, 2)).joints()
    speeds, accelerations = np.linalg.norm(np.diff(joints, axis=0), axis=-1).max(axis=1), frame_acceleration(joints)
    at = seam.frames - 1
    return max(
        speeds[at] / (np.quantile(speeds[:at], 0.99) + 1e-9),
        accelerations[at - 1 : at + 1].max() / (np.quantile(accelerations[: at - 1], 0.99) + 1e-9),
    )


def loop(
    clip: Clip,
    travel: bool = True,
    repeats: int = 1,
    seconds: float | None = None,
    foot_lock: bool = False,
    seam: Seam | None = None,
) -> Clip:
    """Cut a seamless loop out of a clip.

    Args:
        clip: T frames, at least those of the shortest cycle and three more.
        travel: Keep the path: each cycle starts where the one before ends. Otherwise the body stays in place, and the
            turning from the start to the end of a cycle is removed.
        repeats: Number of cycles.
        seconds: Length in seconds that the repeated cycles at least have, in place of their number.
        foot_lock: Remove foot sliding, also at the seam.
        seam: Ends of the cycle; None searches for them (``find_seam``).

    Returns:
        The cycles, which start at the place of their first frame in the clip. In place, the first frame follows the
        last.

    Raises:
        InputError: as in ``find_seam``, or the result is too long.
    """
    seam = seam or find_seam(clip)
    if seconds is not None:
        repeats = max(1, int(np.ceil(seconds * FPS / seam.frames - 1e-6)))
    check_count(repeats * seam.frames)
    cycle, step = close_cycle(clip, seam, straight=not travel)
    around = 1 + int(np.ceil(4 * TREND * FPS / seam.frames))  # cycles on each side that the frames may depend on
    extended = clip.with_motion(*repeat(cycle, step, -around, repeats + 2 * around))
    if foot_lock:
        extended = replace(extended, smplx85=lock_feet(extended))
    if not travel:
        extended = in_place(extended)
    result = frames(extended.motion(), slice(around * seam.frames, (around + repeats) * seam.frames))
    return clip.with_motion(*Move.between(frames(result, 0), frames(cycle, 0)).apply(*result))


def repeat(cycle: Motion, step: Move, first: int, count: int) -> Motion:
    """Return repetitions of a cycle in a row.

    Args:
        cycle: Motion of L frames.
        step: From the start of a cycle to the start of the next.
        first: Number of the first repetition; 0 is the cycle itself, -1 the repetition before it.
        count: Number of repetitions.
    """
    parts = [cycle]
    for _ in range(first + count - 1):
        parts.append(step.apply(*parts[-1]))
    for _ in range(-first):
        parts.insert(0, step.inverse().apply(*parts[0]))
    rotations, pelvis = zip(*parts, strict=True)
    return np.concatenate(rotations), np.concatenate(pelvis)


def close_cycle(clip: Clip, seam: Seam, straight: bool = False) -> tuple[Motion, Move]:
    """Cut a cycle out of a clip and make it continuous at its seam.

    Args:
        clip: T frames.
        seam: Ends of the cycle, each with a frame on both sides.
        straight: Remove the turning from the start to the end of the cycle, in equal steps.

    Returns:
        Motion of L frames, and the move from the start of the cycle to the start of the next.
    """
    rotations, pelvis = clip.motion()
    heading = np.unwrap(heading_angle(rotations[:, 0]))
    rotations[:, 0] = y_rotation(-heading) @ rotations[:, 0]
    moves = (y_rotation(-heading[:-1]) @ np.diff(pelvis, axis=0)[..., None])[..., 0] * FLOOR  # (T - 1, 3)
    turns = np.diff(heading)
    first, last = seam.first, seam.last

    def spread(value: np.ndarray, change: np.ndarray) -> np.ndarray:
        return _spread(value, change, seam.frames)

    before, after = rotations[[last - 1, last, last + 1]], rotations[[first - 1, first, first + 1]]  # (3, 22, 3, 3)
    offset = spread(
        rotation_between(before[1], after[1]), (rotation_between(*after[::2]) - rotation_between(*before[::2])) / 2
    )
    closed = axis_angle_to_matrix(offset) @ rotations[first:last]
    height = pelvis[:, 1]
    lift = height[first] - height[last]
    lifted = spread(lift, (height[first + 1] - height[first - 1] - height[last + 1] + height[last - 1]) / 2)

    def even(steps: np.ndarray) -> np.ndarray:  # (T - 1, ...) steps of the root, those of the cycle evened out
        gap = (steps[first - 1] + steps[first] - steps[last - 1] - steps[last]) / 2
        return steps[first:last] + spread(gap, np.zeros_like(gap))

    turning = even(turns)
    if straight:
        turning = turning - turning.mean()
    facing = heading[first] + np.concatenate(([0.0], np.cumsum(turning)))  # (L + 1,)
    walked = np.cumsum((y_rotation(facing[:-1]) @ even(moves)[..., None])[..., 0], axis=0)
    path = pelvis[first] * FLOOR + np.concatenate((np.zeros((1, 3)), walked))  # (L + 1, 3)
    closed[:, 0] = y_rotation(facing[:-1]) @ closed[:, 0]
    path[:-1, 1] = height[first:last] + lifted
    return (closed, path[:-1]), Move(float(facing[-1] - facing[0]), path[0], path[-1])


def _spread(value: np.ndarray, change: np.ndarray, length: int) -> np.ndarray:
    """Return corrections (L, ...) that close a gap at the seam: half of it after the start, half before the end.

    Args:
        value: Gap (...), from the end to the start.
        change: Its change per frame (...).
        length: L, the number of frames of the cycle.
    """
    width, number = min(SPREAD, length / 2), np.arange(length)
    return fade(length - number, value / 2, -change / 2, width) - fade(number, value / 2, change / 2, width)
