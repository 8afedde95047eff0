"""Other quantizers in the place of FSQ, to see what FSQ is good for: ``quantizer`` of VQVAEConfig chooses.

    fsq     finite scalar quantization (models/fsq.py)
    vq_ema  a learned codebook that follows the vectors it wins (van den Oord et al., 2017), with dead codes replaced
    lfq     lookup-free quantization: one bit a dimension and an entropy loss (Yu et al., MAGVIT-v2, 2023), on the unit
            sphere (Zhao et al., Binary Spherical Quantization, 2024)
    rfsq    residual FSQ: each quantizer codes what the one before it left over

The last three come from ``vector-quantize-pytorch`` and have what HumanVQVAE uses of FSQ: ``codebook_size``,
``forward``, ``tokens_of`` and ``dequantize``. One token stands for one vector in all of them.
"""

from collections.abc import Sequence
from math import prod

import torch
from torch import distributed, nn

from models.fsq import FSQ, check_indices, codebook_use, validated_levels
from utils.errors import InputError

QUANTIZERS = ("fsq", "vq_ema", "lfq", "rfsq")
LARGEST_LISTED = 2**18  # codes of a quantizer of the library: it lists them, and vq_ema and lfq look at all each time


def processes() -> int:
    """How many train together."""
    return distributed.get_world_size() if distributed.is_initialized() else 1


def build_quantizer(name: str, levels: Sequence[int], dim: int, residuals: int) -> nn.Module:
    """The quantizer of vectors (..., dim) that a config asks for.

    Raises:
        InputError: the levels make no such quantizer.
    """
    levels = validated_levels(levels)
    if name == "fsq":
        return FSQ(levels, dim=dim)
    if prod(levels) > LARGEST_LISTED:
        raise InputError(
            f"levels {levels} make {prod(levels)} codes and {name} can have {LARGEST_LISTED}; "
            "give fewer, or quantizer: fsq"
        )
    if name == "rfsq":
        return ResidualFSQ(levels, dim, residuals)
    return VectorQuantizer(levels, dim) if name == "vq_ema" else LookupFree(levels, dim)


class LibraryQuantizer(nn.Module):
    """What the quantizers of the library share: FSQ's interface, in float32, on the vectors that are no padding.

    Padding is taken out before the library sees the vectors, because its masks do not reach everything: not the
    indices of LFQ, and nothing of residual FSQ. A subclass has ``library`` and gives ``_quantize``.
    """

    codebook_size: int

    def forward(self, z: torch.Tensor, mask: torch.Tensor | None = None) -> tuple[torch.Tensor, ...]:
        """Quantize with a gradient to ``z``; in training mode a learned codebook moves.

        Args:
            z: (B, n, D). mask: (B, n) of bool, true where a vector is no padding; None means all.

        Returns:
            out (B, n, D), indices (B, n) int64, auxiliary loss (zero outside training), perplexity, active fraction,
            and indices again; out and indices are zero at padding.
        """
        mask = torch.ones(z.shape[:-1], dtype=torch.bool, device=z.device) if mask is None else mask
        with torch.autocast(z.device.type, enabled=False):
            vectors, found, loss = self._quantize(z[mask].float()[None])  # (1, N, D), (1, N), ()
        out, indices = torch.zeros_like(z), torch.zeros_like(mask, dtype=torch.long)
        out[mask], indices[mask] = vectors[0].to(z.dtype), found[0].long()
        perplexity, active = codebook_use(found, self.codebook_size)
        return out, indices, loss, perplexity, active, indices

    def tokens_of(self, z: torch.Tensor) -> torch.Tensor:
        """The indices (B, n) that ``forward`` gives vectors (B, n, D); no codebook moves."""
        with torch.autocast(z.device.type, enabled=False):
            return self._quantize(z.float(), frozen=True)[1].long()

    def dequantize(self, indices: torch.Tensor) -> torch.Tensor:
        """Indices (B, n) to quantized vectors (B, n, D).

        Raises:
            InputError: they are not integers, or (checked on the CPU) lie outside the codebook.
        """
        check_indices(indices, self.codebook_size)
        with torch.autocast(indices.device.type, enabled=False):
            return self._vectors(indices)


