"""Atomic writing of files."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

from utils.errors import InputError


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Yield a temporary path with the suffix of ``path``, which is renamed to ``path`` on success.

    The folder is created if needed. On an error, an existing file at ``path`` is kept.

    Raises:
        InputError: if the file cannot be written.
    """
    temporary = path.with_name(f".{uuid4().hex}{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        os.replace(temporary, path)
    except OSError as error:
        reason = error.strerror or error
        raise InputError(f"cannot write {path}: {reason}; choose a writable place with free space") from error
    finally:
        if temporary.parent.is_dir():
            temporary.unlink(missing_ok=True)
