"""Text-to-motion metrics on paired embeddings of captions, real motions and generated motions.

| metric | definition |
|---|---|
| R-precision | share of captions whose own motion is among the k = 1, 2, 3 nearest of a pool of 32 motions |
| MM-Dist | mean Euclidean distance between a caption and its motion; also named matching score |
| FID | distance between the distributions of real and generated motions, see evaluation/fid.py |
| Diversity | mean distance between two random choices of motions |
| MultiModality | mean distance between two random choices of motions of the same caption |

Published protocols define them alike and differ in random draws, in the scale of the embeddings and in the rows that
enter FID. A ``Protocol`` holds these differences. Sources: text-to-motion/final_evaluations.py (T2M), T2M-GPT
utils/eval_trans.py (also MoMask, MotionStreamer, MotionMillion), MotionGPT mGPT/metrics/t2m.py (also MLD),
MotionStreamer mld/models/metrics/tmr_tm2t.py (TMR), Motius evaluation/metrics/t2m.py.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from evaluation.fid import fit_gaussian, frechet_distance, unit
from evaluation.ranks import ranks_among, top_k
from utils.errors import InputError

POOL = 32  # motions among which a caption retrieves its own
TOP = 3  # largest k of R-precision


class Draws(NamedTuple):
    """Random choices of one repeat, as rows of the embeddings."""

    order: np.ndarray  # (N,) consecutive groups are the pools; an incomplete last group is dropped
    rows: np.ndarray  # (M,) rows that enter FID
    real: np.ndarray  # (2, times) rows between which the Diversity of the real motions is measured
    generated: np.ndarray  # (2, times) the same for the generated motions


class Embeddings(NamedTuple):
    """Paired embeddings: row i of each array belongs to pair i."""

    texts: np.ndarray  # (N, D)
    real: np.ndarray  # (N, D)
    generated: np.ndarray  # (N, D)
    groups: np.ndarray | None = None  # (N,) integers; motions of one group are correct answers to its captions


class Scores(NamedTuple):
    """Metrics of one set of motions in one repeat."""

    r_precision: np.ndarray  # (3,) shares for k = 1, 2, 3
    mm_dist: float
    fid: float
    diversity: float


class Comparison(NamedTuple):
    """Real motions beside generated ones. FID of the real motions is 0 but for rounding."""

    real: Scores
    generated: Scores


class Interval(NamedTuple):
    """Mean over repeats and half width of its 95 % confidence interval."""

    mean: np.ndarray
    half_width: np.ndarray


@dataclass(frozen=True)
class Protocol:
    """The differences between published protocols."""

    random: Callable[[int], Any]
    """Random generator of a seed: the legacy or the new one of NumPy. The repeats of an evaluation share it."""
    draw: Callable[[Any, int, int], Draws]
    """Random choices of a repeat, from the generator, the number of pairs and the size of a pool."""
    scale: Callable[[np.ndarray], np.ndarray]
    """Scale of the embeddings in all metrics but FID: ``native`` or ``unit``."""
    fid_scale: Callable[[np.ndarray], np.ndarray]
    """Scale of the embeddings in FID: ``native`` for the raw one, or ``unit``."""


# --- Draws


def draw_t2m(random: np.random.RandomState, pairs: int, pool: int = POOL) -> Draws:
    """Draw a repeat of T2M and T2M-GPT: the pairs of the incomplete last pool enter no metric."""
    order = random.permutation(pairs)
    rows = order[: pairs - pairs % pool]
    real, generated = (_choose_twice(random, rows, diversity_times(len(rows))) for _ in range(2))
    return Draws(order, rows, real, generated)


def draw_motiongpt(random: np.random.RandomState, pairs: int, pool: int = POOL) -> Draws:
    """Draw a repeat of MotionGPT and MLD: FID and Diversity take all pairs, and the generated motions come first."""
    order = random.permutation(pairs)
    generated, real = (_choose_twice(random, order, diversity_times(pairs)) for _ in range(2))
    return Draws(order, order, real, generated)


def draw_motius(random: np.random.Generator, pairs: int, pool: int = POOL) -> Draws:
    """Draw a repeat of Motius: FID and Diversity take all pairs, with at most 300 draws."""
    order, rows = random.permutation(pairs), np.arange(pairs)
    real, generated = (_choose_twice(random, rows, min(300, pairs)) for _ in range(2))
    return Draws(order, rows, real, generated)


def diversity_times(count: int) -> int:
    """Return the number of draws for Diversity: 300, or 100 for up to 300 motions (T2M-GPT), or all of up to 100."""
    return 300 if count > 300 else min(100, count)


def _choose_twice(random: Any, rows: np.ndarray, times: int) -> np.ndarray:
    """Return two independent choices (2, times) of rows, each without repetition."""
    return np.stack([rows[random.choice(len(rows), times, replace=False)] for _ in range(2)])


def native(vectors: np.ndarray) -> np.ndarray:
    """Return embeddings as they are, in float64."""
    return vectors.astype(np.float64)


T2M = Protocol(np.random.RandomState, draw_t2m, native, native)
MOTIONGPT = Protocol(np.random.RandomState, draw_motiongpt, native, native)
TMR = Protocol(np.random.RandomState, draw_motiongpt, unit, unit)
MOTIUS = Protocol(np.random.default_rng, draw_motius, native, unit)
PROTOCOLS = {"t2m": T2M, "motiongpt": MOTIONGPT, "tmr": TMR, "motius": MOTIUS}


# --- Metrics


def compare(embeddings: Embeddings, protocol: Protocol, draws: Draws, pool: int = POOL) -> Comparison:
    """Measure real and generated motions in one repeat.

    Args:
        embeddings: Paired embeddings.
        protocol: One of ``PROTOCOLS``.
        draws: Random choices of this repeat.
        pool: Motions per pool.

    Raises:
        InputError: There are fewer pairs than a pool has, the arrays are not paired, or a value is not finite.
    """
    check_embeddings(embeddings, pool)
    texts = protocol.scale(embeddings.texts)
    reference = fit_gaussian(protocol.fid_scale(embeddings.real[draws.rows]))

    def measure(motions: np.ndarray, choices: np.ndarray, fid: float) -> Scores:
        scaled = protocol.scale(motions)
        return Scores(*match(texts, scaled, draws.order, embeddings.groups, pool), fid, diversity(scaled, *choices))

    distance = frechet_distance(reference, fit_gaussian(protocol.fid_scale(embeddings.generated[draws.rows])))
    return Comparison(
        measure(embeddings.real, draws.real, frechet_distance(reference, reference)),
        measure(embeddings.generated, draws.generated, distance),
    )


def match(
    texts: np.ndarray, motions: np.ndarray, order: np.ndarray, groups: np.ndarray | None = None, pool: int = POOL
) -> tuple[np.ndarray, float]:
    """Return R-precision (3,) and MM-Dist of paired embeddings.

    With groups, every motion of a caption's group in its pool is a correct answer, and MM-Dist takes the nearest one.

    Args:
        texts: (N, D) embeddings of captions.
        motions: (N, D) embeddings of motions.
        order: (N,) order of the pairs. Consecutive groups are the pools; an incomplete last one is dropped.
        groups: (N,) integers; None if each caption has one correct motion.
        pool: Motions per pool.
    """
    pools = order[: len(order) - len(order) % pool].reshape(-1, pool)  # (B, P)
    distances = pairwise_distances(texts[pools], motions[pools])  # (B, P, P)
    members = pools if groups is None else groups[pools]
    positives = members[:, :, None] == members[:, None, :]
    nearest = np.where(positives, distances, np.inf).min(axis=-1)  # (B, P)
    ranks = ranks_among(nearest, np.where(positives, np.inf, distances))
    return np.array([top_k(ranks, k) for k in range(1, TOP + 1)]), float(nearest.mean())


def pairwise_distances(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return the Euclidean distances (..., P, Q) of vectors (..., P, D) and (..., Q, D), in float64.

    Public code computes them in float32 and without a lower bound, where pairs that are almost equal become NaN.
    """
    first, second = first.astype(np.float64), second.astype(np.float64)
    squares = (first**2).sum(axis=-1)[..., :, None] + (second**2).sum(axis=-1)[..., None, :]
    return np.sqrt(np.maximum(squares - 2 * first @ second.swapaxes(-1, -2), 0))


