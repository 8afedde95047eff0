"""inference_batch.py with constraints: records, errors, resuming, refusals before anything is generated."""

import json

import numpy as np
import pytest

from control.files import parse_constraints
from control.report import measure
from motion.skeleton import JOINT_INDEX
from motion.smplx import smplx85_to_motion
from tests.inference.helpers import assert_refused, backdate, changed_files, load, results_in

PIN = {"joint": "left_hand", "time": 0.5, "position": [0.3, 1.2, 0.3]}
LINES = [
    {"prompt": "walk", "length": 1, "constraints": {"path": {"points": [[0, 0], [0.3, 0.4]]}}},
    {"prompt": "walk", "length": 1},
    {"prompt": "wave", "constraints": "pins.json", "name": "wave"},
]


@pytest.fixture
def prompts(tmp_path):
    """A prompt file with two constrained prompts and a free one."""
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "pins.json").write_text(json.dumps({"length": 1, "pins": [PIN]}))
    file = tmp_path / "in" / "prompts.jsonl"
    file.write_text("\n".join(map(json.dumps, LINES)))
    return file


def test_results_record_constraints_and_errors(run, prompts, tmp_path):
    assert run("--prompts", prompts)[0] == 0
    path, free, wave = results_in(tmp_path / "out")
    assert "constraints" not in free and "constraints" not in load(tmp_path / "out" / f"{free['name']}.npz")
    assert [each["name"] for each in path["constraint_errors"]] == ["the path", "the end of the path"]
    assert wave["constraints"]["pins"] == [{**PIN, "joint": "left_wrist"}]
    assert wave["seconds"] == pytest.approx(1, abs=0.1)
    saved = load(tmp_path / "out" / "wave.npz")
    assert json.loads(str(saved["constraints"])) == wave["constraints"]
    distance = np.linalg.norm(saved["joints"][15, JOINT_INDEX["left_wrist"]] - PIN["position"])
    assert wave["constraint_errors"][0]["error"] == pytest.approx(distance, abs=1e-3)
    again = measure(parse_constraints(wave["constraints"]), *smplx85_to_motion(saved["smplx_85"]))
    assert [each.to_dict() for each in again] == wave["constraint_errors"]


def test_resuming_notices_changed_constraints_and_motion_files(run, tmp_path):
    row = np.float64([0] * 73 + [0.93] + [0] * 11)
    np.save(tmp_path / "pose.npy", np.tile(row, (2, 1)))
    (tmp_path / "a.yaml").write_text("length: 0.6\nkeyframes: [{time: 0.3, pose: {file: pose.npy}}]")
    arguments = ("--prompt", "walk", "--constraints", "a.yaml")
    run(*arguments)
    before = backdate(tmp_path / "out")
    assert "1 of 1 motions are in" in run(*arguments)[1]
    assert changed_files(tmp_path / "out", before) == {"results.json"}
    np.save(tmp_path / "pose.npy", np.tile(row + 0.1, (2, 1)))
    assert "1 motions are generated again" in run(*arguments)[1]
    (tmp_path / "a.yaml").write_text("length: 0.6\nkeyframes: [{time: 0.4, pose: {file: pose.npy}}]")
    assert "1 motions are generated again" in run(*arguments)[1]
    assert "1 motions are generated again" in run("--prompt", "walk", "--seconds", 0.6)[1]


REFUSED = {
    "two places": ("waypoints: [{time: 1, position: [0, 1]}, {time: 1, position: [1, 1]}]", "is given twice"),
    "outside": ("length: 1\nwaypoints: [{time: 2, facing: 0}]", "the waypoint at 2 s is outside the motion"),
    "beyond the checkpoint": ("waypoints: [{time: 30, facing: 0}]", "last until 30 s"),
    "longer than the checkpoint": ("length: 30", "the length is 30"),
    "file": ("start: {pose: {file: missing.npz}}", "missing.npz"),
    "key": ("pin: []", "did you mean pins?"),
}


@pytest.mark.parametrize(("content", "words"), REFUSED.values(), ids=REFUSED)
def test_bad_constraints_are_refused_before_anything_is_generated(run, prompts, tmp_path, content, words):
    (tmp_path / "bad.yaml").write_text(content)
    (tmp_path / "in" / "pins.json").write_text(json.dumps({"length": 1}))
    prompts.write_text(f'{prompts.read_text()}\n{{"prompt": "walk", "constraints": "../bad.yaml"}}')
    assert_refused(run("--prompts", prompts), words)
    assert_refused(run("--prompt", "walk", "--constraints", "bad.yaml"), words)
    assert not (tmp_path / "out").exists() or list((tmp_path / "out").iterdir()) == []


def test_length_of_prompt_and_constraints_must_agree(run, tmp_path):
    (tmp_path / "a.yaml").write_text("length: 1")
    arguments = ("--constraints", "a.yaml", "--prompt")
    assert_refused(run(*arguments, "walk", "--seconds", 2), "is 2 s and its constraints say 1 s")
    assert run(*arguments, "walk | run", "--seconds", 0.5)[0] == 0  # seconds are of each sentence
