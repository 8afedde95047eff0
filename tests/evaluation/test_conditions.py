"""Conditions of prompts: they hold for the motions that they describe and for no others; faults are refused."""

import re
from itertools import product

import numpy as np
import pytest

from dataset.synthetic import synthetic_clips
from evaluation.conditions import PHRASES, SLOTS, UNITS, WHENS, parse_condition
from evaluation.quantities import Performance, joints_of
from motion.resample import FPS
from motion.rotation import axis_angle_to_matrix, y_rotation
from motion.skeleton import JOINT_INDEX, JOINTS, MIRROR, forward_kinematics
from utils.errors import InputError

STANDING = np.array([0.0, 0.93, 0.0])


def holds(condition: str, motion: Performance) -> bool:
    parsed = parse_condition(condition)
    return parsed.holds(parsed.value(motion))


def measured(condition: str, motion: Performance) -> float:
    return parse_condition(condition).value(motion)


def posed(turns: dict[str, np.ndarray], pelvis: np.ndarray) -> Performance:
    """A motion (T) of the rest pose in which some joints are turned by (T, 3) axis-angle vectors."""
    rotations = np.broadcast_to(np.eye(3), (len(pelvis), JOINTS, 3, 3)).copy()
    for joint, axis_angle in turns.items():
        rotations[:, JOINT_INDEX[joint]] = axis_angle_to_matrix(axis_angle)
    return Performance.of(forward_kinematics(rotations, pelvis))


def about(axis: str, degrees: np.ndarray) -> np.ndarray:
    return np.radians(degrees)[:, None] * np.eye(3)["xyz".index(axis)]


@pytest.fixture(scope="module")
def clips() -> dict[str, list[Performance]]:
    """Procedural clips by action, facing any direction."""
    found: dict[str, list[Performance]] = {}
    for number, (name, rotations, pelvis, _) in enumerate(synthetic_clips(68, seed=3)):
        joints = (
            forward_kinematics(rotations.astype(float), pelvis.astype(float)) @ y_rotation(np.array(float(number))).T
        )
        found.setdefault(name.rsplit("_", 1)[0], []).append(Performance.of(joints))
    return found


@pytest.mark.parametrize(
    "condition, actions",
    [
        ("moves forward faster than 0.4 m/s", {"walk", "run", "walk_turn_left", "walk_turn_right"}),
        ("moves backward faster than 0.4 m/s", {"walk_backward"}),
        ("turns left by more than 30 degrees", {"turn_left", "walk_turn_left"}),
        ("turns right by more than 30 degrees", {"turn_right", "walk_turn_right"}),
        ("both feet off the floor for longer than 0.2 s and pelvis rises by more than 10 cm", {"jump"}),
        (
            "right wrist above the head and both feet on the floor all the time",
            {"raise_right_hand", "raise_both_hands", "wave_right_hand", "wave_both_hands"},
        ),
        ("left foot above 0.45 m", {"kick_left"}),
        ("pelvis below 70 %", {"squat"}),
    ],
)
def test_conditions_select_the_actions_that_they_describe(clips, condition, actions):
    shares = {name: np.mean([holds(condition, motion) for motion in motions]) for name, motions in clips.items()}
    assert {name for name, share in shares.items() if share == 1} == actions, shares
    assert {name for name, share in shares.items() if share > 0} == actions, shares


def test_steps_are_counted(clips):
    for motion in clips["walk"] + clips["run"] + clips["walk_backward"]:
        feet = [motion.joint(f"{side}_foot") for side in ("left", "right")]
        # once per cycle, the feet pass each other in either direction
        ahead = np.sign(motion.to_heading_frame(feet[0] - feet[1])[:, 2])
        passes = np.count_nonzero(np.diff(ahead))
        assert abs(measured("takes more than 0 steps", motion) - passes) <= 2
    assert all(measured("takes more than 0 steps", motion) == 0 for motion in clips["raise_both_hands"])


def test_flips_and_cartwheels_have_a_direction():
    turn = np.linspace(0, 360, 40)
    pelvis = np.tile(STANDING, (40, 1)) + [0, 0.5, 0]
    forward, left = posed({"pelvis": about("x", turn)}, pelvis), posed({"pelvis": about("z", -turn)}, pelvis)
    assert measured("flips forward by more than 1 degree", forward) == pytest.approx(360, abs=1)
    assert holds("flips backward by more than 300 degrees", posed({"pelvis": about("x", -turn)}, pelvis))
    assert holds("cartwheels left by more than 300 degrees", left)
    assert not holds("cartwheels right by more than 60 degrees", left)
    assert holds("torso upside down for longer than 0.2 s", forward) and holds("chest faces down", forward)
    assert holds("turns by less than 1 degree", forward)  # the heading does not jump while the person is upside down
    assert not holds("torso upside down", posed({}, np.tile(STANDING, (40, 1))))


def test_left_and_right_are_exchanged_in_a_mirrored_motion(clips):
    pairs = (("turn_left", "turns {} by more than 30 degrees"), ("kick_left", "{} foot above 0.4 m"))
    for name, condition in pairs:
        for motion in clips[name]:
            mirrored = Performance.of((motion.joints * [-1, 1, 1])[:, MIRROR])
            assert holds(condition.format("left"), motion) and not holds(condition.format("right"), motion)
            assert holds(condition.format("right"), mirrored) and not holds(condition.format("left"), mirrored)


