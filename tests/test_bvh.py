"""BVH files: reading, retargeting, and the real files of the Bandai-Namco data set."""

from itertools import permutations, product

import numpy as np
import pytest
import yaml
from scipy.spatial.transform import Rotation

from dataset.synthetic import synthetic_clips
from formats.bvh import read_bvh
from formats.motion_import import retarget_clip
from formats.skeleton_map import AXES, SkeletonMap
from motion.features272 import features_from_motion, heading_angle, recover_joints_fk, recover_rotations
from motion.resample import FPS
from motion.skeleton import JOINT_INDEX, JOINT_NAMES, PARENTS, REST_OFFSETS, forward_kinematics
from tests.bvh_files import HAND_WRITTEN, OWN_MAP, own_clip, standing, write_bvh
from tests.conftest import ROOT
from utils.errors import InputError

pytestmark = pytest.mark.filterwarnings("ignore:Gimbal lock")  # of the writer of test files
BANDAI = ROOT.parent / "shared" / "data" / "bandai"


@pytest.fixture(scope="module")
def motions():
    """Rotations and pelvis of one procedural clip a kind, by kind."""
    return {name.rpartition("_")[0]: (rotations, pelvis) for name, rotations, pelvis, _ in synthetic_clips(22, seed=1)}


# --- BVH files


def test_hand_written_file_has_known_kinematics(tmp_path):
    (tmp_path / "a.bvh").write_text(HAND_WRITTEN)
    clip = read_bvh(tmp_path / "a.bvh")
    assert clip.names == ["Hips", "Spine", "Head", "Leg"] and clip.parents == [-1, 0, 1, 0]
    assert clip.fps == pytest.approx(25)
    rotations, positions = clip.world()
    np.testing.assert_allclose(positions[0], [[1, 2, 3], [1, 12, 3], [1, 72, 10], [11, -3, 3]], atol=1e-9)
    # Frame 1: Rz(90) on the hips; the spine turns by Ry(90) Rx(90), in the order of its channels.
    np.testing.assert_allclose(positions[1], [[0, 0, 0], [-10, 0, 0], [-10, 60, 0], [5, 10, 0]], atol=1e-9)
    np.testing.assert_allclose(rotations[1, 3], [[0, -1, 0], [1, 0, 0], [0, 0, 1]], atol=1e-9)


@pytest.mark.parametrize("order", ["".join(order) for order in permutations("XYZ")])
def test_any_channel_order_and_moving_joints_are_read(tmp_path, motions, order):
    clip = own_clip(*motions["kick_left"])
    clip.positions[:, 5] += np.sin(np.arange(len(clip.positions)))[:, None]
    write_bvh(tmp_path / "a.bvh", clip, order, moving=(0, 5))
    read = read_bvh(tmp_path / "a.bvh")
    from_file = [read.names.index(name) for name in clip.names]
    for ours, theirs in zip(clip.world(), read.world(), strict=True):
        np.testing.assert_allclose(theirs[:, from_file], ours, atol=1e-5)


BROKEN = {
    "binary": (b"\xff\xfe\x00\x80" * 50, "complete BVH file"),
    "cut in the hierarchy": (HAND_WRITTEN[:200], "complete BVH file"),
    "cut after a keyword": (HAND_WRITTEN[: HAND_WRITTEN.index("CHANNELS 3") + 8], "complete BVH file"),
    "cut in the motion": (HAND_WRITTEN[:-8], "promises 2 frames of 13 values and holds 23"),
    "no motion": (HAND_WRITTEN[: HAND_WRITTEN.index("MOTION")], "no Frames and Frame Time"),
    "empty": ("", "complete BVH file"),
    "no frames": (HAND_WRITTEN[: HAND_WRITTEN.index("1 2 3")].replace("Frames: 2", "Frames: 0"), "promises 0 frames"),
    "nan": (HAND_WRITTEN.replace("1 2 3", "1 nan 3"), "NaN or infinite"),
    "endless bone": (HAND_WRITTEN.replace("OFFSET 0 20 0", "OFFSET 0 1e999 0"), "NaN or infinite"),
    "a word": (HAND_WRITTEN.replace("1 2 3", "1 two 3"), "complete BVH file"),
    "frame time": (HAND_WRITTEN.replace("0.04", "nan"), "frame time is nan"),
    "channel": (HAND_WRITTEN.replace("Yrotation Xrotation", "Yrotation Wrotation"), "unknown channels Wrotation"),
    "channels at an end": (HAND_WRITTEN.replace("OFFSET 0 20 0", "CHANNELS 1 Xrotation"), "complete BVH file"),
    "brace first": (HAND_WRITTEN.replace("ROOT Hips", ""), "complete BVH file"),
}


