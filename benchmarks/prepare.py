"""Measure how many times faster than real time ``prepare_data.py amass`` converts motion.

    python -m benchmarks.prepare --work /tmp/prepare --clips 1000

Makes files in the form of AMASS (SMPL+H and SMPL-X in turn; a person records 32 sequences), converts them with the
script, and prints seconds of motion per second of computing: of the whole command, and without the time that the
command takes for one clip per process, which is mostly that of starting. Time in which other programs have the cores
does not count.
"""

import utils.interrupt  # noqa: F401

# isort: split

import resource
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jsonargparse.typing import PositiveFloat, PositiveInt

from dataset.options import CORES
from utils.config import parse_options
from utils.errors import InputError, exit_on_input_error

SEQUENCES = 32  # per person
WIDTHS = {"poses": 156, "stageii": 165}  # of the poses of SMPL+H and SMPL-X


@dataclass
class Options:
    """Options of the measurement."""

    work: Path
    """New folder for the files; removed at the end."""
    clips: PositiveInt = 1000
    """Number of clips."""
    seconds: PositiveFloat = 10.0
    """Length of a clip."""
    fps: PositiveFloat = 120.0
    """Frame rate of the clips."""
    workers: PositiveInt = CORES
    """Number of processes. (default: number of CPU cores)"""

    def __post_init__(self):
        if self.work.exists():
            raise InputError(f"--work {self.work} exists already; give the name of a new folder")


def main(options: Options) -> None:
    options.work.mkdir(parents=True)
    try:
        for number in range(options.clips):
            write_clip(options, number)
        few = max(1, min(options.workers, options.clips // 2))  # a file per worker: starting and finishing
        start = convert(options, options.work / "few", few)
        whole = convert(options, options.work / "data", options.clips)
        motion = options.clips * options.seconds
        print(f"{options.clips} clips of {options.seconds:g} s at {options.fps:g} fps, {options.workers} processes")
        print(f"{'':28}seconds  CPU seconds  times real time per CPU second")
        print(f"whole command              {whole.wall:8.1f}  {whole.cpu:11.1f}  {motion / whole.cpu:10.0f}")
        motion -= few * options.seconds
        wall, cpu = whole.wall - start.wall, max(whole.cpu - start.cpu, 1e-3)
        print(f"without {few:2} clips and start  {wall:8.1f}  {cpu:11.1f}  {motion / cpu:10.0f}")
    finally:
        shutil.rmtree(options.work)


def write_clip(options: Options, number: int) -> None:
    """Write a person who sways while walking, in the form of a file of AMASS."""
    random, person = np.random.default_rng(number), number // SEQUENCES
    suffix = list(WIDTHS)[number % len(WIDTHS)]
    times = np.arange(int(options.seconds * options.fps)) / options.fps
    poses = 0.3 * np.sin(times[:, None] * random.uniform(1, 6, WIDTHS[suffix]) + random.uniform(0, 6, WIDTHS[suffix]))
    poses[:, :3] = (np.pi / 2, 0, 0)
    file = options.work / "source" / f"person_{person}" / f"{number}_{suffix}.npz"
    file.parent.mkdir(parents=True, exist_ok=True)
    np.savez(
        file,
        poses=poses,
        trans=np.stack((0.1 * np.sin(times), times, 1 + 0.02 * np.sin(5 * times)), axis=1),
        betas=np.random.default_rng(person).normal(size=16),
        dmpls=np.zeros((len(times), 8)),
        gender=np.array("female"),
        **{"mocap_framerate" if suffix == "poses" else "mocap_frame_rate": np.array(options.fps)},
    )


class Cost(NamedTuple):
    """Seconds of a command, and those in which its processes were computing."""

    wall: float
    cpu: float


def convert(options: Options, out: Path, clips: int) -> Cost:
    """Convert the first clips."""
    source = options.work / "source"
    if clips < options.clips:
        source = options.work / "few_source"
        for file in sorted((options.work / "source").rglob("*.npz"))[:clips]:
            target = source / file.relative_to(options.work / "source")
            target.parent.mkdir(parents=True, exist_ok=True)
            target.symlink_to(file.resolve())
    command = [sys.executable, "prepare_data.py", "amass", "--source", source, "--out", out]
    command += ["--mirrored", "false", "--val-share", 0, "--test-share", 0, "--workers", options.workers]
    started, before = time.perf_counter(), cpu_of_children()
    subprocess.run(list(map(str, command)), cwd=Path(__file__).parent.parent, check=True, stderr=subprocess.DEVNULL)
    return Cost(time.perf_counter() - started, cpu_of_children() - before)


def cpu_of_children() -> float:
    """Return the seconds in which ended child processes and their children were computing."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    with exit_on_input_error():
        main(parse_options(Options, __doc__ or "")[0])
