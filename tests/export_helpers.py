"""The command ``python -m visualize.export``, run in this process."""

from visualize.export import main, read_arguments


def export(arguments: list[str]) -> None:
    """Export with the arguments of a command line."""
    main(*read_arguments(arguments))
