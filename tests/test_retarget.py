"""Retargeting: files of many exporters give back the motion that went in, and their oddities are understood."""

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from dataset.synthetic import synthetic_clips
from formats.bvh import read_bvh
from formats.import_options import ImportOptions
from formats.joint_names import find_joints
from formats.motion_import import import_motion, retarget_clip
from formats.skeleton_map import SkeletonMap
from motion.resample import FPS
from motion.retarget import Axes, Retargeted
from motion.skeleton import JOINT_INDEX, JOINT_NAMES, PARENTS, forward_kinematics
from motion.source_motion import SourceMotion
from tests.exporters import EXPORTERS, MIXAMO, SIDES, Y_UP, Exporter, t_pose, world_rotations, write_exported
from utils.errors import InputError

ROOT = Path(__file__).parents[1]
SHARED = Path(os.environ.get("SHARED_DIR", ROOT.parent / "shared"))
LIMB_ENDS = [JOINT_INDEX[f"{side}_{joint}"] for side in SIDES for joint in ("knee", "ankle", "elbow", "wrist")]
ENDS = [JOINT_INDEX[f"{side}_{joint}"] for side in SIDES for joint in ("wrist", "ankle", "foot")]


@pytest.fixture(scope="module")
def motions():
    """Rotations and pelvis of one procedural clip of each kind, by kind."""
    clips = synthetic_clips(22, seed=1)
    return {clip[0].rpartition("_")[0]: tuple(array.astype(np.float64) for array in clip[1:3]) for clip in clips}


