"""The plan printed by ``train_t2m.py --plan``: cost of a training run, from its options and the headers of the data."""

from dataclasses import dataclass

import numpy as np

from dataset.motion_folder import MotionFolder
from models.llama_config import LLaMAConfig
from models.optimize import weight_bytes
from models.quantize import INT4_WIDTH
from motion.resample import FPS
from training.costs import (
    ENGINES,
    MicroBatch,
    ParameterCount,
    count_flops,
    count_parameters,
    estimate_memory,
    scamo_optimum,
    scamo_optimum_for_tokens,
    text_share,
    training_days,
)
from training.options import PlanOptions
from utils.errors import InputError

GPUS = (1, 2, 4, 8, 16, 32, 64)
TOKENS_PER_PARAMETER = 20  # Hoffmann et al., "Training Compute-Optimal Large Language Models" (2022), for language


@dataclass
class DataSize:
    """Size of the training data."""

    clips: int
    frames: int
    frames_per_token: int
    rows: int
    """Rows per epoch: one per clip and frame at which a token may start, and one per joined row of the clip."""
    tokens: int
    """Tokens of all rows, cut to the model's longest row, without ends and without the context of joined rows."""


def count_data(folder: MotionFolder, frames_per_token: int, max_tokens: int, joined: int) -> DataSize:
    """Count the training data from the headers of its files.

    Args:
        max_tokens: Longest row of the model.
        joined: Joined rows per clip.

    Raises:
        InputError: the data folder has another layout, its split is missing, or no clip is as long as a token.
    """
    frames = folder.clips("train").frames  # (clips,)
    starts = np.array([*range(frames_per_token), *[0] * joined])
    lengths = (frames[:, None] - starts) // frames_per_token  # (clips, rows per clip)
    if not (lengths > 0).any():
        raise InputError(
            f"no training clip of {folder.path} has the {frames_per_token} frames of a token; prepare longer clips"
        )
    return DataSize(
        clips=len(frames),
        frames=int(frames.sum()),
        frames_per_token=frames_per_token,
        rows=int((lengths > 0).sum()),
        tokens=int(lengths.clip(0, max_tokens).sum()),
    )


@dataclass
class PlannedRun:
    """Settings of the run that its cost depends on."""

    batch_size: int
    """Rows per step."""
    steps: int
    accumulate: int
    """Micro-batches per process and step."""
    ema: bool
    """Whether an EMA of the weights is kept."""
    precision: str
    """Arithmetic: "bf16" or "float32"."""
    optimizer: str
    """"adamw", or "muon", which needs DDP."""


def describe_plan(options: PlanOptions, config: LLaMAConfig, data: DataSize, run: PlannedRun) -> str:
    """Describe the model, the data, the run, its memory and days per number of GPUs, and the scaling law."""
    count = count_parameters(config)
    text = config.text_length if options.plan_text is None else min(options.plan_text, config.text_length)
    row = MicroBatch(1, text, data.tokens / data.rows)
    rows = run.batch_size * run.steps
    tokens, flops = rows * row.targets, rows * count_flops(config, row)
    sizes = [f"{weight_bytes(config, name) / 1e9:.2f} in {name}" for name in ("float32", "bf16", "int8", "int4")]
    lines = [
        f"model: {count.total / 1e6:,.1f} M parameters, {count.core / 1e6:,.1f} M without embedding and head",
        f"FLOPs per token: {count_flops(config, row) / row.targets / 1e9:,.3f} G, forward and backward, in rows of "
        f"{row.tokens:.0f} tokens after {text} text features"
        f"{'' if options.plan_text is not None else ' (the maximum; see --plan-text)'}; "
        f"{text_share(config, row):.0%} is due to the text",
        f"data: {data.clips:,} training clips, {data.frames / FPS / 3600:,.2f} hours, "
        f"{data.frames // data.frames_per_token:,} tokens; "
        f"an epoch has {data.rows:,} rows from all start frames, {data.tokens:,} tokens",
        f"run: {run.steps:,} steps of {run.batch_size:,} rows, {rows / data.rows:,.1f} epochs, "
        f"{tokens / 1e6:,.1f} M tokens, {flops:.2g} FLOPs",
        f"weights of the trained model in GB: {', '.join(sizes)} (int4 pads inputs to a multiple of {INT4_WIDTH:,})",
        "",
        "Memory per GPU in GB, with all activations kept / recomputed, and days at "
        f"{options.plan_utilisation:.0%} of {options.plan_tflops:,.0f} TFLOPS, {run.precision}:",
        f"| GPUs | rows per GPU and micro-batch | {' | '.join(ENGINES)} | days |",
        "|---|---|---|---|---|---|",
        *(_gpu_row(options, config, run, gpus, flops) for gpus in GPUS),
    ]
    return "\n".join([*lines, "", *size_hints(count, tokens)])


