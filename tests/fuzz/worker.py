"""A process that reads cases one after the other: each in a child with limits, so that nothing lasts.

    python tests/fuzz/worker.py SEEDS

A line of JSON on the standard input asks for a case, a line on the standard output says how it ended.
"""

import contextlib
import gc
import json
import os
import resource
import select
import signal
import sys
import tempfile
import time
import traceback
from pathlib import Path

MB = 2**20
TIMEOUT = 10.0  # seconds
MEMORY = 1024 * MB  # resident, above what the worker has
ADDRESSES = 4 * MEMORY  # the hard limit, which protects the machine
MAX_MESSAGE = 500
OF_LIBRARIES = ("input", "pymp-", "torchinductor_")  # what may be in the folder for temporary files


def serve(seeds: Path) -> None:
    """Answer each request {"target", "folder"} with {"result", "detail", "where", "seconds", "megabytes"}."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # what the code under test prints is no answer
    from fuzz import targets

    targets.static = (seeds / "static").resolve()
    print(
        json.dumps({"ready": {name: target.kind for name, target in targets.TARGETS.items()}}), file=answers, flush=True
    )
    for number, line in enumerate(sys.stdin):
        if number == 0:  # now the seeds have been written
            targets.warm_up()
            gc.freeze()  # what was imported stays shared with the children
        request = json.loads(line)
        result = run_case(targets.TARGETS[request["target"]], Path(request["folder"]))
        print(json.dumps(result), file=answers, flush=True)


def run_case(target, folder: Path) -> dict:
    """Read a case in a child; what the child does not say is found out here."""
    before, started = snapshot(folder), time.monotonic()
    receiving, sending = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(receiving)
        read_in_child(target, folder, sending)
    os.close(sending)
    baseline, answer = receive(receiving, started + TIMEOUT)
    os.close(receiving)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child, signal.SIGKILL)  # its own children too; by now it has nothing left to do
    _, status, usage = os.wait4(child, 0)
    used = usage.ru_maxrss * 1024 - baseline
    result = {"seconds": round(time.monotonic() - started, 2), "megabytes": max(0, used) // MB}
    changes = differences(before, snapshot(folder), target.writes)
    if any(name.endswith("EXECUTED") for name in changes):
        return result | {"result": "code run", "detail": ", ".join(changes), "where": ""}
    if answer is None and result["seconds"] >= TIMEOUT:
        return result | {"result": "hang", "detail": f"no end after {TIMEOUT:g} s", "where": ""}
    if answer is None:
        return result | {"result": "crash", "detail": f"wait status {status}", "where": ""}
    if used > MEMORY:
        return result | {"result": "memory", "detail": f"{used // MB} MB", "where": ""}
    if changes and answer["result"] in ("ok", "refused"):
        return result | {"result": "left behind", "detail": ", ".join(changes)[:300], "where": answer["detail"][:80]}
    return result | answer


def read_in_child(target, folder: Path, sending: int) -> None:
    """Call the target within limits and send how it ended; does not return."""
    try:
        os.setsid()
        os.chdir(folder)
        temporary = tempfile.mkdtemp(prefix="fuzz-child-", dir=folder.parent)
        tempfile.tempdir = os.environ["TMPDIR"] = temporary
        nowhere = os.open(os.devnull, os.O_WRONLY)
        for number in (1, 2):
            os.dup2(nowhere, number)
        sys.stdin = answers = open(os.path.join(temporary, "input"), "w+")  # noqa: SIM115
        answers.write("y\n" * 9)  # to whoever asks whether to run the code of a model
        answers.seek(0)
        os.dup2(answers.fileno(), 0)
        addresses = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (addresses + ADDRESSES,) * 2)
        resource.setrlimit(resource.RLIMIT_FSIZE, (256 * MB,) * 2)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        sys.path.insert(0, "")  # as python -m has it: the working folder's modules could be imported
        os.write(sending, json.dumps({"baseline": resident()}).encode() + b"\n")
        answer = attempt(target)
        left = sorted(name for name in os.listdir(temporary) if not name.startswith(OF_LIBRARIES))
        if left and answer["result"] in ("ok", "refused"):
            answer = {"result": "left behind", "detail": f"temporary {left[0]}", "where": answer["detail"][:80]}
        os.write(sending, json.dumps(answer).encode() + b"\n")
    finally:
        os._exit(0)


def attempt(target) -> dict:
    from utils.errors import InputError

    try:
        target.read()
    except InputError as error:
        message = str(error)
        fault = (
            "message of several lines" if "\n" in message
            else f"message of {len(message)} characters" if len(message) >= MAX_MESSAGE
            else "control characters in the message" if not message.isprintable()
            else ""
        )  # fmt: skip
        detail = f"{fault}: {message[:300]}" if fault else message
        return {"result": "message" if fault else "refused", "detail": detail, "where": place_of(error)}
    except BaseException as error:  # noqa: BLE001
        try:
            detail = f"{type(error).__name__}: {str(error)[:300]}"
        except BaseException:  # noqa: BLE001
            detail = type(error).__name__
        return {"result": "traceback", "detail": detail, "where": place_of(error)}
    return {"result": "ok", "detail": "", "where": ""}


def place_of(error: BaseException) -> str:
    """The innermost line of the project, tests excepted, that an error came through."""
    root = str(Path(__file__).parents[2])
    place = ""
    for frame in traceback.extract_tb(error.__traceback__, limit=-2000):
        name = frame.filename.removeprefix(root).lstrip("/")
        if frame.filename.startswith(root) and not name.startswith("tests/"):
            place = f"{name}:{frame.lineno} {frame.name}"
    return place


def receive(pipe: int, deadline: float) -> tuple[int, dict | None]:
    """The memory that the child began with, and its answer; None if it ended without one, or did not end in time."""
    content = b""
    while content.count(b"\n") < 2 and (left := deadline - time.monotonic()) > 0:
        if select.select([pipe], [], [], left)[0]:
            if not (piece := os.read(pipe, 65536)):
                break
            content += piece
    first, _, second = content.partition(b"\n")
    baseline = json.loads(first)["baseline"] if first else resident()
    return baseline, json.loads(second) if second.endswith(b"\n") else None


def snapshot(folder: Path) -> dict[str, tuple]:
    found = {}
    for path in folder.rglob("*"):
        about = path.lstat()
        found[str(path.relative_to(folder))] = (about.st_mode, 0 if path.is_dir() else about.st_size)
    return found


def differences(before: dict, after: dict, allowed: tuple[str, ...]) -> list[str]:
    names = sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name))
    return [name for name in names if name.split("/")[0] not in (*allowed, "__pycache__")]


def resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


if __name__ == "__main__":
    root = Path(__file__).resolve().parents[2]
    sys.path[0:1] = [str(root), str(root / "tests")]
    import torch

    torch.set_num_threads(1)  # a child of a process with threads of its own would wait for them
    serve(Path(sys.argv[1]))
