"""Options: typed dataclasses filled from YAML and the command line, their help, and the errors for invalid input."""

import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pytest
from jsonargparse.typing import ClosedUnitInterval, NonNegativeFloat, PositiveFloat, PositiveInt

from utils.config import bounded, parse_command, parse_options, spelled
from utils.errors import InputError

Digit = bounded("Digit", int, (">=", 0), ("<", 10))
Share = bounded("Share", float, (">", 0), ("<=", 1))


@dataclass
class Shape:
    """A nested group of options."""

    hidden_size: PositiveInt = 8
    """Width of the layers."""
    levels: list[int] = field(default_factory=lambda: [8, 5])
    """Levels per dimension."""
    norm: Literal["none", "layer"] = "none"
    """Normalization of the layers."""


@dataclass
class Options:
    """Options of the tests."""

    data: Path
    """Folder of the data."""
    shape: Shape = field(default_factory=Shape)
    """Shape of the model."""
    batch_size: PositiveInt = 4
    """Rows per step."""
    rate: PositiveFloat = 0.1
    """Learning rate."""
    weight_decay: NonNegativeFloat = 0.0
    """Weight decay."""
    drop: ClosedUnitInterval = 0.5
    """Probability of dropping a token."""
    digit: Digit = 0
    """Digit of a number."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Device to run on."""
    resume: bool = False
    """Continue from the last state."""
    dry_run: bool = False
    """Do nothing."""
    causal: bool = True
    """Whether to be causal."""
    limit: PositiveInt | None = None
    """Most clips to read."""
    names: list[str] = field(default_factory=list)
    """Names of clips."""
    axis: Literal["x", "y", "-y"] | None = None
    """Axis that points up."""
    threads: PositiveInt = 7
    """Number of threads. (default: number of CPU cores)"""
    share: Share = 0.5
    """Share of the clips."""


def parse(*arguments: object) -> Options:
    return parse_options(Options, "", ["--data", "d", *map(str, arguments)])[0]


def error_of(*arguments: object) -> str:
    with pytest.raises(InputError) as caught:
        parse(*arguments)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# --- Values


def test_defaults_and_values_are_filled_in():
    options = parse("--batch-size", 7, "--rate", 2, "--limit=3", "--names", "[a, b]", "--shape.levels", "[2, 2]")
    expected = Options(Path("d"), Shape(levels=[2, 2]), batch_size=7, rate=2.0, limit=3, names=["a", "b"])
    assert options == expected
    assert parse() == Options(Path("d"))


def test_optional_values_accept_null():
    assert parse("--limit", 5).limit == 5 and parse("--limit", "null").limit is None


def test_hyphens_and_underscores_are_equivalent():
    hyphens = parse("--batch-size", 7, "--weight-decay=1", "--shape.hidden-size", 3, "--dry-run")
    underscores = parse("--batch_size", 7, "--weight_decay=1", "--shape.hidden_size", 3, "--dry_run")
    assert hyphens == underscores and hyphens.dry_run and hyphens.shape.hidden_size == 3


@pytest.mark.parametrize(
    "arguments",
    [("--resume", "--batch-size", 2), ("--batch-size", 2, "--resume"), ("--resume", "true", "--batch-size=2")],
    ids=["before another option", "at the end", "with a value"],
)
def test_a_bare_switch_means_true(arguments):
    options = parse(*arguments)
    assert options.resume and options.batch_size == 2 and not options.dry_run


def test_switches_accept_values():
    options = parse("--resume", "--dry-run", "false", "--causal=false")
    assert (options.resume, options.dry_run, options.causal) == (True, False, False)


def test_values_have_plain_types():
    options = parse("--batch-size", 7, "--rate", 1, "--digit", 3, "--shape.hidden-size", 5)
    values = (options.batch_size, options.rate, options.digit, options.shape.hidden_size)
    assert [type(value) for value in values] == [int, float, int, int]


