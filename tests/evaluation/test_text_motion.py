"""Metrics on embeddings equal the public code: FID, R-precision, MM-Dist, Diversity, MultiModality."""

import numpy as np
import pytest

from evaluation.fid import feature_fid, fid, fit_gaussian, frechet_distance, unit, unit_fid
from evaluation.text_motion import (
    MOTIONGPT,
    MOTIUS,
    PROTOCOLS,
    T2M,
    TMR,
    Draws,
    Embeddings,
    compare,
    diversity,
    interval,
    match,
    multimodality,
    native,
    pairwise_distances,
)
from tests.conftest import golden_eval
from utils.errors import InputError

FIXTURE = dict(np.load(golden_eval("t2m_metrics.npz")))
CASES = dict(np.load(golden_eval("fid_cases.npz")))
EMBEDDINGS = Embeddings(FIXTURE["text"], FIXTURE["motion"], FIXTURE["motion_pred"])
PAIRS, SIZE = len(FIXTURE["text"]), int(FIXTURE["batch_size"])
ANY = np.zeros((2, 1), int)  # draws of a Diversity that is not looked at


def close(value: object, key: str, rtol: float = 1e-4) -> None:
    np.testing.assert_allclose(value, FIXTURE[key], rtol=rtol, err_msg=key)


# --- FID


