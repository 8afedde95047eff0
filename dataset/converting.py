"""Conversion of a data set into a data folder: the part that all sources in ``dataset/sources`` share.

A source plans its tasks, one per file. Worker processes convert them and write the clips into a staging folder. The
parent process keeps the journal, with which a run that was killed is resumed, and finally writes splits, statistics
and reports.
"""

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from tqdm import tqdm

from dataset.caption_table import mirrored_line
from dataset.conversion_report import Action, ClipReport, add_report, finish_folder, write_actions
from dataset.motion_folder import VECTORS, Statistics
from dataset.options import ConvertOptions
from dataset.splits import MIRRORED, SPLITS
from dataset.staging import Staging, check_clip_id, staged_folder
from dataset.takes import Part
from motion.features272 import check_features, features_from_motion
from motion.resample import FPS
from motion.skeleton import mirror
from utils.errors import InputError, reason_of
from utils.files import refusing_write_errors
from utils.processes import WorkerDied, exit_on_sigterm, worker_pool
from utils.reading.files import shown

STOPPED = "stopped; run the same command again to continue"


class Cut(NamedTuple):
    """A clip to take from a file."""

    clip_id: str
    start: int = 0
    """First frame, in the frames of the source."""
    end: int | None = None
    """Frame after the last one; None for all frames, negative from the end."""
    mirrored: bool = False
    """Whether left and right are exchanged in the motion, and in the captions of a clip named ``MIRRORED``."""
    text: Path | None = None
    """Caption file of the clip."""
    part: Part | None = None
    """Take of the file, and window and speed, of a clip with labels."""
    lines: tuple[str, ...] | None = None
    """Caption lines of the clip, if those of the task are not its own."""


class Task(NamedTuple):
    """A file to convert."""

    name: str
    """Unique name, with which a rejected file is listed; the clip id if the file is one clip."""
    file: Path
    cuts: tuple[Cut, ...]
    lines: tuple[str, ...] | None = None
    """Caption lines of the clips that have no caption file."""


class PreparedClip(NamedTuple):
    """A clip to write."""

    clip_id: str
    features: np.ndarray  # (T, 272) float32
    captions: list[str]  # lines of texts/<id>.txt
    error: float | None = None  # mean distance of the joints from those of the source, in metres


class Converted(NamedTuple):
    """Result of a task."""

    clips: Iterable[PreparedClip | ClipReport]
    """Clips, or reports of rejected ones; may be a generator."""
    notes: list[str] = []
    """Decisions of the reader, and caption lines that were left out, each with its file."""


@dataclass
class Plan:
    """The work of a conversion, as defined by its source."""

    tasks: list[Task]
    convert: Callable[[Task], Converted]
    """Function that converts the file of a task in a worker process; it is sent with each task."""
    splits: dict[str, list[str]] | None = None
    """Clip ids by split; None if the source defines no splits."""
    left_out: dict[str, str] = field(default_factory=dict)
    """Names of clips that cannot be converted, with the reason."""
    actions: list[Action] = field(default_factory=list)
    """Actions of a source with labels, which are listed in the data folder."""


def convert_source(plan: Plan, options: ConvertOptions) -> None:
    """Convert all tasks into the data folder ``options.out``, and print the reasons of rejections and a summary.

    A run that was stopped or killed is resumed if its options and source files are the same.

    Raises:
        InputError: there is no training clip among the clips, or the data folder cannot be written.
    """
    with exit_on_sigterm(STOPPED), staged_folder(options.out, describe_work(plan, options)) as staging:
        reports, statistics = [], Statistics()
        trained = None if plan.splits is None else set(plan.splits.get("train", []))
        for report in _reports(plan, options, staging):
            is_trained = options.split_of(report.clip_id) == "train" if trained is None else report.clip_id in trained
            if is_trained and not report.rejected:
                add_report(statistics, report, staging.path)
            report.sums = None  # 4 KB per clip
            reports.append(report)
        reports += [ClipReport(name, rejected=reason) for name, reason in plan.left_out.items()]
        splits = _splits_by_hash(reports, options) if plan.splits is None else plan.splits
        summary = finish_folder(staging, reports, splits, statistics)
        if plan.actions:
            write_actions(staging.path, plan.actions, reports)
    print(f"{options.out}: {summary}")


def describe_work(plan: Plan, options: ConvertOptions) -> str:
    """Return a digest of the options and of names, sizes and modification times of the source files."""
    form = [part.name for part in fields(ClipReport)]  # of the journal
    digest = hashlib.sha256(repr(form).encode())
    settings = {option.name: getattr(options, option.name) for option in fields(options)}
    digest.update(repr({name: value for name, value in settings.items() if name not in ("out", "workers")}).encode())
    for path in sorted(value for value in settings.values() if isinstance(value, Path) and value.is_file()):
        digest.update(path.read_bytes())
    for task in plan.tasks:
        texts = dict.fromkeys(cut.text for cut in task.cuts if cut.text)
        digest.update(repr((task, [_version(file) for file in (task.file, *texts)])).encode())
    return digest.hexdigest()


def _version(file: Path) -> tuple[int, int] | None:
    """Return size and modification time of a file, or None if it cannot be found."""
    try:
        status = os.stat(file)
        return status.st_size, status.st_mtime_ns
    except OSError:
        return None


