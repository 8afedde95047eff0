"""A decoding step compiled by ``torch.compile``: on a GPU with CUDA graphs, of a few numbers of rows.

The shapes of a graph are fixed. A cache always has all its columns, and the rows of a batch are rounded up to one of a
few numbers; the additional rows are computed and discarded.
"""

from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from models.kv_cache import KVCache
from models.llama import LLaMAHF
from models.sampling import Sampler, sampled_step

ROW_FACTOR = 4  # from one number of rows to the next
MOST_GRAPHS = 64  # of all numbers of rows and kinds of sampling; without graphs beyond


class CompiledStep:
    """``LLaMAHF.step`` compiled, alone or together with the sampling of the next tokens.

    A graph is compiled when it is first needed: for each number of rows (1, 4, 16 ..., and all rows of a cache), with
    and without guidance, for greedy sampling, for each ``top_k``, and with and without ``top_p``. Other settings of
    sampling are inputs of the graph.
    """

    def __init__(self, model: LLaMAHF) -> None:
        settings: dict[str, dict[str, Any]] = {
            "cuda": {"mode": "reduce-overhead"},  # CUDA graphs
            "cpu": {"options": {"freezing": True}},  # packed weights
        }
        device, step = model.transformer.wte.weight.device.type, model.step
        compile_step = partial(torch.compile, dynamic=False, **settings.get(device, {}))
        self.step = compile_step(step)
        self.sampled_step = compile_step(lambda *arguments: sampled_step(step, *arguments))
        torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, MOST_GRAPHS)

    def __call__(self, tokens: Tensor, cache: KVCache, extent: int, control: Tensor | None = None) -> Tensor:
        """``LLaMAHF.step``."""
        rows, unused = len(tokens), unused_rows(len(tokens), cache)
        if control is not None:
            control = F.pad(control, (0, 0, 0, unused))
        logits = self.step(F.pad(tokens, (0, unused)), cache, len(cache.columns), control)
        cache.lengths[rows : rows + unused] = 0
        return logits[:rows]

    def sampled(
        self, tokens: Tensor, cache: KVCache, extent: int, draws: Tensor, sampler: Sampler, end_id: int
    ) -> Tensor:
        """``sampled_step`` of the model."""
        rows, unused = len(tokens), unused_rows(len(tokens), cache)
        if unused:
            tokens, draws = F.pad(tokens, (0, unused)), F.pad(draws, (0, 0, 0, unused))
        sampled = self.sampled_step(tokens, cache, len(cache.columns), draws, sampler, end_id)
        if unused:
            cache.lengths[rows : rows + unused] = 0
        return sampled[:rows].clone()  # the next step overwrites the output of a CUDA graph


def unused_rows(rows: int, cache: KVCache) -> int:
    """Return the number of rows that a graph computes in addition to ``rows``."""
    count = 1
    while count < rows:
        count *= ROW_FACTOR
    return min(count, cache.shape.rows) - rows
