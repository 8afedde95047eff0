"""The web app over HTTP with a model whose pace the test controls: limits, turns, visitors that leave, downloads."""

import json
import socket
import threading
import time
from types import SimpleNamespace

import httpx2 as httpx
import numpy as np
import pytest

from formats.clip import read_clip
from formats.import_options import ImportOptions
from models.known import Closest
from models.pipeline import DEFAULT_SAMPLING
from models.sampling import resolve_guidance
from motion.clip import Clip
from serving import service as service_module
from serving.edits import EditRequest
from serving.options import Options
from serving.requests import GenerationRequest
from serving.schemas import GenerateBody, RedoBody, checked
from tests.serving.helpers import CHUNKS, generate, until, visitor
from visualize.page import APP_SCRIPTS


def test_frames_are_streamed_and_results_can_be_downloaded(server, model, tmp_path):
    client, service = server()
    lines = []
    with client.stream(
        "POST", "/api/v1/generate", json={"prompts": ["walk <b>", "wave"], "variations": 2, "seed": 5}
    ) as answer:
        rows = answer.iter_lines()
        token = json.loads(next(rows))["motion"]
        model.go.set()
        lines.append(json.loads(next(rows)))
        assert lines[0]["variation"] == 0 and "rotations" in lines[0] and "floor" in lines[0]
        lines += map(json.loads, rows)
    chunks = [line for line in lines if "rotations" in line]
    assert [chunk["variation"] for chunk in chunks] == [0, 1] * (2 * CHUNKS)
    assert sum("floor" in chunk for chunk in chunks) == 2
    done = lines[-1]
    assert done["done"] == token and not done["stopped"]
    assert done["names"] == [
        f"{name}_seed{seed}" for name, seed in zip([done["names"][0][:-6]] * 2, (5, 6), strict=True)
    ]
    until(lambda: not service.queue and len(model.closed) == 2)
    for kind in ("npz", "bvh", "glb", "mp4"):
        answer = client.get(f"/api/v1/motion/{done['done']}/{done['names'][1]}.{kind}")
        assert answer.status_code == 200 and "attachment" in answer.headers["content-disposition"]
        assert "<" not in answer.headers["content-disposition"]
        (tmp_path / f"clip.{kind}").write_bytes(answer.content)
    exported = read_clip(tmp_path / "clip.bvh", options=ImportOptions(force=True))  # of a random model
    assert len(read_clip(tmp_path / "clip.npz").smplx85) == len(exported.smplx85) == 60
    assert read_clip(tmp_path / "clip.npz").smplx85[0, 3] == pytest.approx(0.6)  # from seed 6
    assert (tmp_path / "clip.glb").read_bytes()[:4] == b"glTF" and (tmp_path / "clip.mp4").stat().st_size > 1000
    name = done["names"][0]
    for path in (
        f"{done['done']}/other.bvh",
        f"{done['done']}/{name}.exe",
        f"guess/{name}.bvh",
        f"..%2f..%2fapp/{name}.py",
    ):
        assert client.get(f"/api/v1/motion/{path}").status_code == 404


