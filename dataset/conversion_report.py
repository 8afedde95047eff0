"""Results of a conversion: a report per clip, the statistics, and the files that end it."""

import json
import re
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from dataset.feature_files import load_features
from dataset.motion_folder import STATISTICS, VECTORS, Statistics
from dataset.splits import SPLITS
from dataset.staging import Staging
from motion.resample import FPS
from utils.errors import InputError
from utils.files import refusing_write_errors

FILE = re.compile(r"^.*?\.(?:bvh|npz|npy|txt|csv|json|jsonl)(?=[:,\s])", re.IGNORECASE)
NUMBER = re.compile(r"\d+(?:\.\d+)?")
ACTIONS = "actions.json"
SHOWN = 20  # reasons printed; report.json has all of them


@dataclass
class ClipReport:
    """Result of one clip, or the reason why a clip or a file is rejected."""

    clip_id: str
    frames: int = 0
    sums: tuple[np.ndarray, np.ndarray] | None = None
    """Sum and sum of squares of the features over all frames, (272,) each; None if rejected or from a journal."""
    rejected: str = ""
    """Reason for the rejection, with the file."""
    notes: list[str] = field(default_factory=list)
    """Decisions of the reader that the user should know, and caption lines that were left out."""
    error: float | None = None
    """Mean distance of the joints from those of the source in metres, where the skeletons differ."""
    captions: int = 0
    """Number of caption lines."""

    def entry(self) -> dict[str, Any]:
        """Return the report as JSON values, without the sums."""
        return asdict(self) | {"sums": None}

    def with_sums(self, features: np.ndarray) -> "ClipReport":
        """Return the report with the sums of its features (T, 272)."""
        exact = features.astype(np.float64)
        self.sums = exact.sum(axis=0), np.einsum("tf,tf->f", exact, exact)
        return self


def add_report(statistics: Statistics, report: ClipReport, out: Path) -> None:
    """Add the frames of a training clip to the statistics, from its sums or from its file in the folder ``out``."""
    if report.sums is None:  # from the journal of an earlier run
        report.with_sums(load_features(out / VECTORS / f"{report.clip_id}.npy"))
    assert report.sums is not None
    statistics.add(report.frames, *report.sums)


def finish_folder(
    staging: Staging, reports: list[ClipReport], splits: dict[str, list[str]], statistics: Statistics
) -> str:
    """Write the splits, the statistics and report.json, print the reason of each rejection, and return a summary.

    Args:
        staging: The folder with the clips.
        reports: Reports of all clips.
        splits: Clip ids by split; ids without a clip are removed.
        statistics: Statistics of the training clips.

    Raises:
        InputError: there is no training clip, or a file cannot be written.
    """
    rejected = {report.clip_id: report.rejected for report in reports if report.rejected}
    notes = [note for report in reports for note in report.notes]
    print_once("note", notes)
    print_once("rejected", list(rejected.values()))
    kept = {report.clip_id: report for report in reports if not report.rejected}
    splits = {split: [name for name in splits.get(split, []) if name in kept] for split in SPLITS}
    if not splits["train"]:
        staging.forget()
        raise InputError(f"no usable training clip came out of {len(reports)} files; the reasons are above")
    clips = {split: len(ids) for split, ids in splits.items()}
    frames = {split: sum(kept[name].frames for name in ids) for split, ids in splits.items()}
    summary: dict[str, Any] = {"fps": FPS, "clips": clips, "frames": frames, "rejected": dict(sorted(rejected.items())),
                               "notes": notes}  # fmt: skip
    counts = ", ".join(f"{split} {clips[split]:,} clips of {frames[split]:,} frames" for split in SPLITS)
    text = f"{counts}; {len(rejected)} files rejected"
    if errors := [1000 * report.error for report in kept.values() if report.error is not None]:
        summary["joint_error_mm"] = {"mean": float(np.mean(errors)), "worst_clip": float(np.max(errors))}
        text += f"; joints differ by {np.mean(errors):.1f} mm from those of the source"
    if silent := sum(not report.captions for report in kept.values()):
        summary["without_captions"] = silent
        text += f"; {silent} clips have no captions, and only the tokenizer is trained on them"
    mean, std = statistics.mean_std()
    out = staging.path
    with refusing_write_errors(out):
        for split, ids in splits.items():
            (out / "split" / f"{split}.txt").write_text("".join(f"{name}\n" for name in ids), encoding="utf-8")
        np.save(out / STATISTICS / "mean.npy", mean)
        np.save(out / STATISTICS / "std.npy", std)
        (out / "report.json").write_text(json.dumps(summary, indent=1))
    return text


class Action(NamedTuple):
    """An action that a data set shows."""

    name: str
    """Label."""
    caption: str
    clips: list[str]
    """Ids of its training clips, without mirrored copies."""


def write_actions(folder: Path, actions: list[Action], reports: list[ClipReport]) -> None:
    """Write ``actions.json``: name, caption and number of training clips of each action that has one.

    Raises:
        InputError: the file cannot be written.
    """
    kept = {report.clip_id for report in reports if not report.rejected}
    counts = [(action, sum(name in kept for name in action.clips)) for action in actions]
    entries = [{"name": action.name, "caption": action.caption, "clips": count} for action, count in counts if count]
    with refusing_write_errors(folder / ACTIONS):
        (folder / ACTIONS).write_text(json.dumps(entries, indent=1, ensure_ascii=False), encoding="utf-8")


def print_once(label: str, lines: list[str]) -> None:
    """Print lines that begin with the name of a file; lines that differ only in it or in numbers are printed once."""
    groups: dict[str, list[str]] = {}
    for line in lines:
        groups.setdefault(NUMBER.sub("0", FILE.sub("", line)), []).append(line)
    for first, *others in list(groups.values())[:SHOWN]:
        print(f"{label}: {first}" + (f" (likewise in {len(others)} other files)" if others else ""))
    if len(groups) > SHOWN:
        print(f"{label}: {len(groups) - SHOWN} more reasons are in report.json")
