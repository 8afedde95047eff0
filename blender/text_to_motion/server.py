"""The motion server: one that runs already, or one that is started from a folder of the repository."""

import os
import queue
import re
import subprocess
import threading
import time
from pathlib import Path

from .job import Failure

START_SECONDS = 180
# Runs app.py, and ends with Blender: at the end of the standard input.
STARTER = (
    "import os, runpy, sys, threading; "
    "threading.Thread(target=lambda: (sys.stdin.buffer.read(), os._exit(0)), daemon=True).start(); "
    "sys.argv = ['app.py', '--port', '0']; sys.path.insert(0, '.'); runpy.run_path('app.py', run_name='__main__')"
)

_started: dict[str, tuple[subprocess.Popen, str]] = {}  # by folder: process and address


def start(folder: str) -> str:
    """Start the server of a repository, if it does not run, and return its address."""
    if folder in _started and _started[folder][0].poll() is None:
        return _started[folder][1]
    root = Path(folder)
    pythons = [root / ".venv" / "bin" / "python", root / ".venv" / "Scripts" / "python.exe"]
    python = next((path for path in pythons if path.exists()), None)
    if python is None or not (root / "app.py").exists():
        raise Failure(f"{folder} is no folder of the project with its .venv; run make demo there once")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    process = subprocess.Popen([str(python), "-u", "-c", STARTER], cwd=root, env=environment, text=True,
                               stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)  # fmt: skip
    lines: queue.Queue[str | None] = queue.Queue()
    threading.Thread(target=_drain, args=(process, lines), daemon=True).start()
    said, end = "", time.monotonic() + START_SECONDS
    while True:
        try:
            line = lines.get(timeout=max(0.0, end - time.monotonic()))
        except queue.Empty:
            process.kill()
            raise Failure(f"the server did not start within {START_SECONDS} s") from None
        if line is None:
            raise Failure(f"the server did not start ({said.strip()[:200]})")
        if found := re.search(r"open (http://\S+) in a browser", line):
            _started[folder] = process, found[1]
            return found[1]
        said = line.strip() or said


def stop() -> None:
    """Stop all servers that were started."""
    for process, _ in _started.values():
        process.kill()
        process.wait()
    _started.clear()


def _drain(process: subprocess.Popen, lines: "queue.Queue[str | None]") -> None:
    """Put the lines of a process into a queue, None at its end."""
    assert process.stdout is not None
    for line in process.stdout:
        lines.put(line)
    lines.put(None)
