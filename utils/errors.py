"""The exception for invalid input, and the exit status of scripts that raise it."""

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager


class InputError(ValueError):
    """Invalid input. The message is one sentence that describes the problem and its remedy."""


def reason_of(error: Exception) -> str:
    """Return the first sentence of a library's error, to be part of a message; never its advice to allow unpickling."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    text = " ".join(str(error).split())
    if "pickle" in text:
        return "it is of another format or holds Python objects"
    return text.partition(". ")[0][:200] or type(error).__name__


@contextmanager
def exit_on_input_error() -> Iterator[None]:
    """Exit with status 2 and a one-line message on an InputError, and with status 130 on Ctrl-C."""
    if threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGINT) != signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)  # in place of that of utils/interrupt.py
    try:
        yield
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("interrupted; finished work is kept", file=sys.stderr)
        sys.exit(130)
