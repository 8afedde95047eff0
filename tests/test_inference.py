"""Sentences to files: the pipeline, prompt files, and inference_batch.py as it is run from the command line.

The checkpoint is tiny and untrained, with weights large enough that its tokens depend on the text. Apart from the one
test of the real command line, videos are drawn in this process: starting a renderer process takes seconds.
"""

import json
import os
import shutil
import subprocess
import sys
import zipfile
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import imageio_ffmpeg
import numpy as np
import pytest
import torch

import inference_batch
import models.pipeline
import visualize.renderers
from formats.clip import read_clip
from models.generate import Sampling
from models.llama import LLaMAConfig, LLaMAHF
from models.motion_vqvae import HumanVQVAE, VQVAEConfig
from models.pipeline import TextToMotion
from models.text_encoder import load_text_encoder
from motion.features272 import encode, features_to_smplx85
from motion.foot_lock import lock_feet
from motion.resample import FPS
from motion.skeleton import JOINTS, REST_OFFSETS, forward_kinematics
from motion.smplx import smplx85_to_motion
from tests.conftest import ROOT
from utils.config import parse_options
from utils.errors import InputError, exit_on_input_error
from utils.prompts import MAX_PROMPT, expand, read_prompts, safe_name

REPOSITORY = Path(__file__).parents[1]
PROMPTS = ["a person walks forward", "someone waves the left hand", "a jump"]
HOSTILE = {
    "slashes": "../../../etc/passwd",
    "absolute": "/tmp/owned",
    "dots": "..",
    "backslashes": "..\\..\\windows\\system32",
    "newlines": "a person\nwalks\r\n\tand stops",
    "emoji": "🏃 👋🏽",
    "html": "<script>alert('&amp;')</script>",
    "right to left": "رجل يمشي \u202eforward",
    "line separator": "walks\u2028and turns",
    "shell": "$(touch owned); `rm -rf *` %s {0} | & > < \" '",
    "hidden": ".hidden",
    "long": "word " * 190,
}


class InProcess(ThreadPoolExecutor):
    """Stands in for the pool of renderer processes."""

    def __init__(self, workers, context, **settings):
        super().__init__(1)


@pytest.fixture(scope="module", autouse=True)
def one_text_encoder():
    """Load MiniLM once for the whole file."""
    encoder = load_text_encoder("minilm")
    with pytest.MonkeyPatch.context() as patch:
        load = lambda name, device, path: encoder if name == encoder.name else load_text_encoder(name, device, path)  # noqa: E731
        patch.setattr(models.pipeline, "load_text_encoder", load)
        yield encoder


def tiny_tokenizer(levels: list[int]) -> HumanVQVAE:
    """Untrained; its motions wobble about a person who stands upright."""
    torch.manual_seed(0)
    tokenizer = HumanVQVAE(VQVAEConfig(levels=levels, code_dim=16, width=16, down_t=2, depth=1))
    rotations = np.tile(np.eye(3, dtype=np.float32), (2, JOINTS, 1, 1))
    joints = forward_kinematics(rotations, np.float32([[0, 0.95, 0]] * 2))
    tokenizer.mean.copy_(torch.from_numpy(encode(rotations, joints)[0]))
    tokenizer.std.fill_(0.03)
    return tokenizer.eval()


def tiny_generator(tokenizer: HumanVQVAE, **changes) -> LLaMAHF:
    torch.manual_seed(1)
    config = {
        "codebook_size": tokenizer.codebook_size,
        "text_dim": 384,
        "text_encoder": "minilm",
        "text_length": 64,
        "max_tokens": 16,
        "text_dropout": 0.1,
        "n_layer": 2,
        "n_head": 2,
        "n_embd": 32,
    } | changes
    generator = LLaMAHF(LLaMAConfig(**config))
    with torch.no_grad():
        generator.lm_head.weight *= 30
        generator.llama_proj.weight *= 30
    return generator.eval()


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Path:
    """A text-to-motion run folder; tests that change it work on a copy."""
    folder = tmp_path_factory.mktemp("run") / "tiny"
    tokenizer = tiny_tokenizer([5, 5, 5])
    tiny_generator(tokenizer).save_pretrained(folder)
    tokenizer.save_pretrained(folder / "tokenizer")
    return folder


@pytest.fixture(scope="module")
def model(checkpoint) -> TextToMotion:
    return TextToMotion.from_pretrained(checkpoint)


@pytest.fixture
def run(checkpoint, tmp_path, monkeypatch, capsys):
    """Run inference_batch.py's main part with arguments: (exit status, output, errors)."""
    monkeypatch.setattr(visualize.renderers, "ProcessPoolExecutor", InProcess)
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str | Path, out: str = "out", checkpoint: Path = checkpoint) -> tuple[int, str, str]:
        words = [str(word) for word in arguments]
        if "--save" not in words:
            words += ["--save", "npz"]
        words += ["--checkpoint", str(checkpoint), "--out-dir", out]
        capsys.readouterr()
        status = 0
        try:
            with exit_on_input_error():
                inference_batch.main(parse_options(inference_batch.Options, "", words)[0])
        except SystemExit as exit:
            status = exit.code
        return status, *capsys.readouterr()

    return run


@pytest.fixture
def prompt_file(tmp_path) -> Path:
    file = tmp_path / "prompts.txt"
    file.write_text("\n".join(PROMPTS) + "\n")
    return file


