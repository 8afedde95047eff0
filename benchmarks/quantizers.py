"""Compare FSQ with the other quantizers: one tokenizer trained with each on the same data, at similar codebook sizes.

    python -m benchmarks.quantizers --data data/bandai --work runs/quantizers

Each is trained by train_vq.py with the same recipe and seed, and measured on whole clips of the test split.
Trainings in the work folder are resumed; finished ones are only measured again.
"""

import utils.interrupt  # noqa: F401

# isort: split

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from dataset.motion_folder import MotionFolder
from models.fsq import codebook_usage
from models.motion_vqvae import HumanVQVAE
from models.reconstruction import reconstruction_error
from training.state import states
from utils.config import parse_options
from utils.errors import InputError, exit_on_input_error

ROOT = Path(__file__).resolve().parent.parent
# Levels of each quantizer by nominal codebook size. rfsq has two residual quantizers and as many dimensions as FSQ.
LEVELS = {
    "1,000": {"fsq": [8, 5, 5, 5], "vq_ema": [8, 5, 5, 5], "lfq": 10 * [2], "rfsq": [4, 2, 2, 2]},
    "9,600": {"fsq": [8, 8, 6, 5, 5], "vq_ema": [8, 8, 6, 5, 5], "lfq": 13 * [2], "rfsq": [4, 3, 2, 2, 2]},
}


@dataclass
class Options:
    """Options of the comparison."""

    data: Path
    """Data folder."""
    work: Path
    """Folder for the runs."""
    recipe: Path = ROOT / "configs" / "vq" / "quantizers.yaml"
    """Config of train_vq.py; quantizer, levels and residuals are overridden."""


def main(options: Options) -> None:
    motions = MotionFolder(options.data).motions("test")
    clips = [motions.features(clip) for clip in motions]
    print("| quantizer | levels | codes | used in test clips | perplexity | root-aligned | global | time per step |")
    print("|---|---|---|---|---|---|---|---|", flush=True)
    for size, quantizers in LEVELS.items():
        fsq_speed = None
        for quantizer, levels in quantizers.items():
            run = options.work / f"{quantizer}-{size.replace(',', '')}"
            train(options, run, quantizer, levels)
            speed = training_speed(run)
            fsq_speed = fsq_speed or speed
            print(row(quantizer, levels, run, clips, fsq_speed / speed), flush=True)


def train(options: Options, run: Path, quantizer: str, levels: list[int]) -> None:
    """Run train_vq.py, resuming an earlier run.

    Raises:
        InputError: if it fails; its own error has been printed.
    """
    settings = {
        "config": options.recipe,
        "data": options.data,
        "out": run,
        "model.quantizer": quantizer,
        "model.levels": levels,
        "model.residuals": 2,
        "resume": str(bool(states(run / "states"))).lower(),
    }
    command = [sys.executable, str(ROOT / "train_vq.py"), *(f"--{name}={value}" for name, value in settings.items())]
    if subprocess.run(command, stdout=sys.stderr).returncode:
        raise InputError(f"the training of {quantizer} in {run} failed; see the error above")


def training_speed(run: Path) -> float:
    """Return the median of the logged frames per second."""
    board = EventAccumulator(str(run / "tensorboard" / run.name)).Reload()
    tag = next(tag for tag in board.Tags()["scalars"] if tag.endswith("frames_per_second"))
    return float(np.median([event.value for event in board.Scalars(tag)]))


def row(quantizer: str, levels: list[int], run: Path, clips: list[np.ndarray], time_ratio: float) -> str:
    """Return a row of the table: the errors of a trained tokenizer on whole clips (T, 272)."""
    model = HumanVQVAE.from_pretrained(run)
    results = [reconstruction_error(model, clip) for clip in clips]
    tokens = torch.from_numpy(np.concatenate([result.tokens for result in results]))
    perplexity, active = (float(value) for value in codebook_usage(tokens, model.codebook_size))
    local, in_world = (np.mean([getattr(result, name) for result in results]) for name in ("local_mm", "global_mm"))
    return (
        f"| {quantizer} | {levels}{' twice' if quantizer == 'rfsq' else ''} | {model.codebook_size:,} "
        f"| {active * model.codebook_size:,.0f} ({active:.0%}) | {perplexity:,.0f} "
        f"| {local:.1f} mm | {in_world:.0f} mm | {time_ratio:.2f} |"
    )


if __name__ == "__main__":
    with exit_on_input_error():
        main(parse_options(Options, __doc__)[0])
