"""Finite scalar quantization (Mentzer et al., "Finite Scalar Quantization: VQ-VAE Made Simple", 2023).

Each latent dimension k is bounded to levels[k] values and rounded; the index of a code is the mixed-radix number of its
levels, with the first dimension varying fastest. There is no learned codebook and no auxiliary loss. Numerically equal
to the quantizer of the public MotionMillion-Codes, and to the FSQ of ``vector-quantize-pytorch`` 1.32 in its default
mode (``preserve_symmetry=False``). Two layout rules differ from the latter: images are channel first only if
``channel_first`` is set, and ``indices_to_codes`` depends on the shape of the indices alone.
"""

from collections.abc import Sequence
from math import prod
from operator import index
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from utils.errors import InputError


class QuantizerOutput(NamedTuple):
    """Result of every quantizer, in the order of the six values that the public MotionMillion-Codes returns."""

    out: Tensor  # quantized vectors, shape and dtype of the input
    indices: Tensor  # int64
    loss: Tensor  # (), auxiliary loss; zero for FSQ and outside training
    perplexity: Tensor | None  # (), see ``codebook_usage``; None if statistics are off
    active_fraction: Tensor | None  # ()
    tokens: Tensor  # the indices again


def validated_levels(levels: Sequence[int]) -> list[int]:
    """Return the levels as a list of ints.

    Raises:
        InputError: unless they are one or more whole numbers of at least 2 with a product below 2**63.
    """
    try:
        levels = [index(level) for level in levels]
    except TypeError as error:
        raise InputError(f"FSQ levels are {levels!r}; give a list of whole numbers such as [8, 5, 5, 5]") from error
    if not levels or min(levels) < 2 or prod(levels) > torch.iinfo(torch.int64).max:
        raise InputError(f"FSQ levels are {levels}; give one or more of at least 2 with a product below 2**63")
    return levels


def check_indices(indices: Tensor, codebook_size: int) -> None:
    """Validate codebook indices.

    Raises:
        InputError: if they are not integers or lie outside the codebook. The range is checked on the CPU only, where
            the check needs no synchronization.
    """
    if indices.is_floating_point():
        raise InputError(f"indices are {indices.dtype}; give integers 0 .. {codebook_size - 1}")
    if indices.device.type == "cpu" and indices.numel():
        low, high = indices.min().item(), indices.max().item()
        if low < 0 or high >= codebook_size:
            outside = low if low < 0 else high
            raise InputError(f"index {outside} is outside the codebook; give 0 .. {codebook_size - 1}")


