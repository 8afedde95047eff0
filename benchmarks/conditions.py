"""Conditions of prompts on recorded motion: how often they hold for recordings of the action, and for all others.

    python -m benchmarks.conditions --source mocap

Recordings of an action are found by their names (configs/prompts/recordings.yaml). A recording of another action may
show the same action as well: dances hold kicks and jumps, and walks in any style are walks.
"""

import utils.interrupt  # noqa: F401

# isort: split

import fnmatch
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from evaluation.prompts import read_suite
from evaluation.quantities import Performance
from formats.clip import read_clip
from motion.features272 import recover_joints_fk
from utils.config import parse_options
from utils.errors import InputError, exit_on_input_error, shown
from utils.reading.texts import read_yaml


@dataclass
class Options:
    """Options of the benchmark."""

    source: Path
    """Folder with .bvh files; subfolders are included."""
    prompts: Path = Path("configs/prompts/actions.yaml")
    """YAML file of prompts with conditions."""
    recordings: Path = Path("configs/prompts/recordings.yaml")
    """YAML file with patterns of the names of the recordings per prompt."""


def main(options: Options) -> None:
    files = sorted(file for file in options.source.rglob("*") if file.suffix.lower() == ".bvh")
    names = {str(file.relative_to(options.source).with_suffix("")): file for file in files}
    joints = {name: read_joints(file) for name, file in tqdm(names.items(), unit="file")}
    clips = {name: Performance.of(clip) for name, clip in joints.items() if clip is not None}
    patterns = read_recordings(options.recordings)
    print("| prompt | recordings of it | others |\n|---|---|---|")
    for case in read_suite(options.prompts):
        if case.plain is not None or case.prompt not in patterns:
            continue
        own = {name for name in clips if any(fnmatch.fnmatch(name, pattern) for pattern in patterns[case.prompt])}
        passed = {
            name
            for name, motion in clips.items()
            if all(condition.holds(condition.value(motion)) for condition in case.conditions if not condition.other)
        }
        print(f"| {case.prompt} | {len(passed & own)} of {len(own)} | {len(passed - own)} of {len(clips) - len(own)} |")


def read_joints(file: Path) -> np.ndarray | None:
    """Return the joints (T, 22, 3) of a recording, or None, with the reason on the standard error."""
    try:
        return recover_joints_fk(read_clip(file).features().astype(np.float64))
    except InputError as error:
        print(error, file=sys.stderr)
        return None


def read_recordings(path: Path) -> dict[str, list[str]]:
    """Return the patterns of names of recordings per prompt.

    Raises:
        InputError: the file cannot be read or has another form.
    """
    content = read_yaml(path)
    if not isinstance(content, dict) or not all(
        isinstance(row, list) and all(isinstance(pattern, str) for pattern in row) for row in content.values()
    ):
        raise InputError(f"{shown(path, 200)} is not a table of prompts, each with a list of patterns")
    return content


if __name__ == "__main__":
    with exit_on_input_error():
        main(parse_options(Options, __doc__)[0])
