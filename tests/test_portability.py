"""What Windows lacks or refuses, as far as another system can show it."""

import subprocess
import sys
from pathlib import Path, PureWindowsPath

import pytest

from tests.conftest import ROOT
from utils.paths import files_of
from utils.prompts import expand

WITHOUT_POSIX = """
import fcntl, os, select, signal, sys
for module, names in ((os, "getuid nice O_NONBLOCK O_CLOEXEC sched_getaffinity"), (select, "poll"),
                      (signal, "pthread_sigmask")):
    for name in names.split():
        delattr(module, name)
sys.modules["fcntl"] = None
opened = os.open
def open_file(path, flags, *mode):
    if os.path.isdir(path):
        raise PermissionError(13, "Permission denied")
    return opened(path, flags, *mode)
os.open = open_file
"""
WORK = """
import sys
from pathlib import Path
from utils.errors import exit_on_input_error
from utils.files import atomic_write
from utils.locks import exclusive_file, exclusive_folder, shared_folder
from utils.paths import cache_folder
from utils.processes import exit_on_sigterm, worker_pool
from utils.reading.texts import read_json

folder = Path(sys.argv[1])
if __name__ == "__main__":
    with exit_on_input_error(), exit_on_sigterm(""), shared_folder(folder), worker_pool(1) as pool:
        with exclusive_file(folder / "results.json"), atomic_write(folder / "results.json") as file:
            file.write_text("[1]")
        assert read_json(folder / "results.json") == [1]
        with exclusive_folder(folder / "run", "training", "--out"):
            pass
        assert pool.submit(abs, -3).result() == 3
        assert [path.name for path in folder.iterdir()] == ["results.json"]
        assert cache_folder() == folder.parent / "text-to-motion"
        print("走 → walk")
"""


def test_folders_locks_and_processes_work_without_posix(tmp_path):
    script = tmp_path / "work.py"
    script.write_text(WITHOUT_POSIX + WORK)
    (tmp_path / "out").mkdir()
    ended = subprocess.run(
        [sys.executable, script, tmp_path / "out"],
        cwd=ROOT,
        env={
            "PYTHONPATH": str(ROOT),
            "XDG_CACHE_HOME": str(script),
            "TMPDIR": str(tmp_path),
            "PYTHONIOENCODING": "cp1252",
        },
        capture_output=True,
        text=True,
    )
    assert (ended.returncode, ended.stderr, ended.stdout) == (0, "", "\\u8d70 \\u2192 walk\n")


@pytest.mark.parametrize("text", ["CON", "nul", "COM1", "aux.", "a:b", 'say "hi" <now>?', "a|b*c", "end.  ", "a\\b/c"])
def test_names_of_motions_are_allowed_on_windows(text):
    (item,) = expand([{"prompt": "a person walks", "name": text}], 0, 1)
    assert not PureWindowsPath(f"{item.name}.npz").is_reserved()
    assert not set(item.name) & set('<>:"/\\|?*.') and item.name == item.name.strip() and len(item.name) <= 80


def test_patterns_that_the_shell_leaves_are_replaced_by_files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("b.npz", "a.npz", "c[1].npz", "c1.npz"):
        Path(name).touch()
    named = files_of(["[ab].npz", "c[1].npz", "*.bvh", "new.html"])
    assert named == [Path(name) for name in ("a.npz", "b.npz", "c[1].npz", "*.bvh", "new.html")]


COMMANDS = {"edit_motion": ["redo"], "evaluate": ["t2m"], "prepare_data": ["bvh"]}  # of scripts with commands
SCRIPTS = ("app", "inference_batch", "train_evaluator", "train_t2m", "train_vq", "visualize.export", *COMMANDS)


@pytest.mark.parametrize("script", SCRIPTS)
def test_help_and_option_errors_come_before_slow_imports(script):
    code = (
        f"import runpy, sys; sys.modules.update(torch=None, scipy=None); runpy.run_module({script!r}, None, '__main__')"
    )
    for arguments, status in ([*COMMANDS.get(script, []), "--help"], 0), (["--no-option"], 2):
        ended = subprocess.run([sys.executable, "-c", code, *arguments], cwd=ROOT, capture_output=True, text=True)
        assert ended.returncode == status and "Traceback" not in ended.stderr
        assert "_" not in "".join(
            line.split("--")[1].split()[0] for line in ended.stdout.splitlines() if "  --" in line
        )
