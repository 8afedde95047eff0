"""The plan of a training: its arithmetic against real models, and the script from the command line."""

import re

import numpy as np
import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.memory import config_of
from dataset.motion_folder import MotionFolder
from models.llama import LLaMAHF
from models.llama_config import SIZES, LLaMAConfig
from models.optimize import weight_bytes
from models.text_encoder import WIDTHS, EncoderShape, MiniLMEncoder, encoder_shape
from tests.conftest import ROOT
from training.costs import (
    ENGINES,
    MicroBatch,
    activation_bytes,
    count_flops,
    count_parameters,
    estimate_memory,
    muon_moments,
    scamo_optimum,
    scamo_optimum_for_tokens,
    text_share,
)
from training.optimizer import make_optimizer
from training.options import GeneratorOptions, TokenizerOptions
from training.plan import count_data
from utils.config import parse_options
from utils.errors import InputError


def small_config(size: str, **changes) -> LLaMAConfig:
    fixed = {"codebook_size": 1000, "text_dim": 96, "text_encoder": "none", "text_length": 20, "max_tokens": 40}
    return LLaMAConfig(**fixed | SIZES[size] | changes)


def loss_of(config: LLaMAConfig, batch: MicroBatch, model: LLaMAHF) -> torch.Tensor:
    text = torch.randn(batch.rows, batch.text, config.text_dim)
    mask = torch.ones(text.shape[:2], dtype=torch.bool)
    return model.loss(text, mask, torch.randint(config.codebook_size, (batch.rows, batch.tokens)))


# --- Arithmetic


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("size", SIZES)
def test_parameter_count_equals_the_model(size, tied):
    config = config_of(size)
    config.tie_weights = tied
    with torch.device("meta"):
        model = LLaMAHF(config)
    count = count_parameters(config)
    assert count.total == sum(parameter.numel() for parameter in model.parameters())
    in_blocks = sum(parameter.numel() for parameter in model.transformer.h.parameters() if parameter.ndim > 1)
    assert count.root == count.total - in_blocks
    vocabulary = {model.transformer.wte.weight, model.lm_head.weight}
    assert count.core == count.total - sum(weight.numel() for weight in vocabulary)


@pytest.mark.parametrize("size", ["debug", "demo"])
@pytest.mark.parametrize("text", [1, 20])
def test_flops_equal_the_count_of_torch(size, text):
    config, batch = small_config(size), MicroBatch(3, text, 40)
    model = LLaMAHF(config)
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        loss_of(config, batch, model).backward()
    assert count_flops(config, batch) == pytest.approx(counter.get_total_flops(), rel=0.01)
    assert 0 < text_share(config, batch) < 1


@pytest.mark.parametrize("dropout", [0.0, 0.1])
@pytest.mark.parametrize("precision, dtype", [("float32", torch.float32), ("bf16", torch.bfloat16)])
def test_activation_bytes_equal_those_kept_by_autograd(precision, dtype, dropout):
    config, batch = small_config("demo", dropout=dropout), MicroBatch(3, 20, 40)
    model, kept = LLaMAHF(config), {}
    weights = {parameter.shape for parameter in model.parameters()} | {p.t().shape for p in model.lm_head.parameters()}
    weights |= {shape[::-1] for shape in weights}

    def keep(tensor):
        if tensor.shape not in weights:  # autocast's copies of them as well
            kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        with torch.autocast("cpu", dtype, enabled=precision == "bf16"):
            loss = loss_of(config, batch, model)
        assert loss.requires_grad
    measured = sum(storage.nbytes() for storage in kept.values())
    assert activation_bytes(config, batch, False, precision) == pytest.approx(measured, rel=0.03)


