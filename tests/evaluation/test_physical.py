"""Physical measures equal the public code: skating, jerk, MBench, floor contact, control error."""

import numpy as np
import pytest

from evaluation.physical.control import control_error
from evaluation.physical.floor import (
    floor_skating,
    lowest_penetration,
    mean_penetration,
    physdiff_floating,
    physical_error,
)
from evaluation.physical.jerk import (
    BABEL_JERK,
    HUMANML3D_JERK,
    area_under_jerk,
    frame_jerk,
    jerk_curve,
    mean_jerk,
    peak_jerk,
    transition_jerk,
)
from evaluation.physical.mbench import mbench, table_row
from evaluation.physical.quality import motion_quality
from evaluation.physical.skating import KIT_FEET, foot_skate, skating
from motion.measures import foot_slide
from motion.skeleton import Z_UP_TO_Y_UP, forward_kinematics
from tests.conftest import golden_eval
from utils.errors import InputError

FIXTURE = dict(np.load(golden_eval("physical.npz")))
JOINTS, FPS, LENGTHS = FIXTURE["joints"], float(FIXTURE["fps"]), FIXTURE["lengths"]
POINTS = FIXTURE["vertices_zup"] @ np.transpose(Z_UP_TO_Y_UP)


def close(value: object, key: str, rtol: float = 1e-5) -> None:
    np.testing.assert_allclose(value, FIXTURE[key], rtol=rtol, atol=1e-7, err_msg=key)


def test_skating_ratio():
    for prefix, result in (("gmd", skating(JOINTS)), ("kit", skating(FIXTURE["kit_joints"], feet=KIT_FEET))):
        np.testing.assert_allclose(result.ratio, FIXTURE[f"{prefix}_skating_ratio"], rtol=1e-12)
        close(result.velocity, f"{prefix}_skate_vel", 1e-4)


def test_kimodo():
    result = foot_skate(JOINTS, FIXTURE["foot_contacts"], LENGTHS, FPS)
    for name, key in (("from_height", "skate_from_height"), ("from_contacts", "skate_from_contacts"),
                      ("max_speed", "skate_max_vel"), ("ratio", "skate_ratio"),
                      ("contact_consistency", "contact_consistency")):  # fmt: skip
        close(getattr(result, name), f"kimodo_foot_{key}")


def test_flowmdm_and_hymotion_jerk():
    jerk = frame_jerk(JOINTS, LENGTHS)
    close(jerk, "flowmdm_jerk")
    close(peak_jerk(jerk), "flowmdm_peak_jerk")
    close(area_under_jerk(jerk), "flowmdm_auj_humanml3d")
    close(area_under_jerk(jerk, BABEL_JERK), "flowmdm_auj_babel")
    assert FIXTURE["flowmdm_gt_jerk_humanml3d"] == HUMANML3D_JERK
    assert FIXTURE["flowmdm_gt_jerk_babel"] == BABEL_JERK
    close(mean_jerk(jerk), "hymotion_jerk")


def test_motius_jerk():
    close(jerk_curve(JOINTS, FPS), "motius_jerk_curve", 1e-4)
    result = transition_jerk(JOINTS[:2], JOINTS[2:4], FPS)
    close(result.peak_reference, "motius_transition_peak_jerk_reference", 1e-4)
    close(result.peak_generated, "motius_transition_peak_jerk_predicted", 1e-4)
    close(result.area_between, "motius_transition_auj_gap", 1e-4)


def test_mbench():
    names = {"jitter": "jitter", "dynamic": "dynamic", "penetration": "penet", "sliding": "slide", "floating": "float"}
    rows, table = [mbench(joints) for joints in JOINTS], table_row(list(JOINTS))
    for name, key in names.items():
        close([getattr(row, name) for row in rows], f"mbench_{key}")
        close(getattr(table, name), f"mbench_table_{key}")


def test_uhc_and_physdiff():
    measures = {
        "uhc_penetration": mean_penetration,
        "uhc_skate": floor_skating,
        "physdiff_penetrate": lowest_penetration,
        "physdiff_float": physdiff_floating,
    }
    for key, measure in measures.items():
        close(measure(POINTS), f"{key}_frame")
        close(measure(POINTS).mean(), key)
    result = physical_error(POINTS)
    close(result.skating, "physdiff_skate")
    close(result.total, "physdiff_phys_err")


def test_omnicontrol():
    result = control_error(JOINTS, FIXTURE["hint"], FIXTURE["hint_mask"])
    close(result.mean, "omnicontrol_mean_error")
    close(np.transpose(result), "omnicontrol_trajectory")
    nothing = control_error(JOINTS, FIXTURE["hint"], np.zeros_like(FIXTURE["hint_mask"]))
    assert not np.any(nothing)


@pytest.fixture
def standing() -> np.ndarray:
    """A rest pose that stands still on the floor, (40, 22, 3)."""
    joints = forward_kinematics(np.tile(np.eye(3), (40, JOINTS.shape[2], 1, 1)), np.zeros((40, 3)))
    return joints - (0, joints[..., 1].min(), 0)


def test_a_standing_body_neither_slides_nor_jerks(standing):
    assert not skating(standing[None]).ratio.any() and not frame_jerk(standing[None]).any()
    assert foot_slide(standing) == 0 and mbench(standing).sliding == mbench(standing).floating == 0


def test_quality_notices_motion_that_slides_sinks_floats_or_jerks(standing):
    real = motion_quality([standing])
    np.testing.assert_allclose(real, (0, 0, 0, 0, 0, 1), atol=1e-6)
    forward = np.arange(len(standing))[:, None, None] * (0.05, 0, 0)
    assert motion_quality([standing + forward]).skating_ratio > 0.9
    np.testing.assert_allclose(motion_quality([standing + forward]).foot_speed, 1.5)
    np.testing.assert_allclose(motion_quality([standing - (0, 0.02, 0)]).penetration, 20)
    np.testing.assert_allclose(motion_quality([standing, standing + (0, 0.02, 0)]).floating, 10)
    assert motion_quality([standing + np.random.default_rng(0).normal(0, 0.01, standing.shape)]).jerk > 100


def test_quality_of_motions_without_enough_frames_is_refused():
    with pytest.raises(InputError, match="motion 1 has 3 frames"):
        motion_quality([JOINTS[0], JOINTS[0][:3]])
    with pytest.raises(InputError, match="no motions"):
        motion_quality([])
