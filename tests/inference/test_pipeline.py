"""TextToMotion: generation, streams, sequences, and prompts it refuses."""

import numpy as np
import pytest
import torch

from models.sampling import Sampling
from motion.features272 import features_to_smplx85
from motion.resample import FPS
from motion.skeleton import forward_kinematics
from motion.smplx import smplx85_to_motion
from tests.inference.helpers import PROMPTS
from utils.errors import InputError
from utils.prompts import MAX_PROMPT


def test_motion_arrays_agree(model):
    motion = model.generate(PROMPTS[:1], [3], seconds=[1.0])[0]
    assert motion.tokens.dtype == np.int64 and motion.features.dtype == np.float32
    frames = len(motion.tokens) * model.frames_per_token
    assert motion.features.shape == (frames, 272) and abs(frames - FPS) <= model.frames_per_token / 2
    np.testing.assert_allclose(motion.smplx85, features_to_smplx85(motion.features))
    rotations, pelvis = smplx85_to_motion(motion.smplx85)
    np.testing.assert_allclose(forward_kinematics(rotations, pelvis), motion.joints, atol=1e-4)


def test_motion_depends_only_on_text_seed_and_settings(model):
    together = model.generate(PROMPTS, [5, 5, 6])
    reverse = model.generate(PROMPTS[::-1] + ["people dance with slow and careful steps"], [6, 5, 5, 0])
    for row, motion in enumerate(together):
        alone = model.generate([PROMPTS[row]], [motion.seed])[0]
        for other in (alone, reverse[2 - row]):
            assert other.prompt == motion.prompt
            np.testing.assert_array_equal(other.tokens, motion.tokens)
            np.testing.assert_allclose(other.features, motion.features, atol=1e-5)
    same_seed = [motion.tokens.tolist() for motion in together[:2]]
    assert same_seed[0] != same_seed[1]  # the text has an effect
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


def test_motions_are_yielded_as_they_finish(model):
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
def test_stream_equals_generated_motion(model, prompt, init):
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


def test_stream_yields_during_generation_and_can_be_closed(model, monkeypatch):
    steps, step = [], model.generator.step
    monkeypatch.setattr(model.generator, "step", lambda *arguments: (steps.append(1), step(*arguments))[1])
    stream = model.stream(PROMPTS[0], 0, seconds=1.0)
    for count in range(3):
        chunk = next(stream)
        assert len(steps) == count and len(chunk.joints) == model.frames_per_token
    stream.close()
    assert len(steps) == 2


def test_sequence_as_list_equals_sequence_as_text(model):
    parts = ["a person walks", "someone waves the left hand"]
    listed, written = model.generate([parts, " | ".join(parts)], [3, 3])
    np.testing.assert_array_equal(listed.tokens, written.tokens)
    assert listed.prompt == written.prompt == "a person walks | someone waves the left hand"


def test_unusable_initial_motions_are_refused(model):
    long, short = np.zeros((70, 272), np.float32), np.zeros((3, 272), np.float32)
    for init, words in ((long, "leaves room for 0 of the 16"), (short, "3 frames"), (long[:, :200], "272")):
        with pytest.raises(InputError, match=words):
            model.generate(["walk"], [0], init=init)
    with pytest.raises(InputError, match="leaves room for 6 of the 16"):
        next(model.stream("walk", init=long[:40], seconds=1.0))


def test_batched_decoding_equals_single_rows(model):
    tokens = [torch.randint(model.tokenizer.codebook_size, (count,)) for count in (1, 9, 4)]
    for ids, features in zip(tokens, model.decode(tokens), strict=True):
        np.testing.assert_allclose(features, model.decode([ids])[0], atol=1e-5)


@pytest.mark.parametrize("seconds", [0, -1.0, 1e6, float("nan"), float("inf")])
def test_impossible_lengths_are_refused(model, seconds):
    with pytest.raises(InputError, match="at most 2.1"):
        model.generate(["a person walks"], [0], seconds=[seconds])


@pytest.mark.parametrize(
    "prompt", ["", " \n\t", "\u200b", "x" * (MAX_PROMPT + 1), "\ud800 half a character", "nul \0", 5, None]
)
def test_impossible_prompts_are_refused(model, prompt):
    with pytest.raises(InputError, match="prompt"):
        model.generate([prompt], [0])
