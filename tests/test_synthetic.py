"""Procedural motion: clips match their captions, stay on the floor and are reproducible from the seed."""

import itertools

import numpy as np
import pytest

from dataset.synthetic import ACTIONS, VARIANTS, synthetic_clips
from motion.resample import FPS
from motion.skeleton import JOINT_INDEX, REST_OFFSETS, forward_kinematics
from utils.errors import InputError

REPEATS = 4
SIDES = ("left", "right")


@pytest.fixture(scope="module")
def clips():
    """List of (rotations, pelvis, joints, captions) by name of the action."""
    by_action = {}
    for name, rotations, pelvis, captions in synthetic_clips(REPEATS * len(VARIANTS), seed=7):
        action = name.rpartition("_")[0]
        by_action.setdefault(action, []).append((rotations, pelvis, forward_kinematics(rotations, pelvis), captions))
    return by_action


def all_clips(clips):
    return itertools.chain.from_iterable(clips.values())


def turn_to_left(rotations):
    """Change of heading over the clip in degrees, positive to the left."""
    heading = np.unwrap(np.arctan2(rotations[:, 0, 0, 2], rotations[:, 0, 2, 2]))
    return np.degrees(heading[-1] - heading[0])


def speed(pelvis):
    return np.linalg.norm(np.diff(pelvis[:, [0, 2]], axis=0), axis=1).mean() * FPS


def highest(joints, joint, above):
    """Maximum height of ``joint`` above another joint in metres."""
    return (joints[:, JOINT_INDEX[joint], 1] - joints[:, JOINT_INDEX[above], 1]).max()


def lowest_foot(joints):
    """Height of the lower sole above the floor, (T,)."""
    ankle_height = -REST_OFFSETS[[JOINT_INDEX["left_foot"], JOINT_INDEX["right_foot"]], 1].mean()
    soles = [
        joints[:, JOINT_INDEX[f"{side}_{part}"], 1] - height
        for side in SIDES
        for part, height in (("ankle", ankle_height), ("foot", 0.0))
    ]
    return np.min(soles, axis=0)


def test_clips_have_valid_shapes_types_and_captions(clips):
    assert set(clips) == {name.format(side=side) for name, side in VARIANTS} and len(clips) > len(ACTIONS)
    for rotations, pelvis, _, captions in all_clips(clips):
        assert rotations.dtype == pelvis.dtype == np.float32
        assert rotations.shape == (len(pelvis), 22, 3, 3) and pelvis.shape[1:] == (3,)
        assert 2 * FPS <= len(pelvis) <= 6 * FPS
        np.testing.assert_allclose(
            rotations @ rotations.swapaxes(-1, -2), np.broadcast_to(np.eye(3), rotations.shape), atol=1e-5
        )
        assert (np.linalg.det(rotations) > 0.99).all() and np.isfinite(pelvis).all()
        assert len(set(captions)) >= 3 and not any("{" in caption or "  " in caption for caption in captions)


def test_clips_depend_on_the_seed_and_not_on_the_count():
    few, many, other = (list(synthetic_clips(count, seed)) for count, seed in ((5, 3), (9, 3), (5, 4)))
    for (name, *arrays, captions), (same_name, *same_arrays, same_captions) in zip(few, many, strict=False):
        assert name == same_name and captions == same_captions
        for array, same in zip(arrays, same_arrays, strict=True):
            np.testing.assert_array_equal(array, same)
    assert any(len(a[2]) != len(b[2]) for a, b in zip(few, other, strict=True))
    assert len({name for name, *_ in many}) == 9
    assert list(synthetic_clips(0)) == []
    with pytest.raises(InputError, match="negative"):
        next(synthetic_clips(-1))


def test_clips_start_at_the_origin_facing_forward(clips):
    for _, pelvis, joints, _ in all_clips(clips):
        np.testing.assert_array_equal(pelvis[0, [0, 2]], 0)
        across = joints[0, JOINT_INDEX["left_hip"]] - joints[0, JOINT_INDEX["right_hip"]]
        assert across[0] > 0.1 and abs(np.degrees(np.arctan2(across[2], across[0]))) < 15


def test_feet_are_on_the_floor_except_in_flight(clips):
    for action, performed in clips.items():
        for _, _, joints, _ in performed:
            height = lowest_foot(joints)
            assert height.min() > -1e-4
            if action in ("jump", "run"):
                assert height.max() > (0.15 if action == "jump" else 0.02) and np.median(height) < 0.01
            else:
                assert height.max() < 1e-4


def test_standing_feet_hardly_slide(clips):
    for action in ("walk", "walk_backward", "walk_turn_left", "turn_right", "squat", "bow"):
        for _, _, joints, _ in clips[action]:
            toes = joints[:, [JOINT_INDEX[f"{side}_foot"] for side in SIDES]]
            planted = (toes[1:, :, 1] < 0.005) & (toes[:-1, :, 1] < 0.005)
            slide = np.linalg.norm(np.diff(toes[..., [0, 2]], axis=0), axis=-1)[planted] * FPS
            assert np.median(slide) < 0.3, action


