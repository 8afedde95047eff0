"""How much memory each size of the generator takes: its parameters, its weights, its KV cache.

    python -m benchmarks.memory                                (the table)
    python -m benchmarks.memory --check 111M,343M,775M         (and what a process really allocates for these)

For the released vocabulary (64,000 codes), Flan-T5-XL text and sequences of 150 text features and 150 motion tokens.
int8 and int4 are those of models/optimize.py: linear layers, the head among them, with a scale for each output or a
scale and a zero for each 128 weights; the rest (token embedding, norms) is in bfloat16.
"""

from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context

import psutil
import torch

from models.llama import SIZES, LLaMAConfig, LLaMAHF
from models.optimize import INT4_GROUP, optimize
from training.costs import count_parameters
from utils.config import parse_options
from utils.errors import InputError, exit_on_input_error

RELEASED = {"codebook_size": 64000, "text_dim": 2048, "text_encoder": "flan-t5-xl"}
LENGTHS = {"text_length": 150, "max_tokens": 150}
BYTES = {"float32": 4.0, "bf16": 2.0, "int8": 1.0, "int4": 0.5 + 4 / INT4_GROUP}  # a weight of a linear layer
DTYPES = {"float32": torch.float32, "bf16": torch.bfloat16, "int8": torch.bfloat16}  # of the rest; int4 is CUDA's


@dataclass
class Options:
    """What to print.

    Attributes:
        check: Sizes to allocate here, separated by commas.
    """

    check: str = ""

    def __post_init__(self):
        unknown = [size for size in self.sizes if size not in SIZES]
        if unknown:
            raise InputError(f"--check knows no size {unknown[0]}; use some of {', '.join(SIZES)}")

    @property
    def sizes(self) -> list[str]:
        return [size for size in self.check.split(",") if size]


def main(options: Options) -> None:
    print("| size | parameters | " + " | ".join(f"weights {name}" for name in BYTES), end=" | ")
    print("KV cache a row, float32 | bf16 |\n|---|---|---|---|---|---|---|---|")
    for size in SIZES:
        if size in ("debug", "demo"):
            continue
        config = config_of(size)
        weights = [f"{weight_bytes(config, precision) / 1e9:.2f}" for precision in BYTES]
        caches = [f"{cache_bytes(config, DTYPES[precision]) / 1e9:.3f}" for precision in ("float32", "bf16")]
        print(f"| {size} | {count_parameters(config).total / 1e6:,.0f} M | {' | '.join(weights + caches)} |")
    if options.sizes:
        print(
            "\n| size, precision | weights and cache of 4 rows by the table | what the process grew by |\n|---|---|---|"
        )
    for size in options.sizes:
        for precision, dtype in DTYPES.items():
            config = config_of(size)
            quantize = "int8" if precision == "int8" else "none"
            with ProcessPoolExecutor(1, get_context("spawn")) as fresh:  # a process that has freed nothing yet
                grown = fresh.submit(allocate, config, dtype, quantize).result()
            computed = weight_bytes(config, precision) + 4 * cache_bytes(config, dtype)
            print(f"| {size}, {precision} | {computed / 1e9:.2f} | {grown / 1e9:.2f} |")


def config_of(size: str) -> LLaMAConfig:
    return LLaMAConfig(**RELEASED, **LENGTHS, **SIZES[size])


def weight_bytes(config: LLaMAConfig, precision: str) -> float:
    count = count_parameters(config)
    return count.linear * BYTES[precision] + (count.total - count.linear) * max(BYTES[precision], BYTES["bf16"])


def cache_bytes(config: LLaMAConfig, dtype: torch.dtype) -> int:
    """Keys and values of all layers for one row of full length; guidance doubles the rows."""
    return 2 * config.n_layer * config.block_size * config.n_embd * dtype.itemsize


def allocate(config: LLaMAConfig, dtype: torch.dtype, quantize: str) -> int:
    """By how many bytes this process grows with a model and a KV cache of four full rows, every page written."""
    optimize(LLaMAHF(config_of("debug")), dtype, quantize)  # imports and the kernels' own memory
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