@pytest.mark.parametrize("case", CASES["cases"])
def test_fid_equals_the_exact_value_and_the_reference(case):
    real, pred = CASES[f"{case}_real"], CASES[f"{case}_pred"]
    scale = np.trace(CASES[f"{case}_cov_real"]) + 1
    assert abs(fid(real, pred) - CASES[f"{case}_fid_eigh"]) < 1e-6 * scale
    assert abs(fid(real, pred) - CASES[f"{case}_fid"]) < (3e-4 if case == "constant_dims_differ" else 1e-6) * scale
    assert abs(fid(real, pred) - CASES[f"{case}_fid_scipy117"]) < 1e-6 * scale
    assert abs(unit_fid(real, pred) - CASES[f"{case}_fid_unit"]) < 2e-6
    for side, gaussian in (("real", fit_gaussian(real)), ("pred", fit_gaussian(pred))):
        np.testing.assert_allclose(gaussian.mean, CASES[f"{case}_mu_{side}"], rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(gaussian.covariance, CASES[f"{case}_cov_{side}"], rtol=1e-9, atol=1e-9)


def test_feature_fid_standardizes_by_the_real_features():
    value = feature_fid(CASES["regular_real"], CASES["regular_pred"])
    np.testing.assert_allclose(value, CASES["feature_fid"], rtol=1e-5)


def test_fid_does_not_depend_on_the_order_of_sets_or_rows():
    real, pred = CASES["regular_real"], CASES["regular_pred"]
    np.testing.assert_allclose(fid(pred[::-1], real), fid(real, pred), rtol=1e-10)


def test_fid_of_embeddings_without_distribution_is_refused():
    with pytest.raises(InputError, match="at least two"):
        fid(np.zeros((1, 4)), np.zeros((5, 4)))
    with pytest.raises(InputError, match="NaN"):
        fid(np.full((5, 4), np.nan), np.zeros((5, 4)))
    with pytest.raises(InputError, match="same evaluator"):
        frechet_distance(fit_gaussian(np.eye(4)), fit_gaussian(np.eye(5)))


# --- R-precision, MM-Dist, Diversity in each protocol


def test_first_pool_equals_the_reference():
    pool = FIXTURE["order"][:SIZE]
    distances = pairwise_distances(FIXTURE["text"][pool], FIXTURE["motion_pred"][pool])
    close(distances, "batch0_dist")
    assert (np.argsort(distances, axis=1) == FIXTURE["batch0_rank"]).all()
    precision, distance = match(FIXTURE["text"][pool], FIXTURE["motion_pred"][pool], np.arange(SIZE), None, SIZE)
    assert (precision == FIXTURE["batch0_top_k"].mean(axis=0)).all()
    np.testing.assert_allclose(distance, FIXTURE["batch0_matching"].mean(), rtol=1e-4)


def test_t2m_and_t2m_gpt():
    order = FIXTURE["order"]
    row = compare(EMBEDDINGS, T2M, Draws(order, order[: PAIRS - PAIRS % SIZE], ANY, ANY), SIZE)
    for side, scores in (("real", row.real), ("pred", row.generated)):
        assert (scores.r_precision == FIXTURE[f"t2m_r_precision_{side}"]).all()
        close(scores.mm_dist, f"t2m_matching_score_{side}")
    assert abs(row.real.fid - FIXTURE["t2m_fid_real"]) < 1e-6 * (np.trace(FIXTURE["cov_real"]) + 1)
    close(row.generated.fid, "t2m_fid_pred", 1e-5)
    assert (row.generated.r_precision == FIXTURE["gpt_r_precision_pred"]).all()
    close(row.generated.mm_dist, "gpt_matching_score_pred")
    close(fid(FIXTURE["motion"], FIXTURE["motion_pred"]), "fid_all", 1e-5)


def test_diversity_takes_the_draws_of_the_legacy_generator():
    random, times = np.random.RandomState(int(FIXTURE["diversity_seed"])), int(FIXTURE["diversity_times"])
    first, second = (random.choice(PAIRS, times, replace=False) for _ in range(2))
    assert (first == FIXTURE["diversity_first"]).all() and (second == FIXTURE["diversity_second"]).all()
    close(diversity(FIXTURE["motion_pred"], first, second), "diversity_pred")


@pytest.mark.parametrize(("prefix", "protocol"), [("mgpt", MOTIONGPT), ("tmrm", TMR)])
def test_motiongpt_and_tmr(prefix, protocol):
    order, random = FIXTURE["mgpt_shuffle"], np.random.RandomState(int(FIXTURE["diversity_seed"]))
    times = int(FIXTURE["mgpt_diversity_times"])
    choices = order[[random.choice(PAIRS, times, replace=False) for _ in range(4)]]
    row = compare(EMBEDDINGS, protocol, Draws(order, order, choices[2:], choices[:2]), SIZE)
    for side, scores in (("real", row.real), ("pred", row.generated)):
        assert (scores.r_precision == FIXTURE[f"{prefix}_r_precision_{side}"]).all()
        close(scores.mm_dist, f"{prefix}_matching_score_{side}")
        if prefix == "mgpt":
            close(scores.diversity, f"mgpt_diversity_{side}")
    if prefix == "mgpt":
        close(row.generated.fid, "mgpt_fid", 1e-5)


@pytest.mark.parametrize("prefix", ["motius", "motius_rep", "motius_multi"])
def test_motius(prefix):
    groups = FIXTURE["motius_groups"] if prefix == "motius_multi" else None
    random = MOTIUS.random(int(FIXTURE[f"{prefix}_seed"]))
    rows = [
        compare(EMBEDDINGS._replace(groups=groups), MOTIUS, MOTIUS.draw(random, PAIRS, SIZE), SIZE)
        for _ in range(int(FIXTURE[f"{prefix}_repeats"]))
    ]
    precision = np.array([row.generated.r_precision for row in rows])
    np.testing.assert_allclose(precision.mean(axis=0), FIXTURE[f"{prefix}_r_precision"], rtol=1e-12)
    np.testing.assert_allclose(precision.std(axis=0), FIXTURE[f"{prefix}_r_precision_std"], atol=1e-12)
    close(np.mean([row.generated.mm_dist for row in rows]), f"{prefix}_matching_score")
    close(np.mean([row.generated.fid for row in rows]), f"{prefix}_fid", 1e-5)
    close(np.mean([row.real.diversity for row in rows]), f"{prefix}_diversity_reference")
    close(np.mean([row.generated.diversity for row in rows]), f"{prefix}_diversity_predicted")


def test_draws_of_motius_start_with_the_published_order():
    random = MOTIUS.random(int(FIXTURE["motius_seed"]))
    assert (MOTIUS.draw(random, PAIRS, SIZE).order == FIXTURE["motius_order"]).all()


@pytest.mark.parametrize("protocol", PROTOCOLS.values(), ids=PROTOCOLS)
def test_draws_are_repeatable_choices_of_rows(protocol):
    draws, again = (protocol.draw(protocol.random(5), PAIRS, SIZE) for _ in range(2))
    assert all((first == second).all() for first, second in zip(draws, again, strict=True))
    assert sorted(draws.order) == list(range(PAIRS)) and set(draws.rows) <= set(range(PAIRS))
    assert all(len(set(row)) == len(row) for row in (*draws.real, *draws.generated))


def test_unit_embeddings_equal_those_of_motius():
    np.testing.assert_allclose(unit(FIXTURE["motion_pred"]), FIXTURE["unit_norm_pred"], rtol=1e-10)


def test_interval_of_repeats():
    for values, mean, half_width in (("values", "mean", "conf"), ("r_values", "r_mean", "r_conf")):
        result = interval(FIXTURE[f"rep_{values}"])
        np.testing.assert_allclose(result.mean, FIXTURE[f"rep_{mean}"], rtol=1e-10)
        np.testing.assert_allclose(result.half_width, FIXTURE[f"rep_{half_width}"], rtol=1e-10)


def test_multimodality():
    fixture = dict(np.load(golden_eval("multimodality.npz")))
    value = multimodality(fixture["activation"], int(fixture["times"]), int(fixture["seed"]))
    np.testing.assert_allclose(value, fixture["multimodality"], rtol=1e-4)


def test_a_model_that_embeds_all_motions_alike_gains_nothing():
    collapsed = np.ones_like(FIXTURE["motion"])
    precision, _ = match(native(FIXTURE["text"]), collapsed, np.arange(PAIRS), None, SIZE)
    assert (precision == 0).all()


def test_captions_of_one_motion_are_no_rivals():
    groups = np.arange(PAIRS) // 4
    motions = FIXTURE["motion"][groups]  # each four times, at equal distances
    precision, _ = match(motions, motions, np.arange(PAIRS), groups, SIZE)
    assert (precision == 1).all()


def test_pairs_that_are_no_pool_are_refused():
    few = Embeddings(*(vectors[: SIZE - 1] for vectors in EMBEDDINGS[:3]))
    draws = Draws(np.arange(SIZE - 1), np.arange(SIZE - 1), ANY, ANY)
    with pytest.raises(InputError, match=f"{SIZE - 1} clips, fewer than the {SIZE}"):
        compare(few, T2M, draws, SIZE)
    with pytest.raises(InputError, match="one row per caption"):
        compare(EMBEDDINGS._replace(texts=FIXTURE["text"][1:]), T2M, draws, SIZE)
    with pytest.raises(InputError, match="NaN"):
        compare(EMBEDDINGS._replace(generated=FIXTURE["motion"] * np.nan), T2M, draws, SIZE)
    with pytest.raises(InputError, match="one per pair"):
        compare(EMBEDDINGS._replace(groups=np.zeros(3, int)), T2M, draws, SIZE)
    with pytest.raises(InputError, match="more motions per caption"):
        multimodality(np.zeros((3, 5, 8)), times=10)
