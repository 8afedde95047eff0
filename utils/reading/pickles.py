"""Pickle files of plain data: texts and numbers in lists and dicts.

The file is interpreted here, instruction by instruction, by the few that plain data need. No module is imported, no
object is made and no code of the file runs; memory follows the size of the file.
"""

import pickletools
from collections.abc import Callable
from pathlib import Path
from typing import Any

from utils.errors import InputError, shown
from utils.reading.files import MB, read_bytes, refusing

ADVICE = "copy or download it again"
_IGNORED = {"PROTO", "FRAME"}
_NUMBERS = {"INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "FLOAT", "BINFLOAT"}
_TEXTS = {"UNICODE", "BINUNICODE", "SHORT_BINUNICODE"}
_CONSTANTS: dict[str, Callable[[], Any]] = {
    "EMPTY_DICT": dict,
    "EMPTY_LIST": list,
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
}
_PUT, _GET = {"PUT", "BINPUT", "LONG_BINPUT"}, {"GET", "BINGET", "LONG_BINGET"}


def read_plain_pickle(path: str | Path, most: int = 16 * MB) -> Any:
    """Read a pickle file of texts, numbers, lists and dicts.

    Args:
        path: File to read.
        most: Largest size in bytes.

    Returns:
        Its content. Lists and dicts may hold themselves, so a caller checks the types that it needs.

    Raises:
        InputError: The file is missing, damaged or too large, or holds other objects.
    """
    content = read_bytes(Path(path), "a pickle of plain data", most)
    with refusing(Path(path), "a pickle of plain data", ADVICE):
        return _interpret(content)


def _interpret(content: bytes) -> Any:
    stack: list[Any] = []
    marks: list[int] = []
    memo: dict[Any, Any] = {}
    for opcode, argument, _ in pickletools.genops(content):
        name = opcode.name
        if name in _NUMBERS or name in _TEXTS:
            stack.append(argument)
        elif name in _CONSTANTS:
            stack.append(_CONSTANTS[name]())
        elif name == "MARK":
            marks.append(len(stack))
        elif name in _PUT or name == "MEMOIZE":
            memo[len(memo) if name == "MEMOIZE" else argument] = stack[-1]
        elif name in _GET:
            stack.append(memo[argument])
        elif name in ("LIST", "DICT"):  # protocol 0
            values = _popped(stack, marks.pop())
            stack.append(values if name == "LIST" else _pairs(values))
        elif name in ("APPEND", "APPENDS"):
            values = _popped(stack, marks.pop() if name == "APPENDS" else len(stack) - 1)
            list.extend(stack[-1], values)
        elif name in ("SETITEM", "SETITEMS"):
            values = _popped(stack, marks.pop() if name == "SETITEMS" else len(stack) - 2)
            dict.update(stack[-1], _pairs(values))
        elif name == "STOP":
            return stack.pop()
        elif name not in _IGNORED:
            raise InputError(f"it holds objects of Python ({shown(name, 20)}), not texts and numbers alone")
    raise InputError("it has no end")


def _popped(stack: list[Any], start: int) -> list[Any]:
    """Remove and return the values of the stack from an index on."""
    values = stack[start:]
    del stack[start:]
    return values


def _pairs(values: list[Any]) -> dict[Any, Any]:
    return dict(zip(values[::2], values[1::2], strict=True))