def assert_refused(result: tuple[int, str, str], *words: str) -> None:
    """Exit status 2 and one line that begins with error: and holds the words."""
    status, _, errors = result
    assert status == 2
    lines = errors.strip().splitlines()
    assert len(lines) == 1 and lines[0].startswith("error: "), errors
    for word in words:
        assert str(word) in lines[0]


def results_in(folder: Path) -> list[dict]:
    return json.loads((folder / "results.json").read_text(encoding="utf-8"))


def load(path: Path) -> dict[str, np.ndarray]:
    with np.load(path, allow_pickle=False) as saved:
        return dict(saved)


def npz_files(folder: Path) -> list[Path]:
    return sorted(file for file in folder.iterdir() if file.suffix == ".npz" and not file.name.startswith("."))


def frames_of(path: Path) -> int:
    """Frames that can be decoded; a broken file raises."""
    reader = imageio_ffmpeg.read_frames(str(path))
    size = next(reader)["size"]
    return sum(len(frame) == size[0] * size[1] * 3 for frame in reader)


def remember(folder: Path) -> dict[str, int]:
    """When each file was written; all are made ten seconds older first, so that any new writing shows."""
    for file in folder.iterdir():
        written = file.stat().st_mtime_ns - 10_000_000_000
        os.utime(file, ns=(written, written))
    return {file.name: file.stat().st_mtime_ns for file in folder.iterdir()}


def rewritten(folder: Path, before: dict[str, int]) -> set[str]:
    return {file.name for file in folder.iterdir() if file.stat().st_mtime_ns != before.get(file.name)}


# The pipeline


def test_motion_is_consistent(model):
    motion = model.generate(PROMPTS[:1], [3], seconds=[1.0])[0]
    assert motion.tokens.dtype == np.int64 and motion.features.dtype == np.float32
    frames = len(motion.tokens) * model.frames_per_token
    assert motion.features.shape == (frames, 272) and abs(frames - FPS) <= model.frames_per_token / 2
    np.testing.assert_allclose(motion.smplx85, features_to_smplx85(motion.features))
    rotations, pelvis = smplx85_to_motion(motion.smplx85)
    np.testing.assert_allclose(forward_kinematics(rotations, pelvis), motion.joints, atol=1e-4)


def test_a_motion_depends_on_text_seed_and_settings_alone(model):
    together = model.generate(PROMPTS, [5, 5, 6])
    reverse = model.generate(PROMPTS[::-1] + ["people dance with slow and careful steps"], [6, 5, 5, 0])
    for row, motion in enumerate(together):
        alone = model.generate([PROMPTS[row]], [motion.seed])[0]
        for other in (alone, reverse[2 - row]):
            assert other.prompt == motion.prompt
            np.testing.assert_array_equal(other.tokens, motion.tokens)
            np.testing.assert_allclose(other.features, motion.features, atol=1e-5)
    same_seed = [motion.tokens.tolist() for motion in together[:2]]
    assert same_seed[0] != same_seed[1]  # so the text counts
    assert model.generate(PROMPTS[:1], [6])[0].tokens.tolist() != same_seed[0]
    assert model.generate(PROMPTS[:1], [5], Sampling(guidance=3.0))[0].tokens.tolist() != same_seed[0]


def test_lengths_differ_within_a_batch(model):
    seconds = [0.01, 1.0, None, model.max_frames / FPS]
    motions = model.generate(["a person walks"] * 4, [0] * 4, seconds=seconds)
    per_token = model.frames_per_token
    assert len(motions[0].features) == per_token
    assert abs(len(motions[1].features) - FPS) <= per_token / 2
    assert per_token <= len(motions[2].features) <= model.max_frames == len(motions[3].features)
    np.testing.assert_array_equal(motions[1].tokens[:1], motions[0].tokens)


def test_motions_come_as_they_are_made(model):
    prompts, seeds = PROMPTS * 3, list(range(9))
    together = model.generate(prompts, seeds)
    order = []
    for number, motion in model.generate_each(prompts, seeds, slots=2):
        order.append(number)
        assert (motion.prompt, motion.seed) == (prompts[number], seeds[number])
        np.testing.assert_array_equal(motion.tokens, together[number].tokens)
    assert sorted(order) == list(range(9)) and order != list(range(9))


@pytest.mark.parametrize("prompt", [PROMPTS[0], "a person walks | someone waves the left hand | a person jumps"])
@pytest.mark.parametrize("init", [None, 22])
def test_a_stream_is_the_motion(model, prompt, init):
    if init is not None:
        init = model.generate(["a person jumps"], [8], seconds=[1.0])[0].features[:init]
    motion = model.generate([prompt], [4], seconds=[0.4], init=init)[0]
    chunks = list(model.stream(prompt, 4, seconds=0.4, init=init))
    for name, atol in (("tokens", 0), ("features", 1e-5), ("smplx85", 1e-4), ("joints", 1e-4)):
        streamed = np.concatenate([getattr(chunk, name) for chunk in chunks])
        np.testing.assert_allclose(streamed, getattr(motion, name), atol=atol)
    parts = [chunk.part for chunk in chunks]
    assert parts == ([] if init is None else [-1]) + [
        part for part in range(len(prompt.split(" | "))) for _ in range(3)
    ]
    if init is not None:
        np.testing.assert_allclose(
            motion.features[:20], model.decode([torch.from_numpy(motion.tokens[:5])])[0], atol=1e-5
        )


