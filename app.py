"""Web app: enter a sentence and watch the motion while it is being generated.

    python app.py
    python app.py --checkpoint runs/t2m --port 8080

Open http://127.0.0.1:8000 in a browser and enter one sentence per line; several lines make one continuous motion.
The browser draws the motion. The server generates it, for several visitors in turns of one chunk of frames each, and
exports finished motions as files.
"""

import asyncio
import json
import secrets
import socket
import sys
import tempfile
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from subprocess import DEVNULL
from typing import TYPE_CHECKING, Any

import numpy as np
import uvicorn
from jsonargparse.typing import NonNegativeInt, PositiveFloat, PositiveInt
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from models.pipeline import DEFAULT_SAMPLING, MotionChunk, TextToMotion
from models.sampling import Sampling, resolve_guidance
from motion.clip import Clip
from motion.resample import FPS
from utils.config import bounded, parse_options
from utils.device import choose_device
from utils.errors import InputError, exit_on_input_error
from utils.prompts import MAX_SEED, Prompt, safe_name
from visualize.body import Body, body_from_options, floor_height
from visualize.export import Options as ExportOptions
from visualize.export import export, write_npz
from visualize.page import APP_BODY, pack_body, pack_motion, page

ROOT = Path(__file__).resolve().parent
MEDIA_TYPES = {  # of the formats that a motion can be downloaded in
    "bvh": "text/plain",
    "glb": "model/gltf-binary",
    "npz": "application/octet-stream",
    "mp4": "video/mp4",
}
MAX_REQUEST = 20_000  # bytes
KEPT_RESULTS = 64  # motions that can be downloaded; the oldest are dropped
VIDEO_SIZE = 512  # pixels

if TYPE_CHECKING:
    Port = int
else:
    Port = bounded("Port", int, (">=", 0), ("<=", 65535))


@dataclass
class Options:
    """Options of the web app."""

    checkpoint: Path = Path("checkpoints/demo")
    """Folder of a text-to-motion model, as train_t2m.py writes it."""
    host: str = "127.0.0.1"
    """Network address to listen on; 0.0.0.0 accepts connections from other machines."""
    port: Port = 8000
    """Port to listen on; 0 selects a free port."""
    device: str = "auto"
    """Device of the model: auto, cpu, cuda, cuda:1, ..."""
    running: PositiveInt = 4
    """Number of visitors that motion is generated for at the same time, in turns."""
    waiting: NonNegativeInt = 16
    """Number of visitors that can wait in the queue; further visitors are asked to try again later."""
    per_address: PositiveInt = 4
    """Number of visitors from one network address that can be served or wait at the same time."""
    variations: PositiveInt = 4
    """Largest number of variations (motions side by side, with successive seeds) per request."""
    sentences: PositiveInt = 6
    """Largest number of sentences per request."""
    seconds: PositiveFloat = 10.0
    """Longest motion per sentence in seconds; the checkpoint may have a lower limit."""
    smplx_path: Path | None = None
    """SMPL-X model file, or the folder that contains SMPLX_NEUTRAL.npz, to show SMPL-X instead of the mannequin."""

    @property
    def capacity(self) -> int:
        """Largest number of visitors served or waiting at the same time; also that of downloads in preparation."""
        return self.running + self.waiting


@dataclass
class GenerationRequest:
    """A validated request for one or more variations of a motion."""

    prompt: Prompt
    seed: int
    variations: int
    sampling: Sampling
    seconds: float | None  # per sentence; None lets the generator decide

    @classmethod
    def parse(cls, data: object, options: Options, model: TextToMotion, defaults: Sampling) -> "GenerationRequest":
        """Validate the JSON data of a browser's request.

        Args:
            data: the parsed JSON.
            options, model: limits of lengths and numbers.
            defaults: sampling settings for values that the request leaves out, with guidance resolved.

        Raises:
            InputError: a value is missing, of the wrong type, or beyond the limits.
        """
        if not isinstance(data, dict):
            raise InputError("the request is not a JSON object")
        prompts = data.get("prompts")
        if not isinstance(prompts, list) or not 1 <= len(prompts) <= options.sentences:
            raise InputError(f"give 1 to {options.sentences} sentences, one per line")
        prompt = Prompt.parse(prompts)

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
        longest = longest_seconds(options, model)
        sampling = replace(
            defaults,
            temperature=number("temperature", 0, 2, defaults.temperature),
            guidance=1.0 if defaults.guidance == 1 else number("guidance", 0, 10, defaults.guidance),
            max_tokens=model.tokens_of(longest),
        )
        seconds = None
        if data.get("seconds") is not None:
            seconds = number("seconds", 0.1, longest, 0)
        return cls(prompt, int(seed), int(variations), sampling, seconds)


def longest_seconds(options: Options, model: TextToMotion) -> float:
    """Longest motion of one sentence in seconds."""
    return min(options.seconds, model.max_frames / FPS)


