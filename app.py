"""A web app: type a sentence and see a body move while the rest of its motion is still being generated.

    python app.py
    python app.py --checkpoint runs/t2m --port 8080

Then open http://127.0.0.1:8000 in a browser. One sentence a line: several make one continuous motion. The browser
plays; the server generates, in turns of a fraction of a second for each visitor, and exports what was generated.
"""

import asyncio
import json
import secrets
import socket
import sys
import tempfile
from collections import OrderedDict
from collections.abc import AsyncIterator
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from subprocess import DEVNULL

import numpy as np
import uvicorn
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from formats.clip import Clip
from models.generate import Sampling, resolve_guidance
from models.pipeline import DEFAULT_SAMPLING, MotionChunk, TextToMotion
from motion.resample import FPS
from utils.config import parse_options
from utils.device import choose_device
from utils.errors import InputError, exit_on_input_error
from utils.prompts import MAX_SEED, Prompt, safe_name
from visualize.body import Body, body_from_options, floor_height
from visualize.export import Options as ExportOptions
from visualize.export import export, write_npz
from visualize.page import APP_BODY, pack_body, pack_motion, page

ROOT = Path(__file__).resolve().parent
KINDS = {  # what a motion can be downloaded as, and its media type
    "bvh": "text/plain",
    "glb": "model/gltf-binary",
    "npz": "application/octet-stream",
    "mp4": "video/mp4",
}
MAX_REQUEST = 20_000  # bytes
KEPT_RESULTS = 64  # motions that can still be downloaded; the oldest go first
VIDEO_SIZE = 512


@dataclass
class Options:
    """Options of the web app.

    Attributes:
        checkpoint: Folder of a text-to-motion model.
        host: Address to listen on; 0.0.0.0 lets other machines in.
        port: Port to listen on; 0 for any that is free.
        device: auto, cpu, cuda, cuda:1, ...
        running: Visitors for whom motion is generated at the same time, in turns.
        waiting: Visitors who may queue for that; more are asked to come back later.
        per_address: Places that one network address may take among both.
        variations: Largest number of variations side by side.
        sentences: Largest number of sentences in a sequence.
        seconds: Longest motion of a sentence; the checkpoint may end it earlier.
        smplx_path: Folder or file of SMPL-X, to show its body instead of the mannequin.
    """

    checkpoint: Path = Path("checkpoints/demo")
    host: str = "127.0.0.1"
    port: int = 8000
    device: str = "auto"
    running: int = 4
    waiting: int = 16
    per_address: int = 4
    variations: int = 4
    sentences: int = 6
    seconds: float = 10.0
    smplx_path: Path | None = None

    def __post_init__(self):
        for name in ("running", "per_address", "variations", "sentences"):
            if getattr(self, name) < 1:
                raise InputError(f"--{name} is {getattr(self, name)}; give at least 1")
        if self.waiting < 0:
            raise InputError(f"--waiting is {self.waiting}; give 0 or more")
        if not self.seconds > 0:
            raise InputError(f"--seconds is {self.seconds}; give more than 0")
        if not 0 <= self.port <= 65535:
            raise InputError(f"--port is {self.port}; give 0 to 65535")

    @property
    def places(self) -> int:
        """Visitors who are served or queue at the same time; also the downloads that are made at the same time."""
        return self.running + self.waiting


@dataclass
class Order:
    """What a visitor asks for."""

    prompts: list[str]
    seed: int
    variations: int
    sampling: Sampling
    seconds: float | None  # of each sentence

    @classmethod
    def read(cls, data: object, options: Options, model: TextToMotion) -> "Order":
        """Check what came from a browser.

        Raises:
            InputError: a value is missing, of another type, or beyond the limits.
        """
        if not isinstance(data, dict):
            raise InputError("the request is not a JSON object")
        prompts = data.get("prompts")
        if not isinstance(prompts, list) or not 1 <= len(prompts) <= options.sentences:
            raise InputError(f"give 1 to {options.sentences} sentences, one a line")
        Prompt.parse(prompts)

        def number(name: str, low: float, high: float, default: float) -> float:
            value = data.get(name, default)
            if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
                raise InputError(f"{name} must be a number from {low} to {high}")
            return value

        seed, variations = (
            number(name, low, high, low)
            for name, low, high in (("seed", 0, MAX_SEED - options.variations), ("variations", 1, options.variations))
        )
        if seed != int(seed) or variations != int(variations):
            raise InputError("seed and variations must be whole numbers")
        usual = resolve_guidance(model.generator, DEFAULT_SAMPLING)
        sampling = replace(
            usual,
            temperature=number("temperature", 0, 2, usual.temperature),
            guidance=1.0 if usual.guidance == 1 else number("guidance", 0, 10, usual.guidance),
            max_tokens=model.tokens_of(longest_seconds(options, model)),
        )
        seconds = None
        if data.get("seconds") is not None:
            seconds = number("seconds", 0.1, longest_seconds(options, model), 0)
        return cls(prompts, int(seed), int(variations), sampling, seconds)


