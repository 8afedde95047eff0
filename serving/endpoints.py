"""The endpoints of the app: the page, and the HTTP API that it and programs use, under /api/v1.

POST generate, redo and loop answer with finished motions, or with a stream of their frames to a request that accepts
application/x-ndjson. GET motion/TOKEN/NAME.KIND is a file of a finished motion. POST character takes a character, and
GET motion/TOKEN/NAME.glb?character=TOKEN puts the motion onto it. docs/service.md describes the API, and its page is
/api/v1/docs.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from functools import partial
from typing import Annotated, Any

from fastapi import APIRouter, FastAPI, Query
from fastapi_offline import FastAPIOffline
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response

from models.pipeline import DEFAULT_SAMPLING, TextToMotion
from models.sampling import resolve_guidance
from motion.clip import Clip
from motion.resample import FPS
from serving import schemas
from serving.answers import (
    CHARACTER,
    DATA_HEADERS,
    REFUSALS,
    STREAM,
    LimitedRoute,
    OwnHost,
    PatientStream,
    in_pieces,
    lines_of,
    while_here,
)
from serving.characters import MAX_BYTES, Characters
from serving.connections import API, CHARACTER_PATH, MAX_REQUEST
from serving.downloads import CONTENTS, MEDIA_TYPES, Downloads, remove_leftovers
from serving.edits import EditRequest
from serving.errors import Refused
from serving.metrics import CountRequests
from serving.options import Options
from serving.places import Proxy
from serving.requests import MAX_CONSTRAINTS, MAX_METRES, MAX_POINTS, GenerationRequest, longest_seconds
from serving.service import MotionRequest, MotionService
from utils.prompts import MAX_PROMPT
from visualize.body import body_from_options
from visualize.page import app_page, pack_body

# The page's own policy is in its HTML, where frame-ancestors would have no effect.
PAGE_HEADERS = {"Content-Security-Policy": "frame-ancestors 'none'", "X-Content-Type-Options": "nosniff"}
OTHER: dict[int | str, dict[str, Any]] = {"default": {"model": schemas.Problem, "description": "Any other refusal"}}
REFUSED: dict[int | str, dict[str, Any]] = OTHER | {  # answers of every endpoint that does work
    400: {"model": schemas.Problem, "description": "Unusable values"},
    413: {"model": schemas.Problem, "description": "Too long"},
    429: {"model": schemas.Problem, "description": "Share or rate of the network address used; see Retry-After"},
    503: {"model": schemas.Problem, "description": "Queue full; see Retry-After"},
}
LOST = OTHER | {404: {"model": schemas.Problem, "description": "No longer kept, or unknown"}}
LINES = """{"motion": "TOKEN"}
{"waiting": 2}
{"variation": 0, "part": 0, "rotations": "BASE64", "pelvis": "BASE64", "floor": 0.0}
{"done": "TOKEN", "names": ["a-person-waves_seed0"], "errors": [[]], "stopped": false}
"""
STREAMED: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "Finished motions, or with Accept: application/x-ndjson a line of JSON per event",
        "content": {STREAM: {"schema": {"type": "string"}, "example": LINES}},
    }
}
FILE: dict[int | str, dict[str, Any]] = {
    200: {"content": {kind: {"schema": {"type": "string", "format": "binary"}} for kind in MEDIA_TYPES.values()}}
}
UPLOAD = {"requestBody": {"required": True, "content": {CHARACTER: {"schema": {"type": "string", "format": "binary"}}}}}
Token = Annotated[str | None, Query(description="Token of a character; for .glb only.")]


class Endpoints:
    """Handlers of the endpoints."""

    def __init__(self, model: TextToMotion, options: Options):
        body = body_from_options(None, options.smplx_path)
        self.model, self.options = model, options
        self.service, self.downloads = MotionService(model, body, options), Downloads(body, options)
        self.characters = Characters(options)
        for kind, places in (
            ("downloads", self.downloads.places),
            ("videos", self.downloads.video_places),
            ("characters", self.characters.places),
        ):
            self.service.metrics.watch(kind, partial(getattr, places, "taken"))
        self.proxy = Proxy(options.trusted_proxy)
        self.defaults = resolve_guidance(model.generator, DEFAULT_SAMPLING)
        self.data = self._page_data(pack_body(body))
        self.html = app_page(self.data).encode()

    def _page_data(self, body: dict) -> dict[str, Any]:
        limits = self._limits()
        return {
            "body": body,
            "limits": {
                "sentences": limits.sentences,
                "variations": limits.variations,
                "seconds": limits.seconds,
                "keyframes": limits.constraints - 1,  # and a path
                "path": limits.path.model_dump(),
            },
            "defaults": {"temperature": self.defaults.temperature, "guidance": self.defaults.guidance},
            "kinds": list(MEDIA_TYPES),
            "actions": [action._asdict() for action in self.model.known.actions] if self.model.known else [],
            "rights": self.model.rights,
            "api": API,  # start of the addresses of requests
        }

    def _limits(self) -> schemas.Limits:
        return schemas.Limits(
            sentences=self.options.sentences,
            characters=MAX_PROMPT,
            variations=self.options.variations,
            seconds=round(longest_seconds(self.options, self.model), 1),
            constraints=MAX_CONSTRAINTS,
            path=schemas.PathLimits(points=MAX_POINTS, metres=MAX_METRES),
            body_bytes=MAX_REQUEST,
            character_bytes=MAX_BYTES,
            places=self.service.places.total,
            places_per_address=self.service.places.share,
            jobs_per_minute=self.options.jobs_per_minute,
        )

    async def show(self) -> Response:
        return in_pieces(self.html, "text/html", PAGE_HEADERS)

    async def make_example(self) -> None:
        """Generate motion for the first known action; the page shows it to all later visitors at once."""
        if not self.data["actions"]:
            return
        prompts = [self.data["actions"][0]["caption"]]
        body = schemas.checked(schemas.GenerateBody, {"prompts": prompts, "foot_lock": True})
        request = GenerationRequest.parse(body, self.options, self.model, self.defaults)
        if lines := await self.service.make_example(request):
            self.html = app_page(self.data | {"example": {"prompts": prompts, "lines": lines}}).encode()

    async def live(self) -> schemas.Health:
        """Answer while the process serves requests."""
        return schemas.Health()

    async def ready(self) -> schemas.Health:
        """Answer 200 while motion can be generated, and 500 if the model failed at the last motion."""
        if self.service.is_broken:
            raise Refused("the model failed at the last motion; restart the server if this lasts", 500)
        return schemas.Health()

    async def metrics(self) -> Response:
        """Return metrics in the text form of Prometheus."""
        return Response(self.service.metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")

    async def formats(self) -> list[schemas.Format]:
        """List the formats of downloads."""
        return [schemas.Format(kind=kind, media_type=MEDIA_TYPES[kind], content=CONTENTS[kind]) for kind in MEDIA_TYPES]

    async def limits(self) -> schemas.Limits:
        """Return the limits of requests."""
        return self._limits()

    async def generate(self, body: schemas.GenerateBody, request: Request) -> Response:
        """Generate one or more variations of a motion for sentences."""
        poses = self.characters.poses
        work = GenerationRequest.parse(body, self.options, self.model, self.defaults, poses)
        return await self._answer(request, work)

    async def redo(self, body: schemas.RedoBody, request: Request) -> Response:
        """Make a span of finished motions anew with a sentence."""
        return await self._answer(request, EditRequest.parse_redo(body, self.service.motions, self.options, self.model))

    async def loop(self, body: schemas.LoopBody, request: Request) -> Response:
        """Make finished motions seamless."""
        return await self._answer(request, EditRequest.parse_loop(body, self.service.motions))

    async def _answer(self, request: Request, work: MotionRequest) -> Response:
        """Answer a request for motions: with a stream if it accepts one, else when they are finished."""
        items = self.service.stream(work, self._address(request))
        first = await anext(items)  # or the refusal
        if STREAM in request.headers.get("accept", ""):
            return PatientStream(lines_of(first, items), media_type=STREAM, headers=DATA_HEADERS)
        answer = await while_here(request, self._finished(items))
        return Response(answer.model_dump_json(), media_type="application/json", headers=DATA_HEADERS)

    async def _finished(self, items: AsyncGenerator[dict[str, Any]]) -> schemas.Motions:
        notes: dict[str, Any] = {}
        done: dict[str, Any] = {}
        async with aclosing(items):
            async for item in items:
                notes |= {reason: item[reason] for reason in ("far", "cut", "foreign") if reason in item}
                done = item
        token, motions = done["done"], self.service.motions(done["done"])
        return schemas.Motions(
            motion=token,
            motions=[
                schemas.Motion(
                    name=name,
                    frames=len(motions[name].smplx85),
                    seconds=round(len(motions[name].smplx85) / FPS, 2),
                    files={kind: f"{API}/motion/{token}/{name}.{kind}" for kind in MEDIA_TYPES},
                    errors=errors,
                )
                for name, errors in zip(done["names"], done["errors"], strict=True)
            ],
            stopped=done["stopped"],
            **notes,
        )

    async def stop(self, token: str) -> Response:
        """Stop a request whose motion is being streamed; its frames up to now are kept and can be downloaded."""
        if not self.service.stop(token):
            raise Refused("no motion with this token is being generated", 404)
        return Response(status_code=204, headers=DATA_HEADERS)

    async def add_character(self, request: Request) -> schemas.Character:
        """Check a .glb or .vrm file and keep it for motions."""
        content = await request.body()
        return schemas.Character(**await self.characters.add(content, self._address(request)))

    async def progress(self, token: str, name: str) -> schemas.Progress:
        """Return the progress of a video that another request waits for; closing that request cancels the video."""
        found = self.downloads.progress(self._clip(token, name))
        if found is None:
            raise Refused("no video of this motion is in preparation", 404)
        return schemas.Progress(ahead=found[0], percent=found[1])

    async def download(self, token: str, name: str, kind: str, request: Request, character: Token = None) -> Response:
        """Return a finished motion as a file; closing the request cancels its preparation."""
        clip = self._clip(token, name)
        if kind not in MEDIA_TYPES:
            raise Refused(f"{kind[:20]} is no format of downloads; give one of {', '.join(MEDIA_TYPES)}", 404)
        address = self._address(request)
        if character is None:
            work = self.downloads.prepare(clip, kind, address)
        elif kind == "glb":
            work = self.characters.put(character, clip, address)
        else:
            raise Refused("a character is written as .glb only", 400)
        content = await while_here(request, work)
        # The name comes from safe_name, so it needs no quoting.
        headers = DATA_HEADERS | {"Content-Disposition": f'attachment; filename="{name}.{kind}"'}
        return in_pieces(content, MEDIA_TYPES[kind], headers)

    def _clip(self, token: str, name: str) -> Clip:
        clip = self.service.motion(token, name)
        if clip is None:
            raise Refused("this motion is no longer available; generate it again", 404)
        return clip

    def _address(self, request: Request) -> str:
        """Return the network address to which a request is attributed."""
        peer = request.client.host if request.client else ""
        return self.proxy.visitor(peer, request.headers.getlist("x-forwarded-for"))


def routes(endpoints: Endpoints) -> APIRouter:
    """Return the routes of the app."""
    router = APIRouter(route_class=LimitedRoute)
    add = router.add_api_route
    add("/", endpoints.show, include_in_schema=False)
    add("/healthz", endpoints.live, tags=["server"])
    add("/healthz/ready", endpoints.ready, tags=["server"], responses={500: {"model": schemas.Problem}})
    for path, state in (("/", endpoints.show), ("/healthz", endpoints.live), ("/healthz/ready", endpoints.ready)):
        add(path, state, methods=["HEAD"], include_in_schema=False)  # of monitors
    add("/metrics", endpoints.metrics, tags=["server"], response_class=Response)
    add(f"{API}/formats", endpoints.formats, tags=["server"])
    add(f"{API}/limits", endpoints.limits, tags=["server"])
    for name, handler, lost in (
        ("generate", endpoints.generate, {}),
        ("redo", endpoints.redo, LOST),
        ("loop", endpoints.loop, LOST),
    ):
        add(
            f"{API}/{name}",
            handler,
            methods=["POST"],
            tags=["motions"],
            response_model=schemas.Motions,
            responses=STREAMED | REFUSED | lost,
        )
    motion = f"{API}/motion/{{token}}"
    add(f"{motion}/stop", endpoints.stop, methods=["POST"], tags=["motions"], status_code=204, responses=LOST)
    add(f"{motion}/{{name}}/video", endpoints.progress, tags=["files"], responses=LOST)
    file = f"{motion}/{{name}}.{{kind}}"
    add(file, endpoints.download, tags=["files"], response_class=Response, responses=FILE | REFUSED | LOST)
    add(
        CHARACTER_PATH,
        endpoints.add_character,
        methods=["POST"],
        tags=["files"],
        responses=REFUSED,
        openapi_extra=UPLOAD,
    )
    return router


def make_app(model: TextToMotion, options: Options) -> FastAPI:
    """Build the web application."""
    endpoints = Endpoints(model, options)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        await asyncio.to_thread(remove_leftovers)
        example = asyncio.create_task(endpoints.make_example())
        yield
        example.cancel()
        endpoints.service.close()
        await asyncio.to_thread(endpoints.downloads.close)

    is_local = options.host in ("127.0.0.1", "localhost", "::1")
    app = FastAPIOffline(
        title="Text to motion",
        version="1",
        docs_url=f"{API}/docs",
        redoc_url=None,
        openapi_url=f"{API}/openapi.json",
        static_url=f"{API}/docs-files",
        exception_handlers=REFUSALS,
        middleware=[
            Middleware(CountRequests, metrics=endpoints.service.metrics),
            *([Middleware(OwnHost)] if is_local else []),
        ],
        lifespan=lifespan,
    )
    app.include_router(routes(endpoints))
    app.state.service, app.state.downloads = endpoints.service, endpoints.downloads
    return app
