"""The one exception that the user is meant to read, and how the scripts end on it."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager


class InputError(ValueError):
    """Input that cannot be used; the message is one sentence that says what is wrong and what to do."""


def reason_of(error: Exception) -> str:
    """Why a library failed, to stand in a sentence of ours: what it said first, never its advice to unpickle."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    text = " ".join(str(error).split())
    if "pickle" in text:
        return "it is of another format or holds Python objects"
    return text.partition(". ")[0][:200] or type(error).__name__


@contextmanager
def exit_on_input_error() -> Iterator[None]:
    """Around a script's main part: print an InputError as one line and exit with status 2; the same for Ctrl-C, 130."""
    try:
        yield
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("interrupted; what was finished is kept", file=sys.stderr)
        sys.exit(130)
