"""Generation of one motion under constraints: particles, weighted by how well their frames keep a track.

P copies of the motion, the particles, are sampled together as rows of one batch. At every step

1. each particle samples ``BRANCHES`` tokens from its logits, and all are decoded to frames (the tokenizer is causal);
2. the frames are compared with the track (``control.cost``), which gives the weights of the P * ``BRANCHES`` branches;
3. P of them are drawn in proportion to their weights (systematic resampling);
4. the generator appends the token of each, with the control signal of its true root (``control.signal``).

This is a particle filter (Gordon et al., 1993) with the generator as its proposal distribution. A token is final once
``LOOK_AHEAD`` tokens follow it: then the best particle decides, and particles with another past are dropped. At the
start of a motion the look-ahead is shorter, so that a stream begins at once. Where a value is due, for example a
keyframe, the best particle alone goes on, so that what leads up to it does not change any more.

All random numbers are drawn beforehand from the seed of the motion, so that it depends on nothing else.
"""

from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import NamedTuple

import torch
from torch import Tensor

from control.cost import Frames, TrackCost
from control.poses import Placement
from control.signal import ControlSignal
from control.steering import MEMORY, Steering, bend
from control.track import Track
from models.generate import CONTEXT_SHARE, Request
from models.llama import LLaMAHF
from models.motion_vqvae import HumanVQVAE, State
from models.sampling import Sampler, Sampling, apply_guidance, resolve_guidance, sample_tokens, uniform_numbers
from models.text_dropout import null_text
from motion.features272 import LAYOUT, heading_angle, local_joints, recover_root
from motion.rotation import y_rotation
from motion.skeleton import JOINTS
from utils.errors import InputError

PARTICLES = 16
BRANCHES = 2
LOOK_AHEAD = 8  # tokens, about 1 s
FIRST_LOOK_AHEAD = 2  # tokens, at the start of a motion; the look-ahead then grows by one with every second token
ARRIVED = 0.02  # metres before the end of a path


class Goal(NamedTuple):
    """What a motion shall keep."""

    track: Track  # of as many frames as the motion can have
    start: Placement  # of the first frame
    until_path_end: bool  # whether the motion ends when it reaches the end of the path


class NewFrames(NamedTuple):
    """A token that is final, and its frames."""

    part: int  # number of the sentence, from 0; -1 for the initial motion
    token: int
    features: Tensor  # (frames per token, 2, 272) as decoded and with the turns of ``control.steering``
    progress: float  # metres of the path behind them
    ahead: Tensor  # (F, 2, 272) of the best particle after them, the look-ahead
    progress_ahead: float  # metres of the path behind ``ahead``


@dataclass
class Roots:
    """Place of P particles in the world, and how well they keep the track."""

    heading: Tensor
    """(P, 3, 3) of the last frame."""
    pelvis: Tensor
    """(P, 3) of the last frame, metres."""
    progress: Tensor
    """(P,) metres of the path behind."""
    advance: Tensor
    """(P,) metres of the path behind the last token."""
    travel: Tensor
    """(P, 2) x and z in metres per token in the heading frame, a moving average."""
    ahead: Tensor
    """(P,) cost of the distance from the next value."""
    cost: Tensor
    """(P,) cost of all frames and of the distance from the next value."""
    log_weight: Tensor
    """(P,) minus infinity for a particle that is dropped."""

    @classmethod
    def at(cls, start: Placement, device: torch.device) -> "Roots":
        """Return one particle (P = 1) before its first frame."""
        place = torch.tensor([[start.x, 0.0, start.z]], device=device)
        turned = y_rotation(torch.tensor([start.heading], device=device))
        zero = torch.zeros(1, device=device)
        return cls(turned, place, zero, zero, torch.zeros(1, 2, device=device), zero, zero, zero)

    def keep(self, row: int) -> None:
        """Drop all particles but one."""
        self.log_weight[torch.arange(len(self.log_weight), device=self.log_weight.device) != row] = -torch.inf

    def select(self, rows: Tensor) -> "Roots":
        """Return the particles of the given rows."""
        return Roots(*(getattr(self, field.name)[rows] for field in fields(self)))