def codebook_usage(indices: Tensor, codebook_size: int, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Measure how evenly and how widely indices of any shape use a codebook; memory is O(indices).

    Args:
        indices: Indices of any shape.
        codebook_size: Number of codes.
        mask: Booleans of the same shape or without its last axes, true at indices that count; None counts all.

    Returns:
        The perplexity, which is exp of the entropy of the histogram of indices (1 .. codebook_size), and the active
        fraction, which is the share of codes that occur at least once. Both are 0-d.

    Raises:
        InputError: if there are no indices.
    """
    if not indices.numel():
        raise InputError("there are no indices to compute the perplexity of; give at least one token")
    if mask is not None:
        indices = indices.masked_fill(~mask.reshape(*mask.shape, *[1] * (indices.ndim - mask.ndim)), -1)
    ordered = indices.flatten().sort().values  # unlike unique(), this does not wait for the device
    counts = torch.searchsorted(ordered, ordered, right=True) - torch.searchsorted(ordered, ordered)  # of each index
    counted = ordered >= 0
    share = counts / counted.sum()
    perplexity = torch.exp(-torch.where(counted, torch.log(share + 1e-7), 0).sum() / counted.sum())
    is_first = F.pad(ordered.diff() != 0, (1, 0), value=True) & counted
    return perplexity, is_first.sum() / codebook_size


class FSQ(nn.Module):
    """Quantizer of vectors (..., dim) with one or several codes per vector.

    Args:
        levels: Levels of each of the K dimensions of a code, at least 2 each; ``codebook_size`` is their product.
        dim: Width D of input and output. Linear projections are used if it differs from num_codebooks * K.
        num_codebooks: Codes C per vector; the latent is split evenly among them.
        keep_num_codebooks_dim: Whether indices have a last axis C; by default only if C > 1.
        channel_first: Whether the input is (B, D, ...) instead of (B, ..., D).
        statistics: Whether ``forward`` computes perplexity and active fraction; on CUDA this synchronizes.

    Raises:
        InputError: if levels, dim or num_codebooks are invalid.
    """

    levels: Tensor
    basis: Tensor

    def __init__(
        self,
        levels: Sequence[int],
        *,
        dim: int | None = None,
        num_codebooks: int = 1,
        keep_num_codebooks_dim: bool | None = None,
        channel_first: bool = False,
        statistics: bool = True,
    ):
        super().__init__()
        levels = validated_levels(levels)
        if num_codebooks < 1 or (num_codebooks > 1 and keep_num_codebooks_dim is False):
            raise InputError(
                f"num_codebooks is {num_codebooks}; give at least 1, and keep the codebook axis if there are several"
            )
        if dim is not None and dim < 1:
            raise InputError(f"FSQ width dim is {dim}; it must be at least 1")
        self.num_codebooks = num_codebooks
        self.keep_num_codebooks_dim = num_codebooks > 1 if keep_num_codebooks_dim is None else keep_num_codebooks_dim
        self.channel_first, self.statistics = channel_first, statistics
        self.codebook_size = prod(levels)
        self.code_dim = len(levels)
        latent = num_codebooks * len(levels)
        self.dim = latent if dim is None else dim
        projected = self.dim != latent
        self.project_in = nn.Linear(self.dim, latent) if projected else nn.Identity()
        self.project_out = nn.Linear(latent, self.dim) if projected else nn.Identity()
        self.register_buffer("levels", torch.tensor(levels), persistent=False)
        basis = [prod(levels[:k]) for k in range(len(levels))]
        self.register_buffer("basis", torch.tensor(basis), persistent=False)

    def forward(self, z: Tensor, mask: Tensor | None = None) -> QuantizerOutput:
        """Quantize with the straight-through estimator.

        Args:
            z: (B, ..., D), or (B, D, ...) with ``channel_first``.
            mask: (B, ...) of bool, true at valid vectors; padding is left out of the statistics.

        Returns:
            The named values of ``QuantizerOutput`` with indices (B, ...) or (B, ..., C).

        Raises:
            InputError: if z has the wrong width, has no vectors to compute statistics of, or (checked on the CPU)
                holds NaN.
        """
        axis = 1 if self.channel_first else -1
        if z.ndim < 2 or z.shape[axis] != self.dim:
            raise InputError(f"the latent has shape {tuple(z.shape)}; FSQ needs width {self.dim} on axis {axis}")
        latent = self.project_in(z.movedim(1, -1) if self.channel_first else z)  # (B, ..., C * K)
        codes = self.quantize(latent.unflatten(-1, (self.num_codebooks, self.code_dim)))  # (B, ..., C, K) float32
        indices = self._indices(codes.detach())  # (B, ..., C)
        out = self.project_out(codes.flatten(-2).to(latent.dtype)).to(z.dtype)
        out = out.movedim(-1, 1) if self.channel_first else out
        perplexity, active_fraction = self.compute_perplexity(indices, mask) if self.statistics else (None, None)
        indices = indices if self.keep_num_codebooks_dim else indices.squeeze(-1)
        return QuantizerOutput(out, indices, torch.zeros((), device=z.device), perplexity, active_fraction, indices)

    def encode(self, z: Tensor) -> Tensor:
        """Return the indices (B, ...) of vectors (B, ..., D) with one code each, equal to those of ``forward``."""
        return self.codes_to_indices(self.quantize(self.project_in(z)))

    def bound(self, z: Tensor, eps: float = 1e-3) -> Tensor:
        """Bound a latent (..., K) so that rounding yields ``levels[k]`` distinct values in dimension k.

        Odd levels lie evenly around 0. Even levels have one more value below 0 than above; the shift maps a latent of 0
        to a bounded value of 0.
        """
        half = (self.levels - 1) * (1 + eps) / 2
        offset = torch.where(self.levels % 2 == 0, 0.5, 0.0)
        return torch.tanh(z + torch.atanh(offset / half)) * half - offset

    def quantize(self, z: Tensor) -> Tensor:
        """Return the codes (..., K) in [-1, 1] of a latent (..., K), with the straight-through gradient.

        Computed in float32 under autocast and for half-precision latents too (float64 stays float64).

        Raises:
            InputError: if z holds NaN (checked on the CPU only, where the check needs no synchronization).
        """
        if z.device.type == "cpu" and z.isnan().any():
            raise InputError("the latent given to FSQ holds NaN; look for NaN in the data or a diverged training")
        with torch.autocast(z.device.type, enabled=False):
            bounded = self.bound(z.to(torch.promote_types(z.dtype, torch.float32)))
            rounded = bounded + (bounded.round() - bounded).detach()
            return rounded / (self.levels // 2)

    def codes_to_indices(self, codes: Tensor) -> Tensor:
        """Convert codes (..., K) of one codebook to indices (...) int64."""
        if codes.shape[-1] != self.code_dim:
            raise InputError(f"codes have width {codes.shape[-1]} and the quantizer {self.code_dim} dimensions")
        return self._indices(codes)

    def _indices(self, codes: Tensor) -> Tensor:
        half = self.levels // 2
        level_indices = (codes.float() * half).round().long() + half
        return (level_indices * self.basis).sum(dim=-1)

    def indices_to_level_indices(self, indices: Tensor) -> Tensor:
        """Convert indices (...) to the level 0 .. levels[k] - 1 in each dimension, (..., K) int64."""
        return indices[..., None] // self.basis % self.levels

    def indices_to_latent_codes(self, indices: Tensor) -> Tensor:
        """Convert indices (...) to codes (..., K) before projection."""
        half = self.levels // 2
        return (self.indices_to_level_indices(indices) - half) / half

    def indices_to_codes(self, indices: Tensor) -> Tensor:
        """Convert indices to quantized vectors, after ``project_out``.

        Args:
            indices: (B, N), or (B, ...) of images and videos; with a last axis C if the codebook axis is kept.

        Returns:
            (B, N, D), or (B, D, ...) for images and videos; the shape of the indices alone decides.

        Raises:
            InputError: see ``dequantize``.
        """
        out = self.dequantize(indices)
        is_image = indices.ndim >= 3 + int(self.keep_num_codebooks_dim)
        return out.movedim(-1, 1) if is_image else out

    def dequantize(self, indices: Tensor) -> Tensor:
        """Convert indices (B, ...) or (B, ..., C) to quantized vectors (B, ..., D), always channel last.

        Raises:
            InputError: if the indices are not integers, lack the axis C, or (checked on the CPU only) lie outside the
                codebook.
        """
        if self.keep_num_codebooks_dim and indices.shape[-1:] != (self.num_codebooks,):
            raise InputError(f"indices have shape {tuple(indices.shape)}; the last axis must be {self.num_codebooks}")
        check_indices(indices, self.codebook_size)
        indices = indices if self.keep_num_codebooks_dim else indices[..., None]
        codes = self.indices_to_latent_codes(indices).flatten(-2)  # (B, ..., C * K)
        if isinstance(self.project_out, nn.Linear):
            codes = codes.to(self.project_out.weight.dtype)
        return self.project_out(codes)

    @property
    def implicit_codebook(self) -> Tensor:
        """All codes by index, (codebook_size, K); computed on access."""
        return self.indices_to_latent_codes(torch.arange(self.codebook_size, device=self.levels.device))

    def compute_perplexity(self, indices: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return ``codebook_usage`` of the indices; several codebooks are counted together."""
        return codebook_usage(indices, self.codebook_size, mask)
