"""Cost of training the generator, by arithmetic: parameters, FLOPs, memory per GPU, days, and the optimal model size.

Sources: FLOPs as in Kaplan et al., "Scaling Laws for Neural Language Models" (2020), and Chowdhery et al., "PaLM"
(2022, appendix B): two per multiply-add, a backward pass of twice the forward pass, none for recomputed activations.
Memory of weights, gradients and optimizer as in Rajbhandari et al., "ZeRO" (2020). Optimal sizes: see
``scamo_optimum``. Activations are those of models/llama.py, in bytes kept by autograd.
"""

import math
from dataclasses import dataclass
from typing import Any

from models.head_loss import ROWS
from models.llama_config import SIZES, LLaMAConfig
from models.llama_layers import stored_width
from utils.device import PRECISIONS

ENGINES = ("DDP", "ZeRO-2", "FSDP")
FLOAT = 4  # bytes: master weights, gradients, both moments, EMA
BYTES = {"bf16": 2, "float32": 4}  # of a value in the arithmetic of the blocks
DEEPSPEED_BUCKET = 500_000_000  # gradients reduced at a time: DeepSpeed's default


@dataclass
class ParameterCount:
    """Number of parameters of a LLaMAHF, by kind."""

    block: int
    """Weights of the linear layers of one block."""
    blocks: int
    """Number of blocks."""
    norms: int
    """Scales of all norms."""
    projection: int
    """Weights of the text projection, without its bias."""
    bias: int
    """Bias of the text projection."""
    embedding: int
    """Token embedding."""
    head: int
    """Output matrix; 0 if it is tied to the embedding."""
    control: int
    """Projection of the control signals."""

    @property
    def total(self) -> int:
        return self.core + self.embedding + self.head

    @property
    def core(self) -> int:
        """All but embedding and head: the number that sizes are named after, and N_nv of the scaling law."""
        return self.blocks * self.block + self.norms + self.projection + self.bias + self.control

    @property
    def linear(self) -> int:
        """Weights of all linear layers, including the head."""
        return self.blocks * self.block + self.projection + self.control + self.head

    @property
    def root(self) -> int:
        """All but the linear layers of the blocks."""
        return self.total - self.blocks * self.block


def count_parameters(config: LLaMAConfig) -> ParameterCount:
    """Count the parameters of a model."""
    width = config.n_embd
    return ParameterCount(
        block=4 * width**2 + 3 * width * config.mlp_hidden,
        blocks=config.n_layer,
        norms=(2 * config.n_layer + 1) * width,
        projection=config.text_dim * width,
        bias=width,
        embedding=config.vocab_size * width,
        head=0 if config.tie_weights else head_width(config) * width,
        control=(2 * config.control + 8 * width + 4) * width if config.control else 0,
    )


def muon_moments(config: LLaMAConfig) -> float:
    """Return the bytes of the moments of Muon: one per hidden weight matrix, and two per other parameter, by AdamW."""
    count = count_parameters(config)
    control_biases = 4 * config.n_embd if config.control else 0
    matrices = count.blocks * count.block + count.projection + count.control - control_biases
    return FLOAT * (2 * count.total - matrices)


def head_width(config: LLaMAConfig) -> int:
    """Return the number of outputs of the head."""
    return config.vocab_size - (not config.tie_weights)


@dataclass
class MicroBatch:
    """Batch that one GPU processes at once: rows with equal numbers of text features and motion tokens."""

    rows: int
    text: float
    """Text features per row."""
    tokens: float
    """Motion tokens per row."""

    @property
    def columns(self) -> float:
        """Length of a row."""
        return self.text + self.tokens

    @property
    def targets(self) -> float:
        """Predictions in all rows: each motion token and the end."""
        return self.rows * (self.tokens + 1)


