"""The frame rate of all motion in this project; this module imports no PyTorch."""

import math

import numpy as np

from utils.errors import InputError

FPS = 30


def check_fps(fps: float) -> None:
    """Raise InputError unless ``fps`` is a positive, finite number."""
    if not isinstance(fps, int | float | np.number) or not math.isfinite(fps) or fps <= 0:
        raise InputError(f"fps is {fps!r}; give a positive number of frames per second, for example 30")
