"""Scripts that are ended from outside: Ctrl-C during the imports, and a pipe whose reader has ended."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.conftest import ROOT
from utils.errors import exit_on_input_error

SCRIPTS = sorted(file for file in ROOT.glob("*.py") if "exit_on_input_error()" in file.read_text())
MODULES = sorted(
    file
    for folder in ("assets", "benchmarks", "characters", "models", "visualize")
    for file in (ROOT / folder).glob("*.py")
    if "exit_on_input_error()" in file.read_text()
)


@pytest.mark.parametrize("file", [file for file in (*SCRIPTS, *MODULES) if file.name != "app.py"], ids=lambda f: f.name)
def test_scripts_import_the_handler_first(file):
    imports = [line for line in file.read_text().splitlines() if line.startswith(("import ", "from "))]
    assert imports[0] == "import utils.interrupt  # noqa: F401"


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
@pytest.mark.parametrize("script", ["train_vq.py", "inference_batch.py"])
def test_ctrl_c_during_imports_is_one_line(script, tmp_path):
    words = ["--prompt", "walk"] if script == "inference_batch.py" else ["--data", tmp_path, "--out", tmp_path / "run"]
    process = subprocess.Popen(
        [sys.executable, ROOT / script, *words],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    while "libtorch" not in Path(f"/proc/{process.pid}/maps").read_text():
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    printed, _ = process.communicate(timeout=60)
    assert (process.returncode, printed) == (130, "interrupted; finished work is kept\n")


def test_a_path_that_cannot_be_looked_up_ends_a_script_with_one_line(capsys):
    with pytest.raises(SystemExit) as ended, exit_on_input_error():
        Path("n" * 300).exists()
    assert ended.value.code == 2
    assert "too long; check the path" in capsys.readouterr().err


def test_closed_output_ends_a_script_well(monkeypatch):
    monkeypatch.setattr(sys, "stdout", None)
    with exit_on_input_error():
        print("line")


@pytest.mark.parametrize("line, status", [("print('line', flush=True)", 141), ("print('line')", 0), ("sys.exit(3)", 3)])
def test_output_without_a_reader_ends_a_script_without_a_traceback(line, status):
    code = f"import sys; from utils.errors import exit_on_input_error\nwith exit_on_input_error(): {line}"
    reader, writer = os.pipe()
    os.close(reader)
    environment = {**os.environ, "PYTHONUNBUFFERED": ""}
    ended = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=environment, stdout=writer, stderr=subprocess.PIPE, text=True
    )
    os.close(writer)
    assert (ended.returncode, ended.stderr) == (status, "")


def test_a_broken_pipe_other_than_the_output_is_no_closed_output():
    with pytest.raises(BrokenPipeError), exit_on_input_error():
        raise BrokenPipeError
