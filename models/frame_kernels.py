"""Kernel of the tokenizer's decoder for one token of a stream, compiled by numba; all numbers are float32.

Every convolution keeps its last inputs in a ring, in which frame t has the place t modulo the length.
"""

from typing import NamedTuple

import numpy as np
from numba import njit

from models.step_kernels import FAST, ZERO, product


class Weights(NamedTuple):
    """Decoder of width C with S stages of D blocks; a matrix takes the three inputs of a convolution, oldest first."""

    first: np.ndarray  # (C, 3 code_dim)
    first_bias: np.ndarray  # (C,)
    dilated: np.ndarray  # (S, D, C, 3 C)
    dilated_bias: np.ndarray  # (S, D, C)
    pointwise: np.ndarray  # (S, D, C, C)
    pointwise_bias: np.ndarray  # (S, D, C)
    doubled: np.ndarray  # (S, C, 3 C)
    doubled_bias: np.ndarray  # (S, C)
    middle: np.ndarray  # (C, 3 C)
    middle_bias: np.ndarray  # (C,)
    last: np.ndarray  # (features, 3 C)
    last_bias: np.ndarray  # (features,)
    dilations: np.ndarray  # (D,)
    ones: np.ndarray  # scales of all outputs


class Rings(NamedTuple):
    """Last inputs of the convolutions."""

    first: np.ndarray  # (length, code_dim)
    blocks: np.ndarray  # (S, D, length, C)
    doubled: np.ndarray  # (S, length, C)
    middle: np.ndarray  # (length, C)
    last: np.ndarray  # (length, C)


class Scratch(NamedTuple):
    """Memory for the frames of one token."""

    x: np.ndarray  # (frames, C)
    hidden: np.ndarray  # (frames, C)
    window: np.ndarray  # (frames, 3 max(C, code_dim))


@njit(cache=True, nogil=True, fastmath=FAST)
def decode_token(code, number, weights, rings, scratch, frames):
    """Decode the next token of a stream.

    Args:
        code: (1, code_dim), its quantized vector.
        number: Number of tokens before it.
        weights: ``Weights``.
        rings: ``Rings``, zeros before the first token.
        scratch: ``Scratch``.
        frames: (2**S, features) normalized, the result.
    """
    x, hidden, count = scratch.x, scratch.hidden, 1
    _convolve(code, count, rings.first, number, 1, (weights.first, weights.first_bias), weights.ones, scratch.window, x)
    _relu(x, x)
    for stage in range(len(weights.dilated)):
        for block in range(len(weights.dilations)):
            ring, dilation = rings.blocks[stage, block], weights.dilations[block]
            layer = weights.dilated[stage, block], weights.dilated_bias[stage, block]
            _relu(x, hidden)
            _convolve(hidden, count, ring, number * count, dilation, layer, weights.ones, scratch.window, hidden)
            _relu(hidden, hidden)
            for frame in range(count):
                for k in range(x.shape[1]):
                    x[frame, k] += weights.pointwise_bias[stage, block, k]
            product(weights.pointwise[stage, block], weights.ones, hidden, x, count, True)
        for frame in range(count - 1, -1, -1):
            for k in range(x.shape[1]):
                x[2 * frame + 1, k] = x[frame, k]
                x[2 * frame, k] = x[frame, k]
        count *= 2
        layer = weights.doubled[stage], weights.doubled_bias[stage]
        _convolve(x, count, rings.doubled[stage], number * count, 1, layer, weights.ones, scratch.window, x)
    layer = weights.middle, weights.middle_bias
    _convolve(x, count, rings.middle, number * count, 1, layer, weights.ones, scratch.window, x)
    _relu(x, x)
    layer = weights.last, weights.last_bias
    _convolve(x, count, rings.last, number * count, 1, layer, weights.ones, scratch.window, frames)


@njit(cache=True, nogil=True, fastmath=FAST)
def _convolve(x, count, ring, time, dilation, layer, ones, window, y):
    """Write the causal convolution of the frames ``time .. time + count - 1``, the first rows of x, into y."""
    length, width = ring.shape
    weight, bias = layer
    for frame in range(count):
        for k in range(width):
            ring[(time + frame) % length, k] = x[frame, k]
        for tap in range(3):
            past = time + frame - (2 - tap) * dilation
            for k in range(width):
                window[frame, tap * width + k] = ring[past % length, k] if past >= 0 else ZERO
        for i in range(len(bias)):
            y[frame, i] = bias[i]
    product(weight, ones, window, y, count, True)


@njit(cache=True, nogil=True, fastmath=FAST)
def _relu(x, y):
    for row in range(len(x)):
        for k in range(x.shape[1]):
            y[row, k] = max(x[row, k], ZERO)
