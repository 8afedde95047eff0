"""Interrupted runs and resuming: killed, stopped by SIGTERM, out of disk space, with damaged states."""

import json
import os
import random
import resource
import shutil
import signal
import time
from functools import partial
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from safetensors.torch import load_file, save_file

from tests.conftest import ROOT, run_script, start_script
from training.state import load_tensors, newest_state, prune_states, save_state, save_tensors, states
from utils.checkpoint import WEIGHTS
from utils.errors import InputError

VQ = ("--config", ROOT / "configs" / "vq" / "debug.yaml", "--precision", "float32", "--draw", 0)
T2M = ("--config", ROOT / "configs" / "t2m" / "debug.yaml", "--precision", "float32", "--draw", 0)


def step_of(run: Path) -> int:
    """Return the step of a run's newest state; 0 without one."""
    found = states(run / "states")
    return int(found[0].name.removeprefix("step-")) if found else 0


def wait_for_state(process, run: Path) -> None:
    while not step_of(run):
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.002)


def tensors_of(state: Path) -> dict[str, torch.Tensor]:
    return {name: value for path in state.glob("*.safetensors") for name, value in load_file(path).items()}


def assert_same(run: Path, other: Path) -> None:
    """Assert that two runs have the same model and the same newest state."""
    pairs = [(load_file(run / WEIGHTS), load_file(other / WEIGHTS))]
    pairs.append([tensors_of(states(each / "states")[0]) for each in (run, other)])
    for ours, theirs in pairs:
        assert ours.keys() == theirs.keys()
        for name in ours:
            assert torch.equal(ours[name], theirs[name]), name


@pytest.mark.timeout(900)
@pytest.mark.parametrize("script, debug, every", [("train_vq.py", VQ, 6), ("train_t2m.py", T2M, 2)])
def test_killed_and_resumed_run_equals_an_uninterrupted_one(
    request, data_folder, tokenizer_run, tmp_path, script, debug, every
):
    whole = tokenizer_run if script == "train_vq.py" else request.getfixturevalue("t2m_run")
    tokenizer = () if script == "train_vq.py" else ("--tokenizer", tokenizer_run)
    command = (script, *debug, "--data", data_folder, *tokenizer, "--out", tmp_path, "--validate-every", every)

    process = start_script(*command)
    wait_for_state(process, tmp_path)
    time.sleep(0.2 * random.random())  # at any moment: between saves, or during one
    process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    killed_at, steps = step_of(tmp_path), step_of(whole)
    assert 0 < killed_at < steps
    assert f"steps {killed_at} to {steps}" in run_script(*command, "--resume")
    assert_same(tmp_path, whole)
    assert len(states(tmp_path / "states")) == 2  # the default of --keep
    assert not list((tmp_path / "states").glob(".*"))


@pytest.mark.parametrize("options", [(), ("--accumulate", 2, "--optimizer", "muon", "--steps", 30)])
def test_sigterm_saves_exits_with_zero_and_can_be_resumed(data_folder, tokenizer_run, tmp_path, options):
    command = ("train_vq.py", *VQ, "--data", data_folder, *options)
    whole = tokenizer_run
    if options:
        whole = tmp_path / "whole"
        run_script(*command, "--out", whole)
    command = (*command, "--out", tmp_path / "run")
    process = start_script(*command, "--validate-every", 10)
    wait_for_state(process, tmp_path / "run")
    process.terminate()
    printed, _ = process.communicate()
    step = step_of(tmp_path / "run")
    assert process.returncode == 0 and f"stopped after step {step}" in printed and 0 < step < step_of(whole), printed
    run_script(*command, "--resume")
    assert_same(tmp_path / "run", whole)


def test_sigterm_to_all_processes_of_the_job_still_saves(data_folder, tmp_path):
    """Schedulers send SIGTERM to every process of a job, including the data loading processes."""
    command = ("train_vq.py", *VQ, "--data", data_folder, "--workers", 2, "--steps", 5000, "--validate-every", 20)
    process = start_script(*command, "--out", tmp_path, before_start=os.setsid)
    wait_for_state(process, tmp_path)
    os.killpg(process.pid, signal.SIGTERM)
    printed, _ = process.communicate()
    assert process.returncode == 0 and f"stopped after step {step_of(tmp_path)}" in printed, printed


DAMAGES = {
    "cut": lambda state: next(state.glob("shard-*")).write_bytes(next(state.glob("shard-*")).read_bytes()[:-1000]),
    "changed": lambda state: flip(next(state.glob("shard-*"))),
    "file missing": lambda state: next(state.glob("random-*")).unlink(),
    "no description": lambda state: (state / "run.json").write_text("{"),
    "incomplete description": lambda state: (state / "run.json").write_text('{"files": {}}'),
}


