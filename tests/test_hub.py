"""Models on the Hugging Face hub, here a fake of it: download, cache, offline use, publishing, and every refusal."""

import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import yaml

from models import pipeline
from models.checkpoints import KNOWN
from models.known import Action, Known
from models.llama import LLaMAHF
from models.llama_config import SIZES, LLaMAConfig
from models.model_card import CARD, CardOptions
from models.motion_vqvae import HumanVQVAE, VQVAEConfig
from models.pipeline import TextToMotion
from models.publish import publish
from tests import fake_hub
from tests.conftest import ROOT, golden_eval
from utils.checkpoint import CONFIG, WEIGHTS, fingerprint
from utils.errors import InputError
from utils.hub import HubId, parse_hub_id

FILES = {CONFIG, WEIGHTS, KNOWN, f"tokenizer/{CONFIG}", f"tokenizer/{WEIGHTS}"}


@pytest.fixture
def checkpoint(tmp_path):
    """A run folder of debug size, with files beside the model that do not belong on the hub."""
    folder = tmp_path / "runs" / "walker"
    HumanVQVAE(VQVAEConfig(levels=[4, 4], code_dim=4, width=4, down_t=1, depth=1)).save_pretrained(folder / "tokenizer")
    shape = {"codebook_size": 16, "text_dim": 384, "text_encoder": "minilm", "text_length": 9, "max_tokens": 15}
    config = LLaMAConfig(**shape, tokenizer=fingerprint(folder / "tokenizer"), **SIZES["debug"])
    LLaMAHF(config).save_pretrained(folder)
    Known(["a person walks"], torch.ones(1, 384), [Action("walk", "a person walks")]).save(folder)
    (folder / "states" / "step-00000005").mkdir(parents=True)
    (folder / "states" / "step-00000005" / "run.json").write_text('{"best": 1.25, "step": 5}')
    (folder / "states" / "step-00000005" / "shard.safetensors").write_bytes(b"state")
    (folder / "old.pth").write_bytes(b"pickle")
    training = {"data": "/home/someone/data/mine", "tokenizer": "runs/vq", "steps": 5, "init": "user/base@v1"}
    (folder / "train.yaml").write_text(yaml.safe_dump(training))
    return folder


@pytest.fixture
def hub(tmp_path, monkeypatch):
    with fake_hub.running() as hub:
        fake_hub.use(hub.address, tmp_path / "cache", monkeypatch)
        yield hub


@pytest.fixture(autouse=True)
def encoder(monkeypatch):
    """A text encoder without weights in place of MiniLM."""

    def encode(texts):
        return torch.ones(len(texts), 2, 384), torch.ones(len(texts), 2, dtype=torch.bool)

    stub = SimpleNamespace(name="minilm", dim=384, max_length=9, encode=encode)
    monkeypatch.setattr(pipeline, "load_text_encoder", lambda *arguments: stub)


def error_of(source: str, **options) -> str:
    with pytest.raises(InputError) as caught:
        TextToMotion.from_pretrained(source, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    "source, expected",
    [
        ("user/name", HubId("user/name")),
        ("user/name@v1.0", HubId("user/name", "v1.0")),
        ("user/name@refs/pr/1", HubId("user/name", "refs/pr/1")),
        ("name", None),
        ("a/b/c", None),
        ("user/name@", None),
        ("user/na me", None),
        ("../name", None),
        ("/name", None),
        ("user/", None),
        ("runs/mistyped", None),
        ("runs/walker", None),
        ("x" * 5000, None),
        ("user/" + "x" * 5000, None),
    ],
)
def test_hub_ids_have_one_slash_and_are_no_path(source, expected, tmp_path, monkeypatch):
    (tmp_path / "runs" / "walker").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert parse_hub_id(source) == expected


def test_only_the_files_of_the_model_are_downloaded_once(hub, checkpoint):
    hub.add_folder("user/walker", checkpoint)
    model = TextToMotion.from_pretrained("user/walker")
    assert sorted(hub.downloads) == sorted(FILES)
    local = TextToMotion.from_pretrained(checkpoint)
    assert model.checkpoint_id == local.checkpoint_id == f"walker-{fingerprint(checkpoint)}"
    prompt = (["a person walks"], [0])
    assert model.generate(*prompt)[0].tokens.tolist() == local.generate(*prompt)[0].tokens.tolist()
    TextToMotion.from_pretrained("user/walker")
    assert len(hub.downloads) == len(FILES)


