"""Worker processes that end with their parent, and signals that end a program in good order."""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing import get_context, parent_process
from typing import Any

from pebble import ProcessPool


@contextmanager
def worker_pool(workers: int, prepare: Callable[..., Any] | None = None, *arguments: Any) -> Iterator[ProcessPool]:
    """Context manager of a pool of worker processes.

    A worker that dies, by a signal or for lack of memory, fails its own task alone (``pebble.ProcessExpired``) and is
    replaced. Leaving the context waits for all tasks; leaving it by an exception cancels them. All workers end when the
    parent ends, also when the parent is killed.

    Args:
        workers: Number of processes.
        prepare: Called with ``arguments`` in each new worker.
    """
    pool = ProcessPool(workers, initializer=_start_worker, initargs=(prepare, arguments), context=get_context("spawn"))
    try:
        yield pool
        pool.close()
    except BaseException:
        pool.stop()
        raise
    finally:
        pool.join()


def _start_worker(prepare: Callable[..., Any] | None, arguments: tuple[Any, ...]) -> None:
    end_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes; the parent alone answers it
    if prepare is not None:
        prepare(*arguments)


def end_with_parent() -> None:
    """End this process as soon as the process that started it has ended, in whatever way."""
    threading.Thread(target=_exit_after_parent, daemon=True).start()


def _exit_after_parent() -> None:
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
