"""Convert motion into a data folder for train_vq.py and train_t2m.py (layout: dataset/motion_folder.py).

    python prepare_data.py downloads/AMASS      # prints the data set and the command that converts it
    python prepare_data.py amass --source downloads/AMASS --out data/amass --humanml3d downloads/HumanML3D
    python prepare_data.py bvh --source mocap/ --out data/mine --captions captions.csv
    python prepare_data.py synthetic --out data/synthetic --count 200

Features are at 30 frames per second. Splits are those of the data set; where it has none, a clip is assigned to train,
val or test by the hash of its name, so the split is the same on every machine. A run that was stopped or killed is
resumed by the same command. report.json in the data folder lists every file that was left out, with the reason.
"""

import utils.interrupt  # noqa: F401

# isort: split

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jsonargparse.typing import NonNegativeInt, PositiveInt
from tqdm import tqdm

from dataset.conversion_report import ClipReport, add_report, finish_folder
from dataset.converting import ConvertOptions, Plan, convert_source, prepared_clip, write_clip
from dataset.motion_folder import SPLITS, Statistics, split_of
from dataset.packing import pack
from dataset.recognize import recognize
from dataset.sources import amass, bvh, humanml3d, motionx
from dataset.staging import staged_folder
from dataset.synthetic import synthetic_clips
from utils.config import parse_command
from utils.errors import InputError, exit_on_input_error, shown

SOURCES: dict[str, tuple[type[ConvertOptions], Callable[[Any], Plan]]] = {
    "humanml3d": (humanml3d.HumanMl3dOptions, humanml3d.plan),
    "kit": (humanml3d.KitOptions, humanml3d.plan),
    "amass": (amass.AmassOptions, amass.plan),
    "motionx": (motionx.MotionXOptions, motionx.plan),
    "bvh": (bvh.BvhOptions, bvh.plan),
}


@dataclass
class SyntheticOptions:
    """Write procedural motion (walk, run, turn, jump, squat, wave, ...) for tests and for a first try without data."""

    out: Path
    """Data folder to write."""
    count: PositiveInt = 200
    """Number of clips."""
    seed: NonNegativeInt = 0
    """Seed of the clips; the same seed gives the same clips."""


@dataclass
class PackOptions:
    """Pack the motions of a data folder into .tar files, so that training opens a few large files."""

    source: Path
    """Data folder in any layout that the trainings read, with one file per motion."""
    out: Path
    """Data folder to write."""


def synthetic(options: SyntheticOptions) -> None:
    """Write procedural clips into a data folder.

    Raises:
        InputError: the data folder cannot be written, or there is no training clip among the clips.
    """
    splits: dict[str, list[str]] = {split: [] for split in SPLITS}
    reports: list[ClipReport] = []
    statistics = Statistics()
    with staged_folder(options.out) as staging:
        with tqdm(synthetic_clips(options.count, options.seed), total=options.count, unit="clip") as clips:
            for clip in clips:
                reports.append(write_clip(staging.path, prepared_clip(*clip)))
                splits[split_of(clip.name)].append(clip.name)
                if split_of(clip.name) == "train":
                    add_report(statistics, reports[-1], staging.path)
        summary = finish_folder(staging, reports, splits, statistics)
    print(f"{options.out}: {summary}")


def describe(folder: Path) -> None:
    """Print the data set in a folder and the commands for it.

    Raises:
        InputError: it is no folder, or holds none of the known data sets.
    """
    print(f"{shown(folder, 200)} holds {recognize(folder)}")


def main() -> None:
    commands: dict[str, type] = {name: kind for name, (kind, _) in SOURCES.items()}
    commands |= {"synthetic": SyntheticOptions, "pack": PackOptions}
    first, *others = sys.argv[1:] or [""]
    if not others and (os.path.isdir(first) or os.sep in first):
        describe(Path(first))
        return
    if first not in commands and os.path.exists(first):
        raise InputError(f"{shown(first, 200)} is no command; give a folder alone, or a command and --source")
    options = parse_command(commands, __doc__ or "")
    if isinstance(options, SyntheticOptions):
        synthetic(options)
        return
    if isinstance(options, PackOptions):
        print(f"{options.out}: {pack(options.source, options.out)} motions packed")
        return
    plan = next(plan for kind, plan in SOURCES.values() if kind is type(options))
    convert_source(plan(options), options)


if __name__ == "__main__":
    with exit_on_input_error():
        main()
