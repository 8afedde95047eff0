"""Editing of motions: geometric truths of each operation, and edit_motion.py from start to end."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from control.joints import joints_named
from dataset.synthetic import synthetic_clips
from editing.combine import FADE, combine
from editing.generate import between, complete, redo
from editing.join import join
from editing.loops import find_seam, loop
from editing.places import Move
from editing.spans import change_speed, in_place, mirror, trim
from formats.clip import read_clip
from models.pipeline import TextToMotion
from motion.clip import Clip
from motion.features272 import heading_angle
from motion.measures import FEET, frame_acceleration
from motion.resample import FPS
from motion.skeleton import JOINT_INDEX
from motion.smplx import motion_to_smplx85
from utils.errors import InputError
from visualize.export import write_npz

UPPER = [JOINT_INDEX[name] for name in joints_named(["upper_body"])]
BANDAI = Path(__file__).parents[2] / "shared" / "data" / "bandai" / "dataset-1"


@pytest.fixture(scope="module")
def clips() -> dict[str, Clip]:
    """Procedural motions by their action, away from the origin and turned, on a tall body."""
    move = Move(1.0, np.zeros(3), np.array([2.0, 0.0, -1.0]))
    betas = np.array([1.0, -0.5, *[0.0] * 8])
    found = {}
    for name, rotations, pelvis, _ in synthetic_clips(24, 3):
        smplx85 = motion_to_smplx85(*move.apply(rotations.astype(float), pelvis), betas)
        found.setdefault(name[:-6], Clip(smplx85, name[:-6]))
    return found


@pytest.fixture(scope="module")
def model() -> TextToMotion:
    return TextToMotion.from_pretrained("checkpoints/demo")


def rotations_of(clip: Clip) -> np.ndarray:
    return clip.motion()[0]


def turned(clip: Clip) -> float:
    """Turn of a clip in radians."""
    facing = np.unwrap(heading_angle(rotations_of(clip)[:, 0]))
    return float(facing[-1] - facing[0])


def fastest(joints: np.ndarray) -> np.ndarray:
    """(T - 1,) speed of the fastest joint in metres per second."""
    return np.linalg.norm(np.diff(joints, axis=0), axis=-1).max(axis=1) * FPS


# One clip


def test_trim_keeps_the_frames_of_the_span(clips):
    walk = clips["walk"]
    part = trim(walk, 1.0, 2.5)
    np.testing.assert_array_equal(part.smplx85, walk.smplx85[30:75])
    np.testing.assert_array_equal(trim(walk, 1.0).smplx85, walk.smplx85[30:])


def test_mirrored_twice_is_the_same_and_once_turns_the_other_way(clips):
    walk = clips["walk_turn_left"]
    once = mirror(walk)
    np.testing.assert_allclose(mirror(once).joints(), walk.joints(), atol=1e-9)
    np.testing.assert_allclose(once.motion()[1][0], walk.motion()[1][0], atol=1e-9)
    assert turned(once) == pytest.approx(-turned(walk), abs=1e-6) and abs(turned(walk)) > 0.5


def test_speed_changes_the_number_of_frames_and_keeps_the_path(clips):
    walk = clips["walk"]
    joints, fast, slow = walk.joints(), change_speed(walk, 2).joints(), change_speed(walk, 0.5).joints()
    assert len(fast) == len(joints) // 2 and len(slow) == 2 * len(joints)
    np.testing.assert_allclose(fast[[0, -1]], joints[[0, -1]], atol=1e-9)
    gaps = np.linalg.norm(fast[:, None, 0] - slow[None, :, 0], axis=-1).min(axis=1)
    assert gaps.max() < 0.01, "the paths differ"
    assert frame_acceleration(slow).max() < frame_acceleration(joints).max()


def test_feet_that_stand_stay_where_they_are_at_another_speed(clips):
    squat = clips["squat"]
    feet, slow = squat.joints()[:, FEET], change_speed(squat, 0.4).joints()[:, FEET]
    assert (np.ptp(slow, axis=0) < np.ptp(feet, axis=0) + 0.001).all()


def test_in_place_keeps_sway_and_height_and_removes_travel_and_turning(clips):
    walk, turning = clips["walk"], clips["walk_turn_left"]
    given, still = walk.joints()[:, 0], in_place(walk).joints()[:, 0]
    assert np.ptp(given, axis=0).max() > 2 and np.ptp(still, axis=0).max() < 0.15
    np.testing.assert_allclose(still[:, 1], given[:, 1], atol=1e-9)
    np.testing.assert_allclose(still[0], given[0], atol=1e-9)
    assert abs(turned(in_place(turning))) == pytest.approx(abs(turned(turning)))
    assert abs(turned(in_place(turning, heading=True))) < 0.1 * abs(turned(turning))


def test_feet_that_stand_stay_where_they_are_in_place(clips):
    bow = clips["bow"]
    np.testing.assert_allclose(in_place(bow).joints(), bow.joints(), atol=0.01)


# Loops


@pytest.mark.parametrize("action", ["walk", "run", "walk_turn_left", "wave_right_hand"])
def test_loop_has_no_visible_seam_on_its_way_and_in_place(clips, action):
    clip = clips[action]
    seam = find_seam(clip)
    first = seam.frames  # of the second cycle
    for travel in (True, False):
        joints = loop(clip, travel, repeats=3, seam=seam).joints()
        assert len(joints) == 3 * first
        speeds, accelerations = fastest(joints), frame_acceleration(joints)
        assert speeds[first - 1] <= np.quantile(speeds[: first - 1], 0.99) + 1e-6
        assert accelerations[first - 2 : first].max() <= np.quantile(accelerations[: first - 2], 0.99) + 0.5
    np.testing.assert_allclose(joints[first : 2 * first], joints[:first], atol=1e-6)  # in place


def test_cycles_of_a_travelling_loop_follow_each_other(clips):
    clip = clips["walk_turn_left"]
    seam = find_seam(clip)
    looped, frames = loop(clip, seconds=20.0, seam=seam), seam.frames
    assert len(looped.smplx85) >= 600
    rotations, pelvis = looped.motion()
    steps = np.linalg.norm(np.diff(pelvis[::frames], axis=0)[:, (0, 2)], axis=1)
    np.testing.assert_allclose(steps, steps[0], atol=1e-9)
    turns = np.diff(np.unwrap(heading_angle(rotations[::frames, 0])))
    np.testing.assert_allclose(turns, turns[0], atol=1e-9)
    np.testing.assert_allclose(rotations[frames:, 1:], rotations[:-frames, 1:], atol=1e-9)


def test_motion_that_does_not_return_has_no_loop(clips):
    rising = trim(clips["raise_both_hands"], 0, 0.8)
    with pytest.raises(InputError, match=r"no two similar frames: at the best seam, from .* the joints jump by"):
        find_seam(rising)


@pytest.mark.skipif(not BANDAI.exists(), reason="the recordings of the Bandai-Namco data set are not here")
@pytest.mark.parametrize("name", ["walk_normal_001", "run_active_001", "bye_normal_001"])
def test_loops_of_recordings_have_no_visible_seam(name):
    clip = read_clip(BANDAI / f"dataset-1_{name}.bvh")
    seam = find_seam(clip)
    joints = loop(clip, repeats=2, seam=seam).joints()
    speeds, accelerations = fastest(joints), frame_acceleration(joints)
    assert speeds[seam.frames - 1] <= np.quantile(speeds[: seam.frames - 1], 0.99)
    assert accelerations[seam.frames - 2 : seam.frames].max() <= np.quantile(accelerations[: seam.frames - 2], 0.99)


# Several clips


def test_joined_motions_continue_in_place_heading_and_velocity(clips):
    first, second = clips["walk_turn_left"], replace(clips["run"], smplx85=clips["run"].smplx85 * 1.0)
    second.smplx85[:, 75:] = 0
    joined = join([first, second, first])
    seam = len(first.smplx85)
    assert len(joined.smplx85) == 2 * seam + len(second.smplx85)
    np.testing.assert_array_equal(joined.smplx85[:seam], first.smplx85)
    assert (joined.smplx85[:, 75:] == first.betas).all()
    steps = np.diff(joined.motion()[1], axis=0)
    assert np.linalg.norm(steps[seam - 1] - steps[seam - 2]) < 0.01
    accelerations = frame_acceleration(joined.joints())
    inside = np.delete(accelerations, range(seam - 2, seam + 10))
    assert accelerations[seam - 2 : seam + 10].max() < 1.5 * inside.max()
    assert joined.title == "walk_turn_left | run | walk_turn_left"


def test_combined_motion_has_the_joints_of_one_and_the_rest_of_the_other(clips):
    wave, walk = clips["wave_both_hands"], clips["walk"]
    both = combine(wave, walk, ["upper_body"], 1.0, 2.5)
    rest = [joint for joint in range(22) if joint not in UPPER]
    np.testing.assert_allclose(rotations_of(both)[:, rest], rotations_of(walk)[:, rest], atol=1e-6)
    np.testing.assert_allclose(both.motion()[1], walk.motion()[1], atol=1e-9)
    fade = round(FADE * FPS)
    inside, given = rotations_of(both)[30 + fade : 75 - fade, UPPER], rotations_of(wave)[fade : 45 - fade, UPPER]
    np.testing.assert_allclose(inside, given, atol=1e-6)
    np.testing.assert_allclose(rotations_of(both)[:30], rotations_of(walk)[:30], atol=1e-6)
    swapped = combine(walk, wave, ["lower_body"])
    assert len(swapped.smplx85) == len(walk.smplx85)
    np.testing.assert_allclose(swapped.motion()[1], walk.motion()[1], atol=1e-9)


# Made by the model


def test_frames_between_two_motions_are_generated_and_the_motions_stay(clips, model):
    walk, wave = clips["walk"], clips["wave_both_hands"]
    made = between(model, walk, wave, "a person walks forward", 1.0, seed=1)
    first, last = len(walk.smplx85), len(walk.smplx85) + 30
    np.testing.assert_array_equal(made.smplx85[:first], walk.smplx85)
    np.testing.assert_array_equal(made.smplx85[last:, 3:72], wave.smplx85[:, 3:72])  # all joints but the root
    assert len(made.smplx85) == last + len(wave.smplx85)
    accelerations = frame_acceleration(made.joints())
    usual = max(frame_acceleration(clip.joints()).max() for clip in (walk, wave))
    assert all(accelerations[seam - 2 : seam].max() < 2 * usual for seam in (first, last))
    np.testing.assert_array_equal(made.smplx85, between(model, walk, wave, "a person walks forward", 1.0, 1).smplx85)


def test_a_redone_span_differs_and_the_rest_is_unchanged(clips, model):
    walk = clips["walk"]
    made = redo(model, walk, "a person runs forward", 1.5, 2.5)
    assert len(made.smplx85) == len(walk.smplx85) and made.title == "walk | a person runs forward"
    np.testing.assert_array_equal(made.smplx85[:45], walk.smplx85[:45])
    np.testing.assert_array_equal(made.smplx85[75:], walk.smplx85[75:])
    assert np.abs(made.joints() - walk.joints())[45:75].max() > 0.1
    longer = redo(model, walk, "a person waves with both hands", 0.0, 1.0, seconds=2.0)
    np.testing.assert_array_equal(longer.smplx85[60:], walk.smplx85[30:])


def test_the_rest_of_the_body_is_generated_around_kept_joints(clips, model):
    wave = clips["wave_both_hands"]
    made = complete(model, wave, ["upper_body"], "a person walks forward")
    np.testing.assert_allclose(rotations_of(made)[:, UPPER], rotations_of(wave)[:, UPPER], atol=1e-6)
    assert len(made.smplx85) == len(wave.smplx85)
    travel = made.motion()[1][-1] - wave.motion()[1][0]
    assert np.hypot(travel[0], travel[2]) > 0.5
    assert travel @ (np.sin(1.0), 0, np.cos(1.0)) > 0.3, "it walks where the given motion faces"


# The script


@pytest.fixture
def files(clips, tmp_path) -> dict[str, Path]:
    """Motion files, and a file that does not exist yet."""
    for name in ("walk", "wave_both_hands"):
        write_npz(tmp_path / f"{name}.npz", clips[name])
    write_npz(tmp_path / "pose.npz", trim(clips["walk"], 0, 1 / FPS))
    return {path.stem: path for path in (*tmp_path.iterdir(), tmp_path / "out.npz")}


@pytest.mark.parametrize(
    ("command", "frames"),
    [
        ("trim walk out --from 1 --to 2.5", 45),
        ("mirror walk out", 156),
        ("speed walk out --seconds 2", 60),
        ("in-place walk out --heading", 156),
        ("join walk wave_both_hands walk out", 372),
        ("combine wave_both_hands walk out --joints arms,head --from 1", 156),
    ],
)
def test_script_writes_the_edited_motion(command, frames, files, run_here):
    words = [files.get(word, word) for word in command.split()]
    assert run_here("edit_motion.py", *words) == f"{files['out']}\n"
    assert len(read_clip(files["out"]).smplx85) == frames


def test_script_writes_loops_and_samples_in_any_format(files, run_here, tmp_path):
    run_here("edit_motion.py", "loop", files["walk"], tmp_path / "loop.bvh", "--in-place", "--seconds", 6)
    assert len(read_clip(tmp_path / "loop.bvh").smplx85) >= 180
    printed = run_here("edit_motion.py", "redo", files["walk"], files["out"], "--from", 4, "--samples", 2, "--seed", 3,
                       "--prompt", "a person waves with both hands")  # fmt: skip
    assert printed.splitlines()[1:] == [str(tmp_path / f"out_seed{seed}.npz") for seed in (3, 4)]
    first, second = (read_clip(tmp_path / f"out_seed{seed}.npz").smplx85 for seed in (3, 4))
    np.testing.assert_array_equal(first[:120], second[:120])
    assert np.abs(first - second).max() > 0.1


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("trim walk out --from 7", "outside the motion of 5.20 s"),
        ("trim walk out --from 2 --to 1", "holds no frame"),
        ("speed walk out --factor 0", "above 0"),
        ("speed walk out --factor 1000", "0 frames"),
        ("speed pose out --factor 2", "has 1 frame"),
        ("loop pose out", "has 1 frames; a loop"),
        ("join walk pose out", "too short to be joined"),
        ("combine walk walk out --joints wings", "wings is unknown"),
        ("combine walk walk out --joints full_body", "leaves nothing"),
        ("combine walk walk out --joints legs,pelvis --from 1", "exchange the two"),
        ("redo walk out --prompt dance --from 9", "outside the motion"),
        ("redo walk out --prompt dance", "the whole motion"),
        ("mirror walk walk --overwrite", "is one of those"),
        ("mirror walk", "1 files are given; give INPUT OUTPUT"),
        ("mirror walk pose", "exists already"),
        ("mirror walk out.txt", "no suffix that can be written"),
        ("mirrored walk out", "is no command"),
    ],
)
def test_script_refuses_bad_input_in_one_sentence(command, message, files, refused):
    assert message in refused("edit_motion.py", *(files.get(word, word) for word in command.split()))
    assert not files["out"].exists()
