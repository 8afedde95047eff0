"""The HTTP API for programs: JSON answers, streams that are stopped, progress of videos, metrics, health, documents."""

import base64
import json
import threading

import httpx2 as httpx
import numpy as np
import pytest

from motion.clip import Clip
from serving import connections
from serving.edits import EditRequest
from serving.options import Options
from serving.schemas import RedoBody, checked
from serving.service import Result
from tests.serving.helpers import CHUNK, CHUNKS, generate, until
from utils.errors import InputError

JSON = {"accept": "application/json"}
WALK = {"prompts": ["walk"]}


def test_json_answer_names_the_files_of_finished_motions(server, model):
    client, _ = server()
    model.go.set()
    answer = client.post("/api/v1/generate", json=WALK | {"variations": 2, "seed": 5}, headers=JSON)
    assert answer.status_code == 200 and answer.headers["content-type"] == "application/json"
    result = answer.json()
    assert [motion["name"] for motion in result["motions"]] == ["walk_seed5", "walk_seed6"]
    assert result["motions"][0]["frames"] == CHUNK * CHUNKS and result["motions"][0]["seconds"] == 1.0
    assert not result["stopped"] and result["far"] == []
    for kind, path in result["motions"][1]["files"].items():
        if kind != "mp4":
            assert client.get(path).status_code == 200
    looped = client.post("/api/v1/loop", json={"motion": result["motion"]}, headers=JSON)
    assert [motion["name"] for motion in looped.json()["motions"]] == ["walk_loop1", "walk_loop2"]


def test_foot_lock_replaces_the_frames_and_edits_take_the_motions_that_are_named(server, model):
    client, service = server()
    model.go.set()
    *frames, whole, done = generate(client, WALK["prompts"], foot_lock=True, variations=2)
    assert whole["whole"] and whole["variation"] == 1 and not any("whole" in line for line in frames[:-1])
    assert len(base64.b64decode(whole["pelvis"])) == CHUNK * CHUNKS * 3 * 4
    locked, free = (
        service.motions(lines[-1]["done"])["walk_seed0"] for lines in ([done], generate(client, WALK["prompts"]))
    )
    slides = [np.ptp(clip.joints()[:, 10], axis=0).max() for clip in (locked, free)]  # of the left foot
    assert slides[0] < 0.001 < 0.03 < slides[1]
    looped = client.post("/api/v1/loop", json={"motion": done["done"], "names": ["walk_seed1"]}, headers=JSON).json()
    assert [motion["name"] for motion in looped["motions"]] == ["walk_loop1"]
    assert client.post("/api/v1/loop", json={"motion": done["done"], "names": []}, headers=JSON).status_code == 400


def test_one_text_is_taken_as_in_python(server, model):
    client, _ = server()
    model.go.set()
    for prompts, count in (("walk", 1), ("walk | wave", 2)):
        frames = [line for line in generate(client, prompts) if "rotations" in line]
        assert {line["part"] for line in frames} == set(range(count))
    schema = client.get("/api/v1/openapi.json").json()["components"]["schemas"]["GenerateBody"]["properties"]["prompts"]
    assert [each["type"] for each in schema["anyOf"]] == ["string", "array"]
    body = checked(RedoBody, {"motion": "token", "from": 0.2, "to": 1, "prompt": "walk | wave"})
    clips = {"walk": Clip(np.zeros((60, 85)), "walk")}
    assert EditRequest.parse_redo(body, lambda token: clips, Options(), model).sentences == ("walk", "wave")
    with pytest.raises(InputError, match="1 to 1 sentences"):
        EditRequest.parse_redo(body, lambda token: clips, Options(sentences=1), model)


def test_sentences_that_may_not_be_followed_are_told(server, model):
    client, _ = server()
    model.go.set()
    prompts = ["walk", "walk " * 50, "eine Person tanzt"]
    answer = client.post("/api/v1/generate", json={"prompts": prompts}, headers=JSON).json()
    assert answer["cut"] == [prompts[1].strip()] and answer["foreign"] == [prompts[2]] and answer["far"] == []


def test_visitor_that_leaves_before_a_json_answer_stops_its_generation(server, model):
    client, service = server()
    with pytest.raises(httpx.TimeoutException):
        client.post("/api/v1/generate", json=WALK, headers=JSON, timeout=0.5)
    model.go.set()
    until(lambda: not service.queue and model.closed == ["walk"] and not service.places.taken)
    assert len(model.made) < CHUNKS and not service.results


def test_frames_up_to_a_stop_are_kept(server, model):
    client, service = server(running=1)
    with client.stream("POST", "/api/v1/generate", json={"prompts": ["walk"] * 6, "variations": 2}) as answer:
        rows = answer.iter_lines()
        token = json.loads(next(rows))["motion"]
        with client.stream("POST", "/api/v1/generate", json={"prompts": ["run"]}) as waiting:
            queued = waiting.iter_lines()
            second = json.loads(next(queued))["motion"]
            assert client.post(f"/api/v1/motion/{second}/stop").status_code == 204
            assert [json.loads(row) for row in queued][-1]["code"] == "stopped"
        assert client.post(f"/api/v1/motion/{token}/stop").status_code == 204
        model.go.set()
        done = json.loads(list(rows)[-1])
    assert done["done"] == token and done["stopped"] and len(done["names"]) == 2
    assert [len(clip.smplx85) for clip in service.motions(token).values()] == [CHUNK, CHUNK]
    assert client.get(f"/api/v1/motion/{token}/{done['names'][1]}.npz").status_code == 200
    assert client.post(f"/api/v1/motion/{token}/stop").status_code == 404


