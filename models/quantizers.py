"""Quantizers of the motion tokenizer; option ``quantizer`` of VQVAEConfig selects one.

    fsq     finite scalar quantization (models/fsq.py)
    vq_ema  a learned codebook, updated as a moving average (van den Oord et al., 2017), with dead codes replaced
    lfq     lookup-free quantization: one bit per dimension and an entropy loss (Yu et al., MAGVIT-v2, 2023), on the
            unit sphere (Zhao et al., Binary Spherical Quantization, 2024)
    rfsq    residual FSQ: each quantizer codes the residual of the previous one

The last three wrap ``vector-quantize-pytorch`` and have the part of FSQ's interface that HumanVQVAE uses:
``codebook_size``, ``forward``, ``encode`` and ``dequantize``. One token stands for one vector in all of them.
"""

from collections.abc import Sequence
from math import prod
from typing import Any

import torch
from torch import Tensor, distributed, nn

from models.fsq import FSQ, QuantizerOutput, check_indices, codebook_usage, validated_levels
from utils.errors import InputError

MAX_LIBRARY_CODES = 2**18  # the library stores all codes, and vq_ema and lfq compare every vector with each of them


def world_size() -> int:
    """Return the number of training processes."""
    return distributed.get_world_size() if distributed.is_initialized() else 1


class LibraryQuantizer(nn.Module):
    """Base of the quantizers from the library: FSQ's interface, computed in float32 on the valid vectors alone.

    Padding is removed before the library sees the vectors, because its masks are incomplete: LFQ ignores them for the
    indices, and residual FSQ has none. A subclass sets ``library`` and implements ``_quantize`` and ``_vectors``.
    """

    codebook_size: int
    library: Any  # the library's modules carry no types

    def forward(self, z: Tensor, mask: Tensor | None = None) -> QuantizerOutput:
        """Quantize with a gradient to ``z``; in training mode a learned codebook is updated.

        Args:
            z: (B, n, D). mask: (B, n) of bool, true at valid vectors; None means all.

        Returns:
            The named values of ``QuantizerOutput`` with out (B, n, D) and indices (B, n), both zero at padding.
        """
        mask = torch.ones(z.shape[:-1], dtype=torch.bool, device=z.device) if mask is None else mask
        with torch.autocast(z.device.type, enabled=False):
            vectors, valid_indices, loss = self._quantize(z[mask].float()[None])  # (1, N, D), (1, N), ()
        out, indices = torch.zeros_like(z), torch.zeros_like(mask, dtype=torch.long)
        out[mask], indices[mask] = vectors[0].to(z.dtype), valid_indices[0].long()
        perplexity, active_fraction = codebook_usage(valid_indices, self.codebook_size)
        return QuantizerOutput(out, indices, loss, perplexity, active_fraction, indices)

    def encode(self, z: Tensor) -> Tensor:
        """Return the indices (B, n) of vectors (B, n, D), equal to those of ``forward``, without codebook updates."""
        with torch.autocast(z.device.type, enabled=False):
            return self._quantize(z.float(), frozen=True)[1].long()

    def dequantize(self, indices: Tensor) -> Tensor:
        """Convert indices (B, n) to quantized vectors (B, n, D).

        Raises:
            InputError: if they are not integers or (checked on the CPU only) lie outside the codebook.
        """
        check_indices(indices, self.codebook_size)
        with torch.autocast(indices.device.type, enabled=False):
            return self._vectors(indices)

    def _quantize(self, vectors: Tensor, frozen: bool = False) -> tuple[Tensor, Tensor, Tensor]:
        """Quantize vectors (B, n, D) to vectors (B, n, D), indices (B, n) and a loss ()."""
        raise NotImplementedError

    def _vectors(self, indices: Tensor) -> Tensor:
        """Look up the vectors (B, n, D) of indices (B, n)."""
        raise NotImplementedError


