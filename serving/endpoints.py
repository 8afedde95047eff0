"""The endpoints of the app.

The page is at /. POST /generate, /redo and /loop answer with a stream of motion, and GET /motion/TOKEN/NAME.KIND with a
file of finished motion. POST /character takes a character, and GET /motion/TOKEN/NAME.glb?character=TOKEN puts the
motion onto it.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import Send

from models.pipeline import DEFAULT_SAMPLING, TextToMotion
from models.sampling import resolve_guidance
from serving.characters import MAX_BYTES, Characters
from serving.connections import CHARACTER_PATH, MAX_REQUEST
from serving.downloads import MEDIA_TYPES, Downloads, remove_leftovers
from serving.edits import EditRequest
from serving.options import Options
from serving.places import Busy, Proxy
from serving.requests import MAX_CONSTRAINTS, MAX_METRES, MAX_POINTS, GenerationRequest, longest_seconds
from serving.service import MotionRequest, MotionService
from utils.errors import InputError
from utils.reading.texts import parse_json
from visualize.body import body_from_options
from visualize.page import app_page, pack_body

PIECE = 64 * 1024  # bytes of a response that are sent at once
READER_SECONDS = 30.0  # total time that a stream waits for its reader
LEFT = 499  # status after the visitor has left
# The page's own policy is in its HTML, where frame-ancestors would have no effect.
PAGE_HEADERS = {"Content-Security-Policy": "frame-ancestors 'none'", "X-Content-Type-Options": "nosniff"}
CLOSE = {"Connection": "close"}
DATA_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
}


class Endpoints:
    """Handlers of the endpoints."""

    def __init__(self, model: TextToMotion, options: Options):
        body = body_from_options(None, options.smplx_path)
        self.model, self.options = model, options
        self.service, self.downloads = MotionService(model, body, options), Downloads(body, options)
        self.characters = Characters(options)
        self.proxy = Proxy(options.trusted_proxy)
        self.defaults = resolve_guidance(model.generator, DEFAULT_SAMPLING)
        self.data = {
            "body": pack_body(body),
            "limits": {
                "sentences": options.sentences,
                "variations": options.variations,
                "seconds": round(longest_seconds(options, model), 1),
                "keyframes": MAX_CONSTRAINTS - 1,  # and a path
                "path": {"points": MAX_POINTS, "metres": MAX_METRES},
            },
            "defaults": {"temperature": self.defaults.temperature, "guidance": self.defaults.guidance},
            "kinds": list(MEDIA_TYPES),
            "actions": [action._asdict() for action in model.known.actions] if model.known else [],
            "rights": model.rights,
            "api": "",  # start of the addresses below
        }
        self.html = app_page(self.data).encode()

    async def show(self, request: Request) -> Response:
        return in_pieces(self.html, "text/html", PAGE_HEADERS)

    async def make_example(self) -> None:
        """Generate motion for the first known action; the page shows it to all later visitors at once."""
        if not self.data["actions"]:
            return
        prompts = [self.data["actions"][0]["caption"]]
        data = {"prompts": prompts, "foot_lock": True}
        request = GenerationRequest.parse(data, self.options, self.model, self.defaults)
        if lines := await self.service.make_example(request):
            self.html = app_page(self.data | {"example": {"prompts": prompts, "lines": lines}}).encode()

    async def generate(self, request: Request) -> Response:
        return await self._answer(
            request,
            lambda data: GenerationRequest.parse(data, self.options, self.model, self.defaults, self.characters.poses),
        )

    async def redo(self, request: Request) -> Response:
        arguments = (self.service.motions, self.options, self.model)
        return await self._answer(request, lambda data: EditRequest.parse_redo(data, *arguments))

    async def loop(self, request: Request) -> Response:
        return await self._answer(request, lambda data: EditRequest.parse_loop(data, self.service.motions))

    async def _answer(self, request: Request, parse: Callable[[object], MotionRequest]) -> Response:
        """Answer a request for motions with a stream of their frames."""
        if not is_json(request.headers.get("content-type", "")):
            return refusal("the request is not of type application/json", 415)
        try:
            content = await read_body(request)
        except ClientDisconnect:
            return Response(status_code=LEFT)
        if content is None:
            return refusal(f"the request is longer than {MAX_REQUEST} bytes", 413, CLOSE)
        try:
            data = parse_json(content)
        except InputError as error:
            return refusal(f"the request is {error}", 400)
        try:
            lines = self.service.stream(parse(data), self._address(request))
        except InputError as error:
            return refusal(str(error), 400)
        return PatientStream(lines, media_type="application/x-ndjson", headers=DATA_HEADERS)

    async def add_character(self, request: Request) -> Response:
        if request.headers.get("content-type") != "model/gltf-binary":
            return refusal("the character is not of type model/gltf-binary", 415)
        try:
            content = await read_body(request, MAX_BYTES)
        except ClientDisconnect:
            return Response(status_code=LEFT)
        if content is None:
            return refusal(f"the character has more than {MAX_BYTES} bytes; give a smaller one", 413, CLOSE)
        try:
            return JSONResponse(await self.characters.add(content, self._address(request)), headers=DATA_HEADERS)
        except Busy as error:
            return refusal(str(error), error.status)
        except InputError as error:
            return refusal(str(error), 400)

    async def download(self, request: Request) -> Response:
        token, name, kind = (request.path_params[key] for key in ("token", "name", "kind"))
        clip = self.service.motion(token, name)
        if clip is None or kind not in MEDIA_TYPES:
            return refusal("this motion is no longer available; generate it again", 404)
        character = request.query_params.get("character")
        if character is None:
            work = asyncio.create_task(self.downloads.prepare(clip, kind, self._address(request)))
        elif kind == "glb":
            work = asyncio.create_task(self.characters.put(character, clip, self._address(request)))
        else:
            return refusal("a character is written as .glb only", 400)
        left = asyncio.create_task(wait_until_left(request))
        try:
            await asyncio.wait({work, left}, return_when=asyncio.FIRST_COMPLETED)
            if not work.done():
                return Response(status_code=LEFT)
            content = work.result()
        except Busy as error:
            return refusal(str(error), error.status)
        except InputError as error:
            return refusal(str(error), 503)
        finally:
            for task in (work, left):
                task.cancel()
            await asyncio.gather(work, left, return_exceptions=True)
        # The name comes from safe_name, so it needs no quoting.
        headers = DATA_HEADERS | {"Content-Disposition": f'attachment; filename="{name}.{kind}"'}
        return in_pieces(content, MEDIA_TYPES[kind], headers)

    def _address(self, request: Request) -> str:
        """Return the network address to which a request is attributed."""
        peer = request.client.host if request.client else ""
        return self.proxy.visitor(peer, request.headers.getlist("x-forwarded-for"))


def is_json(content_type: str) -> bool:
    """Whether a content type is JSON in UTF-8, which pages of other sites cannot send without a CORS preflight."""
    kind, *parameters = (part.strip().lower() for part in content_type.split(";"))
    charsets = [part.removeprefix("charset=").strip('"') for part in parameters if part.startswith("charset=")]
    return kind == "application/json" and set(charsets) <= {"utf-8", "utf8"}


async def read_body(request: Request, most: int = MAX_REQUEST) -> bytes | None:
    """Return the body of a request, or None if it is longer than ``most`` bytes."""
    content = bytearray()
    declared = request.headers.get("content-length", "0")
    if not declared.isdecimal() or int(declared[:20]) > most:
        return None
    async for part in request.stream():
        content += part
        if len(content) > most:
            return None
    return bytes(content)


async def wait_until_left(request: Request) -> None:
    """Return when the visitor has closed the connection."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


