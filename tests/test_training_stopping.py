"""Trainings that end early: Ctrl-C, SIGKILL, a second training in the same folder, a run folder that is removed."""

import os
import shutil
import signal
import time
from pathlib import Path

import psutil
import pytest

from tests.starting import ROOT, Script, start_script
from training.state import states

VQ = ("--config", ROOT / "configs" / "vq" / "debug.yaml", "--precision", "float32", "--draw", 0, "--steps", 100_000)


@pytest.fixture
def start(data_folder):
    """Start a long training in a process group of its own, with data loading processes; it is killed at the end."""
    processes = []

    def start(out: Path, *options: object) -> Script:
        command = ("train_vq.py", *VQ, "--data", data_folder, "--out", out, "--workers", 2, "--validate-every", 100_000)
        processes.append(start_script(*command, *options, before_start=os.setsid))
        return processes[-1]

    yield start
    for process in processes:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def wait_for_steps(process: Script, out: Path) -> list[psutil.Process]:
    """Wait until a training takes steps; returns its data loading processes."""
    while not (out / "train.yaml").exists() or len(psutil.Process(process.pid).children()) < 2:
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.05)
    time.sleep(1)
    return psutil.Process(process.pid).children()


def test_ctrl_c_saves_the_state_and_names_resume(start, tmp_path):
    out = tmp_path / "run"
    process = start(out)
    wait_for_steps(process, out)
    assert not states(out / "states")  # nothing has been saved
    os.killpg(process.pid, signal.SIGINT)
    printed, _ = process.communicate(timeout=120)
    step = int(states(out / "states")[0].name.removeprefix("step-"))
    assert process.returncode == 130 and "Traceback" not in printed, printed
    assert printed.count(f"stopped after step {step} on Ctrl-C; continue with --resume") == 1
    assert f"steps {step} to" not in printed


def test_killed_training_leaves_no_process_and_no_lock(start, tmp_path):
    out = tmp_path / "run"
    process = start(out)
    workers = wait_for_steps(process, out)
    second = start(out)
    printed, _ = second.communicate(timeout=120)
    assert second.returncode == 2 and f"error: another training is writing into {out}" in printed, printed
    process.kill()
    assert not psutil.wait_procs(workers, timeout=20)[1]
    (out / "states").mkdir()
    (out / "states" / ".step-00000001").mkdir()
    third = start(out)
    wait_for_steps(third, out)
    assert list((out / "states").iterdir()) == []


def test_removed_run_folder_costs_one_sentence(start, tmp_path):
    out = tmp_path / "run"
    process = start(out, "--validate-every", 40)
    wait_for_steps(process, out)
    shutil.rmtree(out)
    printed, _ = process.communicate(timeout=120)
    assert process.returncode == 2 and "Traceback" not in printed, printed
    assert f"error: the folder {out} was removed" in printed
    assert not out.exists()
