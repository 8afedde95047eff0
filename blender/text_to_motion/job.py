"""One generation, in a thread of its own: a conversation with the server. No Blender here."""

import contextlib
import http.client
import json
import threading
import urllib.parse
from collections.abc import Callable
from dataclasses import dataclass, field

from .glb import Glb, Tracks

API = "/api/v1"  # start of the paths of the server
MAX_BYTES = 32 * 2**20  # of an armature with its meshes, as the server takes it
CLOSE = 0.1  # metres within which a constraint counts as reached
TIMEOUT = 300  # seconds without an answer
UNREACHABLE = "the server at {} does not answer; start it with python app.py, or set its address in the preferences"


class Failure(Exception):
    """A generation ended; the message is one sentence for the panel."""


@dataclass
class Order:
    """What is asked of the server."""

    sentences: list[str]
    seed: int
    variations: int
    seconds: float | None  # of each sentence; None lets the generator decide
    character: bytes  # .glb of the armature in its rest pose at the origin, with the poses as its only animation
    path: list[tuple[float, float, float]] = field(default_factory=list)  # points in the axes of the .glb
    pose_times: list[float] = field(default_factory=list)  # seconds, one for each frame of the animation
    keep_places: bool = True  # poses stay where they are

    def request(self, facts: dict) -> dict:
        """Return the body of POST /generate.

        Args:
            facts: Answer to POST /character.
        """
        constraints: dict = {}
        if self.path:
            left, _, forward = zip(*facts["axes"], strict=True)  # columns

            def along(point: tuple[float, float, float], axis: tuple[float, float, float]) -> float:
                return sum(a * b for a, b in zip(point, axis, strict=True)) / facts["scale"]

            points = [[along(point, left), along(point, forward)] for point in self.path]
            constraints["path"] = {"points": points, "kind": "polyline"}
        if self.pose_times:
            count, place = len(self.pose_times), {"place": "file"} if self.keep_places else {}
            constraints["keyframes"] = [
                {"time": time, "pose": {"file": facts["character"], "frame": number - count}, **place}
                for number, time in enumerate(self.pose_times)
            ]
        body = {"prompts": self.sentences, "seed": self.seed, "variations": self.variations, "seconds": self.seconds}
        return body | ({"constraints": constraints} if constraints else {})


class Job:
    """A generation; ``state``, ``failure`` and ``results`` are read by the timer of Blender."""

    def __init__(self, find_server: Callable[[], str], order: Order):
        self.find_server, self.order = find_server, order
        self.state, self.failure, self.is_done = "starting", "", False
        self.results: list[tuple[str, Tracks]] = []  # name and curves of each motion
        self.missed: list[str] = []  # constraints that were not met closely
        self.cancelled = threading.Event()
        self.connection: http.client.HTTPConnection | None = None
        threading.Thread(target=self._run, daemon=True).start()

    def cancel(self) -> None:
        """End the conversation; the server then stops its work."""
        self.cancelled.set()
        connection = self.connection
        if connection is not None and connection.sock is not None:
            with contextlib.suppress(OSError):
                connection.sock.shutdown(2)  # wakes the thread

    def _run(self) -> None:
        try:
            self._generate()
        except Failure as failure:
            self.failure = str(failure)
        except Exception as error:  # one sentence in the panel rather than a traceback nobody sees
            self.failure = f"the generation failed ({type(error).__name__}: {error})"
        if self.cancelled.is_set():
            self.failure, self.results = "cancelled", []
        self.is_done = True

    def _generate(self) -> None:
        if len(self.order.character) > MAX_BYTES:
            raise Failure(f"armature and meshes have more than {MAX_BYTES >> 20} MB; bind a simpler mesh for this")
        address = self.find_server()
        self.state = "sending the armature"
        facts = json.loads(
            self._ask(address, "POST", f"{API}/character", self.order.character, "model/gltf-binary").read()
        )
        self.state = "waiting"
        body = json.dumps(self.order.request(facts)).encode()
        done = self._follow(self._ask(address, "POST", f"{API}/generate", body, "application/json"))
        reports = [report for errors in done["errors"] for report in errors]
        self.missed = [f"{each['name']} by {each['error']:.2f} m" for each in reports if each["error"] > CLOSE]
        for name in done["names"]:
            self.state = f"fetching {len(self.results) + 1} of {len(done['names'])}"
            query = urllib.parse.urlencode({"character": facts["character"]})
            content = self._ask(address, "GET", f"{API}/motion/{done['done']}/{name}.glb?{query}").read()
            self.results.append((name, Glb(content).animation()[1]))

    def _follow(self, answer: http.client.HTTPResponse) -> dict:
        """Read the stream of a generation to its last line."""
        for line in answer:
            content = json.loads(line)
            if "error" in content:
                raise Failure(content["error"])
            if "done" in content:
                return content
            queued = f"number {content['waiting']} in the queue" if "waiting" in content else ""
            self.state = queued or "generating"
        raise Failure("the server closed the connection before the motion was complete; try again")

    def _ask(
        self, address: str, method: str, path: str, body: bytes | None = None, kind: str = ""
    ) -> http.client.HTTPResponse:
        """Send a request and return its answer; a refusal is a ``Failure``."""
        if self.cancelled.is_set():
            raise Failure("cancelled")
        self.connection = http.client.HTTPConnection(urllib.parse.urlsplit(address).netloc, timeout=TIMEOUT)
        try:
            headers = {"Accept": "application/x-ndjson"} | ({"Content-Type": kind} if kind else {})
            self.connection.request(method, path, body, headers)
            answer = self.connection.getresponse()
        except OSError as error:
            raise Failure(UNREACHABLE.format(address)) from error
        if answer.status != 200:
            try:
                raise Failure(json.loads(answer.read())["error"])
            except (ValueError, KeyError) as error:
                raise Failure(f"{address} is no motion server of this version (status {answer.status})") from error
        return answer