def test_motion_is_smooth(clips):
    for action, performed in clips.items():
        for _, _, joints, _ in performed:
            assert np.abs(np.diff(joints, axis=0)).max() * FPS < 14, action  # m/s, a fast hand or foot


def test_gaits_have_their_direction_and_speed(clips):
    for _, pelvis, _, _ in clips["walk"]:
        assert pelvis[-1, 2] > 1 and abs(pelvis[-1, 0]) < 0.2 * pelvis[-1, 2] and 0.7 < speed(pelvis) < 1.8
    for _, pelvis, _, _ in clips["run"]:
        assert pelvis[-1, 2] > 3 and speed(pelvis) > 1.8
    for _, pelvis, _, _ in clips["walk_backward"]:
        assert pelvis[-1, 2] < -1
    for action in ("stand", "bow", "squat", "step_in_place", "turn_left", "raise_left_hand"):
        assert all(np.abs(pelvis[-1, [0, 2]]).max() < 0.4 for _, pelvis, _, _ in clips[action])


@pytest.mark.parametrize("action", ["walk_turn", "turn"])
def test_turns_are_to_the_named_side(clips, action):
    assert all(60 < turn_to_left(rotations) < 200 for rotations, *_ in clips[f"{action}_left"])
    assert all(-200 < turn_to_left(rotations) < -60 for rotations, *_ in clips[f"{action}_right"])
    if action == "walk_turn":  # +x is left
        assert all(pelvis[-1, 0] > 0.3 for _, pelvis, *_ in clips["walk_turn_left"])


@pytest.mark.parametrize("action, height", [("raise", 0.2), ("wave", 0.1)])
def test_named_hand_is_raised(clips, action, height):
    for side, hands in (("left", ["left"]), ("right", ["right"]), ("both", SIDES)):
        for _, _, joints, _ in clips[f"{action}_{side}_hand" + "s" * (side == "both")]:
            for hand in SIDES:
                rise = highest(joints, f"{hand}_wrist", f"{hand}_shoulder")
                assert rise > height if hand in hands else rise < -0.3


def test_waving_hand_swings_sideways(clips):
    for _, _, joints, _ in clips["wave_right_hand"]:
        sideways = np.diff(joints[:, JOINT_INDEX["right_wrist"], 0] - joints[:, JOINT_INDEX["right_elbow"], 0])
        assert np.count_nonzero(np.diff(np.sign(sideways[np.abs(sideways) > 1e-3]))) >= 3


@pytest.mark.parametrize("side, other", [SIDES, SIDES[::-1]])
def test_punch_and_kick_use_the_named_side(clips, side, other):
    def reach(joints, joint):
        return (joints[:, JOINT_INDEX[joint], 2] - joints[:, 0, 2]).max()

    for _, _, joints, _ in clips[f"punch_{side}"]:
        assert reach(joints, f"{side}_wrist") > max(0.4, reach(joints, f"{other}_wrist") + 0.1)
    for _, _, joints, _ in clips[f"kick_{side}"]:
        assert reach(joints, f"{side}_ankle") > 0.5 and joints[:, JOINT_INDEX[f"{side}_ankle"], 1].max() > 0.4
        assert joints[:, JOINT_INDEX[f"{other}_ankle"], 1].max() < 0.15


def test_squat_and_bow_bend_the_right_parts(clips):
    for _, pelvis, _, _ in clips["squat"]:
        assert pelvis[:, 1].min() < 0.75 * pelvis[0, 1] and pelvis[-1, 1] > 0.95 * pelvis[0, 1]
    for _, pelvis, joints, _ in clips["bow"]:
        head = joints[:, JOINT_INDEX["head"]] - pelvis
        assert head[:, 2].max() > 0.35 and pelvis[:, 1].min() > 0.9 * pelvis[0, 1]
        assert joints[-1, JOINT_INDEX["head"], 1] > 0.97 * joints[0, JOINT_INDEX["head"], 1]


def test_captions_contain_the_side_and_the_pace(clips):
    for action, performed in clips.items():
        for *_, captions in performed:
            for side, other in (SIDES, SIDES[::-1]):
                if side in action:
                    assert all(side in caption and other not in caption for caption in captions)
            assert not ("quickly" in " ".join(captions) and "slowly" in " ".join(captions))
    paced = [
        (speed(pelvis), caption)
        for seed in range(25)  # clip 0 is a walk
        for _, _, pelvis, captions in synthetic_clips(1, seed)
        for caption in captions
    ]
    slow, quick = (np.mean([v for v, caption in paced if word in caption]) for word in ("slowly", "quickly"))
    assert quick > slow + 0.2
