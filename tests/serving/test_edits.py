"""Constraints, lengths per sentence, and edits of finished motions in requests to the web app."""

import json

import numpy as np
import pytest

from control.constraints import Constraints
from motion.clip import Clip
from motion.skeleton import JOINTS
from serving.service import Result
from tests.serving.helpers import generate
from visualize.skin import quaternions

STANDING = [0.0] * 73 + [0.95] + [0.0] * 11  # a row of smplx_85


def keyframe(time=1.0, **values):
    return {"time": time, "pose": [STANDING], "place": "file"} | values


def refused(client, path="/api/v1/generate", **values) -> str:
    """The sentence with which a request is refused."""
    answer = client.post(path, json=values if "motion" in values else {"prompts": ["walk"]} | values)
    assert answer.status_code == 400, answer.text
    return answer.json()["error"]


def test_lengths_and_constraints_reach_the_model(server, model):
    client, _ = server()
    model.go.set()
    constraints = {"path": {"points": [[1, 0], [1, 2]]}, "keyframes": [keyframe(2.5, place=[1, 1])]}
    lines = generate(client, ["walk", "wave"], seconds=[3, None], constraints=constraints)
    assert {line["part"] for line in lines if "rotations" in line} == {0, 1}
    (seconds, asked), *_ = model.asked
    assert seconds == [3, None] and isinstance(asked, Constraints)
    assert asked.placement[:2] == (1, 0) and asked.keyframes[0].time == 2.5
    generate(client, ["walk", "wave"], seconds=2, variations=2)
    assert model.asked[1:] == [([2, 2], None)] * 2


@pytest.mark.parametrize(
    ("constraints", "word"),
    [
        ([], "constraints"),
        ({"route": {}}, "route"),
        ({"keyframes": [{"time": 1, "pose": {"file": "/etc/passwd"}}]}, "no longer available"),
        (
            {"keep": [{"from": 0, "to": 1, "motion": {"file": "checkpoints/demo/model.safetensors"}}]},
            "no longer available",
        ),
        ({"keyframes": [keyframe(pose=[STANDING[:-1]])]}, "1 row of 84 values"),
        ({"keyframes": [keyframe(pose=[[*STANDING[:-1], "1"]])]}, "number"),
        ({"keyframes": [keyframe(pose=[[*STANDING[:-1], 1e9]])]}, "1e\\+09|value"),
        ({"keyframes": [keyframe(-1)]}, "time"),
        ({"keyframes": [keyframe(4)]}, "keyframe at 4 s|a constraint is at 4.0 s"),
        ({"keyframes": [keyframe(1 + number / 100) for number in range(17)]}, "17 constraints"),
        ({"keyframes": [keyframe(1, place=[0, 0]), keyframe(1, place=[0, 1])]}, "keyframe at 1 s"),
        ({"keyframes": [keyframe(0, place=[0, 0]), keyframe(0.2, place=[9, 0])]}, "keyframe at 0.2 s"),
        ({"path": {"points": [[0, 0]]}}, "two points"),
        ({"path": {"points": [[0, 0], [0, None]]}}, "number"),
        ({"path": {"points": [[0, 0.01 * number] for number in range(65)]}}, "65 points"),
        ({"path": {"points": [[0, 0], [0, 50]]}}, "50 m"),
        ({"length": 9}, "length|9"),
    ],
)
def test_unusable_constraints_are_refused(server, model, constraints, word):
    client, service = server()
    sentence = refused(client, seconds=3, constraints=constraints)
    assert any(part.replace("\\", "") in sentence for part in word.split("|")), sentence
    assert not service.queue and not model.asked


def test_constraints_beyond_the_longest_motion_are_refused(server, model):
    client, _ = server(seconds=5)
    assert "at most 5.0 s" in refused(client, constraints={"keyframes": [keyframe(7)]})
    assert "number" in refused(client, seconds=[9])
    assert "2 lengths" in refused(client, seconds=[1, 1])
    assert "seconds" in refused(client, seconds=["3"])
    assert client.post("/api/v1/generate", json={"prompts": ["a"], "constraints": "x" * 30_000}).status_code == 413


def walk(seconds: float = 4.0) -> Clip:
    """Steps on the spot while the body moves forward, one per second."""
    times = np.arange(round(30 * seconds)) / 30
    data = np.zeros((len(times), 85))
    data[:, 3 * 1], data[:, 3 * 2] = 0.4 * np.sin(2 * np.pi * times), -0.4 * np.sin(2 * np.pi * times)
    data[:, 73], data[:, 74] = 0.95, 0.8 * times
    return Clip(data, "someone walks")


def frames_of(lines: list[dict]) -> np.ndarray:
    """(T, 22, 4) rotations of the motion in an answer."""
    import base64

    packed = b"".join(base64.b64decode(line["rotations"]) for line in lines if "rotations" in line)
    return np.frombuffer(packed, "<i2").reshape(-1, JOINTS, 4) / 32767


def edit(client, path, **values) -> list[dict]:
    answer = client.post(path, json=values)
    assert answer.status_code == 200, answer.text
    return [json.loads(line) for line in answer.text.splitlines()]


def test_loop_leads_back_to_its_start(server, model):
    client, service = server()
    service.results["kept"] = Result("127.0.0.1", {"walk_seed0": walk()})
    for travel in (True, False):
        lines = edit(client, "/api/v1/loop", motion="kept", travel=travel)
        rotations, name = frames_of(lines), lines[-1]["names"][0]
        step = np.abs(np.diff(rotations, axis=0)).max()
        assert np.abs(rotations[0] - rotations[-1]).max() < 1.5 * step
        assert len(rotations) % 30 == 0 and name == "someone-walks_loop1"
        kept = service.motion(lines[-1]["done"], name)
        assert np.abs(quaternions(kept.smplx85) - rotations).max() < 1e-3
        travelled = np.ptp(kept.smplx85[:, 74])
        assert travelled > 0.7 * len(rotations) / 30 if travel else travelled < 0.1
    gone = client.post("/api/v1/loop", json={"motion": "guess"})
    assert gone.status_code == 404 and "no longer available" in gone.json()["error"]
    for names in (["walk_seed0", "walk_seed9"], []):
        assert "give some of walk_seed0" in refused(client, "/api/v1/loop", motion="kept", names=names)
    assert "travel" in refused(client, "/api/v1/loop", motion="kept", travel=1)
    service.results["still"] = Result("127.0.0.1", {"walk_seed0": walk(0.2)})
    assert "give a longer" in edit(client, "/api/v1/loop", motion="still")[-1]["error"]
