"""Product of a few rows with int8 weights on a GPU of CUDA or ROCm, by a Triton kernel.

PyTorch's own products are slower: one expands each weight to bfloat16 in memory first, which moves five bytes instead
of one; in the other (``torch._weight_int8pack_mm`` on CUDA), each thread reads a row of weights of its own.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

MOST_ROWS = 32  # of x
TILES = {16: (16, 256), 32: (32, 128)}  # number of rows, padded -> outputs and inputs of a tile


def int8_product(x: Tensor, weight: Tensor, scale: Tensor) -> Tensor:
    """Multiply x (M, K), M at most ``MOST_ROWS``, by weight (N, K) in int8 with scale (N,) per output; returns (M, N).

    Weights are multiplied in the precision of x, and products are summed in float32.
    """
    x, y = x.contiguous(), x.new_empty(len(x), len(weight))
    rows = 16 if len(x) <= 16 else 32  # tensor cores multiply 16 rows
    outputs, inputs = TILES[rows]
    grid = (triton.cdiv(len(weight), outputs),)
    _product[grid](x, weight, scale, y, len(x), *weight.shape, ROWS=rows, OUTPUTS=outputs, INPUTS=inputs, num_stages=4)
    return y


def check(device: torch.device) -> None:
    """Compile and run the kernel once per tile; raises the errors of Triton, its compiler and the driver."""
    for rows in TILES:
        weight = torch.ones(8, 32, dtype=torch.int8, device=device)
        x, scale = torch.ones(rows, 32, dtype=torch.bfloat16, device=device), weight[:, 0].bfloat16()
        if (int8_product(x, weight, scale) != 32).any():
            raise RuntimeError("its products are wrong on this GPU")


@triton.jit
def _product(
    x, weight, scale, y, m_size, n_size, k_size, ROWS: tl.constexpr, OUTPUTS: tl.constexpr, INPUTS: tl.constexpr
):
    m = tl.arange(0, ROWS)[:, None]
    n = tl.program_id(0) * OUTPUTS + tl.arange(0, OUTPUTS)[None, :]
    total = tl.full((ROWS, OUTPUTS), 0, dtype=tl.float32)
    for start in range(0, k_size, INPUTS):
        k = start + tl.arange(0, INPUTS)
        left = tl.load(x + m * k_size + k[None, :], mask=(m < m_size) & (k[None, :] < k_size), other=0)
        right = tl.load(weight + n * k_size + k[:, None], mask=(n < n_size) & (k[:, None] < k_size), other=0)
        total = tl.dot(left, right.to(left.dtype), total)
    total *= tl.load(scale + n, mask=n < n_size, other=0)
    tl.store(y + m * n_size + n, total, mask=(m < m_size) & (n < n_size))