def flip(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_state_is_skipped_and_the_one_before_is_used(run_here, data_folder, tokenizer_run, tmp_path, damage):
    run = tmp_path / "run"
    shutil.copytree(tokenizer_run, run)
    newest, before = states(run / "states")
    DAMAGES[damage](newest)
    printed = run_here("train_vq.py", *VQ, "--data", data_folder, "--out", run, "--resume")
    assert f"{newest} is damaged" in printed and f"steps {int(before.name[5:])} to" in printed
    assert_same(run, tokenizer_run)


def test_damaged_state_does_not_count_toward_keep(run_here, data_folder, tokenizer_run, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(tokenizer_run, run)
    newest, before = states(run / "states")
    flip(next(newest.glob("shard-*")))
    steps = int(before.name[5:]) + 5
    run_here("train_vq.py", *VQ, "--data", data_folder, "--out", run, "--resume", "--keep", 1, "--steps", steps)
    assert [state.name for state in states(run / "states")] == [f"step-{steps:08d}"]


def test_model_missing_after_a_kill_is_written_on_resume(run_here, data_folder, tokenizer_run, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(tokenizer_run, run)
    (run / WEIGHTS).unlink()
    run_here("train_vq.py", *VQ, "--data", data_folder, "--out", run, "--resume", "--batch-size", 8)
    assert_same(run, tokenizer_run)


def test_unusable_states_and_existing_runs_are_rejected(refused, data_folder, tokenizer_run, tmp_path):
    def error(*arguments):
        return refused("train_vq.py", *VQ, "--data", data_folder, "--out", run, "--resume", *arguments)

    run = tmp_path / "run"
    shutil.copytree(tokenizer_run, run)
    weights = (run / WEIGHTS).read_bytes()
    assert "is of another model configuration (width was 32 and is 48)" in error("--model.width", 48)
    for state in states(run / "states"):
        flip(next(state.glob("shard-*")))
    assert "every state in" in error() and "damaged" in error()
    assert (run / WEIGHTS).read_bytes() == weights
    assert "already holds a run" in refused("train_vq.py", *VQ, "--data", data_folder, "--out", run)
    shutil.rmtree(run / "states")  # the model alone is not overwritten either
    assert "already holds a run" in refused("train_vq.py", *VQ, "--data", data_folder, "--out", run)
    assert "there is no state in" in error()


def test_full_disk_keeps_earlier_states(data_folder, tmp_path):
    """Limits the size of files to one that the model fits in and the state does not, as on a nearly full disk."""
    command = ("train_vq.py", *VQ, "--data", data_folder, "--out", tmp_path)
    run_script(*command, "--steps", 3)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.suffix in (".json", ".safetensors")}
    largest = max(path.stat().st_size for path in before)
    limit = partial(resource.setrlimit, resource.RLIMIT_FSIZE, (largest // 2, largest // 2))
    process = start_script(*command, "--resume", before_start=limit)
    printed, _ = process.communicate()
    assert process.returncode == 2 and "error: cannot save the state of the run" in printed, printed
    assert "free some space, then continue with --resume" in printed and "Traceback" not in printed
    assert {path: path.read_bytes() for path in before} == before
    assert not list((tmp_path / "states").glob(".*"))


def test_best_model_is_kept(data_folder, tokenizer_run):
    scores = [json.loads((state / "run.json").read_text())["best"] for state in states(tokenizer_run / "states")]
    newest, before = scores
    assert newest <= before
    same = torch.equal(*(load_file(folder / WEIGHTS)["encoder.conv_in.weight"]
                         for folder in (tokenizer_run, tokenizer_run / "best")))  # fmt: skip
    assert same == (newest < before)


def test_states_hold_no_pickles_and_old_ones_are_removed(tmp_path):
    accelerator = Accelerator(cpu=True)
    weights = {"model.weight": torch.randn(3, 4), "optimizer.step": torch.tensor(7.0)}

    def write(folder):
        save_tensors(weights, folder)
        save_file({"cpu": torch.get_rng_state()}, folder / "random-00000.safetensors")

    for step in (5, 10, 15):
        description = {"step": step, "config": {}, "order": {}, "best": 1.0, "is_best": False}
        save_state(accelerator, tmp_path, description, write)
    (tmp_path / ".step-00000020").mkdir()
    prune_states(states(tmp_path)[0], 2)
    assert [path.name for path in states(tmp_path)] == ["step-00000015", "step-00000010"]
    assert len(list(tmp_path.iterdir())) == 2
    assert {path.suffix for path in states(tmp_path)[0].iterdir()} == {".json", ".safetensors"}
    other = {name: torch.zeros_like(value) for name, value in weights.items()}
    load_tensors(other, newest_state(accelerator, tmp_path))
    assert all(torch.equal(other[name], weights[name]) for name in weights)
    with pytest.raises(ValueError, match="missing"):
        load_tensors({"model.missing": torch.zeros(2)}, states(tmp_path)[0])
    with pytest.raises(InputError, match="there is no state in"):
        newest_state(accelerator, tmp_path / "none")


def test_model_with_tied_weights_can_be_resumed(run_here, data_folder, tokenizer_run, tmp_path):
    command = ("train_t2m.py", *T2M, "--data", data_folder, "--tokenizer", tokenizer_run, "--model.tie-weights",
               "--schedule", "constant")  # fmt: skip
    run_here(*command, "--out", tmp_path / "whole", "--steps", 8)
    run_here(*command, "--out", tmp_path / "run", "--steps", 4)
    run_here(*command, "--out", tmp_path / "run", "--steps", 8, "--resume")
    assert_same(tmp_path / "whole", tmp_path / "run")
    assert not any("lm_head" in name and "wte" in name for name in load_file(tmp_path / "run" / WEIGHTS))
