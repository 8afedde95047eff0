"""The benchmarks run on small models and data, and print their tables."""

import re

import benchmarks.data
import benchmarks.generate
import benchmarks.plan
import benchmarks.train
import dataset.clip_index
from dataset.synthetic import synthetic_clips
from formats.bvh_writer import write_bvh
from models.llama_config import SIZES, LLaMAConfig
from motion.smplx import motion_to_smplx85
from tests.conftest import ROOT, run_script


def test_conditions_are_measured_on_recordings(tmp_path, run_here):
    for name, rotations, pelvis, _ in synthetic_clips(12, seed=1):
        if name.startswith(("walk_0", "run_0", "jump_0")):
            write_bvh(tmp_path / f"{name}.bvh", motion_to_smplx85(rotations.astype(float), pelvis.astype(float)))
    (tmp_path / "prompts.yaml").write_text(
        "- prompt: a person moves\n  conditions: [moves forward faster than 0.4 m/s]\n"
        "- prompt: a person jumps\n  conditions: [both feet off the floor for longer than 0.2 s]\n"
    )
    (tmp_path / "recordings.yaml").write_text("a person moves: ['walk_*', 'run_*']\na person jumps: ['jump_*']\n")
    printed = run_here("benchmarks.conditions", "--source", tmp_path, "--prompts", tmp_path / "prompts.yaml",
                       "--recordings", tmp_path / "recordings.yaml")  # fmt: skip
    assert "| a person moves | 2 of 2 | 0 of 1 |" in printed and "| a person jumps | 1 of 1 | 0 of 2 |" in printed


def test_text_encoder_prints_encoding_times(run_here):
    printed = run_here("benchmarks.text_encoder", "--captions", 8)
    assert "8 different captions" in printed and "times faster" in printed
    difference = float(re.search(r"difference of the features: (\S+)", printed)[1])
    assert difference < 1e-4


def test_memory_table_equals_the_docs(run_here):
    docs = (ROOT / "docs" / "memory.md").read_text()
    rows = [line for line in run_here("benchmarks.memory").splitlines() if " M | " in line]
    assert len(rows) == 8 and all(row in docs for row in rows)


def test_training_tables_equal_the_docs(run_here, refused):
    docs = (ROOT / "docs" / "scaling.md").read_text()
    rows = [line for line in run_here("benchmarks.plan").splitlines() if line.startswith("| ")]
    assert len(rows) == 3 + 4 + 4 + 12 and all(row in docs for row in rows)
    assert "size 2B is unknown" in refused("benchmarks.plan", "--check", "111M,2B")


def test_measured_steps_train():
    config = LLaMAConfig(8, 8, "", 8, 8, **SIZES["debug"])
    for precision in ("float32", "bf16"):
        benchmarks.plan.step_twice(config, 2, precision, recompute=True)


def test_convert_measures_a_conversion(tmp_path, run_here):
    printed = run_here("benchmarks.convert", "--work", tmp_path / "work", "--size", "debug")
    assert "debug in bf16" in printed and "GB allocated" in printed and not (tmp_path / "work").exists()


def test_render_times_rendering_and_exports(t2m_run):
    printed = run_script("benchmarks.render", "--checkpoint", t2m_run, "--seconds", 0.3, "--repeats", 1, "--batch", 0)
    rows = [line.split("|") for line in printed.splitlines() if line.startswith("| ")][1:]
    assert len(rows) == 13 and all(float(row[2].replace(",", "")) > 0 for row in rows)


def test_metrics_prints_its_table(run_here):
    printed = run_here("benchmarks.metrics", "--pairs", 64, "--width", 8, "--clips", 2)
    assert "64 pairs, 8 dimensions" in printed and printed.count(" GB |") == 5


def test_foot_lock_prints_its_table(t2m_run):
    printed = run_script("benchmarks.foot_lock", "--checkpoint", t2m_run, "--seeds", 1)
    assert "standing feet" in printed and "| largest movement of other joints, cm | 0.00 | 0.00 |" in printed


def test_generate_times_each_method(t2m_run):
    options = benchmarks.generate.Options(size="debug", tokens=4, repeats=1, checkpoint=t2m_run)
    cases = benchmarks.generate.cases_of(1)
    assert len(cases) == 8
    for case in (cases[0], cases[3], cases[5]):
        benchmarks.generate.prepared(options, case)
        measured = benchmarks.generate.turn(options.tokens)
        assert len(measured) == 3 and all(value > 0 for value in measured)
    assert all(speed > 0 for speed in benchmarks.generate.waiting(options, prompts=40).values())
    bf16, int8 = benchmarks.generate.precision_costs(options).splitlines()
    assert bf16.startswith("bf16: logits change by ") and int8.startswith("int8: logits change by ")


def test_sequences_prints_its_table(t2m_run):
    printed = run_script("benchmarks.sequences", "--checkpoint", t2m_run, "--seeds", 1)
    rows = [line.split("|") for line in printed.splitlines() if line.startswith("| a person")]
    assert len(rows) == 4 and all(float(row[6]) >= 0 and " %" in row[4] for row in rows)


def test_data_measures_many_rows(tmp_path, data_folder, tokenizer_run, capsys, monkeypatch):
    monkeypatch.setattr(benchmarks.data, "MAX_SHARDS", 4)
    monkeypatch.setattr(dataset.clip_index, "EXACT", 0)  # the motions do not exist
    benchmarks.data.build_index(tmp_path / "clips", 600)
    assert benchmarks.data.opening_clips(tmp_path / "clips")[1] == "600 clips"
    assert benchmarks.data.opening_windows(tmp_path / "clips")[1].endswith(" windows")
    tokens = tmp_path / "tokens"
    assert "4 shards" in benchmarks.data.build(tokens, 600)[1]
    assert benchmarks.data.opening(tokens)[1] == "600 lengths read"
    first, tenth = (benchmarks.data.shuffling(tokens, 2048, epoch) for epoch in (0, 9))
    assert first[1] == tenth[1] and "batches per epoch" in first[1]
    seconds, words = benchmarks.data.iterating(tokens, 2048, 200, 0)
    assert seconds > 0 and "tokens/s" in words
    options = benchmarks.data.Options(data=data_folder, tokenizer=tokenizer_run, joined=0)
    benchmarks.data.print_folder(options)
    assert capsys.readouterr().out.count("padding of batches") == 5


def test_train_times_each_method(tmp_path):
    options = benchmarks.train.Options(size="debug", batch_tokens=300, public_rows=2, windows=2, repeats=1)
    benchmarks.train.make_t5_base(tmp_path / "t5", benchmarks.train.make_captions(1000, 0), 0)
    for measured in (
        benchmarks.train.public_generator(options, tmp_path / "t5", True),
        benchmarks.train.our_generator(options, tmp_path / "t5", "encoded", "bf16"),
        benchmarks.train.our_generator(options, tmp_path / "t5", "none", "float32"),
        benchmarks.train.tokenizer_training(options, "bf16", benchmarks.train.FSQ.compute_perplexity),
    ):
        assert measured.speed > 0 and measured.share > 0 and measured.memory > 0
    assert benchmarks.train.loading_alone(options) > 0


def test_compared_statistics_are_equal():
    quantizer = benchmarks.train.FSQ([4, 4, 4])
    indices = quantizer.codes_to_indices(quantizer.quantize(benchmarks.train.torch.randn(3, 50, 3)))
    ways = (benchmarks.train.dense_statistics, benchmarks.train.FSQ.compute_perplexity)
    dense, counted = (way(quantizer, indices) for way in ways)
    assert all(abs(first - second) < 1e-4 for first, second in zip(dense, counted, strict=True))
