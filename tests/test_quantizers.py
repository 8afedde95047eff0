"""All quantizers: training by command line, checkpoints, padding, streaming, resuming, several processes, errors."""

import copy
import json
import runpy
import shutil
import signal
import sys
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file
from torch import distributed, multiprocessing

import benchmarks.quantizers
from dataset.motion_folder import MotionFolder
from models.motion_vqvae import HumanVQVAE, VQVAEConfig
from models.pipeline import TextToMotion
from models.quantizers import build_quantizer
from tests.conftest import ROOT, start_script
from tests.test_resume import step_of, tensors_of, wait_for_state
from tests.test_training import T2M, VQ, scalars
from training.options import TokenizerOptions
from training.state import states
from utils.checkpoint import CONFIG, WEIGHTS
from utils.config import parse_options
from utils.errors import InputError

LEVELS = {"fsq": [8, 5, 5, 5], "vq_ema": [8, 5, 5, 5], "lfq": [2] * 8, "rfsq": [5, 3, 2]}
CODES = {"fsq": 1000, "vq_ema": 1000, "lfq": 256, "rfsq": 900}
STEPS = 20


def quantizer(name: str, dim: int = 6):
    torch.manual_seed(0)
    return build_quantizer(name, LEVELS[name], dim, residuals=2)


def vectors(count: int, dim: int = 6) -> torch.Tensor:
    return torch.randn(3, count, dim, generator=torch.Generator().manual_seed(1))


def command(name: str, data, out, *arguments) -> list:
    return ["train_vq.py", *VQ, "--data", data, "--out", out, "--steps", STEPS, "--validate_every", STEPS,
            "--model.quantizer", name, "--model.levels", LEVELS[name], *arguments]  # fmt: skip


def run_in_process(*words: object) -> None:
    with pytest.MonkeyPatch.context() as patch, torch.enable_grad():
        patch.setattr(sys, "argv", [*map(str, words)])
        runpy.run_path(str(ROOT / sys.argv[0]), run_name="__main__")


@pytest.fixture(scope="module")
def runs(tmp_path_factory, data_folder):
    """Returns the run folder of train_vq.py of a quantizer, which is trained on first use."""
    folder, done = tmp_path_factory.mktemp("quantizers"), {}

    def run(name):
        if name not in done:
            run_in_process(*command(name, data_folder, folder / name))
            done[name] = folder / name
        return done[name]

    return run


@pytest.fixture
def clips(data_folder):
    """Features (T, 272) of three clips."""
    folder = MotionFolder(data_folder)
    return [torch.from_numpy(folder.motion(clip_id)) for clip_id in folder.ids("train")[:3]]


# --- Trained by command line


@pytest.mark.parametrize("name", LEVELS)
@torch.no_grad()
def test_a_run_folder_loads_as_a_tokenizer(runs, clips, name):
    model = HumanVQVAE.from_pretrained(runs(name))
    assert (model.config.quantizer, model.codebook_size) == (name, CODES[name])
    motion = model.normalize(clips[0])[None]
    result = model(motion)
    assert result.tokens.dtype == torch.int64 and result.loss == 0
    assert 1 < result.perplexity <= result.active_fraction * CODES[name] + 1e-3
    assert torch.equal(model.encode(motion), result.tokens)
    torch.testing.assert_close(model.decode(result.tokens), result.reconstruction, atol=1e-5, rtol=1e-4)
    logged = scalars(runs(name))
    assert any(logged["loss/quantizer"]) == (name in ("vq_ema", "lfq")) and logged["validation/codes_used"][-1] > 0