def test_a_stream_comes_while_tokens_are_made_and_can_be_left(model, monkeypatch):
    steps, step = [], model.generator.step
    monkeypatch.setattr(model.generator, "step", lambda *arguments: (steps.append(1), step(*arguments))[1])
    stream = model.stream(PROMPTS[0], 0, seconds=1.0)
    for count in range(3):
        chunk = next(stream)
        assert len(steps) == count and len(chunk.joints) == model.frames_per_token
    stream.close()
    assert len(steps) == 2


def test_a_sequence_in_a_list_and_in_a_text_are_the_same(model):
    parts = ["a person walks", "someone waves the left hand"]
    listed, written = model.generate([parts, " | ".join(parts)], [3, 3])
    np.testing.assert_array_equal(listed.tokens, written.tokens)
    assert listed.prompt == written.prompt == "a person walks | someone waves the left hand"


def test_motions_to_go_on_from_that_cannot_be_used(model):
    long, short = np.zeros((70, 272), np.float32), np.zeros((3, 272), np.float32)
    for init, words in ((long, "leaves room for 0 of the 16"), (short, "3 frames"), (long[:, :200], "272")):
        with pytest.raises(InputError, match=words):
            model.generate(["walk"], [0], init=init)
    with pytest.raises(InputError, match="leaves room for 6 of the 16"):
        next(model.stream("walk", init=long[:40], seconds=1.0))


def test_decoding_in_a_batch_is_decoding_alone(model):
    tokens = [torch.randint(model.tokenizer.codebook_size, (count,)) for count in (1, 9, 4)]
    for ids, features in zip(tokens, model.decode(tokens), strict=True):
        np.testing.assert_allclose(features, model.decode([ids])[0], atol=1e-5)


@pytest.mark.parametrize("seconds", [0, -1.0, 1e6, float("nan"), float("inf")])
def test_impossible_lengths(model, seconds):
    with pytest.raises(InputError, match="at most 2.1"):
        model.generate(["a person walks"], [0], seconds=[seconds])


@pytest.mark.parametrize("prompt", ["", " \n\t", "x" * (MAX_PROMPT + 1), "\ud800 half a character", "nul \0", 5, None])
def test_impossible_prompts(model, prompt):
    with pytest.raises(InputError, match="prompt"):
        model.generate([prompt], [0])


# Prompt files


def test_prompt_lines_give_items_in_order(tmp_path):
    file = tmp_path / "prompts.txt"
    file.write_bytes(b"\xef\xbb\xbf  a person walks  \r\n\r\n   \r\na person runs\r\nwalks \xe2\x80\xa8 and stops")
    items = read_prompts(file, seed=7, samples=2)
    assert [item.prompt for item in items[::2]] == ["a person walks", "a person runs", "walks \u2028 and stops"]
    assert [item.seed for item in items] == [7, 8] * 3
    assert len({item.name for item in items}) == 6 and items[0].seconds is None


def test_jsonl_entries_keep_their_own_settings(tmp_path):
    file = tmp_path / "prompts.jsonl"
    entries = [{"prompt": "a\u2028b", "name": "é/x", "seed": 9, "length": 2}, {"prompt": "b", "length": 1.5}]
    file.write_text("\n".join(json.dumps(entry, ensure_ascii=False) for entry in entries), encoding="utf-8")
    first, second = read_prompts(file, seed=7, samples=1)
    assert (first.prompt, first.name[:4], first.seed, first.seconds) == ("a\u2028b", "e-x-", 9, 2)
    assert (second.seed, second.seconds) == (7, 1.5)


def test_names_are_unique_and_safe():
    names = ["a", "A", "a_002", "a", "a/", "../a", "a_001", "a_0", "a_0_003", ""]
    for samples in (1, 3):
        items = expand([{"prompt": "a", "name": name} for name in names], seed=0, samples=samples)
        assert len({item.name.lower() for item in items}) == len(names) * samples
    for name in ("run_skeleton", "RUN_Skeleton", "CON", "nul", "com1", "con."):
        assert safe_name(name).startswith(f"{name.strip('.')}-"), "a video of another item, or a device to Windows"
    assert safe_name("skeleton") == "skeleton" and safe_name("conga") == "conga"
    for text in HOSTILE.values():
        name = safe_name(text)
        assert 0 < len(name) <= 67 and all(letter.isascii() and (letter.isalnum() or letter in "-_") for letter in name)


BAD_LINES = {
    "not json": '{"prompt": "a person walks"',
    "a list": '["a person walks"]',
    "a text": '"a person walks"',
    "deep": "[" * 100_000,
    "no prompt": '{"name": "walk"}',
    "unknown key": '{"prompt": "walk", "lenght": 2}',
    "empty prompt": '{"prompt": "  "}',
    "prompt is a number": '{"prompt": 5}',
    "long prompt": json.dumps({"prompt": "x" * 10_000}),
    "half a character": '{"prompt": "walk \\ud800"}',
    "negative seed": '{"prompt": "walk", "seed": -1}',
    "large seed": '{"prompt": "walk", "seed": 9223372036854775808}',
    "seed with a fraction": '{"prompt": "walk", "seed": 1.5}',
    "seed is true": '{"prompt": "walk", "seed": true}',
    "length is text": '{"prompt": "walk", "length": "two"}',
    "length is zero": '{"prompt": "walk", "length": 0}',
    "length is nan": '{"prompt": "walk", "length": NaN}',
    "name is a number": '{"prompt": "walk", "name": 5}',
    "digits": '{"prompt": "walk", "length": ' + "9" * 5000 + "}",
}


