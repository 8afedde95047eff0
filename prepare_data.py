"""Convert motion files into a data folder for train_vq.py and train_t2m.py (layout: dataset/motion_folder.py).

    python prepare_data.py bvh --source mocap/ --out data/mine --captions captions.yaml
    python prepare_data.py synthetic --out data/synthetic --count 200

Features are at 30 frames per second. A clip is assigned to train, val or test by the hash of its name, so the split is
the same on every machine.
"""

import utils.interrupt  # noqa: F401

# isort: split

import json
import os
import re
from collections import Counter
from concurrent.futures import Future, as_completed
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jsonargparse.typing import NonNegativeInt, PositiveInt
from tqdm import tqdm

from dataset.caption_sides import mirror_caption
from dataset.captions import CaptionRules
from dataset.motion_folder import MIRRORED, SPLITS, STATISTICS, VECTORS, Statistics, split_of
from dataset.staging import check_clip_id, staged_folder
from dataset.synthetic import synthetic_clips
from formats.bvh_import import import_bvh
from formats.import_options import ImportOptions
from formats.skeleton_map import SkeletonMap
from motion.features272 import check_features, features_from_motion
from motion.resample import FPS
from motion.skeleton import mirror
from utils.config import parse_command
from utils.errors import InputError, exit_on_input_error, reason_of
from utils.files import refusing_write_errors
from utils.processes import WorkerDied, worker_pool
from utils.reading.files import shown
from utils.reading.texts import read_lines

CORES = os.cpu_count() or 1


@dataclass
class BvhOptions(ImportOptions):
    """Convert a folder of BVH files."""

    source: Path
    """Folder with .bvh files; subfolders are included."""
    out: Path
    """Data folder to write."""
    skeleton: Path | None = None
    """YAML file that maps the joints of the files to the 22 SMPL-X joints; by default joints are found by name and
    hierarchy."""
    captions: Path | None = None
    """YAML file with captions; by default, a text file beside each BVH file (walk.txt for walk.bvh)."""
    mirrored: bool = True
    """Add a left-right mirrored copy of every training clip, with left and right exchanged in its captions."""
    captions_per_clip: PositiveInt = 8
    """Maximum number of captions per clip from the captions file."""
    min_frames: PositiveInt = 16
    """Minimum length of a clip in frames, after resampling to 30 fps; shorter clips are rejected."""
    workers: PositiveInt = CORES
    """Number of processes. (default: number of CPU cores)"""


@dataclass
class SyntheticOptions:
    """Write procedural motion (walk, run, turn, jump, squat, wave, ...) for tests and for a first try without data."""

    out: Path
    """Data folder to write."""
    count: PositiveInt = 200
    """Number of clips."""
    seed: NonNegativeInt = 0
    """Seed of the clips; the same seed gives the same clips."""


class PreparedClip(NamedTuple):
    """A clip to write."""

    clip_id: str
    features: np.ndarray  # (T, 272) float32
    captions: list[str]


@dataclass
class ClipReport:
    """Result of one clip: the sums of its features, or the reason for its rejection."""

    clip_id: str
    frames: int = 0
    sums: tuple[np.ndarray, np.ndarray] | None = None
    """Sum and sum of squares of the features over all frames, (272,) each; None if rejected."""
    rejected: str = ""
    """Reason for the rejection, with the file."""
    notes: list[str] = field(default_factory=list)
    """Decisions of the reader that the user should know."""


def bvh(options: BvhOptions) -> None:
    """Convert a folder of BVH files into a data folder.

    Raises:
        InputError: there are no usable files, two share a name, a YAML file is invalid, or the data folder cannot be
            written.
    """
    files = find_bvh(options.source, options.mirrored)
    convert = partial(
        convert_bvh,
        skeleton=SkeletonMap.from_yaml(options.skeleton) if options.skeleton else None,
        rules=CaptionRules.from_yaml(options.captions) if options.captions else None,
    )
    with staged_folder(options.out) as folder:
        convert = partial(convert, options=replace(options, out=folder))
        with worker_pool(options.workers, torch.set_num_threads, 1) as pool:
            jobs = {pool.submit(convert, file): file for file in files}
            with tqdm(as_completed(jobs), total=len(jobs), unit="file") as progress:
                reports = [report for job in progress for report in reports_of(job, jobs[job], folder)]
        summary = finish_folder(folder, reports)
    print(f"{options.out}: {summary}")


