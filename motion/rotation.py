"""Rotations: axis-angle, matrices and 6D, for NumPy arrays and torch tensors.

Every function is written once, in torch (on top of ``roma``). It is differentiable, batched over all leading axes, and
returns NumPy arrays of the same precision for NumPy input. Column vectors: ``world = R @ local``. Angles in radians.
"""

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

Array = np.ndarray | Tensor


def numpy_or_torch(function: Callable) -> Callable[..., Any]:
    """Decorate a torch function to accept NumPy arrays too; it returns NumPy arrays if its first argument is one."""

    @functools.wraps(function)
    def wrapper(first: Array, *args: Any, **kwargs: Any) -> Any:
        if isinstance(first, Tensor):
            return function(first, *args, **kwargs)
        result = function(*map(_to_torch, (first, *args)), **{key: _to_torch(value) for key, value in kwargs.items()})
        if not isinstance(result, tuple):
            return result.numpy()
        parts = (part.numpy() for part in result)
        return type(result)(*parts) if hasattr(result, "_fields") else tuple(parts)  # a NamedTuple keeps its names

    return wrapper


def _to_torch(value: Any) -> Any:
    return torch.as_tensor(value) if isinstance(value, np.ndarray) else value


@numpy_or_torch
def axis_angle_to_matrix(axis_angle: Tensor) -> Tensor:
    """Convert axis-angle ``(..., 3)`` to rotation matrices ``(..., 3, 3)``."""
    import roma  # here, because it imports torch._dynamo: one second and 150 MB

    return roma.rotvec_to_rotmat(axis_angle)


@numpy_or_torch
def matrix_to_axis_angle(matrix: Tensor) -> Tensor:
    """Convert matrices ``(..., 3, 3)`` to axis-angle ``(..., 3)`` of magnitude in [0, pi], precise up to pi."""
    import roma

    flat = roma.rotmat_to_rotvec(matrix.reshape(-1, 3, 3))
    return flat.reshape(*matrix.shape[:-2], 3)


@numpy_or_torch
def matrix_to_rotation_6d(matrix: Tensor) -> Tensor:
    """Convert ``(..., 3, 3)`` to 6D ``(..., 6)``: the first two rows (Zhou et al., CVPR 2019; PyTorch3D's order)."""
    return matrix[..., :2, :].reshape(*matrix.shape[:-2], 6)


@numpy_or_torch
def rotation_6d_to_matrix(rotation_6d: Tensor) -> Tensor:
    """Convert 6D ``(..., 6)`` to ``(..., 3, 3)`` by Gram-Schmidt (Zhou et al., CVPR 2019); the input may be noisy."""
    first, second = rotation_6d[..., :3], rotation_6d[..., 3:]
    x = F.normalize(first, dim=-1)
    y = F.normalize(second - (x * second).sum(-1, keepdim=True) * x, dim=-1)
    return torch.stack((x, y, torch.linalg.cross(x, y, dim=-1)), dim=-2)


@numpy_or_torch
def y_rotation(angle: Tensor) -> Tensor:
    """Return rotations ``(..., 3, 3)`` by angles ``(...)`` about +y; positive turns +z (forward) toward +x (left)."""
    cos, sin, zero, one = torch.cos(angle), torch.sin(angle), torch.zeros_like(angle), torch.ones_like(angle)
    rows = (cos, zero, sin, zero, one, zero, -sin, zero, cos)
    return torch.stack(rows, dim=-1).reshape(*angle.shape, 3, 3)


@numpy_or_torch
def slerp(start: Tensor, end: Tensor, fraction: Tensor) -> Tensor:
    """Interpolate matrices ``(..., 3, 3)`` along the shortest arc; ``fraction (...)`` is in [0, 1]."""
    relative = matrix_to_axis_angle(start.transpose(-1, -2) @ end)
    return start @ axis_angle_to_matrix(relative * fraction[..., None])


def rotation_between(start: Array, end: Array) -> Any:
    """Return the rotation from ``start`` to ``end (..., 3, 3)`` as axis-angle ``(..., 3)``, in the parent's axes."""
    return matrix_to_axis_angle(end @ start.swapaxes(-1, -2))
