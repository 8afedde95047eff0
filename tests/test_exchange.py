"""Files of other tools in both directions: GMR, Kimodo, HY-Motion, pickles, and BVH with names of other skeletons."""

import json
import pickle
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from dataset.synthetic import synthetic_clips
from formats.clip import read_clip
from formats.import_options import ImportOptions
from motion.resample import FPS
from motion.rotation import axis_angle_to_matrix
from motion.skeleton import JOINT_INDEX, REST_OFFSETS, forward_kinematics, world_pose
from motion.smplx import motion_to_smplx85, smplx85_to_motion
from tests.conftest import golden_eval
from utils.errors import InputError
from visualize.export import motion_arrays

KIMODO = golden_eval("layouts") / "kimodo"
HYMOTION = golden_eval("layouts") / "hymotion"
GMR = golden_eval("layouts") / "gmr"
SKELETONS = json.loads((KIMODO / "skeletons.json").read_text())


@pytest.fixture(scope="module")
def walk() -> np.ndarray:
    """(T, 85) of a walk with a turn."""
    clip = next(clip for clip in synthetic_clips(22, seed=1) if clip[0].startswith("walk_turn_left"))
    return motion_to_smplx85(clip[1].astype(np.float64), clip[2].astype(np.float64))


def arrays_of(path: Path) -> dict[str, np.ndarray]:
    with np.load(path) as file:
        return dict(file)


def joints_of(smplx85: np.ndarray) -> np.ndarray:
    return forward_kinematics(*smplx85_to_motion(smplx85))


def steps(positions: np.ndarray) -> np.ndarray:
    """Positions (T, 3) relative to the first frame."""
    return positions - positions[0]


def read(tmp_path: Path, arrays: dict, **options):
    np.savez(tmp_path / "a.npz", **arrays)
    return read_clip(tmp_path / "a.npz", options=ImportOptions(**options))


# AMASS keys


def test_gmr_reads_our_npz(walk, tmp_path):
    """The accesses of GMR's loader (utils/smpl.py): the same arrays, z up, as in its example."""
    example = arrays_of(GMR / "walk.npz")
    np.savez(tmp_path / "ours.npz", **motion_arrays(walk))
    ours = np.load(tmp_path / "ours.npz", allow_pickle=True)
    assert "left_hand_pose" not in ours  # it would be taken for SMPL+H
    assert ours["gender"].shape == () and str(ours["gender"]) == str(example["gender"])
    assert isinstance(ours["mocap_frame_rate"].item(), float) and ours["mocap_frame_rate"] == 30
    assert ours["betas"].shape == example["betas"].shape
    for key in ("trans", "root_orient", "pose_body"):
        assert ours[key].shape == (len(walk), *example[key].shape[1:]) and ours[key].dtype.kind == "f"
    np.testing.assert_allclose(np.ptp(ours["trans"], axis=0)[[0, 1]], np.ptp(walk[:, 72:75], axis=0)[[0, 2]], atol=0.02)


def test_parts_of_the_pose_agree_with_the_whole_and_suffice(walk, tmp_path):
    arrays = motion_arrays(walk)
    parts = [arrays[key] for key in ("root_orient", "pose_body", "pose_jaw", "pose_eye", "pose_hand")]
    np.testing.assert_array_equal(np.concatenate(parts, axis=1), arrays["poses"])
    kept = ("root_orient", "pose_body", "trans", "betas", "gender", "mocap_frame_rate")
    clip = read(tmp_path, {key: arrays[key] for key in kept})
    np.testing.assert_allclose(joints_of(clip.smplx85), joints_of(walk), atol=1e-5)


def test_input_of_gmr_is_read():
    example, clip = arrays_of(GMR / "walk.npz"), read_clip(GMR / "walk.npz")
    np.testing.assert_allclose(clip.smplx85[0, 75:], example["betas"][:10], atol=1e-6)
    rotations, pelvis = smplx85_to_motion(clip.smplx85)
    expected = axis_angle_to_matrix(example["pose_body"][0].reshape(-1, 3))
    np.testing.assert_allclose(rotations[0, 1:], expected, atol=1e-5)
    times = np.arange(len(pelvis)) * example["mocap_frame_rate"] / FPS
    path = [np.interp(times, np.arange(len(example["trans"])), axis) for axis in example["trans"].T]
    expected = np.stack((path[0], path[2], -path[1]), axis=1)  # y up
    np.testing.assert_allclose(steps(pelvis), steps(expected), atol=1e-5)


# Kimodo and HY-Motion


@pytest.mark.parametrize("name", ["motion_00.npz", "motion_amass.npz"])
def test_both_files_of_kimodo_give_its_motion(name):
    expected = arrays_of(KIMODO / "expected.npz")
    rotations, pelvis = smplx85_to_motion(read_clip(KIMODO / name).smplx85)
    np.testing.assert_allclose(rotations, expected["local_rotmats"], atol=1e-5)
    np.testing.assert_allclose(steps(pelvis), steps(expected["joints_yup"][:, 0]), atol=1e-5)
    if name == "motion_00.npz":
        np.testing.assert_allclose(pelvis, expected["joints_yup"][:, 0], atol=1e-5)


