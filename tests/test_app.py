"""app.py over HTTP, with a model that makes frames when the test lets it: limits, turns, leaving, downloads."""

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

CHUNK, CHUNKS = 6, 5  # frames, and how many of them a sentence gives


@dataclass
class FakeModel:
    """Stands in for TextToMotion: each chunk waits until ``go`` is set."""

    max_frames: int = 600
    generator: SimpleNamespace = field(
        default_factory=lambda: SimpleNamespace(config=SimpleNamespace(text_dropout=0.1))
    )
    go: threading.Event = field(default_factory=threading.Event)
    made: list[str] = field(default_factory=list)
    closed: list[str] = field(default_factory=list)

    def tokens_of(self, seconds: float) -> int:
        return round(seconds * 30 / 4)

    def stream(self, prompts, seed=0, sampling=None, seconds=None):
        if prompts[0] == "impossible":
            raise InputError("this cannot be made")
        return self._frames(prompts, seed)

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
    """Starts the app on a free port; gives a function that takes options and returns (client, studio)."""
    running = []

    def start(**options):
        app = make_app(model, Options(**options))
        listener = web_app.socket.create_server(("127.0.0.1", 0))
        server = uvicorn.Server(uvicorn.Config(app, log_level="warning"))
        thread = threading.Thread(target=lambda: asyncio.run(server.serve(sockets=[listener])))
        thread.start()
        client = httpx.Client(base_url=f"http://127.0.0.1:{listener.getsockname()[1]}", timeout=60)
        running.append((server, thread, client))
        return client, app.state.studio

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
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.01)


def order(client, prompts, **values) -> list[dict]:
    """All lines of the answer to an order."""
    response = client.post("/generate", json={"prompts": prompts} | values)
    assert response.status_code == 200, response.text
    return [json.loads(line) for line in response.text.splitlines()]


def test_frames_come_as_they_are_made_and_the_result_can_be_downloaded(server, model, tmp_path):
    client, studio = server()
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
    until(lambda: not studio.line and len(model.closed) == 2)
    for kind in ("npz", "bvh", "glb", "mp4"):
        answer = client.get(f"/motion/{done['done']}/{done['names'][1]}.{kind}")
        assert answer.status_code == 200 and "attachment" in answer.headers["content-disposition"]
        assert "<" not in answer.headers["content-disposition"]
        (tmp_path / f"clip.{kind}").write_bytes(answer.content)
    assert len(read_clip(tmp_path / "clip.npz").smplx85) == len(read_clip(tmp_path / "clip.bvh").smplx85) == 60
    assert read_clip(tmp_path / "clip.npz").smplx85[0, 3] == pytest.approx(0.6)  # of seed 6
    assert (tmp_path / "clip.glb").read_bytes()[:4] == b"glTF" and (tmp_path / "clip.mp4").stat().st_size > 1000
    name = done["names"][0]
    for path in (
        f"{done['done']}/other.bvh",
        f"{done['done']}/{name}.exe",
        f"guess/{name}.bvh",
        f"..%2f..%2fapp/{name}.py",
    ):
        assert client.get(f"/motion/{path}").status_code == 404


def test_orders_beyond_the_limits_are_refused(server, model):
    client, studio = server(sentences=2, variations=3, seconds=5)
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
    assert order(client, ["impossible"])[-1] == {"error": "this cannot be made"}
    assert model.made == [] and not studio.line


def test_visitors_take_turns_and_the_rest_wait(server, model):
    client, studio = server(running=2, waiting=1, per_address=9)
    answers = {}

    def visit(name):
        with httpx.Client(base_url=client.base_url, timeout=20) as own:
            answers[name] = order(own, [name])

    threads = []
    for name in ("first", "second", "third"):
        threads.append(threading.Thread(target=visit, args=(name,)))
        threads[-1].start()
        until(lambda: len(studio.line) == len(threads))
    assert "too many people" in order(client, ["fourth"])[-1]["error"]
    model.go.set()
    for thread in threads:
        thread.join(20)
    assert model.made[2 * CHUNKS :] == ["third"] * CHUNKS
    together = "".join(name[0] for name in model.made[: 2 * CHUNKS])
    assert "fff" not in together and "sss" not in together  # nobody runs through while another waits
    assert answers["third"][0] == {"waiting": 1}
    assert all("done" in answer[-1] for answer in answers.values())


