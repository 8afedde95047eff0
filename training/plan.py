"""The plan of a training: what ``train_t2m.py --plan`` prints, from the options and the headers of the data's files."""

from dataclasses import dataclass

import numpy as np
from jsonargparse.typing import NonNegativeInt, PositiveFloat, restricted_number_type
from tqdm import tqdm

from dataset.motion_folder import MotionFolder
from models.llama import LLaMAConfig
from motion.resample import FPS
from training.costs import (
    ENGINES,
    MicroBatch,
    Parameters,
    days,
    flops,
    memory,
    parameters,
    scamo,
    scamo_for_tokens,
    text_share,
)
from utils.errors import InputError

GPUS = (1, 2, 4, 8, 16, 32, 64)
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
    row = MicroBatch(1, shown, usual)
    seen = batch_size * steps
    tokens, total = seen * row.targets, seen * flops(config, row)
    hours = data.frames / FPS / 3600
    lines = [
        f"model: {count.total / 1e6:,.1f} M parameters, {count.core / 1e6:,.1f} M without embedding and head",
        f"FLOPs a token: {flops(config, row) / row.targets / 1e9:,.3f} G, forward and backward, in rows of {usual:.0f} "
        f"tokens after {shown} text features{'' if options.plan_text is not None else ' (the most; see --plan_text)'}, "
        f"to which {text_share(config, row):.0%} are due",
        f"data: {data.clips:,} training clips, {hours:,.2f} hours, {data.frames // stride:,} tokens; "
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
        load = MicroBatch(rows, text, config.max_tokens)
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
            f"({best.size}), {best.tokens / 1e6:,.1f} M tokens{beyond}"
        )
    return [
        *hints,
        f"- this model has {count.core / 1e6:,.0f} M besides {vocabulary / 1e6:,.1f} M of the vocabulary",
        f"By the rule for language models, {TOKENS_A_PARAMETER} tokens a parameter (Hoffmann et al., 2022): "
        f"{tokens / TOKENS_A_PARAMETER / 1e6:,.1f} M parameters for these tokens, "
        f"{count.total * TOKENS_A_PARAMETER / 1e6:,.0f} M tokens for this model",
    ]


def memory_cell(config: LLaMAConfig, load: MicroBatch, engine: str, gpus: int, **settings) -> str:
    """The peak in GB, activations kept and computed again."""
    if engine != "DDP" and gpus == 1:
        return "-"
    peaks = (memory(config, load, engine, gpus, recompute=recompute, **settings).peak for recompute in (False, True))
    return " / ".join(f"{peak / 1e9:,.1f}" for peak in peaks)
