"""Pairs become a table of real and generated motions."""

import json

import numpy as np
import pytest

from evaluation.evaluators.interface import Caption
from evaluation.protocol import COLUMNS, Pairs, crop, embed, measure, takes
from evaluation.text_motion import POOL, PROTOCOLS
from utils.errors import InputError


class MeanEvaluator:
    """Embeds a motion as its mean frame, and a caption as the numbers in it."""

    name, fps, features, min_frames, max_frames = "mean", 30.0, 6, 8, 40

    def embed_motions(self, motions):
        return np.array([motion.mean(axis=0) for motion in motions], np.float32)

    def embed_texts(self, captions):
        return np.array([[float(number) for number in caption.text.split()] for caption in captions], np.float32)


@pytest.fixture
def pairs() -> Pairs:
    random = np.random.default_rng(3)
    centres = random.normal(size=(80, 6))
    motions = [np.repeat(centre[None], 20, axis=0) for centre in centres]
    noisy = [motion + random.normal(size=6) for motion in motions]
    return Pairs([Caption(" ".join(map(str, centre))) for centre in centres], motions, noisy)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_real_motions_stand_beside_generated_ones(pairs, protocol):
    embeddings = embed(MeanEvaluator(), pairs)
    table = measure([embeddings] * 20, protocol)
    assert (table.real.r_precision.mean == 1).all() and abs(table.real.fid.mean) < 1e-9
    assert (table.generated.r_precision.mean < 1).all() and table.generated.fid.mean > 0
    assert table.generated.mm_dist.half_width > 0 and (table.pairs, table.repeats) == (80, 20)
    again = measure([embeddings] * 20, protocol)
    assert json.dumps(again.summary()) == json.dumps(table.summary()) and "NaN" not in json.dumps(table.summary())
    header, _, real, generated = table.markdown().splitlines()
    assert all(header.count(column) == 1 for column in COLUMNS) and real.startswith("| real | 1.000 ± 0.000 ")
    assert generated.count("±") == len(COLUMNS)


def test_captions_that_mean_the_same_count_as_one(pairs):
    shuffled = pairs._replace(generated=[pairs.real[i ^ 1] for i in range(len(pairs.real))])  # neighbours exchanged
    apart = measure([embed(MeanEvaluator(), shuffled)])
    together = measure([embed(MeanEvaluator(), shuffled, np.arange(len(pairs.real)) // 2)])
    assert together.generated.r_precision.mean[0] > apart.generated.r_precision.mean[0] == 0


def test_crops_are_whole_units_within_the_clip():
    random = np.random.RandomState(0)
    crops = [crop(43, random) for _ in range(300)]
    assert {part.stop - part.start for part in crops} == {36, 40}
    assert all(part.start >= 0 and part.stop <= 43 for part in crops)
    assert {part.start for part in crops if part.stop - part.start == 40} == {0, 1, 2, 3}
    assert {part.stop - part.start for part in (crop(43, random, one_less=0) for _ in range(50))} == {40}
    assert takes(MeanEvaluator(), 8) and not takes(MeanEvaluator(), 7) and not takes(MeanEvaluator(), 41)


def test_pairs_that_cannot_be_measured_are_refused(pairs):
    few = Pairs(*(items[: POOL - 1] for items in pairs))
    with pytest.raises(InputError, match=f"{POOL - 1} clips, fewer than the {POOL}"):
        embed(MeanEvaluator(), few)
    with pytest.raises(InputError, match="79, 80, 80 captions"):
        embed(MeanEvaluator(), pairs._replace(captions=pairs.captions[1:]))
    with pytest.raises(InputError, match="no repeats"):
        measure([])
    with pytest.raises(InputError, match="unknown; use t2m"):
        measure([embed(MeanEvaluator(), pairs)], "other")
