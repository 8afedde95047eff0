"""Rank of the right answer among candidates, shared by R-precision and retrieval."""

import numpy as np


def ranks_of_best(distances: np.ndarray, positives: np.ndarray) -> np.ndarray:
    """Return the rank of the nearest right candidate of each query; 0 is the best rank.

    Candidates at equal distance share the mean of their ranks, so half ranks occur, and a model that embeds everything
    alike gains nothing. Distances are compared in float32, in which identical candidates tie.

    Args:
        distances: (..., Q, C) from each query to each candidate.
        positives: (..., Q, C) booleans, broadcast: whether a candidate is right; at least one per query.

    Returns:
        (..., Q) ranks.
    """
    distances = distances.astype(np.float32)
    best = np.where(positives, distances, np.inf).min(axis=-1, keepdims=True)  # (..., Q, 1)
    nearer, ties = (distances < best).sum(axis=-1), (distances == best).sum(axis=-1)
    return nearer + (ties - 1) / 2


def top_k(ranks: np.ndarray, k: int) -> float:
    """Return the share of ranks among the first k."""
    return float((ranks < k).mean())
