"""Cost of training each model size on 1 to 64 GPUs, computed by training/costs.py: the tables of docs/scaling.md.

    python -m benchmarks.plan                        (the tables)
    python -m benchmarks.plan --check 44M,111M       (compare the memory with training steps measured on this CPU)

For the vocabulary of the released model (64,000 codes), Flan-T5-XL text, and rows of 150 text features and 150 motion
tokens.
"""

import utils.interrupt  # noqa: F401

# isort: split

import os
import resource
from dataclasses import dataclass
from functools import partial

import psutil
import torch
from jsonargparse.typing import PositiveFloat, PositiveInt
from torch.utils.checkpoint import checkpoint

from benchmarks.memory import config_of
from models.llama import LLaMAHF
from models.llama_config import SIZES, LLaMAConfig
from training.costs import (
    ENGINES,
    MicroBatch,
    count_flops,
    count_parameters,
    estimate_memory,
    text_share,
    training_days,
)
from training.options import Utilisation
from training.plan import GPUS, memory_cell
from utils.config import parse_options
from utils.errors import InputError, exit_on_input_error
from utils.processes import worker_pool

TOKENS = 10**10  # of the table of days


@dataclass
class Options:
    """Options of the tables."""

    sizes: str = "111M,1B,3B,7B"
    """Model sizes to list, from the size table of models/llama_config.py, separated by commas."""
    rows: PositiveInt = 8
    """Rows per GPU and micro-batch."""
    tflops: PositiveFloat = 989.0
    """Peak speed of one GPU, in 10^12 FLOPs per second; 989 is an H100 SXM in dense bf16 (data sheet)."""
    utilisation: Utilisation = 0.4
    """Fraction of the peak speed to assume, in FLOPs of the model."""
    check: str = ""
    """Model sizes to train briefly on this CPU to compare their memory, separated by commas."""

    def __post_init__(self):
        for size in [*split(self.sizes), *split(self.check)]:
            if size not in SIZES:
                raise InputError(f"size {size} is unknown; use some of {', '.join(SIZES)}")


def main(options: Options) -> None:
    print_tables(options, {size: config_of(size) for size in split(options.sizes)})
    if options.check:
        os.environ["MALLOC_MMAP_THRESHOLD_"] = "65536"  # otherwise glibc keeps freed memory as unusable fragments
        print("\n| one training step on the CPU | GB estimated | GB measured | difference |\n|---|---|---|---|")
    for size in split(options.check):
        print_check(options, size)


def print_tables(options: Options, configs: dict[str, LLaMAConfig]) -> None:
    """Print parameters and FLOPs, days, and memory per GPU."""
    header = " | ".join(map(str, GPUS))
    print("| size | parameters | without embedding and head | GFLOPs per token | due to text |\n|---|---|---|---|---|")
    for size, config in configs.items():
        batch, count = longest_batch(config, options.rows), count_parameters(config)
        print(
            f"| {size} | {count.total / 1e6:,.0f} M | {count.core / 1e6:,.0f} M | "
            f"{count_flops(config, batch) / batch.targets / 1e9:,.1f} | {text_share(config, batch):.0%} |"
        )
    print(f"\n| days for 10^10 tokens, by number of GPUs | {header} |\n|---|{'---|' * len(GPUS)}")
    for size, config in configs.items():
        batch = longest_batch(config, options.rows)
        flops = TOKENS * count_flops(config, batch) / batch.targets
        row = [f"{training_days(flops, gpus, options.tflops, options.utilisation):,.2f}" for gpus in GPUS]
        print(f"| {size} | {' | '.join(row)} |")
    print(f"\n| GB per GPU, by number of GPUs | {header} |\n|---|{'---|' * len(GPUS)}")
    for size, config in configs.items():
        for engine in ENGINES:
            row = [memory_cell(config, longest_batch(config, options.rows), engine, gpus) for gpus in GPUS]
            print(f"| {size}, {engine} | {' | '.join(row)} |")


def print_check(options: Options, size: str) -> None:
    """Print the estimated and the measured memory of training steps of a size."""
    config = config_of(size)
    batch = longest_batch(config, options.rows)
    for precision in ("float32", "bf16"):
        for recompute in (False, True):
            estimated = estimate_memory(config, batch, recompute=recompute, precision=precision).peak
            with worker_pool(1) as new_process:  # its peak memory starts low
                measured = new_process.submit(train_briefly, config, options.rows, precision, recompute).result()
            print(
                f"| {size}, {precision}, activations {'recomputed' if recompute else 'kept'} | "
                f"{estimated / 1e9:.2f} | {measured / 1e9:.2f} | {estimated / measured - 1:+.0%} |"
            )


def split(sizes: str) -> list[str]:
    """Split a list of sizes that are separated by commas."""
    return [size for size in sizes.split(",") if size]


def longest_batch(config: LLaMAConfig, rows: int) -> MicroBatch:
    """Return a micro-batch of the longest rows."""
    return MicroBatch(rows, config.text_length, config.max_tokens)


def train_briefly(config: LLaMAConfig, rows: int, precision: str, recompute: bool) -> int:
    """Return by how many bytes this process grows at most in two training steps with an EMA of the weights."""
    small = LLaMAConfig(8, 8, "", 8, 8, **SIZES["debug"])
    step_twice(small, 1, precision, recompute)  # allocates the memory of imports and kernels
    before = psutil.Process().memory_info().rss
    step_twice(config, rows, precision, recompute)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before


def step_twice(config: LLaMAConfig, rows: int, precision: str, recompute: bool) -> None:
    """Train a model on random data for two steps."""
    model = LLaMAHF(config)
    for block in model.transformer.h if recompute else ():
        block.forward = partial(checkpoint, block.forward, use_reentrant=False)
    average = [parameter.detach().clone() for parameter in model.parameters()]
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    text = torch.randn(rows, config.text_length, config.text_dim)
    mask = torch.ones(text.shape[:2], dtype=torch.bool)
    tokens = torch.randint(config.codebook_size, (rows, config.max_tokens))
    for _ in range(2):
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
            loss = model.loss(text, mask, tokens)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        torch._foreach_lerp_(average, [parameter.detach() for parameter in model.parameters()], 0.01)


if __name__ == "__main__":
    with exit_on_input_error():
        main(parse_options(Options, __doc__)[0])
