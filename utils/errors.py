"""The exception for invalid input, its one-line messages, and the exit status of scripts that raise it."""

import difflib
import io
import os
import select
import signal
import sys
import threading
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress

MAX_MESSAGE = 499  # characters
INTERRUPTED = "interrupted; finished work is kept"  # on Ctrl-C
PIPE_CLOSED = 141  # 128 + SIGPIPE, as in the shell


def counted(count: int, noun: str) -> str:
    """Return a count with its noun, which takes an s in the plural."""
    return f"{count} {noun}{'s' * (count != 1)}"


def shown(text: object, most: int = 80) -> str:
    """Return foreign text as it may stand in a message: on one line, control characters escaped, shortened.

    Everything that is not printable is escaped: line ends, terminal codes, marks that reverse the direction of text,
    halves of surrogate pairs. A long text loses its middle.
    """
    text = str(text)
    if len(text) > 2 * most:  # before the escapes: the text may have millions of characters
        text = f"{text[:most]}{text[-most:]}"
    text = "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)
    if len(text) <= most:
        return text
    head = (most - 5) * 2 // 3
    return f"{text[:head]} ... {text[len(text) - (most - 5 - head) :]}"


class InputError(ValueError):
    """Invalid input. The message is one sentence that describes the problem and its remedy.

    It is printable, on one line and at most ``MAX_MESSAGE`` long, whatever foreign text it quotes.
    """

    def __init__(self, message: object):
        super().__init__(shown(message, MAX_MESSAGE))


def nearest(name: object, known: Collection[str]) -> str:
    """Return the remedy for an unknown name: the most similar known name, or all of them."""
    similar = difflib.get_close_matches(str(name)[:80], known, 1)
    return f"did you mean {similar[0]}?" if similar else f"use {', '.join(known)}"


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
    """Exit with status 2 and a one-line message on an InputError or unusable path, and with status 130 on Ctrl-C.

    If the program that reads the output ends first, as ``head`` does, the script exits without a message. Characters
    that the encoding of the output lacks, as in a file on Windows, are written as escapes.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    in_main = threading.current_thread() is threading.main_thread()
    earlier = signal.getsignal(signal.SIGINT)
    if in_main and earlier != signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)  # in place of that of utils/interrupt.py
    try:
        yield
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print(INTERRUPTED, file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:
        if not drop_closed_output():
            raise
        sys.exit(PIPE_CLOSED)
    except OSError as error:  # of a path that cannot be looked up: too long, or in a folder without permission
        if error.filename is None:
            raise
        refused = f"{shown(error.filename, 200)}: {reason_of(error)}; check the path and its permissions"
        print(f"error: {refused}", file=sys.stderr)
        sys.exit(2)
    finally:
        drop_closed_output()
        if in_main:
            signal.signal(signal.SIGINT, earlier)  # imports may follow


def drop_closed_output() -> bool:
    """Return whether standard output is a pipe without a reader; its output is then dropped, also that at exit."""
    if sys.stdout is None:  # closed by the caller, as some starters of services do
        return False
    with suppress(BrokenPipeError):
        sys.stdout.flush()
    try:
        output = sys.stdout.fileno()
    except OSError:  # it is not a file
        return False
    if not hasattr(select, "poll"):  # Windows
        return False
    poll = select.poll()
    poll.register(output, 0)
    is_closed = any(event & select.POLLERR for _, event in poll.poll(0))
    if is_closed:
        os.dup2(os.open(os.devnull, os.O_WRONLY), output)
    return is_closed
