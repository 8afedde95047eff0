"""Fine-tuning with --init: the weights, shape, statistics and tokenizer that a training starts from."""

import json
import shutil

import pytest
import torch
import yaml

import train_t2m
from models.llama import LLaMAHF
from models.llama_config import SIZES, LLaMAConfig
from models.motion_vqvae import HumanVQVAE, VQVAEConfig
from models.pipeline import TextToMotion
from tests import fake_hub
from training.init import freeze_all_but_control, initial_generator, with_control
from training.options import GeneratorOptions
from utils.checkpoint import CONFIG, WEIGHTS, fingerprint
from utils.config import parse_options
from utils.errors import InputError

SHAPE = VQVAEConfig(levels=[5, 5, 5], code_dim=16, width=16, down_t=1, depth=1)  # not that of any default
FEW_STEPS = ("--steps", 1, "--warmup", 0, "--learning-rate", 1e-9, "--ema", 0, "--batch-size", 4, "--draw", 0,
             "--precision", "float32", "--weight-decay", 0)  # fmt: skip


@pytest.fixture
def base(tmp_path):
    """A text-to-motion model of a shape of its own, to be fine-tuned."""
    torch.manual_seed(0)
    folder, tokenizer = tmp_path / "base", HumanVQVAE(SHAPE)
    tokenizer.mean.fill_(0.25)
    tokenizer.std.fill_(3)
    tokenizer.save_pretrained(folder / "tokenizer")
    text = {"text_dim": 384, "text_encoder": "minilm", "text_length": 256}
    config = LLaMAConfig(codebook_size=125, **text, max_tokens=120, tokenizer=fingerprint(folder / "tokenizer"),
                         text_dropout=0.5, **SIZES["debug"])  # fmt: skip
    LLaMAHF(config).save_pretrained(folder)
    return folder


def assert_close(model, initial):
    """Equal up to the tiny learning rate."""
    for (name, value), expected in zip(model.state_dict().items(), initial.state_dict().values(), strict=True):
        torch.testing.assert_close(value, expected, atol=1e-6, rtol=0, msg=name)


def test_tokenizer_starts_from_the_weights_and_keeps_the_statistics(base, run_here, refused, data_folder, tmp_path):
    arguments = ["--data", data_folder, "--out", tmp_path / "run", "--window", 32, *FEW_STEPS]
    run_here("train_vq.py", "--init", base / "tokenizer", *arguments)
    initial, model = HumanVQVAE.from_pretrained(base / "tokenizer"), HumanVQVAE.from_pretrained(tmp_path / "run")
    assert model.config == SHAPE and float(model.mean[0]) == 0.25 and float(model.std[0]) == 3
    assert_close(model, initial)
    assert yaml.safe_load((tmp_path / "run" / "train.yaml").read_text())["init"] == str(base / "tokenizer")

    shutil.rmtree(base)  # a resumed run does not need it
    run_here("train_vq.py", "--config", tmp_path / "run" / "train.yaml", "--resume", "--steps", 2)
    assert HumanVQVAE.from_pretrained(tmp_path / "run").config == SHAPE
    assert "there is no tokenizer folder" in refused(
        "train_vq.py", "--init", base, *arguments[:2], "--out", tmp_path / "b"
    )


def test_only_the_decoder_is_trained(base, run_here, refused, data_folder, tmp_path):
    arguments = ["--only-decoder", "--beginnings", 0.5, "--data", data_folder, "--out", tmp_path / "run"]
    run_here("train_vq.py", "--init", base, *arguments, "--window", 32, *FEW_STEPS, "--learning-rate", 1e-2)
    trained, initial = (
        HumanVQVAE.from_pretrained(path).state_dict() for path in (tmp_path / "run", base / "tokenizer")
    )
    changed = {name.partition(".")[0] for name in initial if not torch.equal(trained[name], initial[name])}
    assert changed == {"decoder"}
    assert "--only-decoder needs a trained tokenizer; give one as --init" in refused("train_vq.py", *arguments)


def test_conflicting_options_of_the_tokenizer_are_refused(base, refused, data_folder, tmp_path):
    def error(*options) -> str:
        return refused("train_vq.py", "--init", base, "--data", data_folder, "--out", tmp_path / "run", *options)

    message = error("--model.width", 32)
    assert "--model.width is 32, and the model of --init has 16; leave --model.width out" in message
    assert "--model.levels is [8, 8]" in error("--model.levels", "[8,8]")
    assert "--window 33 is not a multiple of the 2 frames per token" in error("--window", 33)
    assert not (tmp_path / "run" / WEIGHTS).exists()


