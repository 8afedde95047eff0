"""Worker processes that end with their parent, and clean exit on SIGTERM."""

import os
import pickle
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context, parent_process
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from queue import LifoQueue
from typing import Any

import psutil

MAX_STARTS = 3  # of a process that ends before it takes a task
GRACE = 3.0  # seconds in which an idle process ends
POLL = 0.5  # seconds between checks of the parent


@contextmanager
def worker_pool(workers: int, prepare: Callable[..., Any] | None = None, *arguments: Any) -> Iterator["WorkerPool"]:
    """Context manager of a pool of worker processes.

    Leaving the context waits for all tasks; leaving it by an exception cancels them. All workers end when the parent
    ends or is killed. Only the parent receives Ctrl-C.

    Args:
        workers: Number of processes; each starts with its first task.
        prepare: Called with ``arguments`` in each new worker.
    """
    pool = WorkerPool(workers, prepare, arguments)
    try:
        yield pool
        pool.close()
    except BaseException:
        pool.stop()
        raise


class WorkerDied(RuntimeError):
    """A worker process ended during its task: a signal, out of memory, or a crash of a library."""

    def __init__(self, exit_status: int | None):
        super().__init__(f"its process ended unexpectedly (exit status {exit_status}), perhaps for lack of memory")


class WorkerPool:
    """Worker processes that share no lock: a worker that dies at any moment fails its task alone and is replaced.

    Each worker has a pipe of its own and a thread of the parent that waits for its answers.
    """

    def __init__(self, workers: int, prepare: Callable[..., Any] | None, arguments: tuple[Any, ...]):
        self._threads = ThreadPoolExecutor(workers, "worker")
        self._workers = [_Worker(prepare, arguments) for _ in range(workers)]
        self._idle: LifoQueue[_Worker] = LifoQueue()  # started workers are used first
        for worker in self._workers:
            self._idle.put(worker)

    def submit(self, function: Callable[..., Any], *arguments: Any) -> Future:
        """Queue ``function(*arguments)``; its future raises ``WorkerDied`` if the process of the task dies."""
        return self._threads.submit(self._call, function, arguments)

    def _call(self, function: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
        worker = self._idle.get()
        try:
            return worker.call(function, arguments)
        finally:
            self._idle.put(worker)

    def close(self) -> None:
        """Wait for all tasks and end the workers."""
        self._threads.shutdown()
        for worker in self._workers:
            worker.end()

    def stop(self) -> None:
        """Cancel all tasks and end the workers."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        for worker in self._workers:
            worker.kill()
        self.close()


class _Worker:
    """A process that answers one task after the other; started when a task needs it."""

    def __init__(self, prepare: Callable[..., Any] | None, arguments: tuple[Any, ...]):
        self.prepare, self.arguments = prepare, arguments
        self.process: BaseProcess | None = None
        self.pipe: Connection | None = None
        self.killed, self.lock = False, threading.Lock()

    def call(self, function: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
        """Run a task in the process and return its result, or raise its error."""
        task = pickle.dumps((function, arguments))
        pipe = self._hand_over(task)
        try:
            answer = pipe.recv_bytes()
        except (OSError, EOFError):
            raise WorkerDied(self.end()) from None
        succeeded, value = pickle.loads(answer)
        if succeeded:
            return value
        raise value

    def _hand_over(self, task: bytes) -> Connection:
        """Send a task to the process, which is started again if it has died meanwhile."""
        for _ in range(MAX_STARTS):
            pipe = self._started()
            try:
                pipe.send_bytes(task)
                pipe.recv_bytes()  # the receipt
                return pipe
            except (OSError, EOFError):
                exit_status = self.end()
        raise WorkerDied(exit_status)

    def _started(self) -> Connection:
        with self.lock:
            if self.killed:
                raise WorkerDied(None)
            if self.pipe is None:
                context = get_context("spawn")
                self.pipe, end = context.Pipe()
                self.process = context.Process(target=_serve, args=(end, self.prepare, self.arguments))
                try:
                    with _without_ctrl_c():  # its imports print no traceback
                        self.process.start()
                finally:
                    end.close()
            return self.pipe

    def end(self) -> int | None:
        """End the process, which has no task, and return its exit status."""
        process, pipe = self.process, self.pipe
        if process is None or pipe is None:
            return None
        self.process = self.pipe = None
        pipe.close()  # the process returns from ``_serve``
        process.join(GRACE)
        process.kill()
        process.join()
        return process.exitcode

    def kill(self) -> None:
        """Kill the process, which fails its task, and start no other."""
        with self.lock:
            self.killed = True
            if (process := self.process) is not None:
                process.kill()


@contextmanager
def _without_ctrl_c() -> Iterator[None]:
    """Block Ctrl-C in this thread, and in processes that it starts until they unblock it; no effect on Windows."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _serve(pipe: Connection, prepare: Callable[..., Any] | None, arguments: tuple[Any, ...]) -> None:
    """Main function of a worker: answer each task with (True, result) or (False, error)."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    end_with_parent()
    if prepare is not None:
        prepare(*arguments)
    while True:
        try:
            task = pipe.recv_bytes()
        except EOFError:  # the pool was closed
            return
        pipe.send_bytes(b"")  # the receipt: from here on, the death of the process fails this task
        pipe.send_bytes(_answer(task))


def _answer(task: bytes) -> bytes:
    try:
        function, arguments = pickle.loads(task)
        return pickle.dumps((True, function(*arguments)))
    except Exception as error:
        error.add_note("".join(traceback.format_exception(error)))
        try:
            answer = pickle.dumps((False, error))
            pickle.loads(answer)
            return answer
        except Exception:  # errors of some libraries cannot be pickled
            return pickle.dumps((False, RuntimeError(f"{type(error).__name__}: {error}")))


def lower_priority() -> None:
    """Let other processes go first."""
    if hasattr(os, "nice"):
        os.nice(10)
    else:
        psutil.Process().nice(psutil.BELOW_NORMAL_PRIORITY_CLASS)


def end_with_parent() -> None:
    """End this process as soon as the process that started it has ended or was killed."""
    parent = parent_process()
    parent_id = os.getppid() if parent is None or parent.pid is None else parent.pid
    threading.Thread(target=_exit_after, args=(parent_id,), daemon=True).start()


def _exit_after(parent_id: int) -> None:
    # A pipe to the parent would be held open by its other children. On Windows, getppid stays the same.
    while os.getppid() == parent_id and psutil.pid_exists(parent_id):
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
