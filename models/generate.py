"""Motion tokens from text features: batched sampling with a KV cache.

One prefill, then one step a token for the whole batch. Rows that have ended leave the batch, so that they cost nothing.
``stream_tokens`` gives the tokens as they are made; ``generate`` collects them.

A row's randomness is its own seed's: all its uniform numbers are drawn beforehand, and each token is picked by inverse
transform sampling over the token ids in their natural order. Its tokens therefore depend on text, seed and settings,
not on its neighbours (up to the rounding of batched matrix products: tiny in float32; in bfloat16 tokens can change).
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from models.llama import LLaMAHF, null_text
from utils.errors import InputError


@dataclass(frozen=True)
class Sampling:
    """How tokens are picked from logits; values that make no sense raise InputError."""

    temperature: float = 1.0
    """Logits are divided by it; 0 takes the most likely token (greedy)."""
    top_k: int = 0
    """Only the k most likely tokens can be picked; 0 for all."""
    top_p: float = 1.0
    """Only the most likely tokens that together reach this probability can be picked (Holtzman et al., 2020)."""
    guidance: float = 1.0
    """Scale of classifier-free guidance: 1 for none, more to follow the text more closely."""
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
        if not 0 <= self.guidance < math.inf:
            raise InputError(f"guidance is {self.guidance}; give 1 (none) or more, or less to loosen the text's hold")
        if self.min_tokens < 1:
            raise InputError(f"min_tokens is {self.min_tokens}; give at least 1")
        if self.max_tokens is not None and self.max_tokens < self.min_tokens:
            raise InputError(f"max_tokens is {self.max_tokens}, below min_tokens ({self.min_tokens}); raise it")


def generate(
    model: LLaMAHF,
    text: Tensor,
    text_mask: Tensor,
    seeds: Sequence[int],
    sampling: Sampling,
    lengths: Sequence[int | None] | None = None,
) -> list[Tensor]:
    """Motion tokens for each row of text; arguments and errors as in ``stream_tokens``.

    Returns:
        B tensors (n,) int64 on the CPU, n >= 1, motion ids only.
    """
    steps = stream_tokens(model, text, text_mask, seeds, sampling, lengths)
    tokens = torch.stack(list(steps), dim=1).cpu()  # (B, T)
    return [row[row != model.config.end_id] for row in tokens]


@torch.inference_mode()
def stream_tokens(
    model: LLaMAHF,
    text: Tensor,
    text_mask: Tensor,
    seeds: Sequence[int],
    sampling: Sampling,
    lengths: Sequence[int | None] | None = None,
) -> Iterator[Tensor]:
    """Yield the motion tokens (B,) of one step after the other; rows that have ended give end_id from then on.

    Args:
        model: in eval mode, any device, float32 or bfloat16.
        text: (B, L, text_dim) features. text_mask: (B, L) bool, true for features.
        seeds: one a row, 0 .. 2**63 - 1.
        sampling: the same for all rows.
        lengths: per row the exact number of tokens (no end before it, stop there), or None to let the model end.
    Raises:
        InputError: an argument does not fit the model or the others.
    """
    if model.training:
        raise RuntimeError("generation needs model.eval(): dropout is still on")
    end_id = model.config.end_id
    text, text_mask = check_text(model, text, text_mask)
    minimum, limit = length_bounds(model, len(text), sampling, lengths)
    uniforms = draw_uniforms(seeds, len(text), int(limit.max())).to(text.device)  # (B, T)
    if sampling.guidance != 1:
        text, text_mask = with_null_rows(model, text, text_mask)

    cache = model.new_cache(len(text), text.shape[1] + uniforms.shape[1])
    logits = model.prefill(text, text_mask, cache)
    if not logits.isfinite().all():
        raise InputError("the model gives logits that are not finite; its weights are damaged or its training diverged")
    rows = torch.arange(len(uniforms), device=text.device)  # the row of each prompt that is still in the batch
    for step in range(uniforms.shape[1]):
        logits = guide(logits[:, : end_id + 1].float(), sampling.guidance)
        logits[minimum[rows] > step, end_id] = -math.inf
        tokens = pick(logits, uniforms[rows, step], sampling)
        ended = tokens == end_id
        if ended.all():
            return
        step_tokens = torch.full((len(uniforms),), end_id, device=text.device)
        step_tokens[rows] = tokens
        yield step_tokens

        ended |= limit[rows] == step + 1
        if ended.all():
            return
        if ended.any():
            kept = close_gaps(ended)
            rows, tokens = rows[kept], tokens[kept]
            cache.select(kept if sampling.guidance == 1 else torch.stack((2 * kept, 2 * kept + 1), dim=1).flatten())
        logits = model.step(tokens if sampling.guidance == 1 else tokens.repeat_interleave(2), cache)


def check_text(model: LLaMAHF, text: Tensor, text_mask: Tensor) -> tuple[Tensor, Tensor]:
    """Refuse unusable text; give it back on the model's device, without columns that no row uses."""
    if text.ndim != 3 or text_mask.shape != text.shape[:2] or not len(text):
        raise InputError(
            f"text has shape {tuple(text.shape)} and its mask {tuple(text_mask.shape)}; "
            "give (B, L, D) and (B, L) with at least one row"
        )
    has_text = text_mask.any(dim=1)
    if not has_text.all():
        raise InputError(f"row {int(has_text.int().argmin())} of the text has no features; give every prompt a text")
    if not text[text_mask].isfinite().all():
        raise InputError("text has features that are not finite; encode the prompts again")
    used = text_mask.any(dim=0)
    device = model.lm_head.weight.device
    return text[:, used].to(device), text_mask[:, used].to(device)


