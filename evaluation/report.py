"""The report of an evaluation: its tables, evaluation.json, evaluation.md, and a page of example motions."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from evaluation.text_motion import Interval
from motion.clip import Clip
from motion.features272 import features_to_smplx85
from utils.errors import shown
from utils.files import atomic_write
from visualize.page import write_gallery

RESULTS, PAGE, GALLERY = "evaluation.json", "evaluation.md", "evaluation.html"
LONGEST_CELL = 1200  # characters; prompts have up to 1000
Value = float | Interval | None


class Column(NamedTuple):
    """A column of a table."""

    name: str
    decimals: int = 3


@dataclass
class Table:
    """A table of numbers."""

    title: str
    columns: Sequence[Column]
    rows: dict[str, Sequence[Value]] = field(default_factory=dict)
    """Values of each row, by its name; None for a cell without a value."""

    def markdown(self) -> str:
        """Return the table in Markdown, aligned to be readable as text; intervals have the half width beside."""
        header = ["", *(column.name for column in self.columns)]
        rows = [
            [name, *(_cell(value, column.decimals) for value, column in zip(values, self.columns, strict=True))]
            for name, values in self.rows.items()
        ]
        return markdown_table(header, rows)

    def to_json(self) -> dict[str, dict[str, Any]]:
        """Return the values by row and column; an interval is its mean and half width."""
        return {
            name: {column.name: _plain(value) for value, column in zip(values, self.columns, strict=True)}
            for name, values in self.rows.items()
        }


class Example(NamedTuple):
    """A motion for the page, with a title and a note."""

    title: str
    note: str
    features: np.ndarray  # (T, 272), not normalized


@dataclass
class Report:
    """Results of an evaluation."""

    command: str
    """Key of the results in evaluation.json."""
    title: str
    settings: dict[str, Any]
    """Options and checkpoints that the numbers depend on."""
    tables: list[Table] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    """Sentences on clips and motions that were left out or changed."""
    sections: list[str] = field(default_factory=list)
    """Further Markdown between the tables and the notes."""
    examples: list[Example] = field(default_factory=list)
    """Motions for the page."""
    details: dict[str, Any] = field(default_factory=dict)
    """Further numbers for evaluation.json, for example per clip."""

    def markdown(self) -> str:
        """Return title, tables and notes in Markdown."""
        tables = (f"## {table.title}\n\n{table.markdown()}" for table in self.tables)
        return "\n\n".join([f"# {self.title}", *tables, *filter(None, self.sections), *self.notes])

    def write(self, folder: Path) -> None:
        """Print the report, and write evaluation.json, evaluation.md and, with examples, evaluation.html.

        Raises:
            InputError: a file cannot be written.
        """
        print(self.markdown())
        numbers = {"settings": self.settings, "tables": {table.title: table.to_json() for table in self.tables}}
        write_results(folder, {self.command: numbers | {"notes": self.notes} | self.details}, self.markdown())
        if self.examples:
            clips = [Clip(features_to_smplx85(example.features), example.title) for example in self.examples]
            print(write_gallery(folder / GALLERY, clips, notes=[example.note for example in self.examples]))


def write_results(folder: Path, numbers: dict[str, Any], page: str) -> None:
    """Write evaluation.json and evaluation.md.

    Raises:
        InputError: a file cannot be written.
    """
    for name, text in ((RESULTS, json.dumps(numbers, indent=1)), (PAGE, page)):
        with atomic_write(folder / name) as temporary:
            temporary.write_text(text + "\n", encoding="utf-8")
    print(f"\nresults in {folder / PAGE} and {folder / RESULTS}")


def worst_and_median(distances: np.ndarray, count: int) -> list[tuple[str, int]]:
    """Return ("worst" or "median", number) of the ``count`` items of the largest, and of the middle, distances (N,)."""
    order = np.argsort(-distances, kind="stable")
    middle = max(count, (len(order) - count) // 2)
    chosen = {"worst": order[:count], "median": order[middle : middle + count]}
    return [(kind, int(number)) for kind, numbers in chosen.items() for number in numbers]


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table with aligned columns, which is readable as text, too; line ends in cells are escaped."""
    cells = [[shown(cell, LONGEST_CELL).replace("|", "\\|") for cell in row] for row in [header, *rows]]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = ["| " + " | ".join(map(str.ljust, row, widths)) + " |" for row in cells]
    return "\n".join([lines[0], "|" + "|".join("-" * (width + 2) for width in widths) + "|", *lines[1:]])


def _cell(value: Value, decimals: int) -> str:
    if value is None:
        return ""
    mean = float(value.mean if isinstance(value, Interval) else value)
    text = f"{round(mean, decimals) + 0.0:,.{decimals}f}"  # no -0.000
    return f"{text} ± {float(value.half_width):.{decimals}f}" if isinstance(value, Interval) else text


def _plain(value: Value) -> Any:
    if isinstance(value, Interval):
        return {"mean": float(value.mean), "half_width": float(value.half_width)}
    return None if value is None else float(value)
