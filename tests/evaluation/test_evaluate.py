"""evaluate.py end to end, on tiny models and procedural clips: results, resuming, and refusals."""

import json
import os
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

import evaluation.evaluators.contrastive
import evaluation.report
import models.pipeline
import prepare_data
from dataset.motion_folder import MotionFolder
from evaluation.evaluators.contrastive import EvaluatorConfig, MotionTextEvaluator
from evaluation.generation import GeneratedMotions
from evaluation.measure_tokenizer import error_table, measure_clip
from evaluation.reconstruction import reconstruction
from evaluation.recorded import convert, convert_any_length, converted_frames, hold, joints_of
from evaluation.report import markdown_table, worst_and_median
from models.pipeline import TextToMotion
from models.sampling import Sampling
from models.text_encoder import load_text_encoder
from tests.conftest import golden_eval
from tests.inference.helpers import save_tiny_checkpoint, tiny_tokenizer
from utils.checkpoint import save_model

CLIPS, TEST_CLIPS = 46, 33
FAST = ("--repeats", 2, "--multimodality", 1)


@pytest.fixture(scope="module", autouse=True)
def load_minilm_once():
    """Let all models share one MiniLM."""
    minilm = load_text_encoder("minilm")
    with pytest.MonkeyPatch.context() as patch:
        for module in (models.pipeline, evaluation.evaluators.contrastive):
            patch.setattr(module, "load_text_encoder", lambda *arguments: minilm)
        yield


@pytest.fixture
def no_page(monkeypatch):
    """Do not write evaluation.html, which takes a second."""
    monkeypatch.setattr(evaluation.report, "write_gallery", lambda path, clips, notes: path)


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """A data folder with more test clips than a pool has; their captions have the word tokens of HumanML3D."""
    out = tmp_path_factory.mktemp("data") / "data"
    prepare_data.synthetic(prepare_data.SyntheticOptions(out, CLIPS))
    names = sorted(path.stem for path in (out / "texts").glob("*.txt"))
    for split, part in (("test", names[:TEST_CLIPS]), ("val", names[:TEST_CLIPS]), ("train", names[TEST_CLIPS:])):
        (out / "split" / f"{split}.txt").write_text("\n".join(part))
    for file in (out / "texts").glob("*.txt"):
        captions = file.read_text().splitlines()
        tokens = [" ".join(f"{word}/NOUN" for word in caption.split()) for caption in captions]
        lines = [f"{caption}#{words}#0.0#0.0" for caption, words in zip(captions, tokens, strict=True)]
        file.write_text("\n".join(lines))
    return out


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Path:
    return save_tiny_checkpoint(tmp_path_factory.mktemp("run") / "tiny")


@pytest.fixture(scope="module")
def evaluator(tmp_path_factory) -> Path:
    """An untrained evaluator."""
    folder = tmp_path_factory.mktemp("evaluator") / "tiny"
    torch.manual_seed(0)
    config = EvaluatorConfig(embedding=8, width=16, heads=2, motion_layers=1, text_layers=1)
    save_model(MotionTextEvaluator(config), folder, "float32")
    return folder


@pytest.fixture
def t2m_evaluator(tmp_path) -> Path:
    """The fixture of T2M's evaluator."""
    folder = tmp_path / "t2m"
    folder.mkdir()
    shutil.copy(golden_eval("t2m_evaluator.tar"), folder / "finest.tar")
    shutil.copytree(golden_eval("glove"), folder / "glove")
    width = json.loads(golden_eval("t2m_evaluator.json").read_text())["dim_pose"]
    (folder / "stats").mkdir()
    for name, value in (("mean", 0), ("std", 1)):
        np.save(folder / "stats" / f"{name}.npy", np.full(width, value, np.float32))
    return folder


def results_in(folder: Path, command: str) -> dict:
    return json.loads((folder / "evaluation.json").read_text())[command]


def table_of(results: dict, title: str) -> dict:
    return next(table for name, table in results["tables"].items() if name.startswith(title))


# --- Tokenizer


def test_tokenizer_report(data, checkpoint, evaluator, tmp_path, run_here):
    printed = run_here("evaluate.py", "tokenizer", "--checkpoint", checkpoint, "--data", data, "--evaluator",
                       evaluator, "--out-dir", tmp_path)  # fmt: skip
    results = results_in(tmp_path, "tokenizer")
    errors = table_of(results, "Reconstruction errors")
    assert {"MPJPE, mm", "PA-MPJPE, mm", "global error, mm"} < errors.keys() and len(results["clips"]) == TEST_CLIPS
    assert table_of(results, "FID")["reconstruction"]["raw"] > 0
    assert table_of(results, "Codebook")["reconstruction"]["codes"] == 125
    physical = table_of(results, "Physical")
    assert physical["real"]["jerk / real"] == 1 != physical["reconstruction"]["jerk / real"]
    assert "| PA-MPJPE, mm " in printed and "| PA-MPJPE, mm " in (tmp_path / "evaluation.md").read_text()
    assert "Content-Security-Policy" in (tmp_path / "evaluation.html").read_text()


