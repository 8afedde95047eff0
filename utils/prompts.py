"""Prompts and prompt files: the motions to generate, with their names and seeds."""

import contextlib
import csv
import hashlib
import io
import itertools
import json
import math
import re
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from utils.errors import InputError
from utils.reading.files import shown
from utils.reading.texts import parse_json, read_json, read_lines, read_text

MAX_SEED = 2**62  # torch takes seeds below 2**63; the rest is for the seeds of further samples
MAX_SAMPLES = 100_000  # per prompt
MAX_PROMPT = 1000  # characters; the text encoders read a few dozen words
BAR = "|"  # between the sentences of a prompt; spaces around it are optional
# Names with another meaning: NAME_skeleton.mp4 is the skeleton video of NAME, the others are devices on Windows.
RESERVED = re.compile(r".*_skeleton|con|prn|aux|nul|(com|lpt)[0-9]", re.IGNORECASE)
EXAMPLE = '{"prompt": "a person walks"}'
KEYS = ("prompt", "name", "seed", "length", "constraints")
USE_KEYS = "use prompt, name, seed, length (in seconds) and constraints"
# Lines of other programs: MoMask's text#120 (frames) or text#NA, and HumanML3D's caption#tokens#from#to
TEXT_AND_LENGTH = re.compile(r".*\S#\s*(?:\d+(?:\.\d+)?|NA)", re.DOTALL)
HUMANML3D = re.compile(r"[^#]+#[^#]*#\s*(?:nan|\d+\.\d*)\s*#\s*(?:nan|\d+\.\d*)")


@dataclass(frozen=True)
class Prompt:
    """A validated prompt; ``str`` gives it as one text."""

    sentences: tuple[str, ...]
    """One continuous motion follows them in turn."""

    @classmethod
    def parse(cls, prompt: "str | list[str] | Prompt") -> "Prompt":
        """Validate a prompt and split it into sentences.

        Args:
            prompt: A text in which ``BAR`` separates sentences, or a list of sentences without bars. A ``Prompt`` is
                returned unchanged.

        Raises:
            InputError: the prompt is not Unicode text of 1 to ``MAX_PROMPT`` characters, or one of its sentences is
                empty or holds a bar.
        """
        if isinstance(prompt, Prompt):
            return prompt
        sentences = prompt.split(BAR) if isinstance(prompt, str) else prompt
        if not (
            isinstance(sentences, list)
            and sentences
            and all(isinstance(sentence, str) and is_visible(sentence) for sentence in sentences)
        ):
            raise InputError("a prompt is empty or not a text; describe a motion, for example: a person walks forward")
        parsed = cls(tuple(map(str.strip, sentences) if len(sentences) > 1 else sentences))
        text = str(parsed)
        if len(text) > MAX_PROMPT:
            raise InputError(f"a prompt has {len(text)} characters ({shown(text, 40)} ...); shorten it to {MAX_PROMPT}")
        if any(character == "\0" or "\ud800" <= character <= "\udfff" for character in text):
            raise InputError(f"the prompt {shown(text, 40)!r} contains bytes that are not UTF-8 text; type it again")
        if any(BAR in sentence for sentence in parsed.sentences):
            raise InputError(
                f"the sentence {shown(text, 60)!r} of a list holds {BAR}, which separates sentences; split it"
            )
        return parsed

    def __str__(self) -> str:
        return f" {BAR} ".join(self.sentences)


def is_visible(text: str) -> bool:
    """Whether a text has characters that can be seen, besides spaces and marks such as U+200B."""
    return any(character.isprintable() and not character.isspace() for character in text)


@dataclass(frozen=True)
class PromptItem:
    """One motion to generate."""

    name: str
    """Name of its files: letters, digits, hyphens and underscores."""
    prompt: str
    """Valid text for ``Prompt.parse``."""
    seed: int
    seconds: float | None = None
    """Length of the motion; None lets the generator end it."""
    constraints: str | dict[str, Any] | None = None
    """Constraints (``control.files``), or the name of a file with them."""