def synthetic(options: SyntheticOptions) -> None:
    """Write procedural clips into a data folder.

    Raises:
        InputError: the data folder cannot be written, or there is no training clip among the clips.
    """
    with staged_folder(options.out) as folder:
        with tqdm(synthetic_clips(options.count, options.seed), total=options.count, unit="clip") as clips:
            reports = [write_clip(folder, prepared_clip(*clip)) for clip in clips]
        summary = finish_folder(folder, reports)
    print(f"{options.out}: {summary}")


def find_bvh(source: Path, mirrored: bool) -> list[Path]:
    """Return the BVH files of a folder and its subfolders.

    Args:
        mirrored: Whether mirrored copies will be written, whose names must be free.

    Raises:
        InputError: there are no files, two share a name, or one has the name of a mirrored copy.
    """
    files = sorted(file for file in source.rglob("*") if file.suffix.lower() == ".bvh")
    if not files:
        raise InputError(f"{source} holds no .bvh file; check --source")
    taken = [file for file in files if mirrored and file.stem.endswith(MIRRORED)]
    if taken:
        raise InputError(
            f"{taken[0]} ends in {MIRRORED}, the name of a mirrored copy; rename it, or give --mirrored false"
        )
    twins = [name for name, count in Counter(file.stem for file in files).items() if count > 1]
    if twins:
        raise InputError(
            f"{source} holds {twins[0]}.bvh more than once; the file name is the id of the clip, so rename one"
        )
    return files


def reports_of(job: Future, file: Path, out: Path) -> list[ClipReport]:
    """Return the reports of a file; one that killed its process is rejected.

    Raises:
        InputError: the clip cannot be written.
    """
    try:
        return job.result()
    except WorkerDied as error:
        for clip_id in (file.stem, file.stem + MIRRORED):  # may be written in part
            (out / VECTORS / f"{clip_id}.npy").unlink(missing_ok=True)
            (out / "texts" / f"{clip_id}.txt").unlink(missing_ok=True)
        return [ClipReport(file.stem, rejected=f"{file}: {error}; check this file")]


def convert_bvh(
    file: Path, options: BvhOptions, skeleton: SkeletonMap | None, rules: CaptionRules | None
) -> list[ClipReport]:
    """Convert one BVH file into a clip, and a mirrored copy of a training clip.

    Returns:
        The reports of the clips written, or one report with the reason why the file is rejected.

    Raises:
        InputError: the clip cannot be written.
    """
    try:
        clips, notes = read_bvh_clips(file, options, skeleton, rules)
    except Exception as error:  # whatever is wrong with one file, the others are converted
        reason = str(error) if isinstance(error, InputError) else f"it cannot be converted ({reason_of(error)})"
        return [ClipReport(file.stem, rejected=shown(reason if str(file) in reason else f"{file}: {reason}", 480))]
    reports = [write_clip(options.out, clip) for clip in clips]
    reports[0].notes = [f"{file}: {note}" for note in notes]
    return reports


def read_bvh_clips(
    file: Path, options: BvhOptions, skeleton: SkeletonMap | None, rules: CaptionRules | None
) -> tuple[list[PreparedClip], list[str]]:
    """Read a BVH file; returns its clip, with a mirrored copy of a training clip, and notes of the reader.

    Raises:
        InputError: the file or its captions are missing or unusable.
    """
    check_clip_id(file.stem)
    rotations, pelvis, _, notes = import_bvh(file, FPS, skeleton, options)
    if len(rotations) < options.min_frames:
        raise InputError(
            f"{file} has {len(rotations)} frames at {FPS} fps, fewer than --min-frames {options.min_frames}"
        )
    captions = rules.captions(file.stem, options.captions_per_clip) if rules else captions_beside(file)
    clips = [prepared_clip(file.stem, rotations, pelvis, captions)]
    if options.mirrored and split_of(file.stem) == "train":
        swapped = [mirror_caption(caption) for caption in captions]
        clips.append(prepared_clip(file.stem + MIRRORED, *mirror(rotations, pelvis), swapped))
    return clips, notes