class VectorQuantizer(LibraryQuantizer):
    """A codebook of vectors: each is the moving average of the vectors nearest to it; its buffers are its state.

    The first training batch initialises it (k-means), and a code that wins less than an eighth of the mean becomes a
    vector of the batch. On several processes the codebook is that of all their vectors together; for this, build it
    after the process group.
    """

    DECAY = 0.99
    DEAD = 1 / 8  # of the mean number of vectors that a code wins
    COMMITMENT = 0.25  # weight of the loss that draws vectors to their codes

    def __init__(self, levels: list[int], dim: int):
        from loguru import logger
        from vector_quantize_pytorch import VectorQuantize

        logger.disable("vector_quantize_pytorch")  # it warns of a first batch with fewer vectors than codes: no harm
        super().__init__()
        self.codebook_size = prod(levels)
        self.library = VectorQuantize(
            dim,
            self.codebook_size,
            decay=self.DECAY,
            kmeans_init=True,
            threshold_ema_dead_code=self.DEAD,
            commitment_weight=self.COMMITMENT,
            sync_codebook=processes() > 1,
        )

    def _quantize(self, vectors: torch.Tensor, frozen: bool = False) -> tuple[torch.Tensor, ...]:
        codebook = self.library._codebook
        if (frozen or not self.training) and not codebook.initted:
            raise InputError("this vq_ema tokenizer has no codebook yet; train it for at least one step")
        # The library takes the threshold as a number of vectors, whatever the sizes of batch and codebook.
        codebook.threshold_ema_dead_code = codebook.reset_cluster_size = self.DEAD * codebook.cluster_size.mean().item()
        return self.library(vectors, freeze_codebook=frozen)

    def _vectors(self, indices: torch.Tensor) -> torch.Tensor:
        return self.library.get_output_from_indices(indices)


class LookupFree(LibraryQuantizer):
    """The signs of K projections, scaled to unit length: a token is K bits.

    The loss wants sure bits, and all codes equally often; without the scaling, or with both wishes of equal weight, all
    vectors soon have the same code. On several processes each looks at its own vectors, and the gradients are averaged.
    """

    DIVERSITY = 3.0  # weight of the wish for all codes to that for sure bits
    INVERSE_TEMPERATURE = (
        10.0  # of the codes' probabilities: at 100, the library's own, most bits are sure from the start
    )

    def __init__(self, levels: list[int], dim: int):
        from vector_quantize_pytorch import LFQ

        if set(levels) != {2}:
            raise InputError(f"levels are {levels} and quantizer lfq has two a dimension; give 2 as often as bits")
        super().__init__()
        self.codebook_size = 2 ** len(levels)
        # Version 1.32 divides the shares of the codes by the number of processes without having added them up, which
        # makes the gradient of their entropy smaller by as much.
        diversity = self.DIVERSITY * processes()
        self.library = LFQ(dim=dim, codebook_size=self.codebook_size, spherical=True, diversity_gamma=diversity)

    def _quantize(self, vectors: torch.Tensor, frozen: bool = False) -> tuple[torch.Tensor, ...]:
        return self.library(vectors, inv_temperature=self.INVERSE_TEMPERATURE)

    def _vectors(self, indices: torch.Tensor) -> torch.Tensor:
        return self.library.indices_to_codes(indices)


class ResidualFSQ(LibraryQuantizer):
    """Several FSQ one after the other, each on a finer grid; their indices are the digits of one token.

    The first quantizer's index varies fastest.
    """

    def __init__(self, levels: list[int], dim: int, residuals: int):
        from vector_quantize_pytorch import ResidualFSQ

        self.codebook_size = prod(levels) ** residuals
        if self.codebook_size > torch.iinfo(torch.int64).max:
            raise InputError(
                f"levels {levels} with residuals {residuals} make more codes than a token can name (2**63); give fewer"
            )
        super().__init__()
        with torch.device("cpu"):  # it looks at values, which the meta device has none of
            self.library = ResidualFSQ(levels=levels, dim=dim, num_quantizers=residuals)
        basis = torch.tensor([prod(levels) ** place for place in range(residuals)])
        self.register_buffer("basis", basis, persistent=False)

    def _quantize(self, vectors: torch.Tensor, frozen: bool = False) -> tuple[torch.Tensor, ...]:
        quantized, digits = self.library(vectors)  # (B, n, D), (B, n, residuals)
        return quantized, (digits * self.basis).sum(dim=-1), vectors.new_zeros(())

    def _vectors(self, indices: torch.Tensor) -> torch.Tensor:
        digits = indices[..., None] // self.basis % self.library.codebook_size  # (B, n, residuals)
        return self.library.get_output_from_indices(digits)
