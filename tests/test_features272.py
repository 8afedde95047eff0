"""The 272-dim features: parity with the golden fixtures, round trips, gradients, equality of NumPy and torch."""

import numpy as np
import pytest
import torch

from motion import features272, measures, rotation, skeleton, smplx
from tests.conftest import GOLDEN_DIR
from utils.errors import InputError

CLIPS = sorted(path.name for path in GOLDEN_DIR.glob("motion272_*.npz"))


@pytest.fixture(params=CLIPS)
def clip(request) -> dict[str, np.ndarray]:
    """One golden clip; floats as float64."""
    with np.load(GOLDEN_DIR / request.param) as file:
        return {key: file[key].astype(np.float64) if file[key].dtype == np.float32 else file[key] for key in file.files}


def test_golden_fixtures_exist():
    assert CLIPS


def test_skeleton_has_the_parents_of_the_fixture(clip):
    assert tuple(clip["parents"]) == skeleton.PARENTS


def test_z_up_to_y_up(clip):
    rotations, positions = smplx.smplx85_to_motion(clip["smpl85_zup"])
    rotations, positions = skeleton.z_up_to_y_up(rotations, positions)
    expected, expected_positions = smplx.smplx85_to_motion(clip["smpl85_yup"])
    np.testing.assert_allclose(rotations, expected, atol=1e-3)
    np.testing.assert_allclose(positions, expected_positions, atol=1e-5)
    back = skeleton.y_up_to_z_up(rotations, positions)
    for part, original in zip(back, smplx.smplx85_to_motion(clip["smpl85_zup"]), strict=True):
        np.testing.assert_allclose(part, original, atol=1e-12)


def test_mirror_is_its_own_inverse(clip):
    rotations, positions = skeleton.mirror(*smplx.smplx85_to_motion(clip["smpl85_yup"]))
    expected, expected_positions = smplx.smplx85_to_motion(clip["smpl85_yup_mirrored"])
    np.testing.assert_allclose(rotations, expected, atol=1e-5)
    np.testing.assert_allclose(positions, expected_positions, atol=1e-6)
    again, _ = skeleton.mirror(rotations, positions)
    np.testing.assert_allclose(again, smplx.smplx85_to_motion(clip["smpl85_yup"])[0], atol=1e-12)


def test_face_forward_forward_kinematics_and_ground(clip):
    rotations, trans = smplx.smplx85_to_motion(clip["smpl85_yup"])
    if clip["face_z_aligned"]:
        rotations, trans = features272.face_forward(rotations, trans)
    np.testing.assert_allclose(rotations, clip["local_rotmats"], atol=1e-3)
    np.testing.assert_allclose(trans, clip["trans"], atol=1e-3)
    offsets = clip["rest_offsets"]
    joints = skeleton.forward_kinematics(clip["local_rotmats"], clip["trans"] + offsets[0], offsets)
    np.testing.assert_allclose(joints, clip["joints"], atol=1e-5)
    np.testing.assert_allclose(features272.ground(joints), clip["joints_grounded"], atol=1e-5)


def test_encode_equals_the_fixture(clip):
    rotations, _ = smplx.smplx85_to_motion(clip["smpl85"])
    np.testing.assert_allclose(rotations, clip["local_rotmats"], atol=1e-5)
    heading = features272.heading_angle(rotations[:, 0])
    np.testing.assert_allclose(np.angle(np.exp(1j * (heading - clip["heading"]))), 0, atol=1e-5)
    np.testing.assert_allclose(
        features272.encode(clip["local_rotmats"], clip["joints_grounded"]), clip["x272"], atol=1e-5
    )


