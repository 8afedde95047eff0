"""Limits of generation on a GPU, by arithmetic: the predicted tables of docs/gpu.md.

A step of generation reads all weights of the layers and of the head, and the filled columns of the KV cache of every
row; it multiplies each weight once per row. It takes at least the time in which the memory moves these bytes, and at
least the time in which the matrix units do this arithmetic (Williams et al., "Roofline", 2009). Activations, logits,
sampling and the prefill are not counted.
"""

from dataclasses import replace
from typing import NamedTuple

import torch
from torch import nn

from benchmarks.generate import LONGEST, SHORTEST, config_of
from benchmarks.memory import cache_bytes, column_bytes
from models.llama import LLaMAHF
from models.llama_config import LLaMAConfig
from models.quantize import bytes_per_weight
from training.costs import count_parameters

LAUNCH = 5.5e-6  # seconds in which the host launches a kernel from Python; 5 to 6 microseconds are usual
KERNELS_PER_LAYER, OTHER_KERNELS = 12, 24  # of a step with guidance and top-p: 120 for 44M, as tests/pretended/ allows


class Card(NamedTuple):
    """A GPU by its data sheet."""

    name: str
    memory: float  # bytes
    bandwidth: float  # bytes per second
    rate: float  # FLOPs per second of products in dense bf16


CARDS = (Card("H100 SXM", 80e9, 3.35e12, 989e12), Card("RTX 4090", 24e9, 1.008e12, 165e12))


class Cost(NamedTuple):
    """Least work of a computation."""

    bytes: float  # moved between memory and processor
    flops: float

    def seconds(self, bandwidth: float, rate: float) -> float:
        """Return the least time at a bandwidth in bytes per second and a rate in FLOPs per second."""
        return max(self.bytes / bandwidth, self.flops / rate)

    def limit(self, bandwidth: float, rate: float) -> str:
        """Return which of the two takes longer: "memory" or "arithmetic"."""
        return "memory" if self.bytes / bandwidth > self.flops / rate else "arithmetic"


def weights_read(config: LLaMAConfig, precision: str) -> float:
    """Return the bytes of the weights that a step reads: layers and head."""
    with torch.device("meta"):
        model = LLaMAHF(replace(config, n_layer=1))  # all layers are alike
    layer, head = (
        sum(
            module.weight.numel() * bytes_per_weight(precision, *module.weight.shape)
            for module in part.modules()
            if isinstance(module, nn.Linear)
        )
        for part in (model.blocks[0], model.lm_head)
    )
    return config.n_layer * layer + head


def multiplied(config: LLaMAConfig) -> int:
    """Return the number of weights of the layers and the head, which each row is multiplied with."""
    count = count_parameters(config)
    return count.blocks * count.block + count.head


def mean_columns(tokens: int) -> float:
    """Return the mean number of filled columns of a row while ``tokens`` tokens follow a text of mean length."""
    return (SHORTEST + LONGEST) / 2 + tokens / 2


def cache_read(config: LLaMAConfig, rows: int, tokens: int) -> float:
    """Return the bytes of keys and values that a step reads, on average."""
    return rows * mean_columns(tokens) * column_bytes(config, torch.bfloat16)


def step_cost(config: LLaMAConfig, rows: int, tokens: int, precision: str) -> Cost:
    """Return the cost of a step: one token for each row."""
    attention = 4 * mean_columns(tokens) * config.n_layer * config.n_embd  # scores, and weighted sum of the values
    moved = weights_read(config, precision) + cache_read(config, rows, tokens)
    return Cost(moved, rows * (2 * multiplied(config) + attention))


def memory_needed(config: LLaMAConfig, rows: int) -> float:
    """Return the bytes of all weights in bf16, and of the KV cache."""
    weights = count_parameters(config).total * torch.bfloat16.itemsize
    return weights + rows * cache_bytes(config, torch.bfloat16)


def host_seconds(config: LLaMAConfig) -> float:
    """Return the time in which the host launches the kernels of a step, without CUDA graphs."""
    return (OTHER_KERNELS + KERNELS_PER_LAYER * config.n_layer) * LAUNCH


def predicted_tables(sizes: list[str], rows_of: list[int], tokens: int) -> str:
    """Return the table of the limits in bf16, and that of one row with quantized weights, in Markdown."""
    names = [f"{card.name}: limit | without graphs" for card in CARDS]
    lines = [f"| size | rows | weights, GB | cache, GB | GFLOPs | {' | '.join(names)} |"]
    lines.append("|---" * (5 + 2 * len(CARDS)) + "|")
    for size in sizes:
        config = config_of(size, tokens)
        for rows in rows_of:
            weights, cache = weights_read(config, "bf16"), cache_read(config, rows, tokens)
            flops = step_cost(config, rows, tokens, "bf16").flops
            speeds = [_speeds(card, config, rows, tokens) for card in CARDS]
            work = f"{weights / 1e9:.3f} | {cache / 1e9:.3f} | {flops / 1e9:,.1f}"
            lines.append(f"| {size} | {rows} | {work} | {' | '.join(speeds)} |")
    lines += ["", f"| size, one row | {' | '.join(f'{card.name}: bf16 | int8 | int4' for card in CARDS)} |"]
    lines.append("|---" * (1 + 3 * len(CARDS)) + "|")
    for size in sizes:
        config = config_of(size, tokens)
        limits = [
            rounded(1 / step_cost(config, 1, tokens, precision).seconds(card.bandwidth, card.rate))
            for card in CARDS
            for precision in ("bf16", "int8", "int4")
        ]
        lines.append(f"| {size} | {' | '.join(limits)} |")
    return "\n".join(lines)


def _speeds(card: Card, config: LLaMAConfig, rows: int, tokens: int) -> str:
    """Return the tokens per second of a card, at its limit and without CUDA graphs."""
    needed = memory_needed(config, rows)
    if needed > card.memory:
        return f"needs {needed / 1e9:.0f} GB | "
    limit = step_cost(config, rows, tokens, "bf16").seconds(card.bandwidth, card.rate)
    return f"{rounded(rows / limit)} | {rounded(rows / max(limit, host_seconds(config)))}"


def rounded(number: float) -> str:
    """Return a number with three significant digits."""
    return f"{float(f'{number:.3g}'):,.0f}"
