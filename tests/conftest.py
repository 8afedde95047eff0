"""Shared test helpers: golden fixtures, the scripts as a user runs them, and run folders of debug size."""

import contextlib
import json
import os
import re
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import psutil
import pytest
import torch
from accelerate.state import AcceleratorState, GradientState

import prepare_data
from dataset.motion_folder import MotionFolder
from models import motionmillion, text_encoder
from models.llama import LLaMAHF
from tests.browser import browser, page  # noqa: F401 (fixtures)
from tests.starting import ROOT, run_in_this_process, run_script, start_script  # noqa: F401 (for the tests)

if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:  # as in a background job; the processes under test inherit it
    signal.signal(signal.SIGINT, signal.default_int_handler)

GOLDEN_DIR = Path(os.environ.get("GOLDEN_DIR", Path(__file__).parent / "golden"))
GOLDEN_EVAL_DIR = Path(os.environ.get("GOLDEN_EVAL_DIR", Path(__file__).parent / "golden_eval"))

LONGEST = ("processes", "benchmarks", "training", "resume", "fuzz", "stopping", "browser", "quantizers", "optimize",
           "training_stopping", "inference_processes", "evaluate", "limits", "control_benchmark")  # fmt: skip


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the files that take longest, so that no process is left with one of them at the end."""
    items.sort(key=lambda item: item.path.stem.removeprefix("test_") not in LONGEST)


def golden(name: str) -> Path:
    """Path of a golden fixture in ``$GOLDEN_DIR`` (default ``tests/golden``)."""
    return GOLDEN_DIR / name


def golden_eval(name: str) -> Path:
    """Path of a fixture of evaluation and data import in ``$GOLDEN_EVAL_DIR`` (default ``tests/golden_eval``)."""
    return GOLDEN_EVAL_DIR / name


def children_of(pid: int, word: str) -> list[psutil.Process]:
    """Processes below ``pid`` with ``word`` in their command lines; those that end meanwhile are left out."""
    found = []
    for child in psutil.Process(pid).children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):  # or a zombie
            if word in " ".join(child.cmdline()):
                found.append(child)
    return found


def converted(out: Path, fixture: str, generator: Path | None = None, **options: object) -> Path:
    """A golden tokenizer (and a generator's file) converted by models/motionmillion.py into the folder ``out``."""
    settings = json.loads(golden(f"{fixture}_ckpt.json").read_text())
    shape = {
        "levels": settings["levels"],
        "activation": settings["activation"],
        "dilation_growth": settings["dilation_growth_rate"],
    }
    statistics = {name: out.with_name(f"{name}.npy") for name in ("mean", "std")}
    np.save(statistics["mean"], np.linspace(-1, 1, 272))
    np.save(statistics["std"], np.linspace(0.5, 2, 272))
    paths = {"tokenizer": golden(f"{fixture}_ckpt.pth"), "generator": generator, "out": out}
    motionmillion.convert(motionmillion.Options(**(paths | statistics | shape | options)))
    return out


def one_dimensional_tokenizer(path: Path) -> Path:
    """Write a file of the reference's tokenizer with a single dimension, which fits any number of codes."""
    weights = torch.load(golden("tokenizer_down2_ckpt.pth"), weights_only=True)["net"]
    width = len(weights["vqvae.quantizer.project_out.weight"])
    weights |= {
        "vqvae.quantizer.project_in.weight": torch.zeros(1, width),
        "vqvae.quantizer.project_in.bias": torch.zeros(1),
        "vqvae.quantizer.project_out.weight": torch.zeros(width, 1),
    }
    torch.save({"net": weights}, path)
    return path


@pytest.fixture(scope="session")
def golden_generator(tmp_path_factory) -> LLaMAHF:
    """The reference's generator, converted and loaded, whatever its size, text width and number of codes are.

    Its text features come from none of our encoders. It is converted with a tokenizer that has one level per code.
    """
    folder = tmp_path_factory.mktemp("golden")
    sizes = json.loads(golden("llama_ckpt.json").read_text())
    tokenizer = one_dimensional_tokenizer(folder / "tokenizer.pth")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(text_encoder.WIDTHS, "fixture", sizes["clip_dim"])
        converted(folder / "generator", "tokenizer_down2", golden("llama_ckpt.pth"), tokenizer=tokenizer,
                  levels=[sizes["nb_code"]], n_head=sizes["n_head"], text_encoder="fixture")  # fmt: skip
    return LLaMAHF.from_pretrained(folder / "generator")


@pytest.fixture(autouse=True)
def no_processes_left() -> Iterator[None]:
    """Accelerate keeps what it found out about the processes; a script run in this process is to find out itself."""
    yield
    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()


@pytest.fixture
def run_here(monkeypatch, capfd):
    """Runs a script of the repository in this process, which saves its start; returns what it printed."""

    def run(script: str, *arguments: object) -> str:
        monkeypatch.setattr(sys, "argv", [script, *map(str, arguments)])
        capfd.readouterr()
        run_in_this_process(script)
        return capfd.readouterr().out

    return run


@pytest.fixture
def refused(monkeypatch, capfd):
    """Runs a script of the repository in this process on bad input; returns its one-line error."""

    def run(script: str, *arguments: object) -> str:
        monkeypatch.setattr(sys, "argv", [script, *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            run_in_this_process(script)
        printed = capfd.readouterr().err
        errors = re.findall(r"^error: .*", printed, re.MULTILINE)
        assert stop.value.code == 2 and len(errors) == 1 and printed.endswith(f"{errors[0]}\n"), printed
        return errors[0]

    return run


@pytest.fixture
def small_folder(tmp_path):
    """A folder of seven training clips of our own making, to be damaged."""
    prepare_data.synthetic(prepare_data.SyntheticOptions(tmp_path / "data", count=7))
    return MotionFolder(tmp_path / "data")


@pytest.fixture(scope="session")
def data_folder(tmp_path_factory) -> Path:
    """A prepared folder of procedural clips; every split holds at least one."""
    out = tmp_path_factory.mktemp("prepared") / "data"
    run_script("prepare_data.py", "synthetic", "--out", out, "--count", 60)
    return out


@pytest.fixture(scope="session")
def tokenizer_run(tmp_path_factory, data_folder) -> Path:
    """A run folder of train_vq.py."""
    out = tmp_path_factory.mktemp("tokenizer") / "run"
    run_script("train_vq.py", "--config", "configs/vq/debug.yaml", "--precision", "float32",
               "--data", data_folder, "--out", out)  # fmt: skip
    return out


@pytest.fixture(scope="session")
def t2m_run(tmp_path_factory, data_folder, tokenizer_run) -> Path:
    """A run folder of train_t2m.py: a whole text-to-motion model."""
    out = tmp_path_factory.mktemp("t2m") / "run"
    run_script("train_t2m.py", "--config", "configs/t2m/debug.yaml", "--precision", "float32",
               "--data", data_folder, "--tokenizer", tokenizer_run, "--out", out)  # fmt: skip
    return out


@pytest.fixture
def notebook(monkeypatch) -> list[dict[str, str]]:
    """Make the test run as in a notebook; returns what it displays."""
    shown: list[dict[str, str]] = []
    display = SimpleNamespace(display=lambda content, raw: shown.append(content))
    shell = SimpleNamespace(kernel=None)
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: shell, display=display))
    monkeypatch.setitem(sys.modules, "IPython.display", display)
    return shown
