"""Sampling of tokens from logits: settings, classifier-free guidance, temperature, top-k and top-p."""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from models.kv_cache import KVCache
from models.llama import LLaMAHF
from models.sampling_options import GUIDANCE, Sampling
from utils.errors import InputError, shown

BELOW_ONE = 1 - 2**-23  # its product with a float32 is always a smaller float32
FIRST_RANKED = 64  # tokens that a CPU ranks at first


def resolve_guidance(model: LLaMAHF, sampling: Sampling) -> Sampling:
    """Return the sampling with the guidance scale that the model gets; it is never None.

    Raises:
        InputError: guidance is requested from a model that was trained without the null text, or ``sampling`` is of
            another type.
    """
    if not isinstance(sampling, Sampling):
        raise InputError(f"sampling is {shown(repr(sampling), 40)}; give models.sampling_options.Sampling(...)")
    trained_with_null_text = model.config.text_dropout > 0
    if sampling.guidance is None:
        return replace(sampling, guidance=GUIDANCE if trained_with_null_text else 1.0)
    if sampling.guidance != 1 and not trained_with_null_text:
        raise InputError(
            "the model was trained without text dropout and has no null text for guidance; "
            "set guidance to 1 or train with text_dropout above 0"
        )
    return sampling


class Sampler(NamedTuple):
    """A ``Sampling`` with its numbers on a device, so that one graph of a compiled step serves all of them."""

    guidance: Tensor | None
    """None for 1."""
    temperature: Tensor | None
    """None for greedy sampling."""
    top_k: int
    top_p: Tensor | None
    """None for 1."""

    @classmethod
    def of(cls, sampling: Sampling, device: torch.device | str) -> "Sampler":
        """Return the sampler of settings whose guidance is resolved."""

        def number(value: float | None, off: float) -> Tensor | None:
            return None if value == off else torch.tensor(value, dtype=torch.float32, device=device)

        guidance, temperature = number(sampling.guidance, 1), number(sampling.temperature, 0)
        return cls(guidance, temperature, sampling.top_k, number(sampling.top_p, 1))

    @property
    def rows(self) -> int:
        """Number of rows that a model computes per motion."""
        return 1 if self.guidance is None else 2


def sampled_step(
    step: Callable[[Tensor, KVCache, int], Tensor],
    tokens: Tensor,
    cache: KVCache,
    extent: int,
    draws: Tensor,
    sampler: Sampler,
    end_id: int,
) -> Tensor:
    """Append tokens (B,) to the cache and return the next ones (B,).

    Args:
        step: ``LLaMAHF.step``.
        tokens, cache, extent: Its arguments.
        draws, sampler, end_id: Arguments of ``next_tokens``.
    """
    return next_tokens(step(tokens, cache, extent), draws, sampler, end_id)


def next_tokens(logits: Tensor, draws: Tensor, sampler: Sampler, end_id: int) -> Tensor:
    """Sample the next token of each row.

    Args:
        logits: (B, outputs), of any precision; with guidance as in ``apply_guidance``.
        draws: (B, 2), a uniform number and the bias of the end's logit.

    Returns:
        token ids (B,); with guidance, the two rows of a motion get the same.
    """
    logits = apply_guidance(logits[:, : end_id + 1].float(), sampler.guidance)  # (B / rows, V)
    uniforms, bias = draws.unflatten(0, (len(logits), sampler.rows)).unbind(-1)
    logits[:, end_id] += bias[:, 0]
    return sample_tokens(logits, uniforms, sampler).flatten()


def apply_guidance(logits: Tensor, guidance: Tensor | None) -> Tensor:
    """Apply classifier-free guidance.

    Args:
        logits: (2 B, V), conditional and unconditional logits alternating; (B, V) without guidance.
        guidance: The scale; None for no guidance.

    Returns:
        guided logits (B, V).
    """
    if guidance is None:
        return logits
    conditional, unconditional = logits.unflatten(0, (-1, 2)).unbind(dim=1)
    return unconditional.lerp(conditional, guidance)


def uniform_numbers(seed: int, *shape: int) -> Tensor:
    """Draw random numbers on the host for ``sample_tokens``, from 0 to ``BELOW_ONE``."""
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed)).clamp_(max=BELOW_ONE)


def sample_tokens(logits: Tensor, uniform: Tensor, sampler: Sampler) -> Tensor:
    """Sample tokens of each row by inverse transform sampling over the token ids in their natural order.

    Args:
        logits: (B, V) float32; a token with -inf is never sampled.
        uniform: (B,) from 0 to ``BELOW_ONE``, or (B, M) for M independent tokens per row; if greedy, only its shape
            counts.

    Returns:
        token ids of the shape of ``uniform``. Tokens that tie with the last one inside top_k or top_p are inside too.
    """
    if sampler.temperature is None:
        return logits.argmax(dim=-1).view(-1, *[1] * (uniform.ndim - 1)).expand_as(uniform)
    logits = logits / sampler.temperature
    if 0 < sampler.top_k < logits.shape[-1]:
        threshold = logits.topk(sampler.top_k, dim=-1).values[:, -1:]
        logits = logits.masked_fill(logits < threshold, -math.inf)
    probabilities = logits.softmax(dim=-1)
    if sampler.top_p is not None:
        threshold = nucleus_threshold(probabilities, sampler.top_p)
        probabilities = probabilities.masked_fill(probabilities < threshold, 0)
    cumulative = probabilities.cumsum(dim=-1)
    points = uniform.reshape(len(uniform), -1) * cumulative[:, -1:]  # (B, M) below the total
    return torch.searchsorted(cumulative, points, right=True).view(uniform.shape)


def nucleus_threshold(probabilities: Tensor, top_p: Tensor) -> Tensor:
    """Return the smallest probability (B, 1) of the most likely tokens of (B, V) that together reach ``top_p``.

    Usually few tokens reach it. A CPU ranks only the first ones, and more only if they do not suffice; elsewhere this
    question would wait for the device, and in a compiled step it would end the graph, so all are ranked.
    """
    most = probabilities.shape[-1]
    may_ask = probabilities.device.type == "cpu" and not torch.compiler.is_compiling()
    count = min(FIRST_RANKED, most) if may_ask else most
    while True:
        ranked = probabilities.topk(count, dim=-1).values  # (B, count) descending
        mass = ranked.cumsum(dim=-1)
        if count == most or bool((mass[:, -1] >= top_p).all()):
            last = (mass[:, :-1] < top_p).sum(dim=-1, keepdim=True)  # the token that reaches it
            return ranked.gather(-1, last)
        count = min(8 * count, most)
