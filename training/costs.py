"""What a training of the generator will take, by arithmetic alone: parameters, FLOPs, memory a GPU, days, best size.

Sources: FLOPs as in Kaplan et al., "Scaling Laws for Neural Language Models" (2020), and Chowdhery et al., "PaLM"
(2022, appendix B): two for a multiplication with addition, the backward pass twice the forward, nothing for what is
computed again. Memory of the model's states as in Rajbhandari et al., "ZeRO" (2020). Optimal sizes: see ``scamo``.
Activations are those of models/llama.py, counted in bytes that autograd keeps.
"""

import math
from dataclasses import dataclass

from models.head_loss import ROWS
from models.llama import SIZES, LLaMAConfig

ENGINES = ("DDP", "ZeRO-2", "FSDP")
FLOAT = 4  # bytes: master weights, gradients, both moments, average
BYTES = {"bf16": 2, "float32": 4}  # of what the blocks compute in
DEEPSPEED_BUCKET = 500_000_000  # gradients reduced at a time: DeepSpeed's default


@dataclass
class Parameters:
    """How many parameters a LLaMAHF has, by kind."""

    block: int
    """Weights of the linear layers of one block."""
    blocks: int
    """Number of blocks."""
    norms: int
    """Scales of all norms."""
    projection: int
    """Weights of the projection of the text; its bias is not among them."""
    bias: int
    """Of the projection."""
    embedding: int
    """The token embedding."""
    head: int
    """The output matrix; 0 where it is the embedding."""

    @property
    def total(self) -> int:
        return self.core + self.embedding + self.head

    @property
    def core(self) -> int:
        """All but embedding and head: what a size is named after, and N_nv of the scaling law."""
        return self.blocks * self.block + self.norms + self.projection + self.bias

    @property
    def linear(self) -> int:
        """Weights of linear layers, the head among them."""
        return self.blocks * self.block + self.projection + self.head

    @property
    def root(self) -> int:
        """All outside the blocks."""
        return self.total - self.blocks * (self.block + 2 * self.bias)  # two norms a block, as wide as the bias


def parameters(config: LLaMAConfig) -> Parameters:
    width = config.n_embd
    return Parameters(
        block=4 * width**2 + 3 * width * config.mlp_hidden,
        blocks=config.n_layer,
        norms=(2 * config.n_layer + 1) * width,
        projection=config.text_dim * width,
        bias=width,
        embedding=config.vocab_size * width,
        head=0 if config.tie_weights else outputs(config) * width,
    )


def outputs(config: LLaMAConfig) -> int:
    """Width of the head."""
    return config.vocab_size - (not config.tie_weights)


@dataclass
class MicroBatch:
    """What goes through the model at once on one GPU: rows of equally many text features and motion tokens."""

    rows: int
    text: float
    tokens: float

    @property
    def columns(self) -> float:
        """Of a row."""
        return self.text + self.tokens

    @property
    def targets(self) -> float:
        """Of all rows: each motion token and the end."""
        return self.rows * (self.tokens + 1)


def flops(config: LLaMAConfig, load: MicroBatch) -> float:
    """FLOPs of the model for one forward and backward pass over ``load``.

    Attention counts every pair of columns: the mask is dense, nothing of it is skipped.
    """
    width, columns = config.n_embd, load.columns
    attention = 4 * columns**2 * width  # a row and block: q times k, and the weights times v
    blocks = load.rows * config.n_layer * (2 * columns * parameters(config).block + attention)
    head = 2 * load.targets * width * outputs(config)
    projection = 2 * load.rows * load.text * config.text_dim * width  # backward once: the text needs no gradient
    return 3 * (blocks + head) + 2 * projection


def text_share(config: LLaMAConfig, load: MicroBatch) -> float:
    """The share of the FLOPs that would not be there without the text."""
    return 1 - flops(config, MicroBatch(load.rows, 0, load.tokens)) / flops(config, load)


@dataclass
class Memory:
    """Bytes on one GPU; ``peak`` is the most that is there at once."""

    weights: float
    """Master weights in float32, and what the engine holds of them besides."""
    moments: float
    """Of AdamW."""
    average: float
    """Of the weights."""
    gradients: float
    """At the end of the backward pass, with the engine's buffers for them."""
    held: float
    """Of the gradients and buffers, what is there when the backward pass begins."""
    copies: float
    """Weights that autocast has turned into bfloat16."""
    activations: float
    """Kept for the backward pass by the blocks and around them."""
    head: float
    """What the output layer makes along with the loss: logits of some positions at a time, its own gradient."""

    @property
    def peak(self) -> float:
        """When the loss is there, all activations are; when the backward pass ends, all gradients are."""
        states = self.weights + self.moments + self.average
        return states + max(self.held + self.copies + self.activations + self.head, self.gradients)


