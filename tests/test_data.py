"""Data preparation and windows: BVH, retargeting, captions, the canonical folder, what the tokenizer trains on."""

import json
import re
from itertools import permutations, product

import numpy as np
import pytest
import torch
import yaml
from scipy.spatial.transform import Rotation

import prepare_data
from dataset.captions import CaptionRules, swap_left_right
from dataset.motion_folder import MIRRORED, STATISTICS, VECTORS, MotionFolder, Statistics, split_of
from dataset.synthetic import synthetic_clips
from dataset.windows import WindowDataset
from formats.bvh import AXES, BvhClip, SkeletonMap, read_bvh
from motion.features272 import LAYOUT, features_from_motion, heading_angle, recover_joints_fk, recover_rotations
from motion.resample import FPS
from motion.skeleton import JOINT_INDEX, JOINT_NAMES, MIRROR, PARENTS, REST_OFFSETS, forward_kinematics, mirror
from tests.conftest import ROOT, run_script
from utils.errors import InputError

pytestmark = pytest.mark.filterwarnings("ignore:Gimbal lock")  # of the writer of test files
BANDAI = ROOT.parent / "shared" / "data" / "bandai"
OWN_MAP = {"joints": {name: name for name in JOINT_NAMES}}  # files with our names

HAND_WRITTEN = """HIERARCHY
ROOT Hips
{
  OFFSET 0 90 0
  CHANNELS 6 Xposition Yposition Zposition Zrotation Xrotation Yrotation
  JOINT Spine
  {
    OFFSET 0 10 0
    CHANNELS 3 Yrotation Xrotation Zrotation
    JOINT Head
    {
      OFFSET 0 50 0
      CHANNELS 4 Zposition Yposition Xposition Xrotation
      End Site
      {
        OFFSET 0 20 0
      }
    }
  }
  JOINT Leg
  {
    OFFSET 10 -5 0
    CHANNELS 0
    End Site
    {
      OFFSET 0 -40 0
    }
  }
}
MOTION
Frames: 2
Frame Time: 0.04
1 2 3  0 0 0   0 0 0   7 60 0 0
0 0 0  90 0 0  90 90 0  0 60 0 0
"""


def write_bvh(path, clip, order="ZXY", moving=(0,)):
    """Write a clip with rotation channels in ``order``, and position channels on the joints ``moving``."""
    lines, columns = ["HIERARCHY"], []

    def visit(joint):
        lines.extend([f"{'JOINT' if columns else 'ROOT'} {clip.names[joint]}", "{"])
        lines.append("OFFSET " + " ".join(f"{value:.8f}" for value in clip.offsets[joint]))
        channels = [f"{axis}position" for axis in "XYZ" if joint in moving] + [f"{axis}rotation" for axis in order]
        lines.append(f"CHANNELS {len(channels)} {' '.join(channels)}")
        columns.extend([clip.positions[:, joint]] if joint in moving else [])
        columns.append(Rotation.from_matrix(clip.rotations[:, joint]).as_euler(order, degrees=True))
        children = [child for child, parent in enumerate(clip.parents) if parent == joint]
        for child in children:
            visit(child)
        lines.extend(["}"] if children else ["End Site", "{", "OFFSET 0 0 1", "}", "}"])

    visit(0)
    rows = np.concatenate(columns, axis=1)
    lines += ["MOTION", f"Frames: {len(rows)}", f"Frame Time: {1 / clip.fps:.9f}"]
    lines += [" ".join(f"{value:.7f}" for value in row) for row in rows]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n")


def own_clip(rotations, pelvis, offsets=REST_OFFSETS, fps=FPS):
    """A motion as a BVH clip on our skeleton, in metres, all axes as ours."""
    positions = np.broadcast_to(offsets, (len(pelvis), *offsets.shape)).copy()
    positions[:, 0] = pelvis
    return BvhClip(list(JOINT_NAMES), list(PARENTS), offsets, rotations, positions, fps)