def diversity(motions: np.ndarray, first: np.ndarray, second: np.ndarray) -> float:
    """Return the mean distance between rows ``first`` and rows ``second`` of (N, D) embeddings."""
    return float(np.linalg.norm(native(motions[first]) - native(motions[second]), axis=-1).mean())


def multimodality(motions: np.ndarray, times: int = 10, seed: int = 0) -> float:
    """Return the mean distance between motions of the same caption.

    Both choices of motions are the same for all captions. The protocol of T2M takes 100 captions, T2M-GPT all captions.

    Args:
        motions: (C, R, D) embeddings of R motions, usually 30, for each of C captions.
        times: Motions per choice.
        seed: Seed of the legacy generator of NumPy.

    Raises:
        InputError: There are fewer motions per caption than draws.
    """
    if motions.ndim != 3 or motions.shape[1] < times:
        raise InputError(
            f"MultiModality with {times} draws needs {times} motions per caption; the embeddings have the shape "
            f"{motions.shape} (captions, motions, width): generate more motions per caption"
        )
    first, second = _choose_twice(np.random.RandomState(seed), np.arange(motions.shape[1]), times)
    return diversity(motions.swapaxes(0, 1), first, second)


def interval(values: np.ndarray) -> Interval:
    """Return the mean and 1.96 standard deviations (ddof 0) divided by sqrt(R) of the values (R, ...) of R repeats."""
    return Interval(values.mean(axis=0), 1.96 * values.std(axis=0) / np.sqrt(len(values)))


def check_embeddings(embeddings: Embeddings, pool: int = POOL) -> None:
    """Raise InputError unless embeddings are paired, finite and enough for one pool."""
    shapes = [vectors.shape for vectors in embeddings[:3]]
    pairs = len(embeddings.texts)
    if len(shapes[0]) != 2 or len(set(shapes)) > 1:
        raise InputError(f"the embeddings have the shapes {shapes}; give one row per caption, all of one evaluator")
    if embeddings.groups is not None and embeddings.groups.shape != (pairs,):
        raise InputError(f"there are groups of shape {embeddings.groups.shape} for {pairs} pairs; give one per pair")
    if pairs < pool:
        raise InputError(
            f"there are {pairs} clips, fewer than the {pool} of a pool of R-precision; use a larger split, or captions "
            "of more clips"
        )
    if not all(np.isfinite(vectors).all() for vectors in embeddings[:3]):
        raise InputError("the embeddings hold NaN or infinite values; check the motions that they are made of")