def count_flops(config: LLaMAConfig, batch: MicroBatch) -> float:
    """Count the FLOPs of the model for one forward and backward pass.

    Attention counts every pair of columns: the mask is dense, so nothing is skipped.
    """
    width, columns = config.n_embd, batch.columns
    attention = 4 * columns**2 * width  # per row and block: queries times keys, and weights times values
    blocks = batch.rows * config.n_layer * (2 * columns * count_parameters(config).block + attention)
    head = 2 * batch.targets * width * head_width(config)
    projection = 2 * batch.rows * batch.text * config.text_dim * width  # its input needs no gradient
    return 3 * (blocks + head) + 2 * projection


def text_share(config: LLaMAConfig, batch: MicroBatch) -> float:
    """Return the fraction of the FLOPs that is due to the text."""
    return 1 - count_flops(config, MicroBatch(batch.rows, 0, batch.tokens)) / count_flops(config, batch)


@dataclass
class Memory:
    """Memory of one GPU in bytes."""

    weights: float
    """Master weights in float32, and the engine's own copies of them."""
    moments: float
    """Moments of the optimizer."""
    ema: float
    """EMA of the weights."""
    gradients: float
    """Gradients at the end of the backward pass, including the engine's buffers for them."""
    held_gradients: float
    """Gradients and buffers that exist when the backward pass begins."""
    copies: float
    """bfloat16 copies of the weights, made by autocast."""
    activations: float
    """Activations of the blocks and around them that are kept for the backward pass."""
    head: float
    """Output layer and loss: logits of some positions at a time, and the gradient of the output matrix."""

    @property
    def peak(self) -> float:
        """Maximum over the step: either all activations exist (at the loss), or all gradients (after the backward)."""
        states = self.weights + self.moments + self.ema
        return states + max(self.held_gradients + self.copies + self.activations + self.head, self.gradients)


def estimate_memory(
    config: LLaMAConfig,
    batch: MicroBatch,
    engine: str = "DDP",
    gpus: int = 1,
    *,
    ema: bool = True,
    accumulate: int = 1,
    recompute: bool = False,
    precision: str = "bf16",
    optimizer: str = "adamw",
) -> Memory:
    """Estimate the memory of one GPU in training, without the text encoder, CUDA, NCCL and fragmentation.

    Args:
        batch: One micro-batch of one GPU, at its longest.
        engine: One of ``ENGINES``. DDP on one GPU is plain training. ZeRO-2 keeps all weights on each GPU, and a second
            copy of those that the GPU updates. FSDP shards everything, and gathers the linear layers of the blocks one
            by one in the precision of the arithmetic, the rest at once in float32.
        ema: Whether an EMA of the weights is kept.
        accumulate: Micro-batches per step.
        recompute: Whether the activations of a block are recomputed in the backward pass.
        precision: Arithmetic of the blocks, "bf16" or "float32".
        optimizer: "adamw", or "muon", which needs DDP.
    """
    count, size = count_parameters(config), BYTES[precision]
    total = float(FLOAT * count.total)  # bytes of one float32 value per parameter
    matrix, bf16 = head_width(config) * config.n_embd, precision == "bf16"
    head = 2 * size * min(ROWS, batch.targets) * head_width(config) + (size * (1 + bf16) + FLOAT) * matrix
    weights, average = total, total * ema
    moments = muon_moments(config) if optimizer == "muon" else 2 * total
    copies = size * (count.linear - count.head) * bf16
    if engine == "DDP":
        gradients = total
        held = total * (accumulate > 1 or gpus > 1)  # the buckets that gradients are exchanged in persist
    elif engine == "ZeRO-2":
        bucket = FLOAT * min(count.total, DEEPSPEED_BUCKET)
        weights, moments = total * (1 + 1 / gpus), 2 * total / gpus
        gradients = total / gpus + bucket
        held = total / gpus * (accumulate > 1) + bucket
    else:
        unsharded = FLOAT * count.root + size * count.block  # a layer of a block, and the next, being prefetched
        weights, moments, average = total / gpus + unsharded, 2 * total / gpus, total * ema / gpus
        copies = size * (count.projection + count.control) * bf16
        gradients = total / gpus + 2 * FLOAT * count.root  # as computed, and to be reduced
        held = total / gpus * (accumulate > 1)
    return Memory(
        weights=weights,
        moments=moments,
        ema=average,
        gradients=gradients,
        held_gradients=held,
        copies=copies,
        activations=activation_bytes(config, batch, recompute, precision),
        head=head,
    )


