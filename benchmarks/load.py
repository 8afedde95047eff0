"""Load test of the web app on this machine: other visitors' latency, memory and files under hostile use.

    python -m benchmarks.load

Starts app.py on a free port of 127.0.0.1. Visitors with a network address each (127.0.0.0/8, so Linux is needed) act at
the same time: 40 % generate motion again and again, 20 % read slowly, 20 % start downloads (videos and glTF) and leave,
and 20 % send the headers of a request slowly. One more visitor, who does nothing special, measures the app before,
during and after. At the end, all visitors ask for a motion of 3 s at the same moment: the first four are timed, and
the others wait or are refused because the queue is full. The program ends by itself within two minutes, and the app
with it.
"""

import utils.interrupt  # noqa: F401

# isort: split

import asyncio
import contextlib
import json
import os
import re
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
from jsonargparse.typing import PositiveInt

from utils.config import bounded, parse_options
from utils.errors import InputError, exit_on_input_error

API = "/api/v1"
ROOT = Path(__file__).resolve().parents[1]
LIMIT = 118  # seconds until the app is killed, whatever happens
PROBES = 5  # measurements before and after
ABSENT = 0.5  # seconds after which a visitor abandons a download
FIRST = 4  # motions that are timed when all visitors come at once
SETTLE = 12  # seconds after the load
PROBE = 0  # number of the visitor who measures
Samples = defaultdict[str, list[float]]

if TYPE_CHECKING:
    LoadSeconds = float
else:
    LoadSeconds = bounded("LoadSeconds", float, (">", 0), ("<=", 45))


@dataclass
class Options:
    """Options of the load test."""

    checkpoint: Path = Path("checkpoints/demo")
    """Folder of a text-to-motion model."""
    visitors: PositiveInt = 100
    """Number of visitors at the same time."""
    seconds: LoadSeconds = 35.0
    """Duration of the load in seconds."""


def main(options: Options) -> None:
    with started_app(options.checkpoint) as app:
        try:
            print(asyncio.run(asyncio.wait_for(measure(app, options), LIMIT)))
        except (OSError, TimeoutError, asyncio.IncompleteReadError) as error:
            raise InputError(f"the app stopped answering ({error!r}); run the test on an idle machine") from error
        log = app.log.read_text()
        print(f"\nlog of the app: {len(log.splitlines())} lines, {log.count('Traceback')} tracebacks")
        for line, count in Counter(log.splitlines()).most_common(5):
            print(f"{count} times: {line[:100]}")


# --- The app


@dataclass
class App:
    """The app under test."""

    process: psutil.Process
    port: int
    temporary: Path
    """Folder of its temporary files."""
    log: Path

    def usage(self) -> dict[str, float]:
        """Return memory, open files, processes and temporary files."""
        processes, memory = [self.process, *self.process.children(recursive=True)], 0
        for process in processes:
            with contextlib.suppress(psutil.Error):  # it has ended
                memory += process.memory_full_info().pss  # pages that processes share are counted once
        return {
            "memory of all processes (PSS), MB": memory / 1e6,
            "memory of the app alone (RSS), MB": self.process.memory_info().rss / 1e6,
            "open files and connections": self.process.num_fds(),
            "temporary files": sum(path.is_file() for path in self.temporary.rglob("*")),
            "processes": len(processes),
        }


@contextmanager
def started_app(checkpoint: Path) -> Iterator[App]:
    """Start the app; it is stopped at the end, and killed after ``LIMIT`` seconds."""
    command = [sys.executable, str(ROOT / "app.py"), "--port", "0", "--checkpoint", str(checkpoint.resolve())]
    with tempfile.TemporaryDirectory() as folder:
        temporary, log = Path(folder, "temporary"), Path(folder, "log")
        temporary.mkdir()
        environment = os.environ | {"TMPDIR": str(temporary)}
        with log.open("w") as errors:
            process = subprocess.Popen(
                command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=errors, text=True
            )
        timer = threading.Timer(LIMIT, process.kill)
        timer.start()
        try:
            assert process.stdout is not None
            printed = next((found for line in process.stdout if (found := re.search(r"http://\S+:(\d+)", line))), None)
            if printed is None:
                raise InputError(f"the app did not start: {log.read_text().strip()[-300:]}")
            yield App(psutil.Process(process.pid), int(printed[1]), temporary, log)
        finally:
            timer.cancel()
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()


