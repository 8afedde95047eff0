"""Rank of an answer among its rivals, shared by R-precision and retrieval."""

import numpy as np


def ranks_among(answers: np.ndarray, rivals: np.ndarray) -> np.ndarray:
    """Return the rank of each answer among its rivals; 0 is the best rank.

    A rival at equal distance counts half, which averages over ties: a model that embeds everything alike gains nothing.
    Distances are compared in float32, in which identical candidates tie.

    Args:
        answers: (..., Q) distance from each query to its answer.
        rivals: (..., Q, C) distances from each query to all other candidates.

    Returns:
        (..., Q) ranks; half ranks occur.
    """
    answers, rivals = answers.astype(np.float32)[..., None], rivals.astype(np.float32)
    return (rivals < answers).sum(axis=-1) + (rivals == answers).sum(axis=-1) / 2


def top_k(ranks: np.ndarray, k: int) -> float:
    """Return the share of ranks among the first k."""
    return float((ranks < k).mean())
