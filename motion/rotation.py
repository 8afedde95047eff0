"""Rotations: axis-angle, matrices and 6D, for NumPy arrays and torch tensors alike.

Every function is written once, in torch (over ``roma``), and is differentiable and batched over all leading axes. Given
NumPy arrays it returns NumPy arrays of the same precision. Column vectors: ``world = R @ local``. Angles in radians.
"""

import functools
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F

Array = np.ndarray | torch.Tensor


def numpy_or_torch(function: Callable) -> Callable:
    """Let a torch function also take NumPy arrays; if its first argument is one, it returns NumPy arrays."""

    @functools.wraps(function)
    def wrapper(first: Array, *args, **kwargs):
        if isinstance(first, torch.Tensor):
            return function(first, *args, **kwargs)
        to_torch = [torch.as_tensor(value) if isinstance(value, np.ndarray) else value for value in (first, *args)]
        kwargs = {
            key: torch.as_tensor(value) if isinstance(value, np.ndarray) else value for key, value in kwargs.items()
        }
        result = function(*to_torch, **kwargs)
        return tuple(part.numpy() for part in result) if isinstance(result, tuple) else result.numpy()

    return wrapper


@numpy_or_torch
def axis_angle_to_matrix(axis_angle: Array) -> Array:
    """``(..., 3)`` axis-angle to ``(..., 3, 3)`` rotation matrices."""
    import roma  # where it is used: it brings along torch._dynamo, a second and 150 MB

    return roma.rotvec_to_rotmat(axis_angle)


@numpy_or_torch
def matrix_to_axis_angle(matrix: Array) -> Array:
    """``(..., 3, 3)`` rotation matrices to ``(..., 3)`` axis-angle of magnitude in [0, pi], precise up to pi."""
    import roma

    flat = roma.rotmat_to_rotvec(matrix.reshape(-1, 3, 3))
    return flat.reshape(*matrix.shape[:-2], 3)


@numpy_or_torch
def matrix_to_rotation_6d(matrix: Array) -> Array:
    """``(..., 3, 3)`` to ``(..., 6)``: the first two rows (Zhou et al., CVPR 2019, in PyTorch3D's row convention)."""
    return matrix[..., :2, :].reshape(*matrix.shape[:-2], 6)


@numpy_or_torch
def rotation_6d_to_matrix(rotation_6d: Array) -> Array:
    """``(..., 6)`` to ``(..., 3, 3)`` by Gram-Schmidt on the two rows (Zhou et al., CVPR 2019); input may be noisy."""
    first, second = rotation_6d[..., :3], rotation_6d[..., 3:]
    x = F.normalize(first, dim=-1)
    y = F.normalize(second - (x * second).sum(-1, keepdim=True) * x, dim=-1)
    return torch.stack((x, y, torch.linalg.cross(x, y, dim=-1)), dim=-2)


@numpy_or_torch
def y_rotation(angle: Array) -> Array:
    """``(...)`` angles about the vertical axis to ``(..., 3, 3)``; positive turns +z (forward) toward +x (left)."""
    cos, sin, zero, one = torch.cos(angle), torch.sin(angle), torch.zeros_like(angle), torch.ones_like(angle)
    rows = (cos, zero, sin, zero, one, zero, -sin, zero, cos)
    return torch.stack(rows, dim=-1).reshape(*angle.shape, 3, 3)


@numpy_or_torch
def slerp(start: Array, end: Array, fraction: Array) -> Array:
    """Interpolate matrices ``(..., 3, 3)`` on the shortest arc; ``fraction (...)`` in [0, 1]."""
    relative = matrix_to_axis_angle(start.transpose(-1, -2) @ end)
    return start @ axis_angle_to_matrix(relative * fraction[..., None])
