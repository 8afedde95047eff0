"""Offsets that are given at some frames, spread smoothly over the frames around them.

Between the given frames, an offset is a piecewise quintic polynomial: value and velocity are continuous, and each piece
starts and ends without acceleration. A single given frame is left with a velocity of zero, as in a movement of minimum
jerk (Flash and Hogan, 1985), and a span of given frames with the velocity at its end, as in inertialization (Bollo, GDC
2018).
"""

import itertools

import numpy as np
from scipy.interpolate import BPoly, PchipInterpolator

from motion.resample import FPS
from motion.rotation import axis_angle_to_matrix, matrix_to_axis_angle

ACCELERATION = 3.0  # metres per second squared that a fading offset adds at most, unless its width is at a limit
SHORTEST, LONGEST = 8, 30  # frames over which an offset fades
# Peak acceleration of the quintic from value 1 to 0, and from velocity 1 to 0, over a unit of time.
PEAK_OF_VALUE, PEAK_OF_VELOCITY = 10 / np.sqrt(3), 3.94
PEAK_OF_SLOPE = 0.2  # peak value of the quintic from velocity 1 to 0 over a unit of time
OVERSHOOT = 0.08  # metres by which an offset may exceed its range while it fades


def smoothstep(share: np.ndarray) -> np.ndarray:
    """Map shares from 0 to 1 to values that rise from 0 to 1, with a slope of zero at both ends."""
    return share * share * (3 - 2 * share)


def spread(known: np.ndarray, values: np.ndarray, lever: float = 1.0, longest: int = LONGEST) -> np.ndarray:
    """Return offsets that are exact at known frames and fade to zero around them.

    Args:
        known: (T,) bool, frames with a given offset.
        values: (T, D) offsets; those of other frames are not read.
        lever: Metres per unit of the offsets, which decides the width of a fade; about 0.5 for angles of the body.
        longest: Frames over which an offset fades at most.

    Returns:
        (T, D) offsets, zero more than ``longest`` frames from the known frames.
    """
    result = np.where(known[:, None], values, 0.0)
    spans = known_spans(known)
    slopes = _span_slopes(spans, values, np.arange(len(known)))
    zero = np.zeros(values.shape[1])

    def width(frame: int, away: int) -> int:
        return fade_width(values[frame] * lever, away * slopes[frame] * lever, longest)

    for before, after in zip([None, *spans], [*spans, None], strict=True):
        left = None if before is None else before[1] - 1  # the last known frame before a gap
        right = None if after is None else after[0]  # the first known frame after it
        if left is not None and right is not None and left + width(left, 1) > right - width(right, -1):
            pieces = [(left, right)]  # in a short gap one offset blends into the next
        else:
            pieces = [] if left is None else [(left, left + width(left, 1))]
            pieces += [] if right is None else [(right - width(right, -1), right)]
        for start, end in pieces:
            ends = [[values[at], slopes[at], zero] if at in (left, right) else [zero] * 3 for at in (start, end)]
            frames = np.arange(max(start + 1, 0), min(end, len(known)))
            result[frames] = BPoly.from_derivatives([start, end], ends)(frames)
    return result


def spread_rotations(rotations: np.ndarray, asked: np.ndarray, known: np.ndarray, lever: float) -> np.ndarray:
    """Return rotations that are exact at known frames, from which the difference fades as by ``spread``.

    Args:
        rotations: (T, J, 3, 3) local rotations.
        asked: (T, J, 3, 3) rotations to be met at known frames.
        known: (T, J) bool.
        lever: Metres from the joints to the parts that they move.

    Returns:
        (T, J, 3, 3) rotations.
    """
    result = rotations.copy()
    for joint in np.flatnonzero(known.any(axis=0)):
        frames = np.flatnonzero(known[:, joint])
        offsets = np.zeros((len(rotations), 3))
        offsets[frames] = matrix_to_axis_angle(asked[frames, joint] @ rotations[frames, joint].swapaxes(1, 2))
        for before, frame in itertools.pairwise(frames):  # an angle near half a turn may have changed its side
            angle = np.linalg.norm(offsets[frame])
            if angle > np.pi / 2 and offsets[before] @ offsets[frame] < 0:
                offsets[frame] *= 1 - 2 * np.pi / angle
        offsets = spread(known[:, joint], offsets, lever)
        moved = offsets.any(axis=1)
        result[moved, joint] = axis_angle_to_matrix(offsets[moved]) @ rotations[moved, joint]
    return result


