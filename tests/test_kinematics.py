"""Rotations, forward kinematics of any hierarchy, resampling, validated clips and the foot lock."""

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from motion.clip import Clip, smplx85_of
from motion.features272 import ground
from motion.foot_lock import lifts, lock_feet
from motion.limbs import LEGS, move_end
from motion.measures import foot_slide, standing_feet
from motion.resample import resample_positions, resample_rotations
from motion.rotation import axis_angle_to_matrix, matrix_to_axis_angle
from motion.skeleton import JOINT_INDEX, JOINT_NAMES, REST_OFFSETS, forward_kinematics, world_pose
from motion.smplx import smplx85_to_motion
from utils.errors import InputError


@pytest.fixture
def motion() -> np.ndarray:
    """45 frames in which every joint moves."""
    generator, times = np.random.default_rng(0), np.linspace(0, 1.5, 45)[:, None]
    data = np.zeros((45, 85))
    data[:, :66] = 0.5 * np.sin(times * generator.uniform(1, 4, 66) + generator.uniform(0, 6, 66))
    data[:, 72:75] = np.concatenate((0.3 * times, 0.95 + 0.02 * np.sin(5 * times), 1.2 * times), axis=1)
    return data


def joints_of(smplx85: np.ndarray) -> np.ndarray:
    return forward_kinematics(*smplx85_to_motion(smplx85))


def test_axis_angle_near_pi_keeps_its_precision():
    axis = np.random.default_rng(0).normal(size=(100, 3)).astype(np.float32)
    axis /= np.linalg.norm(axis, axis=1, keepdims=True)
    angle = np.linspace(np.pi - 1e-3, np.pi, 100, dtype=np.float32)[:, None]
    matrix = axis_angle_to_matrix(axis * angle)
    np.testing.assert_allclose(axis_angle_to_matrix(matrix_to_axis_angle(matrix)), matrix, atol=2e-6)


@pytest.mark.parametrize("moving", [False, True], ids=["constant offsets", "offsets per frame"])
def test_world_pose_equals_products_of_transforms(moving):
    """Forward kinematics of a hierarchy with two roots equals the product of 4 x 4 matrices along each branch."""
    parents, generator = (-1, 0, 1, 1, -1, 4), np.random.default_rng(1)
    rotations = Rotation.random(7 * 6, random_state=1).as_matrix().reshape(7, 6, 3, 3)
    offsets = generator.normal(size=(7, 6, 3) if moving else (6, 3))
    pose = world_pose(rotations, offsets, parents)
    local = np.tile(np.eye(4), (7, 6, 1, 1))
    local[..., :3, :3], local[..., :3, 3] = rotations, offsets
    for joint, parent in enumerate(parents):
        if parent >= 0:
            local[:, joint] = local[:, parent] @ local[:, joint]
    np.testing.assert_allclose(pose.rotations, local[..., :3, :3], atol=1e-12)
    np.testing.assert_allclose(pose.positions, local[..., :3, 3], atol=1e-12)
    moved = world_pose(torch.tensor(rotations), torch.tensor(offsets), parents, root=torch.ones(7, 3))
    assert isinstance(moved.positions, torch.Tensor) and (moved.positions[:, 0] == 1).all()


def test_resampling_keeps_the_motion(motion):
    rotations, pelvis = smplx85_to_motion(motion[:41])
    fast = resample_rotations(rotations, 120, 30), resample_positions(pelvis, 120, 30)
    assert len(fast[0]) == len(fast[1]) == 11
    np.testing.assert_allclose(fast[0], rotations[::4], atol=1e-9)
    np.testing.assert_allclose(fast[1], pelvis[::4], atol=1e-9)
    slow = resample_rotations(rotations, 20, 30)
    np.testing.assert_allclose(slow[::3], rotations[::2], atol=1e-9)
    assert len(slow) == 61


def test_clip_validates_once_and_is_not_changed_by_its_users(motion):
    with pytest.raises(InputError, match="NaN"):
        Clip(np.full((2, 85), np.nan))
    clip = Clip(torch.as_tensor(motion, dtype=torch.float32)[None], "walk")
    assert clip.smplx85.shape == (45, 85) and clip.smplx85.dtype == np.float32
    poses = smplx85_of(clip)
    assert poses.dtype == np.float64 and smplx85_of(motion.tolist()).dtype == np.float64
    before = clip.smplx85.copy()
    poses[:] = 0
    lock_feet(clip)
    np.testing.assert_array_equal(clip.smplx85, before)


