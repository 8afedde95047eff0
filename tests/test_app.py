"""app.py over HTTP with a model whose pace the test controls: limits, turns, visitors that leave, downloads."""

import asyncio
import json
import threading
import time
from dataclasses import dataclass, field
from types import SimpleNamespace

import httpx2 as httpx
import numpy as np
import pytest
import uvicorn

import app as web_app
from app import Options, make_app
from formats.clip import read_clip
from models.pipeline import MotionChunk
from utils.errors import InputError

CHUNK, CHUNKS = 6, 5  # frames per chunk, chunks per sentence


@dataclass
class FakeModel:
    """Replacement for TextToMotion: each chunk waits until ``go`` is set."""

    max_frames: int = 600
    generator: SimpleNamespace = field(
        default_factory=lambda: SimpleNamespace(config=SimpleNamespace(text_dropout=0.1))
    )
    go: threading.Event = field(default_factory=threading.Event)
    made: list[str] = field(default_factory=list)
    closed: list[str] = field(default_factory=list)

    def tokens_of(self, seconds: float) -> int:
        return round(seconds * 30 / 4)

    def stream(self, prompt, seed=0, sampling=None, seconds=None):
        if prompt.sentences[0] == "impossible":
            raise InputError("this cannot be generated")
        return self._frames(prompt.sentences, seed)

    def _frames(self, prompts, seed):
        try:
            for part, prompt in enumerate(prompts):
                for number in range(CHUNKS):
                    assert self.go.wait(20)
                    self.made.append(prompt)
                    data = np.zeros((CHUNK, 85), np.float32)
                    data[:, 73], data[:, 74] = 0.95, part + 0.01 * number
                    data[:, 3] = 0.1 * seed
                    yield MotionChunk(part, np.zeros(1, int), np.zeros((CHUNK, 272)), data, np.zeros((CHUNK, 22, 3)))
        finally:
            self.closed.append(prompts[0])


@pytest.fixture
def model():
    return FakeModel()


@pytest.fixture
def server(model):
    """A function that starts the app with options on a free port and returns (client, service)."""
    running = []

    def start(**options):
        app = make_app(model, Options(**options))
        listener = web_app.socket.create_server(("127.0.0.1", 0))
        server = uvicorn.Server(uvicorn.Config(app, log_level="warning"))
        thread = threading.Thread(target=lambda: asyncio.run(server.serve(sockets=[listener])))
        thread.start()
        client = httpx.Client(base_url=f"http://127.0.0.1:{listener.getsockname()[1]}", timeout=60)
        running.append((server, thread, client))
        return client, app.state.service

    yield start
    model.go.set()
    for server, thread, client in running:
        client.close()
        server.should_exit = True
        thread.join(20)
        assert not thread.is_alive()


def until(condition, seconds: float = 10) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "the condition was not met in time"
        time.sleep(0.01)


def generate(client, prompts, **values) -> list[dict]:
    """All lines of the response to a request."""
    response = client.post("/generate", json={"prompts": prompts} | values)
    assert response.status_code == 200, response.text
    return [json.loads(line) for line in response.text.splitlines()]


def test_frames_are_streamed_and_results_can_be_downloaded(server, model, tmp_path):
    client, service = server()
    lines = []
    with client.stream(
        "POST", "/generate", json={"prompts": ["walk <b>", "wave"], "variations": 2, "seed": 5}
    ) as answer:
        rows = answer.iter_lines()
        model.go.set()
        lines.append(json.loads(next(rows)))
        assert lines[0]["variation"] == 0 and "rotations" in lines[0] and "floor" in lines[0]
        lines += map(json.loads, rows)
    chunks = [line for line in lines if "rotations" in line]
    assert [chunk["variation"] for chunk in chunks] == [0, 1] * (2 * CHUNKS)
    assert sum("floor" in chunk for chunk in chunks) == 2
    done = lines[-1]
    assert done["names"] == [
        f"{name}_seed{seed}" for name, seed in zip([done["names"][0][:-6]] * 2, (5, 6), strict=True)
    ]
    until(lambda: not service.queue and len(model.closed) == 2)
    for kind in ("npz", "bvh", "glb", "mp4"):
        answer = client.get(f"/motion/{done['done']}/{done['names'][1]}.{kind}")
        assert answer.status_code == 200 and "attachment" in answer.headers["content-disposition"]
        assert "<" not in answer.headers["content-disposition"]
        (tmp_path / f"clip.{kind}").write_bytes(answer.content)
    assert len(read_clip(tmp_path / "clip.npz").smplx85) == len(read_clip(tmp_path / "clip.bvh").smplx85) == 60
    assert read_clip(tmp_path / "clip.npz").smplx85[0, 3] == pytest.approx(0.6)  # from seed 6
    assert (tmp_path / "clip.glb").read_bytes()[:4] == b"glTF" and (tmp_path / "clip.mp4").stat().st_size > 1000
    name = done["names"][0]
    for path in (
        f"{done['done']}/other.bvh",
        f"{done['done']}/{name}.exe",
        f"guess/{name}.bvh",
        f"..%2f..%2fapp/{name}.py",
    ):
        assert client.get(f"/motion/{path}").status_code == 404


