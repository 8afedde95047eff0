"""Validation of results.json and gallery.html of an output folder; files of other programs are not overwritten."""

import os
import re
from pathlib import Path
from typing import Any, NoReturn

from utils.errors import InputError
from utils.reading.files import MB, shown
from utils.reading.texts import read_json, read_text

RESULTS, GALLERY = "results.json", "gallery.html"
NAME = re.compile(r"[A-Za-z0-9_-]{1,200}")  # of a motion, as utils/prompts.py makes them
KINDS: dict[str, Any] = {
    "name": str,
    "prompt": str,
    "seed": int,
    "seconds": int | float,
    "checkpoint": str,
    "files": list,
}
LARGEST = 1024 * MB


def read_results(folder: Path) -> list[dict[str, Any]]:
    """Read and validate results.json.

    Args:
        folder: Output folder.

    Returns:
        An entry per motion; empty if the file is missing. Names are valid file names, and ``files`` are names of files
        of the motion in this folder.

    Raises:
        InputError: the file is not readable, or another program wrote it.
    """
    path = folder / RESULTS
    if not os.path.lexists(path):
        return []
    try:
        entries = read_json(path, LARGEST)
    except InputError as error:
        _refuse(path, str(error).removeprefix(f"{path}: ").partition(";")[0])
    if not isinstance(entries, list):
        _refuse(path, "it holds no list")
    for number, entry in enumerate(entries, 1):
        if not isinstance(entry, dict) or not all(isinstance(entry.get(key), kind) for key, kind in KINDS.items()):
            _refuse(path, f"entry {number} does not have {', '.join(KINDS)}")
        if not NAME.fullmatch(entry["name"]):
            _refuse(path, f"entry {number} has the name {shown(entry['name'], 40)!r}, which is not one of a motion")
        own = re.compile(rf"{entry['name']}(\.npz|(_skeleton)?\.(mp4|gif)|\.bvh|\.glb|\.html)")
        foreign = [file for file in entry["files"] if not (isinstance(file, str) and own.fullmatch(file))]
        if foreign:
            _refuse(path, f"entry {number} lists {shown(foreign[0], 40)!r}, which is not a file of its motion")
    return entries


def check_gallery(folder: Path, content: str) -> None:
    """Raise InputError if gallery.html exists and is not a gallery.

    Args:
        content: HTML that every gallery contains.
    """
    path = folder / GALLERY
    if os.path.lexists(path):
        try:
            is_ours = content in read_text(path, "a gallery", LARGEST)
        except InputError as error:
            _refuse(path, str(error).removeprefix(f"{path}: ").partition(";")[0])
        if not is_ours:
            _refuse(path, "it is another page")


def _refuse(path: Path, reason: str) -> NoReturn:
    raise InputError(
        f"{path} was not written by this program ({reason}) and is not overwritten; move it away, or choose another "
        "--out-dir"
    )
