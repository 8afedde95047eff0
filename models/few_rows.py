"""A decoding step on a CPU: one compiled function for a few rows, PyTorch for more.

With few rows, PyTorch spends most of a step of a small model between its operators. ``models.step_kernels`` computes
the whole step in one function instead, at the speed at which the weights are read. It reads them in their plain layout,
of which float32 and bfloat16 models get a copy.
"""

import json
import logging
import math
import os
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from functools import cache, partial
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from models.kv_cache import KVCache, rounded_columns
from models.llama import LLaMAHF
from models.llama_layers import rope_table
from utils.device import OtherPrograms
from utils.errors import InputError
from utils.files import atomic_write
from utils.paths import cache_folder, use_writable_caches
from utils.reading.texts import read_json

MOST_ROWS = 4
MOST_COPIED = 10**9  # bytes of weights; larger models spend little time between operators
COLUMNS, REPEATS, SECONDS = 32, 5, 0.05  # of the measurement
CHOICES = "steps.json"  # in the folder for caches
BUSY = 0.1  # share of the cores in use by other programs from which a measurement is not kept
IN_USE = threading.Lock()  # numba's threads serve one caller at a time

Step = Callable[[Tensor, KVCache, int, Tensor | None], Tensor]


class Choice(NamedTuple):
    """The fastest way to compute a step on this machine."""

    threads: int
    rows: int  # up to which the compiled function is faster than PyTorch, 0 to ``MOST_ROWS``


def kernels() -> Any:
    """Return ``models.step_kernels``.

    Returns:
        None if numba is missing or does not work here, or in a forked process, which must not use its threads.
    """
    module, process = _loaded_kernels()
    return module if process == os.getpid() else None


@cache
def _loaded_kernels() -> tuple[Any, int]:
    use_writable_caches()
    threads = torch.get_num_threads()
    try:
        from models import step_kernels

        step_kernels.set_num_threads(1)  # starts the threads, which can change the number of PyTorch's
    except (ImportError, RuntimeError, OSError) as error:
        logging.getLogger(__name__).warning("numba cannot be used (%s), so steps of a few rows are slower", error)
        return None, os.getpid()
    torch.set_num_threads(threads)
    return step_kernels, os.getpid()


def plain_weights(model: LLaMAHF) -> Any:
    """Return ``step_kernels.Weights`` of an optimized model on a CPU, before its layers are packed.

    int8 weights are not copied: the layers of the model become views of them.

    Returns:
        None if the model is too large or has weights of a kind that the kernels do not support.
    """
    blocks: list[Any] = list(model.blocks)
    kinds = [[getattr(block, part) for block in blocks] for part in ("attn", "mlp")]
    layers = [[each.c_attn for each in kinds[0]], [each.c_proj for each in kinds[0]]]
    layers += [[each.c_fc for each in kinds[1]], [each.c_proj for each in kinds[1]], [model.lm_head]]
    weights = [layer.weight for group in layers for layer in group]
    dtype, size = weights[0].dtype, sum(weight.nbytes for weight in weights)
    supported = dtype == torch.int8 or (dtype in (torch.float32, torch.bfloat16) and size <= MOST_COPIED)
    if not supported or {weight.dtype for weight in weights} != {dtype} or kernels() is None:
        return None
    del weights  # each group is freed when it is stacked
    matrices = [array for group in layers for array in _stacked(group)]
    matrices[-2:] = [matrices[-2][0], matrices[-1][0]]  # one head
    norms = torch.zeros(len(blocks) + 1, 2, model.config.n_embd)
    norms[:-1] = torch.stack([torch.stack((block.rms_1.scale, block.rms_2.scale)) for block in blocks])
    norms[-1, 0] = model.transformer.ln_f.scale
    positions = torch.arange(rounded_columns(model.config.block_size))
    rope = rope_table(positions, model.config.head_dim)[:, 0, 0].flatten(1)  # (P, D)
    embedding = as_array(model.transformer.wte.weight)
    return kernels().Weights(embedding, *matrices, norms.numpy(), rope.numpy())


def _stacked(layers: list[Any]) -> tuple[np.ndarray, np.ndarray]:
    """Return weights (L, N, K) and scales (L, N) of layers of one shape."""
    weights: Tensor = torch.stack([layer.weight for layer in layers])
    if weights.dtype != torch.int8:
        return as_array(weights), np.ones(weights.shape[:2], dtype=np.float32)
    for layer, weight in zip(layers, weights, strict=True):
        layer.weight = weight
    return weights.numpy(), torch.stack([layer.scale.float() for layer in layers]).numpy()