def longest_seconds(options: Options, model: TextToMotion) -> float:
    """Of one sentence's motion."""
    return min(options.seconds, model.max_frames / FPS)


@dataclass(eq=False)
class Visitor:
    """Somebody in the line."""

    address: str


class Studio:
    """Generates for one visitor after the other, and keeps what was made for downloading.

    All of the model's work is done by one thread. Each visitor has at most one piece of work in its queue, so that they
    take turns, a chunk of frames each.
    """

    def __init__(self, model: TextToMotion, body: Body, options: Options):
        self.model, self.body, self.options = model, body, options
        self.generating = ThreadPoolExecutor(1)
        self.exporting = ThreadPoolExecutor(1)
        self.filming = asyncio.Semaphore(1)  # videos take long: one at a time, each in a process that can be ended
        self.line: list[Visitor] = []  # in the order they came; the first few are generated for
        self.moved = asyncio.Event()  # set, and replaced, when somebody leaves the line
        self.results: OrderedDict[str, dict[str, Clip]] = OrderedDict()  # token -> name -> motion
        self.downloads = 0

    def close(self) -> None:
        for pool in (self.generating, self.exporting):
            pool.shutdown(wait=False, cancel_futures=True)

    async def stream(self, order: Order, address: str) -> AsyncIterator[bytes]:
        """Lines of JSON: {"waiting": n}, then chunks of frames, then {"done": token}; or {"error": sentence}."""
        if len(self.line) >= self.options.places:
            yield _line(error="too many people are here at the moment; try again in a minute")
            return
        if sum(visitor.address == address for visitor in self.line) >= self.options.per_address:
            yield _line(error="your network address has motions in the making already; wait until one is done")
            return
        visitor, motions = Visitor(address), []
        self.line.append(visitor)
        try:
            while (ahead := self.line.index(visitor) + 1 - self.options.running) > 0:
                yield _line(waiting=ahead)
                await self.moved.wait()
            for seed in range(order.seed, order.seed + order.variations):
                stream = self.model.stream
                motions.append(
                    await self._in(self.generating, stream, order.prompts, seed, order.sampling, order.seconds)
                )
            made = [[] for _ in motions]
            going = dict(enumerate(motions))
            while going:
                for number, motion in list(going.items()):
                    chunk = await self._in(self.generating, next, motion, None)
                    if chunk is None:
                        del going[number]
                    else:
                        made[number].append(chunk.smplx85)
                        yield self._chunk(number, chunk, first=len(made[number]) == 1)
            title, token = " ".join(order.prompts), secrets.token_urlsafe(16)
            results = {
                f"{safe_name(title)}_seed{order.seed + number}": Clip(np.concatenate(pieces), title)
                for number, pieces in enumerate(made)
            }
            self._keep(token, results)
            yield _line(done=token, names=list(results))
        except InputError as error:
            yield _line(error=str(error))
        finally:  # also when the visitor has left
            for motion in motions:
                self.generating.submit(motion.close)
            self.line.remove(visitor)
            self.moved.set()
            self.moved = asyncio.Event()

    def _chunk(self, number: int, chunk: MotionChunk, first: bool) -> bytes:
        """The frames for the browser; the first ones tell where the floor is."""
        smplx85 = chunk.smplx85.astype(np.float64)
        packed = pack_motion(smplx85, floor_height(self.body, smplx85)) if first else pack_motion(smplx85)
        return _line(variation=number, **packed)

    def _keep(self, token: str, results: dict[str, Clip]) -> None:
        self.results[token] = results
        while sum(map(len, self.results.values())) > max(KEPT_RESULTS, len(results)):
            self.results.popitem(last=False)

    async def download(self, clip: Clip, kind: str) -> bytes:
        """A motion as the bytes of a file.

        Raises:
            InputError: too many downloads are being made at the moment.
        """
        if self.downloads >= self.options.places:
            raise InputError("too many files are being made at the moment; try again in a minute")
        self.downloads += 1
        try:
            with tempfile.TemporaryDirectory() as folder:
                source, target = Path(folder, "source.npz"), Path(folder, f"target.{kind}")
                write_npz(source, clip)
                if kind == "npz":
                    return source.read_bytes()
                if kind == "mp4":
                    await self._film(source, target)
                else:
                    await self._in(self.exporting, export, [clip], target, ExportOptions(), self.body)
                return target.read_bytes()
        finally:
            self.downloads -= 1

    async def _film(self, source: Path, target: Path) -> None:
        """Draw a video in a process of its own, which ends when the visitor leaves."""
        command = [sys.executable, "-m", "visualize.export", source, target, "--size", str(VIDEO_SIZE)]
        if self.options.smplx_path:
            command += ["--smplx-path", self.options.smplx_path.resolve()]
        async with self.filming:
            process = await asyncio.create_subprocess_exec(*command, cwd=ROOT, stdout=DEVNULL, stderr=DEVNULL)
            try:
                if await process.wait():
                    raise InputError("the video could not be made; try another format")
            finally:
                if process.returncode is None:
                    process.kill()

    @staticmethod
    async def _in(pool: Executor, work, *arguments):
        return await asyncio.get_running_loop().run_in_executor(pool, work, *arguments)


