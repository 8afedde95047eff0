"""Generation under constraints: particles, streams, sequences, and constraints it refuses."""

import numpy as np
import pytest
import torch

import models.controlled
from control.constraints import Constraints, Pin, RootPath, Waypoint
from control.poses import Keyframe, MotionFrames
from control.signal import SIGNAL_WIDTH
from models.constrained import goal_of
from models.controlled import Particles
from models.generate import Part, Request
from models.pipeline import TextToMotion
from models.sampling import Sampling, apply_guidance
from motion.clip import Clip
from motion.resample import FPS
from tests.inference.helpers import PROMPTS, tiny_generator, tiny_tokenizer
from utils.errors import InputError

WAYPOINT = Constraints(waypoints=(Waypoint(1.0, (0.2, 0.9)),), length=1.6)
PATH = Constraints(path=RootPath(((0.0, 0.0), (0.0, 0.7), (0.4, 0.9))))


def walker(minilm, control: int) -> TextToMotion:
    """An untrained model that moves forward at 0.9 m/s."""
    tokenizer = tiny_tokenizer([5, 5, 5])
    tokenizer.mean[1] = 0.9 / FPS
    generator = tiny_generator(tokenizer, control=control)
    if control:
        torch.nn.init.normal_(generator.control_proj.c_proj.weight, std=3.0)
    return TextToMotion(generator, tokenizer, minilm, "tiny")


@pytest.fixture(scope="module", params=[0, SIGNAL_WIDTH], ids=["weights alone", "control signal"])
def model(request, minilm) -> TextToMotion:
    return walker(minilm, request.param)


def generated(model: TextToMotion, constraints: Constraints | None, seed: int = 0, **options):
    return model.generate(PROMPTS[:1], [seed], constraints=[constraints], **options)[0]


def test_motion_depends_only_on_text_seed_settings_and_constraints(model):
    free, first, second = model.generate(PROMPTS[:1] * 3, [0, 0, 1], constraints=[None, WAYPOINT, WAYPOINT])
    np.testing.assert_array_equal(free.tokens, model.generate(PROMPTS[:1], [0])[0].tokens)
    assert free.constraints is None and not free.errors
    again = generated(model, WAYPOINT)
    np.testing.assert_array_equal(first.tokens, again.tokens)
    np.testing.assert_array_equal(first.joints, again.joints)
    assert first.tokens.tolist() != second.tokens.tolist()


def test_constraints_are_kept_and_errors_reported(model):
    motion = generated(model, WAYPOINT)
    assert len(motion.joints) == 48 and motion.constraints is WAYPOINT
    np.testing.assert_allclose(motion.joints[30, 0, ::2], (0.2, 0.9), atol=1e-3)
    np.testing.assert_allclose(motion.smplx85[30, [72, 74]], (0.2, 0.9), atol=1e-3)
    assert [error.name for error in motion.errors] == ["the waypoint at 1 s"] and motion.errors[0].error < 1e-3


def test_motion_ends_with_its_path_and_starts_where_it_starts(model):
    motion = generated(model, PATH)
    assert 8 <= len(motion.tokens) <= 14  # 1.15 m at 0.12 m per token
    assert np.linalg.norm(motion.joints[-1, 0, ::2] - (0.4, 0.9)) < 0.01
    moved = Constraints(path=RootPath(((2.0, 1.0), (3.0, 1.0))))
    placed = generated(model, moved)
    np.testing.assert_allclose(placed.start, (2.0, 1.0, np.pi / 2), atol=0.3)
    np.testing.assert_allclose(placed.joints[0, 0, ::2], (2.0, 1.0), atol=0.05)


@pytest.mark.parametrize("prompt", [PROMPTS[0], "a person walks | someone waves the left hand"])
@pytest.mark.parametrize("init", [None, 13])
def test_stream_has_the_tokens_of_the_motion_and_keeps_the_constraints(model, prompt, init):
    if init is not None:
        init = model.generate(["a person jumps"], [8], seconds=[1.0])[0].features[:init]
    motion = model.generate([prompt], [4], init=init, constraints=[WAYPOINT])[0]
    chunks = list(model.stream(prompt, 4, init=init, constraints=WAYPOINT))
    np.testing.assert_array_equal(np.concatenate([chunk.tokens for chunk in chunks]), motion.tokens)
    sentences = prompt.count("|") + 1
    assert sorted({chunk.part for chunk in chunks}) == ([] if init is None else [-1]) + list(range(sentences))
    joints = np.concatenate([chunk.joints for chunk in chunks])
    assert len(joints) == len(motion.joints) == sum(len(chunk.features) for chunk in chunks)
    np.testing.assert_allclose(joints[30, 0, ::2], (0.2, 0.9), atol=0.02)