def test_later_options_override_earlier_ones_and_the_yaml_file(tmp_path):
    file = tmp_path / "options.yaml"
    file.write_text("batch_size: 9\nrate: 0.5\nshape: {hidden_size: 3, levels: [4, 4, 4]}\n")
    options = parse("--config", file, "--batch-size", 2, "--shape.levels", "[7]")
    assert (options.batch_size, options.rate) == (2, 0.5)
    assert (options.shape.hidden_size, options.shape.levels, options.shape.norm) == (3, [7], "none")
    assert parse("--batch-size", 2, "--config", file).batch_size == 9


def test_the_returned_yaml_restores_the_options(tmp_path):
    options, as_yaml = parse_options(Options, "", ["--data", "d", "--digit", "5", "--shape.norm", "layer"])
    (tmp_path / "options.yaml").write_text(as_yaml)
    assert parse_options(Options, "", ["--config", str(tmp_path / "options.yaml")])[0] == options


# --- Errors


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--batch-size", 0), "--batch-size is 0; give a whole number of at least 1"),
        (("--batch-size", 1.5), "--batch-size is 1.5; give a whole number of at least 1"),
        (("--batch_size", "many"), "--batch-size is many; give a whole number of at least 1"),
        (("--rate", 0), "--rate is 0; give a number above 0"),
        (("--weight-decay", -1), "--weight-decay is -1; give a number of at least 0"),
        (("--drop", 1.5), "--drop is 1.5; give a number from 0 to 1"),
        (("--digit", 10), "--digit is 10; give a whole number of at least 0 and below 10"),
        (("--share", 1.5), "--share is 1.5; give a number above 0 and at most 1"),
        (("--axis", "w"), "--axis w is unknown; use x, y or -y"),
        (("--limit", 0), "--limit is 0; give a whole number of at least 1"),
        (("--device", "tpu"), "--device tpu is unknown; use auto, cpu or cuda"),
        (("--shape.norm", "batch"), "--shape.norm batch is unknown; use none or layer"),
        (("--shape.hidden-size", "x"), "--shape.hidden-size is x; give a whole number of at least 1"),
        (("--shape.levels", 3), "--shape.levels is 3; give a list of whole numbers"),
        (("--resume", "maybe"), "--resume is maybe; give true or false"),
        (("--batchsize", 3), "the option --batchsize is unknown; --help lists the options"),
        (("more",), "the argument more is unknown; --help lists the options"),
        (("--config", "no.yaml"), "--config cannot be read"),
    ],
)
def test_invalid_values_are_explained(arguments, message):
    assert error_of(*arguments).startswith(message)


def test_a_missing_option_is_named():
    with pytest.raises(InputError, match="^--data is missing; --help describes it$"):
        parse_options(Options, "", [])


def test_invalid_values_in_a_yaml_file_are_explained(tmp_path):
    file = tmp_path / "options.yaml"
    file.write_text("shape: {hidden_size: 0}\n")
    assert "give a whole number of at least 1" in error_of("--config", file)
    file.write_text("batch_sizes: 3\n")
    assert "batch_sizes" in error_of("--config", file)
    file.write_text("batch_size: [\n")
    assert error_of("--config", file).startswith("--config cannot be read")


def test_classes_are_not_loaded_from_options(tmp_path):
    file = tmp_path / "options.yaml"
    file.write_text("shape: {class_path: tests.test_config.Shape, init_args: {hidden_size: 3}}\n")
    assert "names a class" in error_of("--shape", '{"class_path": "os.system"}')
    assert "names a class" in error_of("--config", file)


@pytest.mark.parametrize(
    "content",
    ["5", "- a", "shape: 5", "shape: [1]", "shape: text", "1: 2", "data: !!python/name:os.system", "shape: &a {b: *a}",
     b"data: gr\xfc\xdfer", "data: [", "batch_size: {a: 1}", "more: 1", "batch_size: " + "9" * 5000],
)  # fmt: skip
def test_files_that_are_no_options_are_refused_in_one_sentence(content, tmp_path):
    file = tmp_path / "options.yaml"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    assert len(error_of("--config", file)) < 500
    assert len(error_of(f"--config={file}")) < 500


