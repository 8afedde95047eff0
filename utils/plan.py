"""What a training of the generator will take, by arithmetic alone: parameters, FLOPs, memory a GPU, days, best size.

Sources: FLOPs as in Kaplan et al., "Scaling Laws for Neural Language Models" (2020), and Chowdhery et al., "PaLM"
(2022, appendix B): two for a multiplication with addition, the backward pass twice the forward, nothing for what is
computed again. Memory of the model's states as in Rajbhandari et al., "ZeRO" (2020). Optimal sizes: see ``scamo``.
Activations are those of models/llama.py, counted in bytes that autograd keeps.
"""

import math
from dataclasses import dataclass

import numpy as np
from jsonargparse.typing import NonNegativeInt, PositiveFloat, restricted_number_type
from tqdm import tqdm

from dataset.motion_folder import MotionFolder
from models.llama import SIZES, LLaMAConfig
from utils.errors import InputError

GPUS = (1, 2, 4, 8, 16, 32, 64)
ENGINES = ("DDP", "ZeRO-2", "FSDP")
FLOAT = 4  # bytes: master weights, gradients, both moments, average, logits
BYTES = {"bf16": 2, "float32": 4}  # of what the blocks compute in
DEEPSPEED_BUCKET = 500_000_000  # gradients reduced at a time: DeepSpeed's default
TOKENS_A_PARAMETER = 20  # Hoffmann et al., "Training Compute-Optimal Large Language Models" (2022): text, not motion

Utilisation = restricted_number_type("Utilisation", float, [(">", 0), ("<=", 1)])


@dataclass(kw_only=True)
class PlanOptions:
    """Options of the plan.

    Attributes:
        plan: Print what the training would take, and end.
        plan_tflops: Peak of one GPU, in 10^12 FLOPs a second; 989 is an H100 SXM's in dense bf16 by its data sheet.
        plan_utilisation: Share of the peak that the training is assumed to reach, counted in FLOPs of the model.
        plan_text: Text features of a usual caption; by default the most that the encoder gives.
    """

    plan: bool = False
    plan_tflops: PositiveFloat = 989.0
    plan_utilisation: Utilisation = 0.4
    plan_text: NonNegativeInt | None = None


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
class Load:
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


def flops(config: LLaMAConfig, load: Load) -> float:
    """FLOPs of the model for one forward and backward pass over ``load``.

    Attention counts every pair of columns: the mask is dense, nothing of it is skipped.
    """
    width, columns = config.n_embd, load.columns
    attention = 4 * columns**2 * width  # a row and block: q times k, and the weights times v
    blocks = load.rows * config.n_layer * (2 * columns * parameters(config).block + attention)
    head = 2 * load.targets * width * outputs(config)
    projection = 2 * load.rows * load.text * config.text_dim * width  # backward once: the text needs no gradient
    return 3 * (blocks + head) + 2 * projection


def text_share(config: LLaMAConfig, load: Load) -> float:
    """The share of the FLOPs that would not be there without the text."""
    return 1 - flops(config, Load(load.rows, 0, load.tokens)) / flops(config, load)


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
    logits: float
    """Log-probabilities of the targets and two gradients of that size, when the backward pass begins."""

    @property
    def peak(self) -> float:
        """When the backward pass begins, all activations and logits are there; when it ends, all gradients are."""
        states = self.weights + self.moments + self.average
        return states + max(self.held + self.copies + self.activations + self.logits, self.gradients)


