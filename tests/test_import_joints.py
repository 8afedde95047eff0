"""Files of joint positions and of features of HumanML3D and KIT-ML, read as motion."""

import numpy as np
import pytest

from formats.clip import read_clip
from formats.import_options import ImportOptions
from motion.features263 import HUMANML3D, KIT, joints_from_features
from motion.inverse_kinematics import fit_joints
from motion.skeleton import forward_kinematics
from motion.smplx import smplx85_to_motion
from tests.conftest import golden_eval
from utils.errors import InputError


@pytest.fixture
def walk() -> dict[str, np.ndarray]:
    return dict(np.load(golden_eval("hml263_walk.npz")))


@pytest.fixture
def kit() -> dict[str, np.ndarray]:
    return dict(np.load(golden_eval("kit251_walk.npz")))


@pytest.fixture
def read(tmp_path):
    """Reads an array as an .npy file."""

    def read(array: np.ndarray, **options):
        np.save(tmp_path / "clip.npy", array)
        return read_clip(tmp_path / "clip.npy", options=ImportOptions(**options))

    return read


def joints_of(clip) -> np.ndarray:
    return forward_kinematics(*smplx85_to_motion(clip.smplx85.astype(np.float64)))


def test_features_become_motion_at_30_fps(walk, read):
    features = walk["features"]
    clip = read(features)
    assert len(clip.smplx85) == (len(features) - 1) * 30 // HUMANML3D.fps + 1
    fit = fit_joints(joints_from_features(features, HUMANML3D))
    np.testing.assert_allclose(joints_of(clip)[::3], forward_kinematics(fit.rotations, fit.pelvis)[::2], atol=1e-5)
    assert any(f"{fit.error * 1000:.1f} mm" in note for note in clip.notes)
    assert len(read(features, fps=30.0).smplx85) == len(features)


def test_joints_give_the_same_motion_as_their_features(walk, read):
    """The positions recovered from the features are what HumanML3D publishes as new_joints."""
    clip = read(walk["rec_ric"])
    np.testing.assert_allclose(joints_of(clip), joints_of(read(walk["features"])), atol=1e-4)
    assert any("20 per second" in note for note in clip.notes)
    np.testing.assert_array_equal(read(walk["rec_ric"][None]).smplx85, clip.smplx85)


def test_unit_and_up_axis_of_joints_are_found(walk, read):
    expected = joints_of(read(walk["joints"]))
    z_up = walk["joints"][..., [0, 2, 1]] * (1, -1, 1)
    for joints, word in ((walk["joints"] * 100, "taken as cm"), (z_up, "taken as up")):
        clip = read(joints)
        np.testing.assert_allclose(joints_of(clip), expected, atol=1e-4)
        assert any(word in note for note in clip.notes)
    np.testing.assert_allclose(joints_of(read(z_up, up="z", units="m")), expected, atol=1e-4)


def test_kit_is_read_in_millimetres_at_its_frame_rate(kit, read):
    features, joints = kit["features"], kit["rec_ric"]
    clip = read(features)
    assert len(clip.smplx85) == int((len(features) - 1) * 30 / KIT.fps) + 1
    np.testing.assert_allclose(joints_of(read(joints)), joints_of(clip), atol=1e-4)
    np.testing.assert_allclose(joints_of(read(joints / 1000)), joints_of(clip), atol=1e-4)


@pytest.mark.parametrize("fixture", ["walk", "kit"])
def test_normalized_features_are_refused(fixture, request, read):
    features = request.getfixturevalue(fixture)["features"]
    normalized = (features - features.mean(axis=0)) / np.maximum(features.std(axis=0), 1e-3)
    with pytest.raises(InputError, match=r"normalized.*Std\.npy.*Mean\.npy"):
        read(normalized)


def test_broken_files_are_refused(walk, read):
    joints = walk["joints"]
    for array, message in (
        (walk["features"] * np.nan, "NaN"),
        (walk["features"][:0], "0 frames"),
        (joints[:0], "0 frames"),
        (np.stack((joints, joints)), "shape"),
        (joints[:, :20], "no .frames, width. array"),
        (np.zeros_like(joints), "legs"),
        (walk["features"][:, :262], "262 values per frame"),
        (joints * (1, -1, 1) + (0, 9, 0), "--up|far from the floor"),
    ):
        with pytest.raises(InputError, match=message):
            read(array)


def test_export_takes_them(walk, tmp_path, run_here):
    np.save(tmp_path / "features.npy", walk["features"])
    np.save(tmp_path / "joints.npy", walk["joints"])
    for name in ("features", "joints"):
        run_here("visualize.export", tmp_path / f"{name}.npy", tmp_path / f"{name}.npz")
        assert np.load(tmp_path / f"{name}.npz")["joints"].shape[1:] == (22, 3)
