"""The guard against motion that no person makes."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from dataset.synthetic import synthetic_clips
from motion.plausibility import check_plausible
from motion.skeleton import JOINT_INDEX
from utils.errors import InputError


@pytest.fixture
def walk() -> tuple[np.ndarray, np.ndarray]:
    clip = next(clip for clip in synthetic_clips(22, seed=1) if clip[0].startswith("walk_turn_left"))
    return clip[1].astype(np.float64), clip[2].astype(np.float64)


def turned(rotations: np.ndarray, name: str, axis: str, degrees: float) -> np.ndarray:
    rotations = rotations.copy()
    joint = JOINT_INDEX[name]
    rotations[:, joint] = rotations[:, joint] @ Rotation.from_euler(axis, degrees, degrees=True).as_matrix()
    return rotations


def test_procedural_motion_of_every_kind_is_plausible():
    for clip in synthetic_clips(22, seed=3):
        check_plausible(clip[1], clip[2])


@pytest.mark.parametrize(
    "name, axis, degrees, words",
    [
        ("pelvis", "x", 180, "head is below the feet in 171 of 171 frames .*--up"),
        ("left_knee", "x", -80, "left knee bends forward"),
        ("right_elbow", "y", -100, "right elbow bends backward"),
        ("left_wrist", "z", -90, "left wrist is bent by more than"),
        ("right_wrist", "x", 170, "right wrist is turned by more than"),
    ],
)
def test_postures_beyond_human_limits_are_refused(walk, name, axis, degrees, words):
    rotations, pelvis = walk
    with pytest.raises(InputError, match=f"{words}.*--force"):
        check_plausible(turned(rotations, name, axis, degrees), pelvis)


@pytest.mark.parametrize(
    "change, words",
    [
        (lambda pelvis: pelvis * [100, 1, 100], "pelvis moves faster than 20 m/s in .*--fps.*--units"),
        (lambda pelvis: pelvis + [0, 3, 0], r"lowest joint is at 3\.\d+ m, far from the floor.*--units"),
        (lambda pelvis: pelvis - [0, 0.9, 0], r"lowest joint is at -0\.\d+ m, far from the floor"),
    ],
)
def test_impossible_places_and_speeds_are_refused(walk, change, words):
    rotations, pelvis = walk
    with pytest.raises(InputError, match=words):
        check_plausible(rotations, change(pelvis))


def test_a_single_jump_names_its_frame(walk):
    rotations, pelvis = walk
    pelvis = pelvis + [2, 0, 0] * (np.arange(len(pelvis)) >= 100)[:, None]
    with pytest.raises(InputError, match=r"pelvis moves faster than 20 m/s in 1 of 170 frames \(99 to 99\)"):
        check_plausible(rotations, pelvis)


def test_bones_that_change_their_length_are_refused(walk):
    lengths = np.ones((100, 8))
    check_plausible(*walk, lengths)
    lengths[40:60, 3] = 1.5
    with pytest.raises(InputError, match=r"change their length .* in 20 of 100 frames \(40 to 59\)"):
        check_plausible(*walk, lengths)


def test_a_short_stumble_is_accepted(walk):
    """Thresholds hold for most frames: a tenth of the clip upside down passes, as in a cartwheel."""
    rotations, pelvis = walk
    upside_down = turned(rotations, "pelvis", "x", 180)
    rotations[50:65] = upside_down[50:65]
    check_plausible(rotations, pelvis)