def standing(frames):
    return np.tile(np.eye(3), (frames, 22, 1, 1)), np.tile([0.0, 1.0, 0.0], (frames, 1))


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
    "binary": (b"\xff\xfe\x00\x80" * 50, "cannot be read as a BVH text file"),
    "cut in the hierarchy": (HAND_WRITTEN[:200], "is not a complete BVH file"),
    "cut after a keyword": (HAND_WRITTEN[: HAND_WRITTEN.index("CHANNELS 3") + 8], "is not a complete BVH file"),
    "cut in the motion": (HAND_WRITTEN[:-8], "promises 2 frames of 13 values and holds 23"),
    "no motion": (HAND_WRITTEN[: HAND_WRITTEN.index("MOTION")], "is not a complete BVH file"),
    "empty": ("", "is not a complete BVH file"),
    "no frames": (HAND_WRITTEN[: HAND_WRITTEN.index("1 2 3")].replace("Frames: 2", "Frames: 0"), "promises 0 frames"),
    "nan": (HAND_WRITTEN.replace("1 2 3", "1 nan 3"), "NaN or infinite"),
    "a word": (HAND_WRITTEN.replace("1 2 3", "1 two 3"), "is not a complete BVH file"),
    "frame time": (HAND_WRITTEN.replace("0.04", "nan"), "frame time is nan"),
    "channel": (HAND_WRITTEN.replace("Yrotation Xrotation", "Yrotation Wrotation"), "unknown channels Wrotation"),
    "channels at an end": (HAND_WRITTEN.replace("OFFSET 0 20 0", "CHANNELS 1 Xrotation"), "not a complete BVH file"),
    "brace first": (HAND_WRITTEN.replace("ROOT Hips", ""), "is not a complete BVH file"),
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
    with pytest.raises(InputError, match=r"none\.bvh cannot be read"):
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
    back, path = skeleton.retarget(read_bvh(tmp_path / "a.bvh"), FPS)
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
    ours = forward_kinematics(*SkeletonMap(**OWN_MAP).retarget(read_bvh(tmp_path / "a.bvh"), FPS))
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
    back, _ = skeleton.retarget(read_bvh(tmp_path / "a.bvh"), FPS)
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
    rotations, pelvis = SkeletonMap(**OWN_MAP).retarget(read_bvh(tmp_path / "a.bvh"), FPS)
    expected = motion(np.arange(len(pelvis)) / FPS)
    assert len(pelvis) == 61
    np.testing.assert_allclose(rotations, expected[0], atol=1e-4)
    np.testing.assert_allclose(pelvis, expected[1], atol=1e-4)


def test_unknown_joints_name_what_the_file_has(tmp_path):
    (tmp_path / "a.bvh").write_text(HAND_WRITTEN)
    with pytest.raises(InputError, match="no joint head, left_ankle.*it has Hips, Spine, Head, Leg"):
        SkeletonMap(**OWN_MAP).retarget(read_bvh(tmp_path / "a.bvh"), FPS)