@pytest.mark.parametrize("line", BAD_LINES.values(), ids=BAD_LINES)
def test_a_bad_line_is_named(tmp_path, line):
    file = tmp_path / "prompts.jsonl"
    file.write_text(f'{{"prompt": "a person walks"}}\n\n{line}\n')
    with pytest.raises(InputError, match="prompts.jsonl, line 3: ") as raised:
        read_prompts(file, 0, 1)
    assert len(str(raised.value)) < 400 and "\n" not in str(raised.value)


@pytest.mark.parametrize("content", [b"", b"\n \n\t\n", b"\xef\xbb\xbf", b"\x89PNG\r\n\x1a\n\xff", b"\0" * 64, None])
def test_unusable_prompt_files(tmp_path, content):
    file = tmp_path / "prompts.txt"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(InputError, match=str(file)):
        read_prompts(file, 0, 1)


def test_a_folder_is_no_prompt_file(tmp_path):
    with pytest.raises(InputError, match=str(tmp_path)):
        read_prompts(tmp_path, 0, 1)


# What a run writes


def test_motion_files_and_results(run, prompt_file, tmp_path, model):
    status, output, _ = run("--prompts", prompt_file, "--samples", 2, "--seed", 4)
    assert status == 0 and "results.json" in output
    results = results_in(tmp_path / "out")
    assert [(result["prompt"], result["seed"]) for result in results] == [(p, s) for p in PROMPTS for s in (4, 5)]
    assert [file.stem for file in npz_files(tmp_path / "out")] == sorted(result["name"] for result in results)
    motions = []
    for result in results:
        assert result["files"] == [f"{result['name']}.npz"] and result["failed"] == {}
        saved = load(tmp_path / "out" / result["files"][0])
        tokens, frames = saved["tokens"], len(saved["features"])
        assert tokens.dtype == np.int64 and tokens.ndim == 1 and 0 <= tokens.min() <= tokens.max() < 125
        assert frames == len(tokens) * model.frames_per_token and result["seconds"] == round(frames / FPS, 3)
        for key, shape in (("smplx_85", (frames, 85)), ("joints", (frames, JOINTS, 3)), ("features", (frames, 272))):
            assert saved[key].dtype == np.float32 and saved[key].shape == shape and np.isfinite(saved[key]).all()
        np.testing.assert_allclose(features_to_smplx85(saved["features"]), saved["smplx_85"], atol=1e-5)
        rotations, pelvis = smplx85_to_motion(saved["smplx_85"])
        np.testing.assert_allclose(forward_kinematics(rotations, pelvis, REST_OFFSETS), saved["joints"], atol=1e-4)
        assert int(saved["fps"]) == FPS and str(saved["prompt"]) == result["prompt"]
        assert int(saved["seed"]) == result["seed"]
        assert str(saved["checkpoint"]) == result["checkpoint"] == model.checkpoint_id
        motions.append(tokens.tolist())
    assert len({tuple(tokens) for tokens in motions}) == len(motions)  # samples and prompts differ


def test_batches_do_not_change_motions(run, prompt_file, tmp_path):
    run("--prompts", prompt_file, "--batch-size", 1, out="single")
    run("--prompts", prompt_file, "--batch-size", 2, out="pairs")
    for single, pair in zip(npz_files(tmp_path / "single"), npz_files(tmp_path / "pairs"), strict=True):
        np.testing.assert_array_equal(load(single)["tokens"], load(pair)["tokens"])


def test_asked_lengths(run, tmp_path):
    file = tmp_path / "prompts.jsonl"
    file.write_text('{"prompt": "walk", "name": "own", "length": 2}\n{"prompt": "walk", "name": "common"}\n')
    assert run("--prompts", file, "--seconds", 0.8)[0] == 0
    assert len(load(tmp_path / "out" / "own.npz")["features"]) == 60
    assert len(load(tmp_path / "out" / "common.npz")["features"]) == 24


def test_hostile_prompts_stay_inside_the_folder(run, tmp_path):
    file = tmp_path / "prompts.jsonl"
    lines = [{"prompt": text} for text in HOSTILE.values()]
    lines += [{"prompt": "walk", "name": name} for name in ("../../x", "/etc/x", "a\0b", "results.json", "..", "CON")]
    file.write_text("\n".join(json.dumps(line) for line in lines))
    before = set(tmp_path.parent.iterdir())
    with pytest.warns(UserWarning, match="reads only the beginning"):
        assert run("--prompts", file, "--seconds", 0.2)[0] == 0
    assert {path.name for path in tmp_path.iterdir()} == {"prompts.jsonl", "out"}
    assert set(tmp_path.parent.iterdir()) == before and all(path.is_file() for path in (tmp_path / "out").iterdir())
    results = results_in(tmp_path / "out")
    assert [result["prompt"] for result in results] == [line["prompt"] for line in lines]
    assert len(npz_files(tmp_path / "out")) == len(lines)
    before = remember(tmp_path / "out")
    assert run("--prompts", file, "--seconds", 0.2)[0] == 0
    assert rewritten(tmp_path / "out", before) == {"results.json"}  # every prompt is recognised again


