"""Measure the time and the memory of the metrics on embeddings of many pairs.

python -m benchmarks.metrics --pairs 10000 --width 512
"""

import utils.interrupt  # noqa: F401

# isort: split

import resource
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from jsonargparse.typing import PositiveInt

from evaluation.options import REPEATS
from evaluation.protocol import measure
from evaluation.reconstruction import reconstruction
from evaluation.retrieval import retrieve, similarity
from evaluation.text_motion import MOTIUS, T2M, Embeddings, compare
from motion.skeleton import JOINTS
from utils.config import parse_options
from utils.errors import exit_on_input_error


@dataclass
class Options:
    """Options of the measurement."""

    pairs: PositiveInt = 10_000
    """Number of pairs of caption and motion; at least 32."""
    width: PositiveInt = 512
    """Width of the embeddings."""
    clips: PositiveInt = 500
    """Number of clips of 200 frames for the reconstruction errors."""


def main(options: Options) -> None:
    random = np.random.default_rng(0)
    texts = random.normal(size=(options.pairs, options.width)).astype(np.float32)
    real, generated = (texts + random.normal(size=texts.shape).astype(np.float32) for _ in range(2))
    embeddings = Embeddings(texts, real, generated)
    joints = random.normal(size=(2, options.clips, 200, JOINTS, 3)).astype(np.float32)
    print(f"{options.pairs:,} pairs, {options.width} dimensions, {torch.get_num_threads()} threads\n")
    print("| metrics | time | CPU time | peak memory so far |\n|---|---|---|---|")
    for label, run in (
        ("T2M: R-precision, MM-Dist, FID, Diversity of both rows", lambda: compare(
            embeddings, T2M, T2M.draw(T2M.random(0), options.pairs, 32))),
        ("Motius: the same with normalized FID", lambda: compare(
            embeddings, MOTIUS, MOTIUS.draw(MOTIUS.random(0), options.pairs, 32))),
        (f"T2M, {REPEATS} repeats", lambda: measure([embeddings] * REPEATS)),
        (f"reconstruction errors of {options.clips:,} clips of 200 frames", lambda: reconstruction(
            list(joints[0]), list(joints[1]))),
        ("TMR: retrieval among all pairs", lambda: retrieve(similarity(texts, real))),
    ):  # fmt: skip
        seconds, cpu_seconds = times(run)
        print(f"| {label} | {seconds:.1f} s | {cpu_seconds:.1f} s | {peak_memory():.1f} GB |", flush=True)


def times(run: Callable[[], object]) -> tuple[float, float]:
    """Return the seconds that a function takes, on the clock and of all processor cores."""
    started = time.perf_counter(), time.process_time()
    run()
    return time.perf_counter() - started[0], time.process_time() - started[1]


def peak_memory() -> float:
    """Return the largest resident size of this process so far, in GB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6


if __name__ == "__main__":
    with exit_on_input_error():
        main(parse_options(Options, __doc__)[0])
