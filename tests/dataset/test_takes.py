"""Takes: cuts, loops, windows, copies, names and splits."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from dataset.captions import CaptionRules
from dataset.sources.labelled import convert_takes, plan_labelled
from dataset.splits import MIRRORED, split_of
from dataset.takes import Part, Take, copies, shares, tiles
from motion.features272 import heading_angle
from motion.rotation import y_rotation
from utils.errors import InputError

RULES = {
    "pattern": r"set_(?P<content>[a-z]+)_(?P<style>[a-z]+)_\d+",
    "labels": {"go": "walk"},
    "contents": {"walk": ["walks", "goes on foot"], "jump": ["jumps"], "roll": ["rolls"]},
    "styles": {"glad": ["gladly"]},
    "templates": ["a person {content} {style}"],
    "templates_without_style": ["a person {content}", "{command}", "someone is {gerund}"],
    "continuous": ["walk"],
    "balance": 10,
    "takes": {
        "ual/roll": [{"content": "roll"}],
        "other/roll": [{"content": "roll", "from": 0.5, "to": 1.5}, {"content": "walk"}],
    },
}


def motion(frames: int) -> tuple[np.ndarray, np.ndarray]:
    """A walk on a quarter circle, 1 m per second."""
    heading = np.linspace(0, np.pi / 2, frames)
    rotations = np.tile(np.eye(3), (frames, 22, 1, 1))
    rotations[:, 0] = y_rotation(heading)
    steps = np.stack((np.sin(heading), np.zeros(frames), np.cos(heading)), axis=1) / 30
    return rotations, np.cumsum(steps, axis=0) + (0, 1, 0)


def plan(rules: dict, names: list[str], seconds: float = 20.0):
    files = {name: Path("source") / f"{name}.bvh" for name in names}
    options = SimpleNamespace(mirrored=True, captions_per_clip=4, split_of=split_of)
    return plan_labelled(files, CaptionRules(**rules), print, lambda file: seconds, options)


def test_part_is_cut_windowed_and_stretched():
    rotations, pelvis = motion(120)
    cut, path = Part(Take("jump", start=1, end=3)).of(rotations, pelvis)
    np.testing.assert_allclose(path, pelvis[30:90])
    _, window = Part(Take("walk", start=1), (0.5, 1.5)).of(rotations, pelvis)
    np.testing.assert_allclose(window, pelvis[45:75])
    _, slow = Part(Take("jump", start=1, end=3), speed=0.8).of(rotations, pelvis)
    assert len(slow) == int(59 / 0.8) + 1
    np.testing.assert_allclose(slow[[0, 5, 10]], path[[0, 4, 8]], atol=1e-9)
    with pytest.raises(InputError, match="beyond the end"):
        Part(Take("jump", start=9)).of(rotations, pelvis)


def test_rounds_of_a_loop_continue_place_and_heading():
    rotations, pelvis = motion(61)
    twice, path = Part(Take("walk", repeat=4)).of(rotations, pelvis)
    assert len(path) == 4 * 60 + 1
    np.testing.assert_allclose(path[240], path[0], atol=0.05)  # four quarter circles
    turned = np.unwrap(heading_angle(twice[:, 0]))
    np.testing.assert_allclose(np.diff(turned), np.pi / 2 / 60, atol=1e-6)
    assert np.linalg.norm(np.diff(path, axis=0), axis=1).max() < 1.01 / 30


def test_ends_of_a_loop_are_closed_and_speed_is_added():
    rotations, pelvis = np.tile(np.eye(3), (31, 22, 1, 1)), np.tile([0.0, 1.0, 0.0], (31, 1))
    rotations[:, 5] = y_rotation(np.linspace(0, 0.3, 31))
    twice, path = Part(Take("walk", repeat=2, forward=1.5)).of(rotations, pelvis)
    assert np.abs(np.diff(twice, axis=0)).max() < 0.02
    np.testing.assert_allclose(path[-1], (0, 1, 3.0), atol=1e-6)


def test_copies_have_even_speeds_and_windows_inside_the_take():
    parts = list(copies(Take("walk"), "name", 20, 12.0))
    assert parts == list(copies(Take("walk"), "name", 20, 12.0)) != list(copies(Take("walk"), "other", 20, 12.0))
    assert all(first >= 0 and last <= 12 and 3 <= last - first <= 8 for first, last in (part.window for part in parts))
    assert len({part.window for part in parts}) == 20
    speeds = [part.speed for part in parts]
    assert min(speeds) >= 0.87 and max(speeds) <= 1.15
    np.testing.assert_allclose(np.diff(speeds), 0.28 / 20, atol=2e-4)
    assert all(part.window is None for part in copies(Take("jump"), "name", 5))
    assert len(tiles(Take("walk"), 9.0)) == 1
    assert [part.window for part in tiles(Take("walk"), 20.0)] == [(0, 5), (5, 10), (10, 15), (15, 20)]
    assert shares(["a", "b"], [1, 3], 8) == [2, 6] and sum(shares(["a", "b", "c"], [1, 1, 1], 10)) == 10


def test_contents_are_balanced_and_rare_ones_are_trained_on():
    made = plan(RULES, ["ual/roll", "other/roll", "set/set_go_glad_001"])
    assert not made.splits["val"] and not made.splits["test"] and not made.left_out
    trained = [name for name in made.splits["train"] if not name.endswith(MIRRORED)]
    assert {"ual_roll_0", "other_roll_0", "other_roll_1_part3", "set_go_glad_001_part0"} <= set(trained)
    assert len(made.splits["train"]) == 2 * len(trained) == 2 * 20  # of two contents
    assert [(action.name, len(action.clips)) for action in made.actions] == [("walk", 10), ("jump", 0), ("roll", 10)]
    cuts = {cut.clip_id: cut for task in made.tasks for cut in task.cuts}
    assert cuts.keys() == set(made.splits["train"]) and cuts["ual_roll_0"].part == Part(Take("roll"))
    assert all("gladly" in line for line in cuts["set_go_glad_001_part0"].lines)
    assert made.tasks == plan(RULES, ["ual/roll", "other/roll", "set/set_go_glad_001"]).tasks


def test_splits_follow_the_hash_of_the_file_and_only_training_clips_have_copies():
    names = [f"set_jump_glad_{number:03d}" for number in range(60)]
    made = plan(RULES | {"takes": {}, "balance": 80}, names)
    for split in ("val", "test"):
        assert made.splits[split] == [name for name in names if split_of(name) == split]
    assert made.splits["val"] + made.splits["test"]
    assert sum(not name.endswith(MIRRORED) for name in made.splits["train"]) == 80


def test_files_without_labels_and_takes_without_file_are_left_out():
    made = plan(RULES, ["ual/roll", "ual/unknown", "ual/set_fly_glad_001"])
    assert set(made.left_out) == {"ual/unknown", "ual/set_fly_glad_001", "other/roll"}
    with pytest.raises(InputError, match="two files have the clip set_go_glad_001"):
        plan(RULES, ["a/set_go_glad_001", "b/set_go_glad_001"], seconds=2.0)


def test_clips_of_a_task_are_converted_and_short_ones_rejected():
    rules = RULES | {"balance": 0, "takes": {"ual/roll": [{"content": "roll"}, {"content": "roll", "to": 0.2}]}}
    (task,) = plan(rules, ["ual/roll"]).tasks
    clips = list(convert_takes(task, *motion(60), SimpleNamespace(min_frames=16)))
    assert [clip.clip_id for clip in clips] == ["ual_roll_0", "ual_roll_0_mirrored", "ual_roll_1"]
    assert clips[0].features.shape == (60, 272) and "6 frames" in clips[2].rejected


@pytest.mark.parametrize(
    "entry, words",
    [
        ({}, "content"),
        ({"content": "roll", "until": 3}, "no keys but"),
        ({"content": "roll", "from": 3, "to": 2}, "from is before to"),
        ({"content": "roll", "from": "x"}, "from is before to"),
        ({"content": 3}, "are texts"),
        ({"content": "roll", "repeat": 0}, "repeat is a number"),
        ({"content": "roll", "forward": -1}, "metres per second"),
    ],
)
def test_invalid_takes_are_refused(entry, words):
    with pytest.raises(InputError, match=words):
        CaptionRules(**RULES | {"takes": {"ual/roll": [entry]}})
