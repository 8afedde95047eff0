"""Prompts and prompt files: the motions to generate, with their names and seeds."""

import hashlib
import json
import math
import re
import unicodedata
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from utils.errors import InputError

MAX_SEED = 2**62  # torch takes seeds below 2**63; the rest is for the seeds of further samples
MAX_PROMPT = 1000  # characters; the text encoders read a few dozen words
SEPARATOR = " | "  # between the sentences of a prompt
# Names with another meaning: NAME_skeleton.mp4 is the skeleton video of NAME, the others are devices on Windows.
RESERVED = re.compile(r".*_skeleton|con|prn|aux|nul|(com|lpt)[0-9]", re.IGNORECASE)
EXAMPLE = '{"prompt": "a person walks"}'


@dataclass(frozen=True)
class Prompt:
    """A validated prompt; ``str`` gives it as one text."""

    sentences: tuple[str, ...]
    """One continuous motion follows them in turn."""

    @classmethod
    def parse(cls, prompt: "str | list[str] | Prompt") -> "Prompt":
        """Validate a prompt and split it into sentences.

        Args:
            prompt: A text in which ``SEPARATOR`` separates sentences, or a list of sentences. A ``Prompt`` is returned
                unchanged.

        Raises:
            InputError: the prompt is not Unicode text of 1 to ``MAX_PROMPT`` characters, or one of its sentences is
                empty.
        """
        if isinstance(prompt, Prompt):
            return prompt
        sentences = prompt.split(SEPARATOR) if isinstance(prompt, str) else prompt
        if not (
            isinstance(sentences, list)
            and sentences
            and all(isinstance(sentence, str) and sentence.strip() for sentence in sentences)
        ):
            raise InputError("a prompt is empty or not a text; describe a motion, for example: a person walks forward")
        parsed = cls(tuple(sentences))
        text = str(parsed)
        if len(text) > MAX_PROMPT:
            raise InputError(f"a prompt has {len(text)} characters ({text[:40]!r} ...); shorten it to {MAX_PROMPT}")
        if any(character == "\0" or "\ud800" <= character <= "\udfff" for character in text):
            raise InputError(f"the prompt {text[:40]!r} contains bytes that are not UTF-8 text; type it again")
        return parsed

    def __str__(self) -> str:
        return SEPARATOR.join(self.sentences)


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


def read_prompts(path: Path, seed: int, samples: int) -> list[PromptItem]:
    """Read a prompt file: text with one prompt per line, or .jsonl with one object per line.

    An object has the key prompt and optionally name, seed and length (in seconds). Blank lines are skipped. Each prompt
    yields ``samples`` items with successive seeds, starting from its own seed or else from ``seed``.

    Raises:
        InputError: the file is missing, empty, or has an invalid line; the message names the line.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")  # splitlines() would also break at U+2028 in JSON
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"the prompt file {path} cannot be read as text ({error}); check the path") from error
    entries = []
    for number, line in enumerate(lines, 1):
        if line.strip():
            try:
                entry = _parse_json(line) if path.suffix == ".jsonl" else {"prompt": line.strip()}
                entries.append(_validated_entry(entry))
            except InputError as error:
                raise InputError(f"{path}, line {number}: {error}") from error
    if not entries:
        raise InputError(f"the prompt file {path} contains no prompt; write one per line")
    return expand(entries, seed, samples)


def _parse_json(line: str) -> object:
    try:
        return json.loads(line)
    except (ValueError, RecursionError) as error:
        place = f" at column {error.colno}" if isinstance(error, json.JSONDecodeError) else ""
        raise InputError(f"not JSON{place}; write {EXAMPLE}") from error


def _validated_entry(entry: object) -> dict[str, Any]:
    """Check keys, types and values of an entry."""
    if not isinstance(entry, dict) or "prompt" not in entry:
        raise InputError(f"not an object with a prompt; write {EXAMPLE}")
    unknown = sorted(set(entry) - {"prompt", "name", "seed", "length"})
    if unknown:
        raise InputError(f"the key {unknown[0]} is unknown; use prompt, name, seed and length")
    if not isinstance(entry["prompt"], str):
        raise InputError(f"prompt is {str(entry['prompt'])[:40]}; give a text")
    Prompt.parse(entry["prompt"])
    kinds: dict[str, Any] = {"name": str, "seed": int, "length": int | float}
    for key, kind in kinds.items():
        if key in entry and (not isinstance(entry[key], kind) or isinstance(entry[key], bool)):
            raise InputError(f"{key} is {entry[key]!r}; give a {'text' if key == 'name' else 'number'}")
    if not 0 <= entry.get("seed", 0) < MAX_SEED:
        raise InputError(f"seed is {entry['seed']}; give 0 to {MAX_SEED - 1}")
    if not 0 < entry.get("length", 1) < math.inf:
        raise InputError(f"length is {entry['length']}; give seconds above 0")
    return entry


def expand(entries: list[dict[str, Any]], seed: int, samples: int) -> list[PromptItem]:
    """Return ``samples`` items per entry, with successive seeds and safe, unique names.

    A name is made from prompt and seed, so that it is the same in other files and runs. A name in the entry is kept
    unchanged if ``samples`` is 1.
    """
    items, taken = [], {"gallery"}  # gallery.html shows all motions
    for number, entry in enumerate(entries):
        first = entry.get("seed", seed)
        for item_seed in range(first, first + samples):
            name = safe_name(entry.get("name") or entry["prompt"])
            if samples > 1 or not entry.get("name"):
                name = f"{name}_seed{item_seed}"
            while name.lower() in taken:  # some file systems ignore case
                name = f"{name}_{number}"
            taken.add(name.lower())
            items.append(PromptItem(name, entry["prompt"], item_seed, entry.get("length")))
    return items


def safe_name(text: str, length: int = 60) -> str:
    """Turn any text into a file name of ASCII letters, digits, hyphens and underscores.

    If more than punctuation is dropped, or the name is reserved, six digits of a hash distinguish different texts.
    """
    plain = unicodedata.normalize("NFKD", re.sub(r"[.,;:!?'\"]", "", text)).encode("ascii", "ignore").decode()
    whole = re.sub(r"[^A-Za-z0-9_-]+", "-", plain).strip("-")
    name = whole[:length].rstrip("-")
    if name == whole and text.isascii() and "/" not in text and not RESERVED.fullmatch(name):
        return name or "motion"
    return f"{name or 'motion'}-{hashlib.sha256(text.encode()).hexdigest()[:6]}"
