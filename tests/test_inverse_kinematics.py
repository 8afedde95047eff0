"""Inverse kinematics: joint error on the fixtures, analytic poses, invariances, noise, continuity, faults."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from motion.features263 import HUMANML3D, KIT, joints_from_features
from motion.features272 import features_from_motion, recover_joints_fk
from motion.inverse_kinematics import KIT_JOINTS, fit_joints, fit_kit_joints, our_bones
from motion.rotation import y_rotation
from motion.skeleton import JOINT_INDEX, JOINTS, LIMBS, PARENTS, REST_OFFSETS, forward_kinematics
from motion.smplx import smplx85_to_motion
from tests.conftest import GOLDEN_DIR, GOLDEN_EVAL_DIR
from utils.errors import InputError

MEAN_ERROR = 0.015  # metres, required of the way 263 features -> 272 features -> joints
FILES = [path for path in sorted(GOLDEN_EVAL_DIR.glob("*[0-9]_*.npz")) if "joints_processed" in np.load(path)]
CLIPS = sorted(GOLDEN_DIR.glob("motion272_*.npz"))


@pytest.fixture(params=CLIPS, ids=lambda path: path.stem)
def motion(request) -> tuple[np.ndarray, np.ndarray]:
    """Rotations (T, 22, 3, 3) and pelvis (T, 3) of a golden clip."""
    return smplx85_to_motion(np.load(request.param)["smpl85_yup"].astype(np.float64))


def posed(frames: int = 40, **angles: tuple[float, float, float]) -> tuple[np.ndarray, np.ndarray]:
    """Rotations and pelvis of a person who moves from the rest pose to a pose: axis-angle in degrees per joint."""
    rotations = np.tile(np.eye(3), (frames, JOINTS, 1, 1))
    for name, angle in angles.items():
        path = np.linspace(0, 1, frames)[:, None] * np.deg2rad(angle)
        rotations[:, JOINT_INDEX[name]] = Rotation.from_rotvec(path).as_matrix()
    return rotations, np.tile([0.0, 1.0, 0.0], (frames, 1))


def degrees_between(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    return np.degrees(np.arccos(np.clip(((one * other).sum(axis=(-1, -2)) - 1) / 2, -1, 1)))


def distances(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    return np.linalg.norm(one - other, axis=-1)


def over_the_origin(joints: np.ndarray) -> np.ndarray:
    """Place (T, 22, 3) with the first hips over the origin, the line between them along x."""
    across = joints[0, JOINT_INDEX["left_hip"]] - joints[0, JOINT_INDEX["right_hip"]]
    turned = joints @ y_rotation(np.arctan2(across[2:], across[:1]))[0].T
    return turned - turned[0, [1, 2]].mean(axis=0) * (1, 0, 1) - [0, turned[..., 1].min(), 0]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_features_of_humanml3d_and_kit_reach_the_272_features_within_the_required_error(path):
    """The joints of the 272 features, by forward kinematics, against the given joints with our bone lengths."""
    features = np.load(path)["features"]
    skeleton = next(each for each in (HUMANML3D, KIT) if each.width == features.shape[1])
    joints = joints_from_features(features, skeleton)
    fit = fit_joints(joints) if skeleton is HUMANML3D else fit_kit_joints(joints)
    assert fit.error < MEAN_ERROR
    encoded = recover_joints_fk(features_from_motion(fit.rotations, fit.pelvis))
    motion = forward_kinematics(fit.rotations, fit.pelvis)
    np.testing.assert_allclose(over_the_origin(encoded), over_the_origin(motion), atol=1e-5)
    observed = list(range(JOINTS)) if skeleton is HUMANML3D else [JOINT_INDEX[name] for name in KIT_JOINTS]
    assert distances(motion, fit.targets)[:, observed].mean() == pytest.approx(fit.error)


def test_motion_of_our_skeleton_is_fitted_to_millimetres(motion):
    rotations, pelvis = motion
    joints = forward_kinematics(rotations, pelvis)
    fit = fit_joints(joints)
    np.testing.assert_allclose(fit.targets, joints, atol=1e-5)
    assert distances(forward_kinematics(fit.rotations, fit.pelvis), joints).mean() < 0.003
    products = fit.rotations @ fit.rotations.swapaxes(-1, -2)
    np.testing.assert_allclose(products, np.broadcast_to(np.eye(3), products.shape), atol=1e-9)
    step, true_step = (degrees_between(each[1:], each[:-1]) for each in (fit.rotations, rotations))
    assert step.max() < 2 * true_step.max() + 1  # no jumps


@pytest.mark.parametrize(
    "angles",
    [
        {"left_hip": (-70, 0, 0), "left_knee": (95, 0, 0)},
        {"right_hip": (-40, -30, 0), "right_knee": (60, 0, 0)},
        {"left_shoulder": (0, 0, -60), "left_elbow": (0, -90, 0)},
        {"right_shoulder": (50, 0, 60), "right_elbow": (0, 100, 0)},
        {"spine1": (15, 0, 0), "spine2": (15, 0, 0), "spine3": (15, 0, 0)},
    ],
    ids=lambda angles: next(iter(angles)),
)
def test_joints_bend_about_their_anatomical_axes(angles):
    """Knees bend about x and elbows about y, so that hips and shoulders take the rotation about their bone."""
    rotations, pelvis = posed(**angles)
    fit = fit_joints(forward_kinematics(rotations, pelvis))
    off = degrees_between(fit.rotations[-10:], rotations[-10:])
    assert off[:, [JOINT_INDEX[name] for name in angles]].max() < 12


def test_a_straight_leg_follows_its_foot():
    rotations, pelvis = posed(left_hip=(0, 40, 0))
    fit = fit_joints(forward_kinematics(rotations, pelvis))
    assert degrees_between(fit.rotations[-1], rotations[-1])[JOINT_INDEX["left_hip"]] < 12


def test_head_of_smpl_is_upright():
    """The head joint of SMPL is lower and further forward than ours, which does not bend the neck."""
    rotations, pelvis = posed()
    offsets = REST_OFFSETS.astype(np.float64)
    offsets[JOINT_INDEX["neck"]] *= 1.3
    offsets[JOINT_INDEX["head"]] = [0.01, 0.089, 0.05]
    fit = fit_joints(forward_kinematics(rotations, pelvis, offsets))
    assert degrees_between(fit.rotations, rotations)[:, JOINT_INDEX["neck"]].max() < 8


def test_fit_does_not_depend_on_size_place_and_heading(motion):
    joints = forward_kinematics(*motion)
    fit = fit_joints(joints)
    turn = y_rotation(np.array([2.0]))[0]
    moved = fit_joints((joints @ turn.T) * 1.2 + [3, 0, -5])
    np.testing.assert_allclose(moved.rotations[:, 1:], fit.rotations[:, 1:], atol=1e-6)
    np.testing.assert_allclose(moved.rotations[:, 0], turn @ fit.rotations[:, 0], atol=1e-6)
    assert moved.error == pytest.approx(fit.error, abs=1e-6)
    np.testing.assert_allclose(np.diff(moved.pelvis, axis=0), np.diff(fit.pelvis, axis=0) @ turn.T, atol=1e-6)


def test_other_proportions_keep_the_directions_of_limbs(motion):
    """A body with longer legs and shorter arms gives the same rotations of its limbs."""
    rotations, pelvis = motion
    offsets = REST_OFFSETS.astype(np.float64)
    for limb, factor in (("left_leg", 1.2), ("right_leg", 1.2), ("left_arm", 0.8), ("right_arm", 0.8)):
        offsets[list(LIMBS[limb][1:])] *= factor
    fit, ours = (fit_joints(forward_kinematics(rotations, pelvis, each)) for each in (offsets, REST_OFFSETS))
    assert degrees_between(fit.rotations, ours.rotations).max() < 3
    lengths = np.linalg.norm(fit.targets - fit.targets[:, PARENTS], axis=-1)[:, 1:]
    np.testing.assert_allclose(lengths, np.tile(np.linalg.norm(REST_OFFSETS, axis=1)[1:], (len(pelvis), 1)), atol=1e-5)


def test_noise_of_the_positions_does_not_accumulate(motion):
    joints = forward_kinematics(*motion)
    noise = np.random.default_rng(0).normal(scale=0.005, size=joints.shape)
    fit = fit_joints(joints + noise)
    off = distances(forward_kinematics(fit.rotations, fit.pelvis), joints)
    assert off.mean() < np.linalg.norm(noise, axis=-1).mean() + 0.005


def test_floor_remains_the_floor():
    rotations, pelvis = posed(left_knee=(60, 0, 0))
    joints = forward_kinematics(rotations, pelvis)
    joints[..., 1] -= joints[..., 1].min()
    joints[:, 4:12:3] += [0, 0, 0.03]  # other proportions
    assert abs(our_bones(joints * 1.3)[..., 1].min()) < 1e-9


@pytest.mark.parametrize("frames", [1, 2, 3])
def test_short_clips_are_fitted(frames):
    fit = fit_joints(forward_kinematics(*posed(frames, left_knee=(30, 0, 0))))
    assert fit.rotations.shape == (frames, JOINTS, 3, 3) and np.isfinite(fit.rotations).all()


@pytest.mark.parametrize(
    ("joints", "message"),
    [
        (np.full((4, 22, 3), np.nan), "NaN"),
        (np.ones((4, 24, 3)), "22, 3"),
        (np.ones((0, 22, 3)), "at least 1"),
        (np.ones((4, 22, 3)), "no length"),
    ],
)
def test_unusable_joints_are_refused(joints, message):
    with pytest.raises(InputError, match=message):
        fit_joints(joints)
