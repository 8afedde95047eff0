"""inference_batch.py with several processes, failing renderers, and as a command line."""

import pytest

import visualize.renderers
from tests.inference.helpers import (
    InProcess,
    assert_refused,
    backdate,
    changed_files,
    frames_of,
    load,
    npz_files,
    results_in,
)
from tests.starting import run_processes, run_script, start_script
from utils.processes import WorkerDied


def test_processes_share_the_prompts(checkpoint, tmp_path):
    prompts, out = tmp_path / "prompts.txt", tmp_path / "out"
    prompts.write_text("\n".join(f"a person walks {count} steps" for count in range(5)))
    words = ["--prompts", prompts, "--checkpoint", checkpoint, "--out-dir", out, "--save", "npz", "--seconds", 0.3]
    printed = run_processes(2, "inference_batch.py", *words)  # on a CPU, `accelerate launch` starts one process
    assert "3 motions generated" in printed and "2 motions generated" in printed
    again = run_processes(2, "inference_batch.py", *words)
    assert "generated" not in again and "3 of 3 motions" in again and "2 of 2 motions" in again
    assert len(results_in(out)) == len(npz_files(out)) == 5


def test_processes_of_a_machine_share_the_renderers(run, prompt_file, monkeypatch):
    started = []

    class Counted(InProcess):
        def __init__(self, workers, *prepare):
            started.append(workers)
            super().__init__(workers, *prepare)

    monkeypatch.setattr(visualize.renderers, "worker_pool", Counted)
    for local, workers in (("1", 8), ("4", 8), ("4", 1)):
        monkeypatch.setenv("LOCAL_WORLD_SIZE", local)
        assert run("--prompts", prompt_file, "--seconds", 0.2, "--workers", workers)[0] == 0
    assert started == [3, 2, 1]  # at most one per motion


def test_failed_video_leaves_other_files_complete(run, prompt_file, tmp_path):
    out = tmp_path / "out"
    occupied = out / "someone-waves-the-left-hand_seed0_skeleton.mp4"
    occupied.mkdir(parents=True)
    arguments = ("--prompts", prompt_file, "--seconds", 0.2, "--save", "mp4", "--size", 64, "--view", "skeleton")
    assert_refused(run(*arguments), occupied.name, "run again")
    results = results_in(out)
    assert [list(result["failed"]) for result in results] == [[], [occupied.name], []]
    assert [len(result["files"]) for result in results] == [2, 1, 2]
    assert all((out / file).is_file() for result in results for file in result["files"])
    occupied.rmdir()
    before = backdate(out)
    assert run(*arguments)[0] == 0
    assert changed_files(out, before) == {occupied.name, "results.json"} and frames_of(occupied) == 8


@pytest.mark.parametrize(
    ("failure", "reason"),
    [
        (RuntimeError("no font"), "no font"),
        (MemoryError(), "MemoryError()"),
        (WorkerDied(-9), "its process ended unexpectedly (exit status -9), perhaps for lack of memory"),
    ],
)
def test_renderer_failures_are_listed(run, prompt_file, tmp_path, monkeypatch, failure, reason):
    def write_file(source, *rest):
        if source.name.startswith("someone-waves"):
            raise failure

    monkeypatch.setattr(visualize.renderers, "write_file", write_file)
    monkeypatch.setattr(visualize.renderers, "warm_up", lambda views: None)
    assert_refused(run("--prompts", prompt_file, "--save", "mp4", "--seconds", 0.2), "1 files", "someone-waves")
    failed = [list(result["failed"].values()) for result in results_in(tmp_path / "out")]
    assert failed == [[], [reason], []]


def test_command_line_with_renderer_processes(checkpoint, tmp_path):
    command = ["inference_batch.py", "--checkpoint", checkpoint, "--out-dir", tmp_path]
    options = ["--prompt", "../walk", "--seconds", 1, "--size", 64, "--view", "both", "--workers", 1]
    printed = run_script(*command, *options)
    (result,) = results_in(tmp_path)
    name = result["name"]
    frames = len(load(tmp_path / f"{name}.npz")["features"])
    for file in (f"{name}.mp4", f"{name}_skeleton.mp4"):
        assert frames_of(tmp_path / file) == frames
        assert file in printed
    missing = start_script(*command, "--prompts", tmp_path / "missing.txt")
    printed, _ = missing.communicate()
    assert_refused((missing.returncode, "", printed), "missing.txt")
    assert len(results_in(tmp_path)) == 1