def length_bounds(
    model: LLaMAHF, batch: int, sampling: Sampling, lengths: Sequence[int | None] | None
) -> tuple[Tensor, Tensor]:
    """Least and greatest number of tokens (B,), (B,) of each row; equal where its length is given."""
    most = model.config.max_tokens
    stop = most if sampling.max_tokens is None else sampling.max_tokens
    asked = max(stop, sampling.min_tokens)
    if asked > most:
        raise InputError(f"{asked} tokens are asked for but the model makes at most {most}; ask for fewer")
    lengths = [None] * batch if lengths is None else list(lengths)
    if len(lengths) != batch:
        raise InputError(f"{len(lengths)} lengths for {batch} rows of text; give one (or None) a row")
    for length in lengths:
        if length is not None and not 1 <= length <= most:
            raise InputError(f"a length of {length} tokens is asked for but the model makes 1 to {most}; change it")
    bounds = [(sampling.min_tokens, stop) if length is None else (length, length) for length in lengths]
    minimum, limit = torch.tensor(bounds, device=model.lm_head.weight.device).unbind(dim=1)
    return minimum, limit


def draw_uniforms(seeds: Sequence[int], batch: int, steps: int) -> Tensor:
    """Uniform numbers (B, steps) in [0, 1), each row from its own seed and independent of how many are drawn."""
    if len(seeds) != batch:
        raise InputError(f"{len(seeds)} seeds for {batch} rows of text; give one a row")
    for seed in seeds:
        if not 0 <= seed < 2**63:
            raise InputError(f"seed is {seed}; give a whole number from 0 to 2**63 - 1")
    return torch.stack([torch.rand(steps, generator=torch.Generator().manual_seed(seed)) for seed in seeds])


def with_null_rows(model: LLaMAHF, text: Tensor, text_mask: Tensor) -> tuple[Tensor, Tensor]:
    """Behind each row of text the null text, (2 B, L, D) and (2 B, L): a doubled batch for guidance."""
    if model.config.text_dropout == 0:
        raise InputError(
            "guidance is asked for but the model was trained without text dropout and knows no null text; "
            "set guidance to 1 or train with text_dropout above 0"
        )
    null, null_mask = null_text(text)
    return torch.stack((text, null), dim=1).flatten(0, 1), torch.stack((text_mask, null_mask), dim=1).flatten(0, 1)


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
    likely = min(sampling.top_k or logits.shape[-1], logits.shape[-1])
    if likely < logits.shape[-1]:
        threshold = logits.topk(likely, dim=-1).values[:, -1:]
        logits = logits.masked_fill(logits < threshold, -math.inf)
    probabilities = logits.softmax(dim=-1)
    if sampling.top_p < 1:
        ranked = probabilities.topk(likely, dim=-1).values  # descending
        inside = ranked.cumsum(dim=-1) - ranked < sampling.top_p  # the mass before it has not reached top_p
        threshold = ranked.gather(-1, inside.sum(dim=-1, keepdim=True) - 1)
        probabilities = probabilities.masked_fill(probabilities < threshold, 0)
    cumulative = probabilities.cumsum(dim=-1)
    total = cumulative[:, -1:]
    point = torch.minimum(uniform[:, None] * total, torch.nextafter(total, torch.zeros_like(total)))  # below total
    return torch.searchsorted(cumulative, point, right=True)[:, 0]


def close_gaps(ended: Tensor) -> Tensor:
    """Rows (n,) that have not ended, in an order that moves few: the last take the places of those that ended."""
    kept = torch.arange(int((~ended).sum()), device=ended.device)
    kept[ended[: len(kept)]] = len(kept) + (~ended[len(kept) :]).nonzero()[:, 0]
    return kept
