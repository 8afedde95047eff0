"""Worker processes that end with their parent, and clean exit on SIGTERM."""

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import parent_process
from multiprocessing.context import SpawnContext, SpawnProcess
from typing import Any

from pebble import ProcessExpired, ProcessPool
from pebble.pool.process import PoolManager

MAX_IDLE_DEATHS = 20  # of workers without a task; beyond this, workers cannot start
POLL = 0.5  # seconds between checks of the parent


@contextmanager
def worker_pool(workers: int, prepare: Callable[..., Any] | None = None, *arguments: Any) -> Iterator[ProcessPool]:
    """Context manager of a pool of worker processes.

    If a worker dies (signal, out of memory), only its task fails (``pebble.ProcessExpired``), and the worker is
    replaced. Leaving the context waits for all tasks; leaving it by an exception cancels them. All workers end when the
    parent ends or is killed. Only the parent receives Ctrl-C.

    Args:
        workers: Number of processes; they start with the first task.
        prepare: Called with ``arguments`` in each new worker.
    """
    pool = _Pool(workers, initializer=_start_worker, initargs=(prepare, arguments), context=_Context())
    try:
        yield pool
        pool.close()
        pool.join()
    except BaseException:
        pool.stop()
        pool.join()
        raise


def describe_failure(error: BaseException) -> str:
    """Return the reason why a task of a pool failed, as a part of a sentence."""
    if isinstance(error, ProcessExpired):
        return f"its process ended unexpectedly (exit status {error.exitcode}), perhaps for lack of memory"
    return str(error) or repr(error)


class _Manager(PoolManager):
    """Pool manager that replaces workers that die without a task; in pebble they end the whole pool."""

    idle_deaths = 0

    def find_expired_task(self, worker_id: int) -> Any:
        try:
            return super().find_expired_task(worker_id)
        except BrokenProcessPool:
            self.idle_deaths += 1
            if self.idle_deaths > MAX_IDLE_DEATHS:
                raise
            raise LookupError("the worker had no task") from None


class _Pool(ProcessPool):
    def __init__(self, workers: int, **settings: Any):
        super().__init__(workers, **settings)
        self._pool_manager = _Manager(self._context, settings["context"])


class _Process(SpawnProcess):
    """Process that ignores Ctrl-C from its start, so that its imports print no traceback."""

    def start(self) -> None:
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            super().start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)


class _Context(SpawnContext):
    Process = _Process


def _start_worker(prepare: Callable[..., Any] | None, arguments: tuple[Any, ...]) -> None:
    end_with_parent()
    if prepare is not None:
        prepare(*arguments)


def end_with_parent() -> None:
    """End this process as soon as the process that started it has ended or was killed."""
    parent = parent_process()
    parent_id = os.getppid() if parent is None or parent.pid is None else parent.pid
    threading.Thread(target=_exit_after, args=(parent_id,), daemon=True).start()


def _exit_after(parent_id: int) -> None:
    while os.getppid() == parent_id:  # a pipe to the parent would be held open by its other children
        time.sleep(POLL)
    os._exit(1)


class Terminated(BaseException):
    """SIGTERM was received."""


@contextmanager
def exit_on_sigterm(message: str) -> Iterator[None]:
    """Context manager in which SIGTERM raises ``Terminated``; it then prints ``message`` and exits with status 0.

    Only the main thread receives signals; in other threads it does nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def terminate(*_: object) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # a second one must not interrupt saving
        raise Terminated

    before = signal.signal(signal.SIGTERM, terminate)
    try:
        yield
    except Terminated:
        print(message, flush=True)
        sys.exit(0)
    finally:
        signal.signal(signal.SIGTERM, before)
