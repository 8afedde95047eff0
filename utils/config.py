"""Options of the scripts: typed dataclasses, filled from a YAML file and the command line.

An option is a field whose type holds its bounds or choices, with a docstring under it:

    samples: PositiveInt = 1
    \"\"\"Motions per prompt, with successive seeds.\"\"\"

``--help``, the check of a value and the sentence that refuses it all come from this one place. A dataclass has a
``__post_init__`` only for rules that relate two options.
"""

import inspect
import re
import sys
from argparse import Action, ArgumentError
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin

from jsonargparse import ArgumentParser, DefaultHelpFormatter, set_parsing_settings
from jsonargparse.typing import PositiveInt, restricted_number_type

from utils.errors import InputError

Options = TypeVar("Options")
BOUNDS = {">": "above", "≥": "of at least", "<": "below", "≤": "of at most"}
KINDS = {"int": "a whole number", "float": "a number", "bool": "true or false", "str": "a text"}

set_parsing_settings(docstring_parse_attribute_docstrings=True)


def parse_options(options: type[Options], description: str, arguments: list[str] | None = None) -> tuple[Options, str]:
    """Fill a dataclass from ``--config FILE.yaml`` and command-line options, of which later ones win.

    Options are written with hyphens or underscores. An option of type bool may stand alone, which means true.

    Args:
        options: Dataclass with one field per option.
        description: Text above the list of options in ``--help``.
        arguments: Command line; by default that of the program.

    Returns:
        The filled dataclass, and the options as YAML.

    Raises:
        InputError: an option is unknown or has an unfit value, or a required option is missing.
    """
    parser = _parser(options, description)
    parsed = _parse(parser, sys.argv[1:] if arguments is None else arguments)
    return _filled(parser, parsed, options), parser.dump(parsed, skip_unset=False)


def parse_command(commands: dict[str, type], description: str, arguments: list[str] | None = None) -> Any:
    """Fill the dataclass of one of several commands: ``script.py NAME --option value``.

    Args:
        commands: Dataclass of the options of each command; the first line of its docstring is the command's help.

    Returns:
        The filled dataclass of the command given.

    Raises:
        InputError: no known command is given; otherwise as in ``parse_options``.
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    name = next(iter(arguments), "")
    if name in commands:
        parser = _parser(commands[name], inspect.getdoc(commands[name]) or "")
        parser.prog = f"{parser.prog} {name}"
        return _filled(parser, _parse(parser, arguments[1:]), commands[name])
    if name not in ("-h", "--help"):
        raise InputError(f"{name or 'no command'} is given; give one of the commands {', '.join(commands)}")
    width = max(map(len, commands))
    lines = [f"  {name:{width}}  {(inspect.getdoc(kind) or '').splitlines()[0]}" for name, kind in commands.items()]
    print(
        f"{inspect.cleandoc(description)}\n\ncommands (COMMAND --help lists the options of one):\n" + "\n".join(lines)
    )
    raise SystemExit(0)


def bounded(name: str, base: type, *bounds: tuple[str, float]) -> Any:
    """A type of option: ``int`` or ``float`` within bounds such as ``(">=", 0), ("<", 2**31)``."""
    words = " and ".join(f"{sign}{bound}".replace(">=", "≥").replace("<=", "≤") for sign, bound in bounds)
    docstring = f"{base.__name__} restricted to be {words}"
    return restricted_number_type(name, base, list(bounds), docstring=docstring)


def spelled(name: str) -> str:
    """An option as users write it: ``batch_size`` to ``--batch-size``."""
    return "--" + name.replace("_", "-")


class HelpFormatter(DefaultHelpFormatter):
    """Keeps the line breaks of the description, which shows commands; describes types in words."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        return inspect.cleandoc(text)

    def _get_type_str(self, action: Action) -> str | None:
        kind = _described(getattr(action, "_typehint", None))
        return None if kind in ("", "a text", "true or false", "a path") or kind.startswith("one of") else kind

    def _get_help_string(self, action: Action) -> str:
        text = super()._get_help_string(action).replace("type: %(type)s", "%(type)s")
        absent = action.default is None or action.default == [] or action.default is False
        return re.sub(r",? ?default: %\(default\)s|\(default: %\(default\)s\)", "", text) if absent else text


