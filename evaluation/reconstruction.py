"""Errors of reconstructed joints: MPJPE, PA-MPJPE, acceleration and velocity errors, global error.

Joints are (..., T, J, 3) in metres, y up; joint 0 is the pelvis. The functions of frames return one error per frame.
Published numbers differ in how frames become one number:

| source | numbers |
|---|---|
| MotionStreamer; MRMetrics of MotionGPT | ``frame_mean``, mm: every frame weighs the same |
| MotionMillion | ``clip_mean`` of MPJPE, metres: every clip weighs the same |
| UHC | ``clip_means``, mm, one value per clip |

MRMetrics does not cut padded clips to their lengths: its numbers equal these for clips one at a time or of equal
length. The codes that a tokenizer uses and their perplexity are measured by ``models.fsq.codebook_usage``.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from utils.errors import InputError

FrameError = Callable[[np.ndarray, np.ndarray], np.ndarray]  # of real and reconstructed joints (T, J, 3), per frame


class Reconstruction(NamedTuple):
    """Mean errors over all frames of a set of clips, in millimetres, and of accelerations in mm per frame^2."""

    mpjpe: float
    pa_mpjpe: float
    acceleration_error: float
    global_error: float


# --- Errors per frame


def mpjpe(real: np.ndarray, reconstructed: np.ndarray) -> np.ndarray:
    """Return the mean distance (..., T) of joints relative to their pelvis."""
    return global_error(real - real[..., :1, :], reconstructed - reconstructed[..., :1, :])


def global_error(real: np.ndarray, reconstructed: np.ndarray) -> np.ndarray:
    """Return the mean distance (..., T) of joints in the world, not aligned; UHC's mpjpe_g."""
    return _mean_distance(real, reconstructed)


def pa_mpjpe(real: np.ndarray, reconstructed: np.ndarray) -> np.ndarray:
    """Return the mean distance (..., T) after the best similarity transform of each reconstructed frame (Procrustes).

    The transform is a rotation without reflection, a scale and a translation. A frame whose joints coincide has no
    rotation and is moved only.
    """
    real, reconstructed = real.astype(np.float64), reconstructed.astype(np.float64)
    target = real - real.mean(axis=-2, keepdims=True)  # (..., T, J, 3)
    source = reconstructed - reconstructed.mean(axis=-2, keepdims=True)
    u, singular, vh = np.linalg.svd(source.swapaxes(-1, -2) @ target)  # (..., T, 3, 3), (..., T, 3)
    sign = np.ones_like(singular)
    sign[..., 2] = np.sign(np.linalg.det(u @ vh))  # -1 where the best orthogonal matrix is a reflection
    rotation = (u * sign[..., None, :]) @ vh  # of row vectors
    square = (source**2).sum(axis=(-2, -1))
    scale = (singular * sign).sum(axis=-1) / np.where(square > 0, square, 1)
    return _mean_distance(target, scale[..., None, None] * (source @ rotation))


def acceleration_error(real: np.ndarray, reconstructed: np.ndarray) -> np.ndarray:
    """Return the mean distance (..., T - 2) of the joints' second differences, in metres per frame^2, not aligned."""
    return _mean_distance(np.diff(real, n=2, axis=-3), np.diff(reconstructed, n=2, axis=-3))


def velocity_error(real: np.ndarray, reconstructed: np.ndarray) -> np.ndarray:
    """Return the mean distance (..., T - 1) of the joints' first differences, in metres per frame, not aligned."""
    return _mean_distance(np.diff(real, axis=-3), np.diff(reconstructed, axis=-3))


def _mean_distance(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    return np.linalg.norm(first.astype(np.float64) - second.astype(np.float64), axis=-1).mean(axis=-1)


# --- Sets of clips


def clip_means(error: FrameError, real: Sequence[np.ndarray], reconstructed: Sequence[np.ndarray]) -> np.ndarray:
    """Return the mean error (N,) of each of N clips (T, J, 3), in the unit of ``error``."""
    return np.array([values.mean() for values in _errors(error, real, reconstructed)])


def clip_mean(error: FrameError, real: Sequence[np.ndarray], reconstructed: Sequence[np.ndarray]) -> float:
    """Return the mean over clips of the mean over their frames, in the unit of ``error`` (MotionMillion)."""
    return float(clip_means(error, real, reconstructed).mean())


def frame_mean(error: FrameError, real: Sequence[np.ndarray], reconstructed: Sequence[np.ndarray]) -> float:
    """Return the mean over the frames of all clips, in the unit of ``error`` (MotionStreamer, MRMetrics)."""
    return float(np.concatenate(_errors(error, real, reconstructed)).mean())


def reconstruction(real: Sequence[np.ndarray], reconstructed: Sequence[np.ndarray]) -> Reconstruction:
    """Return the mean errors over the frames of all clips, in millimetres.

    Args:
        real: Joints of each clip, (T, J, 3) in metres, at least 3 frames.
        reconstructed: Joints of the reconstructions, of the same shapes.

    Raises:
        InputError: There are no clips, or clips differ in shape or are shorter than 3 frames.
    """
    measures = (mpjpe, pa_mpjpe, acceleration_error, global_error)
    return Reconstruction(*(1000 * frame_mean(error, real, reconstructed) for error in measures))


def motionmillion_acceleration(joints: np.ndarray) -> tuple[float, float]:
    """Return the acceleration of a clip (T, J, 3) relative to its pelvis, in metres per frame^2.

    Both values are means over frames: of the mean over joints, and of the maximum over joints. MotionMillion's public
    code reports their means over clips.
    """
    local = joints.astype(np.float64) - joints[:, :1]
    sizes = np.linalg.norm(np.diff(local, n=2, axis=0), axis=-1)  # (T - 2, J)
    return float(sizes.mean()), float(sizes.max(axis=1).mean())


def _errors(error: FrameError, real: Sequence[np.ndarray], reconstructed: Sequence[np.ndarray]) -> list[np.ndarray]:
    if not real or len(real) != len(reconstructed):
        raise InputError(f"there are {len(real)} clips and {len(reconstructed)} reconstructions; give the same clips")
    for number, (first, second) in enumerate(zip(real, reconstructed, strict=True)):
        if first.shape != second.shape or len(first) < 3:
            raise InputError(
                f"clip {number} and its reconstruction have the shapes {first.shape} and {second.shape}; give joints "
                "of the same frames, at least 3"
            )
    return [error(first, second) for first, second in zip(real, reconstructed, strict=True)]
