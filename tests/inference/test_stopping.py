"""inference_batch.py stopped by signals, in folders with files of other programs, and in folders that disappear."""

import json
import os
import shutil
import signal
import time

import psutil
import pytest
from PIL import Image

from tests.conftest import children_of, start_script
from tests.inference.helpers import assert_refused, load, npz_files, results_in
from visualize.output_folder import OutputFolder
from visualize.strips import GAP, TILE

ENTRY = {"name": "old_seed0", "prompt": "old", "text": "old", "seed": 0, "seconds": 1.0, "checkpoint": "c",
         "files": ["old_seed0.npz"], "failed": {}}  # fmt: skip


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
def test_signal_keeps_and_lists_finished_motions(run, prompt_file, tmp_path, monkeypatch, number, status):
    out, save, saved = tmp_path / "out", OutputFolder.save, []

    def save_and_stop(folder, item, *arguments):
        save(folder, item, *arguments)
        saved.append(item)
        if len(saved) == 2:
            os.kill(os.getpid(), number)

    monkeypatch.setattr(OutputFolder, "save", save_and_stop)
    before = signal.getsignal(signal.SIGTERM)
    result = run("--prompts", prompt_file, "--batch-size", 1)
    assert result[0] == status and signal.getsignal(signal.SIGTERM) == before
    if number == signal.SIGTERM:
        assert "stopped on SIGTERM" in result[1] and "run the same command again" in result[1]
    assert len(npz_files(out)) == len(results_in(out)) == 2
    status, output, _ = run("--prompts", prompt_file, "--batch-size", 1)
    assert status == 0 and "2 of 3 motions" in output and len(results_in(out)) == 3


@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGKILL])
def test_ended_run_leaves_no_process_and_the_next_removes_its_files(run, checkpoint, tmp_path, end):
    out = tmp_path / "out"
    command = ("inference_batch.py", "--checkpoint", checkpoint, "--out-dir", out, "--prompt", "walk", "--samples", 40)
    process = start_script(*command, "--save", "mp4", "--workers", 1, "--seconds", 2)
    while not list(out.glob(".*.mp4")):  # a video is being drawn
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.01)
    children = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(end)
    printed, _ = process.communicate(timeout=60)
    assert not psutil.wait_procs(children, timeout=20)[1]
    if end == signal.SIGTERM:
        assert process.returncode == 0 and "Traceback" not in printed
        assert printed.splitlines()[-1].startswith("stopped on SIGTERM; finished motions are kept and listed")
        assert len(results_in(out)) == len(npz_files(out)) > 0
        assert not list(out.glob(".*"))
    assert run("--prompt", "walk", "--samples", 40, "--seconds", 2)[0] == 0
    assert len(results_in(out)) == 40 and not list(out.glob(".*"))


FOREIGN = {
    "settings": '{"resolution": [512, 512]}',
    "other list": '[{"name": "walk", "score": 1}]',
    "text": "accuracy 0.8",
    "binary": b"\x80\xff",
    "path as name": json.dumps([ENTRY | {"name": "../../walk"}]),
    "file elsewhere": json.dumps([ENTRY | {"files": ["../old_seed0.npz"]}]),
    "file of another": json.dumps([ENTRY | {"files": ["results.json"]}]),
    "deep": "[" * 100_000,
}


@pytest.mark.parametrize("content", FOREIGN.values(), ids=FOREIGN)
def test_results_of_other_programs_are_not_overwritten(run, tmp_path, content):
    file = tmp_path / "out" / "results.json"
    file.parent.mkdir()
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    before = file.read_bytes()
    assert_refused(run("--prompt", "walk"), "results.json was not written by this program", "another --out-dir")
    assert file.read_bytes() == before and list(file.parent.iterdir()) == [file]


@pytest.mark.parametrize(("name", "kind"), [("gallery.html", "html"), ("contact_sheet.png", "sheet")])
def test_overview_of_another_program_is_not_overwritten(run, tmp_path, name, kind):
    out = tmp_path / "out"
    out.mkdir()
    (out / name).write_text("<!doctype html><title>My photos</title>")
    assert_refused(run("--prompt", "walk", "--save", kind), f"{name} was not written by this program")
    assert "photos" in (out / name).read_text() and npz_files(out) == []
    assert run("--prompt", "walk")[0] == 0  # no overview is asked for


def test_overviews_leave_out_motions_that_cannot_be_read(run, prompt_file, tmp_path):
    out = tmp_path / "out"
    assert run("--prompts", prompt_file, "--seconds", 0.3)[0] == 0
    npz_files(out)[0].write_bytes(b"damaged")
    npz_files(out)[1].unlink()
    status, output, _ = run("--prompt", "run", "--seconds", 0.3, "--save", "html,sheet")
    assert status == 0
    assert output.count("left out of gallery.html") == output.count("left out of contact_sheet.png") == 1
    assert len(results_in(out)) == 4 and "2 motions" in (out / "gallery.html").read_text()
    assert Image.open(out / "contact_sheet.png").width == 2 * TILE[0] + GAP


def test_folder_removed_while_running_costs_one_sentence(run, prompt_file, tmp_path, monkeypatch):
    out, save, saved = tmp_path / "out", OutputFolder.save, []

    def save_and_remove(folder, item, *arguments):
        save(folder, item, *arguments)
        saved.append(item)
        if len(saved) == 2:
            shutil.rmtree(out)

    monkeypatch.setattr(OutputFolder, "save", save_and_remove)
    assert_refused(run("--prompts", prompt_file, "--batch-size", 1), "was removed")
    assert not out.exists()


def test_runs_at_the_same_time_list_all_motions(checkpoint, tmp_path):
    command = ("inference_batch.py", "--checkpoint", checkpoint, "--out-dir", tmp_path, "--save", "npz")
    processes = [start_script(*command, "--prompt", prompt, "--seconds", 0.2) for prompt in ("walk", "jump")]
    for process in processes:
        printed, _ = process.communicate()
        assert process.returncode == 0, printed
    assert sorted(result["prompt"] for result in results_in(tmp_path)) == ["jump", "walk"]
    assert all(len(load(file)["features"]) for file in npz_files(tmp_path))


def test_killed_renderer_costs_its_file_alone(checkpoint, tmp_path):
    command = ("inference_batch.py", "--checkpoint", checkpoint, "--out-dir", tmp_path, "--prompt", "walk")
    process = start_script(*command, "--samples", 2, "--save", "mp4", "--workers", 1, "--seconds", 2)
    while not list(tmp_path.glob(".*.mp4")):
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.01)
    (renderer,) = children_of(process.pid, "spawn_main")
    renderer.kill()
    printed, _ = process.communicate(timeout=200)
    assert process.returncode == 2 and "error: 1 files could not be made" in printed, printed
    results = results_in(tmp_path)
    assert sorted(len(result["files"]) for result in results) == [1, 2] and not list(tmp_path.glob(".*"))
    (reason,) = (reason for result in results for reason in result["failed"].values())
    assert reason.startswith("its process ended unexpectedly (exit status -9)")
