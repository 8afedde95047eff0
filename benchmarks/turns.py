"""Lines of a table, measured in turns: each has a process of its own, and fails alone.

Processes isolate errors of CUDA, which end all work of their process, and give each line its own peak of memory.
"""

import gc
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import psutil
import torch

from benchmarks.generate import peak_memory
from benchmarks.roofline import Cost
from benchmarks.timing import seconds_of
from utils.device import gemm_rate
from utils.errors import InputError, reason_of
from utils.processes import WorkerPool

WARM_UPS = 2  # calls that compile, and record CUDA graphs
COPIED = 2**30  # bytes of the copy that measures the bandwidth
PATIENCE = 30  # seconds beyond the end in which a turn that has begun may finish

Work = Callable[[], tuple[int, Cost]]  # returns the tokens or frames that it made, and the cost of making them


class Line(NamedTuple):
    """A line of the table: work that can be repeated."""

    model: str
    name: str
    batch: str
    unit: str  # of the speed
    needed: float  # bytes of memory, estimated
    prepare: Callable[..., Work]
    arguments: tuple[Any, ...]

    @property
    def key(self) -> str:
        return f"{self.model} {self.name} {self.batch}"


class Machine(NamedTuple):
    """The device, and its measured limits."""

    name: str
    memory: float  # free bytes
    bandwidth: float  # bytes per second
    rate: float  # FLOPs per second of products in bf16


class Measured(NamedTuple):
    """Result of one turn, or the medians of all."""

    speed: float  # tokens or frames per second
    share: float  # of the speed at the limit
    memory: float  # peak in GB
    limit: str  # "memory" or "arithmetic"


class LeftOut(str):
    """The reason why a line was not measured."""


class Process:
    """A process that prepares and measures lines, one after the other; after a failure a new one takes its place."""

    def __init__(self) -> None:
        self.pool = WorkerPool(1, None, ())

    def start(self, function: Callable[..., Any], *arguments: Any) -> None:
        """Start a call in the process."""
        self.call = self.pool.submit(function, *arguments)

    def result(self, ends: float) -> Any:
        """Return the result of the call, or the reason why there is none at a time of ``time.perf_counter``."""
        try:
            return self.call.result(max(0.0, ends - time.perf_counter()))
        except TimeoutError:
            reason = LeftOut("it took too long")
        except InputError as error:
            reason = LeftOut(error)
        except Exception as error:  # of any library; the other lines are measured
            reason = LeftOut(reason_of(error))
        self.pool.stop()
        self.pool = WorkerPool(1, None, ())
        return reason


def groups_of(lines: list[Line], memory: float) -> Iterator[list[Line]]:
    """Yield successive lines of the same model and batch that fit into the memory together.

    A line that does not fit by itself has a group of its own.
    """
    group: list[Line] = []
    for line in lines:
        is_alike = all((other.model, other.batch) == (line.model, line.batch) for other in group)
        if group and not (is_alike and sum(other.needed for other in (*group, line)) <= memory):
            yield group
            group = []
        group.append(line)
    if group:
        yield group


def in_turns(
    lines: list[Line], processes: list[Process], machine: Machine, repeats: int, ends: float
) -> list[Measured | LeftOut]:
    """Return the medians of lines that take turns, until a time of ``time.perf_counter``."""
    outcomes: dict[str, Any] = {}
    at_work = dict(zip((line.key for line in lines), processes, strict=False))
    for line in lines:
        if line.needed > machine.memory:
            needed, free = line.needed / 1e9, machine.memory / 1e9
            outcomes[line.key] = LeftOut(f"about {needed:.0f} GB are needed and {free:.0f} are free")
            del at_work[line.key]
        else:
            at_work[line.key].start(prepared, line)
    for key, process in at_work.items():
        outcomes[key] = process.result(ends)
    turns: dict[str, list[Measured]] = {key: [] for key in at_work if not isinstance(outcomes[key], LeftOut)}
    for number in range(repeats):
        if number and time.perf_counter() > ends:
            break
        for key in list(turns):
            at_work[key].start(turn, key, machine)
            outcome = at_work[key].result(ends + PATIENCE)
            if isinstance(outcome, LeftOut):
                outcomes[key] = outcome
                del turns[key]
            else:
                turns[key].append(outcome)
    for key, each in turns.items():
        speed, share, memory = np.median([measured[:3] for measured in each], axis=0).tolist()
        outcomes[key] = Measured(speed, share, memory, each[0].limit)
        at_work[key].start(released, key)
        at_work[key].result(ends + PATIENCE)
    return [outcomes[line.key] for line in lines]


# --- in the processes

works: dict[str, Work] = {}  # that this process has prepared, by the keys of their lines


def describe(device: str) -> Machine:
    """Describe the device and measure its limits."""
    place = torch.device(device)
    on_gpu = place.type == "cuda"
    name = torch.cuda.get_device_name() if on_gpu else f"{torch.get_num_threads()} CPU threads"
    free = torch.cuda.mem_get_info()[0] if on_gpu else psutil.virtual_memory().available
    machine = Machine(name, free, copy_rate(place), gemm_rate(place, torch.bfloat16))
    torch.cuda.empty_cache()
    return machine


def copy_rate(device: torch.device) -> float:
    """Return the bytes per second that a large copy reads and writes."""
    source = torch.ones(COPIED, dtype=torch.uint8, device=device)
    target, copies = torch.empty_like(source), 10

    def copy() -> None:
        for _ in range(copies):
            target.copy_(source)
        synchronize()

    return copies * 2 * COPIED / min(seconds_of(copy, 3))


def synchronize() -> None:
    """Wait until the GPU has finished, if this process uses one."""
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()


def prepared(line: Line) -> None:
    """Prepare a line in this process, and warm up."""
    work = line.prepare(*line.arguments)
    for _ in range(WARM_UPS):
        work()
    synchronize()
    if torch.cuda.is_initialized():
        torch.cuda.reset_peak_memory_stats()
    works[line.key] = work


def turn(key: str, machine: Machine) -> Measured:
    """Measure one turn of a line that was prepared in this process; it ends when the GPU has finished."""
    started = time.perf_counter()
    count, cost = works[key]()
    synchronize()
    seconds = time.perf_counter() - started
    memory = torch.cuda.max_memory_allocated() / 1e9 if torch.cuda.is_initialized() else peak_memory()
    limits = machine.bandwidth, machine.rate
    return Measured(count / seconds, cost.seconds(*limits) / seconds, memory, cost.limit(*limits))


def released(key: str) -> None:
    """Free the memory of a line, and forget what was compiled for it."""
    del works[key]
    torch.compiler.reset()
    gc.collect()
    torch.cuda.empty_cache()