def test_progress_of_a_video_is_told_while_it_is_drawn(server, model):
    client, service = server()
    service.results["kept"] = Result("127.0.0.1", {"walk": Clip(np.zeros((90, 85)), "walk")})
    path = "/api/v1/motion/kept/walk"
    assert client.get(f"{path}/video").status_code == 404
    answers = []
    drawing = threading.Thread(target=lambda: answers.append(httpx.get(f"{client.base_url}{path}.mp4", timeout=100)))
    drawing.start()
    seen = set()
    while drawing.is_alive():
        progress = client.get(f"{path}/video")
        if progress.status_code == 200:
            assert progress.json()["ahead"] == 0
            seen.add(progress.json()["percent"])
        drawing.join(0.02)
    assert answers[0].status_code == 200 and min(seen) == 0 and max(seen) <= 100
    assert len(seen) > 3, seen
    assert client.get(f"{path}/video").status_code == 404


def test_formats_and_limits_are_told(server, model):
    client, _ = server(sentences=3, jobs_per_minute=7)
    assert [each["kind"] for each in client.get("/api/v1/formats").json()] == ["bvh", "glb", "npz", "mp4"]
    limits = client.get("/api/v1/limits").json()
    assert limits["sentences"] == 3 and limits["jobs_per_minute"] == 7 and limits["seconds"] == 10


def test_document_of_the_api_names_every_endpoint_and_its_page_needs_no_network(server, model):
    client, _ = server()
    document = client.get("/api/v1/openapi.json").json()
    paths = document["paths"]
    assert {"/healthz", "/healthz/ready", "/metrics", "/api/v1/character", "/api/v1/generate"} <= set(paths)
    body = paths["/api/v1/generate"]["post"]["requestBody"]["content"]["application/json"]["schema"]["$ref"]
    assert "constraints" in document["components"]["schemas"][body.rpartition("/")[2]]["properties"]
    answers = paths["/api/v1/generate"]["post"]["responses"]
    assert {"application/json", "application/x-ndjson"} <= set(answers["200"]["content"]) and "503" in answers
    assert not any("422" in request["responses"] for path in paths.values() for request in path.values())  # never sent
    page = client.get("/api/v1/docs").text
    assert "https://" not in page
    assert client.get("/api/v1/docs-files/swagger-ui-bundle.js").status_code == 200


def test_metrics_count_motions_and_refusals(server, model):
    client, service = server(running=1, waiting=0)
    service.places.take("elsewhere")
    assert client.post("/api/v1/generate", json=WALK).status_code == 503
    service.places.release("elsewhere")
    model.go.set()
    generate(client, ["walk"])
    client.request("BREW", "/tea")
    text = client.get("/metrics").text
    for line in (
        'motion_jobs_total{outcome="done"} 1.0',
        f"motion_frames_total {CHUNK * CHUNKS}.0",
        'motion_http_requests_total{method="POST",route="/api/v1/generate",status="503"} 1.0',
        'motion_http_requests_total{method="other",route="other",status="404"} 1.0',
        'motion_places_held{kind="waiting"} 0.0',
        "motion_first_frames_seconds_count 1.0",
    ):
        assert line in text, line


def test_server_is_ready_until_its_model_fails(server, model, monkeypatch):
    client, _ = server()
    assert client.get("/healthz").json() == client.get("/healthz/ready").json() == {"status": "ok"}
    for path in ("/", "/healthz", "/healthz/ready"):
        assert (answer := client.head(path)).status_code == 200 and not answer.content
    model.go.set()
    with monkeypatch.context() as broken:
        broken.setattr(model, "_frames", lambda *_: iter([None]))
        assert generate(client, ["walk"])[-1]["code"] == "failed"
    assert client.get("/healthz/ready").status_code == 500 and client.get("/healthz").status_code == 200
    assert "done" in generate(client, ["walk"])[-1]
    assert client.get("/healthz/ready").status_code == 200


def test_errors_have_one_form(server, model):
    client, _ = server()
    for answer, status, code in (
        (client.get("/api/v1/nothing"), 404, "not_found"),
        (client.get("/api/v1/generate"), 405, "not_allowed"),
        (client.post("/api/v1/generate", json={}), 400, "invalid"),
        (client.post("/api/v1/generate", json=[]), 400, "invalid"),
        (client.post("/api/v1/generate", content=b"{}"), 415, "wrong_type"),
        (client.get("/api/v1/motion/a/b/video"), 404, "not_found"),
        (client.get("/%1b[2J/" + "a" * 9000), 404, "not_found"),
        (client.get("/healthz", headers={"host": "elsewhere.example"}), 400, "invalid"),
    ):
        assert answer.status_code == status and answer.json()["code"] == code, answer.text
        assert set(answer.json()) == {"error", "code"}
        assert len(answer.json()["error"]) < 500 and answer.json()["error"].isprintable()
    for host in ("localhost", "127.0.0.1:80", "[::1]:8000"):
        assert client.get("/healthz", headers={"host": host}).status_code == 200


def test_a_name_that_no_host_can_have_is_refused():
    with pytest.raises(InputError, match="another --host"):
        connections.listen("ä" * 70, 0)


def test_addresses_for_all_networks_can_be_opened():
    assert connections.addresses("127.0.0.1", 80) == ["http://127.0.0.1:80"]
    assert connections.addresses("::1", 80) == ["http://[::1]:80"]
    for host, own in (("0.0.0.0", "http://127.0.0.1:80"), ("::", "http://[::1]:80")):
        found = connections.addresses(host, 80)
        assert found[0] == own and not any("0.0.0.0" in each or "[::]" in each for each in found)
