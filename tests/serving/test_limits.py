"""The web app under hostile use: slow, greedy and absent visitors, forged addresses, downloads that nobody awaits."""

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from motion.clip import Clip
from serving import answers, connections, downloads, jobs
from serving import places as places_module
from serving.answers import PatientStream, is_json
from serving.downloads import PREFIX, remove_leftovers
from serving.options import Options
from serving.places import Busy, Places, Proxy, Rate, keep, share_of, site_of
from serving.service import MotionService, Result
from tests.conftest import ROOT, children_of
from tests.serving.helpers import FakeModel, generate, until, visitor
from utils.errors import InputError
from visualize.body import load_body

WALK = {"prompts": ["walk"]}


@pytest.fixture
def quiet(capfd):
    """Fail if the server logs a traceback."""
    yield
    assert "Traceback" not in capfd.readouterr().err


@pytest.fixture
def work_folder(tmp_path, monkeypatch):
    """Folder of temporary files of the app."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def connect(client, number: int = 1) -> socket.socket:
    """A bare connection from the address 127.0.0.NUMBER."""
    return socket.create_connection(
        (client.base_url.host, client.base_url.port), timeout=10, source_address=(f"127.0.0.{number}", 0)
    )


def is_closed(connection: socket.socket) -> bool:
    """Whether the server closes a connection without an answer."""
    try:
        return connection.recv(1000) == b""
    except ConnectionResetError:
        return True


def finished_motion(client, model) -> str:
    """Generate a motion; returns the address of its files without the kind."""
    model.go.set()
    done = generate(client, ["walk"])[-1]
    return f"/api/v1/motion/{done['done']}/{done['names'][0]}"


# --- Addresses and places


def test_share_of_one_address_is_below_the_whole():
    assert [share_of(total, 4) for total in (1, 2, 3, 5, 20)] == [1, 1, 2, 4, 4]
    places = Places(3, 9, "too many", "your network address")
    places.take("a")
    places.take("a")
    with pytest.raises(Busy, match="your network address") as refused:
        places.take("a")
    assert refused.value.status == 429
    with places.hold("b"), pytest.raises(Busy, match="too many") as refused:
        places.take("c")
    assert refused.value.status == 503
    places.release("a")
    places.release("a")
    assert not places.held and not places.taken


def test_jobs_of_an_address_are_limited_per_minute(monkeypatch):
    now = 1000.0
    monkeypatch.setattr(places_module.time, "monotonic", lambda: now)
    rate = Rate(3)
    for _ in range(3):
        rate.use("a")
    with pytest.raises(Busy, match="more than 3") as refused:
        rate.use("a")
    assert refused.value.status == 429 and refused.value.retry_after == 20
    rate.use("b")
    now += 20
    rate.use("a")
    with pytest.raises(Busy):
        rate.use("a")


@pytest.mark.parametrize(
    ("trusted", "peer", "forwarded", "expected"),
    [
        (None, "127.0.0.1", ["1.2.3.4"], "127.0.0.1"),
        ("127.0.0.1", "127.0.0.1", ["1.2.3.4"], "1.2.3.4"),
        ("127.0.0.1", "127.0.0.1", [], "127.0.0.1"),
        ("127.0.0.1", "127.0.0.1", ["9.9.9.9, 1.2.3.4"], "1.2.3.4"),  # the visitor's own claim comes first
        ("127.0.0.1", "127.0.0.1", ["9.9.9.9", "1.2.3.4"], "1.2.3.4"),
        ("127.0.0.1", "127.0.0.1", ["<script>"], "127.0.0.1"),
        ("127.0.0.1", "5.6.7.8", ["1.2.3.4"], "5.6.7.8"),
        ("10.0.0.0/8", "10.2.3.4", ["1.2.3.4"], "1.2.3.4"),
        ("10.0.0.0/8", "::ffff:10.2.3.4", ["2001:db8::1"], "2001:db8::/64"),
        ("::1", "::1", ["2001:db8::ffff"], "2001:db8::/64"),
        ("::1", "", ["2001:db8::ffff"], ""),
    ],
)
def test_forwarded_address_is_believed_from_the_trusted_proxy_alone(trusted, peer, forwarded, expected):
    assert Proxy(trusted).visitor(peer, forwarded) == expected


def test_addresses_of_one_ipv6_network_are_one_visitor():
    assert site_of("2001:db8::1") == site_of("2001:db8::ffff:1") != site_of("2001:db8:1::1")
    assert site_of("::ffff:1.2.3.4") == "1.2.3.4" and site_of("fe80::1%eth0") == "fe80::/64"
    with pytest.raises(InputError, match="--trusted-proxy"):
        Options(trusted_proxy="everyone")


def test_server_ignores_forged_addresses(server, model):
    for options, address in (({}, "127.0.0.1"), ({"trusted_proxy": "127.0.0.1"}, "1.2.3.4")):
        client, state = server(**options)
        model.go.clear()
        with client.stream("POST", "/api/v1/generate", json=WALK, headers={"X-Forwarded-For": "1.2.3.4"}):
            until(lambda state=state: state.queue)
            assert state.queue[0].address == address
            model.go.set()


def test_one_address_cannot_displace_the_results_of_others():
    kept = MotionService(FakeModel(), load_body(), Options())
    names = ["other", *(f"greedy {number}" for number in range(9))]
    for name in names:
        result = Result(name.split()[0], {"x": Clip(np.zeros((1, 85)))})
        keep(kept.results, name, result, lambda kept: len(kept.motions), 4)
    assert list(kept.results) == ["other", "greedy 6", "greedy 7", "greedy 8"]
    assert kept.motion("other", "x") and not kept.motion("other", "y") and not kept.motion("greedy 0", "x")


# --- Connections


def test_content_type_is_json_in_utf8():
    for accepted in ("application/json", "application/json; charset=utf-8", 'Application/JSON;charset="UTF-8"'):
        assert is_json(accepted)
    for refused in ("", "text/plain", "text/plain; application/json", "application/json; charset=latin1", "json"):
        assert not is_json(refused)


def test_slow_requests_are_closed(server, model, monkeypatch, quiet):
    monkeypatch.setattr(connections, "REQUEST_SECONDS", 0.5)
    client, state = server()
    head = b"POST /api/v1/generate HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
    post = head + b"Content-Length: 21\r\n\r\n"
    for slow in (b"", b"GET / HTTP/1.1\r\nHost: 127", post, post + b'{"prompts": '):
        with connect(client) as connection:
            connection.sendall(slow)
            start = time.monotonic()
            assert is_closed(connection) and time.monotonic() - start < 5
    with connect(client) as connection:  # a request sent after a finished one is timed as well
        connection.sendall(b"GET /api/v1/motion/a/b.c HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        answer = b""
        while not answer.endswith(b"}"):
            answer += connection.recv(5000)
        connection.sendall(b"GET / HT")
        assert is_closed(connection)
    with client.stream("POST", "/api/v1/generate", json=WALK) as answer:  # a slow answer is not a slow request
        time.sleep(1)
        model.go.set()
        assert "done" in json.loads(list(answer.iter_lines())[-1])


def test_long_requests_are_closed(server, quiet):
    client, _ = server()
    with connect(client) as connection:
        connection.sendall(b"POST /api/v1/generate HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
                           b"Content-Length: 1000000000\r\n\r\n")  # fmt: skip
        assert b" 413 " in connection.recv(1000)
    with connect(client) as connection, pytest.raises((ConnectionResetError, BrokenPipeError)):
        connection.sendall(b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 1000000000\r\n\r\n")
        for _ in range(1000):
            connection.sendall(bytes(10_000))
            time.sleep(0.001)


def test_connections_of_one_address_are_limited(server):
    client, _ = server(connections=4, connections_per_address=2)
    path = "/api/v1/motion/a/b.c"
    with connect(client, 5), connect(client, 5), visitor(5, client.base_url) as third:
        assert third.get(path).status_code == 503
        with connect(client, 6), visitor(7, client.base_url) as last, visitor(8, client.base_url) as more:
            assert last.get(path).status_code == 404
            assert more.get(path).status_code == 503
    until(lambda: visitor(5, client.base_url).get(path).status_code == 404)


def test_connections_of_a_trusted_proxy_have_no_share(server):
    client, _ = server(connections=9, connections_per_address=1, trusted_proxy="127.0.0.5")
    with connect(client, 5), connect(client, 5), visitor(5, client.base_url) as third:
        assert third.get("/api/v1/motion/a/b.c").status_code == 404


def test_reader_that_accepts_no_data_is_disconnected(server, monkeypatch, quiet):
    monkeypatch.setattr(connections, "STALL_SECONDS", 0.3)
    client, state = server()
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.connect((client.base_url.host, client.base_url.port))
        connection.sendall(b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        time.sleep(1.5)
        received = 0
        with pytest.raises(ConnectionResetError):
            while part := connection.recv(100_000):
                received += len(part)
            raise ConnectionResetError if received < len(client.get("/").content) else AssertionError("all was sent")


def test_stream_of_a_slow_reader_stops(monkeypatch):
    monkeypatch.setattr(answers, "READER_SECONDS", 0.1)
    closed, sent = [], []

    async def lines():
        try:
            for _ in range(100):
                yield b"line\n"
        finally:
            closed.append(True)

    async def send(message):
        sent.append(message)
        time.sleep(0.03)

    asyncio.run(PatientStream(lines()).stream_response(send))
    assert closed and 3 < len(sent) < 9 and not sent[-1]["more_body"]


def test_visitors_that_leave_and_a_stopped_server_leave_no_traceback(server, model, quiet):
    client, state = server()
    head = b"POST /api/v1/generate HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json; charset=utf-8\r\n"
    body = json.dumps(WALK).encode()
    whole = head + b"Content-Length: %d\r\n\r\n%s" % (len(body), body)
    for part in (b"", whole[:20], whole[:-5], b"\0\xff\r\n\r\n"):
        with connect(client) as connection:
            connection.sendall(part)
    for reset in (False, True):
        with connect(client) as connection:
            connection.sendall(whole)
            until(lambda: state.queue)
            if reset:
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        model.go.set()
        until(lambda: not state.queue)
        model.go.clear()
    left = connect(client)
    left.sendall(whole)
    until(lambda: state.queue)  # the server is stopped with this stream open


# --- Downloads


@contextmanager
def blocked_exports(monkeypatch):
    """Exports wait within; yields the event that lets them run."""
    go, real = threading.Event(), downloads.export

    def export(*arguments):
        assert go.wait(20)
        real(*arguments)

    monkeypatch.setattr(downloads, "export", export)
    yield go
    go.set()


def test_downloads_count_against_the_share_of_an_address(server, model, monkeypatch, work_folder):
    client, state = server(per_address=2)
    path = finished_motion(client, model)
    with blocked_exports(monkeypatch) as go:
        answers = []

        def ask(number):
            with visitor(number, client.base_url) as own:
                answers.append(own.get(f"{path}.bvh").status_code)

        threads = [threading.Thread(target=ask, args=(number,)) for number in (1, 1, 2)]
        for count, thread in enumerate(threads, 1):
            thread.start()
            until(lambda count=count: state.downloads.places.taken == count)
        refused = client.get(f"{path}.bvh")
        assert refused.status_code == 429 and "your network address" in refused.json()["error"]
        start = time.monotonic()
        assert client.get("/").status_code == 200 and time.monotonic() - start < 5  # not blocked by the exports
        go.set()
        for thread in threads:
            thread.join()
    assert answers == [200] * 3 and not state.downloads.places.taken
    assert not list(work_folder.glob(f"{PREFIX}*"))


def test_abandoned_downloads_are_dropped(server, model, monkeypatch, work_folder, quiet):
    client, state = server()
    path = finished_motion(client, model)
    with blocked_exports(monkeypatch):
        for _ in range(3):
            with connect(client) as connection:
                connection.sendall(f"GET {path}.glb HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode())
                until(lambda: state.downloads.places.taken)
            until(lambda: not state.downloads.places.taken)
    assert client.get(f"{path}.glb").status_code == 200
    assert not list(work_folder.glob(f"{PREFIX}*"))


def test_abandoned_video_is_killed(server, model, work_folder, quiet):
    client, state = server()
    path = finished_motion(client, model)

    with connect(client) as connection:
        connection.sendall(f"GET {path}.mp4 HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode())
        until(lambda: list(work_folder.glob(f"{PREFIX}*/motion.npy")) and children_of(os.getpid(), "serving.film"))
    until(lambda: not children_of(os.getpid(), "serving.film"))
    until(lambda: not list(work_folder.iterdir()) and not state.downloads.video_places.taken)


def test_video_that_cannot_be_drawn_is_an_error(server, model, monkeypatch, work_folder):
    client, state = server()
    path = finished_motion(client, model)
    monkeypatch.setattr(downloads, "VIDEO_SECONDS", 0)
    assert "within 0 s" in client.get(f"{path}.mp4").json()["error"]
    monkeypatch.undo()
    monkeypatch.setattr(jobs.sys, "executable", "/bin/false")
    answer = client.get(f"{path}.mp4")
    assert answer.status_code == 500 and "could not be drawn" in answer.json()["error"]


def test_files_that_cannot_be_written_are_an_error_without_paths(server, model, monkeypatch, work_folder):
    client, state = server()
    path = finished_motion(client, model)
    for failure in (InputError(f"cannot write {work_folder}: No space left on device"), OSError(28, "No space left")):
        monkeypatch.setattr(downloads, "export", raising(failure))
        answer = client.get(f"{path}.bvh")
        assert answer.status_code == 500 and answer.json()["code"] == "failed", answer.text
        assert str(work_folder) not in answer.text
    assert not state.downloads.places.taken


def raising(error: Exception):
    def act(*arguments):
        raise error

    return act


def test_video_process_ends_with_the_app(tmp_path):
    """Also if the app is killed: then the pipe to the process is closed."""
    folder = tmp_path / "work"
    folder.mkdir()
    np.save(folder / "motion.npy", np.zeros((9000, 85)))
    process = subprocess.Popen(
        [sys.executable, "-m", "serving.film"], cwd=ROOT, stdin=subprocess.PIPE, start_new_session=True
    )
    job = {"folder": str(folder), "title": "", "rights": "", "size": 512, "smplx_path": None}
    process.stdin.write(json.dumps(job).encode() + b"\n")
    process.stdin.flush()
    time.sleep(0.3)
    assert process.poll() is None
    process.stdin.close()
    assert process.wait(20) == -signal.SIGKILL and not folder.exists()


def test_leftovers_of_a_killed_app_are_removed(work_folder):
    old, fresh, other = (Path(work_folder, name) for name in (f"{PREFIX}a", f"{PREFIX}b", "other"))
    for folder in (old, fresh, other):
        folder.mkdir()
        (folder / "motion.npy").touch()
    for folder in (old, other):
        os.utime(folder, (0, 0))
    remove_leftovers()
    assert not old.exists() and fresh.exists() and other.exists()