def test_requests_beyond_the_limits_are_refused(server, model):
    client, service = server(sentences=2, variations=3, seconds=5)
    model.go.set()
    bad = [
        ([], {}, "sentences"),
        (["a"] * 3, {}, "sentences"),
        ("walk", {}, "sentences"),
        ([" "], {}, "prompt"),
        (["x" * 10_000], {}, "characters"),
        (["x" * 600] * 2, {}, "1203 characters"),
        ([5], {}, "prompt"),
        (["walk"], {"variations": 4}, "variations"),
        (["walk"], {"variations": 1.5}, "whole"),
        (["walk"], {"variations": True}, "variations"),
        (["walk"], {"seed": -1}, "seed"),
        (["walk"], {"seed": "0"}, "seed"),
        (["walk"], {"temperature": 9}, "temperature"),
        (["walk"], {"guidance": 99}, "guidance"),
        (["walk"], {"seconds": 5.1}, "seconds"),
        (["walk"], {"seconds": 0}, "seconds"),
        (["walk"], {"seconds": ""}, "seconds"),
    ]
    for prompts, values, word in bad:
        answer = client.post("/generate", json={"prompts": prompts} | values)
        assert answer.status_code == 400 and word in answer.json()["error"], (prompts, values, answer.text)
    json_type = {"content-type": "application/json"}
    for content, headers, status in (
        (b"{", json_type, 400),
        (b"[" * 10_000, json_type, 400),
        (b'{"prompts": ["a"], "temperature": NaN}', json_type, 400),
        (b'"walk"', json_type, 400),
        (b" " * 30_000, json_type, 413),
        (b'{"prompts": ["walk"]}', {"content-type": "text/plain"}, 415),
        (b'{"prompts": ["walk"]}', json_type | {"host": "elsewhere.example"}, 400),
    ):
        assert client.post("/generate", content=content, headers=headers).status_code == status
    assert generate(client, ["impossible"])[-1] == {"error": "this cannot be generated"}
    assert model.made == [] and not service.queue


def test_visitors_are_served_in_turns_and_others_wait(server, model):
    client, service = server(running=2, waiting=1, per_address=9)
    answers = {}

    def visit(name):
        with httpx.Client(base_url=client.base_url, timeout=20) as own:
            answers[name] = generate(own, [name])

    threads = []
    for name in ("first", "second", "third"):
        threads.append(threading.Thread(target=visit, args=(name,)))
        threads[-1].start()
        until(lambda: len(service.queue) == len(threads))
    assert "too many visitors" in generate(client, ["fourth"])[-1]["error"]
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
    with client.stream("POST", "/generate", json={"prompts": ["walk"]}):
        until(lambda: service.queue)
        with httpx.Client(base_url=client.base_url) as other:
            assert "too many visitors" in generate(other, ["run"])[-1]["error"]
        model.go.set()
    until(lambda: not service.queue)
    done = generate(client, ["walk"])[-1]
    path = f"/motion/{done['done']}/{done['names'][0]}.npz"
    assert client.get(path).status_code == 200
    service.downloads = 1
    assert client.get(path).status_code == 503


def test_one_address_cannot_occupy_all_places(server, model):
    client, service = server(per_address=1)
    with client.stream("POST", "/generate", json={"prompts": ["walk"]}):
        until(lambda: service.queue)
        with httpx.Client(base_url=client.base_url) as other:
            assert "address" in generate(other, ["run"])[-1]["error"]


def test_visitor_that_leaves_stops_its_generation(server, model):
    client, service = server(running=1)
    with httpx.Client(base_url=client.base_url, timeout=20) as first, httpx.Client(base_url=client.base_url) as second:
        with first.stream("POST", "/generate", json={"prompts": ["walk"] * 6}) as answer:
            until(lambda: service.queue)
            with second.stream("POST", "/generate", json={"prompts": ["run"]}) as waiting:
                assert json.loads(next(waiting.iter_lines())) == {"waiting": 1}
            until(lambda: len(service.queue) == 1)  # the waiting visitor has left
            model.go.set()
            next(answer.iter_lines())
            model.go.clear()
        model.go.set()
        until(lambda: not service.queue and model.closed == ["walk"])
    assert len(model.made) < 6 * CHUNKS and "run" not in model.made
    assert "done" in generate(client, ["next"])[-1]  # the service continues


def test_oldest_results_are_dropped(server, model, monkeypatch):
    monkeypatch.setattr(web_app, "KEPT_RESULTS", 2)
    client, service = server()
    model.go.set()
    lines = [generate(client, ["walk"])[-1] for _ in range(3)]
    tokens = [line["done"] for line in lines]
    assert list(service.results) == tokens[1:]
    assert client.get(f"/motion/{tokens[0]}/{lines[0]['names'][0]}.bvh").status_code == 404
    assert client.get(f"/motion/{tokens[1]}/{lines[1]['names'][0]}.bvh").status_code == 200


def test_page_runs_only_its_own_scripts(server):
    client, _ = server()
    page = client.get("/").text
    assert "Content-Security-Policy" in page and "unsafe" not in page.split("</title>")[0]
    assert page.count("<script>") == 4


def guidance_of(data, options, model) -> float:
    defaults = web_app.resolve_guidance(model.generator, web_app.DEFAULT_SAMPLING)
    return web_app.GenerationRequest.parse(data, options, model, defaults).sampling.guidance


def test_guidance_is_used_only_if_the_model_was_trained_for_it(model):
    data, options = {"prompts": ["walk"], "guidance": 3}, Options()
    assert guidance_of(data, options, model) == 3
    model.generator.config.text_dropout = 0.0
    assert guidance_of(data, options, model) == 1


def test_invalid_options_are_refused(refused):
    with web_app.socket.create_server(("127.0.0.1", 0)) as taken:
        assert "cannot listen" in refused("app.py", "--port", taken.getsockname()[1])
    assert "--port" in refused("app.py", "--port", 70000)
    assert "--running" in refused("app.py", "--running", 0)
    assert "--waiting" in refused("app.py", "--waiting", -1)
    assert "checkpoint" in refused("app.py", "--port", 0, "--checkpoint", "nowhere")
