"""The interface of all evaluators: networks that embed captions and motions into the same space."""

from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from utils.errors import InputError, shown


class Caption(NamedTuple):
    """A caption, with the word tokens of HumanML3D where the data has them."""

    text: str
    tokens: str = ""
    """``word/POS word/POS ...``; empty if the caption was written without them."""


class Evaluator(Protocol):
    """A text-motion evaluator. Embeddings of different evaluators are not comparable."""

    name: str
    """Name for tables."""
    fps: float
    """Frames per second of the motions that it takes."""
    features: int
    """Width of the features of a frame: 263 (HumanML3D), 251 (KIT-ML) or 272."""
    min_frames: int
    """Length of the shortest motion of its protocol."""
    max_frames: int
    """Length of the longest motion of its protocol."""

    def embed_motions(self, motions: Sequence[np.ndarray]) -> np.ndarray:
        """Embed motions.

        Args:
            motions: Features of each motion, (T, features), not normalized.

        Returns:
            (N, D) float32. An embedding does not depend on the other motions.

        Raises:
            InputError: A motion has another width, is too short or too long, or holds values that are not finite.
        """
        ...

    def embed_texts(self, captions: Sequence[Caption]) -> np.ndarray:
        """Embed captions.

        Returns:
            (N, D) float32. An embedding does not depend on the other captions.

        Raises:
            InputError: A caption is blank, or word tokens are needed and cannot be made.
        """
        ...


def check_motions(evaluator: Evaluator, motions: Sequence[np.ndarray]) -> None:
    """Raise InputError unless an evaluator can embed all motions; the message names the first that it cannot."""
    if not motions:
        raise InputError("there are no motions to embed; give at least one")
    for number, motion in enumerate(motions):
        if motion.ndim != 2 or motion.shape[1] != evaluator.features:
            raise InputError(
                f"motion {number} has the shape {shown(motion.shape, 40)}; the evaluator {evaluator.name} takes "
                f"features (frames, {evaluator.features}): convert the motions, or use another evaluator"
            )
        if not evaluator.min_frames <= len(motion) <= evaluator.max_frames:
            raise InputError(
                f"motion {number} has {len(motion)} frames; the evaluator {evaluator.name} takes "
                f"{evaluator.min_frames} to {evaluator.max_frames} at {evaluator.fps:g} fps: leave out or lengthen "
                "shorter motions, and cut longer ones"
            )
        if not np.isfinite(motion).all():
            raise InputError(f"motion {number} holds NaN or infinite values; make it again")


def check_captions(captions: Sequence[Caption]) -> None:
    """Raise InputError if there are no captions or one is blank."""
    if not captions:
        raise InputError("there are no captions to embed; give at least one")
    for number, caption in enumerate(captions):
        if not caption.text.strip() and not caption.tokens.strip():
            raise InputError(f"caption {number} is blank; describe a motion in words")


def embed_in_batches(lengths: Sequence[int], embed: Callable[[list[int]], Tensor], size: int = 128) -> np.ndarray:
    """Embed items in batches of similar length.

    Args:
        lengths: (N,) length of each item.
        embed: Maps the positions of at most ``size`` items to their embeddings (b, D).
        size: Items per batch.

    Returns:
        (N, D) float32, in the order of the items.
    """
    order = sorted(range(len(lengths)), key=lambda position: lengths[position])
    rows = torch.cat([embed(order[start : start + size]) for start in range(0, len(order), size)])
    embeddings = torch.empty_like(rows)
    embeddings[order] = rows
    return embeddings.float().cpu().numpy()
