"""Exact corrections of a motion to a track: what is asked is met, and the motion stays natural."""

import numpy as np
import pytest
import torch

from control.satisfy import satisfy
from control.track import PATH_STEP, Track
from dataset.synthetic import synthetic_clips
from motion.directions import nearest_rotation
from motion.features272 import heading_angle
from motion.limbs import ARMS, LEGS, move_end
from motion.measures import foot_slide, frame_acceleration
from motion.rotation import y_rotation
from motion.skeleton import JOINT_INDEX, JOINTS, REST_OFFSETS, forward_kinematics, mirror, parent_relative, world_pose
from motion.spread import LONGEST, carry, spread
from utils.errors import InputError

WRIST = JOINT_INDEX["right_wrist"]


@pytest.fixture(scope="module")
def walk():
    """Rotations (T, 22, 3, 3) and pelvis (T, 3) of a person who walks 4.8 m straight on in 5.3 s."""
    clip = next(synthetic_clips(1, seed=2))
    return nearest_rotation(clip.rotations.astype(float)), clip.pelvis.astype(float)


def pinned(motion, joint: int, frames: slice, offset) -> Track:
    """A track that holds a joint at an offset from its place in the middle of the frames."""
    track, joints = Track.empty(len(motion[1])), forward_kinematics(*motion)
    place = joints[(frames.start + frames.stop) // 2, joint] + offset
    track.joints[frames, joint] = torch.from_numpy(place).float()
    track.joints_known[frames, joint] = True
    return track


def posed(motion, pose, frame: int, place=None, heading: float = 0.0) -> Track:
    """A track with a pose, rotations (22, 3, 3) and pelvis (3,), at a frame, and there also at a place (x, z)."""
    track = Track.empty(len(motion[1]))
    local = pose[0].copy()
    local[0] = y_rotation(-heading_angle(local[None, 0]))[0] @ local[0]
    track.rotations[frame], track.rotations_known[frame] = torch.from_numpy(local), True
    if place is not None:
        track.root[frame], track.root_known[frame] = torch.tensor(place), True
        track.heading[frame], track.heading_known[frame] = heading, True
        local[0] = y_rotation(np.array([heading]))[0] @ local[0]
        joints = forward_kinematics(local, np.array([place[0], pose[1][1], place[1]]))
        track.joints[frame], track.joints_known[frame] = torch.from_numpy(joints), True
    return track


def path_track(frames: int, points: np.ndarray) -> Track:
    track = Track.empty(frames)
    track.path = torch.from_numpy(points).float()
    return track


def paths(length: float) -> dict[str, np.ndarray]:
    along = np.arange(round(length / PATH_STEP) + 1) * PATH_STEP
    radius = length / (np.pi / 2)
    return {
        "straight": np.stack((0 * along, along), axis=1),
        "arc": radius * np.stack((1 - np.cos(along / radius), np.sin(along / radius)), axis=1),
        "corner": np.stack((np.maximum(along - length / 2, 0), np.minimum(along, length / 2)), axis=1),
    }


def test_motion_without_constraints_stays(walk):
    rotations, pelvis = satisfy(*walk, Track.empty(len(walk[1])))
    np.testing.assert_array_equal(rotations, walk[0])
    np.testing.assert_array_equal(pelvis, walk[1])
    with pytest.raises(InputError, match="10 frames"):
        satisfy(*walk, Track.empty(10))


@pytest.mark.parametrize("shape", ["straight", "arc", "corner"])
def test_path_is_followed_to_its_end_without_skating(walk, shape):
    travelled = np.linalg.norm(walk[1][-1] - walk[1][0])
    points = paths(0.9 * travelled)[shape]
    rotations, pelvis = satisfy(*walk, path_track(len(walk[1]), points))
    distance = np.linalg.norm(pelvis[:, None, ::2] - points, axis=-1).min(axis=1)
    assert distance.mean() < 0.05
    np.testing.assert_allclose(pelvis[-1, ::2], points[-1], atol=1e-6)
    steps = np.linalg.norm(np.diff(pelvis[:, ::2], axis=0), axis=1)
    assert steps.max() < 1.5 * np.median(steps)  # steady progress
    before, after = forward_kinematics(*walk), forward_kinematics(rotations, pelvis)
    assert foot_slide(after) < 1.1 * foot_slide(before)
    assert frame_acceleration(after).max() < 1.3 * frame_acceleration(before).max()
    end = np.diff(points[-4:], axis=0).mean(axis=0)
    turned = heading_angle(rotations[-30:, 0]) - heading_angle(walk[0][-30:, 0])
    assert abs(turned.mean() - np.arctan2(*end)) < 0.2


def test_pose_at_a_place_is_met_exactly(walk):
    place = walk[1][60, ::2] + (0.1, -0.05)
    track = posed(walk, (walk[0][62], walk[1][62]), 60, place.tolist(), heading=0.3)
    rotations, pelvis = satisfy(*walk, track)
    joints = forward_kinematics(rotations, pelvis)
    np.testing.assert_allclose(joints[60], track.joints[60].numpy(), atol=1e-5)
    before = forward_kinematics(*walk)
    assert frame_acceleration(joints).max() < 1.3 * frame_acceleration(before).max()
    assert foot_slide(joints) < 1.1 * foot_slide(before)
    assert joints[..., 1].min() > before[..., 1].min() - 1e-3  # no foot sinks


def test_pose_without_a_place_is_met_where_the_motion_is(walk):
    track = posed(walk, (walk[0][66], walk[1][66]), 60)
    rotations, pelvis = satisfy(*walk, track)
    np.testing.assert_allclose(rotations[60, 1:], walk[0][66, 1:], atol=1e-5)
    np.testing.assert_allclose(pelvis[:, ::2], walk[1][:, ::2], atol=1e-3)
    far = np.abs(np.arange(len(pelvis)) - 60) > 2 * LONGEST
    np.testing.assert_allclose(rotations[far], walk[0][far], atol=1e-3)


@pytest.mark.parametrize("joint", ["right_wrist", "left_elbow", "head", "pelvis", "left_foot", "right_ankle"])
def test_pinned_joint_is_held(walk, joint):
    index, span = JOINT_INDEX[joint], slice(60, 66 if joint == "right_wrist" else 61)
    track = pinned(walk, index, span, (0.02, 0.03 if index in (7, 8, 10, 11) else -0.03, 0.04))
    joints = forward_kinematics(*satisfy(*walk, track))
    np.testing.assert_allclose(joints[span, index], track.joints[span, index].numpy(), atol=5e-3)
    assert frame_acceleration(joints).max() < 1.5 * frame_acceleration(forward_kinematics(*walk)).max()


def test_pin_of_one_axis_leaves_the_others(walk):
    track = pinned(walk, WRIST, slice(60, 61), (0, 0.2, 0))
    track.joints_known[60, WRIST, [0, 2]] = False
    joints = forward_kinematics(*satisfy(*walk, track))
    assert abs(joints[60, WRIST, 1] - track.joints[60, WRIST, 1].item()) < 1e-4
    np.testing.assert_allclose(joints[60, WRIST, [0, 2]], forward_kinematics(*walk)[60, WRIST, [0, 2]], atol=0.03)


def test_body_approaches_a_pin_out_of_reach(walk):
    shift = np.array((-0.5, 0.0, 0.5))
    track = pinned(walk, WRIST, slice(60, 61), shift)
    rotations, pelvis = satisfy(*walk, track)
    left = np.linalg.norm(forward_kinematics(rotations, pelvis)[60, WRIST] - track.joints[60, WRIST].numpy())
    assert left < 0.05  # the arm alone would leave more
    track = pinned(walk, WRIST, slice(60, 61), 5 * shift)
    rotations, pelvis = satisfy(*walk, track)
    joints = forward_kinematics(rotations, pelvis)
    assert 1 < np.linalg.norm(joints[60, WRIST] - track.joints[60, WRIST].numpy()) < np.linalg.norm(5 * shift) - 0.5
    assert frame_acceleration(joints).max() < 2 * frame_acceleration(forward_kinematics(*walk)).max()


def test_mirrored_motion_and_track_give_the_mirrored_result(walk):
    points = paths(3.0)["arc"]
    mirrored = mirror(*walk)
    _, pelvis = satisfy(*walk, path_track(len(walk[1]), points))
    _, other = satisfy(*mirrored, path_track(len(walk[1]), points * (-1, 1)))
    np.testing.assert_allclose(other[:, ::2], pelvis[:, ::2] * (-1, 1), atol=1e-3)


def test_seams_around_given_motion_join_smoothly(walk):
    """Frames before and after a gap are given, as in in-betweening, and the motion is a little off them."""
    before, after = slice(0, 40), slice(100, len(walk[1]))
    track = Track.empty(len(walk[1]))
    for span in (before, after):
        track.root[span] = torch.from_numpy(walk[1][span][:, [0, 2]])
        heading = heading_angle(walk[0][span, 0])
        track.heading[span] = torch.from_numpy(heading)
        local = walk[0][span].copy()
        local[:, 0] = y_rotation(-heading) @ local[:, 0]
        track.rotations[span] = torch.from_numpy(local)
        track.joints[span] = torch.from_numpy(forward_kinematics(walk[0][span], walk[1][span]))
        for known in (track.root_known, track.heading_known, track.rotations_known, track.joints_known):
            known[span] = True
    random = np.random.default_rng(0)
    turns = y_rotation(random.normal(0, 0.05, (1, JOINTS))) @ walk[0]
    joints = forward_kinematics(*satisfy(turns, walk[1] + (0.05, 0.0, -0.08), track))
    asked = forward_kinematics(*walk)
    for span in (before, after):
        np.testing.assert_allclose(joints[span], asked[span], atol=1e-5)
    assert frame_acceleration(joints).max() < 1.2 * frame_acceleration(asked).max()


# Offsets and limbs


def test_spread_is_exact_smooth_and_ends():
    known = np.zeros(120, bool)
    known[40:50] = known[90] = True
    values = np.zeros((120, 1))
    values[40:50, 0], values[90] = 0.1 + 0.02 * np.arange(10), 0.2
    offsets = spread(known, values)
    np.testing.assert_allclose(offsets[known], values[known], atol=1e-12)
    assert not offsets[:10].any() and np.abs(np.diff(offsets, axis=0)).max() < 0.03
    assert np.abs(np.diff(offsets, n=2, axis=0)).max() < 0.005  # the velocity of the span goes on at its ends
    assert not spread(np.zeros(120, bool), values).any()


def test_carried_offsets_are_exact_and_last():
    known = np.zeros(120, bool)
    known[[40, 80]] = True
    values = np.where(known[:, None], [0.4, -0.2], 0.0)
    offsets = carry(known, values, np.arange(120.0))
    np.testing.assert_allclose(offsets[known], values[known], atol=1e-12)
    np.testing.assert_allclose(offsets[0], 0, atol=1e-12)
    np.testing.assert_allclose(offsets[-1], values[80], atol=1e-12)


def test_velocity_of_a_span_does_not_carry_an_offset_far():
    """Its offsets change by 1.2 m per second, and the next known frame is 3 seconds later."""
    known, values = np.zeros(120, bool), np.zeros((120, 1))
    known[:10] = known[100] = True
    values[:10, 0] = 0.04 * np.arange(10)
    offsets = carry(known, values, np.arange(120.0))[:, 0]
    np.testing.assert_allclose(offsets[known], values[known, 0], atol=1e-12)
    assert offsets.max() < 0.7 and offsets.min() > -0.1
    assert np.abs(np.diff(offsets, n=2)).max() < 0.01


@pytest.mark.parametrize("limb", [*ARMS.values(), *LEGS.values()])
def test_end_of_a_limb_reaches_its_target(walk, limb):
    world, joints = world_pose(walk[0], REST_OFFSETS, root=walk[1])
    chord = joints[:, limb.upper] - joints[:, limb.end]
    steps = 0.2 * chord + 0.1 * np.cross(chord, (0, 1, 0))  # nearer and aside
    move_end(limb, world, joints, steps)
    moved = forward_kinematics(parent_relative(world), walk[1])
    np.testing.assert_allclose(moved[:, limb.end], forward_kinematics(*walk)[:, limb.end] + steps, atol=1e-6)
    np.testing.assert_allclose(moved, np.where(np.isin(np.arange(JOINTS), [*limb.joints])[:, None], joints, moved))


def test_straight_leg_bends_its_knee_forward():
    rotations, pelvis = np.tile(np.eye(3), (40, JOINTS, 1, 1)), np.tile((0, 0.9, 0), (40, 1)).astype(float)
    world, joints = world_pose(rotations, REST_OFFSETS, root=pelvis)
    knee = joints[0, LEGS["left"].middle].copy()
    move_end(LEGS["left"], world, joints, np.linspace(0, 0.2, 40)[:, None] * (0, 1, 0))
    assert joints[-1, LEGS["left"].middle, 2] > knee[2] + 0.1