def test_frame_means_equal_the_published_form(data):
    tokenizer, folder = tiny_tokenizer([5, 5, 5]), MotionFolder(data)
    clips = folder.motions("test")
    motions = [clips.features(clips[row]) for row in range(3)]
    results, decoded = zip(*(measure_clip(tokenizer, motion) for motion in motions), strict=True)
    real = [joints_of(motion[: len(pair)]) for motion, pair in zip(motions, decoded, strict=True)]
    expected = reconstruction(real, [joints_of(pair) for pair in decoded])
    rows = list(error_table(results).rows.values())
    np.testing.assert_allclose([row[0] for row in rows[:4]], expected, rtol=1e-6)


# --- Text-to-motion


def test_t2m_report_and_resuming(data, checkpoint, evaluator, tmp_path, run_here, no_page):
    command = ("evaluate.py", "t2m", "--checkpoint", checkpoint, "--data", data, "--evaluator", evaluator,
               "--out-dir", tmp_path, *FAST)  # fmt: skip
    printed = run_here(*command)
    results = results_in(tmp_path, "t2m")
    metrics = table_of(results, "Text-to-motion")
    assert metrics.keys() == {"real", "reconstruction", "generated"}
    assert metrics["generated"]["FID"]["mean"] > 0 and abs(metrics["real"]["FID"]["mean"]) < 1e-6
    assert metrics["generated"]["MultiModality"]["mean"] > 0 and metrics["real"]["MultiModality"] is None
    assert 0 <= metrics["real"]["R@1"]["mean"] <= metrics["real"]["R@3"]["mean"] <= 1
    assert len(table_of(results, "Retrieval")) == 9 and table_of(results, "Physical").keys() == metrics.keys()
    assert f"{TEST_CLIPS} clips, 2 repeats, protocol t2m" in printed and "count" not in results["settings"]
    (stored,) = tmp_path.glob("motions-*.jsonl")
    lines = stored.read_bytes().splitlines(keepends=True)
    assert len(lines) == 2 * TEST_CLIPS + 30

    stored.write_bytes(
        b"".join(lines[:40]) + b'{"prompt": "x", "seed": 0, "tokens": [999]}\n' + lines[40][:9]
    )  # killed
    again = run_here(*command)  # only what is missing is generated
    assert "40 motions are in" in again and table_of(results_in(tmp_path, "t2m"), "Text-to-motion") == metrics
    assert sorted(stored.read_bytes().splitlines()[:40]) == sorted(line.strip() for line in lines[:40])


def test_t2m_with_the_features_of_humanml3d(data, checkpoint, t2m_evaluator, tmp_path, run_here, no_page):
    run_here("evaluate.py", "t2m", "--checkpoint", checkpoint, "--data", data, "--evaluator", t2m_evaluator,
             "--out-dir", tmp_path, "--repeats", 1, "--multimodality", 0)  # fmt: skip
    results = results_in(tmp_path, "t2m")
    assert table_of(results, "Text-to-motion")["generated"]["FID"]["mean"] > 0
    assert not any("share a caption" in note for note in results["notes"])


def test_motions_are_converted_for_an_evaluator(data, evaluator):
    class OtherFeatures:
        name, fps, features, min_frames, max_frames = "other", 20.0, 263, 40, 196

    own, clips = MotionTextEvaluator.from_pretrained(evaluator), MotionFolder(data).motions("test")
    motion = clips.features(clips[0])
    assert convert(own, motion) is motion
    for frames in (3, 30, 31, 32, len(motion)):
        assert len(convert(OtherFeatures(), motion[:frames])) == converted_frames(OtherFeatures(), frames)
    assert len(convert_any_length(OtherFeatures(), motion[:5])) >= 40
    assert len(convert_any_length(OtherFeatures(), np.tile(motion, (9, 1)))) == 196
    assert len(convert_any_length(own, motion[:4])) >= own.min_frames
    joints = joints_of(hold(motion, len(motion) + 5))
    np.testing.assert_allclose(joints[-1], joints[len(motion) - 1], atol=1e-5)


