"""Features of HumanML3D and KIT-ML: parity with the fixtures, recovery, analytic motions, cuts and mirrored copies."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from motion import features263, humanml3d
from motion.features263 import HUMANML3D, KIT, features_from_joints, joints_from_features, joints_from_rotations
from motion.rotation import y_rotation
from tests.conftest import GOLDEN_EVAL_DIR, golden_eval
from utils.errors import InputError

FILES = [path.name for path in sorted(GOLDEN_EVAL_DIR.glob("*[0-9]_*.npz")) if "joints_processed" in np.load(path)]
LENGTH, ANGLE = 1e-5, 5e-5  # tolerances in metres, and of rotations
RECOVERED = {HUMANML3D.joints: 5e-6, KIT.joints: 1e-2}  # of joints, in the unit of the data set


@pytest.fixture(params=FILES)
def clip(request) -> dict:
    """One clip of the fixtures with its skeleton and the tolerances in its unit."""
    with np.load(golden_eval(request.param)) as file:
        clip = dict(file)
    skeleton = next(each for each in (HUMANML3D, KIT) if each.joints == clip["joints"].shape[1])
    skeleton = replace(skeleton, fps=float(clip["fps"]), contact_threshold=float(clip["feet_threshold"]))
    lengths = np.linalg.norm(clip["target_offsets"], axis=1)[1:].astype(np.float64)
    tolerance = {"length": LENGTH / skeleton.metres, "recovered": RECOVERED[skeleton.joints]}
    return clip | tolerance | {"skeleton": skeleton, "lengths": lengths}


def standing(frames: int, height: float = 1.0) -> np.ndarray:
    """Joints (T, 22, 3) of a person in the rest pose of HumanML3D who faces +z."""
    joints = np.zeros((HUMANML3D.joints, 3))
    for joint in range(1, HUMANML3D.joints):
        bone = HUMANML3D.rest_directions()[joint] * HUMANML3D.bone_lengths[joint - 1]
        joints[joint] = joints[HUMANML3D.parents[joint]] + bone
    return np.repeat(joints[None] + [0, height, 0], frames, axis=0)


def test_fixtures_of_both_skeletons_exist():
    joints = {np.load(golden_eval(name))["joints"].shape[1] for name in FILES}
    assert joints == {HUMANML3D.joints, KIT.joints} == {22, 21}
    assert (HUMANML3D.width, KIT.width) == (263, 251)


def test_steps_equal_the_reference(clip):
    skeleton, lengths, tolerance = clip["skeleton"], clip["lengths"], clip["length"]
    offsets = skeleton.rest_directions()[1:] * lengths[:, None]
    np.testing.assert_allclose(offsets, clip["target_offsets"][1:], atol=tolerance)
    uniform = features263.uniform_bones(clip["joints"].astype(np.float64), skeleton, lengths)
    np.testing.assert_allclose(uniform, clip["joints_uniform"], atol=tolerance)
    placed = features263.place(uniform, skeleton)
    np.testing.assert_allclose(placed, clip["joints_processed"], atol=tolerance)
    half = features263.half_heading(placed, skeleton)
    zero = np.zeros_like(half)
    quaternions = np.stack((np.cos(half), zero, np.sin(half), zero), axis=-1)
    np.testing.assert_allclose(quaternions, clip["root_quat_smooth"], atol=LENGTH)
    if "joint_quat" in clip:
        found = features263.bone_rotations(placed, half, skeleton)
        expected = Rotation.from_quat(clip["joint_quat"].reshape(-1, 4), scalar_first=True).as_matrix()
        np.testing.assert_allclose(found.reshape(-1, 3, 3), expected, atol=ANGLE)


def test_features_equal_the_reference(clip):
    skeleton = clip["skeleton"]
    found = features_from_joints(clip["joints"], skeleton, clip["lengths"])
    assert found.shape == clip["features"].shape
    for name, block in skeleton.layout.items():
        tolerance = {"root_turn": LENGTH, "joint_rotations": ANGLE, "contacts": 0}.get(name, clip["length"])
        np.testing.assert_allclose(found[:, block], clip["features"][:, block], atol=tolerance, err_msg=name)


@pytest.mark.parametrize("prefix", ["", "noisy_"])
def test_recovery_equals_the_reference(clip, prefix):
    skeleton, features = clip["skeleton"], clip["features_noisy" if prefix else "features"]
    joints = joints_from_features(features, skeleton)
    np.testing.assert_allclose(joints, clip[f"{prefix}rec_ric"], atol=clip["recovered"])
    joints = joints_from_rotations(features, skeleton, clip["lengths"])
    np.testing.assert_allclose(joints, clip[f"{prefix}rec_rot"], atol=clip["recovered"])
    if not prefix:
        half, root = features263.recover_root(features.astype(np.float64), skeleton)
        np.testing.assert_allclose(root, clip["rec_root_pos"], atol=clip["recovered"])
        np.testing.assert_allclose(np.cos(half), clip["rec_root_quat"][:, 0], atol=LENGTH)
        np.testing.assert_allclose(np.sin(half), clip["rec_root_quat"][:, 2], atol=LENGTH)


def test_recovery_inverts_encoding_until_the_heading_passes_180_degrees(clip):
    skeleton, flips = clip["skeleton"], clip["heading_flip_frames"]
    features = features_from_joints(clip["joints"], skeleton, clip["lengths"])
    uniform = features263.uniform_bones(clip["joints"].astype(np.float64), skeleton, clip["lengths"])
    off = np.abs(joints_from_features(features, skeleton) - features263.place(uniform, skeleton)[:-1]).max(axis=(1, 2))
    end = int(flips.min()) + 1 if len(flips) else len(features)
    assert off[:end].max() < clip["length"]
    assert end == len(off) or off[end:].max() > 1e2 * clip["length"]


def test_statistics_equal_the_reference():
    expected = np.load(golden_eval("hml263_stats.npz"))
    clips = [np.load(golden_eval(f"hml263_{name}.npz"))["features"] for name in expected["clips"]]
    features = np.concatenate(clips).astype(np.float64)
    np.testing.assert_allclose(features.mean(axis=0), expected["mean"], atol=LENGTH)
    for key, bias in (("std", 1), ("std_feat_bias5", 5)):
        found = features263.block_std(features.std(axis=0), HUMANML3D, bias)
        np.testing.assert_allclose(found, expected[key], rtol=1e-5)


# Analytic motions


def test_walk_along_a_line_has_a_constant_velocity_whatever_its_heading():
    """A person slides 6 cm per frame in the direction that they face: feet faster than the threshold do not stand."""
    walk = standing(30) + np.arange(30)[:, None, None] * np.array([0, 0, 0.06])
    for heading in (0.0, 1.0, -2.5):
        turned = walk @ y_rotation(np.array([heading]))[0].T + [3, 5, -2]
        features = features_from_joints(turned, HUMANML3D)
        np.testing.assert_allclose(features[:, :3], np.tile([0, 0, 0.06], (29, 1)), atol=1e-9)
        assert not features[:, HUMANML3D.layout["contacts"]].any()
    assert features_from_joints(standing(5), HUMANML3D)[:, HUMANML3D.layout["contacts"]].all()


def test_root_turn_is_half_of_the_heading_change():
    turn, frames = 0.005, 200
    joints = (y_rotation(turn * np.arange(frames))[:, None] @ standing(frames)[..., None])[..., 0]
    middle = features_from_joints(joints, HUMANML3D)[frames // 2 - 10 : frames // 2 + 10]  # the filter ends before
    np.testing.assert_allclose(middle[:, 0], -turn / 2, atol=1e-9)


def test_bone_lengths_are_those_of_the_published_clips():
    tall = features_from_joints(standing(4) * 1.3, HUMANML3D)
    lengths = features263.mean_bone_lengths(joints_from_features(tall, HUMANML3D), HUMANML3D)
    np.testing.assert_allclose(lengths, HUMANML3D.bone_lengths, atol=1e-9)
    np.testing.assert_allclose(joints_from_rotations(tall, HUMANML3D), joints_from_features(tall, HUMANML3D), atol=1e-9)


def test_short_clips_and_bones_opposite_to_the_rest_pose():
    """Three frames are no special case, and a leg that points straight up gives no NaN."""
    joints = standing(4) + 0.01 * np.sin(np.arange(4))[:, None, None]
    for frames in (2, 3, 4):
        assert features_from_joints(joints[:frames], HUMANML3D).shape == (frames - 1, HUMANML3D.width)
    joints[:, [4, 7]] = joints[:, 1:2] + np.array([[0, 0.39, 0], [0, 0.82, 0]])
    features = features_from_joints(joints, HUMANML3D)
    assert np.isfinite(features).all()
    np.testing.assert_allclose(
        joints_from_rotations(features, HUMANML3D), joints_from_features(features, HUMANML3D), atol=1e-6
    )


@pytest.mark.parametrize(
    ("joints", "message"),
    [
        (np.full((4, 22, 3), np.nan), "NaN"),
        (np.full((4, 22, 3), 1e9), "values up to"),
        (np.ones((4, 21, 3)), "22, 3"),
        (np.ones((4, 66)), "22, 3"),
        (np.ones((1, 22, 3)), "at least 2"),
        (np.ones((0, 22, 3)), "at least 2"),
        (np.ones((4, 22, 3)), "no length"),
    ],
)
def test_unusable_joints_are_refused(joints, message):
    with pytest.raises(InputError, match=message):
        features_from_joints(joints, HUMANML3D)


@pytest.mark.parametrize("shape", [(4, 251), (0, 263), (263,)])
def test_unusable_features_are_refused(shape):
    with pytest.raises(InputError, match="263|at least 1"):
        joints_from_features(np.zeros(shape), HUMANML3D)


# Cuts and mirrored copies of HumanML3D


def test_axes_and_mirrored_copies_equal_the_reference():
    raw = np.load(golden_eval("hml_raw_pose.npz"))
    for source, suffix in (("pose_data/CMU/01/01_01_poses.npy", ""), ("pose_data/humanact12/a.npy", "_humanact12")):
        joints = humanml3d.to_y_up(raw["joints_zup"], source)
        np.testing.assert_array_equal(joints, raw[f"joints{suffix}"])
        mirrored = humanml3d.mirror_joints(joints)
        np.testing.assert_array_equal(mirrored, raw[f"joints{suffix}_mirrored"])
        np.testing.assert_array_equal(humanml3d.mirror_joints(mirrored), joints)
        np.testing.assert_array_equal(humanml3d.mirror_joints(joints[:, :22]), mirrored[:, :22])
    with pytest.raises(InputError, match="24 joints"):
        humanml3d.mirror_joints(np.zeros((2, 24, 3)))


@pytest.mark.parametrize("target", [20, 30])
def test_frame_steps_equal_the_reference(target):
    raw = np.load(golden_eval("hml_raw_pose.npz"))
    for fps, step in zip(raw["fps"], raw[f"step_{target}"], strict=True):
        if step:
            assert humanml3d.frame_step(fps, target) == step
        else:
            with pytest.raises(InputError, match=f"{target} are needed"):
                humanml3d.frame_step(fps, target)


def test_cuts_skip_the_start_of_some_parts_of_amass():
    assert humanml3d.clip_span("pose_data/CMU/01/01_01_poses.npy", 5, 50) == slice(5, 50)
    assert humanml3d.clip_span("pose_data/Eyes_Japan_Dataset/a/b_poses.npy", 5, 50) == slice(65, 110)
    assert humanml3d.clip_span("pose_data/Transitions_mocap/a/b_poses.npy", 0, 50) == slice(10, 60)
    assert humanml3d.clip_span("pose_data/humanact12/a.npy", 0, 50) == slice(None)