class Step(NamedTuple):
    """The tokens of one step."""

    parents: Tensor  # (P,) index of each particle in the step before
    tokens: Tensor  # (P,)
    features: Tensor  # (P, frames per token, 2, 272) not normalized: as decoded, and with turns
    progress: Tensor  # (P,) metres of the path behind the frames
    signals: Tensor  # (P of the step before, W) control signals of the tokens

    def select(self, rows: Tensor) -> "Step":
        """Return the step with the particles of the given rows alone."""
        return Step(self.parents[rows], self.tokens[rows], self.features[rows], self.progress[rows], self.signals)


@torch.inference_mode()
def decode_controlled(
    generator: LLaMAHF, tokenizer: HumanVQVAE, request: Request, goal: Goal, sampling: Sampling
) -> Iterator[NewFrames]:
    """Generate one motion under constraints and yield each token, with its frames, once it is final.

    Args:
        generator: In eval mode; without a control signal (``LLaMAConfig.control`` = 0) the weights alone decide.
        tokenizer: Causal.
        request: The motion to generate; the tokens of its context are yielded first.
        goal: What it shall keep.
        sampling: As in ``models.generate.decode_steps``.

    Raises:
        InputError: the request or the sampling does not fit the model, or the tokenizer is not causal.
    """
    request.validate(generator.config)
    particles = Particles(generator, tokenizer, request, goal, resolve_guidance(generator, sampling))
    yield from particles.initial_motion()
    for number in range(len(request.parts)):
        yield from particles.sentence(number)
    generator.release_cache(particles.cache)


