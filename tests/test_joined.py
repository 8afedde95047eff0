"""Joined clips: continuous in pose, velocity and path, and equal to the recordings away from the seam."""

import numpy as np
import pytest

from dataset.synthetic import synthetic_clips
from motion.features272 import LAYOUT, features_from_motion, recover_joints, recover_joints_fk, recover_root
from motion.joined import HALF_LIFE, decaying, join
from motion.resample import FPS


@pytest.fixture(scope="module")
def clips() -> list[np.ndarray]:
    """Features of procedural motions of many actions."""
    return [features_from_motion(rotations, pelvis) for _, rotations, pelvis, _ in synthetic_clips(24, 3)]


def test_joined_clip_begins_with_the_first_and_ends_as_the_second(clips):
    for first, second in zip(clips, clips[1:], strict=False):
        joined = join(first, second)
        assert joined.shape == (len(first) + len(second), 272) and joined.dtype == first.dtype
        np.testing.assert_array_equal(joined[: len(first)], first)
        decayed = len(first) + round(8 * HALF_LIFE * FPS)
        np.testing.assert_allclose(joined[decayed:], second[decayed - len(first) :], atol=0.05)


def test_motion_is_continuous_at_the_seam(clips):
    for first, second in zip(clips, clips[5:], strict=False):
        joined, seam = join(first.astype(np.float64), second.astype(np.float64)), len(first)
        joints = recover_joints_fk(joined)
        steps = np.linalg.norm(np.diff(joints, axis=0), axis=-1)  # (T - 1, 22)
        assert steps[seam - 1].max() < 1.2 * steps[seam - 2].max() + 0.03, "a joint jumps"
        heading, pelvis = recover_root(joined)
        speed = np.diff(pelvis, axis=0)
        assert np.linalg.norm(speed[seam - 1] - speed[seam - 2]) < 0.012, "the root's velocity jumps"
        np.testing.assert_allclose(recover_joints(joined), joints, atol=1e-5)
        velocities, positions = joined[:, LAYOUT["joint_velocities"]], joined[:, LAYOUT["joint_positions"]]
        np.testing.assert_allclose(velocities[seam:], np.diff(positions[seam - 1 :], axis=0), atol=1e-6)


def test_clip_joined_to_its_own_continuation_is_unchanged(clips):
    clip = clips[0].astype(np.float64)
    np.testing.assert_allclose(join(clip[:20], clip[20:])[20:], clip[20:], atol=0.06)


def test_difference_starts_with_its_value_and_velocity_and_decays():
    values = decaying(np.array([1.0, -2.0]), np.array([0.0, 0.0]), 60)
    assert values.shape == (60, 2) and abs(values[-1]).max() < 1e-3
    assert (np.diff(abs(values), axis=0) < 0).all()
    slow = decaying(np.float64(0.0), np.float64(0.1), 60)
    assert 0.05 < slow[0] < 0.1 and slow.max() < 0.5
