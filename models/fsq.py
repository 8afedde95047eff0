"""Finite scalar quantization (Mentzer et al., "Finite Scalar Quantization: VQ-VAE Made Simple", 2023).

Each latent dimension k is squashed to levels[k] values and rounded; the code's index is the mixed-radix number of the
levels, the first dimension varying fastest. There is no codebook to learn and no auxiliary loss. Numerically equal to
the public MotionMillion-Codes quantizer and to the FSQ of ``vector-quantize-pytorch`` 1.32 in its default mode
(``preserve_symmetry=False``). Two choices of layout differ from the latter: images are channel first only where
``channel_first`` says so, and ``indices_to_codes`` goes by the shape of the indices alone.
"""

from collections.abc import Sequence
from math import prod
from operator import index

import torch
from torch import nn

from utils.errors import InputError


def validated_levels(levels: Sequence[int]) -> list[int]:
    """Levels as a list of ints.

    Raises:
        InputError: they are not one or more whole numbers of at least 2 with a product below 2**63.
    """
    try:
        levels = [index(level) for level in levels]
    except TypeError as error:
        raise InputError(f"FSQ levels are {levels!r}; give a list of whole numbers such as [8, 5, 5, 5]") from error
    if not levels or min(levels) < 2 or prod(levels) > torch.iinfo(torch.int64).max:
        raise InputError(f"FSQ levels are {levels}; give one or more of at least 2, their product below 2**63")
    return levels


def check_indices(indices: torch.Tensor, codebook_size: int) -> None:
    """Refuse what are no indices of a codebook.

    Raises:
        InputError: they are not integers or (checked on the CPU, where it costs no synchronization) lie outside.
    """
    if indices.is_floating_point():
        raise InputError(f"indices are {indices.dtype}; give integers 0 .. {codebook_size - 1}")
    if indices.device.type == "cpu" and indices.numel():
        low, high = indices.min().item(), indices.max().item()
        if low < 0 or high >= codebook_size:
            outside = low if low < 0 else high
            raise InputError(f"index {outside} is outside the codebook; give 0 .. {codebook_size - 1}")


def codebook_use(indices: torch.Tensor, codebook_size: int) -> tuple[torch.Tensor, torch.Tensor]:
    """How evenly, and how widely, a codebook is used by indices of any shape; memory O(indices).

    Returns:
        Perplexity, exp of the entropy of the histogram of indices (1 .. codebook_size), and active fraction, the
        share of codes that occur at all; both 0-d.

    Raises:
        InputError: there are no indices.
    """
    if not indices.numel():
        raise InputError("there are no indices to compute the perplexity of; give at least one token")
    counts = indices.unique(return_counts=True)[1]
    share = counts / counts.sum()
    perplexity = torch.exp(-(share * torch.log(share + 1e-7)).sum())
    return perplexity, torch.tensor(len(counts) / codebook_size, device=indices.device)


