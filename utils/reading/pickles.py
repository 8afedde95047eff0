"""Pickles as data: the instructions of a pickle are interpreted, and no class or function of it is ever looked up.

A class or function is its name. A call of it, or an object, is a ``Record`` of the name and the arguments. States of
objects are dropped, and so are items of objects other than lists and dicts. The result therefore consists of texts,
numbers, lists, tuples, dicts and records only, whatever the file holds.
"""

import pickletools
from collections.abc import Callable
from typing import Any, BinaryIO, NamedTuple

from utils.errors import InputError

MOST = 2 * 2**20  # bytes; each may be an instruction that makes an empty list
VALUES = {
    "INT", "LONG", "LONG1", "LONG4", "BININT", "BININT1", "BININT2", "FLOAT", "BINFLOAT",
    "STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8",
    "BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8",
}  # fmt: skip
CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
EMPTY: dict[str, Callable[[], Any]] = {"EMPTY_LIST": list, "EMPTY_DICT": dict}
SETS = {"EMPTY_SET": "set", "FROZENSET": "frozenset"}
TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
IGNORED = {"PROTO", "FRAME", "STOP"}
KEYS = (str, int)  # types of the keys that are kept; hashing a nested tuple could take forever


class Global:
    """A class or function of a pickle: its name, such as "collections.OrderedDict"."""

    __slots__ = ("name",)

    def __init__(self, module: Any, name: Any):
        if not isinstance(module, str) or not isinstance(name, str):
            raise InputError("it holds a class without a name")
        self.name = f"{module}.{name}"


class Record:
    """An object that a pickle makes by calling ``function`` with ``arguments``; here it is only recorded."""

    __slots__ = ("function", "arguments")

    def __init__(self, function: str, arguments: Any):
        self.function, self.arguments = function, arguments


class Reference(NamedTuple):
    """An object outside the pickle: its persistent id."""

    key: Any


def read_pickle(file: BinaryIO, build: Callable[[str, Any], Any] = Record) -> Any:
    """Interpret the next pickle of a file as data.

    Args:
        file: File at the start of the pickle; it is left at its end.
        build: Called with the name and the arguments of each call in it, to build values of known types; by default,
            every call is recorded.

    Returns:
        Texts, numbers, lists, tuples, dicts, records, and the results of ``build``. Dicts keep the entries whose keys
        are texts and integers.

    Raises:
        InputError: The pickle is too large, or holds an unknown instruction.
        Exception: It is damaged.
    """
    interpreter, start = _Interpreter(build), file.tell()
    for instruction, argument, position in pickletools.genops(file):
        if position is not None and position - start > MOST:
            raise InputError(f"its pickle has more than the {MOST} bytes that are read")
        interpreter.run(instruction.name, argument)
    return interpreter.stack.pop()


class _Interpreter:
    """Stack machine of the pickle protocols 0 to 5; the names of the instructions are those of ``pickletools``."""

    def __init__(self, build: Callable[[str, Any], Any]):
        self.build = build
        self.stack: list[Any] = []
        self.below: list[list] = []  # stacks under each mark
        self.memo: dict[int, Any] = {}

    def run(self, name: str, argument: Any) -> None:
        if name in VALUES:
            self.stack.append(argument)
        elif name in CONSTANTS:
            self.stack.append(CONSTANTS[name])
        elif name in EMPTY:
            self.stack.append(EMPTY[name]())
        elif name in SETS:
            self.stack.append(Record(f"builtins.{SETS[name]}", self._marked() if name == "FROZENSET" else ()))
        elif name in TUPLES:
            self.stack[-TUPLES[name] :] = [tuple(self.stack[-TUPLES[name] :])]
        elif name not in IGNORED:
            getattr(self, f"_run_{name.lower()}", self._refuse)(argument)

    def _marked(self) -> list:
        """Remove and return the values since the last mark."""
        values, self.stack = self.stack, self.below.pop()
        return values

    def _call(self, function: Any, arguments: Any) -> None:
        """Push the result of a call."""
        known = isinstance(function, Global)
        self.stack.append(self.build(function.name, arguments) if known else Record("", arguments))

    def _fill(self, values: list) -> None:
        """Append to the list on the stack; values of other objects are dropped."""
        if isinstance(self.stack[-1], list):
            self.stack[-1].extend(values)

    def _set(self, keys: list, values: list) -> None:
        """Set entries of the dict on the stack; entries of other objects are dropped."""
        if isinstance(self.stack[-1], dict):
            pairs = zip(keys, values, strict=True)
            self.stack[-1].update((key, value) for key, value in pairs if isinstance(key, KEYS))

    def _refuse(self, _: Any) -> None:
        raise InputError("its pickle holds an unknown instruction")

    # --- Instructions

    def _run_mark(self, _: None) -> None:
        self.below.append(self.stack)
        self.stack = []

    def _run_pop(self, _: None) -> None:
        if self.stack:
            self.stack.pop()
        else:
            self._marked()

    def _run_pop_mark(self, _: None) -> None:
        self._marked()

    def _run_dup(self, _: None) -> None:
        self.stack.append(self.stack[-1])

    def _run_put(self, index: int) -> None:
        self.memo[index] = self.stack[-1]

    def _run_get(self, index: int) -> None:
        self.stack.append(self.memo[index])

    _run_binput = _run_long_binput = _run_put
    _run_binget = _run_long_binget = _run_get

    def _run_memoize(self, _: None) -> None:
        self.memo[len(self.memo)] = self.stack[-1]

    def _run_tuple(self, _: None) -> None:
        values = tuple(self._marked())
        self.stack.append(values)

    def _run_list(self, _: None) -> None:
        values = self._marked()
        self.stack.append(values)

    def _run_dict(self, _: None) -> None:
        values = self._marked()
        self.stack.append({})
        self._set(values[::2], values[1::2])

    def _run_append(self, _: None) -> None:
        self._fill([self.stack.pop()])

    def _run_appends(self, _: None) -> None:
        self._fill(self._marked())

    _run_additems = _run_appends

    def _run_setitem(self, _: None) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        self._set([key], [value])

    def _run_setitems(self, _: None) -> None:
        values = self._marked()
        self._set(values[::2], values[1::2])

    def _run_global(self, names: str) -> None:
        self.stack.append(Global(*names.split(" ", 1)))

    def _run_stack_global(self, _: None) -> None:
        name, module = self.stack.pop(), self.stack.pop()
        self.stack.append(Global(module, name))

    def _run_reduce(self, _: None) -> None:
        arguments, function = self.stack.pop(), self.stack.pop()
        self._call(function, arguments)

    _run_newobj = _run_reduce

    def _run_newobj_ex(self, _: None) -> None:
        _, arguments, function = self.stack.pop(), self.stack.pop(), self.stack.pop()
        self._call(function, arguments)

    def _run_obj(self, _: None) -> None:
        function, *arguments = self._marked()
        self._call(function, tuple(arguments))

    def _run_inst(self, names: str) -> None:
        arguments = tuple(self._marked())
        self._call(Global(*names.split(" ", 1)), arguments)

    def _run_build(self, _: None) -> None:
        self.stack.pop()  # the state of an object

    def _run_persid(self, key: str) -> None:
        self.stack.append(Reference(key))

    def _run_binpersid(self, _: None) -> None:
        self.stack.append(Reference(self.stack.pop()))
