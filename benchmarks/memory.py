"""How much memory each size of the generator takes: its parameters, its weights, its KV cache.

    python benchmarks/memory.py                                (the table)
    python benchmarks/memory.py --check 111M,343M,775M         (and what a process really allocates for these)

For the released vocabulary (64,000 codes), Flan-T5-XL text and sequences of 150 text features and 150 motion tokens.
int8 and int4 count the Linear layers of the blocks at one byte and half a byte a weight plus a bfloat16 scale for each
32 weights, and all else (embedding, head, norms) in bfloat16.
"""

import gc
import sys
from dataclasses import dataclass
from pathlib import Path

import psutil
import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from models.llama import SIZES, LLaMAConfig, LLaMAHF
from utils.config import parse_options
from utils.errors import InputError, exit_on_input_error

RELEASED = {"codebook_size": 64000, "text_dim": 2048, "text_encoder": "flan-t5-xl"}
LENGTHS = {"text_length": 150, "max_tokens": 150}
GROUP = 32  # weights that share a scale
BYTES = {"float32": 4.0, "bf16": 2.0, "int8": 1 + 2 / GROUP, "int4": 0.5 + 2 / GROUP}
DTYPES = {"float32": torch.float32, "bf16": torch.bfloat16}


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
        caches = [f"{cache_bytes(config, dtype) / 1e9:.3f}" for dtype in DTYPES.values()]
        print(f"| {size} | {parameters_of(config)[0] / 1e6:,.0f} M | {' | '.join(weights + caches)} |")
    if options.sizes:
        print("\n| size, precision | weights: table, allocated | KV cache of 4 rows: table, allocated |\n|---|---|---|")
    for size in options.sizes:
        for precision, dtype in DTYPES.items():
            config = config_of(size)
            weights, cache = allocate(config, dtype)
            print(
                f"| {size}, {precision} | {weight_bytes(config, precision) / 1e9:.3f}, {weights / 1e9:.3f} "
                f"| {4 * cache_bytes(config, dtype) / 1e9:.3f}, {cache / 1e9:.3f} |"
            )


def config_of(size: str) -> LLaMAConfig:
    return LLaMAConfig(**RELEASED, **LENGTHS, **SIZES[size])


def parameters_of(config: LLaMAConfig) -> tuple[int, int]:
    """How many parameters there are, and how many of them are in the Linear layers of the blocks."""
    with torch.device("meta"):
        model = LLaMAHF(config)
    linears = [module for module in model.transformer.h.modules() if isinstance(module, nn.Linear)]
    return sum(p.numel() for p in model.parameters()), sum(linear.weight.numel() for linear in linears)


def weight_bytes(config: LLaMAConfig, precision: str) -> float:
    whole, linear = parameters_of(config)
    return linear * BYTES[precision] + (whole - linear) * max(BYTES[precision], BYTES["bf16"])


def cache_bytes(config: LLaMAConfig, dtype: torch.dtype) -> int:
    """Keys and values of all layers for one row of full length; guidance doubles the rows."""
    return 2 * config.n_layer * config.block_size * config.n_embd * dtype.itemsize


def allocate(config: LLaMAConfig, dtype: torch.dtype) -> tuple[int, int]:
    """By how much the process grows with a model, and with a KV cache of four full rows, every page written."""
    gc.collect()
    process = psutil.Process()
    before = process.memory_info().rss
    with torch.device("meta"):
        model = LLaMAHF(config)
    model = model.to(dtype).to_empty(device="cpu")
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    loaded = process.memory_info().rss
    cache = model.new_cache(4, config.block_size)
    cache.keys.fill_(1)
    cache.values.fill_(1)
    return loaded - before, process.memory_info().rss - loaded


if __name__ == "__main__":
    with exit_on_input_error():
        main(parse_options(Options, __doc__)[0])