# --- Visitors


@asynccontextmanager
async def visit(app: App, number: int, slow: bool = False) -> AsyncIterator[tuple]:
    """Connect from the network address of a visitor; a slow one has small buffers. Yields reader and writer."""
    connection = socket.socket()
    if slow:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connection.setblocking(False)
    connection.bind((f"127.0.{number // 250 + 1}.{number % 250 + 1}", 0))
    try:
        await asyncio.get_running_loop().sock_connect(connection, ("127.0.0.1", app.port))
        reader, writer = await asyncio.open_connection(sock=connection, limit=1024 if slow else 2**24)
    except BaseException:
        connection.close()
        raise
    try:
        yield reader, writer
    finally:
        writer.transport.abort()


def request(path: str, data: dict | None = None) -> bytes:
    """Return the bytes of a request."""
    head = f"{'GET' if data is None else 'POST'} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n"
    head += "Accept: application/x-ndjson\r\n"
    if data is None:
        return f"{head}\r\n".encode()
    body = json.dumps(data)
    return f"{head}Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode()


async def fetch(app: App, number: int, path: str) -> bytes:
    """Return the whole answer to a request."""
    async with visit(app, number) as (reader, writer):
        writer.write(request(path))
        return await reader.read()


async def generate(app: App, number: int, seconds: float = 1.0) -> tuple[str, float]:
    """Generate a motion; returns the path of its files, or "" if refused, and the seconds to its first frames."""
    start, first = time.monotonic(), 0.0
    async with visit(app, number) as (reader, writer):
        writer.write(request(f"{API}/generate", {"prompts": ["a person walks forward"], "seconds": seconds}))
        async for line in reader:
            if not first and b'"rotations"' in line:
                first = time.monotonic() - start
            if line.startswith(b'{"done"'):
                done = json.loads(line)
                return f"{API}/motion/{done['done']}/{done['names'][0]}", first
    return "", first


async def greedy(app: App, number: int, path: str) -> str:
    made, _ = await generate(app, number)
    await asyncio.sleep(0.5)
    return "motions generated" if made else "generations refused"


async def slow_reader(app: App, number: int, path: str) -> str:
    async with visit(app, number, slow=True) as (reader, writer):
        writer.write(request("/"))
        while await reader.read(500):
            await asyncio.sleep(0.5)
    return "slow readers served"


async def absent(app: App, number: int, path: str) -> str:
    async with visit(app, number) as (_, writer):
        writer.write(request(f"{path}.{'mp4' if number % 2 else 'glb'}"))
        await asyncio.sleep(ABSENT)
    return "downloads abandoned"


async def slow_headers(app: App, number: int, path: str) -> str:
    async with visit(app, number) as (reader, writer):
        for letter in request("/") * 10:
            writer.write(bytes([letter]))
            await writer.drain()
            await asyncio.sleep(0.5)
            if reader.at_eof():
                break
    return "slow requests closed"


KINDS: tuple[Callable[[App, int, str], Coroutine], ...] = (greedy, greedy, slow_reader, absent, slow_headers)


async def act(kind: Callable, app: App, number: int, path: str, outcomes: Counter) -> None:
    """Let a visitor do the same again and again, and count the outcomes."""
    while True:
        try:
            outcomes[await kind(app, number, path)] += 1
        except OSError:
            outcomes[f"connections closed ({kind.__name__})"] += 1
            await asyncio.sleep(0.5)


# --- Measurement