def test_without_a_queue_one_visitor_gets_motion_and_files(server, model):
    client, studio = server(running=1, waiting=0)
    with client.stream("POST", "/generate", json={"prompts": ["walk"]}):
        until(lambda: studio.line)
        with httpx.Client(base_url=client.base_url) as other:
            assert "too many people" in order(other, ["run"])[-1]["error"]
        model.go.set()
    until(lambda: not studio.line)
    done = order(client, ["walk"])[-1]
    path = f"/motion/{done['done']}/{done['names'][0]}.npz"
    assert client.get(path).status_code == 200
    studio.downloads = 1
    assert client.get(path).status_code == 503


def test_one_address_cannot_take_all_places(server, model):
    client, studio = server(per_address=1)
    with client.stream("POST", "/generate", json={"prompts": ["walk"]}):
        until(lambda: studio.line)
        with httpx.Client(base_url=client.base_url) as other:
            assert "address" in order(other, ["run"])[-1]["error"]


def test_who_leaves_frees_what_was_running(server, model):
    client, studio = server(running=1)
    with httpx.Client(base_url=client.base_url, timeout=20) as first, httpx.Client(base_url=client.base_url) as second:
        with first.stream("POST", "/generate", json={"prompts": ["walk"] * 6}) as answer:
            until(lambda: studio.line)
            with second.stream("POST", "/generate", json={"prompts": ["run"]}) as waiting:
                assert json.loads(next(waiting.iter_lines())) == {"waiting": 1}
            until(lambda: len(studio.line) == 1)  # the one in the queue has left
            model.go.set()
            next(answer.iter_lines())
            model.go.clear()
        model.go.set()
        until(lambda: not studio.line and model.closed == ["walk"])
    assert len(model.made) < 6 * CHUNKS and "run" not in model.made
    assert "done" in order(client, ["next"])[-1]  # and the studio goes on


def test_old_results_make_room(server, model, monkeypatch):
    monkeypatch.setattr(web_app, "KEPT_RESULTS", 2)
    client, studio = server()
    model.go.set()
    lines = [order(client, ["walk"])[-1] for _ in range(3)]
    tokens = [line["done"] for line in lines]
    assert list(studio.results) == tokens[1:]
    assert client.get(f"/motion/{tokens[0]}/{lines[0]['names'][0]}.bvh").status_code == 404
    assert client.get(f"/motion/{tokens[1]}/{lines[1]['names'][0]}.bvh").status_code == 200


def test_the_page_tells_the_limits_and_runs_only_its_own_scripts(server):
    client, _ = server()
    page = client.get("/").text
    assert "Content-Security-Policy" in page and "unsafe" not in page.split("</title>")[0]
    assert page.count("<script>") == 4


def test_guidance_can_be_set_where_the_model_was_trained_for_it(model):
    data, options = {"prompts": ["walk"], "guidance": 3}, Options()
    assert web_app.Order.read(data, options, model).sampling.guidance == 3
    model.generator.config.text_dropout = 0.0
    assert web_app.Order.read(data, options, model).sampling.guidance == 1


def test_unusable_options_are_refused(refused):
    with web_app.socket.create_server(("127.0.0.1", 0)) as taken:
        assert "cannot listen" in refused("app.py", "--port", taken.getsockname()[1])
    assert "--port" in refused("app.py", "--port", 70000)
    assert "--running" in refused("app.py", "--running", 0)
    assert "--waiting" in refused("app.py", "--waiting", -1)
    assert "checkpoint" in refused("app.py", "--port", 0, "--checkpoint", "nowhere")
