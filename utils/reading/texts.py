"""Text files, JSON, JSON lines, YAML, and templates of texts."""

import codecs
import json
import math
import string
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from utils.errors import InputError, shown
from utils.paths import find_shipped
from utils.reading.files import MB, read_bytes, refusing

MAX_DEPTH = 32  # lists and mappings within one another
MAX_INTEGER = 2**64  # above every seed, size and count
MAX_REPEATED = 100_000  # YAML nodes that aliases stand for
BYTE_ORDER_MARKS = (  # those of UTF-32 begin as those of UTF-16
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)


# --- Text


def read_text(path: str | Path, kind: str = "text", most: int = 64 * MB) -> str:
    r"""Read a text file: UTF-8, or UTF-16 or UTF-32 with a byte order mark.

    Args:
        path: File to read; see also ``utils.paths.find_shipped``.
        kind: Noun of its content, for the error: "a list of clip ids".
        most: Largest size in bytes.

    Returns:
        The text without byte order marks, of which joined files have several; every line end is ``\n``.

    Raises:
        InputError: The file is missing, not a regular file, too large, or not text.
    """
    path = find_shipped(path)
    content = read_bytes(path, kind, most)
    with refusing(path, kind, "save it as UTF-8"):
        mark, encoding = next((pair for pair in BYTE_ORDER_MARKS if content.startswith(pair[0])), (b"", "utf-8"))
        if not mark and b"\0" in content:
            raise InputError("it holds NUL bytes: no text, or UTF-16 without a byte order mark")
        text = content[len(mark) :].decode(encoding)
        if "\0" in text:
            raise InputError("it holds NUL characters")
        return text.replace("\ufeff", "").replace("\r\n", "\n").replace("\r", "\n")


def read_lines(path: str | Path, kind: str = "text", most: int = 64 * MB) -> list[str]:
    """Read the lines of a text file; other separators than line ends, such as U+2028, stay within a line."""
    return read_text(path, kind, most).removesuffix("\n").split("\n")


# --- JSON


def read_json(path: str | Path, most: int = 16 * MB, finite: bool = True) -> Any:
    """Read a JSON file.

    Args:
        path: File to read.
        most: Largest size in bytes.
        finite: Refuse NaN and infinite numbers.

    Returns:
        Its content, nested at most ``MAX_DEPTH`` deep, integers within 64 bits, texts of whole characters.

    Raises:
        InputError: The file cannot be read, or is not such JSON.
    """
    text = read_text(path, "JSON", most)
    with refusing(Path(path), "JSON"):
        return parse_json(text, finite)


def read_json_lines(path: str | Path, most: int = 16 * MB) -> Iterator[tuple[int, Any]]:
    """Read a file with a JSON value on each line; blank lines are left out.

    Yields:
        The number of the line, from 1, and its value.

    Raises:
        InputError: The file cannot be read, or a line is not JSON; the message names the line.
    """
    for number, line in enumerate(read_lines(path, "JSON lines", most), 1):
        if line.strip():
            with refusing(Path(path), "JSON lines", "correct that line"):
                try:
                    value = parse_json(line)
                except InputError as error:
                    raise InputError(f"line {number} is {error}") from error
            yield number, value


def parse_json(text: str | bytes, finite: bool = True) -> Any:
    """Parse JSON that others wrote; see ``read_json``.

    Raises:
        InputError: It is not such JSON; the message can stand after "it is" and names no file.
    """
    try:
        value = json.loads(
            text,
            parse_int=_integer,
            parse_float=_finite if finite else float,
            parse_constant=_finite if finite else float,
        )
    except json.JSONDecodeError as error:
        reason = error.msg.removesuffix(" at")
        raise InputError(f"not JSON ({reason} at line {error.lineno}, column {error.colno})") from error
    except RecursionError as error:
        raise InputError(f"not usable JSON: nested more than {MAX_DEPTH} deep") from error
    except UnicodeDecodeError as error:
        raise InputError("not JSON: its bytes are not UTF-8") from error
    _check_values(value)
    return value


def _integer(digits: str) -> int:
    if len(digits) > 20 or abs(int(digits)) > MAX_INTEGER:
        raise InputError(f"not usable JSON: the number {shown(digits, 40)} is beyond 64 bits")
    return int(digits)


def _finite(number: str) -> float:
    if not math.isfinite(value := float(number)):
        raise InputError(f"not usable JSON: the number {shown(number, 40)} is not finite")
    return value


