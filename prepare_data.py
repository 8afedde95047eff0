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
from pathlib import Path
from typing import Any

from dataset.options import (
    AmassOptions,
    BvhOptions,
    HumanMl3dOptions,
    KitOptions,
    MotionXOptions,
    PackOptions,
    SyntheticOptions,
)
from utils.config import parse_command
from utils.errors import InputError, exit_on_input_error, shown

COMMANDS: dict[str, type] = {
    "humanml3d": HumanMl3dOptions,
    "kit": KitOptions,
    "amass": AmassOptions,
    "motionx": MotionXOptions,
    "bvh": BvhOptions,
    "synthetic": SyntheticOptions,
    "pack": PackOptions,
}


def read_arguments(arguments: list[str]) -> Any:
    """Return the options of the command of a command line, or the folder that is given in place of a command."""
    first, *others = arguments or [""]
    if not others and (os.path.isdir(first) or Path(first).name != first):
        return Path(first)
    if first not in COMMANDS and os.path.exists(first):
        raise InputError(f"{shown(first, 200)} is no command; give a folder alone, or a command and --source")
    return parse_command(COMMANDS, __doc__ or "", arguments)


if __name__ == "__main__":  # --help and invalid options end here, before the slow imports
    with exit_on_input_error():
        OPTIONS = read_arguments(sys.argv[1:])

from collections.abc import Callable

from tqdm import tqdm

from dataset.conversion_report import ClipReport, add_report, finish_folder
from dataset.converting import Plan, convert_source, prepared_clip, write_clip
from dataset.motion_folder import Statistics
from dataset.packing import pack
from dataset.recognize import recognize
from dataset.sources import amass, bvh, humanml3d, motionx
from dataset.splits import SPLITS, split_of
from dataset.staging import staged_folder
from dataset.synthetic import synthetic_clips

PLANS: dict[type, Callable[[Any], Plan]] = {
    HumanMl3dOptions: humanml3d.plan,
    KitOptions: humanml3d.plan,
    AmassOptions: amass.plan,
    MotionXOptions: motionx.plan,
    BvhOptions: bvh.plan,
}


def main(options: Any) -> None:
    """Run a command, or print the data set in a folder and the commands for it.

    Args:
        options: Options of the command, or the folder.

    Raises:
        InputError: the source cannot be used, or the data folder cannot be written.
    """
    if isinstance(options, Path):
        print(f"{shown(options, 200)} holds {recognize(options)}")
    elif isinstance(options, SyntheticOptions):
        synthetic(options)
    elif isinstance(options, PackOptions):
        print(f"{options.out}: {pack(options.source, options.out)} motions packed")
    else:
        convert_source(PLANS[type(options)](options), options)


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


if __name__ == "__main__":
    with exit_on_input_error():
        main(OPTIONS)
