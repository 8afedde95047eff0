"""Checks of the numbers in constraints; errors name the value and its remedy."""

import math
from typing import Any

import numpy as np

from utils.errors import InputError, shown

MAX_COORDINATE = 1000.0  # metres
MAX_SECONDS = 600.0


def check_number(value: Any, noun: str, most: float = MAX_COORDINATE) -> None:
    """Raise InputError unless ``value`` is a number of magnitude ``most`` or less."""
    is_number = isinstance(value, int | float | np.integer | np.floating) and not isinstance(value, bool)
    if not is_number or value != value:
        raise InputError(f"{noun} is {shown(repr(value), 40)}; give a number")
    if abs(value) > most:
        raise InputError(f"{noun} is {shown(value, 40)}; give a value from {-most:g} to {most:g}")


def check_time(value: Any, noun: str = "a time") -> None:
    """Raise InputError unless ``value`` is a time in seconds."""
    check_number(value, noun, math.inf)
    if not 0 <= value <= MAX_SECONDS:
        raise InputError(f"{noun} is {shown(value, 40)} s; give 0 to {MAX_SECONDS:g}")


def check_span(start: Any, end: Any) -> None:
    """Raise InputError unless ``start`` and ``end`` are times in order."""
    check_time(start)
    check_time(end)
    if end < start:
        raise InputError(f"the span ends at {end:g} s, before its start at {start:g} s; exchange from and to")


def coordinates(values: Any, count: int, noun: str, free: bool = False) -> tuple:
    """Return ``count`` coordinates as a tuple of floats; None is kept where ``free``.

    Raises:
        InputError: another count, or a value that is no number.
    """
    example = "[x, y, z] in metres, null for a free axis" if count == 3 else "[x, z] in metres"
    values = values.tolist() if isinstance(values, np.ndarray) else values
    if not isinstance(values, list | tuple) or len(values) != count:
        raise InputError(f"{noun} is {shown(values, 40)}; give {example}")
    for value in values:
        if not (free and value is None):
            check_number(value, f"a value of {noun}")
    return tuple(None if value is None else float(value) for value in values)
