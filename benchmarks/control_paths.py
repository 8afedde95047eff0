"""The paths that benchmarks/control.py asks for: straight, arc, S and right angle. Points are (x, z) in metres."""

import numpy as np

LENGTHS = (3.0, 3.75, 4.5, 5.25, 6.0)  # metres
STEP = 0.02  # metres between the points of a curve


def paths() -> dict[str, np.ndarray]:
    """Return 20 paths (P, 2) by name, 5 of each shape; all start at the origin and first lead along +z."""
    shapes = {"straight": straight, "arc": arc, "S": s_curve, "right angle": right_angle}
    return {
        f"{name}, {length:g} m": shape(length, side)
        for length, side in zip(LENGTHS, (1, -1, 1, -1, 1), strict=True)
        for name, shape in shapes.items()
    }


def straight(length: float, side: int) -> np.ndarray:
    """Return the two ends of a straight path, for either side."""
    return np.array([(0.0, 0.0), (0.0, length)])


def arc(length: float, side: int) -> np.ndarray:
    """Return a quarter of a circle, to the left for side 1 and to the right for side -1."""
    return _curve(np.full(round(length / STEP), side * np.pi / 2 / length), length)


def s_curve(length: float, side: int) -> np.ndarray:
    """Return a turn by 60 degrees to one side and a turn back of the same size."""
    steps = round(length / STEP)
    back = np.where(np.arange(steps) < steps / 2, 1, -1)
    return _curve(side * back * np.pi / 3 / (length / 2), length)


def right_angle(length: float, side: int) -> np.ndarray:
    """Return two straight halves with a corner of 90 degrees between them."""
    return np.array([(0.0, 0.0), (0.0, length / 2), (side * length / 2, length / 2)])


def _curve(curvature: np.ndarray, length: float) -> np.ndarray:
    """Return the points (P + 1, 2) of a curve of P steps, each with a curvature (P,) in radians per metre."""
    step = length / len(curvature)
    heading = (np.cumsum(curvature) - curvature / 2) * step  # in the middle of each step
    return np.cumsum(np.pad(step * np.stack([np.sin(heading), np.cos(heading)], axis=1), ((1, 0), (0, 0))), axis=0)
