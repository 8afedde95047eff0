"""Sequences of sentences: continuity of the motion and prompt following of its second part.

    python -m benchmarks.sequences --checkpoint checkpoints/demo --seeds 16

At a seam, the speed of the fastest joint from the last frame of one part to the first of the next is compared with the
99th percentile of the speed of the fastest joint inside the parts. Prompt following is measured on the second part.
"""

import utils.interrupt  # noqa: F401

# isort: split

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jsonargparse.typing import PositiveInt

from models.pipeline import TextToMotion
from motion.measures import speed
from motion.resample import FPS
from motion.skeleton import JOINT_INDEX
from utils.config import parse_options
from utils.errors import exit_on_input_error


@dataclass
class Options:
    """Options of the benchmark."""

    checkpoint: Path = Path("checkpoints/demo")
    """Folder of a text-to-motion model."""
    seeds: PositiveInt = 16
    """Number of motions per sequence."""


def wrist_above_pelvis(joints: np.ndarray, side: str) -> float:
    """Return the greatest height in metres of a wrist above the pelvis."""
    return float((joints[:, JOINT_INDEX[f"{side}_wrist"], 1] - joints[:, 0, 1]).max())


def lifts_both(joints: np.ndarray) -> bool:
    return min(wrist_above_pelvis(joints, side) for side in ("left", "right")) > 0.35


def lifts_right(joints: np.ndarray) -> bool:
    return wrist_above_pelvis(joints, "right") > 0.35 and wrist_above_pelvis(joints, "left") < 0.25


SEQUENCES: list[tuple[list[str], str, Callable[[np.ndarray], bool]]] = [
    (["a person walks forward", "a person waves with both hands"], "lifts both wrists", lifts_both),
    (["a person runs forward", "a person raises the right hand"], "lifts the right wrist", lifts_right),
    (["a person waves with the left hand", "a person walks forward"], "0.8 to 1.7 m/s", lambda j: 0.8 < speed(j) < 1.7),
    (
        ["a person runs forward", "a person walks like an elderly person"],
        "below 1.3 m/s",
        lambda j: speed(j) < 1.3,
    ),
]


def main(options: Options) -> None:
    model = TextToMotion.from_pretrained(options.checkpoint)
    print(f"{model.checkpoint_id}, {options.seeds} seeds per sequence\n")
    print("| first | then | criterion | share | seams below the 99th percentile | seam, m/s | 99th percentile, m/s |")
    print("|---|---|---|---|---|---|---|")
    for sentences, meaning, rule in SEQUENCES:
        follows, seams, usual = [], [], []
        for seed in range(options.seeds):
            chunks = list(model.stream(sentences, seed))
            joints = np.concatenate([chunk.joints for chunk in chunks])  # (T, 22, 3)
            first = sum(len(chunk.joints) for chunk in chunks if chunk.part == 0)
            fastest = np.linalg.norm(np.diff(joints, axis=0), axis=-1).max(axis=1) * FPS  # (T - 1)
            seams.append(fastest[first - 1])
            usual.append(np.quantile(np.delete(fastest, first - 1), 0.99))
            follows.append(rule(joints[first:]))
        below = np.mean(np.array(seams) <= usual)
        print(
            f"| {sentences[0]} | {sentences[1]} | {meaning} | {100 * np.mean(follows):.0f} % | {100 * below:.0f} % "
            f"| {np.mean(seams):.2f} | {np.mean(usual):.2f} |"
        )


if __name__ == "__main__":
    with exit_on_input_error():
        main(parse_options(Options, __doc__)[0])
