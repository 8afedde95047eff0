"""Place of the files that trainings derive from a data folder: in the folder, or in a cache if it cannot be written."""

import hashlib
import os
from pathlib import Path

from utils.paths import cache_folder, is_writable


def derived_folder(data: Path, name: str) -> Path:
    """Return the folder NAME for derived files, in a data folder or, if it cannot be written there, in the cache."""
    return next((folder for folder in derived_folders(data, name) if is_writable(folder)), data / name)


def derived_folders(data: Path, name: str) -> tuple[Path, Path]:
    """Return the folder NAME for derived files in a data folder and in the cache."""
    return data / name, cache_folder() / hashlib.sha256(os.fsencode(data.resolve())).hexdigest()[:16] / name
