"""Released models in their true form: folders and files with the names, precisions and objects of the release."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from models import text_encoder
from models.llama import LLaMAHF
from models.motion_vqvae import HumanVQVAE
from models.motionmillion import Options, convert
from models.motionmillion_release import SETTINGS, find_release
from tests import fake_hub
from tests.conftest import golden, golden_eval, one_dimensional_tokenizer
from utils.errors import InputError

HUB_MODEL = golden_eval("layouts/motionmillion_hub_model")
DRIVE_FILE = next(golden_eval("layouts/motionmillion_drive_model").glob("motionmillion_*_all.pth"))
SIZES = json.loads(golden("llama_ckpt.json").read_text())


@pytest.fixture
def convert_generator(monkeypatch):
    """Convert a source whose generator has the number of heads and the text width of the golden one."""
    monkeypatch.setitem(text_encoder.WIDTHS, "fixture", SIZES["clip_dim"])

    def run(source: Path, out: Path, **options) -> LLaMAHF:
        shape = {"levels": [SIZES["nb_code"]], "n_head": SIZES["n_head"], "text_encoder": "fixture"}
        convert(Options(source=str(source), out=out, **shape, **options))
        return LLaMAHF.from_pretrained(out)

    return run


@pytest.fixture
def hub_folder(tmp_path):
    """A copy of the released folder whose tokenizer has the number of codes of the generator."""
    folder = tmp_path / "released"
    shutil.copytree(HUB_MODEL, folder)
    weights = torch.load(one_dimensional_tokenizer(tmp_path / "tokenizer.pth"), weights_only=True)["net"]
    save_file({name: value.half().contiguous() for name, value in weights.items()}, folder / "fsq.safetensors")
    return folder


def test_released_tokenizer_gives_the_golden_tokens_and_motion(tmp_path):
    folder = tmp_path / "released"
    shutil.copytree(HUB_MODEL, folder, ignore=shutil.ignore_patterns("ar.safetensors"))
    convert(Options(source=str(folder), out=tmp_path / "out"))
    model, io = HumanVQVAE.from_pretrained(tmp_path / "out"), np.load(golden("tokenizer_io.npz"))
    assert model.config.levels == json.loads(golden("tokenizer_ckpt.json").read_text())["levels"]
    settings = json.loads((HUB_MODEL / SETTINGS).read_text())["config"]["vqvae"]
    assert (model.config.activation, model.config.dilation_growth) == (
        settings["activation"], settings["dilation_growth_rate"])  # fmt: skip
    for name in ("mean", "std"):
        assert np.array_equal(getattr(model, name).numpy(), np.load(HUB_MODEL / f"{name}.npy").astype(np.float32))
    tokens = torch.from_numpy(io["indices"])
    with torch.inference_mode():
        decoded = model.decode(tokens).numpy()
        same = (model.encode(torch.from_numpy(io["motion"])) == tokens).float().mean()
    half = np.finfo(np.float16).eps
    np.testing.assert_allclose(decoded, io["recon"], atol=20 * half * np.abs(io["recon"]).max())
    assert same > 0.9  # a latent beside a rounding boundary may change its token


def test_released_generator_gives_the_golden_logits(hub_folder, tmp_path, convert_generator):
    model = convert_generator(hub_folder, tmp_path / "out")
    stored = load_file(HUB_MODEL / "ar.safetensors")
    exact = torch.load(golden("llama_ckpt.pth"), weights_only=True)["trans"]
    for name, value in model.state_dict().items():
        assert torch.equal(value, stored[name]) and torch.equal(value, exact[name].to(value.dtype)), name
    io, model = np.load(golden("llama_io.npz")), model.float()
    for case in SIZES["greedy_cases"]:
        features = torch.from_numpy(io[f"greedy_{case}_feat"])[None]  # (1, L, D)
        expected, tokens = io[f"greedy_{case}_step_logits"], torch.from_numpy(io[f"greedy_{case}_tokens"])
        with torch.inference_mode():
            logits = model(
                features, torch.ones(features.shape[:2], dtype=torch.bool), tokens[None, : len(expected) - 1]
            )
        bf16 = torch.finfo(torch.bfloat16).eps
        np.testing.assert_allclose(logits[0].numpy(), expected, atol=8 * bf16 * np.abs(expected).max())


def test_released_file_with_an_optimizer_is_converted(tmp_path, convert_generator):
    """The tokenizer beside it and statistics in a folder beside both are found."""
    folder = tmp_path / "models"
    folder.mkdir()
    shutil.copy(DRIVE_FILE, folder)
    one_dimensional_tokenizer(folder / "fsq_net_6000000.pth")
    (tmp_path / "mean_std").mkdir()
    for name in ("mean", "std"):
        shutil.copy(HUB_MODEL / f"{name}.npy", tmp_path / "mean_std" / f"{name.capitalize()}.npy")
    expected = torch.load(golden("llama_ckpt.pth"), weights_only=True)["trans"]
    for number, source in enumerate((folder, folder / DRIVE_FILE.name)):
        model = convert_generator(source, tmp_path / str(number))
        for name, value in model.state_dict().items():
            assert torch.equal(value, expected[name].bfloat16()), name
    tokenizer = str(folder / "fsq_net_6000000.pth")
    convert(Options(source=tokenizer, out=tmp_path / "tokenizer", levels=[SIZES["nb_code"]]))
    assert HumanVQVAE.from_pretrained(tmp_path / "tokenizer").codebook_size == SIZES["nb_code"]


def test_hub_ids_download_no_pickles(hub_folder, tmp_path, convert_generator, monkeypatch):
    (hub_folder / "model.pth").write_bytes(b"pickle")
    with fake_hub.running() as hub:
        fake_hub.use(hub.address, tmp_path / "cache", monkeypatch)
        hub.add_folder("user/released", hub_folder)
        assert convert_generator("user/released", tmp_path / "out").config.codebook_size == SIZES["nb_code"]
        assert sorted(hub.downloads) == sorted(
            path.name for path in HUB_MODEL.iterdir() if path.name != "model_index.json"
        )


def test_incomplete_releases_are_refused(hub_folder, tmp_path, refused):
    def error(source, *options) -> str:
        return refused("models.motionmillion", "--source", source, "--out", tmp_path / "out", *options)

    assert "there is no model folder none" in error("none")
    unknown = error(hub_folder, "--levels", f"[{SIZES['nb_code']}]")
    assert "no known model size has" in unknown or "not those of any encoder" in unknown  # in this order
    (hub_folder / "std.npy").unlink()
    assert f"the file of the mean is not found beside {hub_folder}; give it as --mean FILE" in error(hub_folder)
    empty = tmp_path / "empty"
    empty.mkdir()
    assert "is no released model: it holds neither ar.safetensors nor fsq.safetensors nor .pth" in error(empty)
    shutil.copy(DRIVE_FILE, empty / "a_3B_all.pth")
    assert "the file of the tokenizer is not found beside" in error(empty)
    shutil.copy(DRIVE_FILE, empty / "a_7B_all.pth")
    assert "several generators (a_3B_all.pth, a_7B_all.pth); give one of the files as --source" in error(empty)
    assert find_release(empty / "a_7B_all.pth").generator == empty / "a_7B_all.pth"
    torch.save({"other": 5}, empty / "other.pth")
    assert "holds neither a released generator nor a tokenizer" in error(empty / "other.pth")
    with pytest.raises(InputError, match="the file of the tokenizer is not given"):
        convert(Options(out=tmp_path / "out"))
    assert not (tmp_path / "out").exists() and not list(tmp_path.glob(".out*"))


def test_unreadable_neighbours_of_a_given_file_do_not_matter(tmp_path):
    file = Path(shutil.copy(DRIVE_FILE, tmp_path))
    (tmp_path / "other.pth").write_bytes(b"no weights")
    assert find_release(file).generator == file
    with pytest.raises(InputError, match=r"other\.pth"):
        find_release(tmp_path)
