"""Regular files within a size limit, and the one sentence that refuses a file."""

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path

from utils.errors import InputError, reason_of, shown

FLAGS = os.O_RDONLY | sum(getattr(os, name, 0) for name in ("O_NONBLOCK", "O_CLOEXEC", "O_BINARY"))  # as the system has
MB = 2**20
ADVICE = "write or copy it again"


def refusal(path: Path, reason: object, advice: str) -> InputError:
    """Return the InputError "PATH: REASON; ADVICE", on one line and under 500 characters."""
    return InputError(f"{shown(path, 200)}: {shown(reason, 180)}; {shown(advice, 90)}")


@contextmanager
def refusing(path: Path, kind: str, advice: str = ADVICE) -> Iterator[None]:
    """Turn every exception of the code within into an InputError that names the file.

    Args:
        path: File that is read.
        kind: Noun of its content: "a NumPy array", "JSON".
        advice: Remedy named at the end of the sentence.
    """
    try:
        yield
    except InputError as error:
        if shown(path, 200) in str(error):
            raise
        raise refusal(path, error, advice) from error
    except FileNotFoundError as error:
        raise refusal(path, "the file is missing", "check the path") from error
    except OSError as error:
        raise refusal(path, f"it cannot be read ({reason_of(error)})", advice) from error
    except MemoryError as error:
        raise refusal(path, "it does not fit into the memory", advice) from error
    except RecursionError as error:
        raise refusal(path, f"it is no {kind.split(' ', 1)[-1]} that can be used: nested too deeply", advice) from error
    except Exception as error:  # libraries raise many kinds on damaged files
        raise refusal(path, f"it cannot be read as {kind} ({reason_of(error)})", advice) from error


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Put the name of a file before the sentences of InputErrors of the code within that do not have it."""
    try:
        yield
    except InputError as error:
        raise error if shown(path, 200) in str(error) else InputError(f"{shown(path, 200)}: {error}") from error


@contextmanager
def open_regular(path: Path, kind: str, most: int | None = None, advice: str = ADVICE) -> Iterator[BufferedReader]:
    """Open a regular file for reading; within, exceptions become InputError as in ``refusing``.

    Args:
        path: File to open; folders, FIFOs, sockets and devices are refused without waiting for them.
        kind: Noun of its content.
        most: Largest size in bytes; None for any.
        advice: Remedy named at the end of the sentence.

    Yields:
        The file, opened in binary mode.

    Raises:
        InputError: The file is missing, not regular, not permitted or too large.
    """
    with refusing(path, kind, advice):
        if not stat.S_ISREG(os.stat(path).st_mode):  # opening a FIFO would wait, opening a device may act
            raise refusal(path, "it is not a regular file but a folder, pipe or device", f"give a file with {kind}")
        with open(os.open(path, FLAGS), "rb") as file:
            size = os.fstat(file.fileno()).st_size
            if most is not None and size > most:
                raise refusal(path, f"it has {size} bytes, more than the {most} of {kind} that are read", "split it")
            yield file


def is_inside(name: str) -> bool:
    """Whether a relative path of a file names a place below the folder that it is relative to."""
    return name not in ("", ".") and not name.startswith("/") and ".." not in Path(name).parts and "\0" not in name


def check_regular(folder: Path, kind: str) -> None:
    """Raise InputError if a folder that a library reads holds a pipe, socket or device, which it might wait for."""
    with refusing(folder, kind):
        for path in folder.rglob("*"):
            mode = os.stat(path).st_mode if path.exists() else 0
            if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
                raise refusal(path, "it is not a regular file but a pipe, device or broken link", "remove it")


def read_bytes(path: Path, kind: str, most: int) -> bytes:
    """Return the content of a regular file of at most ``most`` bytes; raises InputError as ``open_regular``."""
    with open_regular(path, kind, most) as file:
        return file.read(most + 1)[:most]
