"""Both training scripts at debug size, from the command line, and the code they share: run folders, errors, saving."""

import itertools
import json
import re
import shutil
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path

import imageio
import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch.utils.data import DataLoader

import training.run
from dataset.motion_folder import MotionFolder
from dataset.windows import WindowDataset
from models.checkpoints import KNOWN
from models.known import Known
from models.llama import LLaMAHF
from models.motion_vqvae import HumanVQVAE, VQVAEConfig
from models.vq_loss import MotionLoss
from tests.conftest import ROOT
from training.optimizer import EMA, make_optimizer, orthogonal, schedule_factor
from training.options import GeneratorOptions, TokenizerOptions
from training.state import states
from utils import checkpoint
from utils.checkpoint import CONFIG, WEIGHTS, fingerprint, save_model
from utils.config import parse_options
from utils.errors import InputError

VQ = ("--config", ROOT / "configs" / "vq" / "debug.yaml", "--precision", "float32")
RUN_FILES = {"train.yaml", "states", "best", "motions", "tensorboard"}
T2M = ("--config", ROOT / "configs" / "t2m" / "debug.yaml", "--precision", "float32")


def scalars(run):
    """Return the TensorBoard scalars of a run: tag -> values in order of steps."""
    board = EventAccumulator(str(run / "tensorboard" / run.name)).Reload()
    return {tag: [event.value for event in board.Scalars(tag)] for tag in board.Tags()["scalars"]}


# --- Run folders


def test_tokenizer_run_folder_is_a_tokenizer(tokenizer_run, data_folder):
    files = {path.name for path in tokenizer_run.iterdir()}
    assert files == {CONFIG, WEIGHTS, *RUN_FILES}
    assert {path.name for path in (tokenizer_run / "best").iterdir()} == {CONFIG, WEIGHTS}
    model = HumanVQVAE.from_pretrained(tokenizer_run)
    assert model.codebook_size == np.prod(model.config.levels) and not model.training
    for statistic, values in zip((model.mean, model.std), MotionFolder(data_folder).mean_std(), strict=True):
        np.testing.assert_array_equal(statistic, values)


def captions_of(folder: Path, split: str) -> set[str]:
    clips = (folder / "split" / f"{split}.txt").read_text().split()
    lines = [line for clip in clips for line in (folder / "texts" / f"{clip}.txt").read_text().splitlines()]
    return {line.partition("#")[0] for line in lines}


def test_generator_run_folder_is_a_complete_text_to_motion_model(t2m_run, tokenizer_run, data_folder):
    files = {path.name for path in t2m_run.iterdir()}
    assert files == {CONFIG, WEIGHTS, KNOWN, "tokenizer", *RUN_FILES}
    assert {path.name for path in (t2m_run / "tokenizer").iterdir()} == {CONFIG, WEIGHTS}
    assert {path.name for path in (t2m_run / "best").iterdir()} == {CONFIG, WEIGHTS, KNOWN, "tokenizer"}
    for folder in (t2m_run, t2m_run / "best"):
        assert set(Known.load(folder).captions) == captions_of(data_folder, "train")
    assert fingerprint(t2m_run / "tokenizer") == fingerprint(tokenizer_run)
    generator, tokenizer = LLaMAHF.from_pretrained(t2m_run), HumanVQVAE.from_pretrained(t2m_run / "tokenizer")
    assert generator.config.codebook_size == tokenizer.codebook_size


@pytest.mark.parametrize("kind", [TokenizerOptions, GeneratorOptions])
def test_train_yaml_holds_every_option_of_the_run(request, kind):
    run = request.getfixturevalue("tokenizer_run" if kind is TokenizerOptions else "t2m_run")
    debug = VQ if kind is TokenizerOptions else T2M
    options, _ = parse_options(kind, "", ["--config", str(run / "train.yaml")])
    tokenizer = [] if kind is TokenizerOptions else ["--tokenizer", str(options.tokenizer)]
    places = ["--data", str(options.data), "--out", str(run), *tokenizer]
    assert asdict(options) == asdict(parse_options(kind, "", [*map(str, debug), *places])[0])


