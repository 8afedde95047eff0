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
from scipy.spatial.transform import Rotation

from dataset.synthetic import synthetic_clips
from formats.bvh import read_bvh
from formats.bvh_writer import write_bvh
from formats.clip import read_clip
from formats.import_options import ImportOptions
from motion.resample import FPS
from motion.rotation import axis_angle_to_matrix
from motion.skeleton import JOINT_INDEX, JOINT_NAMES, PARENTS, REST_OFFSETS, forward_kinematics, world_pose
from motion.smplx import motion_to_smplx85, smplx85_to_motion
from tests.conftest import golden_eval
from tests.export_helpers import export
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
    assert ours["gender"].shape == example["gender"].shape == () and ours["gender"].dtype.kind == "U"
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
    paths = list(HYMOTION.glob("*.npz"))
    assert paths
    for path in paths:
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


# BVH under the names of other skeletons

LIMBS = [f"{side}_{joint}" for side in ("left", "right") for joint in ("knee", "ankle", "elbow", "wrist")]
GMR_OFFSETS = {  # quaternions (w, x, y, z) from the joint to the link of a robot that stands with hanging arms
    "Hips": (0.5, 0.5, 0.5, 0.5), "Spine2": (0.5, 0.5, 0.5, 0.5),
    **dict.fromkeys(("LeftUpLeg", "RightUpLeg", "LeftLeg", "RightLeg"), (-0.5, 0.5, 0.5, -0.5)),
    **dict.fromkeys(("LeftFootMod", "RightFootMod"), (-0.5**0.5, 0.5**0.5, 0, 0)),
    **dict.fromkeys(("LeftArm", "RightArm"), (0.5, 0.5, -0.5, -0.5)),
}  # fmt: skip
Z_UP = np.array([[1, 0, 0], [0, 0, -1], [0, 1, 0]])


def read_as_gmr(path: Path) -> dict[str, np.ndarray]:
    """Read a BVH file by the rules of GMR (utils/lafan1.py, lafan_vendor/extract.py), which are narrower than ours."""
    names, parents, offsets, rows, active, end = [], [], [], [], -1, False
    for line in path.read_text().splitlines():
        if match := re.match(r"ROOT (\w+)|\s*JOINT\s+(\w+)$", line):
            names.append(match[1] or match[2])
            parents.append(active)
            active = len(names) - 1
        elif "}" in line:
            end, active = False, active if end else parents[active]
        elif match := re.match(r"\s*OFFSET\s+([\-\d\.e]+)\s+([\-\d\.e]+)\s+([\-\d\.e]+)", line):
            offsets += [] if end else [[float(number) for number in match.groups()]]
        elif match := re.match(r"\s*CHANNELS\s+(\d+) (.*)", line):
            assert match[2].split()[-3:] == ["Zrotation", "Yrotation", "Xrotation"]
            assert int(match[1]) == (3 if len(names) > 1 else 6)
        elif "End Site" in line:
            end = True
        elif not re.match(r"HIERARCHY|MOTION|\s*{|\s*Frames:\s+\d+|\s*Frame Time:\s+[\d\.]+", line):
            rows.append([float(number) for number in line.strip().split(" ")])
    values, offsets = np.array(rows), np.array(offsets)
    angles = values[:, 3:].reshape(len(values), len(names), 3)
    local = Rotation.from_euler("ZYX", angles.reshape(-1, 3), degrees=True).as_matrix().reshape(*angles.shape, 3)
    offsets[0] = 0  # of the root, whose position replaces it
    pose = world_pose(local, offsets, parents, values[:, :3])
    positions, turns = pose.positions @ Z_UP.T / 100, Z_UP @ pose.rotations
    for side in ("Left", "Right"):
        foot, toe = names.index(f"{side}Foot"), names.index(f"{side}Toe")
        names.append(f"{side}FootMod")
        positions = np.concatenate((positions, positions[:, [foot]]), axis=1)
        turns = np.concatenate((turns, turns[:, [toe]]), axis=1)
    return {"names": np.array(names), "parents": np.array(parents), "positions": positions, "rotations": turns}