def test_generator_starts_from_the_weights_with_its_tokenizer(base, run_here, data_folder, tmp_path, monkeypatch):
    """From the hub; the run folder is a whole model, and can be resumed without the hub."""
    with fake_hub.running() as hub:
        fake_hub.use(hub.address, tmp_path / "cache", monkeypatch)
        hub.add_folder("user/base", base)
        arguments = ["--init", "user/base@main", "--data", data_folder, "--out", tmp_path / "run", "--cut-longer"]
        plan = run_here("train_t2m.py", *arguments, *FEW_STEPS, "--plan")
        run_here("train_t2m.py", *arguments, *FEW_STEPS, "--model.text-dropout", 0.3, "--model.dropout", 0)
    initial, model = LLaMAHF.from_pretrained(base), LLaMAHF.from_pretrained(tmp_path / "run")
    assert f"{sum(value.numel() for value in model.parameters()) / 1e6:.1f} M parameters" in plan
    assert_close(model, initial)
    assert vars(model.config) == vars(initial.config) | {"text_dropout": 0.3, "dropout": 0}
    assert fingerprint(tmp_path / "run" / "tokenizer") == fingerprint(base / "tokenizer")
    assert yaml.safe_load((tmp_path / "run" / "train.yaml").read_text())["init"] == "user/base@main"

    shutil.rmtree(tmp_path / "cache")
    run_here("train_t2m.py", "--config", tmp_path / "run" / "train.yaml", "--resume", "--steps", 2)
    generated = TextToMotion.from_pretrained(tmp_path / "run").generate(["a person walks"], [0], seconds=[1.0])
    assert generated[0].features.shape == (30, 272)


def test_models_that_do_not_fit_are_refused(base, refused, data_folder, tmp_path):
    def error(*options, init=base) -> str:
        return refused("train_t2m.py", "--init", init, "--data", data_folder, "--out", tmp_path / "run", *options)

    assert "--model.size is 44M, and the model of --init has debug" in error("--model.size", "44M")
    assert "--model.max-tokens is 64, and the model of --init has 120" in error("--model.max-tokens", 64)
    assert "--text-encoder is clip, and the model of --init has minilm" in error("--text-encoder", "clip")
    HumanVQVAE(SHAPE).save_pretrained(tmp_path / "other")
    assert "is not the tokenizer of the model of --init" in error("--tokenizer", tmp_path / "other")
    assert f"it has no folder {base}/tokenizer/tokenizer; give a" in error(init=base / "tokenizer")
    assert "--out and --init are both" in error("--out", base)
    assert "there is no checkpoint folder" in error(init=tmp_path / "none")
    config = json.loads((base / CONFIG).read_text())
    (base / CONFIG).write_text(json.dumps(config | {"tokenizer": "0" * 16}))
    assert "is not the tokenizer that the generator" in error()
    assert not (tmp_path / "run").exists()


def test_given_tokenizer_of_the_model_and_equal_options_are_no_conflict(base, tmp_path):
    places = ["--data", "d", "--out", "o", "--init", str(base), "--tokenizer", str(base / "tokenizer")]
    equal = ["--model.size", "debug", "--model.max-tokens", "120", "--text-encoder", "minilm"]
    options, _ = parse_options(GeneratorOptions, "", [*places, *equal])
    options, sources = train_t2m.find_sources(options)
    assert sources.init == base and options.model.max_tokens == 120


def test_control_is_added_without_a_change_of_the_output(base):
    initial = initial_generator(base, dropout=0.0, text_dropout=0.0)
    model = with_control(initial, 20).eval()
    assert vars(model.config) == vars(initial.config) | {"control": 20}
    text, mask, tokens = torch.randn(2, 3, 384), torch.ones(2, 3, dtype=torch.bool), torch.randint(125, (2, 5))
    expected = initial(text, mask, tokens)
    assert torch.equal(model(text, mask, tokens, control=torch.randn(2, 6, 20)), expected)
    assert with_control(model, 0) is model and with_control(model, 20) is model
    with pytest.raises(InputError, match="takes control signals of width 20 and this version computes 21"):
        with_control(model, 21)


def test_only_control_is_trained_without_dropout_elsewhere(base, refused, tmp_path):
    model = with_control(initial_generator(base, dropout=0.2, text_dropout=0.0), 20)
    freeze_all_but_control(model)
    trained = {name.partition(".")[0] for name, value in model.named_parameters() if value.requires_grad}
    assert trained == {"control_proj"}
    dropouts = {name: module.p for name, module in model.named_modules() if isinstance(module, torch.nn.Dropout)}
    assert {rate for name, rate in dropouts.items() if not name.startswith("control_proj")} == {0.0}
    assert dropouts["control_proj.dropout"] == 0.2
    message = refused("train_t2m.py", "--only-control", "--init", base, "--data", tmp_path, "--out", tmp_path / "run")
    assert "--only-control needs --init and --control" in message


def test_dropout_rates_are_those_of_the_training(base):
    model = initial_generator(base, dropout=0.2, text_dropout=0.0)
    rates = {module.p for module in model.modules() if isinstance(module, torch.nn.Dropout)}
    assert rates == {0.2} and (model.config.dropout, model.config.text_dropout) == (0.2, 0.0)
    assert all(value.dtype == torch.float32 for value in model.parameters())
