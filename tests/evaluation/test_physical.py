"""Physical measures equal the public code: skating, jerk, MBench, floor contact, control error."""

import numpy as np

from evaluation.physical.control import control_error
from evaluation.physical.floor import (
    floating,
    floor_skating,
    lowest_penetration,
    mean_penetration,
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
from evaluation.physical.skating import KIT_FEET, foot_skate, skating
from motion.measures import foot_slide
from motion.skeleton import Z_UP_TO_Y_UP
from tests.conftest import golden_eval

FIXTURE = dict(np.load(golden_eval("physical.npz")))
JOINTS, FPS, LENGTHS = FIXTURE["joints"], float(FIXTURE["fps"]), FIXTURE["lengths"]
POINTS = FIXTURE["vertices_zup"] @ np.transpose(Z_UP_TO_Y_UP)


def close(value: object, key: str, rtol: float = 1e-5) -> None:
    np.testing.assert_allclose(value, FIXTURE[key], rtol=rtol, atol=1e-7, err_msg=key)


def test_skating_ratio():
    for prefix, result in (("gmd", skating(JOINTS)), ("kit", skating(FIXTURE["kit_joints"], feet=KIT_FEET))):
        np.testing.assert_array_equal(result.ratio, FIXTURE[f"{prefix}_skating_ratio"])
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
    half = len(JOINTS) // 2
    result = transition_jerk(JOINTS[:half], JOINTS[half:], FPS)
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
    for measure, key in ((mean_penetration, "uhc_penetration"), (floor_skating, "uhc_skate"),
                         (lowest_penetration, "physdiff_penetrate"), (floating, "physdiff_float")):  # fmt: skip
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


def test_a_standing_body_neither_slides_nor_jerks():
    still = np.repeat(JOINTS[:1, :1], 12, axis=1)
    assert not skating(still).ratio.any() and not frame_jerk(still).any()
    assert foot_slide(still[0]) == 0 and mbench(still[0]).sliding == mbench(still[0]).floating == 0
