"""What training each size takes on 1 to 64 GPUs, by training/costs.py: the tables of docs/scaling.md.

    python -m benchmarks.plan                        (the tables)
    python -m benchmarks.plan --check 44M,111M       (and how far they are from steps measured on this CPU)

For the released vocabulary (64,000 codes), Flan-T5-XL text, and rows of 150 text features and 150 motion tokens.
"""

import os
import resource
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context

import psutil
import torch
from jsonargparse.typing import PositiveFloat, PositiveInt
from torch.utils.checkpoint import checkpoint

from benchmarks.memory import config_of
from models.llama import SIZES, LLaMAConfig, LLaMAHF
from training.costs import ENGINES, MicroBatch, days, flops, memory, parameters, text_share
from training.plan import GPUS, Utilisation, memory_cell
from utils.config import parse_options
from utils.errors import InputError, exit_on_input_error


@dataclass
class Options:
    """What to print.

    Attributes:
        sizes: Sizes of models/llama.py, separated by commas.
        rows: Rows that go through a GPU at once.
        tflops: Peak of one GPU, in 10^12 FLOPs a second; 989 is an H100 SXM's in dense bf16 by its data sheet.
        utilisation: Share of the peak that is assumed to be reached.
        check: Sizes whose memory is measured here.
    """

    sizes: str = "111M,1B,3B,7B"
    rows: PositiveInt = 8
    tflops: PositiveFloat = 989.0
    utilisation: Utilisation = 0.4
    check: str = ""

    def __post_init__(self):
        for size in [*named(self.sizes), *named(self.check)]:
            if size not in SIZES:
                raise InputError(f"size {size} is unknown; use some of {', '.join(SIZES)}")


def named(sizes: str) -> list[str]:
    return [size for size in sizes.split(",") if size]


def main(options: Options) -> None:
    sizes = {size: config_of(size) for size in named(options.sizes)}
    header = " | ".join(map(str, GPUS))
    print("| size | parameters | without embedding and head | GFLOPs a token | of it for text |\n|---|---|---|---|---|")
    for size, config in sizes.items():
        load, count = load_of(config, options.rows), parameters(config)
        print(
            f"| {size} | {count.total / 1e6:,.0f} M | {count.core / 1e6:,.0f} M | "
            f"{flops(config, load) / load.targets / 1e9:,.1f} | {text_share(config, load):.0%} |"
        )
    print(f"\n| days for 10^10 tokens on this many GPUs | {header} |\n|---|{'---|' * len(GPUS)}")
    for size, config in sizes.items():
        load = load_of(config, options.rows)
        spent = 1e10 * flops(config, load) / load.targets
        row = [f"{days(spent, gpus, options.tflops, options.utilisation):,.2f}" for gpus in GPUS]
        print(f"| {size} | {' | '.join(row)} |")
    print(f"\n| GB a GPU, on this many GPUs | {header} |\n|---|{'---|' * len(GPUS)}")
    for size, config in sizes.items():
        for engine in ENGINES:
            row = [memory_cell(config, load_of(config, options.rows), engine, gpus) for gpus in GPUS]
            print(f"| {size}, {engine} | {' | '.join(row)} |")
    if options.check:
        os.environ["MALLOC_MMAP_THRESHOLD_"] = "65536"  # or glibc keeps freed memory, in holes that nothing fits in
        print("\n| one training step on the CPU | GB by the plan | GB measured | plan to measured |\n|---|---|---|---|")
    for size in named(options.check):
        config = config_of(size)
        for precision in ("float32", "bf16"):
            for recompute in (False, True):
                load = load_of(config, options.rows)
                computed = memory(config, load, recompute=recompute, precision=precision).peak
                with ProcessPoolExecutor(1, get_context("spawn")) as fresh:  # a process that has had no peak yet
                    measured = fresh.submit(train_briefly, config, options.rows, precision, recompute).result()
                print(
                    f"| {size}, {precision}, activations {'computed again' if recompute else 'kept'} | "
                    f"{computed / 1e9:.2f} | {measured / 1e9:.2f} | {computed / measured - 1:+.0%} |"
                )


def load_of(config: LLaMAConfig, rows: int) -> MicroBatch:
    return MicroBatch(rows, config.text_length, config.max_tokens)


def train_briefly(config: LLaMAConfig, rows: int, precision: str, recompute: bool) -> int:
    """By how many bytes this process grows at most in two training steps, with an average of the weights."""
    small = LLaMAConfig(8, 8, "", 8, 8, **SIZES["debug"])
    step_twice(small, 1, precision, recompute)  # imports and the kernels' own memory
    before = psutil.Process().memory_info().rss
    step_twice(config, rows, precision, recompute)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before


def step_twice(config: LLaMAConfig, rows: int, precision: str, recompute: bool) -> None:
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
