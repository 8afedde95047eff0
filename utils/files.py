"""Atomic writing of files, and removal of leftovers of killed writers."""

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from uuid import uuid4

from utils.errors import InputError, reason_of

# Temporary names: atomic_write, models (.saving-), states (.step-), file locks.
TEMPORARY = re.compile(r"\.([0-9a-f]{32}(\.\w+)?|saving-\w+|step-\d{8,}|results\.json\.lock)")


@contextmanager
def refusing_write_errors(path: Path) -> Iterator[None]:
    """Convert an OSError in the context to an InputError about ``path``."""
    try:
        yield
    except OSError as error:
        raise InputError(f"cannot write {path}: {reason_of(error)}; choose a writable place with free space") from error


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Yield a temporary path with the suffix of ``path``, which is renamed to ``path`` on success.

    The folder is created if needed. On an error, an existing file at ``path`` is kept.

    Raises:
        InputError: if the file cannot be written.
    """
    temporary = path.with_name(f".{uuid4().hex}{path.suffix}")
    try:
        with refusing_write_errors(path):
            with suppress(FileExistsError):  # a file in place of a folder, which the writer reports
                path.parent.mkdir(parents=True, exist_ok=True)
            yield temporary
            os.replace(temporary, path)
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def remove_leftovers(folder: Path, subfolders: bool = False) -> None:
    """Remove the temporary files and folders of writers that were killed; no writer may be alive.

    Args:
        folder: Folder to clean; it may be missing.
        subfolders: Clean its subfolders as well.
    """
    with suppress(OSError):
        entries = list(os.scandir(folder))
        for entry in entries:
            is_folder = entry.is_dir(follow_symlinks=False)
            if TEMPORARY.fullmatch(entry.name):
                if is_folder:
                    shutil.rmtree(entry.path, ignore_errors=True)
                else:
                    with suppress(OSError):
                        os.unlink(entry.path)
            elif is_folder and subfolders:
                remove_leftovers(Path(entry.path), subfolders)
