"""Measure the import of BVH files: files rejected, by reason, and the speed of reading, retargeting and checking.

python -m benchmarks.retarget --source mocap
"""

import utils.interrupt  # noqa: F401

# isort: split

import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from formats.motion_import import import_motion
from formats.skeleton_map import SkeletonMap
from motion.resample import FPS
from utils.config import parse_options
from utils.errors import InputError, exit_on_input_error


@dataclass
class Options:
    """Options of the measurement."""

    source: Path
    """Folder with .bvh files; subfolders are included."""
    skeleton: Path | None = None
    """YAML file that names the joints of the files; by default they are found by name and geometry."""


def main(options: Options) -> None:
    files = sorted(path for path in options.source.rglob("*") if path.suffix.lower() == ".bvh")
    if not files:
        raise InputError(f"{options.source} contains no .bvh file; check --source")
    skeleton = SkeletonMap.from_yaml(options.skeleton) if options.skeleton else None
    reasons: Counter[str] = Counter()
    frames, started = 0, time.perf_counter()
    for file in tqdm(files, unit="file"):
        try:
            frames += len(import_motion(file, FPS, skeleton).rotations)
        except InputError as error:
            reasons[str(error).removeprefix(f"{file}: ")] += 1
    seconds = time.perf_counter() - started
    print(f"{len(files)} files, {sum(reasons.values())} rejected")
    for reason, count in reasons.most_common():
        print(f"{count} x {reason}")
    print(
        f"{frames / FPS:.0f} s of motion in {seconds:.1f} s: {frames / FPS / seconds:.0f} times real time, one process"
    )


if __name__ == "__main__":
    with exit_on_input_error():
        main(parse_options(Options, __doc__)[0])
