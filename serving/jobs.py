"""Processes that do one job for the app, can be killed, and end with it.

A process reads its job as one line of JSON. When its standard input is closed, the app has ended; it then removes the
folder of the job and exits, together with its children.
"""

import asyncio
import contextlib
import json
import os
import shutil
import signal
import sys
import threading
from pathlib import Path
from subprocess import DEVNULL, PIPE

ROOT = Path(__file__).resolve().parents[1]
PRIORITY = 10  # below that of the app


async def run_job(module: str, job: dict, seconds: float) -> int:
    """Run a module as a process and return its exit status.

    If the task is cancelled, the process is killed.

    Args:
        module: Module of this package; its main program calls ``take_job``.
        job: JSON data with the key "folder".
        seconds: Maximum time.

    Raises:
        TimeoutError: it takes longer.
    """
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", f"{__package__}.{module}"),
        cwd=ROOT,
        stdin=PIPE,
        stdout=DEVNULL,
        stderr=DEVNULL,
        start_new_session=True,  # its children are killed with it
    )
    try:
        assert process.stdin is not None
        process.stdin.write(json.dumps(job).encode() + b"\n")  # stays open: its end is the end of this process
        async with asyncio.timeout(seconds):
            return await process.wait()
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()


def take_job() -> dict:
    """Return the job of this process, which ends with the app from now on."""
    os.nice(PRIORITY)
    job = json.loads(sys.stdin.buffer.readline())
    threading.Thread(target=_end_with_app, args=(job["folder"],), daemon=True).start()
    return job


def _end_with_app(folder: str) -> None:
    while os.read(sys.stdin.fileno(), 1):  # without the lock of sys.stdin, which would be held when Python ends
        pass
    shutil.rmtree(folder, ignore_errors=True)
    os.killpg(0, signal.SIGKILL)
