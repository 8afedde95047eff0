"""Captions of a whole data set in one file: a table (CSV, TSV or JSON lines) or rules (YAML, dataset/captions.py)."""

import csv
import io
import math
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from dataset.caption_sides import mirror_caption
from dataset.captions import CaptionLine, CaptionRules
from utils.errors import InputError
from utils.reading.files import MB, refusing, shown
from utils.reading.texts import parse_json, read_lines, read_text

COLUMNS = ("file", "text", "from", "to")
LARGEST = 1024 * MB
ADVICE = "give the columns file, text and, for a part of a clip, from and to in seconds"


def caption_line(text: str, span: tuple[float, float] | None = None) -> str:
    """Return the line of ``texts/<id>.txt`` for a caption of the whole clip, or of a part (from, to) in seconds."""
    text = " ".join(text.split())
    if span is None and CaptionLine.parse(text) == (text, None):
        return text
    start, end = span or (0.0, 0.0)
    return f"{text}##{round(float(start), 4)}#{round(float(end), 4)}"


def mirrored_line(line: str) -> str:
    """Return the caption line of a mirrored clip, with left and right exchanged."""
    caption, span = CaptionLine.parse(line)
    return caption_line(mirror_caption(caption), span)


def is_rules(path: Path) -> bool:
    """Return whether a file holds rules (YAML) and no table, by its suffix."""
    return path.suffix.lower() not in (".csv", ".tsv", ".jsonl")


class CaptionFile:
    """Captions for the files of a source.

    Args:
        path: ``.csv``, ``.tsv`` or ``.jsonl`` with the columns file, text, from and to; or YAML rules.
        count: Maximum number of captions per clip from rules.

    Raises:
        InputError: the file cannot be read, or a row is invalid; the message names it.
    """

    def __init__(self, path: Path, count: int):
        self.path, self.count = path, count
        self.rules: CaptionRules | None = None
        self.lines: dict[str, list[str]] = {}
        self._used: set[str] = set()
        if is_rules(path):
            self.rules = CaptionRules.from_yaml(path)
            return
        for place, row in _rows(path):
            with refusing(path, "a table of captions", ADVICE):
                name, line = _checked_row(row, place)
                self.lines.setdefault(name, []).append(line)
        if not self.lines:
            raise InputError(f"{shown(path, 200)} holds no captions; {ADVICE}")

    def of(self, name: str) -> tuple[str, ...]:
        """Return the caption lines of a file.

        Args:
            name: Path of the file below the source, without its suffix. A table may name the file alone.

        Raises:
            InputError: it has none.
        """
        stem = PurePosixPath(name).name
        if self.rules:
            return tuple(caption_line(caption) for caption in self.rules.captions(stem, self.count))
        key = name if name in self.lines else stem
        if key not in self.lines:
            raise InputError(f"{shown(self.path, 200)} has no row for the file {shown(name)}; add its captions")
        self._used.add(key)
        return tuple(self.lines[key])

    def without_file(self, source: Path) -> dict[str, str]:
        """Return the names in the table that no file of the source has, each with the reason why it is left out."""
        return {
            name: f"{shown(self.path, 200)}: it has captions for {shown(name)}, which is not in {shown(source, 150)}"
            for name in self.lines
            if name not in self._used
        }


def _rows(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the place of each row, for messages, and its cells by column."""
    if path.suffix.lower() == ".jsonl":
        for number, line in enumerate(read_lines(path, "captions", LARGEST), 1):
            if line.strip():
                with refusing(path, "JSON lines", "correct that line"):
                    value = parse_json(line)
                    if not isinstance(value, dict):
                        raise InputError(f"line {number} is no object")
                yield f"line {number}", value
        return
    delimiter = "," if path.suffix.lower() == ".csv" else "\t"
    rows = csv.reader(io.StringIO(read_text(path, "captions", LARGEST), newline=""), delimiter=delimiter, strict=True)
    with refusing(path, "a table of captions", ADVICE):
        header = [cell.strip().lower() for cell in next(rows, [])]
        if missing := [column for column in COLUMNS[:2] if column not in header]:
            raise InputError(f"it has no column {missing[0]}")
        for row in rows:
            if any(row):
                yield f"line {rows.line_num}", dict(zip(header, row, strict=False))


def _checked_row(row: dict[str, Any], place: str) -> tuple[str, str]:
    """Return the name of the file, without suffix, and the caption line of a row."""
    name, text = row.get("file"), row.get("text")
    if not isinstance(name, str) or not isinstance(text, str) or not name.strip() or not text.strip():
        raise InputError(f"{place} has no file or no text")
    times = [_seconds(row.get(key), f"{key} of {place}") for key in ("from", "to")]
    if (times[0] is None) != (times[1] is None):
        raise InputError(f"{place} has only one of from and to")
    path = PurePosixPath(name.strip().replace("\\", "/"))
    known = path.suffix.lower() in (".bvh", ".glb", ".gltf", ".vrma", ".npz", ".npy")
    if times[0] is None or times[1] is None:
        return str(path.with_suffix("") if known else path), caption_line(text)
    if times[1] <= times[0]:
        raise InputError(f"{place} ends at {times[1]:g} s, not after its start")
    return str(path.with_suffix("") if known else path), caption_line(text, (times[0], times[1]))


def _seconds(value: Any, name: str) -> float | None:
    """Return a time in seconds, or None for an empty cell."""
    if value is None or isinstance(value, str) and not value.strip():
        return None
    try:
        seconds = float(value)
    except (TypeError, ValueError):
        seconds = math.nan
    if isinstance(value, bool) or not 0 <= seconds < math.inf:
        raise InputError(f"{name} is {shown(repr(value), 40)} instead of seconds")
    return seconds
