"""Frame rates: all motion is at ``FPS`` frames per second, and anything else is resampled to it."""

import math

import numpy as np
import torch

from motion.rotation import Array, numpy_or_torch, slerp
from utils.errors import InputError

FPS = 30


def check_fps(fps: float) -> None:
    """Raise InputError unless ``fps`` is a positive, finite number."""
    if not isinstance(fps, int | float | np.number) or not math.isfinite(fps) or fps <= 0:
        raise InputError(f"fps is {fps!r}; give a positive number of frames per second, 30 for example")


@numpy_or_torch
def resample_rotations(rotations: Array, source_fps: float, target_fps: float) -> Array:
    """Resample ``(T, ..., 3, 3)`` over time by slerp, from ``source_fps`` to ``target_fps``; first frame kept."""
    if source_fps == target_fps or len(rotations) < 2:
        return rotations
    lower, upper, fraction = resample_times(len(rotations), source_fps, target_fps)
    fraction = torch.as_tensor(fraction, dtype=rotations.dtype).reshape(-1, *[1] * (rotations.ndim - 3))
    return slerp(rotations[lower], rotations[upper], fraction.expand(len(lower), *rotations.shape[1:-2]))


@numpy_or_torch
def resample_positions(positions: Array, source_fps: float, target_fps: float) -> Array:
    """Resample ``(T, ...)`` over time linearly, from ``source_fps`` to ``target_fps``; first frame kept."""
    if source_fps == target_fps or len(positions) < 2:
        return positions
    lower, upper, fraction = resample_times(len(positions), source_fps, target_fps)
    fraction = torch.as_tensor(fraction, dtype=positions.dtype).reshape(-1, *[1] * (positions.ndim - 1))
    return torch.lerp(positions[lower], positions[upper], fraction)


def resample_times(frames: int, source_fps: float, target_fps: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Neighbour frames, and the fraction between them, of each target frame: (lower, upper, fraction), each (T',)."""
    count = int(np.floor((frames - 1) * target_fps / source_fps + 1e-6)) + 1
    times = np.minimum(np.arange(count) * source_fps / target_fps, frames - 1)
    lower = np.minimum(times.astype(np.int64), frames - 2)
    return lower, lower + 1, times - lower