def _gpu_row(options: PlanOptions, config: LLaMAConfig, run: PlannedRun, gpus: int, flops: float) -> str:
    """Return the table row of a number of GPUs."""
    rows, remainder = divmod(run.batch_size, gpus * run.accumulate)
    if remainder:
        return f"| {gpus} | {run.batch_size} rows cannot be divided evenly |"
    batch = MicroBatch(rows, config.text_length, config.max_tokens)
    settings = {"ema": run.ema, "accumulate": run.accumulate, "precision": run.precision}
    cells = [memory_cell(config, batch, engine, gpus, run.optimizer, **settings) for engine in ENGINES]
    days = training_days(flops, gpus, options.plan_tflops, options.plan_utilisation)
    return f"| {gpus} | {rows} | {' | '.join(cells)} | {days:,.2f} |"


def memory_cell(
    config: LLaMAConfig, batch: MicroBatch, engine: str, gpus: int, optimizer: str = "adamw", **settings
) -> str:
    """Return the peak memory in GB with activations kept, and recomputed; settings are those of ``estimate_memory``."""
    if engine != "DDP" and (gpus == 1 or optimizer == "muon"):
        return "-"
    peaks = (
        estimate_memory(config, batch, engine, gpus, recompute=recompute, optimizer=optimizer, **settings).peak
        for recompute in (False, True)
    )
    return " / ".join(f"{peak / 1e9:,.1f}" for peak in peaks)


def size_hints(count: ParameterCount, tokens: float) -> list[str]:
    """Compare a model and its number of training tokens with the scaling laws for motion and for language."""
    flops = 6 * (count.core + count.embedding) * tokens
    hints = ["Optimal size by the scaling law of ScaMo (Lu et al., CVPR 2025; constants from public summaries of it):"]
    for budget, best in (
        (f"for the compute of this run, 6 N D = {flops:.2g} FLOPs", scamo_optimum(flops)),
        (f"for the {tokens / 1e6:,.1f} M tokens of this run", scamo_optimum_for_tokens(tokens)),
    ):
        beyond = "; an extrapolation: the law was tested at 1e18 FLOPs" if best.flops > 1e18 else ""
        hints.append(
            f"- {budget}: {best.core / 1e6:,.0f} M parameters besides {best.vocabulary / 1e6:,.1f} M of the vocabulary "
            f"({best.size}), {best.tokens / 1e6:,.1f} M tokens{beyond}"
        )
    return [
        *hints,
        f"- this model: {count.core / 1e6:,.0f} M parameters besides {count.embedding / 1e6:,.1f} M of the vocabulary",
        f"By the rule for language models, {TOKENS_PER_PARAMETER} tokens per parameter (Hoffmann et al., 2022): "
        f"{tokens / TOKENS_PER_PARAMETER / 1e6:,.1f} M parameters for these tokens, "
        f"{count.total * TOKENS_PER_PARAMETER / 1e6:,.0f} M tokens for this model",
    ]
