"""Reading of requests within limits, and answers: refusals, files in pieces, streams."""

import asyncio
import json
import re
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine
from contextlib import aclosing
from http import HTTPStatus
from typing import Any, TypeVar

from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from serving.characters import MAX_BYTES
from serving.connections import CHARACTER_PATH, MAX_REQUEST
from serving.errors import CODES, Refused, problem
from serving.schemas import sentence_of
from utils.errors import InputError, shown
from utils.reading.texts import parse_json

PIECE = 64 * 1024  # bytes of a response that are sent at once
READER_SECONDS = 30.0  # total time that a stream waits for its reader
LEFT = 499  # status after the visitor has left
OWN_HOST = re.compile(r"(127\.0\.0\.1|localhost|\[::1\])(:\d*)?", re.IGNORECASE)
STREAM = "application/x-ndjson"
CHARACTER = "model/gltf-binary"
DATA_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
}
Value = TypeVar("Value")


# --- Requests


class LimitedRequest(Request):
    """Request whose body has the type and at most the size that its path allows."""

    async def body(self) -> bytes:
        """Return the body; raises an HTTPException if it has another type or is too long."""
        if not hasattr(self, "_body"):
            is_character = self.url.path == CHARACTER_PATH
            kind = self.headers.get("content-type", "")
            if not (kind == CHARACTER if is_character else is_json(kind)):
                raise HTTPException(
                    415, f"the request is not of type {CHARACTER if is_character else 'application/json'}"
                )
            most = MAX_BYTES if is_character else MAX_REQUEST
            self._body = await read_body(self, most)
        return self._body

    async def json(self) -> Any:
        """Return the body as JSON; raises an HTTPException if it is none."""
        try:
            return parse_json(await self.body())
        except InputError as error:
            raise HTTPException(400, f"the request is {error}") from error


class LimitedRoute(APIRoute):
    """Route of requests whose bodies are limited."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return the handler of the route."""
        handle = super().get_route_handler()

        async def limited(request: Request) -> Response:
            return await handle(LimitedRequest(request.scope, request.receive))

        return limited


def is_json(content_type: str) -> bool:
    """Whether a content type is JSON in UTF-8, which pages of other sites cannot send without a CORS preflight."""
    kind, *parameters = (part.strip().lower() for part in content_type.split(";"))
    charsets = [part.removeprefix("charset=").strip('"') for part in parameters if part.startswith("charset=")]
    return kind == "application/json" and set(charsets) <= {"utf-8", "utf8"}


async def read_body(request: Request, most: int) -> bytes:
    """Return the body of a request; raises an HTTPException if it is longer than ``most`` bytes."""
    content, declared = bytearray(), request.headers.get("content-length", "0")
    is_long = not declared.isdecimal() or int(declared[:20]) > most
    if not is_long:
        async for part in request.stream():
            content += part
            if is_long := len(content) > most:
                break
    if is_long:
        sentence = f"the request is longer than {most} bytes; give a smaller one"
        raise HTTPException(413, sentence, headers={"Connection": "close"})
    return bytes(content)


async def while_here(request: Request, work: Coroutine[Any, Any, Value]) -> Value:
    """Await work, which is cancelled if the visitor leaves; then raises ClientDisconnect."""

    async def wait_until_left() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass

    tasks = [asyncio.create_task(work), asyncio.create_task(wait_until_left())]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        if not tasks[0].done():
            raise ClientDisconnect
        return tasks[0].result()  # type: ignore[return-value]
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


# --- Refusals


async def refuse(request: Request, error: Exception) -> Response:
    """Answer an InputError."""
    assert isinstance(error, InputError)
    status, wait = (error.status, error.retry_after) if isinstance(error, Refused) else (400, None)
    headers = {} if wait is None else {"Retry-After": str(wait)}
    return JSONResponse(problem(error), status, headers=DATA_HEADERS | headers)


async def refuse_values(request: Request, error: Exception) -> Response:
    """Answer a body of other types or values than its model."""
    assert isinstance(error, RequestValidationError)
    return await refuse(request, InputError(sentence_of(error.errors())))


async def refuse_request(request: Request, error: Exception) -> Response:
    """Answer a request that no endpoint takes."""
    assert isinstance(error, HTTPException)
    known = error.detail != HTTPStatus(error.status_code).phrase
    path = shown(request.url.path, 100)
    sentence = error.detail if known else f"{path} does not take this request; see the page of the API"
    content = {"error": sentence, "code": CODES.get(error.status_code, "invalid")}
    return JSONResponse(content, error.status_code, headers=DATA_HEADERS | dict(error.headers or {}))


class OwnHost:
    """Middleware that refuses requests for another host than this machine, against DNS rebinding."""

    def __init__(self, app: ASGIApp):
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        host = Headers(scope=scope).get("host", "") if scope["type"] == "http" else "localhost"
        if OWN_HOST.fullmatch(host):
            await self.app(scope, receive, send)
        else:
            name = shown(repr(host), 60)
            error = InputError(f"the host is {name}; send 127.0.0.1 or localhost, or start the app with another --host")
            await (await refuse(Request(scope), error))(scope, receive, send)


async def fail(request: Request, error: Exception) -> Response:
    """Answer a request at which the server failed; the traceback is logged."""
    answer = await refuse(request, Refused("the server failed at this request; try again later", 500))
    answer.headers["Connection"] = "close"  # as the server does
    return answer


async def notice_absence(request: Request, error: Exception) -> Response:
    """End a request whose visitor has left."""
    return Response(status_code=LEFT)


REFUSALS = {
    InputError: refuse,
    RequestValidationError: refuse_values,
    HTTPException: refuse_request,
    ClientDisconnect: notice_absence,
    Exception: fail,
}


# --- Content


def in_pieces(content: bytes, media_type: str, headers: dict[str, str]) -> Response:
    """Return a response that is sent in pieces, so that a slow reader takes little memory."""

    async def pieces() -> AsyncIterator[bytes]:
        for start in range(0, len(content), PIECE):
            yield content[start : start + PIECE]
            await asyncio.sleep(0)  # lets the connection notice that its reader has left

    return StreamingResponse(pieces(), media_type=media_type, headers=headers | {"Content-Length": str(len(content))})


async def lines_of(first: dict[str, Any], items: AsyncGenerator[dict[str, Any]]) -> AsyncIterator[bytes]:
    """Yield items as lines of JSON; an error is the last one."""
    async with aclosing(items):
        try:
            yield json.dumps(first).encode() + b"\n"
            async for item in items:
                yield json.dumps(item).encode() + b"\n"
        except InputError as error:
            yield json.dumps(problem(error)).encode() + b"\n"


class PatientStream(StreamingResponse):
    """Stream that stops when it has waited for its reader for more than ``READER_SECONDS`` in total.

    The generator is closed as soon as the stream ends or the visitor leaves.
    """

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with aclosing(self.body_iterator):  # type: ignore[type-var]  # also if the visitor leaves at once
            await super().__call__(scope, receive, send)

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
