"""Measure generation beside other programs: waiting threads that spin take cores from them, and are kept waiting.

    python -m benchmarks.neighbours
    python -m benchmarks.neighbours --neighbours "[0]" --rounds 10    (on a quiet machine: the cost of each setting)

Neighbours are processes that compute all the time. The settings alternate, each in a process of its own, because the
OpenMP library of PyTorch reads its environment once. The table holds the shortest and the longest seconds that the
prompts take, and digests of the tokens: equal ones are of equal motions.
"""

import utils.interrupt  # noqa: F401

# isort: split

import hashlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from utils.config import parse_options
from utils.errors import exit_on_input_error

ALL = {"OMP_NUM_THREADS": str(os.cpu_count())}
SETTINGS: dict[str, dict[str, str]] = {
    "a thread per core, default of OpenMP": ALL | {"GOMP_SPINCOUNT": "300000"},
    "a thread per core, OMP_WAIT_POLICY=PASSIVE": ALL | {"OMP_WAIT_POLICY": "PASSIVE"},
    "a thread per core, GOMP_SPINCOUNT=10000": ALL | {"GOMP_SPINCOUNT": "10000"},
    "a thread per free core, as the scripts have": {},
}


@dataclass
class Options:
    """Options of the measurement."""

    checkpoint: Path = Path("checkpoints/demo")
    """Folder of a text-to-motion model."""
    prompts: Path = Path("assets/demo_prompts.txt")
    """File of prompts."""
    seeds: int = 4
    """Motions per prompt."""
    neighbours: list[int] = field(default_factory=lambda: [0, 1, 2])
    """Numbers of busy neighbours."""
    rounds: int = 3
    """Number of times that each setting is measured."""
    only: bool = False
    """Measure this process with its environment, print the seconds and a digest of the tokens, and exit."""


def main(options: Options) -> None:
    if options.only:
        print(json.dumps(measure(options)))
        return
    seconds: dict[tuple[str, int], list[float]] = {}
    digests: dict[str, set[str]] = {name: set() for name in SETTINGS}
    for count in options.neighbours:
        with busy_neighbours(count):
            for _ in range(options.rounds):
                for name, environment in SETTINGS.items():
                    result = run(options, environment)
                    seconds.setdefault((name, count), []).append(result["seconds"])
                    digests[name].add(result["digest"])
                    print(f"{name}, {count} neighbours: {result}", file=sys.stderr)
    print("| setting |" + "".join(f" {count} neighbours, s |" for count in options.neighbours) + " tokens |")
    print("|---|" + "---|" * (len(options.neighbours) + 1))
    for name in SETTINGS:
        cells = [f"{min(seconds[name, count]):.1f} to {max(seconds[name, count]):.1f}" for count in options.neighbours]
        print(f"| {name} | {' | '.join(cells)} | {' '.join(sorted(digests[name]))} |")


@contextmanager
def busy_neighbours(count: int) -> Iterator[None]:
    """Run ``count`` processes that compute all the time."""
    processes = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


def run(options: Options, environment: dict[str, str]) -> dict:
    """Measure generation in a process with the given environment."""
    names = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY", "OMP_NUM_THREADS")
    clean = {name: value for name, value in os.environ.items() if name not in names}
    files = ("--checkpoint", options.checkpoint, "--prompts", options.prompts, "--seeds", str(options.seeds))
    words = [sys.executable, "-m", "benchmarks.neighbours", "--only", *files]
    printed = subprocess.run(words, env=clean | environment, check=True, capture_output=True, text=True).stdout
    return json.loads(printed.splitlines()[-1])


def measure(options: Options) -> dict:
    """Return the seconds that generation takes in this process, and a digest of the tokens."""
    import torch

    from models.pipeline import TextToMotion
    from utils.device import choose_device
    from utils.prompts import read_prompts

    device, dtype, _ = choose_device("cpu", "auto", training=False)
    model = TextToMotion.from_pretrained(options.checkpoint, device, dtype)
    items = read_prompts(options.prompts, 0, options.seeds)
    model.generate(["a person walks"], [0], seconds=[1.0])
    started = time.perf_counter()
    motions = model.generate([item.prompt for item in items], [item.seed for item in items])
    seconds = time.perf_counter() - started
    digest = hashlib.sha256(b"".join(motion.tokens.tobytes() for motion in motions)).hexdigest()[:6]
    return {"seconds": round(seconds, 2), "threads": torch.get_num_threads(), "digest": digest}


if __name__ == "__main__":
    with exit_on_input_error():
        main(parse_options(Options, __doc__)[0])
