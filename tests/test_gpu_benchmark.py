"""benchmarks/gpu.py: its predictions, and its measurements on a CPU and on a pretended GPU."""

import os
import time
from concurrent.futures import Future

import pytest
import torch

from benchmarks.generate import config_of
from benchmarks.roofline import CARDS, step_cost
from benchmarks.turns import LeftOut, Line, Machine, Process, groups_of, in_turns
from tests.conftest import ROOT
from tests.pretended.patches import pretended

SMALL = ("--sizes", "debug", "--rows", "1,2", "--batch-tokens", "300", "--windows", "2", "--tokens", 4, "--repeats", 1)


class SameThread:
    """A pool whose calls run at once, in this process."""

    def __init__(self, *arguments):
        pass

    def submit(self, function, *arguments) -> Future:
        future: Future = Future()
        try:
            future.set_result(function(*arguments))
        except Exception as error:
            future.set_exception(error)
        return future

    def close(self) -> None:
        pass

    stop = close


@pytest.fixture
def quick(monkeypatch) -> None:
    """Leave out what takes seconds: processes, compilers, large products and copies."""
    monkeypatch.setattr("benchmarks.turns.WorkerPool", SameThread)
    monkeypatch.setattr("benchmarks.turns.COPIED", 2**16)
    monkeypatch.setattr("benchmarks.turns.gemm_rate", lambda device, dtype: 1e12)
    monkeypatch.setattr("models.optimize.can_compile", lambda device: False)
    monkeypatch.setattr("models.few_rows.kernels", lambda: None)


def measured(printed: str) -> dict[tuple[str, str], list[str]]:
    """Return the cells of the printed lines by name and batch."""
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in printed.splitlines() if line.startswith("|")]
    return {(row[1], row[2]): row[3:] for row in cells[2:]}


def test_the_predicted_tables_equal_the_docs(run_here):
    docs = (ROOT / "docs" / "gpu.md").read_text()
    rows = [line for line in run_here("benchmarks.gpu", "--predict").splitlines() if line.startswith("| ")]
    assert len(rows) == 1 + 4 * 3 + 1 + 4 and all(row in docs for row in rows)


def test_the_limits_of_one_row_on_an_h100_are_the_known_ones():
    for size, tokens_per_second in {"44M": 27_000, "3B": 520, "7B": 220}.items():
        seconds = step_cost(config_of(size, 50), 1, 50, "bf16").seconds(CARDS[0].bandwidth, CARDS[0].rate)
        assert 1 / seconds == pytest.approx(tokens_per_second, rel=0.05)


@pytest.mark.filterwarnings("ignore:no C")
def test_every_line_is_measured_on_a_cpu_or_left_out_with_the_reason(quick, run_here):
    printed = run_here("benchmarks.gpu", "--device", "cpu", *SMALL)
    lines = measured(printed)
    assert "CPU threads, driver " in printed and f"PyTorch {torch.__version__}" in printed and len(lines) == 8 + 7 + 2
    for (name, _), cells in lines.items():
        if "int4" in name:
            assert cells[0] == "left out: int4 weights need a CUDA device and this is cpu; use int8, or none"
        else:
            assert float(cells[0].split()[0].replace(",", "")) > 0 and float(cells[2]) > 0 and cells[4].endswith(" %")
    assert lines["Hugging Face, bf16", "1 row"][1] == "1.0" and float(lines["ours, bf16", "2 rows"][1]) > 0
    assert lines["train_vq.py, bf16", "2 windows"][3] == "arithmetic"


@pytest.mark.filterwarnings("ignore:no C")
def test_lines_on_a_pretended_gpu(quick, run_here, monkeypatch):
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda: None)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda: 10**9)
    with pretended("cuda"):
        printed = run_here("benchmarks.gpu", *SMALL, "--rows", 2)
    lines = measured(printed)
    assert printed.startswith("a pretended GPU, driver ") and "80.0 GB free" in printed and len(lines) == 7 + 2
    assert all(cells[2] == "1.00" for (name, _), cells in lines.items() if "int4" not in name), lines


def test_lines_that_fit_together_take_turns():
    lines = [Line(size, str(number), "1 row", "", 30, None, ()) for size in ("44M", "7B") for number in range(3)]
    lines[1] = lines[1]._replace(needed=100)
    assert [len(group) for group in groups_of(lines, 90)] == [1, 1, 1, 3]
    assert [len(group) for group in groups_of(lines, 60)] == [1, 1, 1, 2, 1]
    large = lines[0]._replace(needed=30e9)
    assert in_turns([large], [Process()], Machine("", 24e9, 1, 1), 1, 0) == ["about 30 GB are needed and 24 are free"]


def test_a_process_that_fails_or_hangs_is_replaced():
    process = Process()
    for call, words in (((time.sleep, 60), "took too long"), ((os._exit, 3), "exit status 3"), ((int, "x"), "invalid")):
        process.start(*call)
        outcome = process.result(time.perf_counter() + (1 if call[0] is time.sleep else 60))
        assert isinstance(outcome, LeftOut) and words in outcome
    process.start(divmod, 7, 2)
    assert process.result(time.perf_counter() + 60) == (3, 1)
    process.pool.close()


def test_refusals(refused):
    assert "the size 2B is unknown" in refused("benchmarks.gpu", "--sizes", "44M,2B")
    assert "--rows is 1,many; give whole numbers" in refused("benchmarks.gpu", "--rows", "1,many")
    if not torch.cuda.is_available():
        assert "no CUDA device is found" in refused("benchmarks.gpu")