def test_revisions(hub, checkpoint):
    repository = hub.add_folder("user/walker", checkpoint)
    first = repository.branches["main"]
    changed = LLaMAHF.from_pretrained(checkpoint)
    changed.lm_head.weight.data.zero_()
    changed.save_pretrained(checkpoint)
    hub.add_folder("user/walker", checkpoint, branch="v2")
    newest = fingerprint(checkpoint)
    for source, revision in (("user/walker@v2", None), ("user/walker", "v2"), ("user/walker@main", "v2")):
        assert TextToMotion.from_pretrained(source, revision=revision).checkpoint_id == f"walker-{newest}"
    assert TextToMotion.from_pretrained(f"user/walker@{first}").checkpoint_id != f"walker-{newest}"
    assert LLaMAHF.from_pretrained("user/walker", revision="v2").lm_head.weight.abs().max() == 0
    assert "user/walker has no revision v3" in error_of("user/walker@v3")
    assert "is a folder, which has no revision v2" in error_of(str(checkpoint), revision="v2")


def test_the_cache_serves_without_the_hub(hub, checkpoint, tmp_path, monkeypatch):
    hub.add_folder("user/walker", checkpoint)
    before = TextToMotion.from_pretrained("user/walker").checkpoint_id
    fake_hub.use(hub.address, tmp_path / "cache", monkeypatch, offline=True)
    assert TextToMotion.from_pretrained("user/walker").checkpoint_id == before
    assert "HF_HUB_OFFLINE forbids to download user/other" in error_of("user/other")
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        fake_hub.use(f"http://127.0.0.1:{unused.getsockname()[1]}", tmp_path / "cache", monkeypatch)
    assert TextToMotion.from_pretrained("user/walker").checkpoint_id == before
    message = error_of("user/other")
    assert (
        message.startswith("there is no checkpoint folder user/other, and the hub") and "cannot be reached" in message
    )


def test_published_model_comes_back_unchanged(hub, checkpoint, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_token")
    (tmp_path / "measures.json").write_text(json.dumps({"test": {"FID": 0.5, "R-precision": [1]}, "note": "x"}))
    card = CardOptions(license="cc-by-nc-4.0", datasets=["Mine"], measures=tmp_path / "measures.json")
    model = TextToMotion.from_pretrained(checkpoint)
    address = model.push_to_hub("user/walker", card, private=True)
    repository = hub.repositories["user/walker"]
    assert address.endswith(repository.branches["main"]) and repository.private
    files = repository.commits[repository.branches["main"]]
    assert set(files) == FILES | {CARD, ".gitattributes"}
    assert all(files[name] == (checkpoint / name).read_bytes() for name in FILES)
    assert TextToMotion.from_pretrained("user/walker").checkpoint_id == model.checkpoint_id

    header, text = files[CARD].decode().removeprefix("---\n").split("---\n", 1)
    assert yaml.safe_load(header) == {
        "license": "cc-by-nc-4.0",
        "library_name": "pytorch",
        "pipeline_tag": "text-to-3d",
        "tags": ["text-to-motion", "motion-generation"],
        "datasets": ["Mine"],
        "base_model": "user/base",
        "metrics": ["FID", "best validation loss"],
    }
    assert "It knows 1 action: walk." in text
    for words in ("fine-tuned from user/base@v1", "data folder: mine", "| test / FID | 0.5 |", "| 1.25 |", "steps: 5"):
        assert words in text
    assert "someone" not in text and not (checkpoint / CARD).exists()


def test_publishing_to_a_branch_replaces_the_files_of_another_model(hub, checkpoint, tmp_path):
    stale = {"model.safetensors.index.json": b"{}", "model-00001-of-00002.safetensors": b"", "notes.txt": b"kept"}
    hub.repositories["user/walker"] = fake_hub.Repository()
    hub.repositories["user/walker"].commit("main", stale)
    (checkpoint / CARD).write_text("my own card")
    with pytest.raises(InputError, match="README.md is the model card; edit it"):
        publish(checkpoint, "user/walker@v2", CardOptions(license="mit"))
    TextToMotion.from_pretrained(checkpoint).push_to_hub("user/walker", revision="v2")
    repository = hub.repositories["user/walker"]
    assert repository.commits[repository.branches["main"]] == stale
    files = repository.commits[repository.branches["v2"]]
    assert set(files) == FILES | {CARD, "notes.txt"} and files[CARD] == b"my own card"


def test_tokenizers_are_published_and_loaded(hub, checkpoint):
    publish(checkpoint / "tokenizer", "user/tokenizer")
    assert HumanVQVAE.from_pretrained("user/tokenizer").codebook_size == 16
    HumanVQVAE.from_pretrained(checkpoint / "tokenizer").push_to_hub("user/again")
    assert HumanVQVAE.from_pretrained("user/again@main").codebook_size == 16


def test_saved_copy_is_the_checkpoint(checkpoint, tmp_path):
    model = TextToMotion.from_pretrained(checkpoint)
    model.save_pretrained(tmp_path / "copy")
    copied = {str(path.relative_to(tmp_path / "copy")) for path in (tmp_path / "copy").rglob("*") if path.is_file()}
    assert copied == FILES | {CARD}
    assert TextToMotion.from_pretrained(tmp_path / "copy").checkpoint_id == f"copy-{fingerprint(checkpoint)}"


def test_refusals_of_the_hub(hub, checkpoint, monkeypatch):
    repository = hub.add_folder("user/walker", checkpoint)
    assert "has no model user/none, or it is private" in error_of("user/none")
    repository.private = True
    assert "has no model user/walker, or it is private" in error_of("user/walker")
    monkeypatch.setenv("HF_TOKEN", "hf_token")
    assert TextToMotion.from_pretrained("user/walker").checkpoint_id
    for status in (401, 403):
        gated = hub.add_folder(f"user/gated{status}", checkpoint)
        gated.refusal = status, "GatedRepo"
        assert f"user/gated{status} is gated on the Hugging Face hub: accept" in error_of(f"user/gated{status}")
    gated.refusal = 403, "Forbidden"
    with pytest.raises(InputError, match="does not permit access to user/gated403"):
        publish(checkpoint, "user/gated403")
    with pytest.raises(InputError, match="is no id of a repository"):
        publish(checkpoint, "walker")


def test_repositories_without_a_usable_model(hub, checkpoint, tmp_path):
    hub.add_folder("user/released", golden_eval("layouts/motionmillion_hub_model"))
    message = error_of("user/released")
    assert "python -m models.motionmillion --source user/released --out checkpoints/released" in message
    assert hub.downloads == ["mm_config.json"]
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "pytorch_model.bin").write_bytes(b"pickle")
    hub.add_folder("user/other", tmp_path / "other")
    assert "user/other is no checkpoint of a text-to-motion model" in error_of("user/other")
    with pytest.raises(InputError, match="config.json and model.safetensors missing; give a model of this project"):
        HumanVQVAE.from_pretrained("user/other")
    weights = checkpoint / WEIGHTS
    weights.write_bytes(weights.read_bytes()[:-100])
    hub.add_folder("user/damaged", checkpoint)
    assert "its tensors need" in error_of("user/damaged")


