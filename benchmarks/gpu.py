"""Speed and memory on a GPU as shares of its limits: generation and training, with random weights, without a network.

    make gpu                            (the tests that need a GPU, then this script)
    python -m benchmarks.gpu
    python -m benchmarks.gpu --predict  (the limits by arithmetic: tables of docs/gpu.md; needs no GPU)
    python -m benchmarks.gpu --device cpu --sizes debug --rows 1,2 --batch-tokens 300 --windows 2  (try the script)

Generation is greedy, in bf16, for texts of 6 to 40 features: the public algorithm, which recomputes the whole sequence
for every token; LlamaForCausalLM.generate of Hugging Face; ours without and with CUDA graphs (compiled), with int8 and
with int4 weights. A training step is one of train_t2m.py with given text features, or of train_vq.py, in bf16.

Each line is measured in a process of its own. The processes of one size and number of rows, as many as fit into the
memory together, take turns; a line is the median of its turns, each of which ends when the GPU has finished. The limit
is the larger of two times: that of reading weights and cache, at the speed of a large copy, and that of the arithmetic,
at the speed of a large product (benchmarks/roofline.py). A line that fails, does not fit or takes too long has the
reason in place of its figures.
"""

import utils.interrupt  # noqa: F401

# isort: split

import os
import shutil
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import cycle, islice
from typing import Literal

import torch
from jsonargparse.typing import PositiveFloat, PositiveInt

import benchmarks.generate
import benchmarks.train
from benchmarks.generate import Case, Place, config_of, hugging_face, ours, reference
from benchmarks.roofline import Cost, memory_needed, predicted_tables, step_cost
from benchmarks.turns import LeftOut, Line, Machine, Measured, Process, Work, describe, groups_of, in_turns
from models.llama_config import SIZES
from utils.config import parse_options
from utils.errors import InputError, exit_on_input_error, nearest

CONTEXT = 0.7e9  # bytes that a process takes on the GPU beside its tensors
COMPARED = "Hugging Face, bf16"
NO_TIME = LeftOut("the time is over; raise --minutes")
SPARE = 1e9  # bytes for activations, logits and workspaces
FEW_ROWS = 32  # up to which quantized weights are measured: with more rows, arithmetic takes longer than reading


@dataclass
class Options:
    """Options of the benchmark."""

    predict: bool = False
    """Print the limits of known GPUs by arithmetic, and exit."""
    sizes: str = "44M,1B,3B,7B"
    """Model sizes from the table of models/llama_config.py, separated by commas; the first one is trained, too."""
    rows: str = "1,32,256"
    """Numbers of motions that are generated at a time, separated by commas."""
    batch_tokens: str = "4096,16384,65536"
    """Tokens per step of train_t2m.py, separated by commas."""
    windows: str = "256,1024,4096"
    """Windows of 64 frames per step of train_vq.py, separated by commas."""
    tokens: PositiveInt = 50
    """Number of tokens per motion."""
    repeats: PositiveInt = 5
    """Number of turns of each line; the median counts."""
    minutes: PositiveFloat = 6.0
    """Largest time for all measurements, in minutes."""
    device: Literal["cuda", "cpu"] = "cuda"
    """Device; cpu is for trying the script. CUDA_VISIBLE_DEVICES selects one of several GPUs."""

    def __post_init__(self) -> None:
        for size in self.sizes.split(","):
            if size not in SIZES:
                raise InputError(f"--sizes: the size {size} is unknown; {nearest(size, SIZES)}")
        for name in ("rows", "batch_tokens", "windows"):
            if not all(number.isdecimal() and int(number) for number in getattr(self, name).split(",")):
                raise InputError(f"--{name.replace('_', '-')} is {getattr(self, name)}; give whole numbers such as 1,2")

    def numbers(self, name: str) -> list[int]:
        """Return the numbers in the option with this name."""
        return [int(number) for number in getattr(self, name).split(",")]


def main(options: Options) -> None:
    if options.predict:
        print(predicted_tables(options.sizes.split(","), options.numbers("rows"), options.tokens))
        return
    if options.device == "cuda" and not torch.cuda.is_available():
        raise InputError("no CUDA device is found here; use --predict, or --device cpu to try the script")
    started = time.perf_counter()
    deadline = started + 60 * options.minutes
    os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", "2")  # of each process; several compile at the same time
    processes = [Process()]
    processes[0].start(describe, options.device)
    machine = processes[0].result(deadline)
    if isinstance(machine, LeftOut):
        raise InputError(f"the device cannot be used ({machine}); see docs/gpu.md")
    print_table(options, machine, processes, deadline)
    for process in processes:
        process.pool.close()
    print(f"\n{(time.perf_counter() - started) / 60:.1f} minutes")