def test_requests_beyond_the_limits_are_refused(server, model):
    client, service = server(sentences=2, variations=3, seconds=5)
    model.go.set()
    bad = [
        ([], {}, "sentences"),
        (["a"] * 3, {}, "sentences"),
        (5, {}, "prompts: input should be a valid list"),
        ("walk |", {}, "prompt"),
        ("walk | wave | run", {}, "sentences"),
        ([" "], {}, "prompt"),
        (["x" * 10_000], {}, "characters"),
        (["x" * 600] * 2, {}, "1203 characters"),
        ([5], {}, "prompts.0"),
        (["walk"], {"length": 3}, "length"),
        (["walk"], {"variations": 4}, "variations"),
        (["walk"], {"variations": 1.5}, "variations"),
        (["walk"], {"variations": True}, "variations"),
        (["walk"], {"seed": -1}, "seed"),
        (["walk"], {"seed": "0"}, "seed"),
        (["walk"], {"temperature": 9}, "temperature"),
        (["walk"], {"temperature": 1e-300}, "temperature"),
        (["walk"], {"temperature": 5e-324}, "temperature"),
        (["walk"], {"temperature": 0.001}, "temperature"),
        (["walk"], {"guidance": 99}, "guidance"),
        (["walk"], {"guidance": 1e308}, "guidance"),
        (["walk"], {"seconds": 5.1}, "seconds"),
        (["walk"], {"seconds": 0}, "seconds"),
        (["walk"], {"seconds": ""}, "seconds"),
    ]
    for prompts, values, word in bad:
        answer = client.post("/api/v1/generate", json={"prompts": prompts} | values)
        assert answer.status_code == 400 and word in answer.json()["error"], (prompts, values, answer.text)
    json_type = {"content-type": "application/json"}
    for content, headers, status in (
        (b"{", json_type, 400),
        (b"[" * 10_000, json_type, 400),
        (b'{"prompts": ["a"], "seed": ' + b"9" * 10_000 + b"}", json_type, 400),
        (b'{"prompts": ["\\ud800"]}', json_type, 400),
        (b'{"prompts": ["a"], "guidance": Infinity}', json_type, 400),
        (b'{"prompts": ["a"], "guidance": 1e999}', json_type, 400),
        (b'{"prompts": ["a"], "temperature": NaN}', json_type, 400),
        (b'"walk"', json_type, 400),
        (b" " * 30_000, json_type, 413),
        (b'{"prompts": ["walk"]}', {"content-type": "text/plain"}, 415),
        (b'{"prompts": ["walk"]}', {"content-type": "text/plain; application/json"}, 415),
        (b'{"prompts": ["walk"]}', {"content-type": "application/json; charset=utf-16"}, 415),
        (b'{"prompts": ["walk"]}', json_type | {"host": "elsewhere.example"}, 400),
    ):
        assert client.post("/api/v1/generate", content=content, headers=headers).status_code == status
    assert generate(client, ["impossible"])[-1] == {"error": "this cannot be generated", "code": "invalid"}
    assert model.made == [] and not service.queue


def test_visitors_are_served_in_turns_and_others_wait(server, model):
    client, service = server(running=2, waiting=1)
    answers = {}

    def visit(name, number):
        with visitor(number, client.base_url) as own:
            answers[name] = generate(own, [name])

    threads = []
    for number, name in enumerate(("first", "second", "third"), 1):
        threads.append(threading.Thread(target=visit, args=(name, number)))
        threads[-1].start()
        until(lambda: len(service.queue) == len(threads))
    full = client.post("/api/v1/generate", json={"prompts": ["fourth"]})
    assert full.status_code == 503 and full.headers["retry-after"] == "60"
    assert "too many visitors" in full.json()["error"] and full.json()["code"] == "full"
    model.go.set()
    for thread in threads:
        thread.join(20)
    assert model.made[2 * CHUNKS :] == ["third"] * CHUNKS
    together = "".join(name[0] for name in model.made[: 2 * CHUNKS])
    assert "fff" not in together and "sss" not in together  # no visitor is served to the end before another starts
    assert answers["third"][0] == {"waiting": 1}
    assert all("done" in answer[-1] for answer in answers.values())


def test_without_a_queue_one_visitor_is_served_at_a_time(server, model):
    client, service = server(running=1, waiting=0)
    with client.stream("POST", "/api/v1/generate", json={"prompts": ["walk"]}):
        until(lambda: service.queue)
        with httpx.Client(base_url=client.base_url) as other:
            assert other.post("/api/v1/generate", json={"prompts": ["run"]}).status_code == 503
        model.go.set()
    until(lambda: not service.queue)
    done = generate(client, ["walk"])[-1]
    path = f"/api/v1/motion/{done['done']}/{done['names'][0]}.npz"
    assert client.get(path).status_code == 200
    service.downloads.places.take("elsewhere")
    assert client.get(path).status_code == 503


def test_one_address_cannot_occupy_all_places(server, model):
    client, service = server(running=2, waiting=1, per_address=9)
    with (
        visitor(1, client.base_url) as second,
        visitor(2, client.base_url) as other,
        client.stream("POST", "/api/v1/generate", json={"prompts": ["walk"]}),
        second.stream("POST", "/api/v1/generate", json={"prompts": ["run"]}) as waiting,
    ):
        rows = waiting.iter_lines()
        assert "motion" in json.loads(next(rows))
        assert json.loads(next(rows)) == {"waiting": 1}  # though two can be served
        with visitor(1, client.base_url) as third:
            used = third.post("/api/v1/generate", json={"prompts": ["jump"]})
            assert used.status_code == 429 and "your network address" in used.json()["error"]
        with other.stream("POST", "/api/v1/generate", json={"prompts": ["hop"]}):
            until(lambda: [queued.served for queued in service.queue] == [True, False, True])
        model.go.set()
    until(lambda: not service.queue and not service.places.taken)


