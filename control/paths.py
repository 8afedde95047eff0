"""Paths on the floor: curves through points, their length, and places on them by length and by time."""

import numpy as np
from scipy.interpolate import CubicSpline, PchipInterpolator

SPLINE_STEPS = 64  # straight pieces between two points of a spline


def curve(points: np.ndarray, kind: str) -> np.ndarray:
    """Return a path as straight pieces.

    Args:
        points: (P, 2) x and z in metres.
        kind: "polyline", or "spline": the natural cubic spline with centripetal parameters, which does not overshoot
            between points of uneven distance (Lee, 1989).

    Returns:
        (N, 2) points; with K pieces per segment, point i of the path is row ``i * K``.
    """
    if kind == "polyline" or len(points) == 2:
        return points
    knots = np.concatenate(([0.0], np.cumsum(np.sqrt(np.linalg.norm(np.diff(points, axis=0), axis=-1)))))
    positions = np.interp(np.arange((len(points) - 1) * SPLINE_STEPS + 1) / SPLINE_STEPS, np.arange(len(points)), knots)
    return CubicSpline(knots, points, bc_type="natural")(positions)


def lengths_along(line: np.ndarray) -> np.ndarray:
    """Return the length (N,) of a line (N, 2) up to each of its points."""
    return np.concatenate(([0.0], np.cumsum(np.linalg.norm(np.diff(line, axis=0), axis=-1))))


def at_lengths(line: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Return the places (L, 2) at lengths (L,) along a line (N, 2); lengths beyond its ends give the ends."""
    along = lengths_along(line)
    return np.stack([np.interp(lengths, along, line[:, axis]) for axis in (0, 1)], axis=-1)


def resample(line: np.ndarray, step: float) -> np.ndarray:
    """Return points (P, 2) of a line, ``step`` metres apart along it, and its end after 0.5 to 1.5 steps."""
    total = lengths_along(line)[-1]
    return at_lengths(line, np.concatenate(([0.0], np.arange(step, total - step / 2, step), [total])))


def place_at(points: np.ndarray, kind: str, times: np.ndarray, seconds: np.ndarray) -> np.ndarray:
    """Return the places (T, 2) at ``seconds`` (T,) of a path (P, 2) whose points are reached at ``times`` (P,).

    The speed changes smoothly and never turns negative (Fritsch and Butland, 1984).
    """
    line = curve(points, kind)
    pieces = (len(line) - 1) // (len(points) - 1)
    along = PchipInterpolator(times, lengths_along(line)[::pieces])
    return at_lengths(line, along(np.clip(seconds, times[0], times[-1])))


def distances(line: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Return the distances (T,) of places (T, 2) from a line (N, 2)."""
    start, step = line[:-1], np.diff(line, axis=0)  # (N - 1, 2)
    relative = places[:, None] - start  # (T, N - 1, 2)
    fraction = (relative * step).sum(-1) / np.maximum((step * step).sum(-1), 1e-12)
    return np.linalg.norm(relative - np.clip(fraction, 0, 1)[..., None] * step, axis=-1).min(axis=1)
