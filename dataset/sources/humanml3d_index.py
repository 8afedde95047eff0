"""Clips of HumanML3D cut out of AMASS: ``index.csv`` names the file and the frames of each clip.

Its frames are counted as in motion/humanml3d.py.
"""

import csv
import io
import re
from collections.abc import Callable, Iterable
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from dataset.converting import Converted, Cut, Plan, Task
from dataset.splits import SPLITS
from motion.humanml3d import WHOLE, clip_span
from utils.errors import InputError, shown
from utils.reading.files import refusing
from utils.reading.texts import read_lines, read_text

OTHER_NAMES = {  # of data sets in other releases of AMASS, lower case and without _
    "biomotionlabntroje": "bmlrub",
    "dfaust67": "dfaust",
    "mpihdm05": "hdm05",
    "mpilimits": "poseprior",
    "mpimosh": "mosh",
    "tcdhandmocap": "tcdhands",
    "transitionsmocap": "transitions",
    "ssmsynced": "ssm",
}


class SequenceKey(NamedTuple):
    """A sequence of AMASS, the same in all its releases."""

    data_set: str
    subject: str
    sequence: str

    @classmethod
    def of(cls, path: PurePosixPath | Path) -> "SequenceKey":
        """Return the key of a path .../data set/subject/sequence_poses.npz."""
        data_set, subject = ("", "", *path.parts)[-3:-1]
        data_set = data_set.lower().replace("_", "")
        sequence = re.sub(r"_(poses|stageii)$", "", path.stem)
        return cls(OTHER_NAMES.get(data_set, data_set), subject, re.sub(r"[\s_]+", "_", sequence))


def by_sequence(files: Iterable[Path]) -> dict[SequenceKey, Path]:
    """Return the files by sequence; of a sequence in several releases, the first one."""
    found: dict[SequenceKey, Path] = {}
    for file in files:
        found.setdefault(SequenceKey.of(file), file)
    return found


def plan(folder: Path, files: list[Path], convert: Callable[[Task], Converted], split_of: Callable[[str], str]) -> Plan:
    """Return a task per file of AMASS from which clips of HumanML3D are cut.

    Args:
        folder: HumanML3D, with index.csv, texts and the split files.
        files: Files of AMASS.
        convert: Conversion of a task.
        split_of: Split of a clip, if there are no split files.

    Raises:
        InputError: index.csv or the texts are missing or unusable.
    """
    index, texts = find_index(folder), find_texts(folder)
    if not index.is_file():
        raise InputError(
            f"{index} is missing, which names the cuts of AMASS; copy it there from "
            "https://github.com/EricGuo5513/HumanML3D"
        )
    rows = read_index(index)
    splits = read_splits(texts.parent)
    wanted = None if splits is None else {name for names in splits.values() for name in names}
    sequences = by_sequence(files)
    cuts: dict[Path, list[Cut]] = {}
    left_out: dict[str, str] = {}
    for name, (path, start, end) in rows.items():
        copies = [copy for copy in (name, f"M{name}") if wanted is None or copy in wanted]
        file = sequences.get(SequenceKey.of(path))
        for copy in copies:
            if file is None:
                why = f"{WHOLE}, which is not part of AMASS" if WHOLE in path.parts else "it is not in the source"
                left_out[copy] = f"{index}: the clip {copy} is cut from {shown(path)}: {why}"
                continue
            frames = clip_span(str(path), start, end)
            cut = Cut(copy, frames.start, frames.stop, mirrored=copy != name, text=texts / f"{copy}.txt")
            cuts.setdefault(file, []).append(cut)
    if splits is None:
        splits = {split: [] for split in SPLITS}
        for name in rows:
            splits[split_of(name)] += [name, f"M{name}"]
    else:
        known = {copy for name in rows for copy in (name, f"M{name}")}
        for name in sorted(wanted - known if wanted else ()):
            left_out[name] = f"{texts.parent}: a split lists {shown(name)}, which is not in {index.name}"
    tasks = [Task(file.as_posix(), file, tuple(parts)) for file, parts in sorted(cuts.items())]
    return Plan(tasks, convert, splits, left_out)


def find_index(folder: Path) -> Path:
    """Return index.csv of HumanML3D, which is in the repository above the data."""
    places = (folder / "index.csv", folder.parent / "index.csv")
    return next((place for place in places if place.is_file()), places[0])


def find_texts(folder: Path) -> Path:
    """Return the folder of captions of HumanML3D.

    Raises:
        InputError: it is missing.
    """
    for place in (folder / "texts", folder / "HumanML3D" / "texts"):
        if place.is_dir():
            return place
        if place.with_suffix(".zip").is_file():
            raise InputError(f"{place.with_suffix('.zip')} is not extracted; unzip it beside itself")
    raise InputError(f"{folder} has no folder texts; give the folder of HumanML3D with index.csv and texts")


def read_index(file: Path) -> dict[str, tuple[PurePosixPath, int, int]]:
    """Return source path, first frame and end frame (negative from the end) of each clip in index.csv.

    Raises:
        InputError: the file is missing, or has other columns or values.
    """
    text = read_text(file, "a table of clips")
    rows = csv.DictReader(io.StringIO(text, newline=""), strict=True)
    with refusing(file, "a table of clips", "take index.csv of the HumanML3D repository"):
        index: dict[str, tuple[PurePosixPath, int, int]] = {}
        for row in rows:
            try:
                path, name = PurePosixPath(row["source_path"].strip()), PurePosixPath(row["new_name"].strip()).stem
                index.setdefault(name, (path, int(row["start_frame"]), int(row["end_frame"])))
            except (KeyError, ValueError, AttributeError) as error:
                raise InputError(
                    f"line {rows.line_num} has not the columns source_path,start_frame,end_frame,new_name"
                ) from error
        return index


def read_splits(folder: Path) -> dict[str, list[str]] | None:
    """Return the clip ids of train.txt, val.txt and test.txt; None if there is none of them.

    Raises:
        InputError: a file cannot be read.
    """
    files = {split: folder / f"{split}.txt" for split in SPLITS}
    if not any(file.is_file() for file in files.values()):
        return None
    return {
        split: list(dict.fromkeys(line.strip() for line in read_lines(file, "a list of clip ids") if line.strip()))
        for split, file in files.items()
        if file.is_file()
    }