@dataclass(eq=False)
class Visitor:
    """A visitor in the queue, compared by identity."""

    address: str


class MotionService:
    """Generates motions for several visitors in turns, and keeps finished ones for download.

    One thread runs the model. Each visitor has at most one chunk of frames in its queue, so that all visitors advance
    at the same rate.
    """

    def __init__(self, model: TextToMotion, body: Body, options: Options):
        self.model, self.body, self.options = model, body, options
        self.generation_thread = ThreadPoolExecutor(1)
        self.export_thread = ThreadPoolExecutor(1)
        self.video_lock = asyncio.Semaphore(1)  # videos take long: one at a time, in a process that can be killed
        self.queue: list[Visitor] = []  # in order of arrival; the first ``options.running`` are served
        self.queue_changed = asyncio.Event()  # set and replaced when a visitor leaves the queue
        self.results: OrderedDict[str, dict[str, Clip]] = OrderedDict()  # token -> name -> motion
        self.downloads = 0  # in preparation

    def close(self) -> None:
        for thread in (self.generation_thread, self.export_thread):
            thread.shutdown(wait=False, cancel_futures=True)

    async def stream(self, request: GenerationRequest, address: str) -> AsyncIterator[bytes]:
        """Yield lines of JSON: {"waiting": n}, chunks of frames, and {"done": token}; or {"error": sentence}."""
        if len(self.queue) >= self.options.capacity:
            yield _line(error="too many visitors are being served; try again in a minute")
            return
        if sum(visitor.address == address for visitor in self.queue) >= self.options.per_address:
            yield _line(error="motions for your network address are already being generated; wait until one is done")
            return
        visitor, motions = Visitor(address), []
        self.queue.append(visitor)
        try:
            while (ahead := self.queue.index(visitor) + 1 - self.options.running) > 0:
                yield _line(waiting=ahead)
                await self.queue_changed.wait()
            for seed in range(request.seed, request.seed + request.variations):
                arguments = (request.prompt, seed, request.sampling, request.seconds)
                motions.append(await _run_in(self.generation_thread, self.model.stream, *arguments))
            chunks: list[list[np.ndarray]] = [[] for _ in motions]
            unfinished = dict(enumerate(motions))
            while unfinished:
                for number, motion in list(unfinished.items()):
                    chunk = await _run_in(self.generation_thread, next, motion, None)
                    if chunk is None:
                        del unfinished[number]
                    else:
                        chunks[number].append(chunk.smplx85)
                        yield self._pack(number, chunk, first=len(chunks[number]) == 1)
            title, token = " ".join(request.prompt.sentences), secrets.token_urlsafe(16)
            results = {
                f"{safe_name(title)}_seed{request.seed + number}": Clip(np.concatenate(parts), title)
                for number, parts in enumerate(chunks)
            }
            self._keep(token, results)
            yield _line(done=token, names=list(results))
        except InputError as error:
            yield _line(error=str(error))
        finally:  # also if the visitor has left
            for motion in motions:
                self.generation_thread.submit(motion.close)
            self.queue.remove(visitor)
            self.queue_changed.set()
            self.queue_changed = asyncio.Event()

    def _pack(self, number: int, chunk: MotionChunk, first: bool) -> bytes:
        """The frames of a chunk for the browser; the first chunk includes the height of the floor."""
        smplx85 = chunk.smplx85.astype(np.float64)
        packed = pack_motion(smplx85, floor_height(self.body, smplx85)) if first else pack_motion(smplx85)
        return _line(variation=number, **packed)

    def _keep(self, token: str, results: dict[str, Clip]) -> None:
        self.results[token] = results
        while sum(map(len, self.results.values())) > max(KEPT_RESULTS, len(results)):
            self.results.popitem(last=False)

    async def download(self, clip: Clip, kind: str) -> bytes:
        """Export a motion and return the bytes of the file.

        Raises:
            InputError: too many downloads are in preparation, or the video cannot be drawn.
        """
        if self.downloads >= self.options.capacity:
            raise InputError("too many downloads are in preparation; try again in a minute")
        self.downloads += 1
        try:
            with tempfile.TemporaryDirectory() as folder:
                source, target = Path(folder, "source.npz"), Path(folder, f"target.{kind}")
                write_npz(source, clip)
                if kind == "npz":
                    return source.read_bytes()
                if kind == "mp4":
                    await self._draw_video(source, target)
                else:
                    await _run_in(self.export_thread, export, [clip], target, ExportOptions(), self.body)
                return target.read_bytes()
        finally:
            self.downloads -= 1

    async def _draw_video(self, source: Path, target: Path) -> None:
        """Draw a video in a separate process, which is killed if the visitor leaves."""
        command = [sys.executable, "-m", "visualize.export", source, target, "--size", str(VIDEO_SIZE)]
        if self.options.smplx_path:
            command += ["--smplx-path", self.options.smplx_path.resolve()]
        async with self.video_lock:
            process = await asyncio.create_subprocess_exec(*command, cwd=ROOT, stdout=DEVNULL, stderr=DEVNULL)
            try:
                if await process.wait():
                    raise InputError("the video could not be drawn; try another format")
            finally:
                if process.returncode is None:
                    process.kill()