def _reports(plan: Plan, options: ConvertOptions, staging: Staging) -> Iterator[ClipReport]:
    """Yield the reports of all tasks in their order, of those in the journal and of those that are converted now."""
    waiting = [task for task in plan.tasks if task.name not in staging.finished]
    if len(waiting) < len(plan.tasks):
        print(f"resuming: {len(plan.tasks) - len(waiting)} of {len(plan.tasks)} files are converted")
    with worker_pool(min(options.workers, max(1, len(waiting))), torch.set_num_threads, 1) as pool:
        jobs = {task.name: pool.submit(run_task, task, plan.convert, staging.path) for task in waiting}
        with tqdm(total=len(plan.tasks), initial=len(plan.tasks) - len(waiting), unit="file") as progress:
            for task in plan.tasks:
                if task.name in staging.finished:
                    yield from (ClipReport(**entry) for entry in staging.finished[task.name])
                else:
                    yield from _finish_task(jobs.pop(task.name), task, staging)
                    progress.update()


def _finish_task(job: Future, task: Task, staging: Staging) -> list[ClipReport]:
    """Return the reports of a task and add them to the journal; one that killed its process is rejected.

    Raises:
        InputError: the clips cannot be written.
    """
    try:
        reports = job.result()
    except WorkerDied as error:
        for clip_id in (cut.clip_id for cut in task.cuts):  # may be written in part
            (staging.path / VECTORS / f"{clip_id}.npy").unlink(missing_ok=True)
            (staging.path / "texts" / f"{clip_id}.txt").unlink(missing_ok=True)
        return [ClipReport(task.name, rejected=f"{task.file}: {error}; check this file")]
    staging.record(task.name, [report.entry() for report in reports])
    return reports


def run_task(task: Task, convert: Callable[[Task], Converted], out: Path) -> list[ClipReport]:
    """Convert the file of a task and write its clips, in a worker process.

    Returns:
        A report per clip, or one report with the reason why the file is rejected.

    Raises:
        InputError: the clips cannot be written.
    """
    reports: list[ClipReport] = []
    try:
        converted = convert(task)
        for clip in converted.clips:
            reports.append(clip if isinstance(clip, ClipReport) else write_clip(out, clip))
    except NotWritten as error:
        raise InputError(str(error)) from error
    except Exception as error:  # whatever is wrong with one file, the others are converted
        return [*reports, ClipReport(task.name, rejected=reason_for(task.file, error))]
    if reports:
        reports[0].notes += converted.notes
    return reports


def reason_for(file: Path, error: Exception) -> str:
    """Return the reason for a rejection, with the file."""
    reason = str(error) if isinstance(error, InputError) else f"it cannot be converted ({reason_of(error)})"
    return shown(reason if str(file) in reason else f"{file}: {reason}", 480)


def prepared_clip(
    clip_id: str, rotations: np.ndarray, pelvis: np.ndarray, captions: list[str], error: float | None = None
) -> PreparedClip:
    """Compute the features of a clip.

    Args:
        rotations: Local rotations, (T, 22, 3, 3).
        pelvis: World positions of the pelvis in metres, (T, 3).

    Raises:
        InputError: the features are not finite.
    """
    features = features_from_motion(rotations.astype(np.float64), pelvis.astype(np.float64)).astype(np.float32)
    check_features(features, clip_id)
    return PreparedClip(clip_id, features, captions, error)


class NotWritten(InputError):
    """A clip cannot be written, so that the conversion ends."""


def write_clip(out: Path, clip: PreparedClip) -> ClipReport:
    """Write the features and captions of a clip into the data folder ``out``.

    Raises:
        NotWritten: they cannot be written.
        InputError: the name of the clip is not usable.
    """
    check_clip_id(clip.clip_id)
    file, text = out / VECTORS / f"{clip.clip_id}.npy", out / "texts" / f"{clip.clip_id}.txt"
    try:
        with refusing_write_errors(file):
            if "/" in clip.clip_id:
                file.parent.mkdir(parents=True, exist_ok=True)
                text.parent.mkdir(parents=True, exist_ok=True)
            np.save(file, clip.features)
            text.write_text("".join(f"{line}\n" for line in clip.captions), encoding="utf-8")
    except InputError as error:
        raise NotWritten(str(error)) from error
    report = ClipReport(clip.clip_id, len(clip.features), error=clip.error, captions=len(clip.captions))
    return report.with_sums(clip.features)


def cut_clip(cut: Cut, rotations: np.ndarray, pelvis: np.ndarray, lines: list[str]) -> PreparedClip:
    """Return a clip from its motion before mirroring; see ``prepared_clip``."""
    if cut.mirrored:
        rotations, pelvis = mirror(rotations, pelvis)
    if cut.clip_id.endswith(MIRRORED):
        lines = [mirrored_line(line) for line in lines]
    return prepared_clip(cut.clip_id, rotations, pelvis, lines)


def check_frames(frames: int, options: ConvertOptions, file: Path) -> None:
    """Raise InputError if a clip of ``frames`` frames at 30 fps is too short."""
    if frames < options.min_frames:
        raise InputError(f"{file} has {frames} frames at {FPS} fps, fewer than --min-frames {options.min_frames}")


def _splits_by_hash(reports: list[ClipReport], options: ConvertOptions) -> dict[str, list[str]]:
    splits: dict[str, list[str]] = {split: [] for split in SPLITS}
    for report in sorted(reports, key=lambda report: report.clip_id):
        if not report.rejected:
            splits[options.split_of(report.clip_id)].append(report.clip_id)
    return splits
