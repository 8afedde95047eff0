"""Plan and conversion of a source whose files hold takes with labels (rules of ``dataset/captions.py``)."""

from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from dataset.caption_table import caption_line
from dataset.captions import CaptionRules
from dataset.conversion_report import Action, ClipReport
from dataset.converting import (
    Converted,
    Cut,
    Plan,
    PreparedClip,
    Task,
    check_frames,
    cut_clip,
    reason_for,
)
from dataset.options import ConvertOptions
from dataset.sources.whole_files import FileOptions
from dataset.splits import MIRRORED, SPLITS
from dataset.takes import Part, Take, copies, shares, tiles
from utils.errors import InputError

FEW = 6  # takes of a content, below which their files are all trained on


class Recorded(NamedTuple):
    """A take in a file of the source."""

    clip_id: str
    name: str
    """Name of the file, whose takes are all in the same split: the clip id if the file is one clip."""
    file: Path
    take: Take
    seconds: float | None
    """Length of a take of a continuous content, with its repetitions; None for a one-off action."""
    parts: dict[str, Part]
    """Clips of the take by id; copies are added to them."""


def plan_labelled(
    files: dict[str, Path],
    rules: CaptionRules,
    convert: Callable[[Task], Converted],
    seconds_of: Callable[[Path], float],
    options: FileOptions,
) -> Plan:
    """Return a task per file with its takes, with copies of those of rare contents and mirrored copies.

    Args:
        files: Files by path below the source, without suffix.
        rules: Takes and captions.
        convert: Function that converts the file of a task.
        seconds_of: Function that returns the length of a file.
        options: Options of the source.

    Raises:
        InputError: two clips have the same id.
    """
    recorded, left_out = _recorded(files, rules, seconds_of)
    takes = Counter(clip.take.content for clip in recorded)
    rare = {clip.file for clip in recorded if clip.take.content and takes[clip.take.content] < FEW}
    by_split: dict[str, list[Recorded]] = {split: [] for split in SPLITS}
    for clip in recorded:
        by_split["train" if clip.file in rare else options.split_of(clip.name)].append(clip)
    by_content: dict[str, list[Recorded]] = {}
    for clip in by_split["train"]:
        by_content.setdefault(clip.take.content, []).append(clip)
    for content, clips in by_content.items():
        if content:
            _add_copies(clips, rules.balance)
    splits = {split: [name for clip in clips for name in clip.parts] for split, clips in by_split.items()}
    twins = [name for name, count in Counter(sum(splits.values(), [])).items() if count > 1]
    if twins:
        raise InputError(f"two files have the clip {twins[0]}; rename one, or name both by their paths under `takes`")
    mirrored = set(splits["train"]) if options.mirrored else set()
    splits["train"] += [name + MIRRORED for name in splits["train"] if name in mirrored]
    tasks: dict[Path, Task] = {}
    for clip in recorded:
        cuts = tuple(_cuts(clip, rules, options.captions_per_clip, mirrored))
        task = tasks.get(clip.file) or Task(clip.name, clip.file, ())
        tasks[clip.file] = task._replace(cuts=task.cuts + cuts)
    actions = [
        Action(content, f"a person {phrases[0]}", [name for clip in by_content.get(content, []) for name in clip.parts])
        for content, phrases in rules.contents.items()
    ]
    return Plan(list(tasks.values()), convert, splits, left_out, actions)


def _recorded(
    files: dict[str, Path], rules: CaptionRules, seconds_of: Callable[[Path], float]
) -> tuple[list[Recorded], dict[str, str]]:
    """Return the takes of all files, and the names that are left out, with the reasons."""
    recorded, left_out = [], {}
    for name, file in files.items():
        try:
            takes = rules.takes_of(name)
            for clip_id, take in takes.items():
                rules.draw(clip_id, take, 1)  # refuses labels without phrases
            continuous = any(take.content in rules.continuous for take in takes.values())
            file_seconds = seconds_of(file) if continuous else 0.0
        except InputError as error:
            left_out[name] = f"{file}: {error}"
            continue
        for clip_id, take in takes.items():
            whole = name if name in rules.takes else clip_id
            seconds = take.seconds(file_seconds) if take.content in rules.continuous else None
            parts = tiles(take, seconds) if seconds else [Part(take)]
            names = [f"{clip_id}_part{number}" for number in range(len(parts))] if len(parts) > 1 else [clip_id]
            recorded.append(Recorded(clip_id, whole, file, take, seconds, dict(zip(names, parts, strict=True))))
    for name in sorted(rules.takes.keys() - files.keys()):
        left_out[name] = f"{name}: the captions file has takes of it, but --source holds no such file"
    return recorded, left_out


def _add_copies(clips: list[Recorded], balance: int) -> None:
    """Add copies of the training takes of a content to their parts, which make up at least ``balance`` clips."""
    missing = max(0, balance - sum(len(clip.parts) for clip in clips))
    counts = shares([clip.clip_id for clip in clips], [clip.seconds or 1.0 for clip in clips], missing)
    for clip, count in zip(clips, counts, strict=True):
        for number, part in enumerate(copies(clip.take, clip.clip_id, count, clip.seconds)):
            clip.parts[f"{clip.clip_id}_copy{number}"] = part


def _cuts(clip: Recorded, rules: CaptionRules, count: int, mirrored: set[str]) -> Iterator[Cut]:
    for name, part in clip.parts.items():
        lines = tuple(caption_line(caption) for caption in rules.draw(name, part.take, count))
        yield Cut(name, part=part, lines=lines)
        if name in mirrored:
            yield Cut(name + MIRRORED, mirrored=True, part=part, lines=lines)


def convert_takes(
    task: Task, rotations: np.ndarray, pelvis: np.ndarray, options: ConvertOptions
) -> Iterator[PreparedClip | ClipReport]:
    """Yield the clips of a file, or the reasons why they are rejected.

    Args:
        task: The file and its cuts, each with a part.
        rotations: Local rotations at 30 frames per second, (T, 22, 3, 3).
        pelvis: World positions of the pelvis in metres, (T, 3).
        options: Options of the source.
    """
    for cut in task.cuts:
        assert cut.part is not None
        try:
            motion = cut.part.of(rotations, pelvis)
            check_frames(len(motion[1]), options, task.file)
            yield cut_clip(cut, *motion, list(cut.lines or ()))
        except InputError as error:
            if not cut.mirrored:
                yield ClipReport(cut.clip_id, rejected=reason_for(task.file, error))
