"""Text features hidden in training: null text for classifier-free guidance, and sentences without their words."""

import torch
from torch import Tensor

from utils.device import to_device


def null_text(text: Tensor) -> tuple[Tensor, Tensor]:
    """Return the null text used for classifier-free guidance.

    It is one zero feature, so that the bias of ``llama_proj`` is learned as its embedding.

    Args:
        text: (B, L, D) features; only shape, dtype and device are used.

    Returns:
        text (B, L, D) of zeros and its mask (B, L), true in the first column.
    """
    mask = torch.zeros(text.shape[:2], dtype=torch.bool, device=text.device)
    mask[:, 0] = True
    return torch.zeros_like(text), mask


def drop_text(
    text: Tensor, text_mask: Tensor, p: float, generator: torch.Generator | None = None
) -> tuple[Tensor, Tensor]:
    """Replace each row's text by the null text with probability ``p``, for classifier-free guidance.

    See Ho & Salimans, "Classifier-Free Diffusion Guidance", 2022.

    Args:
        text: (B, L, D).
        text_mask: (B, L) bool.
        p: Probability.
        generator: CPU generator, for reproducible draws.

    Returns:
        new text and text_mask.
    """
    drop = to_device(torch.rand(len(text), generator=generator) < p, text.device)
    null, null_mask = null_text(text)
    return torch.where(drop[:, None, None], null, text), torch.where(drop[:, None], null_mask, text_mask)


def drop_states(text_mask: Tensor, p: float, generator: torch.Generator | None = None) -> Tensor:
    """Hide all text features of a row but its first one with probability ``p``.

    The first feature of MiniLM is the sentence vector, which is similar for sentences of similar meaning. A generator
    that is often given nothing else depends less on the wording.

    Args:
        text_mask: (B, L) bool.
        p: Probability.
        generator: CPU generator, for reproducible draws.

    Returns:
        new text_mask.
    """
    drop = to_device(torch.rand(len(text_mask), generator=generator) < p, text_mask.device)
    return text_mask & ((text_mask.cumsum(1) == 1) | ~drop[:, None])