def training_loss(run, data_folder, untrained=False):
    """Return the mean loss of a tokenizer over the first training windows."""
    options, _ = parse_options(TokenizerOptions, "", ["--config", str(run / "train.yaml")])
    model = HumanVQVAE.from_pretrained(run)
    if untrained:
        torch.manual_seed(0)
        fresh = HumanVQVAE(model.config)
        model.load_state_dict(fresh.state_dict() | {"mean": model.mean, "std": model.std})
    windows = WindowDataset(MotionFolder(data_folder).motions("train"), options.window)
    _, features, lengths = next(iter(DataLoader(windows, 64)))
    motion = model.normalize(features)
    with torch.no_grad():
        reconstruction = model(motion, lengths)[0]
        return MotionLoss(options.loss)(reconstruction, motion, model.mean, model.std, lengths)[0].item()


def test_losses_fall_and_are_logged(tokenizer_run, t2m_run, data_folder):
    tokenizer, generator = scalars(tokenizer_run), scalars(t2m_run)
    for logged, tag in ((tokenizer, "validation/local_mm"), (generator, "validation/loss")):
        assert len(logged[tag]) == 2 and np.isfinite(sum(logged.values(), [])).all()
    assert (
        generator["validation/loss"][1] < generator["validation/loss"][0] < np.log(1002)
    )  # uniform over 1000 codes and end
    assert training_loss(tokenizer_run, data_folder) < 0.95 * training_loss(tokenizer_run, data_folder, untrained=True)
    assert {"learning_rate", "gradient_norm", "codebook/active", "speed/frames_per_second"} <= set(tokenizer)
    for logged in (tokenizer, generator):
        assert all(0 < share < 1 for share in logged["speed/model_flops_utilisation"])
        assert all(0 < share < 1 for share in logged["speed/waiting_for_data"])
    assert {"learning_rate", "gradient_norm", "loss/total", "speed/tokens_per_second"} <= set(generator)


# --- Invalid input on the command line


@pytest.fixture
def damaged_folder(data_folder, tmp_path):
    """A copy of the data folder that a test may damage, and the file of its first training clip."""
    copy = tmp_path / "data"
    shutil.copytree(data_folder, copy, ignore=shutil.ignore_patterns("tokens"))
    return copy, MotionFolder(copy).motion_file(MotionFolder(copy).ids("train")[0])