def test_memory_decreases_with_sharding_and_adds_up_in_plain_training():
    config = config_of("3B")
    batch, total = MicroBatch(8, 150, 150), count_parameters(config).total
    plain = estimate_memory(config, batch)
    assert plain.weights + plain.moments + plain.ema + plain.gradients == 20 * total  # bytes; 16 without EMA
    assert estimate_memory(config, batch, "ZeRO-2", 8).ema == 4 * total
    assert plain.ema - estimate_memory(config, batch, ema=False).ema == 4 * total

    def peak(engine: str, gpus: int = 8, batch: MicroBatch = batch, **settings) -> float:
        return estimate_memory(config, batch, engine, gpus, **settings).peak

    for engine in ENGINES:
        peaks = [peak(engine, gpus) for gpus in (2, 8, 64)]
        assert peaks == sorted(peaks, reverse=True)
        assert peak(engine, recompute=True) < peak(engine) < peak(engine, batch=MicroBatch(16, 150, 150))
        assert peak(engine, accumulate=2) >= peak(engine)
    ddp, zero, fsdp = (peak(engine, 64) for engine in ENGINES)
    assert ddp > zero > fsdp


@pytest.mark.parametrize("control", [0, 30])
def test_moments_of_muon_are_those_of_the_optimizer(control):
    config = small_config("debug", control=control)
    model = LLaMAHF(config)
    optimizer = make_optimizer(model, "muon", 1e-3, 0.0)
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    moments = [value for state in optimizer.state.values() for value in state.values() if value.ndim]
    assert muon_moments(config) == sum(value.nbytes for value in moments)


def test_scaling_law_equals_the_published_values():
    best = scamo_optimum(1e18)
    assert np.log10([best.core, best.vocabulary, best.tokens]) == pytest.approx([9.74, 8.21, 7.69])
    assert best.size == "nearest size 5B" and scamo_optimum(1e17).size == "nearest size 1B"
    assert scamo_optimum(1e20).size == "far beyond 7B" and scamo_optimum(1e6).size == "far below debug"
    assert scamo_optimum_for_tokens(best.tokens).flops == pytest.approx(1e18)


def test_encoder_shapes_are_known_without_weights():
    assert encoder_shape("minilm") == EncoderShape("minilm", MiniLMEncoder.dim, MiniLMEncoder.max_length)
    assert {encoder_shape(name).dim for name in WIDTHS} == set(WIDTHS.values())
    assert [encoder_shape(name).max_length for name in ("clip", "flan-t5-xl", "flan-t5-xl:mean")] == [1, 150, 1]
    with pytest.raises(InputError, match="unknown text encoder"):
        encoder_shape("elmo")


def test_data_is_counted_from_the_headers(tmp_path):
    folder = tmp_path / "motion_data" / "vector_272"
    folder.mkdir(parents=True)
    (tmp_path / "split").mkdir()
    (tmp_path / "texts").mkdir()
    for name, frames in (("short", 3), ("five", 5), ("long", 50)):
        np.save(folder / f"{name}.npy", np.full((frames, 272), np.nan, np.float32))  # values are not read
        (tmp_path / "texts" / f"{name}.txt").write_text("a caption")
    (tmp_path / "split" / "train.txt").write_text("short\nfive\nlong\n")
    data = count_data(MotionFolder(tmp_path), 4, 10, 1)
    assert (data.clips, data.frames) == (3, 58)
    # "five" starts at frames 0 and 1, and is joined once; "long" starts at frames 0 to 3, and is joined once
    assert (data.rows, data.tokens) == (8, 3 + 5 * 10)
    with pytest.raises(InputError, match="has the 64 frames of a token"):
        count_data(MotionFolder(tmp_path), 64, 10, 0)


# --- The script


@pytest.fixture
def arguments(data_folder, tmp_path):
    tokenizer = ROOT / "checkpoints" / "demo" / "tokenizer"
    return ("train_t2m.py", "--config", ROOT / "configs" / "t2m" / "debug.yaml", "--data", data_folder, "--tokenizer",
            tokenizer, "--out", tmp_path / "run")  # fmt: skip


