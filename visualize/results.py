"""Reading of results.json of an output folder and its motions; files of other programs are not overwritten."""

import os
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

from formats.clip import read_clip
from motion.clip import Clip
from utils.errors import InputError
from utils.reading.files import MB, read_bytes, shown
from utils.reading.texts import read_json

RESULTS, GALLERY, SHEET = "results.json", "gallery.html", "contact_sheet.png"
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
        own = re.compile(rf"{entry['name']}(\.npz|(_skeleton)?\.(mp4|gif)|\.bvh|\.glb|\.fbx|\.html)")
        foreign = [file for file in entry["files"] if not (isinstance(file, str) and own.fullmatch(file))]
        if foreign:
            _refuse(path, f"entry {number} lists {shown(foreign[0], 40)!r}, which is not a file of its motion")
    return entries


def saved_motions(folder: Path, shown_in: str) -> Iterator[tuple[Clip, dict[str, Any]]]:
    """Yield the motions of results.json, titled with their prompts, and their entries.

    Motions whose npz was removed or cannot be read are left out; the latter are printed.

    Args:
        shown_in: Name of the file that shows them, for this print.
    """
    for entry in read_results(folder):
        file = folder / f"{entry['name']}.npz"
        if file.is_file() and file.resolve().parent == folder.resolve():
            try:
                yield replace(read_clip(file), title=entry["prompt"]), entry
            except InputError as error:
                print(f"left out of {shown_in}: {error}")


def check_own(path: Path, content: str) -> None:
    """Raise InputError if a gallery or contact sheet exists and is a file of another program.

    Args:
        content: Text that every file of this kind contains.
    """
    if os.path.lexists(path):
        try:
            is_ours = content.encode() in read_bytes(path, "a file", LARGEST)
        except InputError as error:
            _refuse(path, str(error).removeprefix(f"{path}: ").partition(";")[0])
        if not is_ours:
            _refuse(path, "it is another page or picture")


def _refuse(path: Path, reason: str) -> NoReturn:
    raise InputError(
        f"{path} was not written by this program ({reason}) and is not overwritten; move it away, or choose another "
        "--out-dir"
    )