def soma_arrays(walk: np.ndarray, kind: str) -> dict[str, np.ndarray]:
    """Arrays of Kimodo with our motion on a SOMA skeleton that has our proportions."""
    names, parents = SKELETONS[kind]["names"], SKELETONS[kind]["parents"]
    ours = dict(zip(("Hips", "Spine1", "Spine2", "Chest", "Neck1", "Head"),
                    ("pelvis", "spine1", "spine2", "spine3", "neck", "head"), strict=True))  # fmt: skip
    for side in ("left", "right"):
        theirs = ("Shoulder", "Arm", "ForeArm", "Hand", "Leg", "Shin", "Foot", "ToeBase")
        limbs = ("collar", "shoulder", "elbow", "wrist", "hip", "knee", "ankle", "foot")
        ours |= {side.title() + name: f"{side}_{joint}" for name, joint in zip(theirs, limbs, strict=True)}
    local, pelvis = smplx85_to_motion(walk)
    rotations = np.tile(np.eye(3), (len(walk), len(names), 1, 1))
    offsets = np.zeros((len(names), 3))
    for number, name in enumerate(names):
        if name in ours:
            rotations[:, number] = local[:, JOINT_INDEX[ours[name]]]
            offsets[number] = REST_OFFSETS[JOINT_INDEX[ours[name]]]
        else:
            offsets[number] = (0.05 if name.startswith("Left") else -0.05 if "Right" in name else 0, 0, 0.05)
            offsets[number] *= not name.startswith("Neck")
    pose = world_pose(rotations, offsets, parents, pelvis)
    return {
        "posed_joints": pose.positions.astype(np.float32),
        "global_rot_mats": pose.rotations.astype(np.float32),
        "local_rot_mats": rotations.astype(np.float32),
        "root_positions": pelvis.astype(np.float32),
    }


@pytest.mark.parametrize("kind", ["somaskel30", "somaskel77"])
def test_soma_motion_of_kimodo_is_retargeted(walk, tmp_path, kind):
    clip = read(tmp_path, soma_arrays(walk, kind))
    np.testing.assert_allclose(joints_of(clip.smplx85), joints_of(walk), atol=5e-3)


def test_robot_motion_of_kimodo_is_refused(tmp_path):
    joints = len(SKELETONS["g1skel34"]["names"])
    with pytest.raises(InputError, match=r"robot.*SOMA"):
        read(tmp_path, {"local_rot_mats": np.tile(np.eye(3), (5, joints, 1, 1)), "root_positions": np.zeros((5, 3))})


def test_hymotion_is_read_upright_on_the_floor():
    for path in sorted(HYMOTION.glob("*.npz")):
        arrays, clip = arrays_of(path), read_clip(path)
        rotations, pelvis = smplx85_to_motion(clip.smplx85)
        expected = axis_angle_to_matrix(arrays["poses"][:, :66].astype(np.float64).reshape(-1, 22, 3))
        np.testing.assert_allclose(rotations, expected, atol=1e-5)
        np.testing.assert_allclose(steps(pelvis), steps(arrays["trans"]), atol=1e-5)
        assert abs(joints_of(clip.smplx85)[..., 1].min()) < 0.1 and not clip.smplx85[:, 75:].any()


def test_hymotion_with_the_origin_of_smpl_stands_on_the_floor_too(tmp_path):
    arrays = arrays_of(next(HYMOTION.glob("*.npz")))
    arrays["trans"] = arrays["trans"] + (0, 1.16, 0)
    assert abs(joints_of(read(tmp_path, arrays).smplx85)[..., 1].min()) < 0.1


KIMODO_FAULTS = {
    "nan": ("local_rot_mats", lambda array: array * np.nan, "NaN"),
    "no rotations": ("local_rot_mats", lambda array: array * 2, "not rotations"),
    "reflections": ("local_rot_mats", lambda array: -array, "not rotations"),
    "no frames": ("local_rot_mats", lambda array: array[:0], "empty|shape"),
    "flat": ("local_rot_mats", lambda array: array[..., 0], "shape"),
    "a number": ("local_rot_mats", lambda array: np.array(3), "shape"),
    "other joints": ("local_rot_mats", lambda array: array[:, :21], "22.*30 or 77"),
    "other length": ("root_positions", lambda array: array[1:], "shape"),
    "text": ("root_positions", lambda array: array.astype("U8"), "non-numeric"),
    "objects": ("root_positions", lambda array: np.array([{}], dtype=object), "Python objects"),
}


@pytest.mark.parametrize("fault", KIMODO_FAULTS)
def test_faults_of_kimodo_files_are_one_sentence(tmp_path, fault):
    key, change, words = KIMODO_FAULTS[fault]
    arrays = arrays_of(KIMODO / "motion_00.npz")
    with pytest.raises(InputError, match=words):
        read(tmp_path, arrays | {key: change(arrays[key])})


@pytest.mark.parametrize("key, words", [("posed_joints", "no posed_joints"), ("root_positions", "neither")])
def test_a_missing_array_of_kimodo_is_named(walk, tmp_path, key, words):
    arrays = soma_arrays(walk[:5], "somaskel30")
    del arrays[key]
    with pytest.raises(InputError, match=words):
        read(tmp_path, arrays)


# Pickles


def test_a_pickle_is_refused_with_a_line_that_converts_it(walk, tmp_path):
    arrays = motion_arrays(walk)
    path = tmp_path / "it's a walk.pkl"
    path.write_bytes(pickle.dumps({key: arrays[key] for key in ("poses", "trans", "betas", "mocap_framerate")}))
    with pytest.raises(InputError) as refusal:
        read_clip(path)
    line = re.search(r"run: (python .*) \(nested", str(refusal.value))[1]
    assert "\n" not in str(refusal.value)
    subprocess.run([sys.executable, *shlex.split(line)[1:]], cwd=tmp_path, check=True)
    np.testing.assert_allclose(joints_of(read_clip(path.with_suffix(".npz")).smplx85), joints_of(walk), atol=1e-5)


@pytest.mark.parametrize("suffix", [".pt", ".pth", ".PKL"])
def test_other_pickles_are_refused_unopened(tmp_path, suffix):
    with pytest.raises(InputError, match=r"is a pickle.*python -c.*a\.npz"):
        read_clip(tmp_path / f"a{suffix}")
