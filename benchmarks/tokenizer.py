"""Measure the reconstruction error of a tokenizer on the whole clips of a split.

    python -m benchmarks.tokenizer --tokenizer checkpoints/demo/tokenizer --data data/bandai

Errors are in millimetres. Root-aligned errors are without the pelvis' ground position and the heading of every frame.
Global errors compare joints in the world, where the errors of the root's steps and turns add up over the clip.
"""

import utils.interrupt  # noqa: F401

# isort: split

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from dataset.motion_folder import MotionFolder
from models.fsq import codebook_usage
from models.motion_vqvae import HumanVQVAE
from models.reconstruction import reconstruct, reconstruction_error
from motion.features272 import recover_joints_fk
from motion.measures import foot_slide, jerk
from utils.config import parse_options
from utils.errors import exit_on_input_error


@dataclass
class Options:
    """Options of the measurement."""

    data: Path
    """Data folder."""
    tokenizer: Path = Path("checkpoints/demo/tokenizer")
    """Folder of the tokenizer."""
    split: str = "test"
    """Split of the data to measure on."""


def main(options: Options) -> None:
    motions = MotionFolder(options.data).motions(options.split)
    tokenizer = HumanVQVAE.from_pretrained(options.tokenizer)
    results, slides, jerks = [], [], []
    for row in tqdm(range(len(motions)), unit="clip", mininterval=2):
        features = motions.features(motions[row])
        results.append(reconstruction_error(tokenizer, features))
        decoded = reconstruct(tokenizer, features)[1].numpy()
        joints = [recover_joints_fk(part) for part in (features[: len(decoded)], decoded)]
        slides.append([foot_slide(part) for part in joints])
        jerks.append([jerk(part) for part in joints])

    print(f"{len(motions)} clips of the split {options.split}, {tokenizer.codebook_size} codes")
    for name, label in (
        ("local_mm", "root-aligned, joints from rotations"),
        ("local_positions_mm", "root-aligned, position block"),
        ("global_mm", "global, joints from rotations"),
    ):
        values = np.array([getattr(result, name) for result in results])
        mean, median, p90 = values.mean(), np.median(values), np.quantile(values, 0.9)
        print(f"{label:36} mean {mean:6.1f}  median {median:6.1f}  p90 {p90:6.1f} mm")
    turning = [result for result in results if abs(result.turn) > 45]
    if turning:
        errors = np.array([result.turn_error for result in turning])
        print(
            f"turn of the {len(turning)} clips that turn more than 45 degrees: mean error {np.abs(errors).mean():.1f}, "
            f"largest {np.abs(errors).max():.1f} degrees"
        )
    tokens = torch.from_numpy(np.concatenate([result.tokens for result in results]))
    perplexity, active = (float(value) for value in codebook_usage(tokens, tokenizer.codebook_size))
    used = round(active * tokenizer.codebook_size)
    print(f"codes used {used} of {tokenizer.codebook_size}, perplexity {perplexity:.0f}")
    slides, jerks = np.mean(slides, axis=0), np.mean(jerks, axis=0)
    print(
        f"foot slide {100 * slides[1]:.1f} cm/s (real {100 * slides[0]:.1f}), jerk {jerks[1] / jerks[0]:.2f} times real"
    )


if __name__ == "__main__":
    with exit_on_input_error():
        main(parse_options(Options, __doc__)[0])