def captions_beside(file: Path) -> list[str]:
    """Return the captions in the text file beside a motion file.

    Raises:
        InputError: the text file is missing or has no captions.
    """
    text = next((path for path in map(file.with_suffix, (".txt", ".TXT")) if path.is_file()), file.with_suffix(".txt"))
    lines = read_lines(text, "captions") if text.is_file() else []
    captions = [line.strip() for line in lines if line.strip()]
    if not captions:
        raise InputError(
            f"{file} has no caption; write {text.name} beside it, one caption per line, or give --captions"
        )
    return captions


def prepared_clip(clip_id: str, rotations: np.ndarray, pelvis: np.ndarray, captions: list[str]) -> PreparedClip:
    """Compute the features of a clip.

    Args:
        rotations: Local rotations, (T, 22, 3, 3).
        pelvis: World positions of the pelvis in metres, (T, 3).

    Raises:
        InputError: the features are not finite.
    """
    features = features_from_motion(rotations.astype(np.float64), pelvis.astype(np.float64)).astype(np.float32)
    check_features(features, clip_id)
    return PreparedClip(clip_id, features, captions)


def write_clip(out: Path, clip: PreparedClip) -> ClipReport:
    """Write the features and captions of a clip into the data folder ``out``.

    Raises:
        InputError: they cannot be written.
    """
    file = out / VECTORS / f"{clip.clip_id}.npy"
    with refusing_write_errors(file):
        np.save(file, clip.features)
        (out / "texts" / f"{clip.clip_id}.txt").write_text("\n".join(clip.captions) + "\n", encoding="utf-8")
    exact = clip.features.astype(np.float64)
    return ClipReport(clip.clip_id, len(exact), (exact.sum(axis=0), (exact**2).sum(axis=0)))


def finish_folder(out: Path, reports: list[ClipReport]) -> str:
    """Write the splits, the statistics and report.json, print the reason of each rejection, and return a summary.

    Raises:
        InputError: there is no training clip, or a file cannot be written.
    """
    reports = sorted(reports, key=lambda report: report.clip_id)
    rejected = {report.clip_id: report.rejected for report in reports if report.rejected}
    print_once("note", [note for report in reports for note in report.notes])
    print_once("rejected", list(rejected.values()))
    kept = [report for report in reports if not report.rejected]
    splits = {split: [report for report in kept if split_of(report.clip_id) == split] for split in SPLITS}
    if not splits["train"]:
        raise InputError(f"no usable training clip came out of {len(reports)} files; the reasons are above")
    statistics = Statistics()
    for report in splits["train"]:
        if report.sums is not None:
            statistics.add(report.frames, *report.sums)
    clips = {split: len(of_split) for split, of_split in splits.items()}
    frames = {split: sum(report.frames for report in of_split) for split, of_split in splits.items()}
    with refusing_write_errors(out):
        for split, of_split in splits.items():
            lines = "".join(f"{report.clip_id}\n" for report in of_split)
            (out / "split" / f"{split}.txt").write_text(lines, encoding="utf-8")
        for name, values in zip(("mean", "std"), statistics.mean_std(), strict=True):
            np.save(out / STATISTICS / f"{name}.npy", values)
        summary = {"fps": FPS, "clips": clips, "frames": frames, "rejected": rejected}
        (out / "report.json").write_text(json.dumps(summary, indent=1))
    return f"clips {clips}, frames {frames}, {len(rejected)} files rejected"


def print_once(label: str, lines: list[str]) -> None:
    """Print lines that begin with the name of a file; a text that several files share is printed once."""
    files: dict[str, list[str]] = {}  # text after the name of the file -> lines
    for line in lines:
        file, *rest = re.split(r"(?<=\.bvh)", line, maxsplit=1, flags=re.IGNORECASE)
        files.setdefault(rest[0] if rest else line, []).append(line)
    for first, *others in files.values():
        print(f"{label}: {first}" + (f" (likewise in {len(others)} other files)" if others else ""))


def main() -> None:
    options = parse_command({"bvh": BvhOptions, "synthetic": SyntheticOptions}, __doc__ or "")
    if isinstance(options, BvhOptions):
        bvh(options)
    else:
        synthetic(options)


if __name__ == "__main__":
    with exit_on_input_error():
        main()