def _line(**content) -> bytes:
    return json.dumps(content).encode() + b"\n"


def make_app(model: TextToMotion, options: Options) -> Starlette:
    """The web application: the page, /generate and /motion/TOKEN/NAME.KIND."""
    body = body_from_options(None, options.smplx_path)
    studio = Studio(model, body, options)
    usual = resolve_guidance(model.generator, DEFAULT_SAMPLING)
    data = {
        "body": pack_body(body),
        "limits": {
            "sentences": options.sentences,
            "variations": options.variations,
            "seconds": round(longest_seconds(options, model), 1),
        },
        "defaults": {"temperature": usual.temperature, "guidance": usual.guidance},
        "kinds": list(KINDS),
    }
    html = page("Text to motion", ("player.js", "app.js"), APP_BODY, data, connect="'self'")

    async def show(request: Request) -> Response:
        return HTMLResponse(html)

    async def generate(request: Request) -> Response:
        if request.headers.get("content-type") != "application/json":  # other sites cannot send this unasked
            return JSONResponse({"error": "send JSON"}, 415)
        content = b""
        async for piece in request.stream():
            content += piece
            if len(content) > MAX_REQUEST:
                return JSONResponse({"error": f"the request is longer than {MAX_REQUEST} bytes"}, 413)
        try:
            order = Order.read(json.loads(content), options, model)
        except InputError as error:
            return JSONResponse({"error": str(error)}, 400)
        except (ValueError, RecursionError):
            return JSONResponse({"error": "the request is not JSON"}, 400)
        address = request.client.host if request.client else ""
        return StreamingResponse(studio.stream(order, address), media_type="application/x-ndjson")

    async def download(request: Request) -> Response:
        clip = studio.results.get(request.path_params["token"], {}).get(request.path_params["name"])
        kind = request.path_params["kind"]
        if clip is None or kind not in KINDS:
            return JSONResponse({"error": "this motion is not kept any more; generate it again"}, 404)
        work = asyncio.ensure_future(studio.download(clip, kind))
        try:
            while not (await asyncio.wait([work], timeout=0.5))[0]:
                if await request.is_disconnected():
                    work.cancel()
            content = await work
        except asyncio.CancelledError:  # the visitor has left
            return Response(status_code=499)
        except InputError as error:
            return JSONResponse({"error": str(error)}, 503)
        name = f"{request.path_params['name']}.{kind}"  # made by safe_name
        headers = {"Content-Disposition": f'attachment; filename="{name}"', "X-Content-Type-Options": "nosniff"}
        return Response(content, media_type=KINDS[kind], headers=headers)

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        yield
        studio.close()

    local = options.host in ("127.0.0.1", "localhost", "::1")
    hosts = ["127.0.0.1", "localhost", "[::1]"] if local else ["*"]
    app = Starlette(
        routes=[
            Route("/", show),
            Route("/generate", generate, methods=["POST"]),
            Route("/motion/{token}/{name}.{kind}", download),
        ],
        middleware=[Middleware(TrustedHostMiddleware, allowed_hosts=hosts)],  # no other site's name may lead here
        lifespan=lifespan,
    )
    app.state.studio = studio
    return app


def main(options: Options) -> None:
    try:
        family = socket.AF_INET6 if ":" in options.host else socket.AF_INET
        listener = socket.create_server((options.host, options.port), family=family)
    except OSError as error:
        raise InputError(
            f"cannot listen on {options.host}, port {options.port} ({error.strerror or error}); give another --port"
        ) from error
    device, _, reason = choose_device(options.device, "float32")
    print(reason)
    app = make_app(TextToMotion.from_pretrained(options.checkpoint, device), options)
    host = f"[{options.host}]" if ":" in options.host else options.host
    print(f"open http://{host}:{listener.getsockname()[1]} in a browser; Ctrl-C ends", flush=True)
    uvicorn.Server(uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=2)).run(sockets=[listener])


if __name__ == "__main__":
    with exit_on_input_error():
        main(parse_options(Options, __doc__)[0])