def test_motions_are_stored_as_they_are_made(checkpoint, tmp_path, monkeypatch):
    model = TextToMotion.from_pretrained(checkpoint)
    generate_each = model.generate_each

    def killed(*arguments, **options):
        for count, motion in enumerate(generate_each(*arguments, **options)):
            if count == 3:
                raise KeyboardInterrupt
            yield motion

    prompts, seeds = [f"a person walks {number} steps" for number in range(6)], list(range(6))
    monkeypatch.setattr(model, "generate_each", killed)
    with pytest.raises(KeyboardInterrupt):
        GeneratedMotions(model, tmp_path, Sampling(), {}).generate(prompts, seeds)
    monkeypatch.setattr(model, "generate_each", generate_each)
    resumed = GeneratedMotions(model, tmp_path, Sampling(), {})
    damaged = {"prompt": prompts[5], "seed": 5, "tokens": [0] * (model.generator.config.max_tokens + 1)}
    with resumed.path.open("a") as file:
        file.write(f"{json.dumps(damaged)}\n{json.dumps(damaged | {'prompt': ['walk']})}\n")
    resumed = GeneratedMotions(model, tmp_path, Sampling(), {})
    assert resumed.stored == 3 and GeneratedMotions(model, tmp_path, Sampling(temperature=0.5), {}).stored == 0
    resumed.generate(prompts, seeds)
    expected = model.generate(prompts, seeds, Sampling())
    for prompt, seed, motion in zip(prompts, seeds, expected, strict=True):
        np.testing.assert_array_equal(resumed.features(prompt, seed), motion.features)


def test_a_row_of_a_table_is_one_line():
    assert markdown_table(["prompt"], [["walk\n| on"]]).splitlines()[2:] == ["| walk\\n\\| on |"]


def test_worst_and_median():
    chosen = worst_and_median(np.array([5.0, 1, 9, 3, 7]), 2)
    assert chosen == [("worst", 2), ("worst", 4), ("median", 0), ("median", 3)]
    assert len(worst_and_median(np.arange(3.0), 4)) == 3


# --- Files of other systems


@pytest.fixture
def motion_files(data, tmp_path) -> Path:
    """The clips of the test split as .npy files, and two files that cannot be used."""
    folder, source = tmp_path / "motions", MotionFolder(data)
    folder.mkdir()
    clips = source.clips("test")
    for row in range(len(clips)):
        np.save(folder / f"{clips[row].name}.npy", clips.features(clips[row]))
    (folder / "broken.npz").write_bytes(b"PK nothing")
    np.save(folder / "unknown.npy", np.zeros((40, 272), np.float32))
    np.savez(folder / "²1.npz", features=np.full((40, 272), 1e9, np.float32), prompt="a person walks")
    Path(os.fsdecode(bytes(folder / "_") + b"\xff.npz")).touch()
    return folder


def test_files_named_as_clips(data, evaluator, motion_files, tmp_path, run_here, no_page):
    printed = run_here("evaluate.py", "files", motion_files, "--data", data, "--evaluator", evaluator,
                       "--out-dir", tmp_path, "--repeats", 2)  # fmt: skip
    results = results_in(tmp_path, "files")
    metrics = table_of(results, "Text-to-motion")
    assert metrics.keys() == {"real", "generated"} and metrics["generated"]["FID"]["mean"] < 0.01
    assert results["left_out"].keys() == {"broken.npz", "unknown.npy", "²1.npz", "_\\udcff.npz"}
    assert "Left out: broken.npz: " in printed
    assert "positions in metres" in results["left_out"]["²1.npz"]
    physical = table_of(results, "Physical")
    assert physical["real"] == pytest.approx(physical["generated"])


def test_files_of_a_suite_are_judged(data, tmp_path, run_here, no_page):
    clips = MotionFolder(data).clips("test")
    folder = tmp_path / "motions"
    folder.mkdir()
    for name, row in (("a-person-walks_seed0", 0), ("a-person-walks_seed1", 1), ("a-person-jumps", 2), ("other", 3)):
        np.save(folder / f"{name}.npy", clips.features(clips[row]))
    suite = tmp_path / "suite.yaml"
    suite.write_text(
        "- prompt: a person walks\n  conditions: [moves forward faster than 0 m/s]\n"
        "- prompt: a person jumps\n- prompt: a person sings\n  conditions: [turns left by more than 1 degrees]\n"
    )
    printed = run_here("evaluate.py", "files", folder, "--prompts", suite, "--out-dir", tmp_path)
    results = results_in(tmp_path, "files")
    walk = results["prompts"][0]
    assert walk["prompt"] == "a person walks" and len(walk["conditions"][0]["values"]) == 2
    assert results["left_out"].keys() == {"other.npy"} and "1 prompts have no motions: a person sings" in printed


