"""Results of inference_batch.py: motions, videos, files for other tools, and results.json."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image

from formats.clip import read_clip
from models.known import Action, Known
from motion.features272 import features_to_smplx85
from motion.foot_lock import lock_feet
from motion.resample import FPS
from motion.skeleton import JOINTS, REST_OFFSETS, forward_kinematics
from motion.smplx import smplx85_to_motion
from tests.conftest import ROOT
from tests.inference.helpers import (
    HOSTILE,
    PROMPTS,
    assert_refused,
    backdate,
    changed_files,
    frames_of,
    load,
    npz_files,
    results_in,
)
from visualize.strips import GAP, TILE


def test_npz_files_and_results_list_every_motion(run, prompt_file, tmp_path, model):
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
        smplx85 = lock_feet(features_to_smplx85(saved["features"]))
        np.testing.assert_allclose(smplx85, saved["smplx_85"], atol=1e-5)
        rotations, pelvis = smplx85_to_motion(saved["smplx_85"])
        np.testing.assert_allclose(forward_kinematics(rotations, pelvis, REST_OFFSETS), saved["joints"], atol=1e-4)
        assert int(saved["fps"]) == FPS and str(saved["prompt"]) == result["prompt"]
        assert int(saved["seed"]) == result["seed"]
        assert str(saved["checkpoint"]) == result["checkpoint"] == model.checkpoint_id
        assert result["frames"] == frames and result["settings"] == json.loads(str(saved["settings"]))
        assert result["end"] == ("limit" if len(tokens) == model.generator.config.max_tokens else "itself")
        motions.append(tokens.tolist())
    assert len({tuple(tokens) for tokens in motions}) == len(motions)  # samples and prompts differ


def test_sentences_far_from_the_training_are_named_once_and_recorded(run, checkpoint, minilm, tmp_path):
    known = shutil.copytree(checkpoint, tmp_path / "known")
    Known.of_training(["someone bows"], [Action("walk", "a person walks")], minilm).save(known)
    prompt = "a person walks | the share price fell"
    status, _, errors = run("--prompt", prompt, "--samples", 2, "--seconds", 0.2, checkpoint=known)
    assert status == 0 and errors.count("'the share price fell' is far from all captions") == 1
    for result in results_in(tmp_path / "out"):
        near, far = result["sentences"]
        assert near == {"sentence": "a person walks", "closest": "a person walks", "similarity": 1.0}
        assert far["sentence"] == "the share price fell" and far["similarity"] < 0.5
    run("--prompt", "the share price fell", "--seconds", 0.2, out="old")  # of a checkpoint without the file
    assert "sentences" not in results_in(tmp_path / "old")[0]
    assert npz_files(tmp_path / "old")[0].name == "the-share-price-fell_seed0.npz"


def test_known_actions_are_listed_without_prompts(run, checkpoint, tmp_path):
    status, output, _ = run("--list-actions", checkpoint=ROOT / "checkpoints/demo")
    assert status == 0 and "actions, each with an example sentence" in output and "a person walks" in output
    assert not (tmp_path / "out").exists()
    assert_refused(run("--list-actions"), "known.safetensors")


def test_batch_size_does_not_change_motions(run, prompt_file, tmp_path):
    run("--prompts", prompt_file, "--batch-size", 1, out="single")
    run("--prompts", prompt_file, "--batch-size", 2, out="pairs")
    for single, pair in zip(npz_files(tmp_path / "single"), npz_files(tmp_path / "pairs"), strict=True):
        np.testing.assert_array_equal(load(single)["tokens"], load(pair)["tokens"])


def test_lengths_of_prompts_and_of_the_run(run, tmp_path):
    file = tmp_path / "prompts.jsonl"
    file.write_text('{"prompt": "walk", "name": "own", "length": 2}\n{"prompt": "walk", "name": "common"}\n')
    assert run("--prompts", file, "--seconds", 0.8)[0] == 0
    assert len(load(tmp_path / "out" / "own.npz")["features"]) == 60
    assert len(load(tmp_path / "out" / "common.npz")["features"]) == 24
    assert [result["end"] for result in results_in(tmp_path / "out")] == ["length", "length"]


def test_hostile_prompts_write_only_into_the_output_folder(run, tmp_path):
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
    before = backdate(tmp_path / "out")
    assert run("--prompts", file, "--seconds", 0.2)[0] == 0
    assert changed_files(tmp_path / "out", before) == {"results.json"}  # every prompt is recognized


@pytest.mark.parametrize("view", ["mesh", "skeleton", "both"])
def test_videos_show_every_frame(run, tmp_path, view):
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


def test_files_for_other_tools_hold_the_same_motion(run, prompt_file, tmp_path):
    arguments = ("--prompts", prompt_file, "--seconds", 0.4, "--save", "bvh,glb,html,sheet")
    status, output, _ = run(*arguments)
    assert status == 0 and output.splitlines()[-1] == "open out/contact_sheet.png and out/gallery.html"
    out = tmp_path / "out"
    for result in results_in(out):
        assert result["files"] == [f"{result['name']}.{kind}" for kind in ("npz", "bvh", "glb", "html")]
        saved, back = load(out / result["files"][0]), read_clip(out / result["files"][1]).smplx85
        rotations, pelvis = smplx85_to_motion(back)
        np.testing.assert_allclose(forward_kinematics(rotations, pelvis), saved["joints"], atol=1e-4)
        assert {"poses", "trans", "betas", "gender", "mocap_framerate"} <= set(saved)
    assert (out / "gallery.html").stat().st_size > 500_000
    assert Image.open(out / "contact_sheet.png").size == (3 * TILE[0] + 2 * GAP, TILE[1])
    before = backdate(out)
    assert run(*arguments)[0] == 0
    assert changed_files(out, before) == {"results.json", "gallery.html", "contact_sheet.png"}


def test_foot_lock_changes_the_motion_and_not_its_tokens(run, prompt_file, tmp_path):
    run("--prompts", prompt_file, "--seconds", 1, "--foot-lock", "false")
    free = [load(file) for file in npz_files(tmp_path / "out")]
    assert run("--prompts", prompt_file, "--seconds", 1)[0] == 0
    for before, after in zip(free, map(load, npz_files(tmp_path / "out")), strict=True):
        np.testing.assert_array_equal(after["tokens"], before["tokens"])
        np.testing.assert_array_equal(after["features"], before["features"])
        np.testing.assert_allclose(after["smplx_85"], lock_feet(before["smplx_85"]), atol=1e-5)
        assert np.abs(after["joints"] - before["joints"]).max() > 1e-4


def test_motions_continue_a_motion_file(run, tmp_path):
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