class VectorQuantizer(LibraryQuantizer):
    """Learned codebook: each code is the moving average of the vectors nearest to it, kept in buffers.

    The first training batch initializes it (k-means). A code with less than ``DEAD`` of the mean number of vectors is
    replaced by a vector of the batch. Several processes keep one codebook over the vectors of all; for this, create
    the quantizer after the process group.
    """

    DECAY = 0.99
    DEAD = 1 / 8  # fraction of the mean number of vectors per code
    COMMITMENT = 0.25  # weight of the commitment loss, which draws vectors to their codes

    def __init__(self, levels: list[int], dim: int):
        from loguru import logger
        from vector_quantize_pytorch import VectorQuantize

        # The library warns if the first batch has fewer vectors than there are codes, which is harmless.
        logger.disable("vector_quantize_pytorch")
        super().__init__()
        self.codebook_size = prod(levels)
        self.library = VectorQuantize(
            dim,
            self.codebook_size,
            decay=self.DECAY,
            kmeans_init=True,
            threshold_ema_dead_code=self.DEAD,
            commitment_weight=self.COMMITMENT,
            sync_codebook=world_size() > 1,
        )

    def _quantize(self, vectors: Tensor, frozen: bool = False) -> tuple[Tensor, Tensor, Tensor]:
        codebook = self.library._codebook
        if (frozen or not self.training) and not codebook.initted:
            raise InputError("this vq_ema tokenizer has no codebook yet; train it for at least one step")
        # The library's threshold is a number of vectors, independent of the sizes of batch and codebook.
        codebook.threshold_ema_dead_code = codebook.reset_cluster_size = self.DEAD * codebook.cluster_size.mean().item()
        return self.library(vectors, freeze_codebook=frozen)

    def _vectors(self, indices: Tensor) -> Tensor:
        return self.library.get_output_from_indices(indices)


class LookupFree(LibraryQuantizer):
    """Signs of K projections, scaled to unit length: a token is K bits.

    The loss favours confident bits and, more strongly, equally frequent codes. Without the scaling, or with equal
    weights, all vectors soon get the same code. Each process computes the loss of its own vectors; the gradients are
    averaged.
    """

    DIVERSITY = 3.0  # weight of equally frequent codes relative to confident bits
    # Inverse temperature of the code probabilities. At the library's default of 100 most bits are confident from the
    # start.
    INVERSE_TEMPERATURE = 10.0

    def __init__(self, levels: list[int], dim: int):
        from vector_quantize_pytorch import LFQ

        if set(levels) != {2}:
            raise InputError(f"levels are {levels} and quantizer lfq has two per dimension; give one 2 for each bit")
        super().__init__()
        self.codebook_size = 2 ** len(levels)
        # Version 1.32 divides the code frequencies by the number of processes without summing them, which divides the
        # gradient of their entropy by the same number.
        diversity = self.DIVERSITY * world_size()
        self.library = LFQ(dim=dim, codebook_size=self.codebook_size, spherical=True, diversity_gamma=diversity)

    def _quantize(self, vectors: Tensor, frozen: bool = False) -> tuple[Tensor, Tensor, Tensor]:
        return self.library(vectors, inv_temperature=self.INVERSE_TEMPERATURE)

    def _vectors(self, indices: Tensor) -> Tensor:
        return self.library.indices_to_codes(indices)


class ResidualFSQ(LibraryQuantizer):
    """Several FSQ in sequence, each on a finer grid; their indices are the digits of one token.

    The index of the first quantizer varies fastest.
    """

    basis: Tensor

    def __init__(self, levels: list[int], dim: int, residuals: int):
        from vector_quantize_pytorch import ResidualFSQ

        self.codebook_size = prod(levels) ** residuals
        if self.codebook_size > torch.iinfo(torch.int64).max:
            raise InputError(
                f"levels {levels} with residuals {residuals} make more codes than a token can name (2**63); give fewer"
            )
        super().__init__()
        with torch.device("cpu"):  # its __init__ reads values, which the meta device does not have
            self.library = ResidualFSQ(levels=levels, dim=dim, num_quantizers=residuals)
        basis = torch.tensor([prod(levels) ** place for place in range(residuals)])
        self.register_buffer("basis", basis, persistent=False)

    def _quantize(self, vectors: Tensor, frozen: bool = False) -> tuple[Tensor, Tensor, Tensor]:
        quantized, digits = self.library(vectors)  # (B, n, D), (B, n, residuals)
        return quantized, (digits * self.basis).sum(dim=-1), vectors.new_zeros(())

    def _vectors(self, indices: Tensor) -> Tensor:
        digits = indices[..., None] // self.basis % self.library.codebook_size  # (B, n, residuals)
        return self.library.get_output_from_indices(digits)


def build_quantizer(name: str, levels: Sequence[int], dim: int, residuals: int) -> FSQ | LibraryQuantizer:
    """Create the quantizer of vectors (..., dim) that a config selects.

    Raises:
        InputError: if the quantizer cannot have these levels.
    """
    levels = validated_levels(levels)
    if name == "fsq":
        return FSQ(levels, dim=dim)
    if prod(levels) > MAX_LIBRARY_CODES:
        raise InputError(
            f"levels {levels} make {prod(levels)} codes and {name} can have {MAX_LIBRARY_CODES}; "
            "give fewer, or quantizer: fsq"
        )
    if name == "rfsq":
        return ResidualFSQ(levels, dim, residuals)
    return VectorQuantizer(levels, dim) if name == "vq_ema" else LookupFree(levels, dim)