class Particles:
    """Copies of one motion that grow together; a single one before a sentence and ``PARTICLES`` within it.

    With guidance, a particle has two rows of the cache, as in ``models.generate``. Arguments as in
    ``decode_controlled``.
    """

    def __init__(
        self, generator: LLaMAHF, tokenizer: HumanVQVAE, request: Request, goal: Goal, sampling: Sampling
    ) -> None:
        self.generator, self.tokenizer, self.request = generator, tokenizer, request
        self.device = generator.transformer.wte.weight.device
        self.sampler = Sampler.of(sampling, self.device)
        self.rows = self.sampler.rows  # of each particle
        self.until_path_end, track = goal.until_path_end, goal.track.to(self.device)
        self.costs = TrackCost(track, path_due=not goal.until_path_end)
        self.steering = Steering(track)
        self.control = ControlSignal(track) if generator.config.control else None
        config, text_length = generator.config, max(len(part.text) for part in request.parts)
        columns = (
            config.block_size if generator.static_shapes else text_length + min(request.max_tokens, config.max_tokens)
        )
        self.cache = generator.new_cache(self.rows * PARTICLES, columns)
        self.final: list[tuple[int, Tensor]] = []  # tokens, and the signals (W,) that they were sampled with
        self.window: list[Step] = []  # the tokens after them
        self.roots, self.decoder = Roots.at(goal.start, self.device), State()
        self.logits = torch.empty(0)  # (rows, outputs) of the next tokens
        self.signals = torch.empty(0)  # (P, W) control signals that they are predicted with
        draws = sum(part.max_tokens for part in request.parts)
        self.uniforms = iter(uniform_numbers(request.seed, draws, PARTICLES * BRANCHES + 2).to(self.device))

    @property
    def frames(self) -> int:
        """Number of frames so far."""
        return (len(self.final) + len(self.window)) * self.tokenizer.config.stride

    @property
    def best(self) -> int:
        """The particle with the least cost."""
        alive = self.roots.log_weight > -torch.inf
        return int(torch.where(alive, self.roots.cost, torch.inf).argmin())

    def arrived(self) -> bool:
        """Return whether the best particle is nearer to the end of the path than it will be after another token."""
        progress, advance = self.roots.progress[self.best].item(), self.roots.advance[self.best].item()
        return self.costs.path_length.item() - progress <= max(ARRIVED, advance / 2)

    def initial_motion(self) -> Iterator[NewFrames]:
        """Append the tokens of the context."""
        for token in self.request.context:
            self.signals = self._signals()
            self._extend(torch.tensor([token], device=self.device), torch.zeros(1, dtype=torch.long))
            yield from self._finish(-1, 1)

    def sentence(self, number: int) -> Iterator[NewFrames]:
        """Generate the tokens of a sentence."""
        part, last = self.request.parts[number], number == len(self.request.parts) - 1
        limit = self._prefill(number)
        to_path_end = self.until_path_end and not self.arrived()
        for generated in range(1, limit + 1):
            due = last and (to_path_end or self.frames <= self.costs.last_asked)
            uniforms = next(self.uniforms)
            tokens = self._sample(uniforms[1:], may_end=generated > part.min_tokens and not due)
            if tokens is None:
                break
            self._extend(tokens, torch.arange(len(tokens), device=self.device) // BRANCHES)
            if self.costs.begins(self.frames - self.tokenizer.config.stride, self.frames):
                self.roots.keep(self.best)
            if len(self.window) > min(FIRST_LOOK_AHEAD + len(self.final) // 2, LOOK_AHEAD):
                yield from self._finish(number, 1)
            if generated == limit or (generated >= part.min_tokens and to_path_end and self.arrived()):
                break
            self._resample(uniforms[0])
            self._step()
        yield from self._finish(number, len(self.window))

    def _prefill(self, number: int) -> int:
        """Write a sentence and the tokens before it into the cache, and copy the particle.

        Returns:
            Largest number of tokens of the sentence.
        """
        part, limit = self.request.parts[number], self.generator.config.max_tokens
        kept = len(self.final) if number == 0 else min(len(self.final), limit // CONTEXT_SHARE, limit - part.min_tokens)
        past = self.final[len(self.final) - kept :]
        text = part.text.to(self.device)[None]
        mask = torch.ones(text.shape[:2], dtype=torch.bool, device=self.device)
        tokens = torch.tensor([token for token, _ in past], dtype=torch.long, device=self.device)[None]
        if self.rows == 2:
            null, null_mask = null_text(text)
            text, mask, tokens = torch.cat((text, null)), torch.cat((mask, null_mask)), tokens.expand(2, -1)
        self.signals = self._signals()
        signals = torch.stack([*(signal for _, signal in past), self.signals[0]]).expand(self.rows, -1, -1)
        control = signals if self.control else None
        logits = self.generator.prefill(text, mask, tokens, self.cache, control=control)
        if not logits.sum(dtype=torch.float32).isfinite():
            raise InputError("the logits are not finite; the model's weights are damaged or its training diverged")
        self.logits = logits.repeat(PARTICLES, 1)
        self.cache.select(list(range(self.rows)) * PARTICLES)
        self._select(torch.zeros(PARTICLES, dtype=torch.long, device=self.device))
        self.signals = self.signals.expand(PARTICLES, -1)
        return min(part.max_tokens, limit - kept)

    def _signals(self) -> Tensor:
        """Return the control signals (P, W) of the next tokens; W is 0 for a generator without control."""
        roots = self.roots
        if self.control is None:
            return roots.progress.new_zeros(len(roots.progress), 0)
        frame = torch.full_like(roots.progress, self.frames, dtype=torch.long)
        return self.control(frame, roots.pelvis[:, (0, 2)], heading_angle(roots.heading), roots.progress)

    def _sample(self, uniforms: Tensor, may_end: bool) -> Tensor | None:
        """Sample the tokens (P * BRANCHES,) of all branches; None if the best particle ends the sentence."""
        end_id = self.generator.config.end_id
        logits = apply_guidance(self.logits[:, : end_id + 1].float(), self.sampler.guidance)  # (P, V)
        if may_end and sample_tokens(logits[[self.best]], uniforms[:1], self.sampler).item() == end_id:
            return None
        logits[:, end_id] = -torch.inf
        return sample_tokens(logits, uniforms[1:].view(PARTICLES, BRANCHES), self.sampler).flatten()

    def _extend(self, tokens: Tensor, parents: Tensor) -> None:
        """Replace the particles by branches with the tokens (B,), of the particles ``parents`` (B,)."""
        signals, first = self.signals, self.frames
        self._select(parents)
        motion, self.decoder = self.tokenizer.decode_chunk(tokens[:, None], self.decoder)
        decoded, old = self.tokenizer.denormalize(motion), self.roots  # (B, frames per token, 272)
        features = bend(decoded, self._turns(first))
        heading, pelvis = recover_root(features, old.heading, old.pelvis)
        rotations = features[..., LAYOUT["joint_rotations"]].unflatten(-1, (JOINTS, 6))
        frames = Frames(pelvis[..., (0, 2)], heading_angle(heading), local_joints(features), rotations)
        step = self.costs.step(first, frames, old.progress)
        change = step.kept + step.ahead - old.ahead
        moved = heading[:, -1].transpose(1, 2) @ (pelvis[:, -1] - old.pelvis)[..., None]
        self.roots = Roots(
            heading=heading[:, -1],
            pelvis=pelvis[:, -1],
            progress=step.progress,
            advance=step.progress - old.progress,
            travel=MEMORY * old.travel + (1 - MEMORY) * moved[:, (0, 2), 0],
            ahead=step.ahead,
            cost=old.cost + change,
            log_weight=old.log_weight - change,
        )
        self.window.append(Step(parents, tokens, torch.stack((decoded, features), dim=2), step.progress, signals))

    def _turns(self, count: int) -> Tensor:
        """Return the turns (P,) of the next token in radians; the initial motion is not turned."""
        if count < len(self.request.context) * self.tokenizer.config.stride:
            return torch.zeros_like(self.roots.cost)
        roots, sideways = self.roots, torch.atan2(*self.roots.travel.unbind(-1))
        direction, travel = heading_angle(roots.heading) + sideways, roots.travel.norm(dim=-1)
        return self.steering.turn(count, roots.progress, roots.pelvis[:, (0, 2)], direction, travel)

    def _finish(self, part: int, count: int) -> list[NewFrames]:
        """Make the first ``count`` tokens of the window final, and return them: the past of the best particle.

        Particles with another past are dropped. At the end of a sentence, one particle is left.
        """
        lineage = [torch.arange(len(self.roots.cost), device=self.device)]  # ancestors of the particles, the last first
        for step in reversed(self.window[1:]):
            lineage.append(step.parents[lineage[-1]])
        lineage.reverse()
        best = self.best
        past = [int(ancestors[best]) for ancestors in lineage]
        features = torch.stack([step.features[index] for step, index in zip(self.window, past, strict=True)])
        progress = [float(step.progress[index]) for step, index in zip(self.window, past, strict=True)]
        new = []
        for place in range(count):
            step, index = self.window[place], past[place]
            self.final.append((int(step.tokens[index]), step.signals[step.parents[index]]))
            ahead = features[place + 1 :].flatten(0, 1)
            new.append(NewFrames(part, self.final[-1][0], features[place], progress[place], ahead, progress[-1]))
        self.window = self.window[count:]
        if self.window:
            kept = lineage[count - 1]
            self.roots.log_weight[kept != kept[best]] = -torch.inf
        else:
            self._select(torch.tensor([best], device=self.device))
        return new

    def _resample(self, uniform: Tensor) -> None:
        """Draw ``PARTICLES`` of the branches in proportion to their weights, and set the weights to one."""
        weights = self.roots.log_weight.softmax(dim=0).cumsum(dim=0)
        points = (torch.arange(PARTICLES, device=self.device) + uniform) / PARTICLES * weights[-1]
        drawn = torch.searchsorted(weights, points, right=True).clamp(max=len(weights) - 1)
        parents = drawn // BRANCHES
        order = stay_in_place(parents.tolist())
        self._select(drawn[order])
        self.roots.log_weight = torch.zeros_like(self.roots.log_weight)
        self.window[-1] = self.window[-1].select(drawn[order])
        rows = parents[order][:, None] * self.rows + torch.arange(self.rows, device=self.device)
        self.cache.select(rows.flatten().tolist())

    def _step(self) -> None:
        """Append the last tokens of the particles to the cache and predict the next ones."""
        tokens = self.window[-1].tokens.repeat_interleave(self.rows)
        self.signals = self._signals()
        control = self.signals.repeat_interleave(self.rows, dim=0) if self.control else None
        self.logits = self.generator.step(tokens, self.cache, self.cache.extend(len(tokens)), control)

    def _select(self, rows: Tensor) -> None:
        """Keep the particles of the given rows, without their rows of the cache."""
        self.roots = self.roots.select(rows)
        self.decoder = {conv: inputs[rows] for conv, inputs in self.decoder.items()}


def stay_in_place(parents: list[int]) -> list[int]:
    """Return an order of particles in which as many as possible have the place of their parent.

    Args:
        parents: Places of their parents, less than the number of particles.
    """
    order, waiting = [-1] * len(parents), []
    for particle, parent in enumerate(parents):
        if order[parent] < 0:
            order[parent] = particle
        else:
            waiting.append(particle)
    return [particle if particle >= 0 else waiting.pop() for particle in order]