def test_scripts_take_hub_ids(hub, checkpoint, run_here, refused, tmp_path):
    hub.add_folder("user/walker", checkpoint)
    arguments = ["--prompt", "a person walks", "--checkpoint", "user/walker@main", "--save", "npz", "--out-dir"]
    assert "1 motion " in run_here("inference_batch.py", *arguments, tmp_path / "out")
    for script, option in (("inference_batch.py", ("--prompt", "walk")), ("app.py", ("--port", 0))):
        assert "has no model user/none" in refused(script, *option, "--checkpoint", "user/none")
        assert "there is no checkpoint folder none" in refused(script, *option, "--checkpoint", "none")
    address = run_here("models.publish", "--model", checkpoint, "--repository", "user/new", "--license", "mit")
    assert address.startswith(f"{hub.address}/user/new/commit/")
    assert "model card" in refused("models.publish", "--model", ROOT / "checkpoints" / "demo", "--repository",
                                   "user/new", "--license", "mit")  # fmt: skip


def test_settings_of_the_hub_are_those_of_the_environment(hub, checkpoint, tmp_path):
    """In a process of its own, because huggingface_hub reads them at its import."""
    hub.add_folder("user/walker", checkpoint)
    code = "from utils.hub import find_folder; print(find_folder('user/walker', ['config.json'], 'model'))"
    settings = {"HF_ENDPOINT": hub.address, "HF_HUB_CACHE": str(tmp_path / "mine")}
    for offline in ("0", "1"):
        environment = os.environ | settings | {"HF_HUB_OFFLINE": offline}
        done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True)
        assert done.stdout.startswith(str(tmp_path / "mine")), done.stderr
    assert hub.downloads == [CONFIG]


def test_released_models_name_the_command_that_converts_them(tmp_path, refused):
    source = tmp_path / "released"
    shutil.copytree(golden_eval("layouts/motionmillion_drive_model"), source)
    for path in (source, *source.glob("*.pth")):
        message = refused("inference_batch.py", "--prompt", "walk", "--checkpoint", path)
        assert f"python -m models.motionmillion --source {path} --out checkpoints/{Path(path).stem}" in message