def test_plan_is_printed_and_nothing_is_written(run_here, arguments, data_folder, tmp_path):
    MotionFolder(data_folder).clips("train")  # an index is made when a folder is first opened
    before = {path: path.stat().st_mtime_ns for path in data_folder.rglob("*")}
    printed = run_here(*arguments, "--plan", "--text-encoder", "flan-t5-xl")  # its weights are not installed
    config = LLaMAConfig(9600, 2048, "flan-t5-xl", 150, 48, **SIZES["debug"])
    assert f"model: {count_parameters(config).total / 1e6:,.1f} M parameters" in printed
    gigabytes = [f"{weight_bytes(config, name) / 1e9:.2f} in {name}" for name in ("float32", "bf16", "int8", "int4")]
    assert f"weights of the trained model in GB: {', '.join(gigabytes)} (int4 pads inputs to" in printed
    clips = len(MotionFolder(data_folder).clips("train"))
    assert f"data: {clips} training clips" in printed and "run: 20 steps of 8 rows" in printed
    assert "150 text features (the maximum" in printed and "Lu et al." in printed and "Hoffmann et al." in printed
    table = [line.split("|")[1:-1] for line in printed.splitlines() if re.match(r"\| \d", line)]
    assert [int(row[0]) for row in table] == [1, 2, 4, 8, 16, 32, 64]
    assert [row[1].strip() for row in table[:4]] == ["8", "4", "2", "1"]
    assert all("cannot be divided evenly" in row[1] for row in table[4:])
    assert not (tmp_path / "run").exists()
    assert {path: path.stat().st_mtime_ns for path in data_folder.rglob("*")} == before


def test_plan_depends_on_the_options(run_here, arguments):
    def plan(*more):
        printed = run_here(*arguments, "--plan", *more)
        gflops = float(re.search(r"FLOPs per token: ([\d.]+) G", printed)[1])
        table = next(line.split("|") for line in printed.splitlines() if line.startswith("| 1 |"))
        return printed, gflops, float(table[3].split("/")[0]), float(table[6])

    long = ("--steps", 10**9, "--model.size", "44M")
    printed, gflops, gigabytes, days = plan(*long)
    assert "64 text features (the maximum" in printed and days > 0
    assert plan(*long, "--plan-utilisation", 0.2)[3] == pytest.approx(2 * days, rel=0.01)
    assert plan(*long, "--plan-tflops", 2 * 989)[3] == pytest.approx(days / 2, rel=0.01)
    assert plan(*long, "--plan-text", 4)[1] < gflops / 1.5
    assert plan(*long, "--ema", 0)[2] < gigabytes
    assert "\n| 1 | 2 |" in plan(*long, "--accumulate", 4)[0] and "\n| 1 | 8 |" in printed


@pytest.mark.parametrize(
    "more, words",
    [
        (("--data", "no/such/folder"), "no/such/folder holds no motion_data/vector_272"),
        (("--tokenizer", "no/tokenizer"), "there is no tokenizer folder no/tokenizer"),
        (("--model.size", "huge"), "--model.size huge is unknown"),
        (("--plan-utilisation", 0), "--plan-utilisation is 0"),
        (("--plan-utilisation", 1.01), "--plan-utilisation is 1.01"),
        (("--plan-tflops", 0), "--plan-tflops is 0; give a number above 0"),
        (("--text-encoder", "elmo"), "unknown text encoder 'elmo'"),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else "",
)
def test_invalid_options_of_the_plan(refused, arguments, tmp_path, more, words):
    assert words in refused(*arguments, "--plan", *more)
    assert not (tmp_path / "run").exists()


def test_switch_without_a_value_is_true(tmp_path):
    places = ["--data", "d", "--tokenizer", str(tmp_path), "--out", "o"]
    for given in (["--plan", *places], [*places, "--plan"], [*places, "--plan", "true"], [*places, "--plan=true"]):
        assert parse_options(GeneratorOptions, "", given)[0].plan
    assert not parse_options(GeneratorOptions, "", ["--plan", "false", *places])[0].plan


@pytest.mark.parametrize(
    "path", sorted((ROOT / "configs").glob("*2m/*.yaml")) + sorted((ROOT / "configs/vq").iterdir())
)
def test_shipped_training_configs_are_valid(path, tmp_path):
    kind = GeneratorOptions if path.parent.name == "t2m" else TokenizerOptions
    start = ["--tokenizer", str(tmp_path)] if kind is GeneratorOptions else []
    if path.stem in ("control", "demo_decoder"):
        start = ["--init", str(ROOT / "checkpoints" / "demo")]
    options, as_yaml = parse_options(kind, "", ["--config", str(path), "--data", "d", "--out", "o", *start])
    assert options.steps > 0 and f"steps: {options.steps}" in as_yaml
