"""Worker processes: one that dies costs its task alone, and all end with their parent."""

import os
import signal
import subprocess
import sys
import time
from functools import partial

import psutil
import pytest
from pebble import ProcessExpired

from tests.conftest import ROOT
from utils.processes import worker_pool


def square(number: int) -> int:
    """Work of a test; a negative number kills the worker."""
    if number < 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return number**2


def test_a_killed_worker_fails_its_task_alone():
    with worker_pool(2, partial(os.nice, 1)) as pool:
        tasks = {number: pool.submit(square, None, number) for number in (1, 2, -3, 4, 5)}
        with pytest.raises(ProcessExpired):
            tasks[-3].result()
        assert [tasks[number].result() for number in (1, 2, 4, 5)] == [1, 4, 16, 25]


def test_a_killed_idle_worker_costs_nothing():
    with worker_pool(1) as pool:
        for _ in range(2):
            os.kill(pool.submit(os.getpid, None).result(), signal.SIGKILL)
            time.sleep(1)
        assert pool.submit(square, None, 3).result() == 9


def test_a_pool_without_tasks_ends():
    with worker_pool(1):
        pass


PARENT = """
import os, time
from utils.processes import worker_pool

if __name__ == "__main__":
    with worker_pool(2) as pool:
        print(*{pool.submit(os.getpid, None).result() for _ in range(2)}, flush=True)
        for _ in range(4):
            pool.submit(time.sleep, None, 60)
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
