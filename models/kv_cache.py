"""KV cache of a decoder: the attention keys and values of many sequences, allocated once."""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

EXTENT_MULTIPLE = 8  # attention reads a multiple of this number of columns, so that few different shapes occur

KVWriter = Callable[[int, Tensor, Tensor], tuple[Tensor, Tensor]]
"""Stores the new keys and values (B, H, S, head_dim) of a layer; returns the keys and values that attention reads."""


class CacheShape(NamedTuple):
    """Shape of the keys, and of the values, of a cache."""

    layers: int
    rows: int
    heads: int
    columns: int  # longest sequence: text and tokens together
    head_dim: int


class KVCache:
    """Keys and values of all layers. Row i has filled the columns ``starts[i] .. lengths[i] - 1``.

    Rows fill independently, so that a row can be replaced by another one at any step.
    """

    def __init__(self, shape: CacheShape, device: torch.device, dtype: torch.dtype) -> None:
        self.shape = shape
        self.keys = zeros(shape, device, dtype)
        self.values = zeros(shape, device, dtype)
        self.starts = torch.zeros(shape.rows, dtype=torch.long, device=device)  # padding to the left of the text
        self.lengths = torch.zeros(shape.rows, dtype=torch.long, device=device)
        self.columns = torch.arange(shape.columns, device=device)

    def keep_addresses(self) -> None:
        """Let a compiled step become a CUDA graph, which may change in place only tensors of a constant address."""
        for tensor in (self.keys, self.values, self.starts, self.lengths, self.columns):
            torch._dynamo.mark_static_address(tensor, guard=False)

    def prefill_writer(self, first: int) -> KVWriter:
        """Write a prefill of B rows and S columns into rows ``first .. first + B - 1``, from column 0 on.

        Attention reads the new columns alone.
        """

        def write(layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
            rows, end = slice(first, first + len(keys)), keys.shape[2]
            self.keys[layer, rows, :, :end] = keys
            self.values[layer, rows, :, :end] = values
            return keys, values

        return write

    def step_writer(self, rows: int, extent: int) -> KVWriter:
        """Append one column to each of the first ``rows`` rows; attention reads the first ``extent`` columns."""
        index, lengths = torch.arange(rows, device=self.lengths.device), self.lengths[:rows]

        def write(layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
            all_keys, all_values = self.keys[layer, :rows], self.values[layer, :rows]
            all_keys[index, :, lengths] = keys[:, :, 0]
            all_values[index, :, lengths] = values[:, :, 0]
            return all_keys[:, :, :extent], all_values[:, :, :extent]

        return write

    def extent(self, rows: int) -> int:
        """Number of columns that the next step of the first ``rows`` rows reads."""
        needed = int(self.lengths[:rows].max()) + 1
        return min(-(-needed // EXTENT_MULTIPLE) * EXTENT_MULTIPLE, self.shape.columns)

    def select(self, rows: list[int]) -> None:
        """Move ``rows`` to the front, in the given order; rows already in place are not copied."""
        moved = [(slot, row) for slot, row in enumerate(rows) if slot != row]
        if moved:
            slots, sources = torch.tensor(moved, device=self.lengths.device).unbind(dim=1)
            end = int(self.lengths[sources].max())
            for tensor in (self.keys, self.values):
                tensor[:, slots, :, :end] = tensor[:, sources, :, :end]
            self.starts[slots], self.lengths[slots] = self.starts[sources], self.lengths[sources]


def zeros(shape: Sequence[int], device: torch.device, dtype: torch.dtype) -> Tensor:
    """Return zeros; on a CPU, in memory that is taken row by row when it is first written."""
    if device.type != "cpu":
        return torch.zeros(*shape, device=device, dtype=dtype)
    memory = np.zeros(math.prod(shape) * dtype.itemsize, dtype=np.uint8)
    return torch.from_numpy(memory).view(dtype).view(*shape)
