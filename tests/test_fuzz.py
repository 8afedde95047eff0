"""Hostile input: a reader returns or refuses with one short line, and the fuzzer notices everything else."""

import os
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from fuzz import run, worker

from utils.errors import InputError


@pytest.mark.timeout(600)
def test_valid_inputs_are_read_and_changed_ones_read_or_refused(tmp_path):
    cases = run.fuzz(seed=0, numbers=list(range(300)), keep=tmp_path)
    assert len({case.target for case in cases}) > 30
    assert {case.result for case in cases} <= {"ok", "refused"}, run.report(cases, 0, tmp_path)
    refused = {case.target: case.detail for case in cases if (case.change, case.result) == ("unchanged", "refused")}
    assert refused.keys() == {"rewrite model"} and "code" in refused["rewrite model"]


def faulty(message: str) -> InputError:
    """An error whose message was not made fit to be shown."""
    error = InputError("")
    error.args = (message,)
    return error


def raises(error: Exception) -> None:
    raise error


@pytest.mark.parametrize(
    "result, read",
    [
        ("ok", lambda: None),
        ("ok", lambda: Path("out").write_text("x")),
        ("refused", lambda: raises(InputError("it is damaged; write it again"))),
        ("message", lambda: raises(faulty("two\nlines"))),
        ("message", lambda: raises(faulty("x" * 500))),
        ("message", lambda: raises(faulty("\x1b[31m"))),
        ("traceback", lambda: raises(KeyError("x"))),
        ("traceback", lambda: raises(SystemExit(1))),
        ("left behind", lambda: Path("other").write_text("x")),
        ("left behind", lambda: Path("input").unlink()),
        ("code run", lambda: Path("EXECUTED").write_text("x")),
        ("crash", lambda: os.kill(os.getpid(), 9)),
        ("hang", lambda: time.sleep(30)),
        ("memory", lambda: np.ones(32 * 2**20)),  # 256 MB
    ],
)
def test_every_kind_of_finding_is_noticed(result, read, tmp_path, monkeypatch):
    monkeypatch.setattr(worker, "TIMEOUT", 3.0 if result == "hang" else 60.0)  # a busy machine is no hang
    monkeypatch.setattr(worker, "MEMORY", 32 * worker.MB)
    folder = tmp_path / "case"
    folder.mkdir()
    (folder / "input").touch()
    assert worker.run_case(SimpleNamespace(read=read, writes=("out",)), folder)["result"] == result