@pytest.mark.parametrize("view", ["mesh", "skeleton", "both"])
def test_videos(run, tmp_path, view):
    prompt = "<b>walk</b>\n🏃 مشي"
    status, *_ = run("--prompt", prompt, "--seconds", 0.5, "--save", "npz,mp4,gif", "--size", 64, "--view", view)
    assert status == 0
    (result,) = results_in(tmp_path / "out")
    endings = {"mesh": [".mp4", ".gif"], "skeleton": ["_skeleton.mp4", "_skeleton.gif"]}
    expected = endings["mesh"] + endings["skeleton"] if view == "both" else endings[view]
    assert result["files"] == [result["name"] + ending for ending in [".npz", *expected]]
    frames = len(load(tmp_path / "out" / result["files"][0])["features"])
    for file in result["files"][1:]:
        assert frames_of(tmp_path / "out" / file) == frames
    assert {path.name for path in (tmp_path / "out").iterdir()} == {*result["files"], "results.json"}


def test_files_for_other_tools(run, prompt_file, tmp_path):
    arguments = ("--prompts", prompt_file, "--seconds", 0.4, "--save", "bvh,glb,html")
    assert run(*arguments)[0] == 0
    out = tmp_path / "out"
    for result in results_in(out):
        assert result["files"] == [f"{result['name']}.{kind}" for kind in ("npz", "bvh", "glb", "html")]
        saved, back = load(out / result["files"][0]), read_clip(out / result["files"][1]).smplx85
        rotations, pelvis = smplx85_to_motion(back)
        np.testing.assert_allclose(forward_kinematics(rotations, pelvis), saved["joints"], atol=1e-4)
        assert {"poses", "trans", "betas", "gender", "mocap_framerate"} <= set(saved)
    assert (out / "gallery.html").stat().st_size > 500_000
    before = remember(out)
    assert run(*arguments)[0] == 0
    assert rewritten(out, before) == {"results.json", "gallery.html"}


def test_locked_feet_are_another_motion_of_the_same_tokens(run, prompt_file, tmp_path):
    run("--prompts", prompt_file, "--seconds", 1)
    free = [load(file) for file in npz_files(tmp_path / "out")]
    assert run("--prompts", prompt_file, "--seconds", 1, "--foot-lock", "true")[0] == 0
    for before, after in zip(free, map(load, npz_files(tmp_path / "out")), strict=True):
        np.testing.assert_array_equal(after["tokens"], before["tokens"])
        np.testing.assert_array_equal(after["features"], before["features"])
        np.testing.assert_allclose(after["smplx_85"], lock_feet(before["smplx_85"]), atol=1e-5)
        assert np.abs(after["joints"] - before["joints"]).max() > 1e-4


# Running again


def test_finished_work_is_skipped_unless_told_otherwise(run, prompt_file, tmp_path):
    out = tmp_path / "out"
    arguments = ("--prompts", prompt_file, "--seconds", 0.5)
    run(*arguments)
    names = {file.name for file in npz_files(out)}
    tokens = {name: load(out / name)["tokens"] for name in names}
    before = remember(out)
    status, output, _ = run(*arguments)
    assert status == 0 and "3 of 3 motions" in output and rewritten(out, before) == {"results.json"}
    before = remember(out)
    run(*arguments, "--overwrite", "true")
    assert rewritten(out, before) == names | {"results.json"}
    for name in names:
        np.testing.assert_array_equal(load(out / name)["tokens"], tokens[name])
    changed = []
    for other in (("--temperature", 0.5), ("--top-k", 9), ("--guidance", 1), ("--seconds", 1)):
        changed += other
        before = remember(out)
        assert "3 motions are made again" in run(*arguments, *changed)[1]
        assert rewritten(out, before) == names | {"results.json"}
    before = remember(out)
    run(*arguments, *changed, "--seed", 1)  # under other names: nothing is lost
    assert len(rewritten(out, before)) == 4 and rewritten(out, before) & set(before) == {"results.json"}
    assert len(results_in(out)) == 6


def test_another_checkpoint_makes_motions_anew(run, checkpoint, tmp_path):
    other = tmp_path / "elsewhere" / checkpoint.name  # of the same name
    shutil.copytree(checkpoint, other)
    run("--prompt", "walk")
    generator = LLaMAHF.from_pretrained(other)
    generator.lm_head.weight.data.roll(1, 0)
    generator.lm_head.weight.data *= -1
    generator.save_pretrained(other)
    before = remember(tmp_path / "out")
    run("--prompt", "walk", checkpoint=other)
    assert len(rewritten(tmp_path / "out", before)) == 2


def test_a_deleted_or_outdated_video_is_drawn_again(run, tmp_path):
    arguments = ("--prompt", "walk", "--seconds", 0.3, "--save", "npz,mp4", "--size", 64, "--view", "skeleton")
    run(*arguments)
    out = tmp_path / "out"
    npz, mp4 = out / "walk_seed0.npz", out / "walk_seed0_skeleton.mp4"
    before = remember(out)
    mp4.unlink()
    assert run(*arguments)[0] == 0
    assert rewritten(out, before) == {mp4.name, "results.json"} and frames_of(mp4) == len(load(npz)["joints"])
    os.utime(mp4, ns=(before[npz.name] - 1,) * 2)  # as if stopped between a new motion and its video
    before = remember(out)
    assert run(*arguments)[0] == 0
    assert rewritten(out, before) == {mp4.name, "results.json"}


