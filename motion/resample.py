"""Resampling of motion to ``FPS`` frames per second, the frame rate of all motion in this project."""

import numpy as np
import torch
from torch import Tensor

from motion.frame_rate import FPS as FPS
from motion.frame_rate import check_fps as check_fps
from motion.rotation import numpy_or_torch, slerp


@numpy_or_torch
def resample_rotations(rotations: Tensor, source_fps: float, target_fps: float) -> Tensor:
    """Resample ``(T, ..., 3, 3)`` over time by slerp; the first frame is kept."""
    if source_fps == target_fps or len(rotations) < 2:
        return rotations
    lower, upper, fraction = resample_times(len(rotations), source_fps, target_fps)
    weight = torch.as_tensor(fraction, dtype=rotations.dtype).reshape(-1, *[1] * (rotations.ndim - 3))
    return slerp(rotations[lower], rotations[upper], weight.expand(len(lower), *rotations.shape[1:-2]))


@numpy_or_torch
def resample_positions(positions: Tensor, source_fps: float, target_fps: float) -> Tensor:
    """Resample ``(T, ...)`` over time by linear interpolation; the first frame is kept."""
    if source_fps == target_fps or len(positions) < 2:
        return positions
    lower, upper, fraction = resample_times(len(positions), source_fps, target_fps)
    weight = torch.as_tensor(fraction, dtype=positions.dtype).reshape(-1, *[1] * (positions.ndim - 1))
    return torch.lerp(positions[lower], positions[upper], weight)


def resample_times(frames: int, source_fps: float, target_fps: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return for each target frame the source frames before and after it and the fraction between, each (T',)."""
    count = int(np.floor((frames - 1) * target_fps / source_fps + 1e-6)) + 1
    times = np.minimum(np.arange(count) * source_fps / target_fps, frames - 1)
    lower = np.minimum(times.astype(np.int64), frames - 2)
    return lower, lower + 1, times - lower
