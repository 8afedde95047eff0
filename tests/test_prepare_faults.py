"""prepare_data.py when it fails or is killed: the data folder stays as it was, or is no data folder yet."""

import contextlib
import errno
import json
import os
import re
import resource
import signal
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import yaml

import prepare_data
from dataset import converting
from dataset.converting import convert_source, prepared_clip, write_clip
from dataset.derived import derived_folders
from dataset.motion_folder import VECTORS, MotionFolder
from dataset.sources import amass, bvh
from dataset.sources.amass import AmassOptions
from dataset.sources.bvh import BvhOptions
from dataset.splits import SPLITS, split_of
from dataset.staging import JOURNAL, LONGEST_NAME, STAGING, check_clip_id, staged_folder
from dataset.synthetic import synthetic_clips
from tests.bvh_files import OWN_MAP, own_clip, write_bvh
from tests.conftest import run_script, start_script
from tests.prepare_helpers import prepare, threads, write_amass
from utils.errors import InputError

SYNTHETIC = ("prepare_data.py", "synthetic", "--count")
pytestmark = pytest.mark.filterwarnings("ignore:Gimbal lock")  # of the writer of test files


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def synthetic(out: Path, **options) -> None:
    prepare_data.synthetic(prepare_data.SyntheticOptions(out, **options))


def test_new_clips_replace_those_of_the_same_name(small_folder):
    out, before = small_folder.path, set(small_folder.ids("train"))
    (out / "tokens").mkdir()
    synthetic(out, count=9, seed=5)
    after = set(MotionFolder(out).ids("train"))
    assert after != before and len(list((out / VECTORS).iterdir())) >= len(before | after)
    assert not (out / STAGING).exists() and (out / "tokens").is_dir()


@pytest.mark.parametrize("moment", ["clip", "statistics", "end"])
def test_failed_run_changes_nothing(small_folder, tmp_path, monkeypatch, moment):
    out = small_folder.path
    before = contents(out)
    save, saved = np.save, []

    def full(file, array):
        saved.append(file)
        if (moment == "clip" and len(saved) == 5) or (moment == "statistics" and file.name == "std.npy"):
            raise OSError(errno.ENOSPC, "No space left on device")
        save(file, array)

    def removed(folder):
        raise InputError("the folder was removed; No space left on device")

    monkeypatch.setattr(np, "save", full)
    if moment == "end":
        monkeypatch.setattr("utils.locks.FolderInUse.check", removed)
    for folder in (out, tmp_path / "new"):
        saved.clear()
        with pytest.raises(InputError, match="No space left on device"):
            synthetic(folder, count=20)
    assert contents(out) == before and not (out / STAGING).exists()
    assert not (tmp_path / "new").exists()


def test_full_disk_costs_one_sentence(tmp_path):
    limit = partial(resource.setrlimit, resource.RLIMIT_FSIZE, (20_000, 20_000))
    process = start_script(*SYNTHETIC, 20, "--out", tmp_path / "data", before_start=limit)
    printed, _ = process.communicate()
    errors = [line for line in printed.splitlines() if line.startswith("error: cannot write")]
    assert process.returncode == 2 and len(errors) == 1 and "Traceback" not in printed, printed
    assert not (tmp_path / "data").exists()


def test_folder_removed_while_running_costs_one_sentence(tmp_path):
    out = tmp_path / "data"
    with pytest.raises(InputError, match="cannot write"), staged_folder(out) as folder:
        out.rename(tmp_path / "elsewhere")
        clip = next(iter(synthetic_clips(1, 0)))
        write_clip(folder.path, prepared_clip(*clip))
    assert not out.exists()


def test_killed_run_leaves_no_data_folder_and_the_next_run_cleans_up(small_folder, tmp_path):
    for out in (small_folder.path, tmp_path / "new"):
        before = contents(out)
        process = start_script(*SYNTHETIC, 5000, "--out", out)
        while not list((out / STAGING / "texts").glob("*.txt")):
            assert process.poll() is None, process.communicate()[0]
            time.sleep(0.02)
        with pytest.raises(InputError, match="another prepare_data.py is writing into"):
            synthetic(out, count=5)
        process.kill()
        process.communicate()
        now = contents(out)
        assert {name: text for name, text in now.items() if not name.startswith((STAGING, ".lock"))} == before
    with pytest.raises(InputError, match="create a data folder with prepare_data.py"):
        MotionFolder(tmp_path / "new")
    synthetic(tmp_path / "new", count=7)
    assert not any(path.name.startswith(".") for path in (tmp_path / "new").iterdir())


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Path:
    """A folder of four BVH files with captions, and their map."""
    source = tmp_path_factory.mktemp("bvh")
    for number, (name, rotations, pelvis, captions) in enumerate(synthetic_clips(4, seed=1)):
        stem = f"{name} " if number == 1 else name
        write_bvh(source / f"{stem}.bvh", own_clip(rotations, pelvis))
        (source / f"{stem}.txt").write_text("\n".join(captions))
    (source / "map.yaml").write_text(yaml.safe_dump(OWN_MAP))
    return source


def test_names_that_trainings_refuse_are_rejected(source, tmp_path):
    out = tmp_path / "data"
    printed = run_script("prepare_data.py", "bvh", "--source", source, "--out", out, "--skeleton", source / "map.yaml",
                         "--workers", 1, "--mirrored", "false")  # fmt: skip
    (rejected,) = json.loads((out / "report.json").read_text())["rejected"].items()
    assert rejected[0].endswith(" ") and "begins or ends with a space" in rejected[1] and rejected[1] in printed
    folder = MotionFolder(out)
    assert sum(len(folder.ids(split, required=False)) for split in ("train", "val", "test")) == 3


