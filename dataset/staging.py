"""Atomic replacement of the content of a data folder: a run that fails or is killed leaves it unchanged."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dataset.motion_folder import MIRRORED, SPLITS, STATISTICS, VECTORS
from utils.errors import InputError
from utils.files import refusing_write_errors
from utils.locks import exclusive_folder
from utils.reading.files import shown

STAGING = ".preparing"  # removed by the next run, see utils/files.py
LONGEST_NAME = 255 - len(f"{MIRRORED}.npy")  # bytes


@contextmanager
def staged_folder(out: Path) -> Iterator[Path]:
    """Yield an empty data folder, whose content is moved into ``out`` on success.

    Clips of ``out`` with other names are kept. While clips are moved, ``out`` has no splits and cannot be trained on.

    Args:
        out: Data folder; created if needed, and locked against other runs.

    Raises:
        InputError: ``out`` cannot be written, was removed meanwhile, or another process prepares it.
    """
    with exclusive_folder(out, "prepare_data.py", "--out") as folder:
        staging = out / STAGING
        try:
            with refusing_write_errors(out):
                for part in (VECTORS, Path("texts"), Path("split"), STATISTICS):
                    (staging / part).mkdir(parents=True)
            yield staging
            folder.check()
            with refusing_write_errors(out):
                for split in SPLITS:
                    (out / "split" / f"{split}.txt").unlink(missing_ok=True)
                for path in sorted(staging.iterdir(), key=lambda path: path.name == "split"):  # the splits last
                    _move(path, out / path.name)
        finally:
            shutil.rmtree(staging, ignore_errors=True)


def _move(source: Path, target: Path) -> None:
    """Move a file or folder, replacing the target; folders are merged."""
    if source.is_dir() and target.is_dir():
        for entry in list(os.scandir(source)):
            _move(Path(entry.path), target / entry.name)
    else:
        shutil.move(source, target)  # also if the target is a link to another disk


def check_clip_id(clip_id: str) -> None:
    """Raise InputError if a name cannot be a clip id, which is a line of a split file."""
    reason = ""
    if any("\ud800" <= character <= "\udfff" for character in clip_id):
        reason = "is not Unicode text"
    elif [clip_id] != clip_id.strip().removeprefix("\ufeff").splitlines():
        reason = "begins or ends with a space, or holds a line break"
    elif len(clip_id.encode()) > LONGEST_NAME:
        reason = f"has more than {LONGEST_NAME} bytes"
    if reason:
        raise InputError(f"the name {shown(repr(clip_id), 60)} {reason}, and cannot be a clip id; rename the file")
