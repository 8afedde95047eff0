"""Options of the scripts: typed dataclasses, filled from a YAML file and the command line."""

import inspect
import re
import sys
from argparse import ArgumentError
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import fields
from typing import TypeVar

from jsonargparse import ArgumentParser, DefaultHelpFormatter, auto_cli

from utils.errors import InputError

Options = TypeVar("Options")


class HelpFormatter(DefaultHelpFormatter):
    """Keeps the line breaks of the description: it shows commands."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        return inspect.cleandoc(text)


def parse_options(options: type[Options], description: str, arguments: list[str] | None = None) -> tuple[Options, str]:
    """Fill a dataclass from ``--config file.yaml`` and command-line options (later ones win), and give it back as YAML.

    Options may be written with hyphens or underscores; one that is true or false may stand alone for true.

    Raises:
        InputError: an option is unknown or unfit, or a required one is missing.
    """
    switches = {f"--{field.name}" for field in fields(options) if field.type is bool}
    parser = ArgumentParser(description=description, formatter_class=HelpFormatter, exit_on_error=False)
    parser.add_argument("--config", action="config", help="YAML file with any of the options below")
    parser.add_class_arguments(options, as_group=False)
    with _unfit_arguments_as_input_error():
        parsed = parser.parse_args(_spelled_out(underscored(arguments), switches))
    as_yaml = parser.dump(parsed, skip_unset=False)
    values = vars(parser.instantiate(parsed))
    return options(**{name: value for name, value in values.items() if name != "config"}), as_yaml


def run_command(commands: list[Callable], description: str) -> None:
    """Run one of several functions as ``script.py name --option value``, its parameters being the options.

    Raises:
        InputError: an option is unknown or unfit, or a required one is missing.
    """
    settings = {"description": description, "formatter_class": HelpFormatter, "exit_on_error": False}
    with _unfit_arguments_as_input_error():
        auto_cli(commands, args=underscored(None), as_positional=False, **settings)


@contextmanager
def _unfit_arguments_as_input_error() -> Iterator[None]:
    try:
        yield
    except ArgumentError as error:
        raise InputError(f"{' '.join(str(error).split())}; --help shows what is understood") from error


def _spelled_out(arguments: list[str], switches: set[str]) -> list[str]:
    """Arguments with ``true`` after each of the switches that no value follows."""
    return [
        word
        for argument, follower in zip(arguments, [*arguments[1:], "--"], strict=False)
        for word in ([argument, "true"] if argument in switches and follower.startswith("--") else [argument])
    ]


def underscored(arguments: list[str] | None) -> list[str]:
    """Arguments (the program's own by default) with ``--some-option`` as ``--some_option``."""
    arguments = sys.argv[1:] if arguments is None else arguments
    return [re.sub(r"^--[\w.-]+", lambda name: "--" + name[0][2:].replace("-", "_"), word) for word in arguments]
