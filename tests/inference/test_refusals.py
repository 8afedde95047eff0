"""Options, files and checkpoints that inference_batch.py refuses with one sentence."""

import json
import shutil
from pathlib import Path

import pytest

from models.llama import LLaMAHF
from tests.inference.helpers import (
    assert_refused,
    backdate,
    changed_files,
    npz_files,
    tiny_generator,
    tiny_tokenizer,
    truncate,
)
from utils.prompts import MAX_PROMPT


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), ["--prompts", "--prompt"]),
        (("--prompt", "walk", "--prompts", "prompts.txt"), ["either"]),
        (("--prompts", "missing.txt"), ["missing.txt"]),
        (("--prompt", " "), ["empty"]),
        (("--prompt", "x" * 10_000), ["10000 characters", str(MAX_PROMPT)]),
        (("--prompt", "walk", "--save", "npz,avi"), ["avi", "mp4"]),
        (("--prompt", "walk", "--view", "inside"), ["inside", "skeleton"]),
        (("--prompt", "walk", "--samples", "0"), ["samples"]),
        (("--prompt", "walk", "--samples", str(10**9)), ["--samples is 1000000000", "from 1 to 100000"]),
        (("--prompt", "walk", "--batch-size", "0"), ["--batch-size is 0"]),
        (("--prompt", "walk", "--seed", "-1"), ["seed"]),
        (("--prompt", "walk", "--seed", str(2**63)), ["seed"]),
        (("--prompt", "walk", "--size", "10"), ["size"]),
        (("--prompt", "walk", "--device-memory", "-1"), ["--device-memory", "above 0"]),
        (
            ("--prompt", "walk", "--device-memory", "0.00001"),
            ["error: the device memory given is 1e-05 GB", "give more"],
        ),
        (("--prompt", "walk", "--temperature", "-1"), ["--temperature is -1"]),
        (("--prompt", "walk", "--temperature", "1e-300"), ["temperature is 1e-300"]),
        (("--prompt", "walk", "--guidance", "1e308"), ["guidance is 1e+308"]),
        (("--prompt", "walk", "--top-p", "0"), ["--top-p is 0"]),
        (("--prompt", "walk", "--top-p", "5e-324"), ["top_p is 5e-324"]),
        (("--prompt", "walk", "--seconds", "1000"), ["1000", "2.1"]),
        (("--prompt", "walk", "--seconds", "0"), ["--seconds", "above 0"]),
    ],
)
def test_invalid_options_are_refused(run, tmp_path, arguments, words):
    assert_refused(run(*arguments), *words)
    assert not (tmp_path / "out").exists() or list((tmp_path / "out").iterdir()) == []


def test_unwritable_output_folder_is_refused(run, tmp_path):
    (tmp_path / "file").write_text("mine")
    assert_refused(run("--prompt", "walk", out="file"), "file", "writable")
    assert_refused(run("--prompt", "walk", out="file/inside"), "the folder file/inside:", "writable")
    assert (tmp_path / "file").read_text() == "mine"


def test_unusable_body_is_refused_before_generation(run, tmp_path):
    (tmp_path / "body.npz").write_text("no SMPL-X")
    for save in ("mp4", "glb", "html"):
        result = run("--prompt", "walk", "--save", save, "--smplx-path", "body.npz")
        assert_refused(result, "body.npz is no readable SMPL-X model", "SMPLX_NEUTRAL.npz")
        assert "pickle" not in result[2]
    assert_refused(run("--prompt", "walk", "--body-model", "smplx"), "smplx needs the path of its model file")
    assert_refused(run("--prompt", "walk", "--smplx-path", "missing"), "missing does not exist")
    assert_refused(run("--prompt", "walk", "--body-model", "ghost"), "ghost is unknown; use mannequin or smplx")
    both = ("--body-model", "mannequin", "--smplx-path", "body.npz")
    assert_refused(run("--prompt", "walk", *both), "--body-model is mannequin", "leave one of them out")
    assert list((tmp_path / "out").iterdir()) == []
    assert run("--prompt", "walk", "--save", "npz", "--smplx-path", "body.npz")[0] == 0  # no body is drawn


def test_folders_in_place_of_result_files_are_reported(run, tmp_path):
    (tmp_path / "out" / "results.json").mkdir(parents=True)
    assert_refused(run("--prompt", "walk"), "results.json", "move it away")
    assert npz_files(tmp_path / "out") == []  # refused before generation
    (tmp_path / "out" / "results.json").rmdir()
    (tmp_path / "out" / "jump_seed0.npz").mkdir()
    assert_refused(run("--prompt", "jump"), "jump_seed0.npz")


def truncate_weights(folder: Path) -> None:
    truncate(folder / "model.safetensors")


def change_config(folder: Path, **changes) -> None:
    config = json.loads((folder / "config.json").read_text())
    config.get("config", config).update(changes)
    (folder / "config.json").write_text(json.dumps(config))


BAD_CHECKPOINTS = {
    "missing": (shutil.rmtree, "tiny"),
    "no weights": (lambda folder: (folder / "model.safetensors").unlink(), "model.safetensors"),
    "no config": (lambda folder: (folder / "config.json").unlink(), "config.json"),
    "truncated config": (lambda folder: truncate(folder / "config.json"), "config.json"),
    "truncated weights": (truncate_weights, "model.safetensors"),
    "empty weights": (lambda folder: (folder / "model.safetensors").write_bytes(b""), "model.safetensors"),
    "no tokenizer": (lambda folder: shutil.rmtree(folder / "tokenizer"), "tiny/tokenizer"),
    "truncated tokenizer": (lambda folder: truncate_weights(folder / "tokenizer"), "tokenizer/model.safetensors"),
    "generator as tokenizer": (
        lambda folder: shutil.copy(folder / "model.safetensors", folder / "tokenizer"),
        "tokenizer/model.safetensors",
    ),
    "other codebook": (
        lambda folder: tiny_tokenizer([8, 5, 5]).save_pretrained(folder / "tokenizer"),
        "tiny cannot be used: the generator has 125 codes and the tokenizer has 200; put",
    ),
    "unknown encoder": (
        lambda folder: change_config(folder, text_encoder="oracle"),
        "tiny cannot be used: unknown text encoder 'oracle'; choose one of",
    ),
    "other text width": (
        lambda folder: tiny_generator(tiny_tokenizer([5, 5, 5]), text_dim=512).save_pretrained(folder),
        "tiny cannot be used: the generator was trained with minilm features of width 512",
    ),
    "other size": (lambda folder: change_config(folder, n_embd=64), "config.json"),
}


@pytest.mark.parametrize(("damage", "words"), BAD_CHECKPOINTS.values(), ids=BAD_CHECKPOINTS)
def test_unusable_checkpoint_is_refused(run, checkpoint, tmp_path, damage, words):
    shutil.copytree(checkpoint, tmp_path / "tiny")
    run("--prompt", "walk", checkpoint=Path("tiny"))
    damage(tmp_path / "tiny")
    before = backdate(tmp_path / "out")
    assert_refused(run("--prompt", "jump", checkpoint=Path("tiny")), words)
    assert changed_files(tmp_path / "out", before) == set() and len(before) == 2  # complete motions are kept


def test_weights_with_nan_are_refused(run, checkpoint, tmp_path):
    shutil.copytree(checkpoint, tmp_path / "tiny")
    generator = LLaMAHF.from_pretrained(tmp_path / "tiny")
    generator.lm_head.weight.data[0, 0] = float("nan")
    generator.save_pretrained(tmp_path / "tiny")
    assert_refused(run("--prompt", "walk", checkpoint=Path("tiny")), "not finite")
