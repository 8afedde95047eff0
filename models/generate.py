"""Generation of motion tokens from text features: continuous batching over a KV cache.

``decode_steps`` advances a batch of rows by one token per step. A request is prefilled once; finished rows are replaced
by waiting requests, so that no step is spent on a finished row. Without waiting requests the batch shrinks.
``generate`` collects whole motions; ``decode_steps`` yields the tokens of each step.

All uniform random numbers of a row are drawn beforehand from its own seed. The tokens of a row therefore depend on its
text, seed and settings, not on the other rows (up to the rounding of batched matrix products: tiny in float32; in
bfloat16 tokens can change).

A GPU computes tokens faster than the host can read each of them. Sampling, minimum lengths and the next token therefore
stay on the device, and the host reads the tokens of several steps at once. A row that ends among these steps computes a
few more tokens, which are discarded.
"""

import math
from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from models.compiled_step import CompiledStep
from models.llama import LLaMAHF
from models.llama_config import LLaMAConfig
from models.sampling import Sampler, Sampling, next_tokens, resolve_guidance, sampled_step, uniform_numbers
from models.text_dropout import null_text
from utils.device import to_device
from utils.errors import InputError

READ_EVERY = 8  # steps whose tokens are read together from a GPU; a CPU has nothing to wait for
REFILL = 8  # prefill new requests once 1/REFILL of the slots is free: a few together cost little more than one
PREFILL_GROUP = 8  # rows per prefill; they are of similar length, so that there is little padding
CONTEXT_SHARE = 4  # the next sentence of a sequence sees the last 1/CONTEXT_SHARE of the model's tokens


@dataclass
class Part:
    """One sentence of a request: its features (L, D) and bounds on the number of tokens."""

    text: Tensor
    min_tokens: int
    max_tokens: int


@dataclass
class Request:
    """One motion to generate: for one sentence or several in sequence, continuing the tokens in ``context``."""

    parts: list[Part]
    seed: int = 0
    context: list[int] = field(default_factory=list)
    is_dropped: bool = False
    """May be set during generation: the motion ends before its next token."""

    @property
    def max_tokens(self) -> int:
        """Largest number of tokens of the motion, ``context`` included."""
        return len(self.context) + sum(part.max_tokens for part in self.parts)

    def validate(self, config: LLaMAConfig) -> None:
        """Raise InputError unless a model of this configuration can generate the request."""
        if not self.parts:
            raise InputError("a request has no text; give at least one prompt per motion")
        if not 0 <= self.seed < 2**63:
            raise InputError(f"seed is {self.seed}; give a whole number from 0 to 2**63 - 1")
        for part in self.parts:
            if part.text.ndim != 2 or not len(part.text) or part.text.shape[1] != config.text_dim:
                raise InputError(
                    f"text features have shape {tuple(part.text.shape)} but the model takes (L, {config.text_dim}) "
                    f"with L at least 1; encode the text with {config.text_encoder}"
                )
            if len(part.text) > config.text_length:
                raise InputError(
                    f"a text has {len(part.text)} features but the model takes at most {config.text_length}; shorten it"
                )
            if not part.text.isfinite().all():
                raise InputError("text has features that are not finite; encode the prompts again")
            if not 1 <= part.min_tokens <= part.max_tokens <= config.max_tokens:
                raise InputError(
                    f"{part.min_tokens} to {part.max_tokens} tokens are requested but the model generates 1 to "
                    f"{config.max_tokens}; change the length, min_tokens or max_tokens"
                )
        if self.context and not 0 <= min(self.context) <= max(self.context) < config.codebook_size:
            raise InputError("the initial motion contains ids that are no motion tokens; encode it again")
        if len(self.context) + self.parts[0].min_tokens > config.max_tokens:
            raise InputError(
                f"an initial motion of {len(self.context)} tokens and {self.parts[0].min_tokens} new tokens exceed the "
                f"{config.max_tokens} of the model; give a shorter initial motion or a shorter length"
            )


