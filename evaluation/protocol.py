"""Evaluation of text-to-motion: pairs of captions and motions -> a row of real and a row of generated motions.

One repeat is a set of ``Pairs``: a caption per clip, the real motion, and the motion generated for this caption. The
published protocol has 20 repeats, each with its own choice of captions, cuts of the clips and generated motions:

    embeddings = [embed(evaluator, pairs) for pairs in repeats]
    table = measure(embeddings, "t2m", seed=0)
    print(table.markdown())
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from evaluation.evaluators.interface import Caption, Evaluator
from evaluation.text_motion import POOL, PROTOCOLS, TOP, Embeddings, Interval, Protocol, Scores, compare, interval
from utils.errors import InputError

UNIT = 4  # frames; T2M cuts clips to whole units
COLUMNS = (*(f"R@{k}" for k in range(1, TOP + 1)), "MM-Dist", "FID", "Diversity")


class Pairs(NamedTuple):
    """Captions and motions of one repeat; entry i of each list belongs to pair i."""

    captions: Sequence[Caption]
    real: Sequence[np.ndarray]  # features (T, D) of the evaluator
    generated: Sequence[np.ndarray]  # features (T, D) of the evaluator


class Row(NamedTuple):
    """Metrics of one set of motions over all repeats."""

    r_precision: Interval  # (3,)
    mm_dist: Interval
    fid: Interval
    diversity: Interval


@dataclass(frozen=True)
class Table:
    """The metrics of real and of generated motions, which are always reported together."""

    real: Row
    generated: Row
    protocol: str
    pairs: int
    repeats: int

    def markdown(self) -> str:
        """Return the table in Markdown, each value with the half width of its 95 % interval."""
        lines = [f"| | {' | '.join(COLUMNS)} |", "|---" * (1 + len(COLUMNS)) + "|"]
        for name, row in (("real", self.real), ("generated", self.generated)):
            cells = [f"{mean:.3f} ± {half:.3f}" for mean, half in zip(*_values(row), strict=True)]
            lines.append(f"| {name} | {' | '.join(cells)} |")
        return "\n".join(lines)

    def summary(self) -> dict[str, Any]:
        """Return all values for a JSON file: mean and half width by row and metric, and the conditions."""
        rows = {
            name: {
                column: {"mean": mean, "half_width": half}
                for column, mean, half in zip(COLUMNS, *_values(row), strict=True)
            }
            for name, row in (("real", self.real), ("generated", self.generated))
        }
        return {"protocol": self.protocol, "pairs": self.pairs, "repeats": self.repeats, **rows}


def takes(evaluator: Evaluator, frames: int) -> bool:
    """Return whether a clip of so many frames belongs to the protocol of an evaluator; all others are left out."""
    return evaluator.min_frames <= frames <= evaluator.max_frames


def crop(frames: int, random: np.random.RandomState, one_less: float = 1 / 3) -> slice:
    """Draw the part of a clip that enters a repeat: whole units of 4 frames from a random start.

    Args:
        frames: Frames of the clip, at least 8.
        random: Generator of the repeat.
        one_less: Probability of one unit less than fits: 1/3 in T2M, 0 in the protocols of the 272 features.
    """
    length = (frames // UNIT - int(random.random_sample() < one_less)) * UNIT
    start = random.randint(0, frames - length + 1)
    return slice(start, start + length)


def embed(evaluator: Evaluator, pairs: Pairs, groups: np.ndarray | None = None) -> Embeddings:
    """Embed the pairs of a repeat.

    Args:
        evaluator: Evaluator of the representation of the motions.
        pairs: Captions and motions.
        groups: (N,) integers: captions of one group describe the same motion; None if all differ.

    Raises:
        InputError: The lists differ in length, there are fewer pairs than a pool has, or one cannot be embedded.
    """
    counts = {len(items) for items in pairs}
    if len(counts) > 1:
        raise InputError(
            f"there are {', '.join(str(len(items)) for items in pairs)} captions, real and generated motions"
        )
    if len(pairs.captions) < POOL:  # before hours of embedding
        raise InputError(
            f"there are {len(pairs.captions)} clips, fewer than the {POOL} of a pool of R-precision; use a larger split"
        )
    texts = evaluator.embed_texts(pairs.captions)
    real, generated = (evaluator.embed_motions(motions) for motions in pairs[1:])
    return Embeddings(texts, real, generated, groups)


def measure(repeats: Sequence[Embeddings], protocol: str = "t2m", seed: int = 0) -> Table:
    """Measure repeats in a published protocol.

    Args:
        repeats: Embeddings of each repeat. The same embeddings given many times vary by the draws alone.
        protocol: Name in ``PROTOCOLS``.
        seed: Seed of the draws of all repeats.

    Raises:
        InputError: There are no repeats, the protocol is unknown, or embeddings cannot be measured.
    """
    if not repeats:
        raise InputError("there are no repeats to measure; give at least one")
    if protocol not in PROTOCOLS:
        raise InputError(f"the protocol {protocol} is unknown; use {', '.join(PROTOCOLS)}")
    chosen: Protocol = PROTOCOLS[protocol]
    random = chosen.random(seed)
    results = [compare(each, chosen, chosen.draw(random, len(each.texts), POOL)) for each in repeats]
    real, generated = (_row([result[side] for result in results]) for side in range(2))
    return Table(real, generated, protocol, len(repeats[0].texts), len(repeats))


def _row(scores: Sequence[Scores]) -> Row:
    return Row(*(interval(np.array(values)) for values in zip(*scores, strict=True)))


def _values(row: Row) -> tuple[list[float], list[float]]:
    """Return the means and half widths of a row by ``COLUMNS``."""
    means, halves = (np.concatenate([np.atleast_1d(each[part]) for each in row]).tolist() for part in range(2))
    return means, halves