async def _run_in(thread: Executor, function: Callable, *arguments: object) -> Any:
    return await asyncio.get_running_loop().run_in_executor(thread, function, *arguments)


def _line(**content) -> bytes:
    return json.dumps(content).encode() + b"\n"


class Endpoints:
    """The three addresses of the app: the page at /, POST /generate, and GET /motion/TOKEN/NAME.KIND."""

    def __init__(self, model: TextToMotion, options: Options):
        body = body_from_options(None, options.smplx_path)
        self.model, self.options = model, options
        self.service = MotionService(model, body, options)
        self.defaults = resolve_guidance(model.generator, DEFAULT_SAMPLING)
        data = {
            "body": pack_body(body),
            "limits": {
                "sentences": options.sentences,
                "variations": options.variations,
                "seconds": round(longest_seconds(options, model), 1),
            },
            "defaults": {"temperature": self.defaults.temperature, "guidance": self.defaults.guidance},
            "kinds": list(MEDIA_TYPES),
        }
        self.html = page("Text to motion", ("player.js", "app.js"), APP_BODY, data, connect="'self'")

    async def show(self, request: Request) -> Response:
        return HTMLResponse(self.html)

    async def generate(self, request: Request) -> Response:
        if request.headers.get("content-type") != "application/json":  # which a page of another site cannot send
            return JSONResponse({"error": "the request is not of type application/json"}, 415)
        content = b""
        async for part in request.stream():
            content += part
            if len(content) > MAX_REQUEST:
                return JSONResponse({"error": f"the request is longer than {MAX_REQUEST} bytes"}, 413)
        try:
            motion = GenerationRequest.parse(json.loads(content), self.options, self.model, self.defaults)
        except InputError as error:
            return JSONResponse({"error": str(error)}, 400)
        except (ValueError, RecursionError):
            return JSONResponse({"error": "the request is not JSON"}, 400)
        address = request.client.host if request.client else ""
        return StreamingResponse(self.service.stream(motion, address), media_type="application/x-ndjson")

    async def download(self, request: Request) -> Response:
        token, name, kind = (request.path_params[key] for key in ("token", "name", "kind"))
        clip = self.service.results.get(token, {}).get(name)
        if clip is None or kind not in MEDIA_TYPES:
            return JSONResponse({"error": "this motion is no longer available; generate it again"}, 404)
        work = asyncio.ensure_future(self.service.download(clip, kind))
        try:
            while not (await asyncio.wait([work], timeout=0.5))[0]:
                if await request.is_disconnected():
                    work.cancel()
            content = await work
        except asyncio.CancelledError:  # the visitor has left
            return Response(status_code=499)
        except InputError as error:
            return JSONResponse({"error": str(error)}, 503)
        # The name comes from safe_name, so it needs no quoting.
        headers = {"Content-Disposition": f'attachment; filename="{name}.{kind}"', "X-Content-Type-Options": "nosniff"}
        return Response(content, media_type=MEDIA_TYPES[kind], headers=headers)


def make_app(model: TextToMotion, options: Options) -> Starlette:
    """Build the web application."""
    endpoints = Endpoints(model, options)

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        yield
        endpoints.service.close()

    local = options.host in ("127.0.0.1", "localhost", "::1")
    hosts = ["127.0.0.1", "localhost", "[::1]"] if local else ["*"]
    app = Starlette(
        routes=[
            Route("/", endpoints.show),
            Route("/generate", endpoints.generate, methods=["POST"]),
            Route("/motion/{token}/{name}.{kind}", endpoints.download),
        ],
        middleware=[Middleware(TrustedHostMiddleware, allowed_hosts=hosts)],  # against DNS rebinding
        lifespan=lifespan,
    )
    app.state.service = endpoints.service
    return app


def main(options: Options) -> None:
    try:
        family = socket.AF_INET6 if ":" in options.host else socket.AF_INET
        listener = socket.create_server((options.host, options.port), family=family)
    except OSError as error:
        raise InputError(
            f"cannot listen on {options.host}, port {options.port} ({error.strerror or error}); choose another --port"
        ) from error
    device, _, reason = choose_device(options.device, "float32")
    print(reason)
    app = make_app(TextToMotion.from_pretrained(options.checkpoint, device), options)
    host = f"[{options.host}]" if ":" in options.host else options.host
    print(f"open http://{host}:{listener.getsockname()[1]} in a browser; press Ctrl-C to stop", flush=True)
    uvicorn.Server(uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=2)).run(sockets=[listener])


if __name__ == "__main__":
    with exit_on_input_error():
        main(parse_options(Options, __doc__)[0])