def test_no_video_of_another_motion_or_size_passes_for_the_one_asked_for(run, tmp_path):
    out, walk = tmp_path / "out", ("--prompt", "walk", "--seconds", 0.2)
    run(*walk, "--save", "mp4,bvh", "--size", 64, "--view", "skeleton")
    files = {"walk_seed0.npz", "walk_seed0_skeleton.mp4", "walk_seed0.bvh", "results.json"}
    assert {file.name for file in out.iterdir()} == files
    (out / "walk_seed0_mine.mp4").write_bytes(b"not ours")
    before = remember(out)
    output = run(*walk, "--save", "mp4,bvh", "--size", 96, "--view", "skeleton")[1]
    assert "2 other files are kept as they were drawn; --overwrite true" in output
    assert rewritten(out, before) == {"results.json"}
    assert "1 motions are made again" in run(*walk, "--save", "npz", "--temperature", 0.5)[1]
    assert {file.name for file in out.iterdir()} == {"walk_seed0.npz", "walk_seed0_mine.mp4", "results.json"}


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip(path: Path) -> None:
    """Damage the packed numbers of the motion and leave all else."""
    with zipfile.ZipFile(path) as archive:
        start = archive.getinfo("smplx_85.npy").header_offset
    content = bytearray(path.read_bytes())
    for position in range(start + 300, start + 340):
        content[position] ^= 0xFF
    path.write_bytes(content)


DAMAGE = {
    "cut": cut,
    "flipped": flip,
    "empty": lambda path: path.write_bytes(b""),
    "text": lambda path: path.write_text("not numbers"),
    "other": lambda path: np.savez(path, tokens=np.zeros(3)),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_motion_is_made_anew(run, prompt_file, tmp_path, damage):
    out = tmp_path / "out"
    run("--prompts", prompt_file, "--seconds", 1)
    broken = npz_files(out)[1]
    good = load(broken)
    damage(broken)
    before = remember(out)
    assert run("--prompts", prompt_file, "--seconds", 1)[0] == 0
    assert rewritten(out, before) == {broken.name, "results.json"}
    np.testing.assert_array_equal(load(broken)["tokens"], good["tokens"])
    np.testing.assert_allclose(load(broken)["joints"], good["joints"], atol=1e-4)


def test_an_interrupted_run_keeps_finished_motions(run, prompt_file, tmp_path, monkeypatch):
    out, saved, save = tmp_path / "out", [], inference_batch.save_motion

    def interrupted(path, *arguments):
        saved.append(path)
        if len(saved) == 3:
            raise KeyboardInterrupt
        save(path, *arguments)

    monkeypatch.setattr(inference_batch, "save_motion", interrupted)
    assert run("--prompts", prompt_file, "--batch-size", 1)[0] == 130
    assert len(npz_files(out)) == len(results_in(out)) == 2
    before = remember(out)
    status, output, _ = run("--prompts", prompt_file, "--batch-size", 1)
    assert status == 0 and "2 of 3" in output and saved[3:] == saved[2:3] and len(results_in(out)) == 3
    assert len(rewritten(out, before)) == 2


def test_a_motion_is_there_whole_or_not_at_all(run, tmp_path, monkeypatch):
    def disk_full(path, **arrays):
        path.write_bytes(b"half of it")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez_compressed", disk_full)
    assert_refused(run("--prompt", "walk"), "walk_seed0.npz", "No space left", "writable")
    assert list((tmp_path / "out").iterdir()) == []


# Going on from a motion, sequences, several processes


def test_motions_go_on_from_a_file(run, tmp_path):
    assert run("--prompt", "a person walks", "--seconds", 0.5, out="first")[0] == 0
    start = load(npz_files(tmp_path / "first")[0])
    np.save(tmp_path / "start.npy", start["features"])
    for file in (npz_files(tmp_path / "first")[0], tmp_path / "start.npy"):
        assert (
            run("--prompt", "a person jumps | someone waves the left hand", "--seconds", 0.4, "--init-motion", file)[0]
            == 0
        )
        (made,) = (load(path) for path in npz_files(tmp_path / "out"))
        assert len(made["tokens"]) == len(start["tokens"]) + 2 * 3
        assert str(made["prompt"]) == "a person jumps | someone waves the left hand"
    (tmp_path / "long.npy").write_bytes(b"")
    np.save(tmp_path / "long.npy", np.tile(start["features"], (5, 1)))
    assert_refused(run("--prompt", "walk", "--init-motion", "long.npy", out="none"), "leaves room for 0 of the 16")
    assert_refused(run("--prompt", "walk", "--init-motion", "missing.bvh", out="none"), "missing.bvh")
    assert not npz_files(tmp_path / "none")


def test_a_motion_from_other_precision_is_another_motion(run, tmp_path):
    for arguments in ((), ("--dtype", "bf16"), ("--quantize", "int8")):
        before = remember(tmp_path / "out") if arguments else {}
        assert run("--prompt", "a person walks", "--seconds", 0.3, *arguments)[0] == 0
        assert "a-person-walks_seed0.npz" in rewritten(tmp_path / "out", before)
    assert_refused(run("--prompt", "walk", "--dtype", "float32", "--quantize", "int8"), "int8 weights go with bf16")
    assert_refused(run("--prompt", "walk", "--dtype", "bf16", "--quantize", "int4"), "int4 weights need a CUDA device")


def test_several_processes_share_the_prompts(checkpoint, tmp_path):
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("\n".join(f"a person walks {count} steps" for count in range(5)))
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    launch += [ROOT / "inference_batch.py"]  # `accelerate launch` starts several processes on GPUs only; the same here
    launch += ["--prompts", prompts, "--checkpoint", checkpoint, "--out-dir", tmp_path / "out"]
    command = [str(word) for word in (*launch, "--save", "npz", "--seconds", "0.3", "--workers", "1")]
    printed = []
    for _ in range(2):
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=200)
        assert done.returncode == 0, done.stdout + done.stderr
        printed.append(done.stdout)
    assert "3 motions generated" in printed[0] and "2 motions generated" in printed[0]
    assert "generated" not in printed[1] and "3 of 3 motions" in printed[1] and "2 of 2 motions" in printed[1]
    assert len(results_in(tmp_path / "out")) == len(npz_files(tmp_path / "out")) == 5


