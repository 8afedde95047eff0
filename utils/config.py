"""Options of the scripts: typed dataclasses, filled from a YAML file and the command line.

An option is a field. Its type holds the bounds or choices, and the docstring under it is its help text:

    samples: PositiveInt = 1
    \"\"\"Motions per prompt, with successive seeds.\"\"\"

``--help``, validation and error messages are all derived from this declaration. A ``__post_init__`` is needed only for
rules that relate two options.
"""

import inspect
import re
import sys
from argparse import Action, ArgumentError
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from jsonargparse import ArgumentParser, DefaultHelpFormatter, Namespace, get_loader, set_loader, set_parsing_settings
from jsonargparse.typing import PositiveInt, restricted_number_type

from utils.errors import InputError, reason_of, shown
from utils.reading.files import MB, refusing
from utils.reading.texts import check_yaml, parse_yaml, read_text

Options = TypeVar("Options")
SWITCH = "true|false"  # shown as the value of an option of type bool
SHOWN = ("path", "text", "true or false")  # types that the value in the help shows
BOUNDS = {">": "above", "≥": "of at least", "<": "below", "≤": "at most"}
METAVARS = {
    "a whole number": "NUMBER",
    "a number": "NUMBER",
    "a path": "PATH",
    "a text": "TEXT",
    "one of": "NAME",
}  # in the help
KINDS = {"int": "a whole number", "float": "a number", "bool": "true or false", "str": "a text"}
PLURALS = {"a whole number": "whole numbers", "a number": "numbers", "a text": "texts", "a path": "paths"}
# Patterns of the rejected value in the messages of jsonargparse, the most reliable first.
REJECTED_VALUE = (r"G(?:ot|iven) value: (.*)", r"(\S+) does not conform", r"with base 10: '(.*)'", r"to float: '(.*)'")
_BOUNDED: dict[tuple, Any] = {}  # the types made by ``bounded``

set_parsing_settings(docstring_parse_attribute_docstrings=True, import_path_denylist=["*"])
_load_yaml = get_loader("yaml")  # of jsonargparse: YAML without dates, and 1e-3 is a number


def _load(text: str) -> Any:
    """Parse the YAML of a value or a file of options, with the limits of ``utils.reading``."""
    try:
        check_yaml(text)
        return _load_yaml(text)
    except InputError:
        raise
    except Exception as error:  # the library raises many kinds on unusual keys and numbers
        raise InputError(f"it is not YAML ({reason_of(error)})") from error


set_loader("yaml", _load, (InputError,))


def parse_options(
    options: type[Options], description: str, arguments: list[str] | None = None, usage: str | None = None
) -> tuple[Options, str]:
    """Fill a dataclass from ``--config FILE.yaml`` and command-line options; later ones override earlier ones.

    Option names may be written with hyphens or underscores. A bool option without a value is a switch and means true.

    Args:
        options: Dataclass with one field per option.
        description: Text above the list of options in ``--help``.
        arguments: Command line; ``sys.argv[1:]`` by default.
        usage: Usage line of ``--help``, in which ``%(prog)s`` is the program; by default it lists all options.

    Returns:
        The filled dataclass, and the options as YAML.

    Raises:
        InputError: if an option is unknown or invalid, or a required option is missing.
    """
    parser = _make_parser(options, description)
    parser.usage = usage
    parsed = _parse(parser, sys.argv[1:] if arguments is None else arguments, options)
    return _instantiate(parser, parsed, options), parser.dump(parsed, skip_unset=False)