# --- Help


def test_help_describes_options_in_words(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    with pytest.raises(SystemExit) as stop:
        parse_options(Options, "Does things.\n\n    python script.py --data d\n\nMore.", ["--help"])
    printed = capsys.readouterr().out
    assert not stop.value.code and "Does things.\n\n    python script.py --data d\n" in printed
    words = " ".join(printed.split())
    for line in (
        "--data PATH Folder of the data. (required)",
        "--batch-size NUMBER Rows per step. (whole number of at least 1, default: 4)",
        "--drop NUMBER Probability of dropping a token. (number from 0 to 1, default: 0.5)",
        "--digit NUMBER Digit of a number. (whole number of at least 0 and below 10, default: 0)",
        "--axis NAME Axis that points up. (one of x, y or -y)",
        "--threads NUMBER Number of threads. (whole number of at least 1, default: number of CPU cores)",
        "--device {auto,cpu,cuda} Device to run on. (default: auto)",
        "--resume [true|false] Continue from the last state. (default: false)",
        "--causal [true|false] Whether to be causal. (default: true)",
        "--limit NUMBER Most clips to read. (whole number of at least 1)",
        "--shape CONFIG YAML file with the options of this group.",
        "--shape.hidden-size NUMBER Width of the layers. (whole number of at least 1, default: 8)",
        "--shape.levels [ITEM,...] Levels per dimension. (list of whole numbers, default: [8, 5])",
    ):
        assert line in words
    assert "--batch_size" not in printed and "restricted" not in printed and "PositiveInt" not in printed


# --- Commands


@dataclass
class Copy:
    """Copy a folder.

    Further text.
    """

    out: Path
    """Folder to write."""


@dataclass
class Remove:
    """Remove a folder."""

    force: bool = False
    """Do not ask."""


COMMANDS = {"copy": Copy, "remove": Remove}


def test_a_command_fills_its_own_options(monkeypatch):
    assert parse_command(COMMANDS, "", ["copy", "--out", "x"]) == Copy(Path("x"))
    monkeypatch.setattr(sys, "argv", ["script.py", "remove", "--force"])
    assert parse_command(COMMANDS, "") == Remove(force=True)


def test_unknown_commands_and_options_of_other_commands_are_refused():
    for arguments, message in (
        ([], "no command is given; give one of the commands copy, remove"),
        (["move"], "move is no command; give one of the commands copy, remove"),
        (["copy", "--out", "x", "--force"], "the option --force is unknown"),
        (["copy"], "--out is missing"),
    ):
        with pytest.raises(InputError, match=f"^{message}"):
            parse_command(COMMANDS, "", arguments)


def test_help_lists_the_commands_and_describes_one(capsys):
    with pytest.raises(SystemExit):
        parse_command(COMMANDS, "Works on folders.", ["--help"])
    printed = capsys.readouterr().out
    assert printed.startswith("usage: ") and " COMMAND [options]\n\nWorks on folders.\n\ncommands (`" in printed
    assert "  copy    Copy a folder.\n  remove  Remove a folder." in printed
    with pytest.raises(SystemExit):
        parse_command(COMMANDS, "", ["copy", "--help"])
    printed = capsys.readouterr().out
    assert "Further text." in printed and "--out PATH" in printed and "--force" not in printed


def test_types_with_equal_bounds_are_shared():
    assert bounded("OtherDigit", int, (">=", 0), ("<", 10)) is Digit
    assert bounded("Letter", int, (">=", 0), ("<", 26)) is not Digit


def test_option_names_are_written_with_hyphens():
    assert spelled("shape.hidden_size") == "--shape.hidden-size"
