"""Prompt following: each prompt is generated with many seeds and the motions are checked by a rule.

    python -m benchmarks.prompt_following --checkpoint checkpoints/demo --seeds 32

Prints a Markdown table with the share of motions that meet the rule and the share required of the shipped checkpoint.
"""

import utils.interrupt  # noqa: F401

# isort: split

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from jsonargparse.typing import PositiveInt

from models.pipeline import DEFAULT_SAMPLING, Motion, TextToMotion
from models.sampling import resolve_guidance
from motion.features272 import LAYOUT
from motion.measures import speed, total_turn
from motion.resample import FPS
from motion.skeleton import JOINT_INDEX
from utils.config import parse_options
from utils.device import PRECISIONS
from utils.errors import exit_on_input_error


@dataclass
class Options:
    """Options of the benchmark."""

    checkpoint: Path = Path("checkpoints/demo")
    """Folder of a text-to-motion model."""
    seeds: PositiveInt = 32
    """Number of motions per prompt."""
    guidance: float | None = DEFAULT_SAMPLING.guidance
    """Scale of classifier-free guidance; by default 2, or 1 for a model trained without text dropout."""
    temperature: float = DEFAULT_SAMPLING.temperature
    """Temperature of sampling; 0 selects the most likely token (greedy)."""
    dtype: Literal["float32", "bf16"] = "float32"
    """Precision of the generator."""
    quantize: Literal["none", "int8"] = "none"
    """Precision of the generator's linear layers; int8 goes with bf16."""


def forward_speed(motion: Motion) -> float:
    """Return the mean speed along the facing direction in metres per second; backward is negative."""
    return float(motion.features[1:, LAYOUT["root_velocity"]][:, 1].mean() * FPS)


def sideways_speed(motion: Motion) -> float:
    return float(motion.features[1:, LAYOUT["root_velocity"]][:, 0].mean() * FPS)


def turn(motion: Motion) -> float:
    """Return the degrees from the first to the last heading; left is positive."""
    return total_turn(torch.from_numpy(motion.features))


def lift(motion: Motion, side: str) -> float:
    """Return the metres by which a wrist rises above its first height, relative to the pelvis."""
    height = motion.joints[:, JOINT_INDEX[f"{side}_wrist"], 1] - motion.joints[:, 0, 1]
    return float(height.max() - height[0])


def walks(motion: Motion) -> bool:
    return 0.8 <= forward_speed(motion) <= 1.7 and abs(sideways_speed(motion)) < 0.3 * forward_speed(motion)


def raises(side: str) -> Callable[[Motion], bool]:
    other = {"left": "right", "right": "left"}[side]
    return lambda motion: lift(motion, side) > 0.35 and lift(motion, other) < 0.2


RULES: list[tuple[str, str, Callable[[Motion], bool], float]] = [
    ("a person walks forward", "forward at 0.8 to 1.7 m/s", walks, 0.9),
    ("a person runs forward", "forward faster than 1.8 m/s", lambda motion: forward_speed(motion) > 1.8, 0.9),
    (
        "a person walks and turns left",
        "ends turned left by more than 45 degrees",
        lambda motion: turn(motion) > 45,
        0.85,
    ),
    (
        "a person walks and turns right",
        "ends turned right by more than 45 degrees",
        lambda motion: turn(motion) < -45,
        0.85,
    ),
    ("a person raises the right hand", "right wrist up by 35 cm, left by less than 20", raises("right"), 0.9),
    ("a person raises the left hand", "left wrist up by 35 cm, right by less than 20", raises("left"), 0.9),
]
ELDERLY, ENERGETIC = "a person walks like an elderly person", "a person walks energetically"


def main(options: Options) -> None:
    model = TextToMotion.from_pretrained(options.checkpoint, dtype=PRECISIONS[options.dtype], quantize=options.quantize)
    sampling = replace(DEFAULT_SAMPLING, guidance=options.guidance, temperature=options.temperature)
    sampling = resolve_guidance(model.generator, sampling)

    def motions_of(prompt: str) -> list[Motion]:
        return model.generate([prompt] * options.seeds, list(range(options.seeds)), sampling)

    print(
        f"{model.checkpoint_id}, {options.dtype}, {options.seeds} seeds per prompt, "
        f"temperature {sampling.temperature}, top-p {sampling.top_p}, guidance {sampling.guidance}\n"
    )
    print("| prompt | criterion | share | required |\n|---|---|---|---|")
    for prompt, meaning, rule, bar in RULES:
        share = np.mean([rule(motion) for motion in motions_of(prompt)])
        print(f"| {prompt} | {meaning} | {100 * share:.0f} % | {100 * bar:.0f} % |")
    slow, fast = (np.mean([speed(motion.joints) for motion in motions_of(prompt)]) for prompt in (ELDERLY, ENERGETIC))
    print(f"| {ELDERLY} / {ENERGETIC} | mean speed | {slow:.2f} / {fast:.2f} m/s | first slower |")


if __name__ == "__main__":
    with exit_on_input_error():
        main(parse_options(Options, __doc__)[0])
