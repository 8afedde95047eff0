"""Small corrections that make a motion continuous at a seam: they are exact at the seam and fade smoothly to zero."""

import numpy as np

SPREAD = 15  # frames on one side of a seam over which a correction fades


def fade(frames: np.ndarray, value: np.ndarray, change: np.ndarray | float, width: float = SPREAD) -> np.ndarray:
    """Return a correction (T, ...) that fades to zero: a quintic polynomial, which ends without a jump of acceleration.

    Args:
        frames: (T,) distances from the seam in frames, at least 0.
        value: Correction (...) at the seam.
        change: Its change per frame (...) at the seam, in the direction away from it.
        width: Distance at which the correction is zero.
    """
    x = np.minimum(frames / width, 1).reshape(-1, *[1] * np.ndim(value))
    return (1 - x**3 * (10 - 15 * x + 6 * x**2)) * value + width * x * (1 - x) ** 3 * (1 + 3 * x) * change