@pytest.mark.parametrize(
    "name", [" a", "a\u2028b", "a\x0b", "\ufeffa", "", "a\x85b", "\udcff", "a" * (LONGEST_NAME + 1)]
)
def test_unusable_clip_ids(name):
    with pytest.raises(InputError, match="cannot be a clip id"):
        check_clip_id(name)


def test_names_that_are_no_text_end_no_run(tmp_path):
    name = os.fsdecode(b"\xff")
    assert split_of(name) in SPLITS
    assert derived_folders(tmp_path / name, "tokens")[1].name == "tokens"


def test_usable_clip_ids():
    for name in ("a b", ".a", "人が歩く", "a\u00a0b", "a" * LONGEST_NAME):
        check_clip_id(name)


def test_killed_worker_costs_its_file_alone(source, tmp_path, monkeypatch):
    victim = sorted(source.glob("*.bvh"))[0].stem
    options = BvhOptions(source, tmp_path / "data", source / "map.yaml", mirrored=False, workers=1)
    plan = bvh.plan(options)
    plan.convert = KillAt(victim, plan.convert)
    convert_source(plan, options)
    rejected = json.loads((tmp_path / "data" / "report.json").read_text())["rejected"]
    assert "its process ended unexpectedly (exit status -9)" in rejected.pop(victim)
    assert all(name.endswith(" ") for name in rejected)


class KillAt:
    """A conversion that kills its process at one file."""

    def __init__(self, name: str, convert: Callable):
        self.name, self.convert = name, convert

    def __call__(self, task):
        if task.name == self.name:
            os.kill(os.getpid(), signal.SIGKILL)
        return self.convert(task)


class StopAt:
    """A conversion that is stopped at one file, and counts the files."""

    def __init__(self, stop: Callable | None, convert: Callable, name: str = ""):
        self.stop, self.convert, self.name, self.files = stop, convert, name, []

    def __call__(self, task):
        self.files.append(task.name)
        if self.stop and task.name == self.name:
            self.stop()
        return self.convert(task)


def interrupt() -> None:
    raise KeyboardInterrupt


def terminate() -> None:
    time.sleep(0.2)  # until the files before are in the journal
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(0.2)  # until the main thread has noticed


def convert_amass(source: Path, out: Path, stop: Callable | None = None, **options) -> list[str]:
    """Convert; returns the names of the files that were not reused from an earlier run."""
    chosen = AmassOptions(source, out, mirrored=False, **options)
    plan = amass.plan(chosen)
    plan.convert = StopAt(stop, plan.convert, "c")
    with contextlib.suppress(KeyboardInterrupt, SystemExit):
        convert_source(plan, chosen)
    return plan.convert.files


@pytest.mark.parametrize("stop", [interrupt, terminate])
def test_stopped_run_is_resumed_with_the_same_options_alone(stop, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(converting, "worker_pool", threads)
    source, out = tmp_path / "source", tmp_path / "data"
    for name in "abcd":
        write_amass(source / f"{name}.npz", 60, 1)
    (source / "b.npz").write_bytes(b"damaged")
    assert convert_amass(source, tmp_path / "whole") == ["a", "b", "c", "d"]
    assert convert_amass(source, out, stop)[:3] == ["a", "b", "c"]
    assert not (out / VECTORS).exists() and (out / STAGING / JOURNAL).is_file()
    with (out / STAGING / JOURNAL).open("a") as journal:
        journal.write('["c", [{"clip_')  # a run that was killed while it wrote
    capsys.readouterr()
    resumed = convert_amass(source, out)
    assert resumed in (["c", "d"], ["b", "c", "d"])  # a signal may come before b is in the journal
    assert f"resuming: {4 - len(resumed)} of 4 files are converted" in capsys.readouterr().out
    assert contents(out) == contents(tmp_path / "whole") and not (out / STAGING).exists()
    convert_amass(source, tmp_path / "other", stop)
    assert convert_amass(source, tmp_path / "other", min_frames=10) == ["a", "b", "c", "d"]  # other options
    convert_amass(source, tmp_path / "changed", stop)
    write_amass(source / "a.npz", 60, 2)
    assert convert_amass(source, tmp_path / "changed") == ["a", "b", "c", "d"]


def test_killed_conversion_is_resumed(tmp_path, monkeypatch, capfd):
    source, out = tmp_path / "source", tmp_path / "data"
    for number in range(150):
        write_amass(source / f"{number:03}.npz", 120, 2)
    process = start_script("prepare_data.py", "amass", "--source", source, "--out", out, "--workers", 1)
    while not (out / STAGING / JOURNAL).is_file():
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.02)
    process.kill()
    process.communicate()
    finished = len((out / STAGING / JOURNAL).read_text().splitlines()) - 1
    assert 0 < finished < 150 and not (out / "split").exists()
    capfd.readouterr()
    prepare(monkeypatch, "amass", source, out)
    resumed = int(re.search(r"resuming: (\d+) of 150 files", capfd.readouterr().out)[1])
    assert finished - 1 <= resumed <= finished
    assert len(list((out / "split").iterdir())) == 3 and len(list((out / VECTORS).glob("???.npy"))) == 150