def test_renderers_are_shared_among_the_processes_of_a_machine(run, prompt_file, monkeypatch):
    started = []

    class Counted(InProcess):
        def __init__(self, workers, context, **settings):
            started.append(workers)
            super().__init__(workers, context)

    monkeypatch.setattr(visualize.renderers, "ProcessPoolExecutor", Counted)
    for local, workers in (("1", 8), ("4", 8), ("4", 1)):
        monkeypatch.setenv("LOCAL_WORLD_SIZE", local)
        assert run("--prompts", prompt_file, "--seconds", 0.2, "--workers", workers)[0] == 0
    assert started == [3, 2, 1]  # at most one a motion


# Videos that fail


def test_an_occupied_video_name_loses_nothing_else(run, prompt_file, tmp_path):
    out = tmp_path / "out"
    occupied = out / "someone-waves-the-left-hand_seed0_skeleton.mp4"
    occupied.mkdir(parents=True)
    arguments = ("--prompts", prompt_file, "--seconds", 0.2, "--save", "mp4", "--size", 64, "--view", "skeleton")
    assert_refused(run(*arguments), occupied.name, "run again")
    results = results_in(out)
    assert [list(result["failed"]) for result in results] == [[], [occupied.name], []]
    assert [len(result["files"]) for result in results] == [2, 1, 2]
    assert all((out / file).is_file() for result in results for file in result["files"])
    occupied.rmdir()
    before = remember(out)
    assert run(*arguments)[0] == 0
    assert rewritten(out, before) == {occupied.name, "results.json"} and frames_of(occupied) == 8


@pytest.mark.parametrize("failure", [RuntimeError("no font"), MemoryError(), BrokenProcessPool("killed")])
def test_any_failure_of_a_renderer_is_listed(run, prompt_file, tmp_path, monkeypatch, failure):
    def write_file(source, *rest):
        if source.name.startswith("someone-waves"):
            raise failure

    monkeypatch.setattr(visualize.renderers, "write_file", write_file)
    monkeypatch.setattr(visualize.renderers, "warm_up", lambda views: None)
    assert_refused(run("--prompts", prompt_file, "--save", "mp4", "--seconds", 0.2), "1 files", "someone-waves")
    failed = [list(result["failed"].values()) for result in results_in(tmp_path / "out")]
    assert failed == [[], [str(failure) or repr(failure)], []]


def test_motions_go_on_after_a_renderer_was_killed(run, prompt_file, tmp_path, monkeypatch):
    class Broken(InProcess):
        def submit(self, call, *arguments):
            if call is not visualize.renderers.warm_up:
                raise BrokenProcessPool("a renderer was killed")

    monkeypatch.setattr(visualize.renderers, "ProcessPoolExecutor", Broken)
    assert_refused(run("--prompts", prompt_file, "--save", "mp4", "--seconds", 0.2), "3 files", "was killed")
    assert [len(result["failed"]) for result in results_in(tmp_path / "out")] == [1, 1, 1]
    assert len(npz_files(tmp_path / "out")) == 3


# Options and places that cannot be used


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
        (("--prompt", "walk", "--batch-size", "0"), ["batch_size"]),
        (("--prompt", "walk", "--seed", "-1"), ["seed"]),
        (("--prompt", "walk", "--seed", str(2**63)), ["seed"]),
        (("--prompt", "walk", "--size", "10"), ["size"]),
        (("--prompt", "walk", "--device-memory", "-1"), ["device-memory is -1", "above 0"]),
        (
            ("--prompt", "walk", "--device-memory", "0.00001"),
            ["error: the device memory given is 1e-05 GB", "give more"],
        ),
        (("--prompt", "walk", "--temperature", "-1"), ["temperature"]),
        (("--prompt", "walk", "--top-p", "0"), ["top_p"]),
        (("--prompt", "walk", "--seconds", "1000"), ["1000", "2.1"]),
        (("--prompt", "walk", "--seconds", "0"), ["0.0 s"]),
    ],
)
def test_options_that_make_no_sense(run, tmp_path, arguments, words):
    assert_refused(run(*arguments), *words)
    assert not (tmp_path / "out").exists() or list((tmp_path / "out").iterdir()) == []


def test_an_out_dir_that_cannot_be_written(run, tmp_path):
    (tmp_path / "file").write_text("mine")
    assert_refused(run("--prompt", "walk", out="file"), "file", "writable")
    assert_refused(run("--prompt", "walk", out="file/inside"), "the folder file/inside:", "writable")
    assert (tmp_path / "file").read_text() == "mine"


def test_a_body_that_cannot_be_read_is_found_before_anything_is_made(run, tmp_path):
    (tmp_path / "body.npz").write_text("no SMPL-X")
    for save in ("mp4", "glb", "html"):
        result = run("--prompt", "walk", "--save", save, "--smplx-path", "body.npz")
        assert_refused(result, "body.npz is no readable SMPL-X model", "SMPLX_NEUTRAL.npz")
        assert "pickle" not in result[2]
    assert_refused(run("--prompt", "walk", "--body-model", "smplx"), "smplx needs the path of its model file")
    assert_refused(run("--prompt", "walk", "--smplx-path", "missing"), "missing does not exist")
    assert_refused(run("--prompt", "walk", "--body-model", "ghost"), "ghost; give mannequin, or smplx")
    assert list((tmp_path / "out").iterdir()) == []
    assert run("--prompt", "walk", "--save", "npz", "--smplx-path", "body.npz")[0] == 0  # it is not needed