def degrees(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Angles between rotations (..., 3, 3)."""
    return np.degrees(np.arccos(np.clip((np.einsum("...ab,...ab->...", one, other) - 1) / 2, -1, 1)))


def limb_directions(rotations: np.ndarray, pelvis: np.ndarray) -> np.ndarray:
    joints = forward_kinematics(rotations, pelvis)
    bones = joints[:, LIMB_ENDS] - joints[:, [PARENTS[joint] for joint in LIMB_ENDS]]
    return bones / np.linalg.norm(bones, axis=-1, keepdims=True)


def assert_same_motion(got: Retargeted, rotations: np.ndarray, pelvis: np.ndarray, ends: float = 3.0) -> None:
    """Limbs within 1 degree, wrists and feet within ``ends`` degrees, height within 1 cm."""
    assert len(got.rotations) == len(rotations)
    back, path = got.rotations.astype(np.float64), got.pelvis.astype(np.float64)
    cos = (limb_directions(back, path) * limb_directions(rotations, pelvis)).sum(axis=-1)
    assert np.degrees(np.arccos(np.clip(cos, -1, 1))).max() < 1
    assert degrees(world_rotations(back)[:, ENDS], world_rotations(rotations)[:, ENDS]).max() < ends
    assert np.abs(path[:, 1] - pelvis[:, 1]).max() < 0.01


@pytest.mark.parametrize("kind", ["walk_turn_left", "kick_right", "squat"])
@pytest.mark.parametrize("name", EXPORTERS)
def test_files_of_exporters_give_back_the_motion(tmp_path, motions, name, kind):
    write_exported(tmp_path / "a.bvh", EXPORTERS[name], *motions[kind])
    twists_unknown = name == "smplx"  # a first frame as zero pose hides by how much its limbs are twisted
    assert_same_motion(import_motion(tmp_path / "a.bvh", FPS), *motions[kind], ends=8 if twists_unknown else 3)


@pytest.mark.parametrize("name", ["mixamo", "rokoko", "biped", "unity"])
def test_a_map_of_names_alone_leaves_the_axes_to_the_file(tmp_path, motions, name):
    exporter = EXPORTERS[name]
    write_exported(tmp_path / "a.bvh", exporter, *motions["walk_turn_left"])
    skeleton = SkeletonMap({joint: exporter.names(joint) for joint in JOINT_NAMES})
    assert_same_motion(import_motion(tmp_path / "a.bvh", FPS, skeleton), *motions["walk_turn_left"])


def test_rest_axes_that_do_not_fit_are_not_used(tmp_path, motions):
    """Files with the joint names of a known skeleton and another zero pose."""
    exporter = replace(EXPORTERS["unity"], frames=t_pose)
    write_exported(tmp_path / "a.bvh", exporter, *motions["walk_turn_left"])
    known = SkeletonMap.from_yaml(ROOT / "configs" / "data" / "bandai_skeleton.yaml")
    given = SkeletonMap({joint: exporter.names(joint) for joint in JOINT_NAMES}, known.rest_axes)
    for skeleton in (None, given):
        got = import_motion(tmp_path / "a.bvh", FPS, skeleton)
        assert_same_motion(got, *motions["walk_turn_left"])
        assert any("do not fit" in note for note in got.notes) == (skeleton is given)


@pytest.mark.parametrize("spine", [1, 2, 5])
def test_other_numbers_of_spine_joints(tmp_path, motions, spine):
    clip = exported(tmp_path, motions["walk_turn_left"])
    for number in range(spine - 3):  # more, without a turn of their own
        clip = with_joint_above(clip, clip.names.index("mixamorig:Spine2"), f"mixamorig:Spine1{number}")
    for _ in range(3 - spine):
        clip = without_joint(clip, next(joint for joint, name in enumerate(clip.names) if "Spine" in name))
    assert_same_motion(retarget_clip(clip, FPS), *motions["walk_turn_left"])


def exported(tmp_path: Path, motion, exporter: Exporter = EXPORTERS["mixamo"]) -> SourceMotion:
    write_exported(tmp_path / "a.bvh", exporter, *motion)
    return read_bvh(tmp_path / "a.bvh")


def without_joint(clip: SourceMotion, joint: int) -> SourceMotion:
    """The clip without a joint whose children take over its turn and place, as the zero pose has it."""
    kept = [number for number in range(len(clip.names)) if number != joint]
    rotations, positions, offsets = clip.rotations.copy(), clip.positions.copy(), clip.offsets.copy()
    for child in clip.children(joint):
        rotations[:, child] = rotations[:, joint] @ rotations[:, child]
        positions[:, child] += positions[:, joint]
        offsets[child] += offsets[joint]
    parents = [clip.parents[joint] if parent == joint else parent for parent in clip.parents]
    numbers = {number: place for place, number in enumerate(kept)}
    parents = [numbers.get(parents[number], -1) for number in kept]
    tips = {numbers[number]: tip for number, tip in clip.tips.items()}
    names = [clip.names[number] for number in kept]
    return replace(clip, names=names, parents=parents, offsets=offsets[kept], rotations=rotations[:, kept],
                   positions=positions[:, kept], tips=tips)  # fmt: skip


def with_joint_above(clip: SourceMotion, joint: int, name: str) -> SourceMotion:
    """The clip with a joint that does not turn in the middle of the bone that leads to ``joint``."""
    shift = [number + (number >= joint) for number in range(len(clip.names))]
    parents = [shift[parent] if parent >= 0 else -1 for parent in clip.parents]
    parents = [*parents[:joint], parents[joint], joint, *parents[joint + 1 :]]
    half = replace(clip, offsets=clip.offsets.copy(), positions=clip.positions.copy())
    half.offsets[joint] /= 2
    half.positions[:, joint] /= 2
    return replace(
        clip,
        names=[*clip.names[:joint], name, *clip.names[joint:]],
        parents=parents,
        offsets=np.insert(half.offsets, joint, half.offsets[joint], axis=0),
        positions=np.insert(half.positions, joint, half.positions[:, joint], axis=1),
        rotations=np.insert(clip.rotations, joint, np.eye(3), axis=1),
        tips={shift[number]: tip for number, tip in clip.tips.items()},
    )


def test_root_turned_against_its_children_does_not_tip_the_pelvis(tmp_path, motions):
    """Hips and spine at the root's own place, so that only their turns show that the root is turned."""
    rotations, pelvis = motions["walk_turn_left"]
    clip = exported(tmp_path, (rotations, pelvis))
    back = Rotation.from_euler("x", -90, degrees=True).as_matrix()
    root = clip.names.index("mixamorig:Hips")
    level = clip.positions.copy()
    for child in clip.children(root):
        clip.rotations[:, child] = back.T @ clip.rotations[:, child]
        level[:, child] = level[:, child] * (1, 0, 0)
    clip.rotations[:, root] = clip.rotations[:, root] @ back
    got = retarget_clip(replace(clip, positions=level), FPS)
    error = degrees(world_rotations(got.rotations)[:, 0], rotations[:, 0])
    assert error.max() < 5 and any("turned against the trunk" in note for note in got.notes)


@pytest.mark.parametrize("factor", [0.01, 100.0])
def test_root_positions_in_another_unit_than_the_bones(tmp_path, motions, factor):
    clip = exported(tmp_path, motions["walk_turn_left"])
    clip.positions[:, 0] *= factor
    got = retarget_clip(clip, FPS)
    assert_same_motion(got, *motions["walk_turn_left"])
    assert any("--units" in note for note in got.notes)
    if factor == 0.01:  # metres, where the bones are in centimetres
        assert_same_motion(retarget_clip(clip, FPS, axes=Axes(units="m")), *motions["walk_turn_left"])


def test_person_without_a_root_position_is_put_on_the_floor(tmp_path, motions):
    rotations, pelvis = motions["squat"]
    got = retarget_clip(exported(tmp_path, (rotations, np.zeros_like(pelvis))), FPS)
    lowest = forward_kinematics(got.rotations, got.pelvis)[..., 1].min(axis=1)
    assert abs(np.percentile(lowest, 5)) < 0.01 and any("lifted" in note for note in got.notes)


def test_motion_may_stand_along_another_axis_than_the_zero_pose(tmp_path, motions):
    clip = exported(tmp_path, motions["walk_turn_left"])
    turn = Rotation.from_euler("x", 90, degrees=True).as_matrix()
    clip.rotations[:, 0], clip.positions[:, 0] = turn @ clip.rotations[:, 0], clip.positions[:, 0] @ turn.T
    got = retarget_clip(clip, FPS)
    assert_same_motion(got, *motions["walk_turn_left"])
    assert any("--up" in note for note in got.notes)
    assert_same_motion(retarget_clip(clip, FPS, axes=Axes(up="z")), *motions["walk_turn_left"])
    with pytest.raises(InputError, match=r"stands along .*--up.*--force"):
        write_exported(tmp_path / "a.bvh", EXPORTERS["mixamo"], *motions["walk_turn_left"])
        import_motion(tmp_path / "a.bvh", FPS, options=ImportOptions(up="z"))


def test_first_of_two_people_is_read_whole(tmp_path, motions):
    write_exported(tmp_path / "a.bvh", EXPORTERS["mixamo"], *motions["walk_turn_left"])
    first = read_bvh(tmp_path / "a.bvh")
    frames = len(first.rotations)
    other = exported(tmp_path, tuple(array[:frames] for array in motions["walk_turn_left"]))
    other.rotations[:] = np.eye(3)
    both = replace(
        first,
        names=first.names + other.names,
        parents=first.parents + [parent + len(first.names) if parent >= 0 else -1 for parent in other.parents],
        offsets=np.concatenate((first.offsets, other.offsets)),
        rotations=np.concatenate((first.rotations, other.rotations), axis=1),
        positions=np.concatenate((first.positions, other.positions), axis=1),
    )
    got = retarget_clip(both, FPS)
    assert_same_motion(got, *motions["walk_turn_left"])
    assert "2 skeletons" in got.notes[0]


def test_bones_that_wander_are_followed_in_every_frame(tmp_path, motions):
    """A joint between knee and ankle that bends: the shin goes straight from knee to ankle all the same."""
    exporter = Exporter(MIXAMO, t_pose, Y_UP, twists={"left_knee": "mixamorig:LeftLegTwist"})
    clip = exported(tmp_path, motions["walk_turn_left"], exporter)
    joint = clip.names.index("mixamorig:LeftLegTwist")
    wave = Rotation.from_euler("x", 30 * np.sin(np.arange(len(clip.rotations)) / 5)[:, None], degrees=True)
    clip.rotations[:, joint] = wave.as_matrix()
    got = retarget_clip(clip, FPS)
    _, places = clip.world()
    shin = places[:, clip.names.index("mixamorig:LeftFoot")] - places[:, clip.names.index("mixamorig:LeftLeg")]
    ours = forward_kinematics(got.rotations, got.pelvis)
    ours = ours[:, JOINT_INDEX["left_ankle"]] - ours[:, JOINT_INDEX["left_knee"]]
    cos = (shin * ours).sum(axis=-1) / np.linalg.norm(shin, axis=-1) / np.linalg.norm(ours, axis=-1)
    assert cos.min() > np.cos(np.deg2rad(0.1))


@pytest.mark.parametrize("name", EXPORTERS)
def test_names_tell_which_joint_is_which(tmp_path, motions, name):
    clip = exported(tmp_path, tuple(array[:4] for array in motions["squat"]), EXPORTERS[name])
    joints = find_joints(clip)
    assert {ours: [clip.names[index] for index in entry] for ours, entry in joints.items()} == {
        ours: [EXPORTERS[name].names(ours)] for ours in JOINT_NAMES
    }


def test_missing_names_are_refused_with_advice(tmp_path, motions):
    clip = exported(tmp_path, tuple(array[:4] for array in motions["squat"]))
    clip.names = [name.replace("LeftHand", "Paw") for name in clip.names]
    with pytest.raises(InputError, match=r"left wrist.*--skeleton"):
        find_joints(clip)
