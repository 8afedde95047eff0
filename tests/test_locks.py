"""Locks of folders and files, and the leftovers of writers that were killed."""

import subprocess
import sys
from multiprocessing import get_context
from pathlib import Path

import pytest

from tests.conftest import ROOT
from utils.errors import InputError
from utils.files import atomic_write
from utils.locks import exclusive_file, exclusive_folder, shared_folder

HOLDER = """
import sys, time
from pathlib import Path
from utils.locks import exclusive_folder, shared_folder
folder = Path(sys.argv[2])
with exclusive_folder(folder, "training", "--out") if sys.argv[1] == "exclusive" else shared_folder(folder):
    print("locked", flush=True)
    time.sleep(60)
"""
LEFTOVERS = (f".{'0123abcd' * 4}.npz", f".{'a' * 32}", ".saving-x1_y", ".step-00000100")
KEPT = (".hidden", "walk.npz", f"{'a' * 32}.npz", ".step-one", "results.json")


@pytest.fixture
def hold():
    """Start a process that holds a folder; it is killed at the end."""
    processes = []

    def start(kind: str, folder: Path) -> subprocess.Popen:
        command = [sys.executable, "-c", HOLDER, kind, str(folder)]
        process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
        processes.append(process)
        assert process.stdout is not None and process.stdout.readline() == "locked\n"
        return process

    yield start
    for process in processes:
        process.kill()
        process.communicate()


def litter(folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    for name in (*LEFTOVERS[:2], *KEPT):
        (folder / name).write_text("")
    for name in LEFTOVERS[2:]:
        (folder / name).mkdir()
        (folder / name / "file").write_text("")


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_exclusive_folder_is_refused_to_others_until_its_process_is_killed(hold, tmp_path):
    out = tmp_path / "out"
    process = hold("exclusive", out)
    with pytest.raises(InputError, match="another training is writing into .*out; .* another --out"):
        exclusive_folder(out, "training", "--out").__enter__()
    process.kill()
    process.wait()
    with exclusive_folder(out, "training", "--out"):
        pass


def test_lock_is_not_inherited_by_forked_processes(tmp_path):
    with exclusive_folder(tmp_path, "training", "--out"):
        child = get_context("fork").Process(target=subprocess.run, args=(["sleep", "60"],))
        child.start()
    with exclusive_folder(tmp_path, "training", "--out"):
        pass
    child.kill()
    child.join()


def test_leftovers_are_removed_unless_another_process_is_alive(hold, tmp_path):
    litter(tmp_path)
    process = hold("shared", tmp_path)
    assert names(tmp_path) == set(KEPT)
    litter(tmp_path)
    with shared_folder(tmp_path):
        assert names(tmp_path) == {*KEPT, *LEFTOVERS}
    assert names(tmp_path) == {*KEPT, *LEFTOVERS}
    process.kill()
    process.wait()
    with shared_folder(tmp_path):
        assert names(tmp_path) == set(KEPT)


def test_leftovers_in_subfolders_are_removed_for_a_training(tmp_path):
    litter(tmp_path / "states")
    with exclusive_folder(tmp_path, "training", "--out", subfolders=True):
        assert names(tmp_path / "states") == set(KEPT)


def test_empty_new_folder_is_removed(tmp_path):
    with pytest.raises(InputError, match="refused"), exclusive_folder(tmp_path / "new", "training", "--out"):
        raise InputError("refused")
    assert not (tmp_path / "new").exists()


def test_removed_folder_is_noticed(tmp_path):
    out = tmp_path / "out"
    with pytest.raises(InputError, match="was removed while"), exclusive_folder(out, "training", "--out") as folder:
        folder.check()
        out.rename(tmp_path / "elsewhere")
        out.mkdir()
        folder.check()
    assert (tmp_path / "elsewhere").exists()  # not before


def count_up(file: Path) -> None:
    """Increase the number in a file 50 times."""
    for _ in range(50):
        with exclusive_file(file):
            number = int(file.read_text()) + 1
            with atomic_write(file) as temporary:
                temporary.write_text(str(number))


def test_concurrent_writers_lose_nothing(tmp_path):
    file = tmp_path / "number"
    file.write_text("0")
    writers = [get_context("fork").Process(target=count_up, args=(file,)) for _ in range(4)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert file.read_text() == "200" and names(tmp_path) == {"number"}
