"""The measures of benchmarks/control.py are right on motions whose values are known."""

import numpy as np
import pytest

from benchmarks.control import Bar
from benchmarks.control_between import AFTER, BEFORE, Gap, Poses, interpolate, joint_error
from benchmarks.control_motions import above, skating_ratio
from benchmarks.control_paths import paths
from control.paths import distances, lengths_along
from motion.measures import frame_acceleration
from motion.rotation import y_rotation
from motion.skeleton import JOINTS


def test_paths_have_their_lengths_and_start_forward():
    for name, line in paths().items():
        assert lengths_along(line)[-1] == pytest.approx(float(name.split(", ")[1].removesuffix(" m")))
        assert not line[0].any() and abs(line[1, 0]) < 0.02 * line[1, 1]
    assert len(paths()) == 20


def test_distance_from_a_path_beyond_its_end_and_at_its_corner():
    places = np.array([[0.3, 1.0], [1.0, 1.7], [-0.3, 1.9], [2.0, 1.5]])
    corner = np.array([(0.0, 0.0), (0.0, 1.5), (1.5, 1.5)])
    assert distances(corner, places) == pytest.approx([0.3, 0.2, 0.5, 0.5])


def test_interpolation_is_exact_for_steady_motion_and_measures_what_differs():
    frames = np.arange(BEFORE + 20 + AFTER)
    rotations = np.tile(np.eye(3), (len(frames), JOINTS, 1, 1))
    rotations[:, 0] = y_rotation(0.05 * frames)
    steady = Poses(rotations, frames[:, None] * np.array([0.01, 0.0, 0.02]) + (0, 0.9, 0))
    filled = interpolate(Gap("", steady, 20))
    assert joint_error(Gap("", steady, 20), filled) < 1e-9
    moved = Poses(filled.rotations, filled.pelvis + (0.03, 0, 0.04))
    assert joint_error(Gap("", steady, 20), moved) == pytest.approx(0.05)


def test_acceleration_and_skating_of_known_motions():
    joints = np.zeros((40, JOINTS, 3))
    joints[:, 5, 0] = 0.5 * 7 * (np.arange(40) / 30) ** 2
    assert frame_acceleration(joints) == pytest.approx(np.full(38, 7.0))
    assert above([joints], 6.9) == 38 and above([joints], 7.1) == 0
    joints[:, 10, 2] = np.arange(40) * 0.1  # the left foot slides at 3 m/s on the floor
    assert skating_ratio([joints]) == 1


def test_bars_are_kept_or_not():
    assert str(Bar("error", 0.9, 1, "cm")) == "| error | 0.9 cm | at most 1 | yes |"
    assert str(Bar("share", 0.9, 1, "%", at_least=True)).endswith("| NO |")
