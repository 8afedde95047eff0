"""Our own evaluator: its data, its corruptions, its training from the command line, and the shipped checkpoint."""

import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from dataset.caption_groups import caption_groups, named_sides, same_sides
from dataset.captioned_clips import CaptionedClips, collate
from dataset.corruptions import change_speed, freeze, reflect, replay, reverse, swap_limbs
from dataset.motion_folder import MotionFolder
from dataset.synthetic import synthetic_clips
from evaluation.evaluators.contrastive import EvaluatorConfig, MotionTextEvaluator
from evaluation.evaluators.interface import Caption
from motion.features272 import LAYOUT, features_from_motion, recover_joints
from tests.conftest import ROOT
from train_evaluator import contrastive_loss
from training.options import EvaluatorOptions
from utils.checkpoint import WEIGHTS, save_model
from utils.config import parse_options
from utils.errors import InputError

DEBUG = ("--config", ROOT / "configs" / "evaluator" / "debug.yaml", "--precision", "float32")
SMALL = EvaluatorConfig(embedding=16, width=16, heads=2, motion_layers=2, text_layers=1)


@pytest.fixture(scope="module")
def motions() -> list[np.ndarray]:
    """Features (T, 272) of procedural clips of different lengths."""
    clips = synthetic_clips(6)
    return [features_from_motion(clip.rotations, clip.pelvis) for clip in clips]


@pytest.fixture(scope="module")
def model() -> MotionTextEvaluator:
    torch.manual_seed(0)
    return MotionTextEvaluator(SMALL).eval()


@pytest.fixture
def validated_folder(data_folder, tmp_path):
    """The prepared folder with as many validation clips as a pool needs."""
    copy = tmp_path / "data"
    shutil.copytree(data_folder, copy, ignore=shutil.ignore_patterns("tokens", "text_features"))
    shutil.copyfile(copy / "split" / "train.txt", copy / "split" / "val.txt")
    return copy


# --- Embeddings


def test_embedding_of_a_motion_does_not_depend_on_others_or_on_padding(model, motions):
    together = model.embed_motions(motions)
    assert together.shape == (len(motions), SMALL.embedding) and together.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(together, axis=1), 1, atol=1e-5)
    alone = np.concatenate([model.embed_motions([motion]) for motion in motions])
    np.testing.assert_allclose(together, alone, atol=1e-5)
    motion = torch.from_numpy(motions[0])
    padded = torch.cat((motion, 5 * torch.randn(37, motion.shape[1])))
    with torch.no_grad():
        embedded = model.encode_motion(padded[None], torch.tensor([len(motion)]))
    np.testing.assert_allclose(embedded.numpy(), together[:1], atol=1e-5)
    assert np.abs(together[0] - together[1]).max() > 1e-3


def test_embedding_of_a_caption_does_not_depend_on_others(model):
    captions = [Caption(text) for text in ("a person walks", "someone jumps up and down twice", "a person walks")]
    together = model.embed_texts(captions)
    assert together.shape == (3, SMALL.embedding) and np.array_equal(together[0], together[2])
    np.testing.assert_allclose(together, np.concatenate([model.embed_texts([each]) for each in captions]), atol=1e-5)


@pytest.mark.parametrize("precision, tolerance", [("float32", 0), ("float16", 5e-3)])
def test_saved_evaluator_gives_the_same_embeddings(model, motions, tmp_path, precision, tolerance):
    save_model(model, tmp_path, precision)
    loaded = MotionTextEvaluator.from_pretrained(tmp_path)
    assert loaded.config == SMALL
    np.testing.assert_allclose(loaded.embed_motions(motions), model.embed_motions(motions), atol=tolerance)


def test_motions_and_captions_that_cannot_be_embedded_are_refused(model, motions):
    longest = np.zeros((SMALL.max_frames + 1, motions[0].shape[1]), np.float32)
    bad = {
        "features (frames, 272)": motions[0][:, :263],
        "has 19 frames": motions[0][: SMALL.min_frames - 1],
        f"{SMALL.max_frames + 1} frames": longest,
        "NaN": np.full_like(motions[0], np.nan),
    }
    for words, motion in bad.items():
        with pytest.raises(InputError) as error:
            model.embed_motions([motions[1], motion])
        assert "motion 1" in str(error.value) and words in str(error.value)
    for captions in ([], [Caption("a person walks"), Caption(" ")]):
        with pytest.raises(InputError, match="caption"):
            model.embed_texts(captions)
    for change in ({"width": 30, "heads": 4}, {"min_frames": 2}, {"max_frames": 10}, {"text_encoder": "bert"}):
        with pytest.raises(InputError):
            EvaluatorConfig(**change)