@pytest.mark.parametrize("name", LEVELS)
@torch.no_grad()
def test_padded_and_chunked_decoding_equal_single_rows(runs, clips, name):
    model = HumanVQVAE.from_pretrained(runs(name))
    lengths = torch.tensor([40, 17, 8])
    padded = torch.full((3, 40, 272), 1e3)
    for row, length in enumerate(lengths):
        padded[row, :length] = model.normalize(clips[row][:length])
    tokens = model.encode(padded, lengths)
    decoded, reconstruction = model.decode(tokens, lengths // 4), model(padded, lengths).reconstruction
    for row, length in enumerate(lengths):
        alone = model.encode(padded[row : row + 1, :length])[0]
        assert torch.equal(tokens[row, : len(alone)], alone)
        frames = model.decode(alone[None])[0]
        for batched in (decoded, reconstruction):
            torch.testing.assert_close(batched[row, : len(frames)], frames, atol=1e-5, rtol=1e-4)
    state, parts = None, []
    for part in tokens[:1].split([3, 1, 6], dim=1):
        frames, state = model.decode_chunk(part, state)
        parts.append(frames)
    torch.testing.assert_close(torch.cat(parts, dim=1), model.decode(tokens[:1]), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("name", ["vq_ema", "lfq"])
def test_a_generator_trains_on_the_tokens(runs, data_folder, tmp_path, name):
    run_in_process("train_t2m.py", *T2M, "--data", data_folder, "--tokenizer", runs(name), "--out", tmp_path,
                   "--steps", 3, "--validate_every", 3)  # fmt: skip
    motion = TextToMotion.from_pretrained(tmp_path).generate(["a person walks"], seeds=[0], seconds=[1.0])[0]
    assert motion.tokens.max() < CODES[name] and torch.isfinite(torch.as_tensor(motion.joints)).all()


def test_resuming_a_killed_vq_ema_run_restores_the_codebook(runs, data_folder, tmp_path):
    whole = runs("vq_ema")
    process = start_script(*command("vq_ema", data_folder, tmp_path, "--validate_every", 4))
    wait_for_state(process, tmp_path)
    process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL and 0 < step_of(tmp_path) < STEPS
    run_in_process(*command("vq_ema", data_folder, tmp_path, "--resume", "true"))
    expected, resumed = load_file(whole / WEIGHTS), load_file(tmp_path / WEIGHTS)
    assert any("embed" in name for name in expected) and expected.keys() == resumed.keys()
    for name in expected:
        assert torch.equal(expected[name], resumed[name]), name


def test_the_saved_codebook_equals_the_trained_one(runs):
    saved, state = load_file(runs("vq_ema") / WEIGHTS), tensors_of(states(runs("vq_ema") / "states")[0])
    buffers = [name for name in saved if "_codebook" in name]
    assert len(buffers) == 4 and saved["quantizer.library._codebook.initted"]
    assert all(torch.equal(saved[name], state[f"model.{name}"]) for name in buffers)


def test_configs_without_a_quantizer_load_as_fsq(tmp_path):
    shipped = ROOT / "checkpoints" / "demo" / "tokenizer"
    config = json.loads((shipped / CONFIG).read_text())
    del config["quantizer"]
    (tmp_path / CONFIG).write_text(json.dumps(config))
    shutil.copyfile(shipped / WEIGHTS, tmp_path / WEIGHTS)
    assert HumanVQVAE.from_pretrained(tmp_path).config.quantizer == "fsq"


# --- The modules


@pytest.mark.parametrize("name", LEVELS)
def test_padding_has_no_influence_on_training(name):
    whole, mask = vectors(20), torch.arange(20) < torch.tensor([20, 9, 0])[:, None]
    trained, results = [], []
    for padding in (0.0, 1e3):
        module = quantizer(name).train()
        z = whole.where(mask[..., None], padding).requires_grad_()
        for _ in range(3):
            result = module(z, mask)
        ((result.out * mask[..., None]).square().sum() + result.loss).backward()
        assert z.grad[mask].any() and not z.grad[~mask].any()
        values = (result.loss, result.perplexity, result.active_fraction, z.grad)
        results.append([result.out[mask], result.indices[mask], *values])
        trained.append(module.state_dict())
    torch.testing.assert_close(*results, atol=0, rtol=0)
    torch.testing.assert_close(*trained, atol=0, rtol=0)
    assert result.active_fraction * CODES[name] <= 29 + 1e-3


@pytest.mark.parametrize("name", LEVELS)
def test_autocast_and_encoding_leave_tokens_and_codebook_unchanged(name):
    module, z = quantizer(name).train(), vectors(20)
    module(z)
    before = copy.deepcopy(module.state_dict())
    tokens = module.encode(z)
    torch.testing.assert_close(module.state_dict(), before, atol=0, rtol=0)
    module.eval()
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        out, indices, *_ = module(z)
    assert torch.equal(indices, tokens) or name == "fsq"  # its projection runs in bf16
    torch.testing.assert_close(module.dequantize(indices), out, atol=2e-2 if name == "fsq" else 1e-6, rtol=1e-2)
    assert torch.equal(quantizer(name)(z).indices, quantizer(name)(z).indices)


@pytest.mark.parametrize("name", LEVELS)
def test_gradients_reach_the_encoder(name):
    model = HumanVQVAE(VQVAEConfig(quantizer=name, levels=LEVELS[name], code_dim=8, width=8, depth=1)).train()
    result = model(torch.randn(2, 32, 272))
    (result.reconstruction.square().mean() + result.loss).backward()
    assert all(parameter.grad.any() for parameter in model.encoder.parameters() if parameter.ndim > 1)


@pytest.mark.parametrize("name", LEVELS)
def test_weights_load_into_a_tokenizer_on_the_meta_device(tmp_path, name):
    config = VQVAEConfig(quantizer=name, levels=LEVELS[name], code_dim=8, width=8, depth=1)
    weights = HumanVQVAE(config).state_dict()
    with torch.device("meta"):
        empty = HumanVQVAE(config)
    empty.load_state_dict(weights, assign=True)
    empty.save_pretrained(tmp_path)
    torch.testing.assert_close(HumanVQVAE.from_pretrained(tmp_path).state_dict(), weights, atol=0, rtol=0)


def test_residual_tokens_hold_the_digits_of_the_library():
    module, z = quantizer("rfsq").eval(), vectors(50)
    digits = module.library(z)[1]  # (3, 50, 2)
    assert torch.equal(module(z).indices, digits[..., 0] + 30 * digits[..., 1])
    torch.testing.assert_close(module.dequantize(module(z).indices), module.library.get_output_from_indices(digits))


def test_unused_codes_are_replaced():
    module = quantizer("vq_ema").train()
    far = vectors(40) + 50
    module(vectors(40))
    for _ in range(12):
        module(far)
    nearest = torch.cdist(far.flatten(0, 1), module.library.codebook).min(dim=1).values
    assert nearest.max() < 0.1


def train_in_a_process(rank: int, processes: int, folder) -> None:
    """Train on this process's part of the vectors (all, if it is the only one); save codebook and gradient."""
    if processes > 1:
        distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=processes)
    codebook = quantizer("vq_ema").train()
    codebook.library.load_state_dict(torch.load(folder / "start.pt", weights_only=True))
    for step in range(3):
        codebook(vectors(40)[:, rank::processes] * (1 + step))
    z = (0.01 * vectors(40)).requires_grad_()  # near 0 no code has a probability that is cut off
    quantizer("lfq").train()(z).loss.backward()
    torch.save([codebook.library.codebook, z.grad], folder / f"{processes}-{rank}.pt")
    if processes > 1:
        distributed.destroy_process_group()


def test_two_processes_train_like_one(tmp_path):
    start = quantizer("vq_ema").train()
    start(vectors(400))
    torch.save(start.library.state_dict(), tmp_path / "start.pt")
    train_in_a_process(0, 1, tmp_path)
    multiprocessing.spawn(train_in_a_process, (2, tmp_path), nprocs=2)
    alone, first, second = (torch.load(tmp_path / f"{name}.pt", weights_only=True) for name in ("1-0", "2-0", "2-1"))
    assert torch.equal(first[0], second[0]) and not torch.equal(alone[0], start.library.codebook)
    torch.testing.assert_close(first, alone, atol=1e-5, rtol=1e-5)


# --- Errors


@pytest.mark.parametrize(
    "arguments, words",
    [
        (("--model.quantizer", "vq"), "--model.quantizer vq is unknown; use fsq, vq_ema, lfq or rfsq"),
        (("--model.quantizer", "lfq"), "levels are [8, 5, 5, 5] and quantizer lfq has two per dimension"),
        (("--model.quantizer", "lfq", "--model.levels", [2] * 19), "make 524288 codes and lfq can have 262144"),
        (("--model.quantizer", "vq_ema", "--model.levels", [1]), "levels are [1]"),
        (("--model.quantizer", "rfsq", "--model.residuals", 7), "make more codes than a token can name"),
        (("--model.quantizer", "rfsq", "--model.levels", [64] * 4), "make 16777216 codes and rfsq can have 262144"),
        (
            ("--model.quantizer", "rfsq", "--model.residuals", 0),
            "--model.residuals is 0; give a whole number of at least 1",
        ),
    ],
)
def test_invalid_quantizers_are_refused(refused, data_folder, tmp_path, arguments, words):
    assert words in refused("train_vq.py", *VQ, "--data", data_folder, "--out", tmp_path / "run", *arguments)
    assert not (tmp_path / "run" / WEIGHTS).exists()


def test_a_codebook_too_large_for_a_generator_is_refused(refused, data_folder, tmp_path):
    config = VQVAEConfig(quantizer="rfsq", levels=[8, 5, 5, 5], residuals=3, code_dim=8, width=8, depth=1)
    HumanVQVAE(config).save_pretrained(tmp_path / "vq")
    error = refused(
        "train_t2m.py", *T2M, "--data", data_folder, "--tokenizer", tmp_path / "vq", "--out", tmp_path / "t"
    )
    assert "the tokenizer has 1000000000 codes and a generator can have 1048576" in error


def test_missing_codebooks_and_indices_outside_them_are_refused():
    with pytest.raises(InputError, match="no codebook yet"):
        quantizer("vq_ema").eval()(vectors(2))
    for name in ("vq_ema", "lfq", "rfsq"):
        with pytest.raises(InputError, match=f"index {CODES[name]} is outside the codebook"):
            quantizer(name).dequantize(torch.tensor([[0, CODES[name]]]))
        with pytest.raises(InputError, match="give integers"):
            quantizer(name).dequantize(torch.zeros(1, 2))


# --- The benchmark


def test_the_compared_codebooks_have_similar_sizes(tmp_path):
    recipe = benchmarks.quantizers.Options(data=tmp_path, work=tmp_path).recipe
    options, _ = parse_options(TokenizerOptions, "", [f"--config={recipe}", "--data=a", "--out=b"])
    for compared in benchmarks.quantizers.LEVELS.values():
        sizes = [
            HumanVQVAE(replace(options.model, quantizer=name, levels=levels)).codebook_size
            for name, levels in compared.items()
        ]
        assert len(sizes) == 4 and max(sizes) < 1.2 * min(sizes)


def test_the_benchmark_prints_a_row_per_quantizer(data_folder, tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(benchmarks.quantizers, "LEVELS", {"30": {"fsq": [6, 5], "rfsq": [3, 2]}})
    (tmp_path / "recipe.yaml").write_text("model: {width: 16, code_dim: 16, depth: 1}\nwindow: 32\nsteps: 20\n")
    options, _ = parse_options(
        benchmarks.quantizers.Options, "", [f"--data={data_folder}", f"--work={tmp_path}",
                                            f"--recipe={tmp_path / 'recipe.yaml'}"],
    )  # fmt: skip
    benchmarks.quantizers.main(options)
    rows = [line.split(" | ") for line in capfd.readouterr().out.splitlines()][2:]
    assert [(row[0], row[2]) for row in rows] == [("| fsq", "30"), ("| rfsq", "36")]
    assert all(row[5].endswith(" mm") and float(row[7].split()[0]) > 0 for row in rows) and rows[0][7] == "1.00 |"