def activation_bytes(config: LLaMAConfig, batch: MicroBatch, recompute: bool, precision: str) -> float:
    """Return the bytes that autograd keeps from a forward pass on a CPU, without the output layer's gradient.

    A GPU keeps slightly less: its RMSNorm is a single kernel, and its dropout keeps one byte per value.
    """
    width, size, columns = config.n_embd, BYTES[precision], batch.rows * batch.columns
    has_dropout = config.dropout > 0
    heads = config.n_head * stored_width(config.head_dim, PRECISIONS[precision], "cuda")  # their width in attention
    block = (
        4 * FLOAT * width  # inputs of both norms, and their normalised values
        + (3 if precision == "bf16" else 2) * size * width  # inputs of c_attn, c_fc1 and c_fc2
        + 4 * size * heads  # rotated q, k and v, output of attention
        + 4 * size * config.mlp_hidden  # both halves of the SwiGLU, its gate, their product
        + 2 * has_dropout * size * width
        + size * batch.columns  # the mask, as numbers
        + FLOAT * (config.n_head + 2)  # log-sums of the softmax, scales of both norms
    )
    around = (2 + has_dropout) * FLOAT * width + 6 * FLOAT * config.head_dim  # embedding, last norm, rotary factors
    hidden = size * batch.targets * width
    kept = FLOAT * width * config.n_layer + block if recompute else block * config.n_layer
    return columns * (kept + around) + hidden


@dataclass
class Optimum:
    """Best use of a compute budget by a scaling law."""

    flops: float
    """Compute budget, C."""
    core: float
    """Parameters without embedding and head, N_nv."""
    vocabulary: float
    """Parameters of the vocabulary, N_v."""
    tokens: float
    """Tokens seen in training, D."""

    @property
    def size(self) -> str:
        """The nearest size in the size table, and whether the optimum is far (a factor of two) from it."""
        nearest = min(SIZES, key=lambda name: abs(math.log(core_parameters(name) / self.core)))
        ratio = self.core / core_parameters(nearest)
        return f"{'far beyond' if ratio > 2 else 'far below' if ratio < 0.5 else 'nearest size'} {nearest}"


def core_parameters(size: str) -> int:
    """Return the number of parameters that a name in the size table stands for: those of the blocks."""
    shape: dict[str, Any] = dict(SIZES[size])
    return count_parameters(LLaMAConfig(1, 1, "", 1, 1, **shape)).core


def scamo_optimum(flops: float) -> Optimum:
    """Apply the scaling law of ScaMo (Lu et al., CVPR 2025, equations 11 to 13) to a compute budget.

    N_v = 10^-5.29 C^0.75, N_nv = 10^-0.52 C^0.57, D = 10^-0.05 C^0.43. The law was fitted with 44M to 3B parameters and
    2^8 to 2^16 codes on 260 hours of motion, and tested by its authors at C = 10^18 with 3B and 2^16 codes. The
    exponents have two digits, which leaves an uncertainty of about 25 % at 10^18. Larger budgets are extrapolations.
    The constants were taken from two public summaries of the paper that agree, not from the paper itself.
    """
    return Optimum(flops, 10**-0.52 * flops**0.57, 10**-5.29 * flops**0.75, 10**-0.05 * flops**0.43)


def scamo_optimum_for_tokens(tokens: float) -> Optimum:
    """Apply the same law to a number of tokens seen in training."""
    return scamo_optimum((tokens * 10**0.05) ** (1 / 0.43))


def training_days(flops: float, gpus: int, tflops: float, utilisation: float) -> float:
    """Return the days that ``flops`` take on ``gpus`` of ``tflops`` each, at a model FLOPs utilisation in 0..1."""
    return flops / (gpus * tflops * 1e12 * utilisation) / 86400
