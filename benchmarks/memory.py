"""Memory of the generator by size: parameters, weights and KV cache.

    python -m benchmarks.memory                                (the table)
    python -m benchmarks.memory --check 111M,343M,775M         (also measures these in a process)

For the released vocabulary (64,000 codes), Flan-T5-XL text and sequences of 150 text features and 150 motion tokens.
int8 and int4 weights are those of models/optimize.py: linear layers including the head, with a scale per output (int8)
or a scale and a zero point per 128 weights (int4); token embedding and norms are in bfloat16.
"""

import utils.interrupt  # noqa: F401

# isort: split

from dataclasses import dataclass

import psutil
import torch

from models.kv_cache import rounded_columns
from models.llama import LLaMAHF
from models.llama_config import SIZES, LLaMAConfig
from models.llama_layers import stored_width
from models.optimize import INT4_GROUP, optimize
from training.costs import count_parameters
from utils.config import parse_options
from utils.errors import InputError, exit_on_input_error
from utils.processes import worker_pool

RELEASED = {"codebook_size": 64000, "text_dim": 2048, "text_encoder": "flan-t5-xl"}
LENGTHS = {"text_length": 150, "max_tokens": 150}
BYTES = {"float32": 4.0, "bf16": 2.0, "int8": 1.0, "int4": 0.5 + 4 / INT4_GROUP}  # per weight of a linear layer
# of the other weights and of the cache; int4 needs CUDA
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
    print("| size | parameters | " + " | ".join(f"weights {name}" for name in BYTES), end=" | ")
    print("KV cache per row, float32 | bf16 |\n|---|---|---|---|---|---|---|---|")
    for size in SIZES:
        if size in ("debug", "demo"):
            continue
        config = config_of(size)
        weights = [f"{weight_bytes(config, precision) / 1e9:.2f}" for precision in BYTES]
        caches = [f"{cache_bytes(config, DTYPES[precision]) / 1e9:.3f}" for precision in ("float32", "bf16")]
        print(f"| {size} | {count_parameters(config).total / 1e6:,.0f} M | {' | '.join(weights + caches)} |")
    if options.sizes:
        print("\n| size, precision | weights and cache of 4 rows, computed | growth of the process |\n|---|---|---|")
    for size in options.sizes:
        for precision, dtype in DTYPES.items():
            config = config_of(size)
            quantize = "int8" if precision == "int8" else "none"
            with worker_pool(1) as fresh:  # has no freed memory to reuse
                grown = fresh.submit(allocate, config, dtype, quantize).result()
            computed = weight_bytes(config, precision) + 4 * cache_bytes(config, dtype)
            print(f"| {size}, {precision} | {computed / 1e9:.2f} | {grown / 1e9:.2f} |")


def config_of(size: str) -> LLaMAConfig:
    return LLaMAConfig(**RELEASED, **LENGTHS, **SIZES[size])


def weight_bytes(config: LLaMAConfig, precision: str) -> float:
    """Return the bytes of all weights."""
    count = count_parameters(config)
    return count.linear * BYTES[precision] + (count.total - count.linear) * max(BYTES[precision], BYTES["bf16"])


def cache_bytes(config: LLaMAConfig, dtype: torch.dtype) -> int:
    """Return the bytes of keys and values of one row of full length on a GPU; guidance doubles the rows."""
    width = config.n_head * stored_width(config.head_dim, dtype, "cuda")
    return 2 * config.n_layer * rounded_columns(config.block_size) * width * dtype.itemsize


def allocate(config: LLaMAConfig, dtype: torch.dtype, quantize: str) -> int:
    """Return the growth of this process in bytes with a model and a KV cache of four rows, every page written."""
    optimize(LLaMAHF(config_of("debug")), dtype, quantize)  # imports and memory of the kernels
    process = psutil.Process()
    before = process.memory_info().rss
    with torch.device("meta"):
        model = LLaMAHF(config)
    model = model.to(dtype).to_empty(device="cpu")
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    cache = optimize(model, dtype, quantize).new_cache(4, config.block_size)
    cache.keys.fill_(1)
    cache.values.fill_(1)
    return process.memory_info().rss - before


if __name__ == "__main__":
    with exit_on_input_error():
        main(parse_options(Options, __doc__)[0])
