"""Limits on the number and speed of connections, at a lower level than the limits of the app.

A connection is closed if a request takes too long to arrive (slow headers or body), is larger than any that the app
accepts, or if its reader accepts no data for a while.
"""

import asyncio
import contextlib
import json
import socket
import struct
from collections.abc import Callable
from functools import partial
from typing import Any

import h11
import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

from serving.errors import problem
from serving.options import Options
from serving.places import FULL_SECONDS, Busy, Places, Proxy, site_of
from utils.errors import InputError, reason_of

REQUEST_SECONDS = 15.0  # from the first byte of a request, or the start of the connection, to its last byte
API = "/api/v1"  # start of the paths of the API
CHARACTER_PATH = f"{API}/character"  # of uploads
UPLOAD_SECONDS = 120.0
MAX_UPLOAD = 34 * 2**20  # bytes received; a character may have 32 MB
STALL_SECONDS = 20.0  # maximum time in which a reader accepts no data
IDLE_SECONDS = 5  # between two requests
MAX_HEADERS = 16 * 1024  # bytes
MAX_REQUEST = 20_000  # bytes of a body
MAX_RECEIVED = 2 * (MAX_HEADERS + MAX_REQUEST)  # bytes of one request, independent of its declared length
SEND_BUFFER = 128 * 1024  # bytes buffered by the kernel per reader; with more, a slow reader would not be detected
BUSY = Busy("too many connections; try again in a minute", 503, FULL_SECONDS)
REFUSAL = json.dumps(problem(BUSY)).encode()
REFUSED = (
    b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\nConnection: close\r\n"
    b"Retry-After: %d\r\nContent-Length: %d\r\n\r\n%s" % (FULL_SECONDS, len(REFUSAL), REFUSAL)
)


class Alarm:
    """A timer; starting a running one changes nothing."""

    def __init__(self, act: Callable[[], None]):
        self.act = act
        self.handle: asyncio.TimerHandle | None = None

    def start(self, seconds: float) -> None:
        if self.handle is None:
            self.handle = asyncio.get_running_loop().call_later(seconds, self.act)

    def stop(self) -> None:
        if self.handle is not None:
            self.handle.cancel()
            self.handle = None


class GuardedProtocol(H11Protocol):
    """HTTP/1.1 of uvicorn, with limits.

    Args:
        places: Places of connections.
        proxy: Proxy whose connections are not counted by address.
    """

    def __init__(self, *arguments: Any, places: Places, proxy: Proxy, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.places, self.proxy = places, proxy
        self.address: str | None = None  # while a place is held
        self.received = 0  # bytes of the current request
        self.is_upload = False  # whether it sends a character
        self.request_alarm, self.stall_alarm = Alarm(self._drop), Alarm(self._drop)

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        peer = self.client[0] if self.client else ""
        address = f"{peer} {id(self)}" if self.proxy.trusts(peer) else site_of(peer)
        try:
            self.places.take(address)
        except Busy:
            transport.write(REFUSED)
            transport.close()
            return
        self.address = address
        self.request_alarm.start(REQUEST_SECONDS)

    def connection_lost(self, exc: Exception | None) -> None:
        if self.address is not None:
            self.places.release(self.address)
            self.address = None
        self.request_alarm.stop()
        self.stall_alarm.stop()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        self.request_alarm.start(REQUEST_SECONDS)
        self.received += len(data)
        if self.received > (MAX_UPLOAD if self.is_upload else MAX_RECEIVED):
            self._drop()
            return
        super().data_received(data)
        if not self.is_upload and self.conn.their_state is h11.SEND_BODY and self.scope["path"] == CHARACTER_PATH:
            self.is_upload = True
            self.request_alarm.stop()
            self.request_alarm.start(UPLOAD_SECONDS)
        if self.conn.their_state not in (h11.IDLE, h11.SEND_BODY):  # the request is complete
            self.request_alarm.stop()
            self.received, self.is_upload = 0, False

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self.conn.their_state is h11.SEND_BODY or self.conn.trailing_data[0]:  # of a request sent ahead
            self.request_alarm.start(REQUEST_SECONDS)

    def pause_writing(self) -> None:
        super().pause_writing()
        self.stall_alarm.start(STALL_SECONDS)

    def resume_writing(self) -> None:
        self.stall_alarm.stop()
        super().resume_writing()

    def _drop(self) -> None:
        """Close the connection at once; the kernel drops the data that it holds for the reader."""
        connection = self.transport.get_extra_info("socket")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.transport.abort()


class Server(uvicorn.Server):
    """Server that closes streaming connections on shutdown, which stops their work."""

    async def shutdown(self, sockets: list | None = None) -> None:
        for connection in list(self.server_state.connections):
            cycle = connection.cycle if isinstance(connection, GuardedProtocol) else None
            if cycle is not None and not cycle.response_complete:
                connection.transport.abort()
        await super().shutdown(sockets)


def listen(host: str, port: int) -> socket.socket:
    """Open the socket that the server listens on; port 0 selects a free port.

    Raises:
        InputError: the address cannot be used.
    """
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listener = socket.create_server((host, port), family=family)
    except (OSError, TypeError) as error:  # TypeError: a name that no host can have
        raise InputError(
            f"cannot listen on {host}, port {port} ({reason_of(error)}); choose another --host or --port"
        ) from error
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)
    return listener


def addresses(host: str, port: int) -> list[str]:
    """Return the addresses at which a browser reaches the app, first on this machine.

    A host that stands for all addresses (0.0.0.0 or ::) becomes that of this machine and, if it has a network, the one
    that other machines see.
    """
    if host not in ("0.0.0.0", "::"):
        return [_address(host, port)]
    family, local, outside = (
        (socket.AF_INET, "127.0.0.1", "192.0.2.1") if host == "0.0.0.0" else (socket.AF_INET6, "::1", "2001:db8::1")
    )
    found = [_address(local, port)]
    with contextlib.suppress(OSError), socket.socket(family, socket.SOCK_DGRAM) as probe:
        probe.connect((outside, 9))  # selects the own address; nothing is sent
        found.append(_address(probe.getsockname()[0], port))
    return found


def _address(host: str, port: int) -> str:
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def make_server(app: ASGIApp, options: Options) -> Server:
    """Make the server of the app; ``run(sockets=[...])`` serves until Ctrl-C or SIGTERM."""
    places = Places(options.connections, options.connections_per_address, full="", used="")  # see REFUSED
    protocol = partial(GuardedProtocol, places=places, proxy=Proxy(options.trusted_proxy))
    config = uvicorn.Config(
        app,
        http=protocol,  # type: ignore[arg-type]
        ws="none",
        log_level="error",  # warnings are about requests of visitors, which are answered
        proxy_headers=False,  # serving/places.py reads X-Forwarded-For, only from a trusted proxy
        server_header=False,
        timeout_keep_alive=IDLE_SECONDS,
        timeout_graceful_shutdown=2,
        h11_max_incomplete_event_size=MAX_HEADERS,
    )
    return Server(config)