def test_times_of_a_condition():
    height = np.concatenate((np.full(30, 0.9), np.full(15, 0.5), np.full(15, 0.9)))
    motion = Performance(
        posed({}, np.tile(STANDING, (60, 1))).joints + (height - 0.93)[:, None, None] * np.eye(3)[1], 0
    )
    assert measured("pelvis below 0.6 m for longer than 0.4 s", motion) == pytest.approx(15 / FPS)
    assert holds("pelvis below 0.6 m for longer than 0.4 s", motion)
    assert not holds("pelvis below 0.6 m for longer than 0.5 s", motion)
    assert holds("pelvis below 0.6 m for less than 0.6 s", motion)
    for when, below in (("at some time", True), ("at the start", False), ("at the end", False),
                        ("all the time", False), ("most of the time", False), ("on average", False)):  # fmt: skip
        assert holds(f"pelvis below 60 cm {when}", motion) is below
    assert holds("pelvis above 1 m never", motion) and not holds("pelvis below 0.6 m never", motion)
    assert holds("pelvis sinks by at least 40 cm", motion) and not holds("pelvis sinks by more than 41 cm", motion)
    assert holds("pelvis rises by less than 5 cm", motion)  # its peak


def test_stages_of_a_sequence_hold_in_their_order():
    frames = 90
    arm = about("z", np.clip(np.arange(frames) - 50, 0, 30) * 3.0)  # the left arm rises from the side
    path = np.tile(STANDING, (frames, 1))
    path[:, 2] = np.minimum(np.arange(frames), 45) / FPS
    motion = posed({"left_shoulder": arm}, path)
    walks, raises = (
        "moves forward faster than 0.8 m/s",
        "left wrist above the head by more than 5 cm and moves slower than 0.2 m/s",
    )
    assert holds(f"{walks} then {raises}", motion) and holds(f"{walks}, then {raises}", motion)
    assert measured(f"{raises} then {walks}", motion) < 2
    assert not holds(f"{raises} then {walks}", motion)
    assert not holds(f"{walks} then {walks} then {raises} then {walks}", motion)


def test_either_and_both():
    arm = about("z", np.full(30, 80.0))
    motion = posed({"left_shoulder": arm}, np.tile(STANDING, (30, 1)))
    assert holds("a hand above the head", motion) and holds("either wrist above the head", motion)
    assert not holds("both hands above the head", motion) and not holds("wrists above the head", motion)
    assert holds("a hand below the head", motion) and not holds("both hands below the head", motion)
    assert joints_of("both feet") == ["left_foot", "right_foot"] and joints_of("the left hand") == ["left_wrist"]


@pytest.mark.parametrize("phrase", PHRASES, ids=[phrase.text for phrase in PHRASES])
def test_every_phrase_measures_motion_of_any_length(phrase, clips):
    words = {slot: re.sub(r"\?|.*\)", "", SLOTS[slot]).split("|") for slot in SLOTS}
    words |= {"part": ["left foot", "head"], "other": ["pelvis", "both knees"], "limb": ["a wrist"], "hinge": ["knees"]}
    slots = re.findall(r"\{(\w+)\}", phrase.text)
    for choice in product(*(words[slot] for slot in slots)):
        text = re.sub(r"[?\[\]]", "", phrase.text).format(**dict(zip(slots, choice, strict=True)))
        limits = [f"{text} more than 1 {unit}" for unit in UNITS[phrase.unit]] if phrase.unit else [text]
        for limit, when, frames in product(limits, ("", *WHENS, "never", "for longer than 1 s"), (1, 2, 40)):
            assert np.isfinite(measured(f"{limit} {when}", clips["walk"][0].part(0, frames)))


@pytest.mark.parametrize(
    "text, problem",
    [
        ("rigth wrist above the head", "the word 'rigth' is unknown; use right"),
        ("jumps", "the word 'jumps' is unknown; use moves, strays"),
        ("moves forward", "a limit is missing, such as: moves forward more than 1 m/s"),
        ("moves forward faster than 1", "the number has no unit; give m/s"),
        ("moves forward faster than 1 s", "the unit s does not fit; give m/s"),
        ("torso upright more than 3 m", "is a state without a limit"),
        ("head the above pelvis", "there is no phrase 'head the above pelvis'"),
        ("moves forward faster than 1 m/s then", "is not understood"),
        (" and ".join(["moves faster than 1 m/s"] * 20), "480 characters|478 characters|write a sentence"),
        (" then ".join(["moves faster than 1 m/s"] * 6), "it has 6 stages; give at most 4"),
        ("moves slower than in", "is not understood"),
        ("", "it has 0 characters"),
        ("moves\x1b[31m faster", "is unknown"),
    ],
)
def test_faults_are_refused_in_one_sentence(text, problem):
    with pytest.raises(InputError, match=problem.replace("(", r"\(")) as error:
        parse_condition(text)
    assert len(str(error.value)) < 500 and "\x1b" not in str(error.value)