def memory(
    config: LLaMAConfig,
    load: Load,
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
            own copy of those that it updates; it keeps no average. FSDP shards all, block by block.
        average: Whether there is an average of the weights. accumulate: Micro-batches a step.
        recompute: Activations of a block are computed again in the backward pass.
    """
    count, size = parameters(config), BYTES[precision]
    total = count.total
    activations = activation_bytes(config, load, recompute, precision)
    logits = 3 * FLOAT * load.targets * outputs(config)
    copies = size * count.linear if precision == "bf16" else 0
    if engine == "DDP":
        buckets = FLOAT * total if gpus > 1 else 0  # a second copy of the gradients, for the exchange
        return Memory(
            weights=FLOAT * total,
            moments=2 * FLOAT * total,
            average=FLOAT * total * average,
            gradients=FLOAT * total + buckets,
            held=buckets + FLOAT * total * (accumulate > 1),
            copies=copies,
            activations=activations,
            logits=logits,
        )
    if engine == "ZeRO-2":
        bucket = FLOAT * min(total, DEEPSPEED_BUCKET)
        return Memory(
            weights=FLOAT * total * (1 + 1 / gpus),
            moments=2 * FLOAT * total / gpus,
            average=0,
            gradients=FLOAT * total / gpus + bucket,
            held=FLOAT * total / gpus * (accumulate > 1) + bucket,
            copies=copies,
            activations=activations,
            logits=logits,
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
        logits=logits,
    )


def activation_bytes(config: LLaMAConfig, load: Load, recompute: bool, precision: str) -> float:
    """What autograd keeps of a forward pass but for the logits, as PyTorch does it on a CPU.

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
        """The size of the table with the nearest number of parameters."""
        return min(SIZES, key=lambda name: abs(math.log(named_core(name) / self.core)))


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


def memory_cell(config: LLaMAConfig, load: Load, engine: str, gpus: int, **settings) -> str:
    """The peak in GB, activations kept and computed again."""
    if engine != "DDP" and gpus == 1:
        return "-"
    peaks = (memory(config, load, engine, gpus, recompute=recompute, **settings).peak for recompute in (False, True))
    return " / ".join(f"{peak / 1e9:,.1f}" for peak in peaks)


@dataclass
class Data:
    """What an epoch holds."""

    clips: int
    frames: int
    rows: int
    """A clip is in it once for each frame that a token may start at, and as often as it is joined to another."""
    tokens: int
    """Of all rows, cut to the longest row of the model; the ends and what comes before a joined clip not counted."""


def count_data(folder: MotionFolder, stride: int, max_tokens: int, joined: int) -> Data:
    """Count the training clips by the headers of their files.

    Raises:
        InputError: the folder is none of ours, its split is missing, or no clip is as long as a token.
    """
    ids = folder.ids("train")
    frames = np.array([folder.frames(name) for name in tqdm(ids, desc="counting frames", unit="clip", delay=2)])
    starts = np.array([*range(stride), *[0] * joined])
    lengths = (frames[:, None] - starts) // stride  # (clips, rows of each)
    if not (lengths > 0).any():
        raise InputError(f"no training clip of {folder.path} has the {stride} frames of a token; prepare longer ones")
    return Data(len(ids), int(frames.sum()), int((lengths > 0).sum()), int(lengths.clip(0, max_tokens).sum()))


def plan(
    options: PlanOptions,
    config: LLaMAConfig,
    data: Data,
    stride: int,
    *,
    batch_size: int,
    steps: int,
    accumulate: int,
    average: bool,
    precision: str,
) -> str:
    """What is printed: of the model, the data, the run, each number of GPUs, and the scaling law."""
    count = parameters(config)
    text, usual = config.text_length, data.tokens / data.rows
    shown = text if options.plan_text is None else min(options.plan_text, text)
    row = Load(1, shown, usual)
    seen = batch_size * steps
    tokens, total = seen * row.targets, seen * flops(config, row)
    lines = [
        f"model: {count.total / 1e6:,.1f} M parameters, {count.core / 1e6:,.1f} M without embedding and head",
        f"FLOPs a token: {flops(config, row) / row.targets / 1e9:,.3f} G, forward and backward, in rows of {usual:.0f} "
        f"tokens after {shown} text features{'' if options.plan_text is not None else ' (the most; see --plan_text)'}, "
        f"to which {text_share(config, row):.0%} are due",
        f"data: {data.clips:,} training clips, {data.frames / 30 / 3600:,.2f} hours, {data.frames // stride:,} tokens; "
        f"an epoch is {data.rows:,} rows from all start frames, {data.tokens:,} tokens",
        f"run: {steps:,} steps of {batch_size:,} rows, {seen / data.rows:,.1f} epochs, {tokens / 1e6:,.1f} M tokens, "
        f"{total:.2g} FLOPs",
        "",
        "Memory of a GPU in GB with all activations kept / computed again, and days at "
        f"{options.plan_utilisation:.0%} of {options.plan_tflops:,.0f} TFLOPS, {precision}:",
        f"| GPUs | rows at once | {' | '.join(ENGINES)} | days |",
        "|---|---|---|---|---|---|",
    ]
    for gpus in GPUS:
        rows, left_over = divmod(batch_size, gpus * accumulate)
        if left_over:
            lines.append(f"| {gpus} | {batch_size} rows do not split evenly |")
            continue
        load = Load(rows, text, config.max_tokens)
        settings = {"average": average, "accumulate": accumulate, "precision": precision}
        cells = [memory_cell(config, load, engine, gpus, **settings) for engine in ENGINES]
        time = days(total, gpus, options.plan_tflops, options.plan_utilisation)
        lines.append(f"| {gpus} | {load.rows} | {' | '.join(cells)} | {time:,.2f} |")
    return "\n".join([*lines, "", *size_hints(count, tokens)])


def size_hints(count: Parameters, tokens: float) -> list[str]:
    """What the scaling law for motion, and the rule for language, say to a model and the tokens it is to see."""
    vocabulary = count.embedding
    spent = 6 * (count.core + vocabulary) * tokens
    hints = ["Best size by the scaling law of ScaMo (Lu et al., CVPR 2025; constants by public summaries of it):"]
    for words, best in (
        (f"for the compute of this run, 6 N D = {spent:.2g} FLOPs", scamo(spent)),
        (f"for the {tokens / 1e6:,.1f} M tokens of this run", scamo_for_tokens(tokens)),
    ):
        beyond = "; an extrapolation, the law was tested at 1e18 FLOPs" if best.flops > 1e18 else ""
        hints.append(
            f"- {words}: {best.core / 1e6:,.0f} M parameters besides {best.vocabulary / 1e6:,.1f} M of the vocabulary "
            f"(nearest size {best.size}), {best.tokens / 1e6:,.1f} M tokens{beyond}"
        )
    return [
        *hints,
        f"- this model has {count.core / 1e6:,.0f} M besides {vocabulary / 1e6:,.1f} M of the vocabulary",
        f"By the rule for language models, {TOKENS_A_PARAMETER} tokens a parameter (Hoffmann et al., 2022): "
        f"{tokens / TOKENS_A_PARAMETER / 1e6:,.1f} M parameters for these tokens, "
        f"{count.total * TOKENS_A_PARAMETER / 1e6:,.0f} M tokens for this model",
    ]
