"""Retrieval of motions by text and of text by motions, in the protocols of TMR (Petrovich et al., ICCV 2023).

Source: TMR src/model/metrics.py and retrieval.py, which round to two decimals; these values are not rounded.
"""

from typing import NamedTuple

import numpy as np

from evaluation.fid import unit
from evaluation.ranks import ranks_among, top_k
from utils.errors import InputError

TOP = (1, 2, 3, 5, 10)  # k of the recalls
POOL = 32  # pairs per group of the protocol "guo"
THRESHOLD = 0.95  # similarity of captions above which they are equivalent, on a scale from 0 to 1


class Recall(NamedTuple):
    """Scores of one direction of retrieval."""

    recall: np.ndarray  # (5,) percent of queries whose correct answer is among the first 1, 2, 3, 5, 10
    median_rank: float  # 1 is the best


class Retrieval(NamedTuple):
    """Scores of both directions."""

    text_to_motion: Recall
    motion_to_text: Recall


def similarity(texts: np.ndarray, motions: np.ndarray) -> np.ndarray:
    """Return the cosines (N, N) float32 of embeddings (N, D) of captions, in rows, and of motions, in columns.

    They are computed in float64 and rounded, so that identical motions are equally similar.
    """
    texts, motions = unit(texts), unit(motions)
    cosines = np.empty((len(texts), len(motions)), np.float32)
    for rows in _blocks(len(texts)):
        cosines[rows] = texts[rows] @ motions.T
    return cosines


def retrieve(similarities: np.ndarray) -> Retrieval:
    """Retrieve among all N pairs; only the own motion of a caption is correct (protocol "normal").

    Args:
        similarities: (N, N), captions in rows, motions in columns.
    """
    return _both(similarities[None], np.eye(len(similarities), dtype=bool))


def retrieve_by_meaning(similarities: np.ndarray, sentences: np.ndarray, threshold: float = THRESHOLD) -> Retrieval:
    """Retrieve among all N pairs; motions of equivalent captions are correct as well (protocol "threshold").

    Args:
        similarities: (N, N), captions in rows, motions in columns.
        sentences: (N, D) sentence embeddings of the captions.
        threshold: Similarity of sentences, cosine / 2 + 0.5, above which they are equivalent.
    """
    same = similarity(sentences, sentences) > 2 * threshold - 1
    np.fill_diagonal(same, True)
    return _both(similarities[None], same)


def retrieve_in_pools(similarities: np.ndarray, seed: int = 0, pool: int = POOL) -> Retrieval:
    """Retrieve in random groups of 32 pairs, as in the R-precision of T2M (protocol "guo").

    TMR sorts the clips by their ids before the rows are shuffled; the incomplete last group is dropped.

    Args:
        similarities: (N, N), captions in rows, motions in columns, sorted by clip id.
        seed: Seed of the legacy generator of NumPy.
        pool: Pairs per group.

    Raises:
        InputError: There are fewer pairs than a group has.
    """
    if len(similarities) < pool:
        raise InputError(f"there are {len(similarities)} clips, fewer than the {pool} of a group; use a larger split")
    order = np.arange(len(similarities))
    np.random.RandomState(seed).shuffle(order)
    groups = order[: len(order) - len(order) % pool].reshape(-1, pool)  # (G, P)
    return _both(similarities[groups[:, :, None], groups[:, None, :]], np.eye(pool, dtype=bool))


def _both(similarities: np.ndarray, positives: np.ndarray) -> Retrieval:
    """Return scores over groups of similarities (G, P, P), each the mean over the groups; positives are symmetric."""
    return Retrieval(
        _recall(ranks_of_best(-similarities, positives)),
        _recall(ranks_of_best(-similarities.swapaxes(1, 2), positives)),
    )


def ranks_of_best(distances: np.ndarray, positives: np.ndarray) -> np.ndarray:
    """Return the rank (G, Q) of the best correct answer among all candidates; 0 is the best rank.

    As in TMR, the answer shares the mean of the ranks of all candidates at its distance, correct or not.

    Args:
        distances: (G, Q, C) from each query to each candidate.
        positives: (Q, C) booleans: whether a candidate is correct; at least one per query.
    """
    ranks = []
    for rows in _blocks(len(positives)):
        block = distances[:, rows]  # (G, q, C)
        best = np.where(positives[rows], block, np.inf).min(axis=-1)
        ranks.append(ranks_among(best, block) - 0.5)  # the answer is one of the candidates
    return np.concatenate(ranks, axis=1)


def _blocks(count: int) -> list[slice]:
    """Divide rows among slices of at most 512, which keep the memory small."""
    return [slice(start, start + 512) for start in range(0, count, 512)]


def _recall(ranks: np.ndarray) -> Recall:
    """Return the scores of ranks (G, P), whose best value is 0."""
    recall = np.array([100 * top_k(ranks, k) for k in TOP])
    return Recall(recall, float(np.median(ranks, axis=1).mean() + 1))