def parse_command(
    commands: dict[str, type], description: str, arguments: list[str] | None = None, files: dict[str, str] | None = None
) -> Any:
    """Fill the options dataclass of one of several commands: ``script.py COMMAND --option value``.

    Args:
        commands: Dataclass of the options of each command; its docstring is the help of the command.
        description: Text above the list of commands in ``--help``.
        arguments: Command line; ``sys.argv[1:]`` by default.
        files: For each command that takes files before its options, their names in the usage line of its help. The
            caller removes them from the arguments.

    Returns:
        The filled dataclass of the given command.

    Raises:
        InputError: if no known command is given, or as in ``parse_options``.
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    name = next(iter(arguments), "")
    if name in commands:
        parser = _make_parser(commands[name], inspect.getdoc(commands[name]) or "")
        parser.prog = f"{parser.prog} {name}"
        if files is not None:
            parser.usage = f"{parser.prog} {files[name]} [options]"
        return _instantiate(parser, _parse(parser, arguments[1:], commands[name]), commands[name])
    if name not in ("-h", "--help"):
        given = f"{shown(name, 60)} is no command" if name else "no command is given"
        raise InputError(f"{given}; give one of the commands {', '.join(commands)}")
    width = max(map(len, commands))
    lines = [f"  {name:{width}}  {(inspect.getdoc(kind) or '').splitlines()[0]}" for name, kind in commands.items()]
    program = _program() or Path(sys.argv[0]).name
    usage = f"{program} COMMAND {'' if files is None else 'FILE ... '}[options]"
    print(f"usage: {usage}\n\n{inspect.cleandoc(_with_command(description))}\n")
    print(f"commands (`{program} COMMAND --help` lists the options of a command):", *lines, sep="\n")
    raise SystemExit(0)


def bounded(name: str, base: type, *bounds: tuple[str, float]) -> Any:
    """Make the type of a bounded option: ``int`` or ``float`` within bounds such as ``(">=", 0), ("<", 2**31)``.

    Types with equal bounds are the same type: jsonargparse registers each restriction once, under a name of its own.
    """
    if (base, bounds) in _BOUNDED:
        return _BOUNDED[base, bounds]
    words = " and ".join(f"{sign}{bound}".replace(">=", "≥").replace("<=", "≤") for sign, bound in bounds)
    docstring = f"{base.__name__} restricted to be {words}"
    unique = f"{name}{len(_BOUNDED)}"  # jsonargparse registers each name once
    _BOUNDED[base, bounds] = restricted_number_type(unique, base, list(bounds), docstring=docstring)
    return _BOUNDED[base, bounds]


def spelled(name: str) -> str:
    """Return an option as users write it: ``batch_size`` becomes ``--batch-size``, and ``from_`` becomes ``--from``."""
    return "--" + name.rstrip("_").replace("_", "-")


# --- Parsing


def _make_parser(options: type, description: str) -> ArgumentParser:
    """Make a parser that accepts options with hyphens and underscores, and whose help shows hyphens only."""
    description = _with_command(description)
    parser = ArgumentParser(_program(), description=description, formatter_class=HelpFormatter, exit_on_error=False)
    parser.add_argument("--config", action="config", help="YAML file with any of the options below.")
    parser.add_class_arguments(options, as_group=False)
    for action in parser._actions:
        hyphened = [spelled(option.lstrip("-")) if option[:2] == "--" else option for option in action.option_strings]
        parser._option_string_actions.update(dict.fromkeys(hyphened, action))
        action.option_strings = [option for option in hyphened if not option.endswith("+")]  # "--list+" appends
        described = _describe_type(getattr(action, "_typehint", None))
        action.metavar = action.metavar or next(
            (METAVARS[kind] for kind in METAVARS if described.startswith(kind)), None
        )
        if action.dest == "print_config":
            action.help, action.metavar = "Print all options with their values as YAML and exit.", ""
        if action.help == "Path to a configuration file.":  # of jsonargparse, for a nested group
            action.help = "YAML file with the options of this group."
        if getattr(action, "_typehint", None) is bool:
            action.nargs, action.metavar = "?", SWITCH
    return parser


def _program() -> str | None:
    """Return the console command or ``python -m MODULE`` that is run, or None if a script is run."""
    main = sys.modules["__main__"]
    spec = getattr(main, "__spec__", None)
    return getattr(main, "COMMAND", None) or (f"python -m {spec.name}" if spec else None)


def _with_command(description: str) -> str:
    """Return a description whose examples call the console command that is run, if one is."""
    main = sys.modules["__main__"]
    if not hasattr(main, "COMMAND"):
        return description
    name = Path(str(main.__file__)).stem
    return re.sub(rf"python (-m \S*\b{name}\b|{name}\.py)", main.COMMAND, description)


def _parse(parser: ArgumentParser, arguments: list[str], options: type) -> Namespace:
    """Parse a command line in which a switch without a value means true, and a file of options is YAML of ours."""
    switches = {option for option, action in parser._option_string_actions.items() if action.metavar == SWITCH}
    explicit: list[str] = []
    for argument, following in zip(arguments, [*arguments[1:], "--"], strict=False):
        explicit += [argument, "true"] if argument in switches and following.startswith("--") else [argument]
        if explicit[-2:-1] == ["--config"]:
            explicit[-2:] = [f"--config={_read_config(argument, options)}"]
        elif argument.startswith("--config="):
            explicit[-1] = f"--config={_read_config(argument.removeprefix('--config='), options)}"
    with _input_errors(parser):
        return parser.parse_args(explicit)


def _read_config(path: str, options: type) -> str:
    """Return the text of a file of options, whose tables have been compared with the dataclass."""
    try:
        text = read_text(path, "options", MB)
        with refusing(Path(path), "options", "give a YAML file with options"):
            _check_table(parse_yaml(text), options, "it")
        return text
    except InputError as error:
        raise InputError(f"--config cannot be read: {error}") from error


def _check_table(values: Any, kind: type, name: str) -> None:
    """Raise InputError unless ``values`` is a table of options, as are those of the dataclasses within."""
    if not isinstance(values, dict) or not all(isinstance(key, str) for key in values):
        raise InputError(f"{name} is {shown(values, 60)}, not a table of options")
    if "class_path" in values:
        raise InputError(f"{name} names a class, and no class is loaded from options; remove class_path")
    for key, inner in get_type_hints(kind).items():
        if isinstance(inner, type) and is_dataclass(inner) and key in values:
            _check_table(values[key], inner, spelled(key))


def _instantiate(parser: ArgumentParser, parsed: Namespace, options: type[Options]) -> Options:
    values = vars(parser.instantiate(parsed))
    return options(**{name: _plain(value) for name, value in values.items() if name != "config"})


def _plain(value: Any) -> Any:
    """Return a value with plain ints and floats in place of those of bounded types, which torch.compile may reject."""
    if is_dataclass(value) and not isinstance(value, type):
        return replace(value, **{field.name: _plain(getattr(value, field.name)) for field in fields(value)})
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return int(value) if isinstance(value, int) else float(value)
    return value


# --- Help


class HelpFormatter(DefaultHelpFormatter):
    """Formatter that keeps the line breaks of the description, which shows commands, and describes types in words.

    A default stated in the help text, as in "(default: number of CPU cores)", is shown instead of the value.
    """

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        return inspect.cleandoc(text)

    def _get_type_str(self, action: Action) -> str | None:
        shows_choices = isinstance(action.metavar, str) and action.metavar.startswith("{")
        words = _describe_type(getattr(action, "_typehint", None)).removeprefix("a ")
        return None if shows_choices or words in SHOWN else words or None

    def _get_help_string(self, action: Action) -> str:
        text = super()._get_help_string(action).replace("type: %(type)s", "%(type)s")
        if stated := re.search(r" \(default: ([^%()]+)\)", text):
            return text.replace(stated[0], "", 1).replace("%(default)s", stated[1])
        if isinstance(action.default, bool):
            return text.replace("%(default)s", str(action.default).lower())
        no_default = action.default is None or action.default == []
        return re.sub(r",? ?default: %\(default\)s|\(default: %\(default\)s\)", "", text) if no_default else text


def _bounds(kind: Any) -> tuple[str, list[tuple[str, str]]]:
    """Return "int" or "float" and the (sign, bound) pairs of a number type; an empty name for other types."""
    restricted = re.fullmatch(r"(int|float) restricted to be (.*)", getattr(kind, "__doc__", None) or "")
    if not restricted:
        return (kind.__name__ if kind in (int, float) else ""), []
    words = restricted[2].replace(">0", "≥1") if kind is PositiveInt else restricted[2]
    return restricted[1], re.findall(r"([<>≤≥])(\S+)", words)


def _describe_type(kind: Any) -> str:
    """Describe the values of a type in words, to follow "give"; empty if the type is not known."""
    if get_origin(kind) is Literal:
        *others, last = map(str, get_args(kind))
        return f"one of {', '.join(others)} or {last}" if others else f"one of {last}"
    if get_origin(kind) in (Union, UnionType):
        return " or ".join(_describe_type(part) for part in get_args(kind) if part is not NoneType)
    if get_origin(kind) is list:
        item = _describe_type(get_args(kind)[0])
        return f"a list of {PLURALS.get(item, f'values, each {item}')}"
    if isinstance(kind, type) and issubclass(kind, Path):
        return "a path"
    name, bounds = _bounds(kind)
    if not bounds:
        return KINDS.get(getattr(kind, "__name__", ""), "")
    if [sign for sign, _ in bounds] == ["≥", "≤"]:
        return f"{KINDS[name]} from {bounds[0][1]} to {bounds[1][1]}"
    return f"{KINDS[name]} " + " and ".join(f"{BOUNDS[sign]} {bound}" for sign, bound in bounds)


# --- Errors


@contextmanager
def _input_errors(parser: ArgumentParser) -> Iterator[None]:
    """Turn an error of the parser into an InputError that names the option as users write it."""
    try:
        yield
    except ArgumentError as error:
        raise InputError(_reword(parser, " ".join(str(error).split()))) from error
    except InputError:
        raise
    except Exception as error:  # jsonargparse lets many kinds through
        raise InputError(f"an option cannot be read ({reason_of(error)}); --help lists the options") from error


def _reword(parser: ArgumentParser, text: str) -> str:
    """Reword an error message of jsonargparse as one sentence on the option and the values it takes."""
    if found := re.match(r"unrecognized arguments: (\S+)", text):
        kind = "option" if found[1].startswith("-") else "argument"
        return f"the {kind} {shown(found[1], 60)} is unknown; --help lists the options"
    if found := re.match(r"Option '(.+)' is not accepted$", text):
        return f"--config holds {shown(found[1], 60)}, which is no option; --help lists the options"
    if found := re.match(r"the following arguments are required: (\S+)", text):
        return f"{spelled(found[1].strip(','))} is missing; --help describes it"
    if found := re.match(r"Problems parsing config: (.*)", text):
        return f"--config cannot be read: {shown(found[1], 200)}; give a YAML file with options"
    if not (found := re.match(r'Parser key "([\w.]+)":? (.*)', text)):
        return f"{shown(text, 300)}; --help lists the options"
    key, message = found.groups()
    if "class_path" in message or message.startswith("Importing "):
        return f"{spelled(key)} names a class, and no class is loaded from options; give its options by their names"
    if key == "config":
        return f"--config cannot be read: {shown(message, 200)}; give a YAML file with options"
    action = next((action for action in parser._actions if action.dest == key), None)
    rejected = next((found[1] for pattern in REJECTED_VALUE if (found := re.search(pattern, message))), None)
    if action is None or rejected is None:
        return f"{shown(text, 300)}; --help lists the options"
    value = shown(rejected, 60)
    kind = _describe_type(getattr(action, "_typehint", None))
    if kind.startswith("one of "):
        return f"{spelled(key)} {value} is unknown; use {kind.removeprefix('one of ')}"
    return f"{spelled(key)} is {value}; give {kind or 'a value that fits'}"
