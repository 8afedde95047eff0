"""Constraints: from data to tracks in world axes, refusals, files, and errors of motions."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import yaml

from control.checks import check_constraints
from control.constraints import Constraints, Pin, RootPath, Waypoint
from control.files import parse_constraints, read_constraints
from control.paths import distances
from control.poses import Keep, Keyframe, MotionFrames
from control.report import measure
from control.track import PATH_STEP
from motion.clip import Clip
from motion.features272 import heading_angle
from motion.rotation import axis_angle_to_matrix, y_rotation
from motion.skeleton import JOINT_INDEX, JOINTS, forward_kinematics
from motion.smplx import motion_to_smplx85
from utils.errors import InputError

DOCS = (Path(__file__).parent.parent / "docs" / "control.md").read_text()
HEIGHT = 0.93
STANDING = [0.0] * 73 + [HEIGHT] + [0.0] * 11  # a row of smplx_85


def clip_of(seconds: float = 3.0) -> Clip:
    """Return a motion that leads from (1, 2) toward +x at 1 m/s, faces 30 degrees and lifts its left arm."""
    frames = round(seconds * 30) + 1
    rotations = np.tile(np.eye(3), (frames, JOINTS, 1, 1))
    rotations[:, 0] = y_rotation(np.full(frames, np.radians(30)))
    arm = np.stack([np.zeros(frames), np.zeros(frames), np.linspace(0, 1, frames)], axis=-1)
    rotations[:, JOINT_INDEX["left_shoulder"]] = axis_angle_to_matrix(arm)
    pelvis = np.stack([1 + np.arange(frames) / 30, np.full(frames, 5.0), np.full(frames, 2.0)], axis=-1)  # not grounded
    return Clip(motion_to_smplx85(rotations, pelvis))


@pytest.fixture(scope="module")
def clip() -> Clip:
    return clip_of()


# --- From constraints to tracks


def test_placed_keyframe_gives_the_pose_in_world_axes(clip):
    track = Constraints(keyframes=(Keyframe(1.0, MotionFrames.of(clip, 45), (3, -1), 90),)).track(60)
    assert track.root_known.nonzero().tolist() == [[30]] and track.root[30].tolist() == [3, -1]
    assert track.heading[30] == pytest.approx(np.pi / 2) and track.rotations_known[30].all()
    joints = track.joints[30].numpy()
    assert track.joints_known[30].all() and joints[:, 1].min() == pytest.approx(0, abs=1e-6)  # grounded
    assert joints[JOINT_INDEX["left_shoulder"], 2] < -1 < joints[JOINT_INDEX["right_shoulder"], 2]  # faces +x
    assert heading_angle(track.rotations[30, 0]) == pytest.approx(0, abs=1e-6)


def test_free_keyframe_gives_the_pose_and_its_height_only(clip):
    track = Constraints(keyframes=(Keyframe(1.0, MotionFrames.of(clip, 45)),)).track(60)
    assert track.rotations_known[30].all() and not track.root_known.any() and not track.heading_known.any()
    assert track.joints_known.nonzero().tolist() == [[30, 0, 1]]


def test_keyframe_in_its_file_stays_there(clip):
    track = Constraints(keyframes=(Keyframe(1.0, MotionFrames.of(clip, -1), "file"),)).track(60)
    np.testing.assert_allclose(track.root[30], [4, 2], atol=1e-6)
    assert track.heading[30] == pytest.approx(np.radians(30))


def test_start_and_end_are_the_first_and_the_last_frame(clip):
    pose = Keyframe(0, MotionFrames.of(clip))
    track = Constraints(start=pose, end=pose, length=2).track(62)  # the tokens of a motion give a frame or two more
    assert track.rotations_known.all(-1).nonzero().tolist() == [[0], [61]]
    assert track.root_known.nonzero().tolist() == [[0]] and track.heading[0] == 0  # the start is at the origin


@pytest.mark.parametrize(
    ("constraints", "placement"),
    [
        ({}, (0, 0, 0)),
        ({"path": RootPath([(1, 1), (3, 1)])}, (1, 1, 90)),
        ({"path": RootPath([(1, 1), (3, 1)], times=[0.5, 2])}, (0, 0, 0)),
        ({"path": RootPath([(1, 1), (3, 1)]), "waypoints": (Waypoint(0, facing=-90),)}, (1, 1, -90)),
        ({"waypoints": (Waypoint(0, (2, 3), 180),)}, (2, 3, 180)),
        ({"pins": (Pin("pelvis", (2, None, 3), 0),)}, (2, 3, 0)),
        ({"start": Keyframe(0, MotionFrames.of(clip_of(), 0), "file")}, (1, 2, 30)),
        ({"start": Keyframe(0, MotionFrames.of(clip_of(), 0), (5, 5), 45)}, (5, 5, 45)),
        ({"start": Keyframe(0, MotionFrames.of(clip_of(), 0), facing=45)}, (0, 0, 45)),
    ],
)
def test_constraints_of_the_first_frame_place_the_motion(constraints, placement):
    start = Constraints(**constraints).placement
    np.testing.assert_allclose((start.x, start.z, np.degrees(start.heading)), placement, atol=1e-5)
    track = Constraints(**constraints).track(90)
    assert not track.root_known[0] or track.root[0].tolist() == pytest.approx(placement[:2])


def test_pin_gives_its_axes_over_its_span():
    track = Constraints(pins=(Pin("left_hand", (0.5, None, -1), 1, 2), Pin("pelvis", (1, None, 2), 1.5))).track(90)
    wrist = JOINT_INDEX["left_wrist"]
    assert track.joints_known[:, wrist].any(-1).nonzero()[[0, -1], 0].tolist() == [30, 60]
    assert track.joints_known[45, wrist].tolist() == [True, False, True]
    assert track.joints[45, wrist].tolist() == [0.5, 0, -1]
    assert track.root_known.nonzero().tolist() == [[45]] and track.root[45].tolist() == [1, 2]


def test_pin_takes_its_limb_out_of_a_pose(clip):
    pose = Keyframe(1, MotionFrames.of(clip), (0, 0), 0)
    track = Constraints(keyframes=(pose,), pins=(Pin("left_hand", (0.4, 1.5, 0.2), 1),)).track(60)
    freed = [JOINT_INDEX[f"left_{joint}"] for joint in ("shoulder", "elbow")]
    assert (~track.rotations_known[30]).nonzero()[:, 0].tolist() == freed
    assert (~track.joints_known[30].all(-1)).nonzero()[:, 0].tolist() == [JOINT_INDEX["left_elbow"]]
    assert track.joints[30, JOINT_INDEX["left_wrist"]].tolist() == pytest.approx([0.4, 1.5, 0.2])


def test_path_with_times_is_at_its_points_and_never_turns_back():
    points = [(0, 0), (0, 1), (3, 1)]
    for kind in ("polyline", "spline"):
        track = Constraints(path=RootPath(points, kind, [0.5, 1, 3])).track(120)
        assert track.root_known.nonzero()[:, 0].tolist() == list(range(15, 91)) and len(track.path) == 0
        np.testing.assert_allclose(track.root[[15, 30, 90]], points, atol=0.01)
    steps = np.linalg.norm(np.diff(track.root[15:91].numpy(), axis=0), axis=-1)
    assert steps.min() > 0 and np.abs(np.diff(steps)).max() < 0.02  # no jump of the speed


def test_path_without_times_has_points_at_equal_distances():
    points = [(0.0, 0.0), (0.0, 1.0), (3.0, 1.33)]
    for kind in ("polyline", "spline"):
        track = Constraints(path=RootPath(points, kind)).track(120)
        steps = np.linalg.norm(np.diff(track.path.numpy(), axis=0), axis=-1)
        assert not track.root_known.any() and track.path[-1].tolist() == pytest.approx(points[-1])
        assert steps[:-1].max() <= PATH_STEP + 1e-6 and steps[-1] < 1.5 * PATH_STEP + 1e-6
        assert distances(track.path.numpy(), np.array(points)).max() < PATH_STEP / 2


def test_kept_joints_move_as_in_the_file(clip):
    parts = {"upper_body": 0, "lower_body": 10, "full_body": JOINTS}  # the pelvis holds spine1
    for group, placed in parts.items():
        keep = Keep(1, 2, MotionFrames.of(clip, 30, 31), (group,))
        track = Constraints(keep=(keep,)).track(90)
        assert track.rotations_known[:, JOINT_INDEX["left_elbow"]].sum() == (0 if group == "lower_body" else 31)
        assert track.joints_known[45].all(-1).sum() == placed
        assert track.root_known.sum() == (0 if group == "upper_body" else 31)
    np.testing.assert_allclose(track.root[[30, 60]], [[2, 2], [3, 2]], atol=1e-6)
    moved = Constraints(keep=(Keep(1, 2, MotionFrames.of(clip, 30, 31), place=(0, 0), facing=120),)).track(90)
    np.testing.assert_allclose(moved.root[[30, 60]], [[0, 0], [0, -1]], atol=1e-6)  # turned by 90 degrees


def test_constraints_survive_json(clip):
    everything = Constraints(
        keyframes=(Keyframe(1, MotionFrames.given(clip.smplx85[10:11]), (0.2, 1), 10),),
        pins=(Pin("left_hand", (None, 1, 2), 2.0), Pin("head", (0, None, 2.5), 2.5, 3)),
        path=RootPath([(0, 0), (0, 1), (1, 3)], "spline"),
        waypoints=(Waypoint(2, (0.2, 1.5), 20), Waypoint(2.2, facing=0)),
        keep=(Keep(3, 3.5, MotionFrames.given(clip.smplx85[:16]), ("arms",), "free"),),
        start=Keyframe(0, MotionFrames.given(clip.smplx85[:1])),
        end=Keyframe(0, MotionFrames.given(clip.smplx85[-1:]), (1, 3)),
        length=4,
    )
    values = json.loads(json.dumps(everything.to_dict()))
    again = parse_constraints(values)
    assert again.to_dict() == values
    for field, value in vars(everything.track(120)).items():
        np.testing.assert_allclose(vars(again.track(120))[field].numpy(), value.numpy(), atol=1e-5, err_msg=field)


# --- Errors of motions


def test_motion_has_no_error_from_its_own_values_and_that_by_which_it_is_moved(clip):
    motion = MotionFrames.of(clip, 0, 91)
    joints = forward_kinematics(motion.rotations, motion.pelvis)
    constraints = Constraints(
        keyframes=(Keyframe(1, MotionFrames.of(clip, 30)), Keyframe(2, MotionFrames.of(clip, 60), "file")),
        pins=(Pin("left_hand", joints[45, JOINT_INDEX["left_wrist"]], 1.5),),
        path=RootPath([(1, 2), (4, 2)]),
        waypoints=(Waypoint(1, (2, 2), 30),),
        keep=(Keep(2.2, 3, MotionFrames.of(clip, 66, 25), ("upper_body",)),),
    )
    same = measure(constraints, motion.rotations, motion.pelvis)
    assert max(each.error for each in same) < 1e-4 and len(same) == 7
    moved = {each.name: each.error for each in measure(constraints, motion.rotations, motion.pelvis + [0, 0, 0.1])}
    free = ("the keyframe at 1 s", "the keep of upper_body from 2.2 to 3 s")
    assert all(error == pytest.approx(0 if name in free else 0.1, abs=1e-6) for name, error in moved.items())
    bent = motion.rotations.copy()
    bent[30, JOINT_INDEX["left_shoulder"]] = np.eye(3)
    errors = {each.name: each.error for each in measure(constraints, bent, motion.pelvis)}
    assert errors["the keyframe at 1 s"] > 0.1


# --- Bad input


def pin(**values):
    return {"joint": "left_hand", "time": 1, "position": [0.3, 1.2, 0.3], **values}


REFUSED = {
    "two poses": (
        {"keyframes": [{"time": 1, "pose": STANDING}, {"time": 1.01, "pose": [0.5] * 3 + STANDING[3:]}]},
        "the keyframe at 1 s and the keyframe at 1.01 s ask for two poses at 1.00 s",
    ),
    "two places": (
        {"waypoints": [{"time": 1, "position": [1, 0]}], "path": {"points": [[0, 0], [2, 0]], "times": [0, 3]}},
        "the path and the waypoint at 1 s ask for two places at 1.00 s",
    ),
    "two headings": (
        {"keyframes": [{"time": 1, "pose": STANDING, "facing": 0}], "waypoints": [{"time": 1, "facing": 90}]},
        "the keyframe at 1 s and the waypoint at 1 s ask for two headings",
    ),
    "two positions": (
        {"pins": [{"joint": "head", "from": 0.5, "to": 2, "position": [None, 1, None]},
                  {"joint": "head", "time": 1, "position": [0, 1.2, 0]}]},
        "the pin of head from 0.5 to 2 s and the pin of head at 1 s ask for two positions at 1.00 s",
    ),
    "the same twice": ({"pins": [pin(), pin(position=[0, 1, 0])]}, "the pin of left_wrist at 1 s is given twice"),
    "overlapping keeps": (
        {"keep": [{"from": 0, "to": 0.1, "motion": [STANDING] * 4, "joints": "upper_body"},
                  {"from": 0.1, "to": 0.1, "motion": [[0.3] * 85], "joints": ["left_arm"]}]},
        "the keep of upper_body from 0 to 0.1 s and the keep of left_arm from 0.1 to 0.1 s ask for two poses",
    ),
    "10 m in 1 s": (
        {"waypoints": [{"time": 1, "position": [10, 0]}]},
        "the start of the motion and the waypoint at 1 s are 10.0 m and 1.00 s apart, faster than a sprint",
    ),
    "a fast hand": (
        {"pins": [pin(), {"joint": "right_foot", "time": 1.1, "position": [9, 0, 0]}]},
        "the pin of left_wrist at 1 s and the pin of right_foot at 1.1 s are 8.7 m",
    ),
    "a fast path": ({"path": {"points": [[0, 0], [0, 9]], "times": [0, 1]}}, "the path from 0 to 1 s covers 9.0 m"),
    "a long path": ({"path": {"points": [[0, 0], [0, 30]]}, "length": 2}, "covers 30.0 m in 2.00 s"),
    "a fast turn": (
        {"waypoints": [{"time": 1, "facing": 0}, {"time": 1.1, "facing": 180}]},
        "the waypoint at 1 s and the waypoint at 1.1 s turn by 180 degrees in 0.10 s",
    ),
    "off the path": (
        {"path": {"points": [[0, 0], [0, 3]]}, "waypoints": [{"time": 1, "position": [1, 1]}]},
        "the waypoint at 1 s and the path are 1.00 m apart",
    ),
    "a pin outside": ({"pins": [pin(time=5)], "length": 4}, "the pin of left_wrist at 5 s is outside the motion"),
    "a keyframe outside": (
        {"keyframes": [{"time": 4.1, "pose": STANDING}], "length": 4},
        "the keyframe at 4.1 s is outside the motion, which ends at 4 s",
    ),
    "a hand far from the pelvis": (
        {"pins": [pin(), {"joint": "hips", "time": 1, "position": [0.3, 0.9, 1.8]}]},
        "the pin of left_wrist at 1 s and the pin of pelvis at 1 s put left_wrist 1.53 m from pelvis",
    ),
    "a hand far from a waypoint": (
        {"pins": [pin()], "waypoints": [{"time": 1, "position": [2, 0.3]}]},
        "the pin of left_wrist at 1 s and the waypoint at 1 s put left_wrist 1.70 m from pelvis",
    ),
    "a hand far from a pose": (
        {"pins": [pin(position=[1, 1, 0.5])], "start": {"pose": STANDING, "place": [0, 0]},
         "keyframes": [{"time": 1, "pose": STANDING, "place": [0, 0], "facing": 0}]},
        "the pin of left_wrist at 1 s and the keyframe at 1 s put left_wrist 1.0",
    ),
    "above a jump": ({"pins": [pin(position=[None, 4, None])]}, "higher than a jump lifts left_wrist"),
    "an end without a length": ({"end": {"pose": STANDING}}, "an end pose needs the length of the motion"),
    "unknown joint": ({"pins": [pin(joint="left_hnad")]}, "entry 1: the joint left_hnad is unknown; did you mean"),
    "a joint without pins": ({"pins": [pin(joint="left_elbow")]}, "left_elbow cannot be pinned; use pelvis, head"),
    "unknown group": ({"keep": [{"from": 0, "to": 0, "motion": [STANDING], "joints": "upper"}]}, "mean upper_body?"),
    "joints": ({"keep": [{"from": 0, "to": 0, "motion": [STANDING], "joints": 1.5}]}, "joints is 1.5; give a list"),
    "unknown key": ({"waypoint": []}, "the key waypoint is unknown; did you mean waypoints?"),
    "unknown key of a pin": ({"pins": [pin(positon=0)]}, "the key positon is unknown; did you mean position?"),
    "NaN": ({"pins": [pin(position=[float("nan"), 0, 0])]}, "a value of position is nan; give a number"),
    "pose with NaN": ({"keyframes": [{"time": 1, "pose": [float("nan")] + STANDING[1:]}]}, "is nan; give a number"),
    "pose of another width": ({"keyframes": [{"time": 1, "pose": STANDING[1:]}]}, "give 1 of 85"),
    "huge number": ({"length": 10**400}, "the length is 1000"),
    "text as number": ({"length": "4"}, "the length is '4'; give a number"),
    "no axis": ({"pins": [pin(position=[None] * 3)]}, "no axis of the position is given"),
    "two axes": ({"pins": [pin(position=[0, 1])]}, "position is .*; give .x, y, z. in metres"),
    "time and span": ({"pins": [pin(to=2)]}, "give either time, or from and to"),
    "backward span": ({"pins": [{"joint": "head", "from": 2, "to": 1, "position": [0, 1, 0]}]}, "exchange from and to"),
    "negative time": ({"waypoints": [{"time": -1, "facing": 0}]}, "a time is -1 s"),
    "single point": ({"path": {"points": [[0, 0]]}}, "a path needs at least two points"),
    "same points": ({"path": {"points": [[0, 0], [0, 0], [1, 0]]}}, "points 1 and 2 of the path are the same"),
    "times in disorder": (
        {"path": {"points": [[0, 0], [0, 1], [0, 2]], "times": [0, 2, 2]}},
        "the times of the path do not increase",
    ),
    "missing times": ({"path": {"points": [[0, 0], [0, 1]], "times": [0]}}, "one time for each of them"),
    "kind": ({"path": {"points": [[0, 0], [0, 1]], "kind": "spiral"}}, "the kind of the path is spiral"),
    "place": ({"keyframes": [{"time": 1, "pose": STANDING, "place": "flie"}]}, "did you mean file?"),
    "a file where none is read": ({"start": {"pose": {"file": "a.npz"}}}, "a.npz cannot be read here"),
    "a list": ([], "constraints is ..; give a mapping"),
    "entries": ({"pins": {}}, "pins is {}; give a list"),
    "many entries": ({"pins": [pin()] * 1001}, "pins has 1001 entries"),
}  # fmt: skip


@pytest.mark.parametrize(("values", "words"), REFUSED.values(), ids=REFUSED)
def test_contradictions_and_the_unreachable_are_refused(values, words):
    with pytest.raises(InputError, match=words) as raised:
        check_constraints(parse_constraints(values))
    assert len(str(raised.value)) < 400


def test_what_is_possible_is_not_refused():
    values = {
        "length": 4,
        "pins": [pin(position=[0.3, -0.2, 0.3])],
        "waypoints": [{"time": 4, "position": [0, 3]}, {"time": 2, "facing": -90}],
        "path": {"points": [[0, 0], [0, 3]], "times": [0, 4]},
    }
    [note] = check_constraints(parse_constraints(values))
    assert note == "the pin of left_wrist at 1 s is 0.20 m below the floor"
    with pytest.raises(InputError, match="the length of the motion is 3 s and its constraints say 4 s"):
        check_constraints(parse_constraints(values), seconds=3)


# --- Files


def test_motion_files_are_relative_to_the_file_and_checked_by_their_digest(clip, tmp_path):
    np.save(tmp_path / "walk.npy", clip.smplx85)
    values = {"keyframes": [{"time": 1, "pose": {"file": "walk.npy", "seconds": 0.5}, "place": [0, 1]}]}
    (tmp_path / "a.json").write_text(json.dumps(values))
    (tmp_path / "a.YAML").write_text(yaml.safe_dump(values))
    records = [read_constraints(tmp_path / name).to_dict() for name in ("a.json", "a.YAML")]
    assert records[0] == records[1] and records[0]["keyframes"][0]["pose"]["frame"] == 15
    (tmp_path / "b.json").write_text(json.dumps(records[0]))
    assert read_constraints(tmp_path / "b.json").to_dict() == records[0]
    np.save(tmp_path / "walk.npy", clip.smplx85[::-1])
    with pytest.raises(InputError, match="walk.npy: the file holds another motion than when digest was written"):
        read_constraints(tmp_path / "b.json")


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.txt", "{}", "no suffix of constraints"),
        ("a.json", "{", "not JSON"),
        ("a.yaml", "start: !!python/object/apply:os.system ['true']", "tags are not read"),
        ("a.yaml", "", "constraints is None"),
        ("a.yaml", "start: {pose: {file: missing.npz}}", "start: .*missing.npz.*missing"),
        ("a.yaml", "start: {pose: {file: short.npy, seconds: 9}}", "short.npy: frames 270 to 270 are needed"),
        ("a.yaml", "start: {pose: {file: a.pkl}}", "is a pickle, which may run code"),
    ],
)
def test_unusable_files_are_refused(clip, tmp_path, name, content, words):
    (tmp_path / name).write_text(content)
    np.save(tmp_path / "short.npy", clip.smplx85[:2])
    with pytest.raises(InputError, match=words) as raised:
        read_constraints(tmp_path / name)
    assert str(tmp_path / name) in str(raised.value)


@pytest.mark.parametrize("example", re.findall(r"```yaml\n(.*?)```", DOCS, re.DOTALL))
def test_examples_of_the_docs_are_possible(example):
    standing = Clip(np.tile(np.float64(STANDING), (301, 1)))
    constraints = parse_constraints(yaml.safe_load(example), lambda name: standing)
    assert check_constraints(constraints) == []