def test_stream_yields_while_later_tokens_are_generated(model, monkeypatch):
    steps, step = [], model.generator.step
    monkeypatch.setattr(model.generator, "step", lambda *arguments: (steps.append(1), step(*arguments))[1])
    stream = model.stream(PROMPTS[0], 0, constraints=WAYPOINT)
    next(stream)
    assert len(steps) == models.controlled.FIRST_LOOK_AHEAD
    stream.close()


@torch.inference_mode()
def test_particles_equal_their_tokens_computed_anew(model):
    request = Request([Part(torch.randn(5, 384), 12, 12)], seed=1)
    goal = goal_of(WAYPOINT, 48, 1.6)
    particles = Particles(model.generator, model.tokenizer, request, goal, Sampling(guidance=2.0))
    for _ in particles.sentence(0):
        if len(particles.final) == 3:
            break
    assert len({tuple(step.tokens.tolist()) for step in particles.window}) > 1
    particles._resample(torch.tensor(0.4))
    particles._step()
    index, tokens, signals, features = torch.arange(models.controlled.PARTICLES), [], [particles._signals()], []
    for step in reversed(particles.window):
        tokens.insert(0, step.tokens[index])
        features.insert(0, step.features[index, :, 0])
        index = step.parents[index]
        signals.insert(0, step.signals[index])
    final = torch.tensor([token for token, _ in particles.final])
    tokens = torch.cat((final.expand(len(index), -1), torch.stack(tokens, dim=1)), dim=1)  # (P, n)
    past = torch.stack([signal for _, signal in particles.final]).expand(len(index), -1, -1)
    control = torch.cat((past, torch.stack(signals, dim=1)), dim=1) if model.generator.config.control else None
    text = request.parts[0].text.expand(len(index), -1, -1)
    mask = torch.ones(text.shape[:2], dtype=torch.bool)
    logits = [
        model.generator(text * scale, mask if scale else mask & (torch.arange(5) == 0), tokens, control=control)[:, -1]
        for scale in (1, 0)
    ]
    guidance = torch.tensor(2.0)
    cached = apply_guidance(particles.logits, guidance)
    whole = apply_guidance(torch.stack(logits, 1).flatten(0, 1), guidance)
    torch.testing.assert_close(cached, whole, atol=1e-3, rtol=1e-4)
    decoded = model.tokenizer.denormalize(model.tokenizer.decode(tokens))[:, 4 * len(final) :]
    torch.testing.assert_close(torch.cat(features, dim=1), decoded, atol=1e-4, rtol=0)


def test_more_particles_come_nearer(model, monkeypatch):
    def missed(particles: int) -> float:
        monkeypatch.setattr(models.controlled, "PARTICLES", particles)
        off = []
        for seed in range(4):
            request = Request([Part(torch.ones(5, 384), 9, 9)], seed)
            goal = goal_of(WAYPOINT, 48, 1.6)
            run = Particles(model.generator, model.tokenizer, request, goal, Sampling(guidance=1.0))
            list(run.sentence(0))
            off.append(run.roots.cost.item())
        return float(np.mean(off))

    assert missed(16) < missed(1)


def test_constraints_of_poses_and_pins(model):
    pose = MotionFrames.of(Clip(model.generate(["a jump"], [3], seconds=[1.0])[0].smplx85), 12)
    constraints = Constraints(
        keyframes=(Keyframe(1.0, pose),), pins=(Pin("right_wrist", (None, 1.0, None), 0.3, 0.4),), length=1.6
    )
    motion = generated(model, constraints)
    keyframe, pin = motion.errors
    assert keyframe.error < 0.01 and pin.error < 0.03


def test_impossible_constraints_are_refused(model):
    for constraints, seconds, words in (
        (Constraints(waypoints=(Waypoint(3.0, (0.0, 1.0)),)), 1.0, "outside the motion"),
        (Constraints(waypoints=(Waypoint(9.0, (0.0, 1.0)),)), None, "at most 2.1 s"),
        (Constraints(length=1.5), 1.0, "1.5 s"),
    ):
        with pytest.raises(InputError, match=words):
            model.generate(PROMPTS[:1], [0], seconds=[seconds], constraints=[constraints])
        with pytest.raises(InputError, match=words):
            model.stream(PROMPTS[0], 0, seconds=seconds, constraints=constraints)
    with pytest.raises(InputError, match="2 constraints"):
        model.generate(PROMPTS[:1], [0], constraints=[None, None])
