"""Locks of folders and files between processes. The system releases them when a process ends, also by SIGKILL.

On file systems without locks, and on Windows, nothing is locked.
"""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from utils.errors import InputError
from utils.files import refusing_write_errors, remove_leftovers

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

LOCK = ".lock"  # in a folder that one process has for itself
PATIENCE = 10.0  # seconds to wait for a process that is removing leftovers

_held: set[int] = set()


def _close_held() -> None:
    for descriptor in _held:
        os.close(descriptor)
    _held.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_close_held)  # or a lock would last as long as a data loading process


class FolderInUse:
    """A folder that this process writes into."""

    def __init__(self, path: Path):
        self.path, self._identity = path, os.stat(path)

    def check(self) -> None:
        """Raise InputError if the folder has been removed or replaced since."""
        with suppress(OSError):
            if os.path.samestat(os.stat(self.path), self._identity):
                return
        raise InputError(f"the folder {self.path} was removed while it was in use; run the same command again")


@contextmanager
def exclusive_folder(path: Path, writer: str, option: str, subfolders: bool = False) -> Iterator[FolderInUse]:
    """Create a folder and lock it for this process alone; leftovers of killed processes are removed.

    A folder that was created and is still empty at the end is removed.

    Args:
        path: The folder.
        writer: Noun of the program that holds it, for the error: "training".
        option: Option that names the folder, for the error.
        subfolders: Remove leftovers in its subfolders as well.

    Raises:
        InputError: another process has the folder, or it cannot be created.
    """
    is_new = not path.exists()
    with refusing_write_errors(path):
        path.mkdir(parents=True, exist_ok=True)
        descriptor = _locked(path / LOCK, wait=False)
    if descriptor is None:
        raise InputError(f"another {writer} is writing into {path}; wait for its end, or choose another {option}")
    try:
        remove_leftovers(path, subfolders)
        yield FolderInUse(path)
    finally:
        _release(path / LOCK, descriptor)
        if is_new:
            with suppress(OSError):  # not empty
                path.rmdir()


@contextmanager
def shared_folder(path: Path) -> Iterator[FolderInUse]:
    """Mark a folder as in use, which several processes may do; the first and the last one remove leftovers.

    Raises:
        InputError: the folder cannot be used.
    """
    if fcntl is None:
        yield FolderInUse(path)
        return
    with refusing_write_errors(path):
        descriptor = os.open(path, os.O_RDONLY)  # the lock is on the folder itself, so that no file appears in it
    _held.add(descriptor)
    try:
        _remove_leftovers_if_alone(path, descriptor)
        patience = time.monotonic() + PATIENCE
        while not _lock(descriptor, "LOCK_SH") and time.monotonic() < patience:
            time.sleep(0.05)
        yield FolderInUse(path)
    finally:
        _remove_leftovers_if_alone(path, descriptor)
        _close(descriptor)


@contextmanager
def exclusive_file(path: Path) -> Iterator[None]:
    """Wait until no other process is inside this context for the same file.

    Raises:
        InputError: the lock file, which exists inside the context, cannot be written.
    """
    lock = path.with_name(f".{path.name}{LOCK}")
    with refusing_write_errors(path):
        descriptor = _locked(lock, wait=True)
    try:
        yield
    finally:
        _release(lock, descriptor)


def _locked(lock: Path, wait: bool) -> int | None:
    """Create and lock a lock file; returns its descriptor, or None if another process has it, unless ``wait``."""
    while True:
        descriptor = os.open(lock, os.O_RDWR | os.O_CREAT, 0o666)
        if not _lock(descriptor, "LOCK_EX", wait):
            os.close(descriptor)
            return None
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(descriptor), os.stat(lock)):
                _held.add(descriptor)
                return descriptor
        os.close(descriptor)  # the file was removed by the process that had it


def _release(lock: Path, descriptor: int | None) -> None:
    if fcntl is None:  # Windows removes no open file
        _close(descriptor)
        descriptor = None
    with suppress(OSError):
        lock.unlink()
    _close(descriptor)


def _close(descriptor: int | None) -> None:
    if descriptor is not None:
        _held.discard(descriptor)
        os.close(descriptor)


def _lock(descriptor: int, kind: str, wait: bool = False) -> bool:
    """Lock a descriptor; returns False if another process has it, and True where there are no locks."""
    try:
        if fcntl is not None:
            fcntl.flock(descriptor, getattr(fcntl, kind) | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    except OSError:
        pass
    return True


def _remove_leftovers_if_alone(path: Path, descriptor: int) -> None:
    if fcntl is not None and _lock(descriptor, "LOCK_EX"):
        remove_leftovers(path)
