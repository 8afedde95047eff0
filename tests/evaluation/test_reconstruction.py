"""Errors of reconstructed joints equal the public code in each of its averages."""

import numpy as np
import pytest

from evaluation.reconstruction import (
    acceleration_error,
    clip_mean,
    clip_means,
    frame_mean,
    global_error,
    motionmillion_acceleration,
    mpjpe,
    pa_mpjpe,
    reconstruction,
    velocity_error,
)
from tests.conftest import golden_eval
from utils.errors import InputError

FIXTURE = dict(np.load(golden_eval("motion_errors.npz")))
LENGTHS = FIXTURE["lengths"]
REAL = [joints[:length] for joints, length in zip(FIXTURE["joints_gt"], LENGTHS, strict=True)]
PRED = [joints[:length] for joints, length in zip(FIXTURE["joints_pred"], LENGTHS, strict=True)]
MM = 1000


def close_metres(value: object, key: str) -> None:
    np.testing.assert_allclose(value, FIXTURE[key], atol=1e-5, err_msg=key)


def close_mm(value: object, key: str) -> None:
    np.testing.assert_allclose(value, FIXTURE[key], atol=1e-2, err_msg=key)


def test_errors_of_frames():
    cases = ((mpjpe, "mpjpe_frame", 0), (pa_mpjpe, "pa_mpjpe_frame", 0), (acceleration_error, "accel_error_frame", 2))
    for error, key, lost in cases:
        for row, real, pred in zip(FIXTURE[key], REAL, PRED, strict=True):
            np.testing.assert_allclose(error(real, pred), row[: len(real) - lost], atol=1e-5, err_msg=key)


def test_batches_equal_single_clips():
    batch = pa_mpjpe(FIXTURE["joints_gt"], FIXTURE["joints_pred"] + 0.01)
    for row, real, pred in zip(batch, REAL, PRED, strict=True):
        np.testing.assert_allclose(row[: len(real)], pa_mpjpe(real, pred + 0.01), atol=1e-9)


def test_averages_of_motionstreamer_and_mrmetrics():
    close_mm(MM * frame_mean(mpjpe, REAL, PRED), "motionstreamer_mpjpe_mm")
    result = reconstruction(REAL, PRED)
    close_mm(result.mpjpe, "mr_mpjpe_mm")
    close_mm(result.pa_mpjpe, "mr_pampjpe_mm")
    close_mm(result.acceleration_error, "mr_accel_mm")
    length = int(FIXTURE["mr_equal_length"])
    result = reconstruction([joints[:length] for joints in REAL], [joints[:length] for joints in PRED])
    close_mm(result.mpjpe, "mr_equal_mpjpe_mm")
    close_mm(result.pa_mpjpe, "mr_equal_pampjpe_mm")
    close_mm(result.acceleration_error, "mr_equal_accel_mm")


def test_averages_of_motionmillion():
    close_metres(clip_means(mpjpe, REAL, PRED), "motionmillion_mpjpe_clip")
    close_metres(clip_mean(mpjpe, REAL, PRED), "motionmillion_mpjpe")
    for side, clips in (("gt", REAL), ("pred", PRED)):
        mean, largest = np.array([motionmillion_acceleration(joints) for joints in clips]).T
        for name, values in (("mean", mean), ("max", largest)):
            close_metres(values, f"motionmillion_acceleration_{side}_{name}_clip")
            close_metres(values.mean(), f"motionmillion_acceleration_{side}_{name}")


def test_averages_of_uhc():
    for error, key in ((global_error, "mpjpe_g"), (mpjpe, "mpjpe"), (pa_mpjpe, "pa_mpjpe"),
                       (acceleration_error, "accel_dist"), (velocity_error, "vel_dist")):  # fmt: skip
        close_mm(MM * clip_means(error, REAL, PRED), f"uhc_{key}")


def test_procrustes_removes_similarity_transforms_but_no_reflection():
    turned = REAL[0] @ np.array([[0.0, 0, 1], [0, 1, 0], [-1, 0, 0]]) * 1.7 + [3, 2, 1]
    np.testing.assert_allclose(pa_mpjpe(REAL[0], turned), 0, atol=1e-6)
    assert (pa_mpjpe(REAL[0], REAL[0] * [-1, 1, 1]) > 0.01).all()
    collapsed = pa_mpjpe(REAL[0], np.zeros_like(REAL[0]))
    expected = np.linalg.norm(REAL[0] - REAL[0].mean(axis=1, keepdims=True), axis=-1).mean(axis=1)
    np.testing.assert_allclose(collapsed, expected, atol=1e-6)


def test_clips_that_cannot_be_compared_are_refused():
    with pytest.raises(InputError, match="same frames"):
        reconstruction(REAL, [PRED[0][1:], *PRED[1:]])
    with pytest.raises(InputError, match="at least 3"):
        reconstruction([REAL[0][:2]], [PRED[0][:2]])
    with pytest.raises(InputError, match="0 clips"):
        reconstruction([], [])