def read_prompts(path: Path, seed: int, samples: int) -> list[PromptItem]:
    """Read a prompt file; its suffix, in any case, gives its form.

    .txt: a prompt per line. .jsonl: an object per line. .json: a list of texts and objects, or one object. .csv and
    .tsv: a header line with the names of keys, then a prompt per row.

    An object has the key prompt (a text, or a list of sentences) and optionally name, seed, length (in seconds) and
    constraints (an object, or the name of a file).
    Blank lines are skipped. Each prompt yields ``samples`` items with successive seeds; see ``expand``.

    Raises:
        InputError: the suffix is unknown, or the file is missing, empty, or has an invalid entry; the message names it.
    """
    readers = {".txt": _read_txt, ".jsonl": _read_jsonl, ".json": _read_json, ".csv": _read_csv, ".tsv": _read_csv}
    reader = readers.get(path.suffix.lower())
    if reader is None:
        *others, last = readers
        raise InputError(
            f"{shown(path, 200)} has no suffix of a prompt file; give a {', '.join(others)} or {last} file"
        )
    entries = []
    for place, entry in reader(path):
        try:
            entries.append(_validated_entry(entry()))
        except InputError as error:
            raise InputError(f"{shown(path, 200)}, {place}: {error}") from error
    if not entries:
        raise InputError(f"the prompt file {shown(path, 200)} contains no prompt; write one per line")
    return expand(entries, seed, samples)


def _validated_entry(entry: dict[str, Any]) -> dict[str, Any]:
    """Check keys, types and values of an entry, and return it with its prompt as one text."""
    if "prompt" not in entry:
        raise InputError(f"no prompt; write one, for example {EXAMPLE}")
    unknown = next((key for key in sorted(entry) if key not in KEYS), None)
    if unknown is not None:
        raise InputError(f"the key {shown(unknown, 40)} is unknown; {USE_KEYS}")
    prompt = entry["prompt"]
    if not isinstance(prompt, str | list):
        raise InputError(f"prompt is {shown(prompt, 40)}; give a text or a list of sentences")
    kinds: dict[str, Any] = {"name": str, "seed": int, "length": int | float}
    for key, kind in kinds.items():
        if key in entry and (not isinstance(entry[key], kind) or isinstance(entry[key], bool)):
            needed = {"name": "a text", "seed": "a whole number", "length": "a number"}[key]
            raise InputError(f"{key} is {shown(repr(entry[key]), 40)}; give {needed}")
    if not isinstance(entry.get("constraints", ""), str | dict):
        raise InputError(
            f"constraints is {shown(repr(entry['constraints']), 40)}; give an object, or the name of a file"
        )
    if not 0 <= entry.get("seed", 0) < MAX_SEED:
        raise InputError(f"seed is {entry['seed']}; give 0 to {MAX_SEED - 1}")
    if not 0 < entry.get("length", 1) < math.inf:
        raise InputError(f"length is {entry['length']}; give seconds above 0")
    return {**entry, "prompt": str(Prompt.parse(prompt))}


# --- Forms of prompt files. A reader yields the place of an entry, for messages, and a function that parses the entry.

Entry = Callable[[], dict[str, Any]]


def _read_txt(path: Path) -> Iterator[tuple[str, Entry]]:
    for number, line in enumerate(read_lines(path, "prompts"), 1):
        if line.strip():
            yield f"line {number}", partial(_text_entry, line.strip())


def _text_entry(line: str) -> dict[str, Any]:
    """Return the entry of a line of a text file; raises InputError for lines in the form of other programs."""
    Prompt.parse(line)
    if line.startswith("{") and '"prompt"' in line:
        raise InputError("the line is JSON; name the file .jsonl")
    if HUMANML3D.fullmatch(line):
        raise InputError("the line has the tokens and times of HumanML3D; keep the text before the first #")
    if TEXT_AND_LENGTH.fullmatch(line):
        end = shown(line[line.rindex("#") :], 20)
        raise InputError(f"{end} at the end is no length here; give length, in seconds, in a .jsonl or .csv file")
    return {"prompt": line}


def _read_jsonl(path: Path) -> Iterator[tuple[str, Entry]]:
    for number, line in enumerate(read_lines(path, "prompts"), 1):
        if line.strip():
            yield f"line {number}", partial(_json_entry, line)


def _json_entry(line: str) -> dict[str, Any]:
    try:
        value = parse_json(line)
    except InputError as error:
        raise InputError(f"{error}; write {EXAMPLE}") from error
    return _json_value(value, texts=False)


def _json_value(value: object, texts: bool = True) -> dict[str, Any]:
    """Return an object, or the object that a text stands for where ``texts`` are allowed."""
    if texts and isinstance(value, str):
        return {"prompt": value}
    if not isinstance(value, dict) or "prompt" not in value:
        raise InputError(f"{shown(repr(value), 40)} is not an object with a prompt, such as {EXAMPLE}")
    return value


def _read_json(path: Path) -> Iterator[tuple[str, Entry]]:
    content = read_json(path)
    if isinstance(content, list):
        for number, entry in enumerate(content, 1):
            yield f"entry {number}", partial(_json_value, entry)
    else:
        yield "its content", partial(_json_value, content, texts=False)