def _parser(options: type, description: str) -> ArgumentParser:
    parser = ArgumentParser(description=description, formatter_class=HelpFormatter, exit_on_error=False)
    parser.add_argument("--config", action="config", help="YAML file with any of the options below.")
    parser.add_class_arguments(options, as_group=False)
    for action in parser._actions:  # both spellings are understood, and help shows the one with hyphens
        for option in list(action.option_strings):
            action.option_strings[action.option_strings.index(option)] = hyphened = option.replace("_", "-")
            parser._option_string_actions[hyphened] = action
        if getattr(action, "_typehint", None) is bool:
            action.nargs, action.metavar = "?", "true|false"
    return parser


def _parse(parser: ArgumentParser, arguments: list[str]) -> Any:
    switches = {option for action in parser._actions if action.metavar == "true|false" for option in _spellings(action)}
    spelled_out = [
        word
        for argument, follower in zip(arguments, [*arguments[1:], "--"], strict=False)
        for word in ([argument, "true"] if argument in switches and follower.startswith("--") else [argument])
    ]
    with _refused_in_words(parser):
        return parser.parse_args(spelled_out)


def _filled(parser: ArgumentParser, parsed: Any, options: type[Options]) -> Options:
    values = vars(parser.instantiate(parsed))
    return options(**{name: value for name, value in values.items() if name != "config"})


def _spellings(action: Action) -> set[str]:
    return {text for option in action.option_strings for text in (option, "--" + option[2:].replace("-", "_"))}


@contextmanager
def _refused_in_words(parser: ArgumentParser) -> Iterator[None]:
    """Turn an error of the parser into an InputError that names the option as users write it and says what fits."""
    try:
        yield
    except ArgumentError as error:
        raise InputError(_refusal(parser, " ".join(str(error).split()))) from error


def _refusal(parser: ArgumentParser, text: str) -> str:
    if found := re.match(r"unrecognized arguments: (\S+)", text):
        kind = "option" if found[1].startswith("-") else "argument"
        return f"the {kind} {found[1]} is unknown; --help lists the options"
    if found := re.match(r"the following arguments are required: (\S+)", text):
        return f"{spelled(found[1].strip(','))} is missing; --help describes it"
    found = re.match(r'Parser key "([\w.]+)":? (.*)', text)
    if found and "class_path" in found[2]:
        return f"{spelled(found[1])} names a class, which is never loaded from a file; give its options by their names"
    if found and found[1] == "config":
        return f"--config cannot be read: {found[2][:200]}; give a YAML file with options"
    action = next((action for action in parser._actions if found and action.dest == found[1]), None)
    value = found and re.search(
        r"Got value: (.*)|Given value: (.*)|(\S+) does not conform|with base 10: '(.*)'|to float: '(.*)'", found[2]
    )
    if action is None or value is None:
        return f"{text[:300]}; --help lists the options"
    value = next(group for group in value.groups() if group is not None)[:60]
    kind, name = _described(getattr(action, "_typehint", None)), spelled(found[1])
    if kind.startswith("one of "):
        return f"{name} {value} is unknown; use {kind.removeprefix('one of ')}"
    return f"{name} is {value}; give {kind or 'a value that fits'}"


def _described(kind: Any) -> str:
    """A type in words: what a user may give."""
    if get_origin(kind) is Literal:
        *others, last = map(str, get_args(kind))
        return f"one of {', '.join(others)} or {last}" if others else f"one of {last}"
    if get_origin(kind) in (Union, UnionType):
        return " or ".join(_described(part) for part in get_args(kind) if part is not NoneType)
    if get_origin(kind) is list:
        return f"a list of values, each {_described(get_args(kind)[0])}"
    if kind is Path:
        return "a path"
    restricted = re.fullmatch(r"(int|float) restricted to be (.*)", getattr(kind, "__doc__", None) or "")
    if restricted:
        bounds = re.findall(
            r"([<>≤≥])(\S+)", restricted[2].replace(">0", "≥1") if kind is PositiveInt else restricted[2]
        )
        if [sign for sign, _ in bounds] == ["≥", "≤"]:
            return f"{KINDS[restricted[1]]} from {bounds[0][1]} to {bounds[1][1]}"
        return f"{KINDS[restricted[1]]} " + " and ".join(f"{BOUNDS[sign]} {bound}" for sign, bound in bounds)
    return KINDS.get(getattr(kind, "__name__", ""), "")