def as_array(tensor: Tensor) -> np.ndarray:
    """Return a view of a tensor on a CPU; bfloat16 as uint16."""
    tensor = tensor.detach()
    return (tensor.view(torch.uint16) if tensor.dtype == torch.bfloat16 else tensor).numpy()


class FewRowsStep:
    """``LLaMAHF.step`` of an optimized model on a CPU, by the compiled function for as many rows as it is faster for.

    A step with control signals, or in a forked process, which must not use numba's threads, is computed by PyTorch.

    Args:
        model: Its step is measured here, at first together with the compilation, which takes some seconds.
        weights: Its ``plain_weights``.
    """

    def __init__(self, model: LLaMAHF, weights: Any) -> None:
        config, rows = model.config, MOST_ROWS
        self.pytorch: Step = model.step
        self.weights, self.most_columns = weights, rounded_columns(config.block_size)
        width, hidden = config.n_embd, config.mlp_hidden
        widths = (width, width, 3 * width, width, 2 * hidden, hidden)
        scores = np.zeros((rows, config.n_head, self.most_columns), dtype=np.float32)
        self.scratch = kernels().Scratch(*(np.zeros((rows, each), dtype=np.float32) for each in widths), scores)
        self.choice = self._choose(model)

    def __call__(self, tokens: Tensor, cache: KVCache, extent: int, control: Tensor | None = None) -> Tensor:
        fits = len(tokens) <= self.choice.rows and extent <= self.most_columns
        if fits and control is None and kernels() is not None:
            return self._compiled(tokens, cache, self.choice.threads)
        return self.pytorch(tokens, cache, extent, control)

    def _compiled(self, tokens: Tensor, cache: KVCache, threads: int) -> Tensor:
        tensors = (cache.keys, cache.values, cache.mask, cache.starts, cache.lengths)
        arrays = kernels().Cache(*map(as_array, tensors))
        logits = torch.empty(len(tokens), len(self.weights.head))
        with IN_USE:
            kernels().set_num_threads(threads)
            kernels().decode(tokens.numpy(), self.weights, arrays, self.scratch, logits.numpy())
        return logits

    def _choose(self, model: LLaMAHF) -> Choice:
        """Measure the choice, or read that of an earlier start on this machine."""
        path, config = cache_folder() / CHOICES, model.config
        most = min(torch.get_num_threads(), kernels().most_threads())
        shape = (config.n_layer, config.n_embd, config.n_head, *self.weights.head.shape)
        name = f"{kernels().machine()}, torch {torch.__version__}, {most} threads, {shape} {self.weights.head.dtype}"
        known: Any = {}
        with suppress(InputError):
            known = read_json(path)
        match known.get(name) if isinstance(known, dict) else None:
            case [int(threads), int(rows)] if 1 <= threads <= most and 0 <= rows <= MOST_ROWS:
                return Choice(threads, rows)
        others = OtherPrograms()
        choice = self._measure(model, most)
        if others.share() < BUSY:  # else the next start measures again
            with suppress(InputError), atomic_write(path) as file:
                file.write_text(json.dumps((known if isinstance(known, dict) else {}) | {name: choice}, indent=1))
        return choice

    @torch.inference_mode()
    def _measure(self, model: LLaMAHF, most: int) -> Choice:
        cache = model.new_cache(MOST_ROWS, min(COLUMNS, self.most_columns))
        columns = cache.shape.columns

        def compiled(rows: int, threads: int) -> None:
            cache.lengths.fill_(columns - 1)
            self._compiled(tokens[:rows], cache, threads)

        def pytorch(rows: int) -> None:
            cache.lengths.fill_(columns - 1)
            self.pytorch(tokens[:rows], cache, columns, None)

        tokens = torch.zeros(MOST_ROWS, dtype=torch.long)
        numbers = sorted({most, *(2**power for power in range(most.bit_length()))})
        threads = numbers[fastest([partial(compiled, 1, number) for number in numbers])]
        faster = [
            rows for rows in (1, 2, 4) if fastest([partial(compiled, rows, threads), partial(pytorch, rows)]) == 0
        ]
        return Choice(threads, max(faster, default=0))


def fastest(calls: list[Callable[[], None]]) -> int:
    """Return the index of the call with the shortest time; the calls alternate, for ``SECONDS`` each or longer."""
    for call in calls:
        call()  # warms up
    best, rounds, end = [math.inf] * len(calls), 0, time.perf_counter() + SECONDS * len(calls)
    while rounds < REPEATS or time.perf_counter() < end:
        for index, call in enumerate(calls):
            started = time.perf_counter()
            call()
            best[index] = min(best[index], time.perf_counter() - started)
        rounds += 1
    return best.index(min(best))
