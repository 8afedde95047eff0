"""Directions and rotations as NumPy arrays: angles, shortest rotations, means and best fits."""

from itertools import permutations, product

import numpy as np

OPPOSITE = 1e-9  # directions are opposite if 1 + cos of their angle is smaller


def unit(vectors: np.ndarray) -> np.ndarray:
    """Normalize vectors (..., 3); zero vectors are kept."""
    length = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return vectors / np.where(length > 0, length, 1)


def degrees_between(one: np.ndarray, other: np.ndarray) -> float:
    return float(np.degrees(np.arccos(np.clip(unit(one) @ unit(other), -1, 1))))


def turn_angle(one: np.ndarray, other: np.ndarray) -> float:
    """Return the angle in degrees between two rotations (3, 3)."""
    return float(np.degrees(np.arccos(np.clip((np.sum(one * other) - 1) / 2, -1, 1))))


def angle_about(axis: np.ndarray, start: np.ndarray, end: np.ndarray) -> float:
    """Return the angle in radians about ``axis`` from ``start`` to ``end``."""
    start, end = (vector - (vector @ axis) * axis for vector in (start, end))
    return float(np.arctan2(np.cross(start, end) @ axis, start @ end))


def turn_about(axis: np.ndarray, radians: float | np.ndarray) -> np.ndarray:
    """Return the rotations (..., 3, 3) about ``axis`` (3) by angles (...)."""
    radians = np.asarray(radians)[..., None, None]
    skew = np.array([[0, -axis[2], axis[1]], [axis[2], 0, -axis[0]], [-axis[1], axis[0], 0]])
    return np.eye(3) + np.sin(radians) * skew + (1 - np.cos(radians)) * skew @ skew


def shortest_turn(start: np.ndarray, end: np.ndarray) -> np.ndarray:
    """Return the rotations (..., 3, 3) of smallest angle from directions ``start`` (..., 3) to ``end`` (..., 3).

    Opposite directions: half a turn about an arbitrary perpendicular axis.
    """
    start, end = np.broadcast_arrays(unit(start), unit(end))
    cos = (start * end).sum(axis=-1)[..., None, None]
    cross = np.cross(start, end)
    skew = np.zeros((*cross.shape, 3))
    skew[..., 0, 1], skew[..., 0, 2], skew[..., 1, 2] = -cross[..., 2], cross[..., 1], -cross[..., 0]
    skew -= skew.swapaxes(-1, -2)
    turn = np.eye(3) + skew + skew @ skew / np.maximum(1.0 + cos, OPPOSITE)
    if (cos > OPPOSITE - 1).all():
        return turn
    across = unit(np.cross(start, np.eye(3)[np.abs(start).argmin(axis=-1)]))
    half = 2 * across[..., :, None] * across[..., None, :] - np.eye(3)
    return np.where(cos > OPPOSITE - 1, turn, half)


def nearest_direction(vector: np.ndarray) -> np.ndarray:
    """Return the signed axis nearest to ``vector`` (3)."""
    axis = np.zeros(3)
    axis[np.abs(vector).argmax()] = np.sign(vector[np.abs(vector).argmax()])
    return axis


AXIS_TURNS = [
    matrix
    for order in permutations(range(3))
    for signs in product((1.0, -1.0), repeat=3)
    if np.linalg.det(matrix := np.diag(signs)[list(order)]) > 0
]


def nearest_axes(turn: np.ndarray) -> np.ndarray:
    """Return the nearest of the 24 rotations along the axes to ``turn`` (3, 3)."""
    return max(AXIS_TURNS, key=lambda candidate: float((candidate * turn).sum()))


def nearest_rotation(matrix: np.ndarray) -> np.ndarray:
    """Return the nearest rotations (..., 3, 3) to matrices, in the sum of squared differences."""
    left, _, right = np.linalg.svd(matrix)
    left[..., 2] *= np.where(np.linalg.det(left @ right) < 0, -1.0, 1.0)[..., None]
    return left @ right


def fit_turn(start: np.ndarray, end: np.ndarray) -> np.ndarray:
    """Return the rotations (..., 3, 3) that best map the vectors ``start`` (N, 3) to ``end`` (..., N, 3)."""
    return nearest_rotation(end.swapaxes(-1, -2) @ start)


def mean_turn(turns: np.ndarray) -> np.ndarray:
    """Return the mean (3, 3) of rotations (S, 3, 3)."""
    return nearest_rotation(turns.sum(axis=0))


def mean_twist(turns: np.ndarray, axis: np.ndarray) -> float:
    """Return the mean twist angle in radians of rotations (S, 3, 3) about ``axis`` (swing-twist decomposition)."""
    # The quaternion's part along the axis and its real part, from the matrix: twist = 2 atan2(v . axis, w)
    cos = 1 + np.trace(turns, axis1=1, axis2=2)  # 4 w^2
    skew = np.stack((turns[:, 2, 1] - turns[:, 1, 2], turns[:, 0, 2] - turns[:, 2, 0], turns[:, 1, 0] - turns[:, 0, 1]))
    along = axis @ skew  # 4 w (v . axis)
    # (w + i v.a)^2 = w^2 - (v.a)^2 + 2 i w (v.a); (v.a)^2 from the symmetric part
    square = 1 - np.trace(turns, axis1=1, axis2=2) + 2 * np.einsum("i,sij,j->s", axis, turns, axis)  # 4 (v.a)^2
    return float(np.angle(np.sum(cos - square + 2j * along)))
