"""Retrieval scores equal TMR's in its three protocols."""

import numpy as np
import pytest

from evaluation.retrieval import (
    Retrieval,
    ranks_of_best,
    retrieve,
    retrieve_by_meaning,
    retrieve_in_pools,
    similarity,
)
from tests.conftest import golden_eval
from utils.errors import InputError

FIXTURE = dict(np.load(golden_eval("retrieval.npz")))


def check(result: Retrieval, prefix: str) -> None:
    for direction, scores in zip(("t2m", "m2t"), result, strict=True):
        np.testing.assert_allclose([*scores.recall, scores.median_rank], FIXTURE[f"{prefix}_{direction}"], rtol=1e-10)


@pytest.mark.parametrize("source", ["similarities", "embeddings"])
def test_three_protocols(source):
    embedded = similarity(FIXTURE["text"], FIXTURE["motion"])
    np.testing.assert_allclose(embedded, FIXTURE["sim"], atol=1e-5)
    similarities = embedded if source == "embeddings" else FIXTURE["sim"]
    check(retrieve(similarities), "normal")
    check(retrieve_by_meaning(similarities, FIXTURE["sent_emb"], float(FIXTURE["threshold"])), "threshold")
    check(retrieve_in_pools(similarities), "guo")


def test_ranks_of_ties_are_averaged():
    same = np.eye(len(FIXTURE["sim"]), dtype=bool)
    assert (ranks_of_best(-FIXTURE["sim"][None], same) == FIXTURE["normal_rank_t2m"]).all()
    assert (ranks_of_best(-FIXTURE["sim"].T[None], same) == FIXTURE["normal_rank_m2t"]).all()
    assert ranks_of_best(np.array([[[1.0, 0.5, 1.0]]]), np.array([[True, False, False]])) == 1.5
    cosines = FIXTURE["sent_emb"] @ FIXTURE["sent_emb"].T
    right = cosines > 2 * FIXTURE["threshold"] - 1
    assert (ranks_of_best(-FIXTURE["sim"][None], right) == FIXTURE["threshold_rank_t2m"]).all()
    assert (ranks_of_best(-FIXTURE["sim"].T[None], right) == FIXTURE["threshold_rank_m2t"]).all()


def test_fewer_clips_than_a_group_are_refused():
    with pytest.raises(InputError, match="fewer than the 32"):
        retrieve_in_pools(np.eye(31))
