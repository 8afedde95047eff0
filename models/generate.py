"""Motion tokens from text features: continuous batching over a KV cache.

``decode_steps`` advances a batch of rows by one token per step. A request is prefilled once; finished rows are replaced
by waiting requests, so that no step is spent on a finished row. Without waiting requests the batch shrinks.
``generate`` collects whole motions; ``decode_steps`` yields the tokens of each step.

A row's randomness is its own seed's: all its uniform numbers are drawn beforehand, and each token is picked by inverse
transform sampling over the token ids in their natural order. Its tokens therefore depend on text, seed and settings,
not on its neighbours (up to the rounding of batched matrix products: tiny in float32; in bfloat16 tokens can change).
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import NamedTuple

import torch
from torch import Tensor

from models.llama import KVCache, LLaMAHF, null_text
from utils.errors import InputError

GUIDANCE = 2.0  # of a model that was trained for it, unless another scale is asked for


@dataclass(frozen=True)
class Sampling:
    """How tokens are picked from logits; values that make no sense raise InputError."""

    temperature: float = 1.0
    """Logits are divided by it; 0 takes the most likely token (greedy)."""
    top_k: int = 0
    """Only the k most likely tokens can be picked; 0 for all."""
    top_p: float = 1.0
    """Only the most likely tokens that together reach this probability can be picked (Holtzman et al., 2020)."""
    guidance: float | None = 1.0
    """Scale of classifier-free guidance: 1 for none, more to follow the text more closely; None is ``GUIDANCE``, or 1
    where the model was trained without text dropout (see ``resolve_guidance``)."""
    min_tokens: int = 1
    """No end before this many tokens; at least 1, as a motion is never empty."""
    max_tokens: int | None = None
    """Stop after this many tokens if no end came; the model's own limit if not given."""

    def __post_init__(self) -> None:
        if not 0 <= self.temperature < math.inf:
            raise InputError(f"temperature is {self.temperature}; give 0 (greedy) or more")
        if self.top_k < 0:
            raise InputError(f"top_k is {self.top_k}; give 0 (off) or more")
        if not 0 < self.top_p <= 1:
            raise InputError(f"top_p is {self.top_p}; give a probability above 0 and up to 1")
        if self.guidance is not None and not 0 <= self.guidance < math.inf:
            raise InputError(f"guidance is {self.guidance}; give 1 (none) or more, or less to loosen the text's hold")
        if self.min_tokens < 1:
            raise InputError(f"min_tokens is {self.min_tokens}; give at least 1")
        if self.max_tokens is not None and self.max_tokens < self.min_tokens:
            raise InputError(f"max_tokens is {self.max_tokens}, below min_tokens ({self.min_tokens}); raise it")


@dataclass
class Part:
    """One sentence of a request: its features (L, D), and the least and the greatest number of tokens made for it."""

    text: Tensor
    least: int
    most: int


@dataclass
class Request:
    """One motion to make: for one sentence or for several in sequence, after motion tokens that are there already."""

    parts: list[Part]
    seed: int = 0
    context: list[int] = field(default_factory=list)

    @property
    def tokens(self) -> int:
        """Most tokens that the motion can have."""
        return len(self.context) + sum(part.most for part in self.parts)

    def check(self, model: LLaMAHF) -> None:
        """Raise InputError unless the model can make this."""
        config = model.config
        if not self.parts:
            raise InputError("a request has no text; give every motion at least one prompt")
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
            if not 1 <= part.least <= part.most <= config.max_tokens:
                raise InputError(
                    f"{part.least} to {part.most} tokens are asked for but the model makes 1 to {config.max_tokens}; "
                    "change the length, min_tokens or max_tokens"
                )
        if self.context and not 0 <= min(self.context) <= max(self.context) < config.codebook_size:
            raise InputError("the motion to go on from holds ids that are no motion tokens; encode it again")
        if len(self.context) + self.parts[0].least > config.max_tokens:
            raise InputError(
                f"{len(self.context)} tokens to go on from and {self.parts[0].least} to make do not fit into the "
                f"{config.max_tokens} of the model; give a shorter motion to go on from, or ask for less"
            )


class NewToken(NamedTuple):
    """One token of one request; no token (None) says that the request is finished."""

    number: int  # of the request, from 0
    part: int  # of its sentences, from 0
    token: int | None


