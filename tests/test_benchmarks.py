"""The measuring scripts run and print what they promise, on small models and data."""

import re

import benchmarks.data
import benchmarks.generate
from tests.conftest import ROOT, run_script


def test_prompt_following_prints_its_table(t2m_run):
    printed = run_script("benchmarks/prompt_following.py", "--checkpoint", t2m_run, "--seeds", 1)
    rows = [line for line in printed.splitlines() if line.startswith("| a person")]
    assert len(rows) == 7 and all(" % |" in row for row in rows[:6]) and "m/s" in rows[6]


def test_encoding_times_are_printed(run_here):
    printed = run_here("benchmarks/text_encoder.py", "--captions", 8)
    assert "8 different captions" in printed and "times faster" in printed
    difference = float(re.search(r"difference of the features: (\S+)", printed)[1])
    assert difference < 1e-4


def test_memory_table_is_that_of_the_docs(run_here):
    docs = (ROOT / "docs" / "memory.md").read_text()
    rows = [line for line in run_here("benchmarks/memory.py").splitlines() if " M | " in line]
    assert len(rows) == 8 and all(row in docs for row in rows)


def test_a_conversion_is_measured(tmp_path, run_here):
    printed = run_here("benchmarks/convert.py", "--work", tmp_path / "work", "--size", "debug")
    assert "debug in bf16" in printed and "GB allocated at most" in printed and not (tmp_path / "work").exists()


def test_tokenizer_quality_is_printed(tokenizer_run, data_folder):
    printed = run_script("benchmarks/tokenizer.py", "--tokenizer", tokenizer_run, "--data", data_folder)
    for words in ("root-aligned", "global", "codes used", "foot slide"):
        assert words in printed


def test_rendering_and_exports_are_timed(t2m_run):
    printed = run_script(
        "benchmarks/render.py", "--checkpoint", t2m_run, "--seconds", 0.3, "--repeats", 1, "--batch", 0
    )
    rows = [line.split("|") for line in printed.splitlines() if line.startswith("| ")][1:]
    assert len(rows) == 13 and all(float(row[2].replace(",", "")) > 0 for row in rows)


def test_foot_lock_is_measured(t2m_run):
    printed = run_script("benchmarks/foot_lock.py", "--checkpoint", t2m_run, "--seeds", 1)
    assert "standing feet" in printed and "| all other joints moved, most, cm | 0.00 | 0.00 |" in printed


def test_generation_is_timed(t2m_run):
    options = benchmarks.generate.Options(size="debug", tokens=4, repeats=1, checkpoint=t2m_run)
    for measured in (
        benchmarks.generate.reference(options),
        benchmarks.generate.hugging_face(options, 2, "bf16"),
        benchmarks.generate.ours(options, 2, "float32", "none", False),
        benchmarks.generate.ours(options, 2, "bf16", "int8", False),
    ):
        assert len(measured) == 3 and all(value > 0 for value in measured)
    assert all(benchmarks.generate.waiting(options, way) > 0 for way in ("fixed", "longest first"))
    bf16, int8 = benchmarks.generate.precision_costs(options).splitlines()
    assert bf16.startswith("bf16: logits change by ") and int8.startswith("int8: logits change by ")


def test_sequences_are_measured(t2m_run):
    printed = run_script("benchmarks/sequences.py", "--checkpoint", t2m_run, "--seeds", 1)
    rows = [line.split("|") for line in printed.splitlines() if line.startswith("| a person")]
    assert len(rows) == 4 and all(float(row[6]) >= 0 and " %" in row[4] for row in rows)


def test_data_of_many_rows_is_measured(tmp_path, data_folder, tokenizer_run, capsys, monkeypatch):
    monkeypatch.setattr(benchmarks.data, "SHARDS", 4)
    assert "4 shards" in benchmarks.data.build(tmp_path, 600)[1]
    assert benchmarks.data.opening(tmp_path)[1] == "600 lengths read"
    first, tenth = (benchmarks.data.shuffling(tmp_path, 2048, epoch) for epoch in (0, 9))
    assert first[1] == tenth[1] and "batches an epoch" in first[1]
    seconds, words = benchmarks.data.iterating(tmp_path, 2048, 200, 0)
    assert seconds > 0 and "tokens/s" in words
    options = benchmarks.data.Options(data=data_folder, tokenizer=tokenizer_run, joined=0)
    benchmarks.data.print_folder(options)
    assert capsys.readouterr().out.count("padding of batches") == 5
