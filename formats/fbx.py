"""FBX files, through Blender: converted to glTF to be read, and from glTF to be written.

Blender runs ``blender/convert.py`` in a process of its own, so that a crash on a damaged file becomes an InputError.
This process converts one file after the other, because the start of Blender takes longer than most conversions.
"""

import atexit
import importlib.util
import json
import os
import queue
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path

from formats.gltf_file import MAX_BYTES, GltfFile, read_gltf
from utils.errors import InputError, shown
from utils.files import atomic_write
from utils.reading.files import MB, open_regular

SCRIPT = Path(__file__).resolve().parents[1] / "blender" / "convert.py"
VARIABLE = "BLENDER"  # environment variable with a program: Blender, or a Python that has the module bpy
BACKGROUND = ("--background", "--factory-startup", "--python-exit-code", "1", "--python")
LONGEST = 300  # seconds of a conversion
ANSWER = "answer: "  # start of the line with which blender/convert.py answers
ADVICE = "export it again in the 3-D program that it comes from"
MISSING = (
    "FBX is read and written by Blender, which was not found; install Blender, or pip install bpy==5.0.1 into a Python "
    f"3.11, and name its program, or that Python, in the environment variable {VARIABLE}"
)


def find_blender() -> list[str]:
    """Return the command that runs a script in Blender.

    It is found as the program that the environment variable ``BLENDER`` names, as the module ``bpy`` of this Python, or
    as ``blender`` on the PATH.

    Raises:
        InputError: there is no Blender; the sentence says how to get one.
    """
    if given := os.environ.get(VARIABLE):
        program = shutil.which(given)
        if program is None:
            raise InputError(
                f"{VARIABLE} is {shown(given, 90)}, which is no program; name Blender or a Python with bpy"
            )
        program = os.path.abspath(program)
        return [program] if Path(given).name.startswith("python") else [program, *BACKGROUND]
    if importlib.util.find_spec("bpy"):
        return [sys.executable]
    if shutil.which("blender"):
        return ["blender", *BACKGROUND]
    raise InputError(MISSING)


def read_scene(path: str | Path) -> GltfFile:
    """Read a glTF or FBX file.

    Raises:
        InputError: the file cannot be read, or is FBX and there is no Blender.
    """
    path = Path(path)
    if path.suffix.lower() != ".fbx":
        return read_gltf(path)
    command = find_blender()
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder) / "source.fbx", Path(folder) / "target.glb"
        with open_regular(path, "FBX", MAX_BYTES) as file, open(source, "wb") as copy:
            shutil.copyfileobj(file, copy)
        convert(command, source, target, path)
        scene = read_gltf(target)
    scene.path = path
    return scene


def write_fbx(path: str | Path, write_glb: Callable[[Path], object]) -> Path:
    """Write an FBX file.

    Args:
        path: Target; its folder is created if needed.
        write_glb: Writes its content into the .glb file that it is given.

    Raises:
        InputError: there is no Blender, or the target cannot be written.
    """
    command = find_blender()
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder) / "source.glb", Path(folder) / "target.fbx"
        write_glb(source)
        convert(command, source, target, Path(path))
        with atomic_write(Path(path)) as temporary:
            shutil.copyfile(target, temporary)
    return Path(path)


def convert(command: list[str], source: Path, target: Path, named: Path) -> None:
    """Convert a file to the format of ``target``.

    Args:
        command: As ``find_blender`` returns it.
        named: File that errors name.

    Raises:
        InputError: Blender cannot convert it, crashes, or takes too long.
    """
    try:
        reason = _converter(tuple(command)).convert(source, target)
    except TimeoutError as error:
        raise InputError(f"{shown(named, 200)}: Blender did not convert it within {LONGEST} s; {ADVICE}") from error
    except OSError as error:
        raise InputError(f"{command[0]} cannot be started ({error.strerror}); {MISSING}") from error
    if "No module named 'bpy'" in reason:
        raise InputError(f"{command[0]} has no module bpy; {MISSING}")
    if reason or not target.exists():
        reason = shown((reason or "it writes nothing").replace(str(source), "the file"), 150)
        raise InputError(f"{shown(named, 200)}: Blender cannot convert it ({reason}); {ADVICE}")
    if target.stat().st_size > MAX_BYTES:
        raise InputError(f"{shown(named, 200)}: it has more than {MAX_BYTES // MB} MB; split it")


@cache
def _converter(command: tuple[str, ...]) -> "Converter":
    """Return the converter of a command; it is shared by all conversions, and ends with this Python process."""
    converter = Converter(command)
    atexit.register(converter.end)
    return converter


class Converter:
    """A process of Blender that converts one file after the other.

    It starts with the first conversion, and again after a crash.

    Args:
        command: As ``find_blender`` returns it.
    """

    def __init__(self, command: Sequence[str]):
        self.command, self.lock = command, threading.Lock()
        self.process: subprocess.Popen[str] | None = None
        self.lines: queue.Queue[str | None] = queue.Queue()  # of the process; None at its end

    def convert(self, source: Path, target: Path) -> str:
        """Convert a file, and return the reason of a failure, or an empty string.

        Raises:
            TimeoutError: it took longer than ``LONGEST``; the process is killed.
            OSError: the process cannot be started.
        """
        with self.lock:
            if self.process is None or self.process.poll() is not None:
                self._start()
            with suppress(OSError):  # the process has just ended; ``_answer`` returns the reason
                self._send(json.dumps([str(source), str(target)]))
            try:
                return self._answer()
            except BaseException:  # also Ctrl-C: the answer would be taken for that of the next file
                self.end()
                raise

    def end(self) -> None:
        """End the process."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()

    def _start(self) -> None:
        self.lines = queue.Queue()
        self.process = subprocess.Popen(
            [*self.command, str(SCRIPT)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            errors="replace",
            cwd=tempfile.gettempdir(),
        )
        threading.Thread(target=_drain, args=(self.process, self.lines), daemon=True).start()

    def _send(self, line: str) -> None:
        assert self.process is not None and self.process.stdin is not None
        self.process.stdin.write(f"{line}\n")
        self.process.stdin.flush()

    def _answer(self) -> str:
        """Return the reason in the answer of the process; if it ends without one, the last line that it printed."""
        said, end = "it says nothing", time.monotonic() + LONGEST
        while True:
            try:
                line = self.lines.get(timeout=max(0.0, end - time.monotonic()))
            except queue.Empty:
                raise TimeoutError from None
            if line is None:  # it ends, perhaps a moment later: the next file needs a new process
                self.end()
                return said
            if line.startswith(ANSWER):
                return str(json.loads(line.removeprefix(ANSWER)))
            said = line.strip() or said


def _drain(process: "subprocess.Popen[str]", lines: "queue.Queue[str | None]") -> None:
    """Put the lines of a process into a queue, None at its end."""
    assert process.stdout is not None
    for line in process.stdout:
        lines.put(line)
    lines.put(None)