class NewToken(NamedTuple):
    """One token of one request; None instead of a token marks the end of the request."""

    request: int  # number of the request, from 0
    part: int  # number of its sentence, from 0
    token: int | None


def generate(
    model: LLaMAHF, requests: Iterable[Request], sampling: Sampling, slots: int = 32
) -> Iterator[tuple[int, list[int]]]:
    """Generate whole motions; arguments and errors as in ``decode_steps``.

    Yields:
        The number of a request and its new motion tokens, as soon as the request is finished.
    """
    return _collect(decode_steps(model, requests, sampling, slots))


def decode_steps(
    model: LLaMAHF,
    requests: Iterable[Request | None],
    sampling: Sampling,
    slots: int = 32,
    read_every: int | None = None,
) -> Generator[list[NewToken], None, None]:
    """Generate the motion tokens of requests, ``slots`` requests at a time.

    Args:
        model: In eval mode, on any device and in any precision.
        requests: A sequence is validated at once and decides the size of the KV cache. Other iterables are read when a
            slot is free, so that texts can be encoded meanwhile; they yield None while no request is waiting.
        sampling: The same for all requests.
        slots: Number of requests in the batch; with guidance the model computes two rows per slot.
        read_every: Largest number of steps whose tokens are read together, which has no influence on them; by default 1
            on a CPU and ``READ_EVERY`` elsewhere.

    Yields:
        The new tokens of each step, row by row.

    Raises:
        InputError: a request or the sampling does not fit the model, or there are no slots.
    """
    if slots < 1:
        raise InputError(f"slots is {slots}; give at least 1")
    if model.training:
        raise RuntimeError("generation needs model.eval(): dropout is still on")
    sampling = resolve_guidance(model, sampling)
    config = model.config
    text_length, max_tokens = config.text_length, config.max_tokens
    if not isinstance(requests, Sequence):
        requests = validated(requests, config)
    else:
        for request in requests:
            request.validate(config)
        if not model.static_shapes:  # no larger than these requests need
            slots = min(slots, len(requests))
            text_length = max((len(part.text) for request in requests for part in request.parts), default=0)
            max_tokens = min(max_tokens, max((request.max_tokens for request in requests), default=0))
    if read_every is None:
        read_every = 1 if model.transformer.wte.weight.device.type == "cpu" else READ_EVERY
    return _decode(model, iter(requests), sampling, slots, text_length + max_tokens, read_every)


def validated(requests: Iterable[Request | None], config: LLaMAConfig) -> Iterator[Request | None]:
    for request in requests:
        if request is not None:
            request.validate(config)
        yield request


def _collect(steps: Iterator[list[NewToken]]) -> Iterator[tuple[int, list[int]]]:
    motions: dict[int, list[int]] = {}
    for new_tokens in steps:
        for request, _, token in new_tokens:
            if token is None:
                yield request, motions.pop(request)
            else:
                motions.setdefault(request, []).append(token)


@torch.inference_mode()
def _decode(
    model: LLaMAHF, requests: Iterator[Request | None], sampling: Sampling, slots: int, columns: int, read_every: int
) -> Generator[list[NewToken], None, None]:
    batch = ContinuousBatch(model, requests, sampling, slots, columns)
    try:
        while True:
            batch.refill()
            if not batch.rows:
                return
            yield from batch.read(read_every)
            batch.drop_finished()
            batch.step()
    finally:  # also if the caller closes it before the end
        model.release_cache(batch.cache)