# --- Corruptions


def test_corruptions_change_the_order_the_tempo_or_the_sides_and_nothing_else(motions):
    motion = torch.from_numpy(motions[0])
    joints, body = recover_joints(motion), motion[:, LAYOUT["joint_positions"]]
    frames = torch.arange(float(len(motion)))
    torch.testing.assert_close(replay(motion, frames), motion, atol=1e-5, rtol=0)
    torch.testing.assert_close(reverse(reverse(motion)), motion, atol=1e-5, rtol=0)
    torch.testing.assert_close(reflect(reflect(motion)), motion, atol=1e-4, rtol=0)
    torch.testing.assert_close(swap_limbs(swap_limbs(motion)), motion, atol=0, rtol=0)

    path = recover_joints(reverse(motion))[:, 0, (0, 2)]
    distances = (path[-1] - path[0]).norm(), (joints[-1, 0, (0, 2)] - joints[0, 0, (0, 2)]).norm()
    torch.testing.assert_close(*distances, atol=1e-3, rtol=0)
    torch.testing.assert_close(reverse(motion)[:, LAYOUT["joint_positions"]], body.flip(0), atol=1e-6, rtol=0)

    slow = change_speed(motion, 0.5)
    assert len(slow) == 2 * len(motion) - 1 and len(change_speed(motion, 2.0)) == (len(motion) + 1) // 2
    torch.testing.assert_close(slow[::2, LAYOUT["joint_positions"]], body, atol=1e-6, rtol=0)
    torch.testing.assert_close(recover_joints(slow)[::2], joints, atol=2e-3, rtol=0)

    frozen = freeze(motion, start=0.5)[len(motion) // 2 + 1 :]
    still = frozen[:, LAYOUT["joint_velocities"]].abs().max() + frozen[:, LAYOUT["root_velocity"]].abs().max()
    assert len(freeze(motion)) == len(motion) and still < 1e-6


def test_corrupted_features_equal_those_encoded_from_the_poses():
    clip = next(iter(synthetic_clips(8, seed=3)))
    motion = torch.from_numpy(features_from_motion(clip.rotations, clip.pelvis))
    encoded = features_from_motion(clip.rotations[::-1].copy(), clip.pelvis[::-1].copy())
    np.testing.assert_allclose(reverse(motion).numpy(), encoded, atol=2e-5)


# --- Training data


def test_clips_that_share_a_caption_say_the_same_and_sides_differ():
    captions = [["a", "b"], ["B ", "c"], ["d"], ["c"], ["e", "d"], ["f"]]
    groups = caption_groups(captions)
    assert groups[0] == groups[1] == groups[3] and groups[2] == groups[4] and len(set(groups)) == 3
    assert named_sides("turns Left, then counter-clockwise; leftover") == ["left", "counter-clockwise"]
    same = same_sides(["raises the left hand", "lifts a left arm", "raises the right hand", "waves"])
    np.testing.assert_array_equal(same, np.eye(4, dtype=bool) | (np.add.outer(range(4), range(4)) == 1))


def test_items_depend_on_their_number_alone_and_mark_reflected_copies(data_folder):
    items = CaptionedClips(MotionFolder(data_folder).clips("train"), min_frames=20, max_frames=70)
    numbers = [0, 1, 2, len(items) + 1, 5 * len(items) + 2, 9 * len(items)]
    batch, again = (collate([items[number] for number in numbers]) for _ in range(2))
    for first, second in zip(batch, again, strict=True):
        assert torch.equal(first, second) if torch.is_tensor(first) else first == second
    assert batch.ids[1] == batch.ids[3] and not torch.equal(batch.features[1], batch.features[3])
    assert batch.lengths.max() <= 70 and (batch.corrupted_lengths <= batch.lengths).all()
    reflected = [item for number in range(60) if (item := items[number]).is_reflected]
    assert reflected and all(named_sides(item.caption) for item in reflected)


def test_loss_ignores_motions_of_captions_that_say_the_same():
    texts, motions = torch.eye(3), torch.eye(3)
    same, nothing = torch.eye(3, dtype=torch.bool), torch.zeros(3, 3, dtype=torch.bool)
    assert contrastive_loss(texts, motions, motions, same, nothing, 0.01) < 1e-6
    motions = torch.stack((motions[0], motions[0], motions[2]))  # motion 1 is taken for motion 0
    texts = texts.index_copy(0, torch.tensor([1]), texts[:1])
    assert contrastive_loss(texts, motions, motions, same, nothing, 0.01) > 1
    same[0, 1] = same[1, 0] = True
    assert contrastive_loss(texts, motions, motions, same, nothing, 0.01) < 1e-6
    assert contrastive_loss(texts, motions, motions, same, same, 0.01) > 1  # corrupted copies are as similar


# --- Training script


def test_resumed_training_equals_an_uninterrupted_one_and_is_measured(run_here, validated_folder, tmp_path):
    command = ("train_evaluator.py", *DEBUG, "--data", validated_folder, "--batch-size", 8, "--cache-text-features")
    schedule = ("--schedule", "constant", "--warmup", 4, "--validate-every", 2)
    run_here(*command, *schedule, "--out", tmp_path / "whole", "--steps", 4)
    run_here(*command, *schedule, "--out", tmp_path / "run", "--steps", 2)
    run_here(*command, *schedule, "--out", tmp_path / "run", "--steps", 4, "--resume")
    whole, resumed = (load_file(tmp_path / name / WEIGHTS) for name in ("whole", "run"))
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
    assert {path.name for path in (tmp_path / "whole" / "best").iterdir()} == {"config.json", WEIGHTS}

    model = MotionTextEvaluator.from_pretrained(tmp_path / "whole")
    np.testing.assert_array_equal(model.mean, MotionFolder(validated_folder).mean_std()[0])
    printed = run_here("benchmarks.evaluator", "--evaluator", tmp_path / "whole", "--data", validated_folder,
                       "--split", "val", "--repeats", 2)  # fmt: skip
    assert "motions by caption" in printed and "half speed" in printed and "nan" not in printed


def test_data_that_cannot_be_trained_on_is_refused(refused, validated_folder, tmp_path):
    def error(*options: object) -> str:
        return refused("train_evaluator.py", *DEBUG, "--data", validated_folder, "--out", tmp_path / "run", *options)

    assert "leaves no other motion" in error("--batch-size", 1)
    assert "unknown text encoder" in error("--model.text-encoder", "bert")
    assert "is not a multiple of" in error("--model.width", 33)
    assert "no training clip has 599 frames" in error("--model.min-frames", 599)
    folder = MotionFolder(validated_folder)
    for clip_id in folder.ids("train"):
        folder.caption_file(clip_id).write_text("\n")
    assert "without a caption" in error()
    folder.caption_file(clip_id).unlink()
    assert "has no captions" in error()


@pytest.mark.parametrize("path", sorted((ROOT / "configs" / "evaluator").iterdir()), ids=lambda path: path.stem)
def test_shipped_configs_are_valid(path):
    options, _ = parse_options(EvaluatorOptions, "", ["--config", str(path), "--data", "d", "--out", "o"])
    MotionTextEvaluator(options.model)


# --- Shipped checkpoint

SHIPPED = ROOT / "checkpoints" / "evaluator"


@pytest.fixture(scope="module")
def shipped() -> MotionTextEvaluator:
    return MotionTextEvaluator.from_pretrained(SHIPPED)


def test_shipped_evaluator_is_small_and_described():
    assert sum(path.stat().st_size for path in SHIPPED.iterdir()) < 8e6
    assert {path.name for path in SHIPPED.iterdir()} == {"README.md", "config.json", WEIGHTS}


@pytest.mark.parametrize(
    "action, caption",
    [("raise_{}_hand", "a person raises the {} hand"), ("walk_turn_{}", "a person walks and turns {}")],
)
def test_shipped_evaluator_tells_the_sides_of_procedural_motions(shipped, action, caption):
    clips = {clip.name.rpartition("_")[0]: clip for clip in synthetic_clips(22)}
    chosen = [clips[action.format(side)] for side in ("left", "right")]
    motions = [features_from_motion(clip.rotations, clip.pelvis) for clip in chosen]
    texts = shipped.embed_texts([Caption(caption.format(side)) for side in ("left", "right")])
    similarities = texts @ shipped.embed_motions(motions).T  # (2, 2)
    assert (similarities.diagonal() > similarities[::-1].diagonal() + 0.02).all()


def test_shipped_evaluator_tells_corrupted_procedural_motions_from_right_ones(shipped):
    clip = next(synthetic_clips(1))  # walks forward
    motion = torch.from_numpy(features_from_motion(clip.rotations, clip.pelvis))
    motions = [each(motion).numpy() for each in (torch.clone, reverse, freeze, swap_limbs)]
    right, *wrong = shipped.embed_motions(motions) @ shipped.embed_texts([Caption("a person walks forward")])[0]
    assert right > max(wrong) + 0.1