class FSQ(nn.Module):
    """Quantizer of vectors (..., dim), one or several codes each.

    Args:
        levels: Levels of each of the K dimensions of a code, at least 2 each; ``codebook_size`` is their product.
        dim: Width D of what comes in and goes out; linear projections are used where it is not num_codebooks * K.
        num_codebooks: Codes C a vector; the latent is split evenly among them.
        keep_num_codebooks_dim: Whether indices have a last axis C; by default where C > 1.
        channel_first: Input is (B, D, ...) instead of (B, ..., D).
        statistics: Whether ``forward`` computes perplexity and active fraction; on CUDA this waits for the device.

    Raises:
        InputError: levels, dim or the number of codebooks make no quantizer.
    """

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
            raise InputError(f"num_codebooks is {num_codebooks}; give at least 1, and keep the axis of several")
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

    def forward(self, z: torch.Tensor, mask: torch.Tensor | None = None) -> tuple[torch.Tensor, ...]:
        """Quantize with the straight-through estimator.

        Args:
            z: (B, ..., D), or (B, D, ...) where ``channel_first``.
            mask: (B, ...) of bool, true where a vector is no padding: the others are left out of the statistics.

        Returns:
            out (shape and dtype of z), indices (B, ...) or (B, ..., C) int64, loss (zero), perplexity, active fraction
            (None without statistics), and indices again.

        Raises:
            InputError: z has another width, no vectors to take statistics of, or (checked on the CPU) holds NaN.
        """
        axis = 1 if self.channel_first else -1
        if z.ndim < 2 or z.shape[axis] != self.dim:
            raise InputError(f"the latent has shape {tuple(z.shape)}; FSQ needs width {self.dim} on axis {axis}")
        latent = self.project_in(z.movedim(1, -1) if self.channel_first else z)  # (B, ..., C * K)
        codes = self.quantize(latent.unflatten(-1, (self.num_codebooks, self.code_dim)))  # (B, ..., C, K) float32
        indices = self._indices(codes.detach())  # (B, ..., C)
        out = self.project_out(codes.flatten(-2).to(latent.dtype)).to(z.dtype)
        out = out.movedim(-1, 1) if self.channel_first else out
        counted = indices if mask is None else indices[mask]
        perplexity, active = self.compute_perplexity(counted) if self.statistics else (None, None)
        indices = indices if self.keep_num_codebooks_dim else indices.squeeze(-1)
        return out, indices, torch.zeros((), device=z.device), perplexity, active, indices

    def tokens_of(self, z: torch.Tensor) -> torch.Tensor:
        """The indices (B, ...) that ``forward`` gives vectors (B, ..., D) of one code each."""
        return self.codes_to_indices(self.quantize(self.project_in(z)))

    def bound(self, z: torch.Tensor, eps: float = 1e-3) -> torch.Tensor:
        """Squash (..., K) so that rounding gives ``levels[k]`` different values in dimension k.

        Odd levels lie evenly around 0. Even levels have one value more below 0 than above; the shift keeps a latent of
        0 at a bounded value of 0.
        """
        half = (self.levels - 1) * (1 + eps) / 2
        offset = torch.where(self.levels % 2 == 0, 0.5, 0.0)
        return torch.tanh(z + torch.atanh(offset / half)) * half - offset

    def quantize(self, z: torch.Tensor) -> torch.Tensor:
        """Codes (..., K) in [-1, 1] of a latent (..., K), with the straight-through gradient.

        Computed in float32 also under autocast and for half-precision latents (float64 stays float64).

        Raises:
            InputError: z holds NaN (checked on the CPU, where it costs no synchronization).
        """
        if z.device.type == "cpu" and z.isnan().any():
            raise InputError("the latent given to FSQ holds NaN; look for NaN in the data or a diverged training")
        with torch.autocast(z.device.type, enabled=False):
            bounded = self.bound(z.to(torch.promote_types(z.dtype, torch.float32)))
            rounded = bounded + (bounded.round() - bounded).detach()
            return rounded / (self.levels // 2)

    def codes_to_indices(self, codes: torch.Tensor) -> torch.Tensor:
        """Codes (..., K) to indices (...) int64, of one codebook each."""
        if codes.shape[-1] != self.code_dim:
            raise InputError(f"codes have width {codes.shape[-1]} and the quantizer {self.code_dim} dimensions")
        return self._indices(codes)

    def _indices(self, codes: torch.Tensor) -> torch.Tensor:
        half = self.levels // 2
        level_indices = (codes.float() * half).round().long() + half
        return (level_indices * self.basis).sum(dim=-1)

    def indices_to_level_indices(self, indices: torch.Tensor) -> torch.Tensor:
        """Indices (...) to the level 0 .. levels[k] - 1 in each dimension, (..., K) int64."""
        return indices[..., None] // self.basis % self.levels

    def indices_to_latent_codes(self, indices: torch.Tensor) -> torch.Tensor:
        """Indices (...) to codes (..., K) before any projection."""
        half = self.levels // 2
        return (self.indices_to_level_indices(indices) - half) / half

    def indices_to_codes(self, indices: torch.Tensor) -> torch.Tensor:
        """Indices to quantized vectors, projected out.

        Args:
            indices: (B, N), or (B, ...) of images and videos; with a last axis C if the codebook dimension is kept.

        Returns:
            (B, N, D), or (B, D, ...) for images and videos; the shape of the indices alone decides.

        Raises:
            InputError: see ``dequantize``.
        """
        out = self.dequantize(indices)
        is_image = indices.ndim >= 3 + int(self.keep_num_codebooks_dim)
        return out.movedim(-1, 1) if is_image else out

    def dequantize(self, indices: torch.Tensor) -> torch.Tensor:
        """Indices (B, ...), or (B, ..., C), to quantized vectors (B, ..., D), projected out, channels always last.

        Raises:
            InputError: indices are not integers, lack the axis C, or (checked on the CPU, where it costs no
                synchronization) lie outside the codebook.
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
    def implicit_codebook(self) -> torch.Tensor:
        """All codes by index, (codebook_size, K); made when asked for."""
        return self.indices_to_latent_codes(torch.arange(self.codebook_size, device=self.levels.device))

    def compute_perplexity(self, indices: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """``codebook_use`` of indices; several codebooks count together."""
        return codebook_use(indices, self.codebook_size)