def _check_values(value: Any) -> None:
    """Raise InputError if JSON is nested too deeply or a text in it holds half a character."""
    level = [value]
    for _ in range(MAX_DEPTH):
        for text in level:
            if isinstance(text, str) and not text.isascii() and any("\ud800" <= c <= "\udfff" for c in text):
                raise InputError(f"not usable JSON: the text {shown(text, 40)!r} holds half of a surrogate pair")
        level = [
            inner
            for outer in level
            if isinstance(outer, (dict, list))
            for inner in (outer if isinstance(outer, list) else [*outer.keys(), *outer.values()])
        ]
        if not level:
            return
    raise InputError(f"not usable JSON: nested more than {MAX_DEPTH} deep")


# --- YAML


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """The safe loader without dates: 2001-01-01 is a text."""

    yaml_implicit_resolvers = {
        first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


def read_yaml(path: str | Path, most: int = 8 * MB) -> Any:
    """Read a YAML file that others wrote: no tags, no dates, limited nesting and aliases.

    Args:
        path: File to read.
        most: Largest size in bytes.

    Returns:
        Its content; None for an empty file. A date is a text.

    Raises:
        InputError: The file cannot be read, or is not such YAML.
    """
    text = read_text(path, "YAML", most)
    with refusing(Path(path), "YAML", "correct the file"):
        return parse_yaml(text)


def parse_yaml(text: str) -> Any:
    """Parse YAML that others wrote; see ``read_yaml``.

    Raises:
        InputError: It is not such YAML; the message names the line where there is one, and no file.
    """
    with _yaml_errors():
        check_yaml(text)
        return yaml.load(text, _Loader)


@contextmanager
def _yaml_errors() -> Iterator[None]:
    try:
        yield
    except InputError:
        raise
    except yaml.MarkedYAMLError as error:
        line = f" in line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise InputError(f"it is not YAML ({shown(error.problem or error)}{line})") from error
    except (yaml.YAMLError, ValueError, RecursionError, OverflowError) as error:
        raise InputError(f"it is not YAML ({shown(error)})") from error


def check_yaml(text: str) -> None:
    """Raise InputError if YAML has tags, is nested too deeply, or if its aliases stand for too much."""
    with _yaml_errors():
        _check_events(yaml.parse(text, _Loader))


def _check_events(events: Iterator[yaml.Event]) -> None:
    """Check YAML for tags, depth and aliases.

    An alias costs nothing when it is read, but what it stands for may be unfolded later, in an error message for one.
    """
    sizes: dict[str, int] = {}  # anchor -> nodes
    opened: list[tuple[str | None, list[int]]] = []  # anchor and nodes so far of each open list or mapping
    repeated = 0
    for event in events:
        where = f" in line {event.start_mark.line + 1}" if event.start_mark else ""
        if isinstance(event, yaml.CollectionEndEvent):
            anchor, (nodes,) = opened.pop()
        elif isinstance(event, yaml.AliasEvent):
            if event.anchor not in sizes:
                raise InputError(f"the alias {shown(event.anchor, 40)}{where} holds itself or nothing")
            anchor, nodes = None, sizes[event.anchor]
            repeated += nodes
            if repeated > MAX_REPEATED:
                raise InputError(f"its aliases stand for more than {MAX_REPEATED} values{where}")
        elif isinstance(event, (yaml.ScalarEvent, yaml.CollectionStartEvent)):
            if event.tag not in (None, "!"):
                raise InputError(f"it has the tag {shown(event.tag, 60)}{where}, and tags are not read")
            anchor, nodes = event.anchor, 1
            if isinstance(event, yaml.CollectionStartEvent):
                opened.append((anchor, [1]))
                sizes.pop(anchor or "", None)  # not known until its end
                if len(opened) > MAX_DEPTH:
                    raise InputError(f"it is nested more than {MAX_DEPTH} deep{where}")
                continue
        else:
            continue
        if anchor is not None:
            sizes[anchor] = nodes
        if opened:
            opened[-1][1][0] += nodes


# --- Templates


def check_template(template: str, names: Collection[str]) -> None:
    """Validate a template for ``str.format``: fields are names alone, without attributes, indices or widths.

    Args:
        template: Text with fields such as ``{content}``.
        names: Names that fields may have.

    Raises:
        InputError: A field is of another form, or the braces do not match.
    """
    fields = " and ".join(f"{{{name}}}" for name in names)
    try:
        parts = list(string.Formatter().parse(template))
    except ValueError as error:
        raise InputError(f"the template {shown(repr(template))} is damaged ({error}); use {fields}") from error
    for _, name, width, conversion in parts:
        if name is not None and (name not in names or width or conversion):
            raise InputError(f"the template {shown(repr(template))} may hold {fields} alone, without options")