def along_x(motion: dict[str, np.ndarray]) -> np.ndarray:
    """Cosines of the angles between each limb of a LAFAN1 motion and the local x axis of its upper joint."""
    cosines = []
    for side in ("Left", "Right"):
        for upper, lower in (
            ("UpLeg", "Leg"),
            ("Leg", "Foot"),
            ("Foot", "Toe"),
            ("Arm", "ForeArm"),
            ("ForeArm", "Hand"),
        ):
            start, end = (list(motion["names"]).index(side + joint) for joint in (upper, lower))
            bone = motion["positions"][:, end] - motion["positions"][:, start]
            cosines.append((bone * motion["rotations"][:, start, :, 0]).sum(-1) / np.linalg.norm(bone, axis=-1))
    return np.array(cosines)


def test_the_reader_of_this_test_is_that_of_gmr():
    motion, expected = read_as_gmr(GMR / "lafan1_style.bvh"), arrays_of(GMR / "lafan1_expected.npz")
    assert list(motion["names"]) == list(expected["names"]) and list(motion["parents"]) == list(expected["parents"])
    np.testing.assert_allclose(motion["positions"], expected["positions"], atol=1e-5)
    turns = Rotation.from_quat(expected["quat_wxyz"].reshape(-1, 4), scalar_first=True).as_matrix()
    np.testing.assert_allclose(motion["rotations"].reshape(-1, 3, 3), turns, atol=1e-4)


def test_gmr_reads_our_lafan1_file(walk, tmp_path):
    """Its skeleton, the positions of our joints, and bones along the local x axis."""
    skeleton = json.loads((GMR / "lafan1_skeleton.json").read_text())
    write_bvh(tmp_path / "ours.bvh", walk, "lafan1")
    motion = read_as_gmr(tmp_path / "ours.bvh")
    assert list(motion["names"][:-2]) == skeleton["names"] and list(motion["parents"]) == skeleton["parents"]
    theirs = [list(motion["names"]).index(name) for name in lafan1_names()]
    np.testing.assert_allclose(motion["positions"][:, theirs], joints_of(walk) @ Z_UP.T, atol=1e-5)
    assert along_x(motion).min() > 0.999 and along_x(read_as_gmr(GMR / "lafan1_style.bvh")).min() > 0.95


def lafan1_names() -> list[str]:
    """LAFAN1's names of our joints, from its skeleton: the trees are equal, with the left before the right side."""
    parts = {"hip": "UpLeg", "knee": "Leg", "ankle": "Foot", "foot": "Toe", "collar": "Shoulder", "shoulder": "Arm",
             "elbow": "ForeArm", "wrist": "Hand"}  # fmt: skip
    trunk = {
        "pelvis": "Hips",
        "spine1": "Spine",
        "spine2": "Spine1",
        "spine3": "Spine2",
        "neck": "Neck",
        "head": "Head",
    }
    return [trunk.get(name) or name.split("_")[0].title() + parts[name.split("_")[1]] for name in JOINT_NAMES]


def test_joint_axes_of_our_lafan1_file_are_those_of_gmrs_robots(tmp_path):
    """A person who stands like the robot in its zero pose gives links that are not rotated, apart from proportions."""
    standing = np.zeros((2, 85))
    standing[:, 73] = 0.95
    for name, angle in (("left_shoulder", -np.pi / 2), ("right_shoulder", np.pi / 2)):
        standing[:, 3 * JOINT_INDEX[name] + 2] = angle
    write_bvh(tmp_path / "ours.bvh", standing, "lafan1")
    motion = read_as_gmr(tmp_path / "ours.bvh")
    robot = np.array([[0, 1, 0], [-1, 0, 0], [0, 0, 1]])  # x forward, which is -y in GMR's world
    for name, offset in GMR_OFFSETS.items():
        turn = motion["rotations"][0, list(motion["names"]).index(name)]
        link = turn @ Rotation.from_quat(offset, scalar_first=True).as_matrix()
        assert np.degrees(Rotation.from_matrix(link.T @ robot).magnitude()) < 25, name