def refusal(sentence: str, status: int, headers: dict[str, str] | None = None) -> Response:
    """Return a response with an error of one sentence."""
    return JSONResponse({"error": sentence}, status, headers=DATA_HEADERS | (headers or {}))


def in_pieces(content: bytes, media_type: str, headers: dict[str, str]) -> Response:
    """Return a response that is sent in pieces, so that a slow reader takes little memory."""

    async def pieces() -> AsyncIterator[bytes]:
        for start in range(0, len(content), PIECE):
            yield content[start : start + PIECE]
            await asyncio.sleep(0)  # lets the connection notice that its reader has left

    return StreamingResponse(pieces(), media_type=media_type, headers=headers | {"Content-Length": str(len(content))})


class PatientStream(StreamingResponse):
    """Stream that stops when it has waited for its reader for more than ``READER_SECONDS`` in total.

    The generator is closed as soon as the stream ends or the visitor leaves.
    """

    async def stream_response(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        waited = 0.0
        async with aclosing(self.body_iterator) as lines:  # type: ignore[type-var]
            async for line in lines:
                start = time.monotonic()
                await send({"type": "http.response.body", "body": line, "more_body": True})
                waited += time.monotonic() - start
                if waited > READER_SECONDS:
                    break
        await send({"type": "http.response.body", "body": b"", "more_body": False})


def make_app(model: TextToMotion, options: Options) -> Starlette:
    """Build the web application."""
    endpoints = Endpoints(model, options)

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        await asyncio.to_thread(remove_leftovers)
        example = asyncio.create_task(endpoints.make_example())
        yield
        example.cancel()
        endpoints.service.close()
        await asyncio.to_thread(endpoints.downloads.close)

    local = options.host in ("127.0.0.1", "localhost", "::1")
    hosts = ["127.0.0.1", "localhost", "[::1]"] if local else ["*"]
    app = Starlette(
        routes=[
            Route("/", endpoints.show),
            Route("/generate", endpoints.generate, methods=["POST"]),
            Route("/redo", endpoints.redo, methods=["POST"]),
            Route("/loop", endpoints.loop, methods=["POST"]),
            Route(CHARACTER_PATH, endpoints.add_character, methods=["POST"]),
            Route("/motion/{token}/{name}.{kind}", endpoints.download),
        ],
        middleware=[Middleware(TrustedHostMiddleware, allowed_hosts=hosts)],  # against DNS rebinding
        lifespan=lifespan,
    )
    app.state.service, app.state.downloads = endpoints.service, endpoints.downloads
    return app
