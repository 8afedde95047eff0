"""A model whose pace the test controls, and visitors of the web app."""

import json
import threading
import time
from dataclasses import dataclass, field
from types import SimpleNamespace

import httpx2 as httpx
import numpy as np

from models.known import Closest
from utils.errors import InputError

STREAMED = {"accept": "application/x-ndjson"}
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
    asked: list[tuple] = field(default_factory=list)
    """Lengths and constraints of each motion."""
    known: SimpleNamespace | None = None
    rights: str = "made with weights under CC BY-NC 4.0: name the source, no commercial use"
    text_encoder: SimpleNamespace = field(
        default_factory=lambda: SimpleNamespace(too_long=lambda texts: [text for text in texts if len(text) > 200])
    )
    near: dict[str, Closest] = field(default_factory=dict)
    """Closest known caption of some sentences."""

    def closest(self, sentences):
        return [self.near[sentence] for sentence in sentences if sentence in self.near]

    def tokens_of(self, seconds: float) -> int:
        return round(seconds * 30 / 4)

    def stream(self, prompt, seed=0, sampling=None, seconds=None, constraints=None, batch=None):
        self.asked.append((seconds, constraints))
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
                    yield SimpleNamespace(part=part, smplx85=data)
        finally:
            self.closed.append(prompts[0])


def visitor(number: int, address: object) -> httpx.Client:
    """A client with the network address 127.0.0.NUMBER."""
    return httpx.Client(
        base_url=address,
        timeout=60,
        headers=STREAMED,
        transport=httpx.HTTPTransport(local_address=f"127.0.0.{number}"),
    )


def until(condition, seconds: float = 10) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "the condition was not met in time"
        time.sleep(0.01)


def generate(client, prompts, **values) -> list[dict]:
    """All lines of the stream that answers a request, after the token."""
    response = client.post("/api/v1/generate", json={"prompts": prompts} | values)
    assert response.status_code == 200, response.text
    first, *lines = map(json.loads, response.text.splitlines())
    assert "motion" in first
    return lines