@pytest.mark.parametrize("unit", ["cm", "m"])
@pytest.mark.parametrize("names", ["smplx", "lafan1", "mixamo", "cmu"])
def test_named_exports_read_back(names, unit, walk, tmp_path):
    np.savez(tmp_path / "walk.npz", **motion_arrays(walk))
    files = [str(tmp_path / name) for name in ("walk.npz", "walk.bvh")]
    export([*files, "--names", names, "--bvh-units", unit])
    back, expected = joints_of(read_clip(tmp_path / "walk.bvh").smplx85), joints_of(walk)
    np.testing.assert_allclose(back, expected, atol=1e-3)
    ends = [JOINT_INDEX[name] for name in LIMBS]
    starts = [PARENTS[joint] for joint in ends]
    bones, limbs = back[:, ends] - back[:, starts], expected[:, ends] - expected[:, starts]
    cosines = (bones * limbs).sum(-1) / np.linalg.norm(bones, axis=-1) / np.linalg.norm(limbs, axis=-1)
    assert np.degrees(np.arccos(np.clip(cosines, -1, 1))).max() < 0.5


@pytest.mark.parametrize("kind", ["wave_left_hand", "raise_both_hands", "squat"])
def test_lafan1_files_keep_the_twist_of_arms_that_never_bend(kind, tmp_path):
    clip = next(clip for clip in synthetic_clips(22, seed=1) if clip[0].startswith(kind))
    motion = motion_to_smplx85(clip[1].astype(np.float64), clip[2].astype(np.float64))
    write_bvh(tmp_path / "a.bvh", motion, "lafan1")
    back = smplx85_to_motion(read_clip(tmp_path / "a.bvh").smplx85)[0]
    np.testing.assert_allclose(back, smplx85_to_motion(motion)[0], atol=1e-3)


def test_zero_pose_of_a_mixamo_file_is_a_t_pose(walk, tmp_path):
    write_bvh(tmp_path / "a.bvh", walk, "mixamo")
    zero, names = zero_pose(tmp_path / "a.bvh")
    at = {name.removeprefix("mixamorig:"): zero[number] for number, name in enumerate(names)}
    for side, sign in (("Left", 1), ("Right", -1)):
        for start, end, direction in (("UpLeg", "Leg", (0, -1, 0)), ("Leg", "Foot", (0, -1, 0)),
                                      ("Arm", "ForeArm", (sign, 0, 0)), ("ForeArm", "Hand", (sign, 0, 0))):  # fmt: skip
            bone = at[side + end] - at[side + start]
            np.testing.assert_allclose(bone / np.linalg.norm(bone), direction, atol=1e-5)


def zero_pose(path: Path) -> tuple[np.ndarray, list[str]]:
    clip = read_bvh(path)
    clip.rotations[:] = np.eye(3)
    clip.positions[:, 0] = 0
    return clip.world()[1][0], clip.names


def test_joints_of_a_cmu_file_are_those_of_the_data_set_without_fingers(walk, tmp_path):
    write_bvh(tmp_path / "a.bvh", walk, "cmu")
    clip = read_bvh(tmp_path / "a.bvh")
    parents = {name: clip.names[parent] for name, parent in zip(clip.names, clip.parents, strict=True) if parent >= 0}
    chains = ("Hips LowerBack Spine Spine1 Neck Neck1 Head", "Hips LHipJoint LeftUpLeg LeftLeg LeftFoot LeftToeBase",
              "Hips RHipJoint RightUpLeg RightLeg RightFoot RightToeBase",
              "Spine1 LeftShoulder LeftArm LeftForeArm LeftHand",
              "Spine1 RightShoulder RightArm RightForeArm RightHand")  # fmt: skip
    expected = {}
    for chain in map(str.split, chains):
        expected |= zip(chain[1:], chain[:-1], strict=True)
    assert parents == expected