def carry(known: np.ndarray, values: np.ndarray, clock: np.ndarray) -> np.ndarray:
    """Return offsets that are zero at frame 0, exact at known frames, and last beyond the last of these.

    An offset changes as evenly as possible between known frames, because this adds the least acceleration.

    Args:
        known: (T,) bool, at least one.
        values: (T, D) offsets in metres or radians; those of other frames are not read.
        clock: (T,) increasing time of each frame in frames; it may run faster where a change is noticed less.

    Returns:
        (T, D) offsets.
    """
    spans, zero = known_spans(known), np.zeros(values.shape[1])
    velocity = _span_slopes(spans, values, clock)  # (T, D)
    points = {clock[frame]: (values[frame], velocity[frame]) for frame in np.flatnonzero(known)}
    if not known[0]:
        points[clock[0]] = zero, zero
    edges = [clock[0], *(clock[at] for first, end in spans for at in (first, end - 1)), np.inf]
    for number, (first, end) in enumerate(spans):
        for at, away, edge in ((first, -1, 2 * number), (end - 1, 1, 2 * number + 2)):
            rest = fade_width(zero, away * velocity[at])
            if edges[edge + 1] - edges[edge] > 2 * rest:  # in a long gap, the velocity of a span fades at first
                points[clock[at] + away * rest] = values[at] + away * velocity[at] * rest / 2, zero
    times = np.array(sorted(points))
    offsets, velocities = (np.array([points[time][part] for time in times]) for part in (0, 1))
    slopes = PchipInterpolator(times, offsets).derivative()(times)
    slopes[-1] = 0
    slopes = np.where(velocities.any(axis=1, keepdims=True), velocities, slopes)
    curve = BPoly.from_derivatives(times, np.stack((offsets, slopes, np.zeros_like(slopes)), axis=1))
    return curve(np.minimum(clock, times[-1]))


def known_spans(known: np.ndarray) -> list[tuple[int, int]]:
    """Return the runs of True in (T,) booleans: first frame, and the one after the last."""
    edges = np.flatnonzero(np.diff(np.pad(known, 1).astype(int)))
    return list(zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True))


def fade_width(value: np.ndarray, slope: np.ndarray, longest: int = LONGEST) -> int:
    """Return the frames in which an offset fades without a visible jerk and without overshooting.

    Args:
        value: Offset (D,) in metres.
        slope: Its change (D,) per frame, away from the given frames.
        longest: Largest result.
    """
    distance, speed = float(np.linalg.norm(value)), float(np.linalg.norm(slope)) * FPS
    # The peak acceleration is about PEAK_OF_VALUE * distance / time^2 + PEAK_OF_VELOCITY * speed / time.
    linear, constant = PEAK_OF_VELOCITY * speed, PEAK_OF_VALUE * distance
    frames = float(np.ceil((linear + np.sqrt(linear**2 + 4 * ACCELERATION * constant)) / (2 * ACCELERATION) * FPS))
    overshoot = OVERSHOOT + distance * (1.0 if value @ slope < 0 else 0.5)  # the offset passes zero, or grows at first
    frames = min(frames, overshoot / (PEAK_OF_SLOPE * max(speed, 1e-9)) * FPS)
    return int(np.clip(frames, min(SHORTEST, longest), longest))


def _span_slopes(spans: list[tuple[int, int]], values: np.ndarray, clock: np.ndarray) -> np.ndarray:
    """Return (T, D) changes per unit of time at the ends of spans of given values; zero at all other frames."""
    slopes = np.zeros_like(values)
    for first, end in spans:
        if end - first > 1:
            for at, other in ((first, first + 1), (end - 1, end - 2)):
                slopes[at] = (values[other] - values[at]) / (clock[other] - clock[at])
    return slopes
