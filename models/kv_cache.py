"""KV cache of a decoder: the attention keys and values of many sequences, allocated once."""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

EXTENT_MULTIPLE = 8  # attention reads a multiple of this number of columns, so that few different shapes occur

KVWriter = Callable[[int, Tensor], tuple[Tensor, Tensor]]
"""Stores the new keys and values (B, S, 2, H, head_dim) of a layer; returns the keys and values (B, H, columns,
head_dim) that attention reads."""


class CacheShape(NamedTuple):
    """Shape of the keys, and of the values, of a cache."""

    layers: int
    rows: int
    heads: int
    columns: int  # longest sequence, text and tokens together; a multiple of ``EXTENT_MULTIPLE``
    head_dim: int  # as stored, see ``models.llama_layers.stored_width``


class KVCache:
    """Keys and values of all layers. Row i has filled the columns ``starts[i] .. lengths[i] - 1``.

    Rows fill independently, so that a row can be replaced by another one at any step.

    Args:
        shape, device, dtype: Of the keys, and of the values.
        rope: (P, ...) rotary factors of the positions 0 .. P - 1, see ``models.llama_layers.rope_table``.

    Attributes:
        keys, values: Views of ``pairs``.
        mask: (rows, columns), what attention adds to its scores: 0 in filled columns, minus infinity in others.
        ends: Upper bounds of ``lengths``, kept on the host so that it need not wait for the device.
    """

    def __init__(self, shape: CacheShape, device: torch.device, dtype: torch.dtype, rope: Tensor) -> None:
        self.shape, self.rope = shape, rope
        self.pairs = zeros((2, *shape), device, dtype)
        self.keys, self.values = self.pairs[0], self.pairs[1]
        self.mask = torch.full((shape.rows, shape.columns), -math.inf, device=device, dtype=dtype)
        self.starts = torch.zeros(shape.rows, dtype=torch.long, device=device)  # padding to the left of the text
        self.lengths = torch.zeros(shape.rows, dtype=torch.long, device=device)
        self.rows = torch.arange(shape.rows, device=device)
        self.columns = torch.arange(shape.columns, device=device)
        self.ends = [0] * shape.rows

    def keep_addresses(self) -> None:
        """Let a compiled step become a CUDA graph, which may change in place only tensors of a constant address."""
        for tensor in (self.pairs, self.mask, self.starts, self.lengths, self.rows, self.columns, self.rope):
            torch._dynamo.mark_static_address(tensor, guard=False)

    def begin(self, first: int, starts: Tensor, lengths: Tensor, end: int) -> None:
        """Begin new sequences in the rows from ``first`` on.

        Args:
            starts, lengths: (B,).
            end: Largest of the lengths, or more.
        """
        rows = slice(first, first + len(starts))
        self.starts[rows], self.lengths[rows] = starts, lengths
        filled = (self.columns >= starts[:, None]) & (self.columns < lengths[:, None])
        self.mask[rows].zero_().masked_fill_(~filled, -math.inf)
        self.ends[rows] = [end] * len(starts)

    def prefill_writer(self, first: int) -> KVWriter:
        """Write a prefill of B rows and S columns into rows ``first .. first + B - 1``, from column 0 on.

        Attention reads the new columns alone.
        """

        def write(layer: int, new: Tensor) -> tuple[Tensor, Tensor]:
            pairs = new.permute(2, 0, 3, 1, 4)  # (2, B, H, S, head_dim)
            self.pairs[:, layer, first : first + len(new), :, : new.shape[1]] = pairs
            return pairs[0], pairs[1]

        return write

    def step_writer(self, rows: int, extent: int) -> KVWriter:
        """Append one column to each of the first ``rows`` rows; attention reads the first ``extent`` columns."""
        index, lengths = self.rows[:rows], self.lengths[:rows]

        def write(layer: int, new: Tensor) -> tuple[Tensor, Tensor]:
            pairs = self.pairs[:, layer, :rows]  # (2, B, H, columns, head_dim)
            pairs[:, index, :, lengths] = new[:, 0]
            return pairs[0, :, :, :extent], pairs[1, :, :, :extent]

        return write

    def extend(self, rows: int) -> int:
        """Count a new column of the first ``rows`` rows, and return how many columns their next step reads."""
        self.ends[:rows] = [end + 1 for end in self.ends[:rows]]
        return min(rounded_columns(max(self.ends[:rows])), self.shape.columns)

    def select(self, rows: list[int]) -> None:
        """Move ``rows`` to the front, in the given order; rows already in place are not copied."""
        moved = [(slot, row) for slot, row in enumerate(rows) if slot != row]
        if moved:
            slots, sources = torch.tensor(moved, device=self.lengths.device).unbind(dim=1)
            end = max(self.ends[row] for _, row in moved)
            for tensor in (self.keys, self.values):
                tensor[:, slots, :, :end] = tensor[:, sources, :, :end]
            for tensor in (self.mask, self.starts, self.lengths):
                tensor[slots] = tensor[sources]
        self.ends[: len(rows)] = [self.ends[row] for row in rows]


def rounded_columns(count: int) -> int:
    """Return a number of columns rounded up to a multiple of ``EXTENT_MULTIPLE``."""
    return -(-count // EXTENT_MULTIPLE) * EXTENT_MULTIPLE


def zeros(shape: Sequence[int], device: torch.device, dtype: torch.dtype) -> Tensor:
    """Return zeros; on a CPU, the operating system provides each page of the memory when it is first written."""
    if device.type != "cpu":
        return torch.zeros(*shape, device=device, dtype=dtype)
    memory = np.zeros(math.prod(shape) * dtype.itemsize, dtype=np.uint8)
    return torch.from_numpy(memory).view(dtype).view(*shape)