def memory(
    config: LLaMAConfig,
    load: MicroBatch,
    engine: str = "DDP",
    gpus: int = 1,
    *,
    average: bool = True,
    accumulate: int = 1,
    recompute: bool = False,
    precision: str = "bf16",
) -> Memory:
    """Memory of one GPU in training, without that of the text encoder, of CUDA and NCCL, and of fragmentation.

    Args:
        load: One micro-batch of one GPU, at its longest.
        engine: One of ``ENGINES``. DDP of one GPU is the plain training. ZeRO-2 has all weights on each GPU, and its
            own copy of those that it updates. FSDP shards all, block by block.
        average: Whether there is an average of the weights. accumulate: Micro-batches a step.
        recompute: Activations of a block are computed again in the backward pass.
    """
    count, size = parameters(config), BYTES[precision]
    total = count.total
    activations = activation_bytes(config, load, recompute, precision)
    matrix, bf16 = outputs(config) * config.n_embd, precision == "bf16"
    head = 2 * size * min(ROWS, load.targets) * outputs(config) + (size * (1 + bf16) + FLOAT) * matrix
    copies = size * (count.linear - count.head) if bf16 else 0
    if engine == "DDP":
        return Memory(
            weights=FLOAT * total,
            moments=2 * FLOAT * total,
            average=FLOAT * total * average,
            gradients=FLOAT * total,
            held=FLOAT * total * (accumulate > 1 or gpus > 1),  # the buckets that they are exchanged in stay
            copies=copies,
            activations=activations,
            head=head,
        )
    if engine == "ZeRO-2":
        bucket = FLOAT * min(total, DEEPSPEED_BUCKET)
        return Memory(
            weights=FLOAT * total * (1 + 1 / gpus),
            moments=2 * FLOAT * total / gpus,
            average=FLOAT * total * average,
            gradients=FLOAT * total / gpus + bucket,
            held=FLOAT * total / gpus * (accumulate > 1) + bucket,
            copies=copies,
            activations=activations,
            head=head,
        )
    whole = size * (count.root + 2 * count.block)  # what is outside the blocks, a block, and the next one on its way
    return Memory(
        weights=FLOAT * total / gpus + whole,
        moments=2 * FLOAT * total / gpus,
        average=FLOAT * total * average / gpus,
        gradients=FLOAT * total / gpus + (size + FLOAT) * count.root,  # whole as computed, and in float32 to be reduced
        held=FLOAT * total / gpus * (accumulate > 1),
        copies=0,
        activations=activations,
        head=head,
    )


def activation_bytes(config: LLaMAConfig, load: MicroBatch, recompute: bool, precision: str) -> float:
    """What autograd keeps of a forward pass but for the output layer's gradient, as PyTorch does it on a CPU.

    A GPU keeps a little less: its RMSNorm is one kernel, and its dropout keeps a byte.
    """
    width, size, columns = config.n_embd, BYTES[precision], load.rows * load.columns
    dropped = config.dropout > 0
    block = (
        4 * FLOAT * width  # what both norms take in, and the same normalised
        + (3 if precision == "bf16" else 2) * size * width  # what goes into c_attn, c_fc1 and c_fc2
        + 6 * size * width  # q, k and v as computed, q and k rotated, what attention gives
        + 4 * size * config.mlp_hidden  # both halves of the SwiGLU, its gate, their product
        + 2 * dropped * size * width
        + size * load.columns  # the mask, as numbers
        + FLOAT * (config.n_head + 2)  # log-sums of the softmax, both norms' scales
    )
    around = (2 + dropped) * FLOAT * width + 2 * FLOAT * config.head_dim  # embedding, last norm, rotary angles
    hidden = size * load.targets * width
    kept = FLOAT * width * config.n_layer + block if recompute else block * config.n_layer
    return columns * (kept + around) + hidden


@dataclass
class Optimum:
    """What a scaling law takes for the best use of compute."""

    flops: float
    """C."""
    core: float
    """N_nv: parameters but for the vocabulary's."""
    vocabulary: float
    """N_v: parameters of the vocabulary."""
    tokens: float
    """D: tokens seen in training."""

    @property
    def size(self) -> str:
        """In words: the size of the table with the nearest number of parameters, if one is within a factor of two."""
        nearest = min(SIZES, key=lambda name: abs(math.log(named_core(name) / self.core)))
        ratio = self.core / named_core(nearest)
        return f"{'far beyond' if ratio > 2 else 'far below' if ratio < 0.5 else 'nearest size'} {nearest}"


def named_core(size: str) -> int:
    """Parameters of the blocks of a size of the table."""
    return parameters(LLaMAConfig(1, 1, "", 1, 1, **SIZES[size])).core


def scamo(flops: float) -> Optimum:
    """The law of ScaMo (Lu et al., CVPR 2025, equations 11 to 13) for a compute budget.

    N_v = 10^-5.29 C^0.75, N_nv = 10^-0.52 C^0.57, D = 10^-0.05 C^0.43: fitted with 44M to 3B parameters and 2^8 to
    2^16 codes on 260 hours of motion, and tested by its authors at C = 10^18, where they took 3B and 2^16 codes. The
    exponents are given with two digits, which leaves a quarter up or down at 10^18. Beyond, it is an extrapolation.
    The constants were taken from two public summaries of the paper that agree, not from the paper itself.
    """
    return Optimum(flops, 10**-0.52 * flops**0.57, 10**-5.29 * flops**0.75, 10**-0.05 * flops**0.43)


def scamo_for_tokens(tokens: float) -> Optimum:
    """The same law for a number of tokens that training is to see."""
    return scamo((tokens * 10**0.05) ** (1 / 0.43))


def days(flops: float, gpus: int, tflops: float, utilisation: float) -> float:
    return flops / (gpus * tflops * 1e12 * utilisation) / 86400
