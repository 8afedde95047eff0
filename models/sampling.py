"""Sampling of tokens from logits: settings, classifier-free guidance, temperature, top-k and top-p."""

import math
from dataclasses import replace

import torch
from torch import Tensor

from models.llama import LLaMAHF
from models.sampling_options import GUIDANCE, Sampling
from utils.errors import InputError

BELOW_ONE = 1 - 2**-23  # its product with a float32 is always a smaller float32
FIRST_RANKED = 64  # tokens that a CPU ranks at first


def resolve_guidance(model: LLaMAHF, sampling: Sampling) -> Sampling:
    """Return the sampling with the guidance scale that the model gets; it is never None.

    Raises:
        InputError: guidance is requested from a model that was trained without the null text.
    """
    trained_with_null_text = model.config.text_dropout > 0
    if sampling.guidance is None:
        return replace(sampling, guidance=GUIDANCE if trained_with_null_text else 1.0)
    if sampling.guidance != 1 and not trained_with_null_text:
        raise InputError(
            "the model was trained without text dropout and has no null text for guidance; "
            "set guidance to 1 or train with text_dropout above 0"
        )
    return sampling


def apply_guidance(logits: Tensor, guidance: float) -> Tensor:
    """Apply classifier-free guidance.

    Args:
        logits: (2 B, V), conditional and unconditional logits alternating; (B, V) if ``guidance`` is 1.

    Returns:
        guided logits (B, V).
    """
    if guidance == 1:
        return logits
    conditional, unconditional = logits.unflatten(0, (-1, 2)).unbind(dim=1)
    return unconditional.lerp(conditional, guidance)


def uniform_numbers(seed: int, *shape: int) -> Tensor:
    """Draw random numbers on the host for ``sample_tokens``, from 0 to ``BELOW_ONE``."""
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed)).clamp_(max=BELOW_ONE)


def sample_tokens(logits: Tensor, uniform: Tensor, sampling: Sampling) -> Tensor:
    """Sample tokens of each row by inverse transform sampling over the token ids in their natural order.

    Args:
        logits: (B, V) float32; a token with -inf is never sampled.
        uniform: (B,) from 0 to ``BELOW_ONE``, or (B, M) for M independent tokens per row; if greedy, only its shape
            counts.

    Returns:
        token ids of the shape of ``uniform``. Tokens that tie with the last one inside top_k or top_p are inside too.
    """
    if sampling.temperature == 0:
        return logits.argmax(dim=-1).view(-1, *[1] * (uniform.ndim - 1)).expand_as(uniform)
    logits = logits / sampling.temperature
    if 0 < sampling.top_k < logits.shape[-1]:
        threshold = logits.topk(sampling.top_k, dim=-1).values[:, -1:]
        logits = logits.masked_fill(logits < threshold, -math.inf)
    probabilities = logits.softmax(dim=-1)
    if sampling.top_p < 1:
        threshold = nucleus_threshold(probabilities, sampling.top_p)
        probabilities = probabilities.masked_fill(probabilities < threshold, 0)
    cumulative = probabilities.cumsum(dim=-1)
    points = uniform.reshape(len(uniform), -1) * cumulative[:, -1:]  # (B, M) below the total
    return torch.searchsorted(cumulative, points, right=True).view(uniform.shape)


def nucleus_threshold(probabilities: Tensor, top_p: float) -> Tensor:
    """Return the smallest probability (B, 1) of the most likely tokens of (B, V) that together reach ``top_p``.

    Usually few tokens reach it. A CPU ranks only the first ones, and more only if they do not suffice; elsewhere this
    question would wait for the device, so all are ranked.
    """
    most = probabilities.shape[-1]
    count = min(FIRST_RANKED, most) if probabilities.device.type == "cpu" else most
    while True:
        ranked = probabilities.topk(count, dim=-1).values  # (B, count) descending
        mass = ranked.cumsum(dim=-1)
        if count == most or bool((mass[:, -1] >= top_p).all()):
            last = (mass[:, :-1] < top_p).sum(dim=-1, keepdim=True)  # the token that reaches it
            return ranked.gather(-1, last)
        count = min(8 * count, most)