def _read_csv(path: Path) -> Iterator[tuple[str, Entry]]:
    delimiter = "," if path.suffix.lower() == ".csv" else "\t"
    rows = csv.reader(io.StringIO(read_text(path, "prompts"), newline=""), delimiter=delimiter, strict=True)
    header: list[str] = []
    try:
        for row in rows:
            cells = [cell.strip() for cell in row]
            if not any(cells):
                continue
            if header:
                yield f"line {rows.line_num}", partial(_row_entry, header, cells)
            else:
                header = [cell.lower() for cell in cells]
                _check_header(header)
    except csv.Error as error:
        raise InputError(
            f"{shown(path, 200)}, line {rows.line_num}: no row of a table ({error}); correct it"
        ) from error
    except InputError as error:
        raise InputError(f"{shown(path, 200)}, line {rows.line_num}: {error}") from error


def _check_header(header: list[str]) -> None:
    if "prompt" not in header:
        raise InputError(f"no column is named prompt; begin the file with a header line such as {','.join(KEYS)}")
    for column in header:
        if column and column not in KEYS:
            raise InputError(f"the column {shown(column, 40)} is unknown; {USE_KEYS}")
        if column and header.count(column) > 1:
            raise InputError(f"two columns are named {column}; remove one")


def _row_entry(header: list[str], cells: list[str]) -> dict[str, Any]:
    """Return the entry of a row; empty cells are left out, and numbers are converted."""
    if any(cells[len(header) :]):
        raise InputError(f"the row has {len(cells)} cells and the header {len(header)}; put the text in quotes")
    entry: dict[str, Any] = {key: cell for key, cell in zip(header, cells, strict=False) if cell}
    for key, kind in (("seed", int), ("length", float)):
        with contextlib.suppress(KeyError, ValueError):  # absent, or refused by the validation
            entry[key] = kind(entry[key])
    return entry


# --- Items


def expand(entries: list[dict[str, Any]], seed: int, samples: int) -> list[PromptItem]:
    """Return ``samples`` items per entry, with successive seeds and safe, unique names.

    Seeds start from that of the entry. Entries without one share the seeds from ``seed`` on: a repeated prompt (of the
    same length and constraints) takes the next seeds, so that no motion is made twice.

    A name is made from prompt and seed, so that it is the same in other files and runs. A name in the entry is kept
    unchanged if ``samples`` is 1.
    """
    given: dict[tuple, set[int]] = defaultdict(set)  # seeds of entries with a seed
    for entry in entries:
        if "seed" in entry:
            given[_without_seed(entry)].update(range(entry["seed"], entry["seed"] + samples))
    free: dict[tuple, Iterator[int]] = {}
    items, taken = [], {"gallery": 1}  # gallery.html shows all motions
    for entry in entries:
        key = _without_seed(entry)
        if key not in free:
            free[key] = (number for number in itertools.count(seed) if number not in given[key])
        seeds = itertools.count(entry["seed"]) if "seed" in entry else free[key]
        for item_seed in itertools.islice(seeds, samples):
            name = safe_name(entry.get("name") or entry["prompt"])
            if samples > 1 or not entry.get("name"):
                name = f"{name}_seed{item_seed}"
            others = entry.get("length"), entry.get("constraints")
            items.append(PromptItem(_unique(name, taken), entry["prompt"], item_seed, *others))
    return items


def _without_seed(entry: dict[str, Any]) -> tuple:
    """Return what distinguishes the motions of an entry from those of others with the same seed."""
    return entry["prompt"], entry.get("length"), json.dumps(entry.get("constraints"), sort_keys=True)


def _unique(name: str, taken: dict[str, int]) -> str:
    """Return the name, with a number if it is taken; ``taken`` counts names in lower case, as some file systems do."""
    first = name
    while name.lower() in taken:
        taken[first.lower()] += 1
        name = f"{first}_{taken[first.lower()]}"
    taken[name.lower()] = 1
    return name


def safe_name(text: str, length: int = 60) -> str:
    """Turn any text into a file name of ASCII letters, digits, hyphens and underscores.

    If more than punctuation is dropped, or the name is reserved, six digits of a hash distinguish different texts.
    """
    plain = unicodedata.normalize("NFKD", re.sub(r"[.,;:!?'\"]", "", text)).encode("ascii", "ignore").decode()
    whole = re.sub(r"[^A-Za-z0-9_-]+", "-", plain).strip("-")
    name = whole[:length].rstrip("-")
    if name == whole and text.isascii() and "/" not in text and not RESERVED.fullmatch(name):
        return name or "motion"
    return f"{name or 'motion'}-{hashlib.sha256(text.encode(errors='surrogatepass')).hexdigest()[:6]}"