async def crowd(app: App, visitors: int) -> str:
    """Let all visitors ask for a motion of 3 s at once; returns the outcomes and the times of the first four."""
    outcomes: Counter[str] = Counter()
    times: list[float] = []
    served = asyncio.Event()

    async def ask(number: int) -> None:
        start = time.monotonic()
        async with visit(app, number) as (reader, writer):
            writer.write(request(f"{API}/generate", {"prompts": ["a person walks forward"], "seconds": 3.0}))
            status = (await reader.readline())[9:12].decode()
            outcomes[{"200": "accepted", "503": "full"}.get(status, f"status {status}")] += 1
            async for line in reader:
                if b'"done"' in line:
                    times.append(time.monotonic() - start)
                    if len(times) == FIRST:
                        served.set()

    tasks = [asyncio.create_task(ask(number + 1)) for number in range(visitors)]
    everyone, enough = asyncio.gather(*tasks, return_exceptions=True), asyncio.create_task(served.wait())
    await asyncio.wait([everyone, enough], return_when="FIRST_COMPLETED")
    for task in (*tasks, enough):
        task.cancel()
    for result in await asyncio.gather(*tasks, return_exceptions=True):
        if isinstance(result, OSError):
            outcomes["connections closed"] += 1
    counts = ", ".join(f"{count} {name}" for name, count in sorted(outcomes.items()))
    return f"{visitors} at once, 3 s each: {counts}; first motions after {', '.join(f'{each:.1f}' for each in times)} s"


async def probe(app: App, samples: Samples) -> str:
    """Measure the latencies of a visitor once; returns the path of the generated motion, or ""."""
    for name, path in (("page", "/"), ("small answer", f"{API}/motion/none/none.npz")):
        start = time.monotonic()
        await fetch(app, PROBE, path)
        samples[name].append(time.monotonic() - start)
    start = time.monotonic()
    path, first = await generate(app, PROBE)
    if path:
        samples["first frames"].append(first)
        samples["whole motion of 1 s"].append(time.monotonic() - start)
        start = time.monotonic()
        if b" 200 " in (await fetch(app, PROBE, f"{path}.bvh"))[:20]:
            samples["download (.bvh)"].append(time.monotonic() - start)
    return path


async def watch(app: App, usages: list[dict]) -> None:
    while True:
        usages.append(await asyncio.to_thread(app.usage))
        await asyncio.sleep(0.5)


async def measure(app: App, options: Options) -> str:
    """Return the report: a table of latencies and usage before, during and after, and the outcomes of the load."""
    columns: dict[str, tuple[Samples, list[dict]]] = {}
    outcomes: Counter[str] = Counter()
    refused: Counter[str] = Counter()
    path = ""
    for phase in ("before", "during", "after"):
        samples, usages = defaultdict(list), []
        tasks = []
        if phase == "during":
            tasks = [
                asyncio.create_task(act(KINDS[number % len(KINDS)], app, number + 1, path, outcomes))
                for number in range(options.visitors)
            ]
            tasks.append(asyncio.create_task(watch(app, usages)))
        end = time.monotonic() + options.seconds
        for number in range(10_000 if tasks else PROBES):
            made = await probe(app, samples)
            path = made or path
            refused[phase] += not made
            if tasks and time.monotonic() > end:
                break
            if tasks and number:
                await asyncio.sleep(0.5)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if tasks:
            await asyncio.sleep(SETTLE)
        else:
            usages.append(app.usage())
        columns[phase] = samples, usages
    outcomes["refusals of the visitor who measures"] = refused["during"]
    return f"{report(columns, outcomes)}\n{await crowd(app, options.visitors)}"


def report(columns: dict[str, tuple[Samples, list[dict]]], outcomes: Counter[str]) -> str:
    """Format the table: latencies as median and worst, usage as the largest value."""

    def latency(values: list[float]) -> str:
        return f"{statistics.median(values):.2f} / {max(values):.2f} ({len(values)})" if values else "-"

    rows = [f"| | {' | '.join(columns)} |", f"|---|{'---|' * len(columns)}"]
    for name in columns["before"][0]:
        cells = [latency(samples[name]) for samples, _ in columns.values()]
        rows.append(f"| {name}, s: median / worst (count) | {' | '.join(cells)} |")
    for name in columns["before"][1][0]:
        cells = [f"{max(usage[name] for usage in usages):,.0f}" for _, usages in columns.values()]
        rows.append(f"| {name} | {' | '.join(cells)} |")
    lines = [f"{count} {name}" for name, count in sorted(outcomes.items())]
    return "\n".join([*rows, "", "load: " + ", ".join(lines)])


if __name__ == "__main__":
    with exit_on_input_error():
        main(parse_options(Options, __doc__)[0])
