"""SMPL-X body parameters as arrays: ``smplx_85``, the format of this project, and ``smplx_322`` of Motion-X."""

from typing import Any

import numpy as np
from torch import Tensor

from motion.rotation import axis_angle_to_matrix, matrix_to_axis_angle, numpy_or_torch
from motion.skeleton import JOINTS
from utils.errors import InputError

SMPLX85 = {"axis_angle": slice(0, 66), "translation": slice(72, 75), "betas": slice(75, 85)}
SMPLX85_WIDTH = 85
LARGEST = 1e5  # radians or metres; a larger value means another unit or damaged data

# The layout of Motion-X (Lin et al., NeurIPS 2023); text-to-motion fills only the 22 body joints, the rest is zero.
SMPLX322 = {
    "body_pose": slice(0, 66),
    "hand_pose": slice(66, 156),
    "jaw_pose": slice(156, 159),
    "expression": slice(159, 209),
    "face_shape": slice(209, 309),
    "translation": slice(309, 312),
    "betas": slice(312, 322),
}
SMPLX322_WIDTH = 322


def check_smplx85(data: Any) -> np.ndarray:
    """Validate poses and return them as a (T, 85) array.

    Args:
        data: (T, 85) or (1, T, 85), NumPy or torch.

    Returns:
        (T, 85) array; float32 stays float32, any other type becomes float64.

    Raises:
        InputError: another shape, no frames, or values that are not finite or too large.
    """
    data = np.asarray(data.detach().cpu() if hasattr(data, "detach") else data)
    if data.ndim == 3 and len(data) == 1:
        data = data[0]
    if data.ndim != 2 or data.shape[1] != SMPLX85_WIDTH:
        raise InputError(f"smplx_85 motion has shape {data.shape}; give (frames, {SMPLX85_WIDTH})")
    if len(data) == 0:
        raise InputError("smplx_85 motion has no frames; give at least one")
    if data.dtype.kind not in "fiu" or not np.isfinite(data).all():
        raise InputError("smplx_85 motion holds NaN, infinite or non-numeric values; repair or remove these frames")
    if np.abs(data).max() > LARGEST:
        raise InputError(f"smplx_85 motion holds values as large as {np.abs(data).max():.0e}; give radians and metres")
    return data if data.dtype == np.float32 else data.astype(np.float64)


@numpy_or_torch
def motion_to_smplx85(rotations: Tensor, pelvis: Tensor, betas: Tensor | None = None) -> Tensor:
    """Convert rotations to smplx_85; inverts ``smplx85_to_motion``.

    Args:
        rotations: (..., T, 22, 3, 3) local rotations.
        pelvis: (..., T, 3) position of the pelvis joint in metres.
        betas: (10,) body shape; None for zeros.

    Returns:
        (..., T, 85) poses.
    """
    smplx85 = rotations.new_zeros(*pelvis.shape[:-1], SMPLX85_WIDTH)
    smplx85[..., SMPLX85["axis_angle"]] = matrix_to_axis_angle(rotations).flatten(-2)
    smplx85[..., SMPLX85["translation"]] = pelvis
    if betas is not None:
        smplx85[..., SMPLX85["betas"]] = betas
    return smplx85


@numpy_or_torch
def smplx85_to_motion(smplx85: Tensor) -> tuple[Tensor, Tensor]:
    """Convert (..., T, 85) to local rotations (..., T, 22, 3, 3) and the pelvis (..., T, 3) in metres."""
    axis_angle = smplx85[..., SMPLX85["axis_angle"]]
    rotations = axis_angle_to_matrix(axis_angle.reshape(*axis_angle.shape[:-1], JOINTS, 3))
    return rotations, smplx85[..., SMPLX85["translation"]]


def smplx85_to_322(data: Any) -> np.ndarray:
    """Convert (T, 85) or (1, T, 85), NumPy or torch, to (T, 322): body pose, translation and betas, zero elsewhere.

    Raises:
        InputError: unusable motion, as in ``check_smplx85``.
    """
    data = check_smplx85(data)
    full = np.zeros((len(data), SMPLX322_WIDTH))
    full[:, SMPLX322["body_pose"]] = data[:, SMPLX85["axis_angle"]]
    full[:, SMPLX322["translation"]] = data[:, SMPLX85["translation"]]
    full[:, SMPLX322["betas"]] = data[:, SMPLX85["betas"]]
    return full


def smplx322_to_85(data: np.ndarray) -> np.ndarray:
    """Convert (T, 322) to (T, 85); hands, face and expression are dropped.

    Raises:
        InputError: another shape, or unusable motion as in ``check_smplx85``.
    """
    data = np.asarray(data)
    if data.ndim != 2 or data.shape[1] != SMPLX322_WIDTH:
        raise InputError(f"smplx_322 motion has shape {data.shape}; give (frames, {SMPLX322_WIDTH})")
    body_pose, translation, betas = (data[:, SMPLX322[name]] for name in ("body_pose", "translation", "betas"))
    return check_smplx85(np.concatenate((body_pose, np.zeros((len(data), 6)), translation, betas), axis=1))