def test_names_that_folders_occupy(run, tmp_path):
    (tmp_path / "out" / "results.json").mkdir(parents=True)
    assert_refused(run("--prompt", "walk"), "results.json")
    assert len(npz_files(tmp_path / "out")) == 1
    (tmp_path / "out" / "jump_seed0.npz").mkdir()
    assert_refused(run("--prompt", "jump"), "jump_seed0.npz")


# Checkpoints that cannot be used


def cut_weights(folder: Path) -> None:
    cut(folder / "model.safetensors")


def change_config(folder: Path, **changes) -> None:
    config = json.loads((folder / "config.json").read_text())
    config.get("config", config).update(changes)
    (folder / "config.json").write_text(json.dumps(config))


BAD_CHECKPOINTS = {
    "missing": (shutil.rmtree, "tiny"),
    "no weights": (lambda folder: (folder / "model.safetensors").unlink(), "model.safetensors"),
    "no config": (lambda folder: (folder / "config.json").unlink(), "config.json"),
    "cut config": (lambda folder: cut(folder / "config.json"), "config.json"),
    "cut weights": (cut_weights, "model.safetensors"),
    "empty weights": (lambda folder: (folder / "model.safetensors").write_bytes(b""), "model.safetensors"),
    "no tokenizer": (lambda folder: shutil.rmtree(folder / "tokenizer"), "tiny/tokenizer"),
    "cut tokenizer": (lambda folder: cut_weights(folder / "tokenizer"), "tokenizer/model.safetensors"),
    "generator as tokenizer": (
        lambda folder: shutil.copy(folder / "model.safetensors", folder / "tokenizer"),
        "tokenizer/model.safetensors",
    ),
    "other codebook": (
        lambda folder: tiny_tokenizer([8, 5, 5]).save_pretrained(folder / "tokenizer"),
        "tiny cannot be used: the generator writes 125 codes and the tokenizer has 200; put",
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
def test_a_checkpoint_that_cannot_be_used(run, checkpoint, tmp_path, damage, words):
    shutil.copytree(checkpoint, tmp_path / "tiny")
    run("--prompt", "walk", checkpoint=Path("tiny"))
    damage(tmp_path / "tiny")
    before = remember(tmp_path / "out")
    assert_refused(run("--prompt", "jump", checkpoint=Path("tiny")), words)
    assert rewritten(tmp_path / "out", before) == set() and len(before) == 2  # what was finished is kept


def test_guidance_is_as_the_model_was_trained_for(run, checkpoint, model, tmp_path):
    shutil.copytree(checkpoint, tmp_path / "tiny")
    tiny_generator(tiny_tokenizer([5, 5, 5]), text_dropout=0.0).save_pretrained(tmp_path / "tiny")
    untrained, walk = {"checkpoint": Path("tiny"), "out": "untrained"}, ("--prompt", "walk", "--seconds", 0.3)
    assert_refused(run(*walk, "--guidance", 2, **untrained), "set guidance to 1")
    for out, asked, settings in (("out", 2, {}), ("untrained", 1, untrained)):
        assert run(*walk, **settings)[0] == 0
        before = remember(tmp_path / out)
        assert "1 of 1 motions" in run(*walk, "--guidance", asked, **settings)[1]  # the same as by default
        assert rewritten(tmp_path / out, before) == {"results.json"}
    (motion,) = TextToMotion.from_pretrained("tiny").generate(["walk"], [0], seconds=[0.3])
    np.testing.assert_array_equal(motion.tokens, load(npz_files(tmp_path / "untrained")[0])["tokens"])


def test_weights_that_are_not_numbers(run, checkpoint, tmp_path):
    shutil.copytree(checkpoint, tmp_path / "tiny")
    generator = LLaMAHF.from_pretrained(tmp_path / "tiny")
    generator.lm_head.weight.data[0, 0] = float("nan")
    generator.save_pretrained(tmp_path / "tiny")
    assert_refused(run("--prompt", "walk", checkpoint=Path("tiny")), "not finite")


# The command line itself, with renderer processes


def test_command_line(checkpoint, tmp_path):
    command = [sys.executable, REPOSITORY / "inference_batch.py", "--checkpoint", checkpoint, "--out-dir", tmp_path]
    options = ["--prompt", "../walk", "--seconds", "1", "--size", "64", "--view", "both", "--workers", "1"]
    done = subprocess.run([*command, *options], cwd=REPOSITORY, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    (result,) = results_in(tmp_path)
    name = result["name"]
    frames = len(load(tmp_path / f"{name}.npz")["features"])
    for file in (f"{name}.mp4", f"{name}_skeleton.mp4"):
        assert frames_of(tmp_path / file) == frames
        assert file in done.stdout

    missing = [*command, "--prompts", tmp_path / "missing.txt"]
    done = subprocess.run(missing, cwd=REPOSITORY, capture_output=True, text=True, timeout=240)
    assert_refused((done.returncode, done.stdout, done.stderr), "missing.txt")
    assert len(results_in(tmp_path)) == 1
