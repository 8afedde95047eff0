"""Points of the body against the floor: penetration, floating and skating as in UHC and PhysDiff.

Points are (T, V, 3) in metres, y up, with the floor at y = 0: vertices of a mesh, or joints where there is no mesh.
Results are in millimetres per frame; published numbers are their means over frames and clips.

UHC averages the depth of all points below the floor, PhysDiff takes the lowest point: the two are not comparable. The
code of PhysDiff (Yuan et al., ICCV 2023) is not public; its measures follow its text, with the usual 5 mm tolerance.
"""

from typing import NamedTuple

import numpy as np

TOLERANCE = 0.005  # metres


class PhysicalError(NamedTuple):
    """Mean errors of a clip as in PhysDiff, in millimetres."""

    penetration: float
    floating: float
    skating: float

    @property
    def total(self) -> float:
        """The sum, Phys-Err."""
        return sum(self)


def mean_penetration(points: np.ndarray) -> np.ndarray:
    """Return the mean depth (T,) of all points below the floor, 0 if there is none (UHC)."""
    height = points[..., 1].astype(np.float64)
    below = height < 0
    return -1000 * np.where(below, height, 0).sum(axis=1) / np.maximum(below.sum(axis=1), 1)


def lowest_penetration(points: np.ndarray) -> np.ndarray:
    """Return the depth (T,) of the lowest point where it is more than 5 mm below the floor, else 0 (PhysDiff)."""
    lowest = points[..., 1].min(axis=1).astype(np.float64)
    return -1000 * np.where(lowest < -TOLERANCE, lowest, 0)


def floating(points: np.ndarray) -> np.ndarray:
    """Return the height (T,) of the lowest point where it is more than 5 mm above the floor, else 0."""
    lowest = points[..., 1].min(axis=1).astype(np.float64)
    return 1000 * np.where(lowest > TOLERANCE, lowest, 0)


def physdiff_floating(points: np.ndarray) -> np.ndarray:
    """Return the height (T,) of the lowest of the points above the floor where it exceeds 5 mm, else 0 (PhysDiff).

    Points on or below the floor are left out, so a body that stands on the floor can count as floating.
    """
    height = points[..., 1].astype(np.float64)
    lowest = np.where(height > 0, height, np.inf).min(axis=1)
    return 1000 * np.where(np.isfinite(lowest) & (lowest > TOLERANCE), lowest, 0)


def floor_skating(points: np.ndarray) -> np.ndarray:
    """Return the mean ground displacement (T - 1,) of points that stay on or below the floor (UHC, PhysDiff)."""
    points = points.astype(np.float64)
    steps = np.linalg.norm(np.diff(points[..., [0, 2]], axis=0), axis=-1)  # (T - 1, V)
    down = points[..., 1] <= 0
    both = down[:-1] & down[1:]
    return 1000 * np.where(both, steps, 0).sum(axis=1) / np.maximum(both.sum(axis=1), 1)


def physical_error(points: np.ndarray) -> PhysicalError:
    """Return PhysDiff's penetration, floating and skating of a clip, averaged over frames, in millimetres."""
    return PhysicalError(
        *(float(measure(points).mean()) for measure in (lowest_penetration, physdiff_floating, floor_skating))
    )