@pytest.mark.parametrize("prefix", ["", "noisy_"])
def test_recovery_equals_the_fixture(clip, prefix):
    features = clip["x272_noisy" if prefix else "x272"]
    smplx85 = features272.features_to_smplx85(features)
    expected, translation = smplx.smplx85_to_motion(clip[prefix + "rec_smpl85"])
    rotations, pelvis = features272.recover_rotations(features)
    np.testing.assert_allclose(smplx.smplx85_to_motion(smplx85)[0], expected, atol=1e-5)
    np.testing.assert_allclose(rotations, expected, atol=1e-5)
    np.testing.assert_allclose(rotations[:, 0], clip[prefix + "rec_root_rotmats"], atol=1e-5)
    np.testing.assert_allclose(pelvis, translation, atol=1e-5)
    np.testing.assert_allclose(smplx85[:, smplx.SMPLX85["translation"]], translation, atol=1e-5)
    np.testing.assert_allclose(features272.recover_joints(features), clip[prefix + "rec_positions"], atol=1e-5)
    assert not smplx85[:, 66:72].any() and not smplx85[:, 75:].any()


def test_joints_from_positions_equal_joints_from_rotations(clip):
    offsets = clip["rest_offsets"]
    features = clip["x272"]
    np.testing.assert_allclose(
        features272.recover_joints_fk(features, offsets), features272.recover_joints(features), atol=1e-4
    )


def test_still_feet_are_the_published_foot_contacts(clip):
    np.testing.assert_array_equal(measures.still_feet(clip["joints"]), clip["foot_contacts"].astype(bool))


def random_motion(frames: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return a smooth random motion of our skeleton: rotations (frames, 22, 3, 3) and pelvis (frames, 3)."""
    rng = np.random.default_rng(seed)
    axis_angle = rng.normal(0, 0.4, (22, 3)) + np.cumsum(rng.normal(0, 0.02, (frames, 22, 3)), axis=0)
    axis_angle[:, 0] = np.array([0.0, 1.0, 0.0]) * rng.uniform(-np.pi, np.pi) + axis_angle[:, 0] * 0.2
    pelvis = np.cumsum(rng.normal(0, 0.01, (frames, 3)), axis=0) + [3.0, 1.0, -2.0]
    return rotation.axis_angle_to_matrix(axis_angle), pelvis


@pytest.mark.parametrize("frames", [1, 2, 3, 7, 64])
def test_round_trip_for_any_length_and_heading(frames):
    rotations, pelvis = random_motion(frames, seed=frames)
    features = features272.features_from_motion(rotations, pelvis)
    assert features.shape == (frames, 272)
    facing, start = features272.face_forward(rotations, pelvis)
    expected = features272.ground(skeleton.forward_kinematics(facing, start))
    np.testing.assert_allclose(features272.recover_rotations(features)[0], facing, atol=1e-8)
    np.testing.assert_allclose(features272.recover_joints(features), expected, atol=1e-8)
    np.testing.assert_allclose(features272.recover_joints_fk(features), expected, atol=1e-8)


def test_numpy_torch_and_batches_agree():
    motions = [random_motion(12, seed) for seed in (1, 2)]
    batch = [torch.tensor(np.stack(part)) for part in zip(*motions, strict=True)]
    features = features272.features_from_motion(*batch)
    for row, (rotations, pelvis) in enumerate(motions):
        alone = features272.features_from_motion(rotations, pelvis)
        assert isinstance(alone, np.ndarray)
        np.testing.assert_allclose(features[row].numpy(), alone, atol=1e-10)
        np.testing.assert_allclose(
            features272.features_to_smplx85(features)[row].numpy(), features272.features_to_smplx85(alone), atol=1e-9
        )


def test_recovery_is_differentiable():
    features = torch.tensor(features272.features_from_motion(*random_motion(4, seed=3)), requires_grad=True)
    assert torch.autograd.gradcheck(features272.recover_joints, (features,), fast_mode=True)
    assert torch.autograd.gradcheck(features272.recover_joints_fk, (features,), fast_mode=True)


@pytest.mark.parametrize(
    ("features", "words"),
    [
        (np.zeros((5, 263)), "272"),
        (np.zeros((0, 272)), "no frames"),
        (np.full((5, 272), np.nan), "NaN"),
        (np.full((5, 272), np.inf), "infinite"),
        (np.zeros(272), "shape"),
    ],
)
def test_unusable_features_are_refused(features, words):
    with pytest.raises(InputError, match=words):
        features272.check_features(features, "clip.npy")