def test_visitor_that_leaves_stops_its_generation(server, model):
    client, service = server(running=1)
    chunks = threading.Semaphore(0)  # that the model may make
    model.go = SimpleNamespace(wait=lambda seconds: chunks.acquire(timeout=seconds), set=lambda: chunks.release(100))

    def has_ended() -> bool:
        time.sleep(0.2)  # the model is slower than the news that the visitor has left
        chunks.release()
        return not service.queue and model.closed == ["walk"]

    with visitor(1, client.base_url) as first, visitor(1, client.base_url) as second:
        with first.stream("POST", "/api/v1/generate", json={"prompts": ["walk"] * 6}) as answer:
            until(lambda: service.queue)
            with second.stream("POST", "/api/v1/generate", json={"prompts": ["run"]}) as waiting:
                rows = waiting.iter_lines()
                assert "motion" in json.loads(next(rows)) and json.loads(next(rows)) == {"waiting": 1}
            until(lambda: len(service.queue) == 1)  # the waiting visitor has left
            chunks.release()
            rows = answer.iter_lines()
            assert "motion" in json.loads(next(rows)) and "rotations" in json.loads(next(rows))
        until(has_ended)
        model.go.set()
    assert len(model.made) < 6 * CHUNKS and "run" not in model.made
    assert "done" in generate(client, ["next"])[-1]  # the service continues


def test_oldest_results_are_dropped(server, model, monkeypatch):
    monkeypatch.setattr(service_module, "KEPT_RESULTS", 2)
    client, service = server()
    model.go.set()
    lines = [generate(client, ["walk"])[-1] for _ in range(3)]
    tokens = [line["done"] for line in lines]
    assert list(service.results) == tokens[1:]
    assert client.get(f"/api/v1/motion/{tokens[0]}/{lines[0]['names'][0]}.bvh").status_code == 404
    assert client.get(f"/api/v1/motion/{tokens[1]}/{lines[1]['names'][0]}.bvh").status_code == 200


def test_sentences_far_from_the_training_are_named_before_the_motion(server, model):
    model.near = {text: Closest(text, "a person jumps", value) for text, value in (("fly", 0.4), ("hop", 0.9))}
    client, _ = server()
    model.go.set()
    [line] = [line for line in generate(client, ["hop", "fly"]) if "far" in line]
    assert line["far"] == [{"sentence": "fly", "closest": "a person jumps", "similarity": 0.4}]
    assert not any("far" in line for line in generate(client, ["hop"]))
    body = checked(RedoBody, {"motion": "token", "from": 0.2, "to": 1, "prompt": "fly"})
    clips = {"walk": Clip(np.zeros((60, 85)), "walk")}
    assert EditRequest.parse_redo(body, lambda token: clips, Options(), model).sentences == ("fly",)


def test_page_runs_only_its_own_scripts(server):
    client, _ = server()
    answer = client.get("/")
    page = answer.text
    assert "frame-ancestors 'none'" in answer.headers["content-security-policy"]
    assert "frame-ancestors 'none'" in client.get("/api/v1/motion/a/b.npz").headers["content-security-policy"]
    assert "Content-Security-Policy" in page and "unsafe" not in page.split("</title>")[0]
    assert page.count("<script>") == 2 + len(APP_SCRIPTS)


def guidance_of(body, options, model) -> float:
    defaults = resolve_guidance(model.generator, DEFAULT_SAMPLING)
    return GenerationRequest.parse(body, options, model, defaults).sampling.guidance


def test_guidance_is_used_only_if_the_model_was_trained_for_it(model):
    body, options = GenerateBody(prompts=["walk"], guidance=3), Options()
    assert guidance_of(body, options, model) == 3
    model.generator.config.text_dropout = 0.0
    assert guidance_of(body, options, model) == 1


def test_invalid_options_are_refused(refused):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        assert "cannot listen" in refused("app.py", "--port", taken.getsockname()[1])
    assert "--port" in refused("app.py", "--port", 70000)
    assert "--running" in refused("app.py", "--running", 0)
    assert "--trusted-proxy" in refused("app.py", "--trusted-proxy", "proxy.example")
    assert "--waiting" in refused("app.py", "--waiting", -1)
    assert "checkpoint" in refused("app.py", "--port", 0, "--checkpoint", "nowhere")