LATE_NAN = np.where(np.arange(64)[:, None] < 9, 0, np.full(272, np.nan)).astype(np.float32)  # only found in training
FAULTS = {
    "half-written": (lambda file: file.write_bytes(file.read_bytes()[:3000]), "bytes and has 2872"),
    "NaN": (lambda file: np.save(file, LATE_NAN), "holds NaN or infinite values"),
    "width": (lambda file: np.save(file, np.zeros((64, 263), np.float32)), "where (frames, 272) of numbers is needed"),
    "no frames": (lambda file: np.save(file, np.zeros((0, 272), np.float32)), "holds no frames"),
    "missing": (lambda file: file.unlink(), "does not exist"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_invalid_features_end_both_trainings_and_name_the_file(refused, damaged_folder, tokenizer_run, tmp_path, fault):
    data, file = damaged_folder
    damage, words = FAULTS[fault]
    damage(file)
    for error in (
        refused("train_vq.py", *VQ, "--data", data, "--out", tmp_path / "vq"),
        refused("train_t2m.py", *T2M, "--data", data, "--tokenizer", tokenizer_run, "--out", tmp_path / "t2m"),
    ):
        assert words in error and str(file) in error


@pytest.mark.parametrize(
    "arguments, words",
    [
        (("--data", "no/such/folder"), "no/such/folder holds no motion_data/vector_272"),
        (("--window", 30), "--window 30 is not a multiple of the 4 frames per token"),
        (("--window", 0), "window"),
        (("--validate-every", 0), "--validate-every is 0"),
        (("--steps", "many"), "steps"),
        (("--colour", "red"), "--colour"),
        (("--config", "none.yaml"), "none.yaml"),
        (("--model.activation", "tanh"), "activation tanh is unknown"),
        (("--model.levels", "[8, 1]"), "levels"),
        (("--loss.kind", "l3"), "l3"),
        (("--precision", "fp8"), "--precision fp8 is unknown"),
        (("--save-precision", "int8"), "--save-precision int8 is unknown"),
        (("--device", "toaster"), "device toaster cannot be used"),
        (("--resume",), "there is no state in"),
        (("--schedule", "linear"), "schedule"),
        (("--accumulate", 3), "accumulate"),
    ],
    ids=lambda value: " ".join(map(str, value)) if isinstance(value, tuple) else "",
)
def test_invalid_options_of_the_tokenizer_training(refused, data_folder, tmp_path, arguments, words):
    assert words in refused("train_vq.py", *VQ, "--data", data_folder, "--out", tmp_path / "run", *arguments)
    assert not (tmp_path / "run" / WEIGHTS).exists()


def test_missing_required_options_are_named(refused):
    assert "data" in refused("train_vq.py", "--out", "run")
    assert "tokenizer" in refused("train_t2m.py", "--data", "data", "--out", "run")


def test_invalid_tokenizer_folders(refused, data_folder, tokenizer_run, t2m_run, tmp_path):
    def error(tokenizer, *arguments):
        return refused("train_t2m.py", *T2M, "--data", data_folder, "--out", tmp_path / "run",
                       "--tokenizer", tokenizer, *arguments)  # fmt: skip

    half = tmp_path / "half"
    shutil.copytree(tokenizer_run, half)
    (half / WEIGHTS).write_bytes((half / WEIGHTS).read_bytes()[:5000])
    without = tmp_path / "without"
    shutil.copytree(tokenizer_run, without)
    (without / CONFIG).unlink()
    other = tmp_path / "other"
    shutil.copytree(tokenizer_run, other)
    config = json.loads((other / CONFIG).read_text())
    (other / CONFIG).write_text(json.dumps(config).replace('"width": 32', '"width": 48'))
    assert "there is no tokenizer folder" in error(tmp_path / "none")
    assert f"{half / WEIGHTS}: its tensors need" in error(half)
    assert "config.json missing" in error(without)
    assert "is (32,) and should be (48,)" in error(other)
    assert "config.json: the setting codebook_size is unknown" in error(t2m_run)
    assert "--model.size huge is unknown; use debug, demo, 44M" in error(tokenizer_run, "--model.size", "huge")
    assert "--model.max-tokens is 0" in error(tokenizer_run, "--model.max-tokens", 0)
    assert "--model.text-dropout is 1" in error(tokenizer_run, "--model.text-dropout", 1)
    assert "unknown text encoder 'elmo'" in error(tokenizer_run, "--text-encoder", "elmo")
    assert not (tmp_path / "run").exists()


def test_missing_caption_file_is_named(refused, damaged_folder, tokenizer_run, tmp_path):
    data, file = damaged_folder
    caption = data / "texts" / f"{file.stem}.txt"
    caption.unlink()
    error = refused("train_t2m.py", *T2M, "--data", data, "--tokenizer", tokenizer_run, "--out", tmp_path / "run")
    assert f"{caption} is missing" in error


def test_unwritable_output_is_named(refused, data_folder, tokenizer_run, tmp_path):
    (tmp_path / "file").write_text("")
    out = tmp_path / "file" / "run"
    assert f"cannot write {out}" in refused("train_vq.py", *VQ, "--data", data_folder, "--out", out)
    assert "cannot write" in refused("train_vq.py", *VQ, "--data", data_folder, "--out", tmp_path / "file")


def test_diverging_loss_ends_the_run_and_names_step_clips_and_newest_state(refused, data_folder, tmp_path):
    command = (*VQ, "--data", data_folder, "--out", tmp_path, "--steps", 40, "--validate-every", 2, "--draw", 0)
    error = refused("train_vq.py", *command, "--learning-rate", 1e18, "--clip-norm", 1e30)
    assert "lower --learning-rate" in error or "diverged" in error
    step, ids, last = re.search(r"this was step (\d+) with (.*); (.*)$", error).groups()
    assert set(ids.split(", ")) <= set(MotionFolder(data_folder).ids("train")) and ids.count(",") == 15
    newest = states(tmp_path / "states")
    assert last == (f"the newest state is {newest[0]}" if newest else "no state has been saved yet")
    assert all(int(state.name[5:]) <= int(step) for state in newest)


def test_recomputed_and_compiled_training_equals_plain_training(run_here, data_folder, tokenizer_run, tmp_path):
    command = ("train_t2m.py", *T2M, "--data", data_folder, "--tokenizer", tokenizer_run, "--steps", 3, "--draw", 0)
    run_here(*command, "--out", tmp_path / "plain")
    run_here(*command, "--out", tmp_path / "run", "--recompute", "--compiled")
    expected, made = (load_file(tmp_path / name / WEIGHTS) for name in ("plain", "run"))
    for name in expected:
        torch.testing.assert_close(made[name], expected[name], atol=2e-5, rtol=0)


def test_validation_caption_that_is_not_a_prompt_does_not_end_training(
    run_here, damaged_folder, tokenizer_run, tmp_path
):
    data, _ = damaged_folder
    (data / "texts" / f"{MotionFolder(data).ids('val')[0]}.txt").write_text("walks and " * 101 + "stops")
    printed = run_here("train_t2m.py", *T2M, "--data", data, "--tokenizer", tokenizer_run, "--out", tmp_path / "run",
                       "--steps", 2)  # fmt: skip
    assert "validation motions are not drawn: a prompt has 1015 characters" in printed
    assert (tmp_path / "run" / WEIGHTS).exists()


@pytest.mark.parametrize(
    "module, missing, option, words",
    [
        (training.run, "find_spec", "--wandb", "wandb is not installed; pip install wandb"),
        (shutil, "which", "--compiled", "needs a C++ compiler on a CPU and none is found; install g++"),
    ],
)
def test_missing_tools_are_named(refused, monkeypatch, data_folder, tmp_path, module, missing, option, words):
    monkeypatch.setattr(module, missing, lambda name: None)
    command = ("train_vq.py", *VQ, "--data", data_folder, "--out", tmp_path / "run", "--device", "cpu")
    assert words in refused(*command, option)


@pytest.mark.skipif(find_spec("wandb") is None, reason="needs Weights & Biases: pip install wandb")
def test_weights_and_biases_logging(run_here, data_folder, tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    run_here("train_vq.py", *VQ, "--data", data_folder, "--out", tmp_path / "run", "--wandb")
    assert list(tmp_path.rglob("*.wandb"))


def test_validation_motions_are_rendered_beside_their_targets(t2m_run, tokenizer_run, data_folder):
    clip = MotionFolder(data_folder).ids("val")[0]
    for run, steps in ((tokenizer_run, (30, 60)), (t2m_run, (10, 20))):
        videos = sorted((run / "motions").rglob("*.mp4"))
        assert [path.parent.name for path in videos] == [f"step-{step:08d}" for step in steps]
        assert all(path.name == f"{clip}.mp4" for path in videos)
        frames = np.stack(list(imageio.v3.imiter(videos[0])))  # (T, H, W, 3)
        assert len(frames) >= 4 and np.abs(np.diff(frames.astype(np.int16), axis=0)).max() > 50  # something moves


# --- Optimizer, options


def test_learning_rate_warms_up_then_decays_to_the_floor_or_stays_constant():
    rates = [schedule_factor("cosine", step, 100, 10) for step in range(100)]
    assert rates[:10] == pytest.approx([0.1 * (step + 1) for step in range(10)])
    assert all(later < earlier for earlier, later in itertools.pairwise(rates[10:]))
    assert schedule_factor("cosine", 100, 100, 10) == schedule_factor("cosine", 500, 100, 10) == pytest.approx(0.02)
    assert schedule_factor("cosine", 0, 100, 0) == 1
    assert [schedule_factor("constant", step, 100, 10) for step in range(100)] == rates[:10] + [1.0] * 90


def test_ema_forgets_initial_weights_and_restores_the_model():
    model = torch.nn.Linear(2, 2)
    average = EMA(model, 0.9)
    torch.nn.init.constant_(model.weight, 1.0)
    average.update(0)
    start = average.values["weight"].clone()
    for step in range(1, 200):
        average.update(step)
    torch.testing.assert_close(average.values["weight"], torch.ones(2, 2))
    assert not torch.equal(start, average.values["weight"])
    torch.nn.init.constant_(model.weight, 5.0)
    with average.applied():
        assert torch.equal(model.weight, average.values["weight"]) and not model.training
    assert torch.equal(model.weight, torch.full((2, 2), 5.0)) and model.training and model.weight.requires_grad
    without = EMA(model, 0.0)
    without.update(0)
    with without.applied():
        assert torch.equal(model.weight, torch.full((2, 2), 5.0))


def test_weight_decay_applies_to_matrices_only():
    model = torch.nn.Sequential(torch.nn.Embedding(5, 4), torch.nn.Linear(4, 3), torch.nn.LayerNorm(3))
    decayed, not_decayed = make_optimizer(model, "adamw", 1e-3, 0.1).param_groups
    assert [parameter.shape for parameter in decayed["params"]] == [(3, 4)] and decayed["weight_decay"] == 0.1
    assert len(not_decayed["params"]) == 4 and not_decayed["weight_decay"] == 0


def test_muon_steps_are_orthogonal_and_of_the_size_of_adamw_steps():
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Embedding(5, 64), torch.nn.Conv1d(64, 48, 3), torch.nn.Linear(48, 96))
    before = [parameter.detach().clone() for parameter in model.parameters()]
    optimizer = make_optimizer(model, "muon", 0.01, 0.0)
    for parameter in model.parameters():
        parameter.grad = torch.randn_like(parameter)
    optimizer.step()
    steps = [parameter.detach() - old for parameter, old in zip(model.parameters(), before, strict=True)]
    for step in steps:
        assert 0.1 < step.square().mean().sqrt() / 0.01 < 1.1
    for step in (steps[1].flatten(1), steps[3]):
        values = torch.linalg.svdvals(step) / (0.2 * 0.01 * max(step.shape) ** 0.5)
        assert values.min() > 0.5 and values.max() < 1.3


def test_newton_schulz_keeps_the_singular_vectors():
    matrix = torch.randn(20, 30, generator=torch.Generator().manual_seed(0))
    left, _, right = torch.linalg.svd(matrix, full_matrices=False)
    values = torch.diagonal(left.T @ orthogonal(matrix) @ right.T)
    assert torch.allclose(left @ torch.diag(values) @ right, orthogonal(matrix), atol=1e-4)
    assert values.min() > 0.5 and values.max() < 1.3


def test_options_from_file_and_command_line_with_hyphens_or_underscores(tmp_path):
    (tmp_path / "some.yaml").write_text("window: 16\nmodel:\n  width: 24\n  depth: 2\n")
    options, as_yaml = parse_options(
        TokenizerOptions, "", ["--config", str(tmp_path / "some.yaml"), "--batch-size", "3", "--model.code-dim=5",
                               "--model.width", "20", "--data", "a-b", "--out=c-d"],
    )  # fmt: skip
    assert (options.window, options.batch_size) == (16, 3)
    assert (options.model.width, options.model.depth, options.model.code_dim) == (20, 2, 5)
    assert (str(options.data), str(options.out)) == ("a-b", "c-d") and "batch_size: 3" in as_yaml


# --- Checkpoints


@pytest.fixture
def tiny():
    torch.manual_seed(0)
    return HumanVQVAE(VQVAEConfig(levels=[4, 4], code_dim=4, width=4, down_t=1, depth=1))


def test_checkpoint_round_trip_in_both_precisions(tiny, tmp_path):
    for precision, tolerance in (("float32", 0), ("float16", 1e-3)):
        save_model(tiny, tmp_path / precision, precision)
        loaded = HumanVQVAE.from_pretrained(tmp_path / precision)
        assert loaded.config == tiny.config and not list((tmp_path / precision).glob(".*"))
        for name, value in tiny.state_dict().items():
            torch.testing.assert_close(loaded.state_dict()[name], value, atol=tolerance, rtol=0)
            assert loaded.state_dict()[name].dtype == value.dtype
    assert (tmp_path / "float16" / WEIGHTS).stat().st_size < (tmp_path / "float32" / WEIGHTS).stat().st_size
    assert all(parameter.dtype == torch.float32 for parameter in tiny.parameters())
    with pytest.raises(InputError, match="save_precision int8 is unknown"):
        save_model(tiny, tmp_path, "int8")


def test_failed_save_keeps_the_old_files(tiny, tmp_path, monkeypatch):
    tiny.save_pretrained(tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    def full_disk(*arguments, **settings):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint.PyTorchModelHubMixin, "save_pretrained", full_disk)
    torch.nn.init.zeros_(tiny.encoder.conv_in.weight)
    with pytest.raises(InputError, match="cannot .*No space left"):
        tiny.save_pretrained(tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_missing_files_are_not_a_checkpoint(tmp_path, monkeypatch):
    with pytest.raises(InputError, match="is not a HumanVQVAE checkpoint: config.json and model.safetensors missing"):
        HumanVQVAE.from_pretrained(tmp_path / "none")
    monkeypatch.chdir(tmp_path.parent)  # two parts look like a hub id, but the first is a folder here
    with pytest.raises(InputError, match="config.json and model.safetensors missing"):
        HumanVQVAE.from_pretrained(f"{tmp_path.name}/none")
    (tmp_path / CONFIG).write_text("{")
    (tmp_path / WEIGHTS).write_bytes(b"")
    with pytest.raises(InputError) as caught:
        HumanVQVAE.from_pretrained(tmp_path)
    assert str(tmp_path) in str(caught.value)