@pytest.mark.parametrize(
    "content, words",
    [
        (None, "is not a skeleton map"),
        (b"\xff\xfe\x00", "is not a skeleton map"),
        ("joints: [", "is not a skeleton map"),
        ("just a text", "is not a skeleton map"),
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
    return features_from_motion(*skeleton.retarget(read_bvh(path), FPS))


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


# --- Captions


def test_left_and_right_swap_as_words_only():
    text = "Left, RIGHT and left; leftover copyright Right-handed"
    assert swap_left_right(text) == "Right, LEFT and right; leftover copyright Left-handed"
    assert swap_left_right(swap_left_right(text)) == text


RULES = {
    "clips": {"special": ["a person waves", "someone waves"]},
    "pattern": r"(?P<content>[a-z]+)_(?P<style>[a-z]+)_\d+",
    "contents": {"walk": ["walks", "strolls", "goes"]},
    "styles": {"glad": ["gladly", "with joy"], "plain": ["in the usual way", "as usual"]},
    "templates": ["a person {content} {style}", "someone {content} {style}", "{style}, he {content}"],
    "templates_without_style": ["a person {content}"],
    "styles_without_mention": ["plain"],
    "content_overrides": {"run_glad_9": "walk"},
}


def test_captions_come_from_labels_and_stay_the_same(tmp_path):
    (tmp_path / "captions.yaml").write_text(yaml.safe_dump(RULES))
    rules = CaptionRules.from_yaml(tmp_path / "captions.yaml")
    captions = rules.captions("walk_glad_1", 3)
    assert len(set(captions)) == 3 and captions == CaptionRules(**RULES).captions("walk_glad_1", 3)
    assert all(re.search("walks|strolls|goes", text) and re.search("gladly|with joy", text) for text in captions)
    assert any("usual" not in text for text in rules.captions("walk_plain_1", 30))
    assert rules.captions("special", 8) == RULES["clips"]["special"] and len(rules.captions("special", 1)) == 1
    assert re.search("walks|strolls|goes", rules.captions("run_glad_9", 1)[0])
    for clip_id, words in (("other", "says nothing of the clip other"), ("fly_glad_1", "no phrases for fly glad")):
        with pytest.raises(InputError, match=words):
            rules.captions(clip_id, 3)


@pytest.mark.parametrize(
    "content, words",
    [
        (None, "is not a captions file"),
        (b"\xff\xfe\x00", "is not a captions file"),
        ("clips: [", "is not a captions file"),
        ("just a text", "is not a captions file"),
        ({"clip": {}}, "clip"),
        ({"clips": ["a"]}, "is not a captions file"),
        ({"clips": {"walk": "a person walks"}}, r"clips\.walk .* list of texts"),
        ({"clips": {"walk": []}}, r"clips\.walk .* list of texts"),
        ({**RULES, "styles": {"glad": "gladly"}}, r"styles\.glad .* list of texts"),
        ({**RULES, "contents": {"walk": [1, 2]}}, r"contents\.walk .* list of texts"),
        ({**RULES, "pattern": "(?P<content>.*"}, "is not a captions file"),
        ({**RULES, "pattern": "(?P<content>.*)"}, "lacks the group content or style"),
        ({**RULES, "templates": ["a person {what}"]}, "a person {what}"),
    ],
)
def test_faulty_captions_files_are_refused(tmp_path, content, words):
    path = tmp_path / "captions.yaml"
    if content is not None:
        path.write_bytes(content if isinstance(content, bytes) else yaml.safe_dump(content).encode())
    with pytest.raises(InputError, match=words) as caught:
        CaptionRules.from_yaml(path)
    assert "\n" not in str(caught.value)


# --- prepare_data.py bvh


def clip_name(stem, split):
    return next(name for name in (f"{stem} {number}" for number in range(1000)) if split_of(name) == split)


GOOD = {clip_name("walk left", "train"): "walk_turn_left", clip_name("wave", "train"): "wave_right_hand",
        clip_name("kick", "test"): "kick_left"}  # fmt: skip
CAPTIONS = ["A person moves to the left, right hand up.", "someone  does it", "", "Left!"]


@pytest.fixture(scope="module")
def prepared(tmp_path_factory, motions):
    """(source folder, data folder, what was printed) of three good files, in subfolders, among many bad ones."""
    root = tmp_path_factory.mktemp("bvh")
    source, out = root / "source", root / "data"
    for name, kind in GOOD.items():
        write_bvh(source / kind / f"{name}.bvh", own_clip(*motions[kind]))
        (source / kind / f"{name}.txt").write_text("\n".join(CAPTIONS))
    example = source / "walk_turn_left" / f"{next(iter(GOOD))}.bvh"
    text = example.read_text()
    bad = {
        "binary": b"\x80\xff" * 100,
        "truncated": text[: int(0.7 * len(text))].encode(),
        "half_header": text[:300].encode(),
        "nan": re.sub(r"(Frame Time.*\n)\S+", r"\1nan", text).encode(),
        "no_frames": (text[: text.index("Frames:")] + "Frames: 0\nFrame Time: 0.033333\n").encode(),
        "other_joints": text.replace("left_wrist", "LeftHand").encode(),
        "channels": text.replace("Zrotation", "Wrotation", 1).encode(),
        "silent": text.encode(),
    }
    for name, content in bad.items():
        (source / f"{name}.bvh").write_bytes(content)
        if name != "silent":
            (source / f"{name}.txt").write_text("a person walks\n")
    write_bvh(source / "short.bvh", own_clip(*(array[:15] for array in motions["squat"])))
    (source / "short.txt").write_text("a person squats\n")
    (root / "map.yaml").write_text(yaml.safe_dump(OWN_MAP))
    output = run_script("prepare_data.py", "bvh", "--source", source, "--out", out, "--skeleton", root / "map.yaml",
                        "--workers", 2)  # fmt: skip
    return source, out, output


def test_rejected_files_are_reported_with_reasons_and_the_others_go_on(prepared):
    source, out, output = prepared
    report = json.loads((out / "report.json").read_text())
    reasons = {
        "binary": "cannot be read as a BVH text file",
        "truncated": "promises",
        "half_header": "not a complete BVH file",
        "nan": "NaN",
        "no_frames": "promises 0 frames",
        "other_joints": "no joint left_wrist .*LeftHand",
        "channels": "unknown channels Wrotation",
        "silent": r"no caption; write silent\.txt beside it",
        "short": "15 frames at 30 fps, fewer than --min_frames 16",
    }
    assert list(report["rejected"]) == sorted(reasons)
    for name, reason in reasons.items():
        assert re.search(reason, report["rejected"][name]), report["rejected"][name]
        assert f"rejected: {report['rejected'][name]}" in output
    assert report["clips"] == {"train": 4, "val": 0, "test": 1} and report["fps"] == FPS
    assert "9 files rejected" in output


def test_prepared_folder_reads_back_as_the_motion_that_went_in(prepared, motions):
    _, out, _ = prepared
    folder = MotionFolder(out)
    trained = sorted(name for name in GOOD if split_of(name) == "train")
    assert folder.ids("train") == sorted([*trained, *(name + MIRRORED for name in trained)])
    assert folder.ids("val", required=False) == [] and len(folder.ids("test")) == 1
    for name, kind in GOOD.items():
        features = folder.motion(name)
        expected = features_from_motion(*(array.astype(np.float64) for array in motions[kind]))
        assert features.dtype == np.float32
        np.testing.assert_allclose(features, expected, atol=2e-4)
        assert folder.captions(name) == [line for line in CAPTIONS if line]


def test_mirrored_copies_swap_sides_in_motion_and_captions(prepared):
    _, out, _ = prepared
    folder = MotionFolder(out)
    for name in (name for name in GOOD if split_of(name) == "train"):
        original, mirrored = folder.motion(name), folder.motion(name + MIRRORED)
        expected = mirror(*recover_rotations(original))
        rotations, pelvis = recover_rotations(mirrored)
        np.testing.assert_allclose(rotations, expected[0], atol=1e-3)
        np.testing.assert_allclose(pelvis[:, [0, 2]], expected[1][:, [0, 2]], atol=1e-2)
        left = recover_joints_fk(original) * [-1, 1, 1]
        assert np.abs(recover_joints_fk(mirrored)[:, MIRROR] - left).max() < 0.1  # the rest skeleton is not symmetric
        assert folder.captions(name + MIRRORED)[0] == "A person moves to the right, left hand up."
    assert not list((out / VECTORS).glob("kick*mirrored*"))  # training clips alone


def test_statistics_are_those_of_the_training_clips_with_one_std_a_block(prepared):
    _, out, _ = prepared
    folder = MotionFolder(out)
    everything = np.concatenate([folder.motion(name) for name in folder.ids("train")]).astype(np.float64)
    mean, std = folder.mean_std()
    np.testing.assert_allclose(mean, everything.mean(axis=0), atol=1e-5)
    for block in LAYOUT.values():
        np.testing.assert_allclose(std[block], everything[:, block].std(axis=0).mean(), rtol=1e-3)


def test_statistics_do_not_depend_on_how_clips_are_cut():
    features = np.random.default_rng(0).normal(3, 2, (90, 272))
    whole, parts = Statistics(), Statistics()
    whole.add(90, features.sum(axis=0), (features**2).sum(axis=0))
    for part in np.split(features, [10, 37]):
        parts.add(len(part), part.sum(axis=0), (part**2).sum(axis=0))
    for one, other in zip(whole.mean_std(), parts.mean_std(), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5)
    constant = Statistics()
    constant.add(2, np.full(272, 2.0), np.full(272, 2.0))
    assert (constant.mean_std()[1] > 0).all()


def test_split_is_fixed_by_the_name_and_shared_with_the_mirrored_copy():
    known = {"run_00045": "val", "jump_00053": "test", "walk_00088": "val", "walk_00000": "train"}
    assert {name: split_of(name) for name in known} == known
    names = [f"{number:06d}" for number in range(20000)]
    splits = [split_of(name) for name in names]
    assert [split_of(name + MIRRORED) for name in names] == splits
    assert splits.count("val") / 20000 == pytest.approx(0.03, abs=0.005)
    assert splits.count("test") / 20000 == pytest.approx(0.05, abs=0.005)


def test_captions_file_gives_the_captions_or_the_reason_of_a_rejection(prepared, tmp_path):
    source, _, _ = prepared
    file = next((source / "wave_right_hand").glob("*.bvh"))

    def convert(rules):
        return prepare_data.convert_bvh(file, tmp_path / "out", SkeletonMap(**OWN_MAP), rules, False, 2, 16)

    prepare_data.make_folder(tmp_path / "out")
    assert [written.clip_id for written in convert(CaptionRules({file.stem: ["one", "two", "three"]}))] == [file.stem]
    assert (tmp_path / "out" / "texts" / f"{file.stem}.txt").read_text() == "one\ntwo\n"
    rejected = convert(CaptionRules(**RULES))
    assert "says nothing of the clip" in rejected[0].rejected
    with pytest.raises(InputError, match="no usable training clip came out of 1 files"):
        prepare_data.finish_folder(tmp_path / "out", rejected)


def test_bad_command_lines_end_with_one_sentence(refused, prepared, tmp_path):
    source, _, _ = prepared
    (tmp_path / "file").write_text("")
    (tmp_path / "faulty.yaml").write_text("clips: 3")
    twins = tmp_path / "twins"
    for folder in ("a", "b"):
        (twins / folder).mkdir(parents=True)
        (twins / folder / "walk.bvh").write_text(HAND_WRITTEN)
    bvh, out = ("prepare_data.py", "bvh", "--source"), ("--out", tmp_path / "out")
    assert "none holds no .bvh file" in refused(*bvh, tmp_path / "none", *out)
    assert "walk.bvh more than once" in refused(*bvh, twins, *out)
    assert "is not a captions file" in refused(*bvh, source, *out, "--captions", tmp_path / "faulty.yaml")
    assert "is not a skeleton map" in refused(*bvh, source, *out, "--skeleton", tmp_path / "none.yaml")
    assert "cannot write to" in refused(*bvh, source, "--out", tmp_path / "file" / "data")
    assert "min_frames" in refused(*bvh, source, *out, "--min-frames", 0)
    assert "--colour" in refused("prepare_data.py", "synthetic", *out, "--colour", "red")
    assert "out" in refused("prepare_data.py", "synthetic")
    assert "cannot write to" in refused("prepare_data.py", "synthetic", "--out", tmp_path / "file")
    assert not (tmp_path / "out").exists()


# --- The canonical folder


def test_humanml3d_caption_lines(small_folder):
    clip_id = small_folder.ids("train")[0]
    lines = ["a plain caption", "a person walks#a/DET person/NOUN walk/VERB#0.0#0.0", "he walks#he/PRON#nan#nan",
             "a part of it#a/DET part/NOUN#1.5#3.0", "", "  #x#0.0#0.0", "with tokens only#with/ADP"]  # fmt: skip
    (small_folder.path / "texts" / f"{clip_id}.txt").write_text("\n".join(lines))
    whole = ["a plain caption", "a person walks", "he walks", "with tokens only"]
    assert small_folder.captions(clip_id) == whole
    assert small_folder.spans(clip_id) == {None: whole, (1.5, 3.0): ["a part of it"]}
    (small_folder.path / "texts" / f"{clip_id}.txt").write_text("he walks\nhe runs#he/PRON#soon#3.0\n")
    with pytest.raises(InputError, match=rf"line 2 of .*{clip_id}\.txt has soon#3\.0 where from#to in seconds"):
        small_folder.captions(clip_id)


def test_faults_of_a_folder_are_named(small_folder):
    path, clip_id = small_folder.path, small_folder.ids("train")[0]
    with pytest.raises(InputError, match="holds no motion_data"):
        MotionFolder(path / "texts")
    with pytest.raises(InputError, match=r"split/val\.txt is empty"):
        small_folder.ids("val")
    with pytest.raises(InputError, match=r"split/other\.txt is missing"):
        small_folder.ids("other")
    with pytest.raises(InputError, match=r"none\.txt is missing"):
        small_folder.captions("none")
    (path / "texts" / f"{clip_id}.txt").write_bytes(b"\xff\xfe")
    with pytest.raises(InputError, match=f"{clip_id}.txt cannot be read as UTF-8"):
        small_folder.captions(clip_id)
    (path / "split" / "val.txt").write_text("gone\n")
    with pytest.raises(InputError, match="names gone, which has no"):
        small_folder.ids("val")
    np.save(path / STATISTICS / "std.npy", np.zeros(272))
    with pytest.raises(InputError, match=r"std\.npy is not 272 finite values"):
        small_folder.mean_std()
    (path / STATISTICS / "mean.npy").unlink()
    with pytest.raises(InputError, match=r"mean\.npy cannot be read"):
        small_folder.mean_std()


FAULTS = {
    "half-written": (lambda file: file.write_bytes(file.read_bytes()[:5000]), "cannot be read as a NumPy array"),
    "empty": (lambda file: file.write_bytes(b""), "cannot be read as a NumPy array"),
    "pickled": (lambda file: np.save(file, np.array([{}], dtype=object)), "cannot be read as a NumPy array"),
    "width": (lambda file: np.save(file, np.zeros((40, 263), np.float32)), r"263\) where \(frames, 272\) is needed"),
    "no frames": (lambda file: np.save(file, np.zeros((0, 272), np.float32)), "holds no frames"),
    "NaN": (lambda file: np.save(file, np.full((40, 272), np.nan, np.float32)), "NaN or infinite"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_unfit_feature_files_are_named(small_folder, fault):
    damage, words = FAULTS[fault]
    clip_id = small_folder.ids("train")[2]
    file = small_folder.motion_file(clip_id)
    damage(file)
    with pytest.raises(InputError, match=words) as caught:
        small_folder.motion(clip_id)
    assert str(file) in str(caught.value)
    with pytest.raises(InputError, match=words) as caught:
        windows = WindowDataset(small_folder, "train", 32)
        for number in range(len(windows)):
            windows[number]
    assert str(file) in str(caught.value)


# --- Windows


def test_windows_have_the_asked_shape_and_hold_parts_of_their_clips(small_folder):
    windows = WindowDataset(small_folder, "train", 32)
    clips = [small_folder.motion(name) for name in small_folder.ids("train")]
    assert len(windows) == sum(len(clip) // 32 for clip in clips)
    starts = set()
    for number in range(len(windows)):
        _, features, valid = windows[number]
        assert features.shape == (32, 272) and features.dtype == torch.float32 and valid == 32
        found = [
            (index, start)
            for index, clip in enumerate(clips)
            for start in np.flatnonzero((clip[: len(clip) - 31] == features[0].numpy()).all(axis=1))
            if np.array_equal(clip[start : start + 32], features)
        ]
        assert found
        starts.update(found)
    assert len(starts) > 0.8 * len(windows)


def test_short_clips_are_padded_with_zeros(small_folder):
    windows = WindowDataset(small_folder, "train", 500)
    assert len(windows) == 7
    for number, clip_id in enumerate(small_folder.ids("train")):
        _, features, valid = windows[number]
        clip = small_folder.motion(clip_id)
        assert valid == len(clip) and features.shape == (500, 272)
        np.testing.assert_array_equal(features[:valid], clip)
        assert not features[valid:].any()


def test_an_item_number_decides_the_window(small_folder):
    one, other = (WindowDataset(small_folder, "train", 32) for _ in range(2))
    for number in (0, 3, len(one) + 3, 5 * len(one) + 3):
        assert one[number][0] == other[number][0] and torch.equal(one[number][1], other[number][1])
    assert len({one[3 + epoch * len(one)][1].numpy().tobytes() for epoch in range(6)}) > 2