# Foot lock


def test_foot_lock_stops_standing_feet_and_keeps_other_joints():
    """A person shifts their weight over sliding feet; the lock stops the feet and leaves the upper body unchanged."""
    data, times = np.zeros((60, 85)), np.linspace(0, 2, 60)
    legs = data[:, :66].reshape(60, 22, 3)
    for side in ("left", "right"):
        legs[:, JOINT_INDEX[f"{side}_hip"], 0], legs[:, JOINT_INDEX[f"{side}_knee"], 0] = -0.3, 0.6
        legs[:, JOINT_INDEX[f"{side}_ankle"], 0] = -0.3
    data[:, 72], data[:, 73] = 0.05 * np.sin(4 * times), 0.9
    data[:, 74] = 0.1 * times
    locked = lock_feet(data)
    before, after = (ground(joints_of(each)) for each in (data, locked))
    assert standing_feet(joints_of(data)).mean() > 0.9
    assert foot_slide(before) > 0.1 and foot_slide(after) < 1e-6
    legs = [joint for joint, name in enumerate(JOINT_NAMES) if name.endswith(("hip", "knee", "ankle"))]
    others = np.delete(np.arange(66).reshape(22, 3), legs, axis=0).ravel()
    np.testing.assert_allclose(locked[:, others], data[:, others], atol=1e-12)
    np.testing.assert_array_equal(locked[:, 66:], data[:, 66:])
    lengths = [np.linalg.norm(np.diff(each[:, [1, 4, 7, 10]], axis=1), axis=-1) for each in (before, after)]
    np.testing.assert_allclose(*lengths, atol=1e-6)


def test_foot_lock_lifts_feet_out_of_the_floor():
    standing = np.zeros((45, 85))
    standing[:, 73] = -joints_of(standing)[0, :, 1].min()  # the lowest joint is on the floor
    sunk = standing.copy()
    sunk[:, 73] -= 0.05 * np.sin(np.linspace(0, np.pi, 45))
    before, after = joints_of(sunk), joints_of(lock_feet(sunk))
    assert before[..., 1].min() < -0.049 and after[..., 1].min() > -1e-3
    np.testing.assert_allclose(after[:, 0], before[:, 0], atol=1e-9)  # the pelvis stays
    elsewhere = sunk - np.eye(85)[73]  # a floor one metre lower
    np.testing.assert_allclose(lock_feet(elsewhere), elsewhere, atol=1e-6)
    assert not lifts(np.full((9, 2), (-0.05, -0.2))).any()  # one deep foot is enough


@pytest.mark.parametrize("knee", [-0.02, 0.0, 0.02])
def test_a_straight_or_overextended_leg_bends_forward_without_twisting(knee):
    world, joints = world_pose(
        Rotation.from_rotvec(np.eye(1, 66, 12).reshape(22, 3) * knee).as_matrix()[None], REST_OFFSETS.astype(float)
    )
    before, steps = world.copy(), np.array([[0.0, 0.02, 0.0]])
    move_end(LEGS["left"], world, joints.copy(), steps)
    turns = Rotation.from_matrix(before[0, [1, 4]].swapaxes(1, 2) @ world[0, [1, 4]]).as_rotvec(degrees=True)
    assert np.abs(turns[:, 1]).max() < 5 and turns[0, 0] < -5 and turns[1, 0] > 5  # about the bone, and the hinge


def test_foot_lock_ignores_fast_feet_and_accepts_any_length(motion):
    flying = motion.copy()
    flying[:, 73:75] += np.linspace((1, 0), (1, 6), 45)  # above the floor, and far too fast to stand
    np.testing.assert_allclose(joints_of(lock_feet(flying)), joints_of(flying), atol=1e-9)
    gliding = np.zeros((120, 85))
    gliding[:, 73:75] = np.linspace((1, 0), (1, 1), 120)  # slow, but too far for the legs
    np.testing.assert_allclose(joints_of(lock_feet(gliding)), joints_of(gliding), atol=1e-9)
    for frames in (1, 2, 3):
        assert np.isfinite(lock_feet(motion[:frames])).all()
    standing = np.repeat(motion[:1], 20, axis=0)
    np.testing.assert_allclose(joints_of(lock_feet(standing)), joints_of(standing), atol=1e-9)
