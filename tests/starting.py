"""Scripts of the repository, each in a process of its own, without the seconds that the imports of libraries take.

The processes are forked from a server process that has imported the libraries, and nothing of this repository.
"""

import atexit
import os
import re
import runpy
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from multiprocessing import forkserver, get_context, set_start_method
from pathlib import Path

ROOT = Path(__file__).parents[1]
LIBRARIES = [
    "accelerate",
    "jsonargparse",
    "matplotlib.backends.backend_agg",
    "moviepy.video.io.ffmpeg_writer",
    "numba",
    "scipy.interpolate",
    "scipy.ndimage",
    "scipy.signal",
    "scipy.sparse.csgraph",
    "scipy.spatial.transform",
    "torch._dynamo",
    "torch.distributed.checkpoint.state_dict",
    "torch.distributed.fsdp",
    "torch.utils.tensorboard",
    "transformers.models.bert.modeling_bert",
    "transformers.models.bert.tokenization_bert",
]


def run_in_this_process(script: str) -> None:
    """Run a script ("train_vq.py") or module ("benchmarks.train") of the repository as the main program."""
    if script.endswith(".py"):
        runpy.run_path(str(ROOT / script), run_name="__main__")
    else:
        runpy.run_module(script, run_name="__main__", alter_sys=True)


class Script:
    """A script that runs in a process of its own, with the methods of ``subprocess.Popen``."""

    def __init__(self, words: list[str], variables: dict[str, str], before_start: Callable | None):
        self._output = tempfile.NamedTemporaryFile("r", errors="replace")  # noqa: SIM115 (closed with this object)
        context = get_context("forkserver")
        context.set_forkserver_preload(LIBRARIES)
        self._process = context.Process(target=_run, args=(words, variables, self._output.name, before_start))
        _start_server()
        self._process.start()
        self.pid: int = self._process.pid
        atexit.register(self.kill)  # or the end of the tests would wait for it

    @property
    def returncode(self) -> int | None:
        return self._process.exitcode

    def poll(self) -> int | None:
        return self.returncode

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def output(self) -> str:
        """Return the output and errors until now, in their order."""
        self._output.seek(0)
        return self._output.read()

    def communicate(self, timeout: float | None = None) -> tuple[str, None]:
        """Wait for the end of the process, and return its output."""
        self._process.join(timeout)
        if self.poll() is None:
            raise subprocess.TimeoutExpired(self._process.name, timeout or 0)
        return self.output(), None


def start_script(
    script: str,
    *arguments: object,
    environment: Mapping[str, str] | None = None,
    before_start: Callable | None = None,
) -> Script:
    """Start a script ("train_vq.py") or module ("benchmarks.train") of the repository on one thread.

    Its output is captured.

    Args:
        arguments: Its command line.
        environment: Environment variables in addition to those of this process.
        before_start: Called in the new process; it can be pickled.
    """
    variables = {**os.environ, **(environment or {}), "OMP_NUM_THREADS": "1"}
    return Script([script, *map(str, arguments)], variables, before_start)


def start_app(*arguments: object) -> tuple[Script, str]:
    """Start the web app on a free port; returns it and its address, as soon as it serves."""
    process = start_script("app.py", "--port", 0, *arguments)
    while not (found := re.search(r"open (http://\S+) in a browser", process.output())):
        assert process.poll() is None, process.output()
        time.sleep(0.05)
    return process, found[1]


def run_script(script: str, *arguments: object) -> str:
    """Run a script to its end, which must be a good one; returns its output."""
    process = start_script(script, *arguments)
    output, _ = process.communicate()
    assert process.returncode == 0, output
    return output


def run_processes(count: int, script: str, *arguments: object, environment: Mapping[str, str] | None = None) -> str:
    """Run a script on several processes as ``torchrun`` does, to a good end of each; returns their output."""
    from torch.distributed import TCPStore  # the place where the processes meet

    store = TCPStore("localhost", 0, is_master=True, wait_for_workers=False)
    common = {"WORLD_SIZE": count, "LOCAL_WORLD_SIZE": count, "MASTER_ADDR": "localhost", "MASTER_PORT": store.port}
    common |= {"TORCHELASTIC_USE_AGENT_STORE": True} | dict(environment or {})
    variables = [common | {"RANK": rank, "LOCAL_RANK": rank} for rank in range(count)]
    texts = [{name: str(value) for name, value in each.items()} for each in variables]
    processes = [start_script(script, *arguments, environment=each) for each in texts]
    outputs = [process.communicate()[0] for process in processes]
    assert not any(process.returncode for process in processes), "\n".join(outputs)
    return "\n".join(outputs)


def _start_server() -> None:
    """Start the server, unless it runs; the libraries count the threads when they are imported."""
    threads = os.environ.get("OMP_NUM_THREADS")
    os.environ["OMP_NUM_THREADS"] = "1"
    try:
        forkserver.ensure_running()
    finally:
        if threads is None:
            del os.environ["OMP_NUM_THREADS"]
        else:
            os.environ["OMP_NUM_THREADS"] = threads


def _run(words: list[str], variables: dict[str, str], output: str, before_start: Callable | None) -> None:
    """Run a script in a forked process as Python runs its main program."""
    file = os.open(output, os.O_WRONLY | os.O_APPEND)
    for stream in (1, 2):
        os.dup2(file, stream)
    os.close(file)
    os.environ.clear()
    os.environ.update(variables)
    os.chdir(ROOT)
    set_start_method(None, force=True)  # not that of this process, for those that the script starts
    sys.argv = words
    if before_start is not None:
        before_start()
    try:
        run_in_this_process(words[0])
    finally:
        atexit._run_exitfuncs()