class ActiveRow:
    """A request while its tokens are made."""

    def __init__(self, number: int, request: Request, max_tokens: int):
        self.number, self.request, self.max_tokens = number, request, max_tokens
        steps = sum(part.most for part in request.parts)
        self.uniforms = iter(torch.rand(steps, generator=torch.Generator().manual_seed(request.seed)).tolist())
        self.motion = list(request.context)
        self._begin(0, context=self.motion[:])

    def _begin(self, part: int, context: list[int]) -> None:
        self.part, self.context, self.made = part, context, 0
        self.least = self.request.parts[part].least
        self.limit = min(self.request.parts[part].most, self.max_tokens - len(context))

    def begin_next_part(self) -> bool:
        """Go on to the next sentence, the last quarter of the model's reach as context; False if there is none."""
        part = self.part + 1
        if part == len(self.request.parts):
            return False
        kept = min(self.max_tokens // 4, self.max_tokens - self.request.parts[part].least)
        self._begin(part, self.motion[len(self.motion) - min(kept, len(self.motion)) :])
        return True

    @property
    def text(self) -> Tensor:
        return self.request.parts[self.part].text

    def columns(self) -> int:
        """Columns that reading it in takes."""
        return len(self.text) + len(self.context)

    def add(self, token: int) -> NewToken:
        self.motion.append(token)
        self.made += 1
        return NewToken(self.number, self.part, token)


def generate(
    model: LLaMAHF, requests: Iterable[Request], sampling: Sampling, slots: int = 32
) -> Iterator[tuple[int, list[int]]]:
    """Make whole motions; arguments and errors as in ``decode_steps``.

    Yields:
        The number of a request and the motion tokens made for it, as each is finished.
    """
    motions: dict[int, list[int]] = {}
    for made in decode_steps(model, requests, sampling, slots):
        for number, _, token in made:
            if token is None:
                yield number, motions.pop(number)
            else:
                motions.setdefault(number, []).append(token)


@torch.inference_mode()
def decode_steps(
    model: LLaMAHF, requests: Iterable[Request], sampling: Sampling, slots: int = 32
) -> Iterator[list[NewToken]]:
    """Make the motion tokens of requests, ``slots`` of them at a time; what ends makes room for what waits.

    Args:
        model: in eval mode, any device and precision.
        requests: read as their turn comes, so they may be encoded on the way.
        sampling: the same for all.
        slots: rows of the batch; with guidance the model sees twice as many.

    Yields:
        What each step made, row by row.

    Raises:
        InputError: a request or the sampling does not fit the model.
    """
    if model.training:
        raise RuntimeError("generation needs model.eval(): dropout is still on")
    sampling = resolve_guidance(model, sampling)
    copies = 1 if sampling.guidance == 1 else 2
    longest_text, most_tokens = model.config.text_length, model.config.max_tokens
    if isinstance(requests, Sequence) and not model.fixed_step:  # all are known: no more room than they need
        for request in requests:
            request.check(model)
        slots = min(slots, len(requests))
        longest_text = max((len(part.text) for request in requests for part in request.parts), default=0)
        most_tokens = min(most_tokens, max((request.tokens for request in requests), default=0))
    cache = model.new_cache(copies * slots, longest_text + most_tokens)
    waiting = (
        ActiveRow(number, request, model.config.max_tokens) for number, request in enumerate(validated(model, requests))
    )
    rows: list[ActiveRow] = []
    going_on: list[ActiveRow] = []  # at their next sentence
    logits = torch.empty(0, device=cache.keys.device)
    while True:
        free = slots - len(rows)
        if not rows or free >= max(1, slots // REFILL):
            going_on += islice(waiting, max(0, free - len(going_on)))
            new, going_on = sorted(going_on[:free], key=ActiveRow.columns), going_on[free:]
            for group in (new[start : start + TOGETHER] for start in range(0, len(new), TOGETHER)):
                first = prefill(model, group, cache, copies * len(rows), copies)
                logits = torch.cat((logits, first)) if rows else first
                rows += group
        if not rows:
            model.give_back(cache)
            return
        tokens = pick_tokens(model, rows, logits, sampling)
        made, kept = [], []
        for slot, (row, token) in enumerate(zip(rows, tokens, strict=True)):
            ended = token == model.config.end_id
            if not ended:
                made.append(row.add(token))
            if not ended and row.made < row.limit:
                kept.append(slot)
            elif row.begin_next_part():
                going_on.append(row)
            else:
                made.append(NewToken(row.number, row.part, None))
        yield made

        if len(kept) < len(rows):
            kept = close_gaps(kept)
            rows = [rows[slot] for slot in kept]
            cache.select([copies * slot + copy for slot in kept for copy in range(copies)])
        if rows:
            last = torch.tensor([row.motion[-1] for row in rows for _ in range(copies)], device=cache.keys.device)
            logits = model.step(last, cache, cache.extent(len(last)))


REFILL = 8  # newcomers are read in when an eighth of the slots is free: a few together cost little more than one
TOGETHER = 8  # so many of like length are read in at a time, so that little is padded


def validated(model: LLaMAHF, requests: Iterable[Request]) -> Iterator[Request]:
    for request in requests:
        request.check(model)
        yield request


def resolve_guidance(model: LLaMAHF, sampling: Sampling) -> Sampling:
    """The sampling with the guidance that the model gets.

    Raises:
        InputError: guidance is asked of a model that knows no null text.
    """
    knows_null_text = model.config.text_dropout > 0
    if sampling.guidance is None:
        return replace(sampling, guidance=GUIDANCE if knows_null_text else 1.0)
    if sampling.guidance != 1 and not knows_null_text:
        raise InputError(
            "guidance is asked for but the model was trained without text dropout and knows no null text; "
            "set guidance to 1 or train with text_dropout above 0"
        )
    return sampling


def prefill(model: LLaMAHF, rows: list[ActiveRow], cache: KVCache, first: int, copies: int) -> Tensor:
    """Read rows into the cache from row ``first`` on, each followed by its null text if ``copies`` is 2; logits."""
    device = cache.keys.device
    pad = torch.nn.utils.rnn.pad_sequence
    text = pad([row.text.to(device) for row in rows], batch_first=True)  # (B, L, D)
    lengths = torch.tensor([len(row.text) for row in rows], device=device)
    mask = torch.arange(text.shape[1], device=device) < lengths[:, None]
    contexts = [torch.tensor(row.context, dtype=torch.long) for row in rows]
    tokens = pad(contexts, batch_first=True, padding_value=model.config.pad_id).to(device)  # (B, N)
    if copies == 2:
        null, null_mask = null_text(text)
        text, mask = (torch.stack(pair, dim=1).flatten(0, 1) for pair in ((text, null), (mask, null_mask)))
        tokens = tokens.repeat_interleave(2, dim=0)
    logits = model.prefill(text, mask, tokens, cache, first)
    if not logits.sum(dtype=torch.float32).isfinite():
        raise InputError("the model gives logits that are not finite; its weights are damaged or its training diverged")
    return logits


def pick_tokens(model: LLaMAHF, rows: list[ActiveRow], logits: Tensor, sampling: Sampling) -> list[int]:
    """One token a row from logits (copies * B, outputs); no end where a row is still too short."""
    end_id = model.config.end_id
    logits = guide(logits[:, : end_id + 1].float(), sampling.guidance)  # (B, V)
    short = [slot for slot, row in enumerate(rows) if row.made < row.least]
    if short:
        logits[short, end_id] = -math.inf
    uniform = torch.tensor([next(row.uniforms) for row in rows], device=logits.device)
    return pick(logits, uniform, sampling).tolist()


def guide(logits: Tensor, guidance: float) -> Tensor:
    """Guided logits (B, V) from those of text and null text by turns, (2 B, V); with 1 the logits as given (B, V)."""
    if guidance == 1:
        return logits
    conditional, unconditional = logits.unflatten(0, (-1, 2)).unbind(dim=1)
    return unconditional + guidance * (conditional - unconditional)


def pick(logits: Tensor, uniform: Tensor, sampling: Sampling) -> Tensor:
    """One token a row.

    Args:
        logits: (B, V) float32; -inf is never picked. uniform: (B,) in [0, 1), not looked at when greedy.
    Returns:
        token ids (B,). Tokens that tie with the last one inside top_k or top_p are inside too.
    """
    if sampling.temperature == 0:
        return logits.argmax(dim=-1)
    logits = (logits - logits.amax(dim=-1, keepdim=True)) / sampling.temperature
    if 0 < sampling.top_k < logits.shape[-1]:
        threshold = logits.topk(sampling.top_k, dim=-1).values[:, -1:]
        logits = logits.masked_fill(logits < threshold, -math.inf)
    probabilities = logits.softmax(dim=-1)
    if sampling.top_p < 1:
        threshold = nucleus_threshold(probabilities, sampling.top_p)
        probabilities = probabilities.masked_fill(probabilities < threshold, 0)
    cumulative = probabilities.cumsum(dim=-1)
    total = cumulative[:, -1:]
    point = torch.minimum(uniform[:, None] * total, torch.nextafter(total, torch.zeros_like(total)))  # below total
    return torch.searchsorted(cumulative, point, right=True)[:, 0]


def nucleus_threshold(probabilities: Tensor, top_p: float) -> Tensor:
    """The least probability (B, 1) among the likeliest tokens of (B, V) that together reach ``top_p``.

    Few tokens reach it as a rule: only as many as are needed are ranked.
    """
    count = 64
    while True:
        ranked = probabilities.topk(min(count, probabilities.shape[-1]), dim=-1).values  # (B, count) descending
        mass = ranked.cumsum(dim=-1)
        if count >= probabilities.shape[-1] or bool((mass[:, -1] >= top_p).all()):
            inside = mass - ranked < top_p  # the mass before it has not reached top_p
            return ranked.gather(-1, inside.sum(dim=-1, keepdim=True) - 1)
        count *= 8


def close_gaps(kept: list[int]) -> list[int]:
    """The slots ``kept`` (ascending), the last ones moved into the gaps before them."""
    last = [slot for slot in kept if slot >= len(kept)]
    stay = set(kept)
    return [slot if slot in stay else last.pop() for slot in range(len(kept))]
