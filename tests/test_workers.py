"""Worker processes: one that dies costs its task alone, and all end with their parent."""

import os
import signal
import subprocess
import sys

import psutil
import pytest

from tests.conftest import ROOT
from utils.processes import WorkerDied, worker_pool


def square(number: int) -> int:
    """Work of a test; a negative number kills the worker."""
    if number < 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return number**2


class DiesWhenSent:
    """A result whose worker is killed while it answers."""

    def __reduce__(self) -> tuple:
        os.kill(os.getpid(), signal.SIGKILL)
        return str, ()


def test_a_killed_worker_fails_its_task_alone():
    with worker_pool(2, os.nice, 1) as pool:
        tasks = {number: pool.submit(square, number) for number in (1, 2, -3, 4, 5)}
        answer = pool.submit(DiesWhenSent)
        with pytest.raises(WorkerDied, match="-9"):
            tasks[-3].result()
        with pytest.raises(WorkerDied):
            answer.result()
        assert [tasks[number].result() for number in (1, 2, 4, 5)] == [1, 4, 16, 25]


def test_a_killed_idle_worker_costs_nothing():
    with worker_pool(1) as pool:
        for number in range(3):
            os.kill(pool.submit(os.getpid).result(), signal.SIGKILL)
            assert pool.submit(square, number).result() == number**2


def test_workers_that_cannot_start_fail_their_tasks():
    with worker_pool(1, sys.exit, 3) as pool, pytest.raises(WorkerDied, match="exit status 3"):
        pool.submit(square, 2).result()


class Unpicklable(Exception):
    def __init__(self, first: int, second: int):
        super().__init__("no")


def fail(error: type[Exception], *arguments: int) -> None:
    raise error(*arguments)


def test_errors_of_tasks_are_raised_by_their_futures():
    with worker_pool(1) as pool:
        with pytest.raises(KeyError, match="7") as raised:
            pool.submit(fail, KeyError, 7).result()
        assert "in fail" in raised.value.__notes__[0]  # the traceback in the worker
        with pytest.raises(RuntimeError, match="Unpicklable: no"):
            pool.submit(fail, Unpicklable, 1, 2).result()
        with pytest.raises(AttributeError):
            pool.submit(lambda: None).result()
        assert pool.submit(square, 3).result() == 9


def test_leaving_a_pool_by_an_error_ends_running_tasks():
    with pytest.raises(ZeroDivisionError), worker_pool(2) as pool:
        workers = {task.result() for task in [pool.submit(os.getpid) for _ in range(2)]}
        tasks = [pool.submit(signal.pause) for _ in range(4)]
        raise ZeroDivisionError
    assert not any(psutil.pid_exists(worker) for worker in workers)
    assert all(task.done() for task in tasks)


def test_a_pool_without_tasks_ends():
    with worker_pool(1):
        pass


PARENT = """
import os, time
from utils.processes import WorkerDied, worker_pool

if __name__ == "__main__":
    with worker_pool(2) as pool:
        print(*{task.result() for task in [pool.submit(os.getpid) for _ in range(2)]}, flush=True)
        for _ in range(4):
            pool.submit(time.sleep, 60)
        time.sleep(60)
"""


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_workers_end_with_their_parent(tmp_path, end):
    script = tmp_path / "parent.py"
    script.write_text(PARENT)
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    parent = subprocess.Popen(
        [sys.executable, script], env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    assert parent.stdout is not None and parent.stdout.readline()
    workers = psutil.Process(parent.pid).children(recursive=True)
    assert len(workers) >= 2
    if end == signal.SIGINT:  # Ctrl-C reaches the whole group
        for process in (*workers, psutil.Process(parent.pid)):
            process.send_signal(end)
    else:
        parent.send_signal(end)
    _, alive = psutil.wait_procs(workers, timeout=20)
    parent.kill()
    parent.wait()
    assert not alive
