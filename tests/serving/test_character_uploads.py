"""Characters over HTTP: uploads, poses, motion on them, and their limits."""

import contextlib
import os
import re

import httpx2 as httpx
import pytest

from characters.character import load_character
from formats.gltf_file import read_gltf
from serving import characters as characters_module
from serving import rigging
from tests.conftest import children_of
from tests.rigs import MIXAMO, UNREAL, Rig, write_rig
from tests.serving.helpers import generate, until, visitor

GLB = {"content-type": "model/gltf-binary"}


def send(client, content: bytes, **headers):
    return client.post("/api/v1/character", content=content, headers=GLB | headers)


def test_motion_comes_back_on_the_character_that_was_sent(server, model, tmp_path):
    client, _ = server()
    client.timeout = 300
    model.go.set()
    rig = write_rig(tmp_path / "hero.glb", Rig(UNREAL, arms=45, legs=1.2, scale=100.0))
    facts = send(client, rig.read_bytes()).json()
    character = load_character(rig)
    assert facts["bones"] == len(character.skeleton.names) and facts["scale"] == pytest.approx(character.scale)
    done = generate(client, ["walk"])[-1]
    url = f"/api/v1/motion/{done['done']}/{done['names'][0]}"
    (tmp_path / "out.glb").write_bytes(client.get(f"{url}.glb", params=facts).content)
    written = read_gltf(tmp_path / "out.glb")
    assert [animation["name"] for animation in written.items("animations")] == ["walk"]
    assert written.items("nodes") == read_gltf(rig).items("nodes")
    assert client.get(f"{url}.bvh", params=facts).status_code == 400
    gone = client.get(f"{url}.glb", params={"character": "guess"})
    assert gone.status_code == 404 and "send it again" in gone.json()["error"]


def test_uploads_that_are_no_character_are_refused_in_one_sentence(server, model, tmp_path, monkeypatch):
    client, _ = server()
    client.timeout = 300
    good = write_rig(tmp_path / "hero.glb", Rig(MIXAMO)).read_bytes()
    faults = {
        b"": "no glTF|cut off|JSON",
        good[:500]: "cut off",
        write_rig(tmp_path / "armless.glb", Rig(UNREAL, missing=("left_elbow", "left_wrist"))).read_bytes(): "left",
    }
    for content, words in faults.items():
        answer = send(client, content)
        assert answer.status_code == 400, answer.text
        sentence = answer.json()["error"]
        assert re.search(words, sentence) and str(tmp_path.parent) not in sentence, sentence
        assert "/tmp" not in sentence and "motion-app" not in sentence
    assert client.post("/api/v1/character", content=good).status_code == 415
    monkeypatch.setattr(characters_module, "SECONDS", 0.01)
    assert "took more than" in send(client, good).json()["error"]
    until(lambda: not children_of(os.getpid(), "serving.rigging"))


def test_size_and_number_of_characters_are_bounded(server, model, tmp_path, monkeypatch):
    client, _ = server()
    client.timeout = 300
    good = write_rig(tmp_path / "hero.glb", Rig(MIXAMO)).read_bytes()
    big = visitor(2, client.base_url)
    with contextlib.suppress(httpx.TransportError):  # the connection may close before the answer is read
        answer = big.post("/api/v1/character", headers=GLB, content=bytes(33 * 2**20))
        assert answer.status_code == 413 and "longer than" in answer.json()["error"]
    assert len(send(client, good).json()["character"]) > 16  # others are served
    monkeypatch.setattr(characters_module, "KEPT_BYTES", 2 * len(good))
    tokens = [send(client, good).json()["character"] for _ in range(3)]
    kept = [client.post("/api/v1/generate", json={"prompts": ["a"], "constraints": constraints(token)}).json()["error"]
            for token in tokens]  # fmt: skip
    assert "no longer available" in kept[0] and "no animation" in kept[1] and "no animation" in kept[2]


def constraints(token: str) -> dict:
    return {"length": 1, "keyframes": [{"time": 0.5, "pose": {"file": token, "frame": -1}}]}


def test_a_character_with_too_many_bones_is_refused(tmp_path, monkeypatch):
    write_rig(tmp_path / "character.glb", Rig(MIXAMO))
    monkeypatch.setattr(rigging, "MAX_BONES", 10)
    monkeypatch.setattr("resource.setrlimit", lambda *_: None)
    assert rigging.main({"folder": str(tmp_path), "title": None}) == 2
    assert "at most 10" in (tmp_path / "error.txt").read_text()