class ActiveRow:
    """A request in the batch: its position in the sequence of sentences and the tokens so far."""

    def __init__(self, number: int, request: Request, max_tokens: int) -> None:
        self.number, self.request, self.model_max_tokens = number, request, max_tokens
        draws = sum(part.max_tokens for part in request.parts)
        self.uniforms = uniform_numbers(request.seed, draws)
        self.used = 0  # number of uniforms that are used
        self.motion = list(request.context)
        self._start(0, context=self.motion[:])

    def _start(self, part: int, context: list[int]) -> None:
        self.part, self.context, self.generated = part, context, 0
        self.min_tokens = self.request.parts[part].min_tokens
        self.max_tokens = min(self.request.parts[part].max_tokens, self.model_max_tokens - len(context))

    def start_next_part(self) -> bool:
        """Continue with the next sentence, the end of the motion as its context; False if there is none."""
        part = self.part + 1
        if part == len(self.request.parts) or self.request.is_dropped:
            return False
        kept = min(self.model_max_tokens // CONTEXT_SHARE, self.model_max_tokens - self.request.parts[part].min_tokens)
        self._start(part, self.motion[len(self.motion) - min(kept, len(self.motion)) :])
        return True

    @property
    def text(self) -> Tensor:
        return self.request.parts[self.part].text

    def prefill_length(self) -> int:
        """Number of columns of the prefill."""
        return len(self.text) + len(self.context)

    def draws(self, count: int) -> Tensor:
        """Return the uniform number and the bias of the end's logit (count, 2) of each token, with zeros at the end."""
        uniforms = self.uniforms[self.used : self.used + self.max_tokens]
        bias = torch.zeros_like(uniforms)
        bias[: self.min_tokens] = -math.inf
        return F.pad(torch.stack((uniforms, bias), dim=1), (0, 0, 0, count - len(uniforms)))

    def append(self, token: int) -> NewToken:
        self.motion.append(token)
        self.generated += 1
        return NewToken(self.number, self.part, token)


class ContinuousBatch:
    """Requests that are decoded together. A slot holds one request: one cache row, or two with guidance.

    With guidance, the row of the text is followed by the row of the null text.
    """

    def __init__(
        self, model: LLaMAHF, requests: Iterator[Request | None], sampling: Sampling, slots: int, columns: int
    ) -> None:
        self.model, self.slots, self.end_id = model, slots, model.config.end_id
        self.device = model.transformer.wte.weight.device
        self.sampler = Sampler.of(sampling, self.device)
        self.rows_per_slot = self.sampler.rows
        self.cache = model.new_cache(self.rows_per_slot * slots, columns)
        self.waiting, self.started = requests, 0  # number of requests read so far
        self.continuing: list[ActiveRow] = []  # at the beginning of their next sentence
        self.rows: list[ActiveRow] = []
        self.finished: set[int] = set()  # slots that leave the batch
        self.tokens = torch.empty(0, dtype=torch.long, device=self.device)  # (rows_per_slot * len(rows),) sampled last
        self.step_number = 0
        # Uniform number and bias of the end's logit, for each step modulo the number of columns, and each row.
        self.draws = torch.zeros(*self.cache.mask.shape[::-1], 2, device=self.device)

    def refill(self) -> None:
        """Prefill waiting rows into free slots, once enough of them are free."""
        free = self.slots - len(self.rows)
        if self.rows and free < max(1, self.slots // REFILL):
            return
        self.continuing += self._next_rows(max(0, free - len(self.continuing)))
        new, self.continuing = self.continuing[:free], self.continuing[free:]
        new.sort(key=ActiveRow.prefill_length)
        for start in range(0, len(new), PREFILL_GROUP):
            self._prefill(new[start : start + PREFILL_GROUP])

    def _next_rows(self, most: int) -> Iterator[ActiveRow]:
        for request in islice(self.waiting, most):
            if request is None:  # none at the moment
                return
            yield ActiveRow(self.started, request, self.model.config.max_tokens)
            self.started += 1

    def _prefill(self, rows: list[ActiveRow]) -> None:
        text = pad_sequence([row.text.to(self.device) for row in rows], batch_first=True)  # (B, L, D)
        lengths = torch.tensor([len(row.text) for row in rows], device=self.device)
        mask = torch.arange(text.shape[1], device=self.device) < lengths[:, None]
        contexts = [torch.tensor(row.context, dtype=torch.long) for row in rows]
        pad_id = self.model.config.pad_id
        tokens = pad_sequence(contexts, batch_first=True, padding_value=pad_id).to(self.device)  # (B, N)
        if self.rows_per_slot == 2:
            null, null_mask = null_text(text)
            text, mask = (torch.stack(pair, dim=1).flatten(0, 1) for pair in ((text, null), (mask, null_mask)))
            tokens = tokens.repeat_interleave(2, dim=0)
        first = self.rows_per_slot * len(self.rows)
        logits = self.model.prefill(text, mask, tokens, self.cache, first)
        if not logits.sum(dtype=torch.float32).isfinite():
            raise InputError("the logits are not finite; the model's weights are damaged or its training diverged")
        draws = torch.stack([row.draws(len(self.draws)) for row in rows], dim=1).roll(self.step_number, dims=0)
        draws = to_device(draws.repeat_interleave(self.rows_per_slot, dim=1), self.device)  # (steps, B, 2)
        self.draws[:, first : first + len(logits)] = draws
        sampled = next_tokens(logits, draws[self.step_number % len(draws)], self.sampler, self.end_id)
        self.tokens = torch.cat((self.tokens, sampled)) if self.rows else sampled
        self.rows += rows

    def read(self, most: int) -> Iterator[list[NewToken]]:
        """Yield the tokens sampled last and those of further steps, up to ``most`` and as many as each row may have.

        Finished rows are marked to leave the batch.
        """
        sampled = [self.tokens]
        for _ in range(1, min(most, *(row.max_tokens - row.generated for row in self.rows))):
            self.step()
            sampled.append(self.tokens)
        for tokens in torch.stack(sampled)[:, :: self.rows_per_slot].tolist():  # waits for the device
            new_tokens = [
                new
                for slot, (row, token) in enumerate(zip(self.rows, tokens, strict=True))
                if slot not in self.finished
                for new in self._read(slot, row, token)
            ]
            if new_tokens:
                yield new_tokens

    def _read(self, slot: int, row: ActiveRow, token: int) -> Iterator[NewToken]:
        """Append a token to a row, and yield it; at the end of a sentence, mark the slot as finished."""
        row.used += 1
        ended = token == self.end_id or row.request.is_dropped
        if not ended:
            yield row.append(token)
        if not ended and row.generated < row.max_tokens:
            return
        self.finished.add(slot)
        if row.start_next_part():
            self.continuing.append(row)
        else:
            yield NewToken(row.number, row.part, None)

    def drop_finished(self) -> None:
        """Remove the finished rows."""
        if self.finished:
            kept = compact_slots([slot for slot in range(len(self.rows)) if slot not in self.finished])
            self.rows = [self.rows[slot] for slot in kept]
            rows = [self.rows_per_slot * slot + copy for slot in kept for copy in range(self.rows_per_slot)]
            self.cache.select(rows)
            index = torch.tensor(rows, dtype=torch.long, device=self.device)
            self.draws[:, : len(rows)] = self.draws[:, index]
            self.tokens = self.tokens[index]
            self.finished.clear()

    def step(self) -> None:
        """Decode the tokens sampled last, and sample the next ones."""
        if self.rows:
            self.step_number += 1
            rows = len(self.tokens)
            draws = self.draws[self.step_number % len(self.draws), :rows]
            step, extent = self.model.step, self.cache.extend(rows)
            arguments = (self.tokens, self.cache, extent, draws, self.sampler, self.end_id)
            self.tokens = step.sampled(*arguments) if isinstance(step, CompiledStep) else sampled_step(step, *arguments)


def compact_slots(slots: list[int]) -> list[int]:
    """Reorder ascending slots so that they fill the first ones: the last slots move into the gaps."""
    last = [slot for slot in slots if slot >= len(slots)]
    in_place = set(slots)
    return [slot if slot in in_place else last.pop() for slot in range(len(slots))]