def print_table(options: Options, machine: Machine, processes: list[Process], deadline: float) -> None:
    """Measure all lines until a time of ``time.perf_counter``, and print them."""
    print(f"{machine.name}, driver {driver()}, PyTorch {torch.__version__}, {machine.memory / 1e9:.1f} GB free")
    print(f"copies {machine.bandwidth / 1e9:,.0f} GB/s, bf16 products {machine.rate / 1e12:,.3g} TFLOPS\n")
    print("| model | | batch | per second | speedup over Hugging Face | memory, GB | limit | % of limit |")
    print("|---|---|---|---|---|---|---|---|", flush=True)
    groups, compared = list(groups_of(lines_of(options, machine), machine.memory)), {}
    for number, group in enumerate(groups):
        # twice an equal share of the time, because sizes differ; later groups share the rest
        time_left, groups_left = deadline - time.perf_counter(), len(groups) - number
        ends = time.perf_counter() + time_left * 2 / (groups_left + 1)
        processes += [Process() for _ in range(len(group) - len(processes))]
        outcomes: list[Measured | LeftOut] = [NO_TIME] * len(group)
        if time_left > 0:
            outcomes = in_turns(group, processes, machine, options.repeats, ends)
        for line, outcome in zip(group, outcomes, strict=True):
            if line.name == COMPARED and isinstance(outcome, Measured):
                compared[line.model, line.batch] = outcome.speed
            print(described(line, outcome, compared.get((line.model, line.batch))), flush=True)


def driver() -> str:
    """Return the version of the driver of the GPU."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return "unknown"
    command = [program, "--query-gpu=driver_version", "--format=csv,noheader"]
    return subprocess.run(command, capture_output=True, text=True).stdout.partition("\n")[0] or "unknown"


def described(line: Line, outcome: Measured | LeftOut, compared: float | None) -> str:
    """Return a line of the table in Markdown.

    Args:
        compared: Speed of Hugging Face for the same model and batch, if it was measured.
    """
    start = f"| {line.model} | {line.name} | {line.batch} |"
    if isinstance(outcome, LeftOut):
        return f"{start} left out: {outcome.replace('|', '/')} | | | | |"
    speedup = f"{outcome.speed / compared:.1f}" if compared else ""
    limit = f"{outcome.limit} | {100 * outcome.share:.0f} %"
    return f"{start} {outcome.speed:,.0f} {line.unit} | {speedup} | {outcome.memory:.2f} | {limit} |"


# --- the lines of the table


def lines_of(options: Options, machine: Machine) -> list[Line]:
    """Return all lines: all sizes for each number of rows, then training."""
    lines = []
    for rows in options.numbers("rows"):
        for size in options.sizes.split(","):
            needed = memory_needed(config_of(size, options.tokens), rows) + SPARE + CONTEXT
            for case in cases_of(rows, torch.device(options.device)):
                batch, arguments = f"{case.rows} row{'s' * (case.rows > 1)}", (options, size, case)
                lines.append(Line(size, case.name, batch, "tokens", needed, generation, arguments))
    size, needed = options.sizes.split(",")[0], machine.memory  # one at a time
    for count in options.numbers("batch_tokens"):
        name, batch, unit, given = "train_t2m.py, bf16", f"{count:,} tokens", "tokens", (options, size, count)
        lines.append(Line(size, name, batch, unit, needed, generator_training, given))
    for count in options.numbers("windows"):
        name, batch, unit = "train_vq.py, bf16", f"{count:,} windows", "frames"
        lines.append(Line("tokenizer", name, batch, unit, needed, tokenizer_training, (options, count)))
    return lines


def cases_of(rows: int, device: torch.device) -> list[Case]:
    """Return the ways of generation that are compared with each other; models are made on the device in bf16."""
    place = Place(device, torch.bfloat16)
    cases = [Case("public algorithm, bf16", 1, "bf16", reference, (place,))] if rows == 1 else []
    cases.append(Case(COMPARED, rows, "bf16", hugging_face, (rows, "bf16", place)))
    for precision in ("bf16", "int8", "int4"):
        quantize = "none" if precision == "bf16" else precision
        for compiled in (False, True) if rows <= FEW_ROWS or precision == "bf16" else ():
            name = f"ours, {precision}{', compiled' * compiled}"
            cases.append(Case(name, rows, precision, ours, (rows, "bf16", quantize, compiled, place)))
    return cases


def generation(options: Options, size: str, case: Case) -> Work:
    """Return a call that generates all tokens of all motions."""
    settings = benchmarks.generate.Options(size=size, tokens=options.tokens)
    generate = case.prepare(settings, *case.arguments)
    step = step_cost(config_of(size, options.tokens), case.rows, options.tokens, case.precision)

    def work() -> tuple[int, Cost]:
        generate(options.tokens)
        return case.rows * options.tokens, Cost(*(options.tokens * each for each in step))

    return work


def generator_training(options: Options, size: str, batch_tokens: int) -> Work:
    """Return a training step of the generator; its batches are on the device, and so are the features of the texts."""
    device = torch.device(options.device)
    settings = benchmarks.train.Options(size=size, batch_tokens=batch_tokens)
    batches = islice(benchmarks.train.token_batches(settings, benchmarks.train.Rows()), options.repeats)
    held = [tuple(part.to(device) if isinstance(part, torch.Tensor) else part for part in batch) for batch in batches]
    encode = benchmarks.train.given_features(device)
    return trained(benchmarks.train.generator_step(settings, cycle(held), encode, torch.bfloat16, device))


def tokenizer_training(options: Options, windows: int) -> Work:
    """Return a training step of the tokenizer."""
    settings = benchmarks.train.Options(windows=windows)
    return trained(benchmarks.train.tokenizer_step(settings, torch.bfloat16, torch.device(options.device)))


def trained(step: Callable[[], tuple[int, float]]) -> Work:
    """Return a training step with its cost, of which only the arithmetic is known."""

    def work() -> tuple[int, Cost]:
        count, flops = step()
        return count, Cost(0, flops)

    return work


if __name__ == "__main__":
    with exit_on_input_error():
        main(parse_options(Options, __doc__)[0])
