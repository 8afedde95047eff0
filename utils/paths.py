"""Files that come with the code, and folders for caches, from any working directory and without a home."""

import os
import stat
import tempfile
from collections.abc import Iterable
from functools import cache
from glob import glob
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]  # folder of the packages: the repository, or the installed package
SHIPPED = ("assets", "checkpoints", "configs")  # folders beside them
APP = "text-to-motion"


def find_shipped(path: str | Path) -> Path:
    """Return a path, or the file or folder of that name beside the code if there is none in the working directory.

    Only relative paths into the folders of ``SHIPPED`` are searched beside the code: "checkpoints/demo".
    """
    path = Path(path)
    beside = ROOT / path
    is_shipped = not path.is_absolute() and path.parts[:1] and path.parts[0] in SHIPPED and ".." not in path.parts
    return beside if is_shipped and not os.path.exists(path) and os.path.exists(beside) else path


def files_of(words: Iterable[str]) -> list[Path]:
    """Return the files that the words of a command line name.

    A word that is no file may be a pattern such as outputs/*.npz, which PowerShell does not replace by the files.
    """
    files: list[Path] = []
    for word in words:
        matching = [] if os.path.exists(word) else sorted(glob(word))
        files += map(Path, matching or [word])
    return files


@cache
def cache_folder() -> Path:
    """Return a folder for caches: that of the user or, if it cannot be written, a private temporary one."""
    own = user_cache()
    if own is not None and is_writable(own / APP):
        return own / APP
    temporary = Path(tempfile.gettempdir())
    if not hasattr(os, "getuid"):  # Windows, where each user has a temporary folder
        return temporary / APP
    return _private_folder(temporary / f"{APP}-{os.getuid()}")


def user_cache() -> Path | None:
    """Return XDG_CACHE_HOME or ~/.cache; None for a user without a home."""
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    except RuntimeError:
        return None


def use_writable_caches() -> None:
    """Move the caches of numba and matplotlib into ``cache_folder`` where their default places cannot be written.

    By default, numba writes beside the code, and matplotlib into the home. Must precede their imports.
    """
    if not os.access(ROOT, os.W_OK):
        os.environ.setdefault("NUMBA_CACHE_DIR", str(cache_folder() / "numba"))
    if cache_folder().parent != user_cache():
        os.environ.setdefault("MPLCONFIGDIR", str(cache_folder() / "matplotlib"))


def is_writable(folder: Path) -> bool:
    """Whether files can be written into a folder, which is created if it is missing."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False


def _private_folder(path: Path) -> Path:
    """Create a folder that only this user can use; if ``path`` is of another user, a new one.

    The cache of numba holds code, which nobody else may write.
    """
    try:
        path.mkdir(mode=0o700, exist_ok=True)
        found = path.lstat()
        if stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid() and not found.st_mode & 0o077:
            return path
    except OSError:
        pass
    return Path(tempfile.mkdtemp(prefix=f"{APP}-"))
