"""Prompt files for inference: what to generate, under which names, with which seeds."""

import hashlib
import json
import math
import re
import unicodedata
from dataclasses import dataclass
from pathlib import Path

from utils.errors import InputError

MAX_SEED = 2**62  # leaves room for the samples after it: torch takes seeds below 2**63
MAX_PROMPT = 1000  # characters; the text encoders read a few dozen words
# Names that mean something else: NAME_skeleton.mp4 is the skeleton video of NAME, the others are devices to Windows.
RESERVED = re.compile(r".*_skeleton|con|prn|aux|nul|(com|lpt)[0-9]", re.IGNORECASE)
EXAMPLE = '{"prompt": "a person walks"}'


@dataclass(frozen=True)
class PromptItem:
    """One motion to generate."""

    name: str  # of its files: letters, digits, hyphens and underscores
    prompt: str
    seed: int
    seconds: float | None = None


def read_prompts(path: Path, seed: int, samples: int) -> list[PromptItem]:
    """Read a prompt file: .jsonl (objects with prompt, optionally name, seed, length in seconds) or text, one a line.

    Empty lines are passed over. Each prompt gives ``samples`` items with seeds from its own seed (or ``seed``) upward.

    Raises:
        InputError: the file is missing, empty, or a line of it cannot be used; the message names the line.
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
                entries.append(_check_entry(entry))
            except InputError as error:
                raise InputError(f"{path}, line {number}: {error}") from error
    if not entries:
        raise InputError(f"the prompt file {path} holds no prompt; write one a line")
    return expand(entries, seed, samples)


def _parse_json(line: str) -> object:
    try:
        return json.loads(line)
    except (ValueError, RecursionError) as error:
        place = f" at column {error.colno}" if isinstance(error, json.JSONDecodeError) else ""
        raise InputError(f"not JSON{place}; write {EXAMPLE}") from error


def _check_entry(entry: object) -> dict:
    """Check one entry's keys, types and values."""
    if not isinstance(entry, dict) or "prompt" not in entry:
        raise InputError(f"not an object with a prompt; write {EXAMPLE}")
    unknown = sorted(set(entry) - {"prompt", "name", "seed", "length"})
    if unknown:
        raise InputError(f"the key {unknown[0]} is unknown; use prompt, name, seed and length")
    check_prompt(entry["prompt"])
    for key, kinds in (("name", str), ("seed", int), ("length", int | float)):
        if key in entry and (not isinstance(entry[key], kinds) or isinstance(entry[key], bool)):
            raise InputError(f"{key} is {entry[key]!r}; give a {'text' if key == 'name' else 'number'}")
    if not 0 <= entry.get("seed", 0) < MAX_SEED:
        raise InputError(f"seed is {entry['seed']}; give 0 to {MAX_SEED - 1}")
    if not 0 < entry.get("length", 1) < math.inf:
        raise InputError(f"length is {entry['length']}; give seconds above 0")
    return entry


def expand(entries: list[dict], seed: int, samples: int) -> list[PromptItem]:
    """Items with safe, unique names: each entry ``samples`` times, with successive seeds.

    A motion's name tells its prompt and seed, so that it is the same in other files and runs; a name of the user's own
    is kept as it is where there is one sample.
    """
    items, taken = [], {"gallery"}  # the name of a page of all motions
    for number, entry in enumerate(entries):
        first = entry.get("seed", seed)
        for item_seed in range(first, first + samples):
            name = safe_name(entry.get("name") or entry["prompt"])
            if samples > 1 or not entry.get("name"):
                name = f"{name}_seed{item_seed}"
            while name.lower() in taken:  # some file systems take A and a for one
                name = f"{name}_{number}"
            taken.add(name.lower())
            items.append(PromptItem(name, entry["prompt"], item_seed, entry.get("length")))
    return items


def safe_name(text: str, length: int = 60) -> str:
    """A file name of ASCII letters, digits, hyphens and underscores made from any text.

    Where that drops more than punctuation, or gives a reserved name, six digits of a hash keep different texts apart.
    """
    plain = unicodedata.normalize("NFKD", re.sub(r"[.,;:!?'\"]", "", text)).encode("ascii", "ignore").decode()
    whole = re.sub(r"[^A-Za-z0-9_-]+", "-", plain).strip("-")
    name = whole[:length].rstrip("-")
    if name == whole and text.isascii() and "/" not in text and not RESERVED.fullmatch(name):
        return name or "motion"
    return f"{name or 'motion'}-{hashlib.sha256(text.encode()).hexdigest()[:6]}"


def parts_of(prompt: str | list[str]) -> list[str]:
    """The sentences of a prompt: a list of them, or a text in which `` | `` stands between them."""
    return list(prompt) if isinstance(prompt, list) else prompt.split(" | ") if isinstance(prompt, str) else [prompt]


def check_prompt(prompt: str | list[str]) -> None:
    """Raise InputError unless every sentence of a prompt is Unicode text, all of 1 to ``MAX_PROMPT`` characters."""
    parts = parts_of(prompt)
    if not parts or any(not isinstance(part, str) or not part.strip() for part in parts):
        raise InputError("a prompt is empty or not a text; describe a motion, for example: a person walks forward")
    whole = " | ".join(parts)
    if len(whole) > MAX_PROMPT:
        raise InputError(f"a prompt has {len(whole)} characters ({whole[:40]!r} ...); shorten it to {MAX_PROMPT}")
    if any(character == "\0" or "\ud800" <= character <= "\udfff" for character in whole):
        raise InputError(f"the prompt {whole[:40]!r} holds bytes that are not UTF-8 text; type it anew")
