"""Memory of the generator by size: parameters, weights and KV cache.

    python -m benchmarks.memory                           (the table)
    python -m benchmarks.memory --check 111M,343M         (also measures these in a process)

For the released vocabulary (64,000 codes), Flan-T5-XL text and sequences of 150 text features and 150 motion tokens.
int8 and int4 weights are those of models/quantize.py: linear layers including the head, with a scale per output (int8)
or a scale and a zero point per 128 weights (int4), whose inputs are padded to a multiple of 1,024; token embedding and
norms are in bfloat16.
"""

import utils.interrupt  # noqa: F401

# isort: split

import os
import resource
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import psutil
import torch

from models.kv_cache import rounded_columns
from models.llama import LLaMAHF
from models.llama_config import SIZES, LLaMAConfig
from models.llama_layers import stored_width
from models.optimize import load_optimized, optimize, weight_bytes
from training.costs import count_parameters
from utils.checkpoint import save_model
from utils.config import parse_options
from utils.errors import InputError, exit_on_input_error
from utils.processes import worker_pool

RELEASED = {"codebook_size": 64000, "text_dim": 2048, "text_encoder": "flan-t5-xl"}
LENGTHS = {"text_length": 150, "max_tokens": 150}
PRECISIONS = ("float32", "bf16", "int8", "int4")
# of the weights that are not quantized, and of the cache; int4 needs CUDA
DTYPES = {"float32": torch.float32, "bf16": torch.bfloat16, "int8": torch.bfloat16}


@dataclass
class Options:
    """Options of the table."""

    check: str = ""
    """Sizes to allocate and measure on this machine, separated by commas."""

    def __post_init__(self) -> None:
        unknown = [size for size in self.sizes if size not in SIZES]
        if unknown:
            raise InputError(f"--check: the size {unknown[0]} is unknown; use {', '.join(SIZES)}")

    @property
    def sizes(self) -> list[str]:
        return [size for size in self.check.split(",") if size]


def main(options: Options) -> None:
    print("| size | parameters | " + " | ".join(f"weights {name}" for name in PRECISIONS), end=" | ")
    print("KV cache per row, float32 | bf16 |\n|---|---|---|---|---|---|---|---|")
    for size in SIZES:
        if size in ("debug", "demo"):
            continue
        config = config_of(size)
        weights = [f"{weight_bytes(config, precision) / 1e9:.2f}" for precision in PRECISIONS]
        caches = [f"{cache_bytes(config, DTYPES[precision]) / 1e9:.3f}" for precision in ("float32", "bf16")]
        print(f"| {size} | {count_parameters(config).total / 1e6:,.0f} M | {' | '.join(weights + caches)} |")
    if options.sizes:
        os.environ["MALLOC_MMAP_THRESHOLD_"] = "65536"  # otherwise glibc keeps freed memory as unusable fragments
        print("\n| size, precision | weights and cache of 4 rows, computed | growth of the process | largest growth |")
        print("|---|---|---|---|")
    for size in options.sizes:
        config = config_of(size)
        with TemporaryDirectory() as folder:
            save_zeros(config, Path(folder))
            for precision in DTYPES:
                with worker_pool(1) as fresh:  # has no freed memory to reuse
                    grown, most = fresh.submit(allocate, Path(folder), precision).result()
                computed = weight_bytes(config, precision) + 4 * cache_bytes(config, DTYPES[precision])
                print(f"| {size}, {precision} | {computed / 1e9:.2f} | {grown / 1e9:.2f} | {most / 1e9:.2f} |")


def config_of(size: str) -> LLaMAConfig:
    return LLaMAConfig(**RELEASED, **LENGTHS, **SIZES[size])


def cache_bytes(config: LLaMAConfig, dtype: torch.dtype) -> int:
    """Return the bytes of keys and values of one row of full length on a GPU; guidance doubles the rows."""
    return rounded_columns(config.block_size) * column_bytes(config, dtype)


def column_bytes(config: LLaMAConfig, dtype: torch.dtype) -> int:
    """Return the bytes of keys and values of one column of one row on a GPU."""
    return 2 * config.n_layer * config.n_head * stored_width(config.head_dim, dtype, "cuda") * dtype.itemsize


def save_zeros(config: LLaMAConfig, folder: Path) -> None:
    """Save a generator whose weights are zeros."""
    with torch.device("meta"):
        model = LLaMAHF(config).half()
    model.to_empty(device="cpu")
    for parameter in model.parameters():
        parameter.data.zero_()
    save_model(model, folder, "float16")


def allocate(folder: Path, precision: str) -> tuple[int, int]:
    """Load a generator, and write into every page of a KV cache of four rows.

    Returns:
        Growth of this process in bytes at the end, and the largest growth meanwhile.
    """
    dtype, quantize = DTYPES[precision], "int8" if precision == "int8" else "none"
    optimize(LLaMAHF(config_of("debug")), dtype, quantize)  # imports and memory of the kernels
    process = psutil.Process()
    before = process.memory_info().rss
    model = load_optimized(folder, torch.device("cpu"), dtype, quantize)
    cache = model.new_cache(4, model.config.block_size)
    cache.keys.fill_(1)
    cache.values.fill_(1)
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return process.memory_info().rss - before, most - before


if __name__ == "__main__":
    with exit_on_input_error():
        main(parse_options(Options, __doc__)[0])
