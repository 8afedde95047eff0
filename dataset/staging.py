"""Atomic replacement of the content of a data folder: a run that fails or is killed leaves it unchanged.

Clips are written into a staging folder and moved at the end. A run that can be resumed keeps a journal of its finished
files there: one JSON line per file, after a first line that identifies options and sources.
"""

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dataset.motion_folder import STATISTICS, VECTORS
from dataset.splits import MIRRORED, SPLITS
from utils.errors import InputError
from utils.files import refusing_write_errors
from utils.locks import exclusive_folder
from utils.reading.files import shown

STAGING = ".preparing"
JOURNAL = "journal.jsonl"
LONGEST_NAME = 255 - len(f"{MIRRORED}.npy")  # bytes of each part of a clip id


class Staging:
    """The content that will replace that of a data folder.

    Attributes:
        path: Folder in the layout of a data folder.
        finished: Journal of the run that is resumed: the entry of each finished file.
    """

    def __init__(self, path: Path, work: str):
        self.path, self.work = path, work
        self.finished = _read_journal(path / JOURNAL, work) if work else {}
        if not self.finished:
            shutil.rmtree(path, ignore_errors=True)
        with refusing_write_errors(path):
            for part in (VECTORS, Path("texts"), Path("split"), STATISTICS):
                (path / part).mkdir(parents=True, exist_ok=True)
        self.can_resume = bool(self.finished)

    def record(self, name: str, entry: Any) -> None:
        """Add the entry of a finished file to the journal, whose clips are written.

        Raises:
            InputError: the journal cannot be written.
        """
        journal = self.path / JOURNAL
        with refusing_write_errors(journal):
            text = "" if self.can_resume else json.dumps({"work": self.work}) + "\n"
            with journal.open("a", encoding="utf-8") as file:
                file.write(text + json.dumps([name, entry]) + "\n")
        self.can_resume = True

    def forget(self) -> None:
        """Discard the journal: this run is not resumed."""
        (self.path / JOURNAL).unlink(missing_ok=True)
        self.can_resume = False


def _read_journal(file: Path, work: str) -> dict[str, Any]:
    """Return the entries of a journal by name; none if it is missing or belongs to other work.

    The last line of a killed run may be incomplete; it is removed from the file.
    """
    try:
        lines = file.read_text(encoding="utf-8").split("\n")
        if json.loads(lines[0]) != {"work": work}:
            return {}
        entries = dict(json.loads(line) for line in lines[1:-1])
        file.write_text("\n".join([*lines[:-1], ""]), encoding="utf-8")
        return entries
    except (OSError, ValueError, TypeError):
        return {}


@contextmanager
def staged_folder(out: Path, work: str = "") -> Iterator[Staging]:
    """Yield a staging folder, whose content is moved into ``out`` on success.

    Clips of ``out`` with other names are kept. While clips are moved, ``out`` has no splits and cannot be trained on.
    If the run ends early after ``Staging.record``, the staging folder is kept for the next run.

    Args:
        out: Data folder; created if needed, and locked against other runs.
        work: Text that identifies options and sources; the finished files of an earlier run with the same text are
            reused. Empty if the run cannot be resumed.

    Raises:
        InputError: ``out`` cannot be written, was removed meanwhile, or another process prepares it.
    """
    with exclusive_folder(out, "prepare_data.py", "--out") as folder:
        staging = Staging(out / STAGING, work)
        try:
            yield staging
            folder.check()
            staging.forget()
            with refusing_write_errors(out):
                for split in SPLITS:
                    (out / "split" / f"{split}.txt").unlink(missing_ok=True)
                for path in sorted(staging.path.iterdir(), key=lambda path: path.name == "split"):  # the splits last
                    _move(path, out / path.name)
        finally:
            if not staging.can_resume:
                shutil.rmtree(staging.path, ignore_errors=True)


def _move(source: Path, target: Path) -> None:
    """Move a file or folder, replacing the target; folders are merged."""
    if source.is_dir() and target.is_dir():
        for entry in list(os.scandir(source)):
            _move(Path(entry.path), target / entry.name)
    else:
        shutil.move(source, target)  # also if the target is a link to another disk


def check_clip_id(clip_id: str) -> None:
    """Raise InputError if a name cannot be a clip id, which is a line of a split file and a path below the folder."""
    reason = ""
    if any("\ud800" <= character <= "\udfff" for character in clip_id):
        reason = "is not Unicode text"
    elif [clip_id] != clip_id.strip().removeprefix("\ufeff").splitlines():
        reason = "begins or ends with a space, or holds a line break"
    elif any(part in ("", ".", "..") or "\0" in part for part in clip_id.split("/")):
        reason = "is no path below the data folder"
    elif any(len(part.encode()) > LONGEST_NAME for part in clip_id.split("/")):
        reason = f"has more than {LONGEST_NAME} bytes"
    if reason:
        raise InputError(f"the name {shown(repr(clip_id), 60)} {reason}, and cannot be a clip id; rename the file")