def test_files_in_the_order_of_prompts(data, evaluator, tmp_path, run_here, refused, no_page):
    clips = MotionFolder(data).clips("test")
    folder, prompts = tmp_path / "motions", tmp_path / "prompts.txt"
    folder.mkdir()
    for row in range(len(clips)):
        np.save(folder / f"motion{row}.npy", joints_of(clips.features(clips[row])))  # joints, at 20 fps
    prompts.write_text("\n".join(f"a person does action {row // 2}" for row in range(len(clips))))  # each twice
    run_here("evaluate.py", "files", folder, "--prompts", prompts, "--evaluator", evaluator, "--out-dir", tmp_path)
    metrics = table_of(results_in(tmp_path, "files"), "Text-to-motion")
    assert metrics.keys() == {"generated"} and metrics["generated"]["FID"] is None
    assert metrics["generated"]["R@3"]["mean"] > 0
    reason = refused("evaluate.py", "files", folder, "--prompts", prompts, "--evaluator", evaluator, "--data", data)
    assert "there are 0 motion files with a clip of their name or prompt" in reason
    prompts.write_text("a person walks")
    reason = refused("evaluate.py", "files", folder, "--prompts", prompts)
    assert f"there are {len(clips)} files for 1 prompts; give one file per prompt" in reason


# --- In training


def test_training_scores(data, evaluator, tmp_path, run_here, refused):
    options = ("--data", data, "--precision", "float32", "--steps", 2, "--validate-every", 2, "--draw", 0)
    printed = run_here("train_vq.py", "--config", "configs/vq/debug.yaml", *options, "--out", tmp_path / "vq")
    assert all(f" {name} " in printed for name in ("local_mm", "mpjpe_mm", "foot_speed", "jerk_ratio"))
    suite = tmp_path / "suite.yaml"
    suite.write_text("- prompt: a person walks\n  conditions: [moves forward faster than 0 m/s]\n")
    command = ("train_t2m.py", "--config", "configs/t2m/debug.yaml", *options, "--tokenizer", tmp_path / "vq",
               "--model.max-tokens", 200)  # fmt: skip
    printed = run_here(*command, "--out", tmp_path / "t2m", "--evaluator", evaluator, "--prompt-suite", suite)
    scores = dict(re.findall(r"(\w+) ([\d.e+-]+)(?:,|$)", printed.split("step 2: ")[1].splitlines()[0]))
    assert list(scores)[0] == "loss" and float(scores["fid"]) > 0 and 0 <= float(scores["r_precision_3"]) <= 1
    assert float(scores["prompts_missed"]) in (0, 0.25, 0.5, 0.75, 1)
    assert "has conditions" in refused(
        *command, "--out", tmp_path / "other", "--prompt-suite", "assets/demo_prompts.txt"
    )


# --- Refusals


def test_refusals(data, checkpoint, evaluator, t2m_evaluator, tmp_path, refused):
    def problem(command: str, *options: object) -> str:
        return refused("evaluate.py", command, *options, "--out-dir", tmp_path / "out")

    base = ("--checkpoint", checkpoint, "--data", data)
    assert re.search(r"13 clips .* fewer than the 32 .* use a larger split",
                     problem("t2m", *base, "--evaluator", evaluator, "--split", "train"))  # fmt: skip
    assert "none is no folder" in problem("t2m", *base, "--evaluator", tmp_path / "none")
    assert "there is no checkpoint folder" in problem("t2m", "--checkpoint", tmp_path / "none", "--data", data)
    assert "other.txt is missing" in problem("tokenizer", *base, "--split", "other")
    assert "holds no motion" in problem("files", tmp_path)
    assert "is no folder" in problem("files", tmp_path / "none")
    shutil.rmtree(t2m_evaluator / "glove")
    assert "our_vab" in problem("t2m", *base, "--evaluator", t2m_evaluator)
    assert not (tmp_path / "out").exists()


def test_another_skeleton_is_refused(data, checkpoint, evaluator, tmp_path, refused, monkeypatch):
    monkeypatch.setattr(MotionTextEvaluator, "features", 251)
    reason = refused("evaluate.py", "t2m", "--checkpoint", checkpoint, "--data", data, "--evaluator", evaluator)
    assert "251 features of another skeleton" in reason and "use an evaluator of 272 or 263 features" in reason
