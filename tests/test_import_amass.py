"""Arrays of SMPL, SMPL+H and SMPL-X under the keys in use, and what they say about up, rate, shape and place."""

import numpy as np
import pytest

from dataset.synthetic import synthetic_clips
from formats.amass import SMPLH_PELVIS, amass_arrays
from formats.clip import read_clip
from formats.import_options import ImportOptions
from motion.body_shape import leg_length, rest_joints
from motion.skeleton import forward_kinematics
from motion.smplx import motion_to_smplx85, smplx85_to_322, smplx85_to_motion
from utils.errors import InputError


@pytest.fixture(scope="module")
def walk() -> np.ndarray:
    """(T, 85) of a walk."""
    clip = next(clip for clip in synthetic_clips(22, seed=1) if clip[0].startswith("walk_turn_left"))
    return motion_to_smplx85(clip[1].astype(np.float64), clip[2].astype(np.float64))


def joints_of(smplx85: np.ndarray) -> np.ndarray:
    return forward_kinematics(*smplx85_to_motion(smplx85))


def read(tmp_path, arrays: dict, **options):
    np.savez(tmp_path / "a.npz", **arrays)
    return read_clip(tmp_path / "a.npz", options=ImportOptions(**options))


def smplh(walk: np.ndarray, width: int = 156, legs: float = 1.0) -> dict:
    """Arrays of a SMPL or SMPL+H subject whose legs are longer by the factor ``legs``."""
    arrays = amass_arrays(walk)
    pelvis = arrays["trans"] + rest_joints(np.zeros(10))[0]
    return {
        "poses": arrays["poses"][:, :width],
        "trans": pelvis * legs - np.array(SMPLH_PELVIS),
        "betas": np.full(16, 1.7 * (legs != 1)),
        "gender": np.array("male"),
        "mocap_framerate": np.array(30.0),
    }


def with_keys(walk: np.ndarray, kind: str) -> dict:
    arrays = amass_arrays(walk)
    if kind == "betas (1, 10)":
        return arrays | {"betas": np.zeros((1, 10))}
    if kind == "betas per frame":
        return arrays | {"betas": np.zeros((len(walk), 16))}
    poses = arrays.pop("poses")
    if kind == "root_orient":
        return arrays | {"root_orient": poses[:, :3], "pose_body": poses[:, 3:66]}
    parts = {"global_orient": poses[:, :3], "body_pose": poses[:, 3:66].reshape(-1, 21, 3)}
    return {name: array for name, array in arrays.items() if name != "trans"} | parts | {"transl": arrays["trans"]}


@pytest.mark.parametrize("kind", ["betas (1, 10)", "betas per frame", "root_orient", "global_orient"])
def test_all_keys_and_shapes_are_read(walk, tmp_path, kind):
    np.testing.assert_allclose(joints_of(read(tmp_path, with_keys(walk, kind)).smplx85), joints_of(walk), atol=1e-5)


@pytest.mark.parametrize("width", [72, 156])
def test_smpl_and_smplh_are_read(walk, tmp_path, width):
    clip = read(tmp_path, smplh(walk, width))
    np.testing.assert_allclose(joints_of(clip.smplx85), joints_of(walk), atol=1e-5)


@pytest.mark.parametrize("legs", [0.92, 1.07])
def test_leg_length_of_a_subject_scales_height_and_path(walk, tmp_path, legs):
    clip = read(tmp_path, smplh(walk, legs=legs))
    joints = joints_of(clip.smplx85)
    assert abs(joints[..., 1].min(axis=1).mean() - joints_of(walk)[..., 1].min(axis=1).mean()) < 0.02
    np.testing.assert_allclose(joints[:, 0], joints_of(walk)[:, 0], atol=0.03)


def test_features_of_a_tall_subject_have_mean_legs(walk, tmp_path):
    betas = np.zeros(10)
    betas[0] = 2.5
    ratio = leg_length(betas) / leg_length(np.zeros(10))
    assert abs(ratio - 1) > 0.03
    tall = walk.copy()
    tall[:, 72:75] *= ratio
    tall[:, 75:] = betas
    clip, mean = read(tmp_path, amass_arrays(tall)), read(tmp_path, amass_arrays(walk))
    np.testing.assert_allclose(clip.features(), mean.features(), atol=1e-3)


def test_up_axis_is_decided_from_the_motion(walk, tmp_path):
    arrays = amass_arrays(walk)
    y_up = arrays | {"trans": walk[:, 72:75] - rest_joints(np.zeros(10))[0]}
    y_up["poses"] = np.concatenate((walk[:, :66], arrays["poses"][:, 66:]), axis=1)
    clip = read(tmp_path, y_up)
    np.testing.assert_allclose(joints_of(clip.smplx85), joints_of(walk), atol=1e-5)
    assert "--up" in clip.notes[0]
    assert not read(tmp_path, y_up, up="y").notes
    with pytest.raises(InputError, match=r"stands along .*--up"):
        read(tmp_path, y_up, up="z")


def test_missing_rate_and_other_units_have_options(walk, tmp_path):
    arrays = amass_arrays(walk)
    bare = {name: array for name, array in arrays.items() if "mocap" not in name}
    with pytest.raises(InputError, match=r"mocap_framerate.*--fps"):
        read(tmp_path, bare)
    assert len(read(tmp_path, bare, fps=60).smplx85) == (len(walk) + 1) // 2
    far = bare | {"trans": (arrays["trans"] + rest_joints(np.zeros(10))[0]) * 100}
    with pytest.raises(InputError, match=r"--units"):
        read(tmp_path, far, fps=30)
    metres = read(tmp_path, far, fps=30, units="cm", force=True).smplx85[:, 72:75]
    np.testing.assert_allclose(np.diff(metres, axis=0), np.diff(walk[:, 72:75], axis=0), atol=1e-5)


def test_322_values_hold_the_pelvis_or_the_translation_of_the_model(walk, tmp_path):
    ours = smplx85_to_322(walk)
    theirs = ours.copy()
    theirs[:, 309:312] -= rest_joints(np.zeros(10))[0]
    for name, data in (("ours", ours), ("theirs", theirs)):
        np.save(tmp_path / f"{name}.npy", data)
        np.testing.assert_allclose(read_clip(tmp_path / f"{name}.npy").smplx85, walk, atol=1e-6)


@pytest.mark.parametrize(
    "change, words",
    [
        ({"betas": np.full(10, np.nan)}, "betas"),
        ({"poses": np.zeros((171, 100))}, "not those of AMASS"),
        ({"trans": np.zeros((3, 3))}, "not those of AMASS"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(walk, tmp_path, change, words):
    with pytest.raises(InputError, match=words):
        read(tmp_path, amass_arrays(walk) | change)