@pytest.mark.parametrize("fault", BROKEN)
def test_broken_files_are_named_with_the_fault(tmp_path, fault):
    content, words = BROKEN[fault]
    path = tmp_path / "broken.bvh"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(InputError, match=words) as caught:
        read_bvh(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(InputError, match=r"none\.bvh: the file is missing"):
        read_bvh(tmp_path / "none.bvh")


# --- Retargeting


@pytest.mark.parametrize("kind", ["walk_turn_left", "kick_right", "squat", "wave_left_hand"])
def test_motion_in_another_convention_comes_back(tmp_path, motions, kind):
    """Other joint names, axes, length unit and body size; the same motion."""
    rotations, pelvis = (array.astype(np.float64) for array in motions[kind])
    letters = [
        axes for axes in product(AXES, repeat=3)
        if round(np.linalg.det(np.array([AXES[letter] for letter in axes], dtype=float))) == 1
    ]  # fmt: skip
    assert len(letters) == 24
    axes = {name: letters[7 * joint % 24] for joint, name in enumerate(JOINT_NAMES)}
    rest = np.array([np.array([AXES[letter] for letter in axes[name]], dtype=float).T for name in JOINT_NAMES])
    parent_rest = np.array([np.eye(3) if parent < 0 else rest[parent] for parent in PARENTS])
    size = 125.0  # centimetres, and a body larger by a quarter
    offsets = size * (parent_rest.transpose(0, 2, 1) @ REST_OFFSETS[:, :, None])[..., 0]
    clip = own_clip(parent_rest.transpose(0, 2, 1) @ rotations @ rest, size * pelvis, offsets)
    clip.names = [f"rig:{name}" for name in JOINT_NAMES]
    write_bvh(tmp_path / "a.bvh", clip, "YZX")
    skeleton = SkeletonMap(
        joints={name: f"rig:{name}" for name in JOINT_NAMES},
        rest_axes={f"rig:{name}": {"axes": list(axes[name])} for name in JOINT_NAMES},
    )
    back, path = retarget_clip(read_bvh(tmp_path / "a.bvh"), FPS, skeleton)[:2]
    assert back.dtype == path.dtype == np.float32
    np.testing.assert_allclose(back, rotations, atol=1e-5)
    np.testing.assert_allclose(path, pelvis, atol=1e-4)


def test_without_rest_axes_the_zero_pose_is_the_t_pose_and_its_bones_are_followed(tmp_path):
    """A file whose limbs are straight in the T-pose, with a hips joint lower than ours."""
    offsets = REST_OFFSETS.astype(np.float64)
    for side, sign in (("left", 1), ("right", -1)):
        for joint, direction in (("knee", [0, -1, 0]), ("ankle", [0, -1, 0]), ("elbow", [sign, 0, 0])):
            offsets[JOINT_INDEX[f"{side}_{joint}"]] = 0.5 * np.array(direction)
        offsets[JOINT_INDEX[f"{side}_wrist"]] = [0.3 * sign, 0, 0]
    rotations, pelvis = standing(4)
    turned = Rotation.from_euler("y", 40, degrees=True).as_matrix()
    rotations[:, 0] = turned
    write_bvh(tmp_path / "a.bvh", own_clip(rotations, pelvis, offsets))
    ours = forward_kinematics(*retarget_clip(read_bvh(tmp_path / "a.bvh"), FPS, SkeletonMap(**OWN_MAP))[:2])
    for name in ("left_elbow", "right_wrist", "left_knee", "right_ankle"):
        joint = JOINT_INDEX[name]
        bone = ours[:, joint] - ours[:, PARENTS[joint]]
        direction = turned @ offsets[joint] / np.linalg.norm(offsets[joint])
        np.testing.assert_allclose(bone / np.linalg.norm(bone, axis=-1, keepdims=True), [direction] * 4, atol=1e-5)
        np.testing.assert_allclose(np.linalg.norm(bone, axis=-1), np.linalg.norm(REST_OFFSETS[joint]), rtol=1e-5)


def test_two_source_joints_are_averaged(tmp_path):
    rotations, pelvis = standing(3)
    rotations[:, JOINT_INDEX["spine1"]] = Rotation.from_euler("x", 60, degrees=True).as_matrix()
    write_bvh(tmp_path / "a.bvh", own_clip(rotations, pelvis))
    skeleton = SkeletonMap(OWN_MAP["joints"] | {"spine1": ["pelvis", "spine1"]})
    back, _ = retarget_clip(read_bvh(tmp_path / "a.bvh"), FPS, skeleton)[:2]
    half = Rotation.from_euler("x", 30, degrees=True).as_matrix()
    for joint in ("spine1", "spine2"):  # spine2 makes up for the other half
        np.testing.assert_allclose(back[:, JOINT_INDEX[joint]], [half] * 3, atol=1e-5)


@pytest.mark.parametrize("fps", [24, 30, 60, 120])
def test_any_frame_rate_becomes_30(tmp_path, fps):
    def motion(times):  # two metres and 120 degrees a second
        rotations, pelvis = standing(len(times))
        rotations[:, 0] = Rotation.from_euler("y", 120 * times[:, None], degrees=True).as_matrix()
        return rotations, pelvis + np.outer(2 * times, [0, 0, 1])

    write_bvh(tmp_path / "a.bvh", own_clip(*motion(np.arange(2 * fps + 1) / fps), fps=fps))
    rotations, pelvis = retarget_clip(read_bvh(tmp_path / "a.bvh"), FPS, SkeletonMap(**OWN_MAP))[:2]
    expected = motion(np.arange(len(pelvis)) / FPS)
    assert len(pelvis) == 61
    np.testing.assert_allclose(rotations, expected[0], atol=1e-4)
    np.testing.assert_allclose(pelvis, expected[1], atol=1e-4)


def test_unknown_joints_name_what_the_file_has(tmp_path):
    (tmp_path / "a.bvh").write_text(HAND_WRITTEN)
    with pytest.raises(InputError, match="no joint head, left_ankle.*it has Hips, Spine, Head, Leg"):
        retarget_clip(read_bvh(tmp_path / "a.bvh"), FPS, SkeletonMap(**OWN_MAP))[:2]


@pytest.mark.parametrize(
    "content, words",
    [
        (None, "the file is missing"),
        (b"\xff\xfe\x00", "cannot be read as YAML"),
        (b"joints: [", "it is not YAML"),
        ("just a text", "no table with the key joints"),
        ({**OWN_MAP, "scale": 2}, "scale"),
        ({"joints": {"pelvis": "Hips"}}, "exactly the 22 joints.*head"),
        ({**OWN_MAP, "joints": {**OWN_MAP["joints"], "tail": "Tail"}}, "check tail"),
        ({**OWN_MAP, "joints": {**OWN_MAP["joints"], "neck": None}}, "gives None for neck"),
        ({**OWN_MAP, "rest_axes": {"head": {"axes": ["U", "R", "X"]}}}, "rest_axes of head"),
        ({**OWN_MAP, "rest_axes": {"head": {"axes": ["L", "U", "B"]}}}, "right-handed"),
        ({**OWN_MAP, "rest_axes": {"head": {"axis": ["L", "U", "F"]}}}, "axis"),
    ],
)
def test_faulty_skeleton_maps_are_refused(tmp_path, content, words):
    path = tmp_path / "map.yaml"
    if content is not None:
        path.write_bytes(content if isinstance(content, bytes) else yaml.safe_dump(content).encode())
    with pytest.raises(InputError, match=words) as caught:
        SkeletonMap.from_yaml(path)
    assert "\n" not in str(caught.value)


# --- The real files, where they lie beside the repository

needs_bandai = pytest.mark.skipif(not BANDAI.is_dir(), reason=f"the Bandai-Namco files are not in {BANDAI}")


def bandai_features(name):
    skeleton = SkeletonMap.from_yaml(ROOT / "configs" / "data" / "bandai_skeleton.yaml")
    path = next(BANDAI.rglob(f"{name}.bvh"))
    return features_from_motion(*retarget_clip(read_bvh(path), FPS, skeleton)[:2])


@needs_bandai
def test_real_walk_goes_forward_at_walking_speed_with_the_feet_on_the_floor():
    joints = recover_joints_fk(bandai_features("dataset-2_walk_normal_001"))
    pelvis = joints[:, 0, [0, 2]]
    assert 0.9 < np.linalg.norm(np.diff(pelvis, axis=0), axis=1).mean() * FPS < 1.4
    assert pelvis[-1, 1] > 5 * abs(pelvis[-1, 0])
    lower_foot = joints[:, [JOINT_INDEX["left_foot"], JOINT_INDEX["right_foot"]], 1].min(axis=1)
    assert np.quantile(lower_foot, 0.9) < 0.08


@needs_bandai
@pytest.mark.parametrize("side, sign", [("left", 1), ("right", -1)])
def test_real_turn_goes_to_its_side(side, sign):
    rotations, _ = recover_rotations(bandai_features(f"dataset-2_walk-turn-{side}_normal_001"))
    heading = np.unwrap(heading_angle(rotations[:, 0]))
    assert 60 < sign * np.degrees(heading[-1] - heading[0]) < 120


@needs_bandai
@pytest.mark.parametrize("side, other", [("left", "right"), ("right", "left")])
def test_real_raised_hand_is_the_named_one(side, other):
    joints = recover_joints_fk(bandai_features(f"dataset-2_raise-up-{side}-hand_normal_001"))
    rise = {
        hand: (joints[:, JOINT_INDEX[f"{hand}_wrist"], 1] - joints[:, JOINT_INDEX[f"{hand}_shoulder"], 1]).max()
        for hand in (side, other)
    }
    assert rise[side] > 0.15 and rise[other] < -0.2
