"""Place of the files that trainings derive from a data folder: in the folder, or in a cache if it cannot be written."""

import hashlib
import os
import tempfile
from pathlib import Path

CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "text-to-motion"


def derived_folder(data: Path, name: str) -> Path:
    """Return the folder NAME for derived files, in a data folder or, if it cannot be written there, in the cache."""
    return next((folder for folder in derived_folders(data, name) if is_writable(folder)), data / name)


def derived_folders(data: Path, name: str) -> tuple[Path, Path]:
    """Return the folder NAME for derived files in a data folder and in the cache."""
    return data / name, CACHE / hashlib.sha256(str(data.resolve()).encode()).hexdigest()[:16] / name


def is_writable(folder: Path) -> bool:
    """Whether files can be written into a folder, which is created if it is missing."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False
