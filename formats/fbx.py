"""FBX files, through Blender: converted to glTF to be read, and from glTF to be written.

Blender runs ``blender/convert.py`` in a process of its own, so that its crash on a damaged file is one sentence.
"""

import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from formats.gltf_file import MAX_BYTES, GltfFile, read_gltf
from utils.errors import InputError, shown
from utils.files import atomic_write
from utils.reading.files import MB, open_regular

SCRIPT = Path(__file__).resolve().parents[1] / "blender" / "convert.py"
VARIABLE = "BLENDER"  # environment variable with a program: Blender, or a Python that has the module bpy
BACKGROUND = ("--background", "--factory-startup", "--python-exit-code", "1", "--python")
LONGEST = 300  # seconds
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
            raise InputError(f"{VARIABLE} is {shown(given, 100)}, which is no program; name Blender or a Python with bpy")
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
    words = [*command, str(SCRIPT), "--", str(source), str(target)]
    try:
        done = subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, timeout=LONGEST, cwd=target.parent)
    except subprocess.TimeoutExpired as error:
        raise InputError(f"{shown(named, 200)}: Blender did not convert it within {LONGEST} s; {ADVICE}") from error
    except OSError as error:
        raise InputError(f"{command[0]} cannot be started ({error.strerror}); {MISSING}") from error
    if done.returncode or not target.exists():
        said = (done.stderr or done.stdout).decode(errors="replace").strip().splitlines() or ["it says nothing"]
        if "No module named 'bpy'" in said[-1]:
            raise InputError(f"{command[0]} has no module bpy; {MISSING}")
        reason = shown(said[-1].removeprefix("RuntimeError: ").replace(str(source), "the file"), 150)
        raise InputError(f"{shown(named, 200)}: Blender cannot convert it ({reason}); {ADVICE}")
    if target.stat().st_size > MAX_BYTES:
        raise InputError(f"{shown(named, 200)}: it has more than {MAX_BYTES // MB} MB; split it")
