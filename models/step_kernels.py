"""Kernels of a decoding step of a few rows: loops over weights and cache that numba compiles.

Weights and cache are float32, bfloat16 (as uint16) or, weights alone, int8 with a scale per output; everything else is
float32. numba compiles ``decode`` once per combination and keeps it in its cache.
"""

import math
from typing import NamedTuple

import numba
import numpy as np
from llvmlite import ir
from llvmlite.binding import get_host_cpu_name
from numba import njit, prange, set_num_threads, types  # noqa: F401 (set_num_threads is called with the kernels)
from numba.extending import intrinsic

from models.llama_layers import NORM_EPS

EPSILON = np.float32(NORM_EPS)
ZERO, ONE = np.float32(0), np.float32(1)
FAST = {"reassoc", "contract", "arcp", "nsz"}  # sums in any order; NaN and infinity keep their meaning


class Weights(NamedTuple):
    """Weights of L layers of width C, with H hidden units and V outputs; each matrix has its scales per output."""

    embedding: np.ndarray  # (vocabulary, C), not int8
    attention: np.ndarray  # (L, 3 C, C) queries, keys, values
    attention_scale: np.ndarray  # (L, 3 C)
    projection: np.ndarray  # (L, C, C)
    projection_scale: np.ndarray  # (L, C)
    gate: np.ndarray  # (L, 2 H, C) gates, values
    gate_scale: np.ndarray  # (L, 2 H)
    output: np.ndarray  # (L, C, H)
    output_scale: np.ndarray  # (L, C)
    head: np.ndarray  # (V, C)
    head_scale: np.ndarray  # (V,)
    norms: np.ndarray  # (L + 1, 2, C) before attention and before the feed-forward network; the last before the head
    rope: np.ndarray  # (positions, D) cosine and sine of each pair in turn


class Cache(NamedTuple):
    """Arrays of a ``KVCache``."""

    keys: np.ndarray  # (L, rows, heads, columns, D)
    values: np.ndarray
    mask: np.ndarray  # (rows, columns)
    starts: np.ndarray  # (rows,)
    lengths: np.ndarray  # (rows,)


class Scratch(NamedTuple):
    """Memory of a step for R rows."""

    residual: np.ndarray  # (R, C)
    normed: np.ndarray  # (R, C)
    qkv: np.ndarray  # (R, 3 C)
    attended: np.ndarray  # (R, C)
    gated: np.ndarray  # (R, 2 H)
    hidden: np.ndarray  # (R, H)
    scores: np.ndarray  # (R, heads, columns)


def machine() -> str:
    """Return the processor and the compiler."""
    return f"{get_host_cpu_name()}, {most_threads()} cores, numba {numba.__version__}"


def most_threads() -> int:
    """Return the number of threads of numba."""
    return numba.config.NUMBA_NUM_THREADS  # type: ignore[attr-defined]  # numba sets it when it is imported


@intrinsic
def as_float(context, value):
    """Return a stored value as float32."""

    def generate(_, builder, signature, arguments):
        (number,) = arguments
        if value == types.uint16:
            bits = builder.shl(builder.zext(number, ir.IntType(32)), ir.Constant(ir.IntType(32), 16))
            return builder.bitcast(bits, ir.FloatType())
        return builder.sitofp(number, ir.FloatType()) if value == types.int8 else number

    return types.float32(value), generate


@intrinsic
def as_stored(context, number, like):
    """Return a float32 in the type of the stored value ``like``, rounded to the nearest bfloat16 if that is uint16."""

    def generate(_, builder, signature, arguments):
        if like != types.uint16:
            return arguments[0]
        word = ir.IntType(32)
        bits = builder.bitcast(arguments[0], word)
        odd = builder.and_(builder.lshr(bits, ir.Constant(word, 16)), ir.Constant(word, 1))
        bits = builder.add(bits, builder.add(odd, ir.Constant(word, 0x7FFF)))
        return builder.trunc(builder.lshr(bits, ir.Constant(word, 16)), ir.IntType(16))

    return like(types.float32, like), generate


@njit(cache=True, nogil=True, fastmath=FAST)
def decode(tokens, weights, cache, scratch, logits):
    """Append a token to each of the first rows of the cache and predict the next ones, as ``LLaMAHF.step``.

    Args:
        tokens: (R,) int64.
        weights: ``Weights``.
        cache: ``Cache``, in which the first R rows have room for a column.
        scratch: ``Scratch`` for at least R rows.
        logits: (R, V), the result.
    """
    rows, layers, x = len(tokens), len(weights.attention), scratch.residual
    for r in range(rows):
        for k in range(x.shape[1]):
            x[r, k] = as_float(weights.embedding[tokens[r], k])
    for layer in range(layers):
        _norm(x, weights.norms[layer, 0], scratch.normed, rows)
        product(weights.attention[layer], weights.attention_scale[layer], scratch.normed, scratch.qkv, rows, False)
        _attend(scratch, cache, layer, weights.rope, rows)
        product(weights.projection[layer], weights.projection_scale[layer], scratch.attended, x, rows, True)
        _norm(x, weights.norms[layer, 1], scratch.normed, rows)
        product(weights.gate[layer], weights.gate_scale[layer], scratch.normed, scratch.gated, rows, False)
        _gate(scratch.gated, scratch.hidden, rows)
        product(weights.output[layer], weights.output_scale[layer], scratch.hidden, x, rows, True)
    _norm(x, weights.norms[layers, 0], scratch.normed, rows)
    product(weights.head, weights.head_scale, scratch.normed, logits, rows, False)
    for r in range(rows):
        cache.mask[r, cache.lengths[r]] = 0  # the new column is visible to PyTorch's step, too
        cache.lengths[r] += 1


@njit(cache=True, nogil=True, fastmath=FAST)
def _norm(x, scale, y, rows):
    width = x.shape[1]
    for r in range(rows):
        total = ZERO
        for k in range(width):
            total += x[r, k] * x[r, k]
        factor = ONE / math.sqrt(total / np.float32(width) + EPSILON)
        for k in range(width):
            y[r, k] = x[r, k] * factor * scale[k]


@njit(cache=True, nogil=True, fastmath=FAST)
def _dot(weight, x):
    total = ZERO
    for k in range(len(weight)):
        total += as_float(weight[k]) * x[k]
    return total


@njit(cache=True, nogil=True, fastmath=FAST)
def _two_dots(weight, x, y):
    """Return the dot products of a weight with two rows; it is read once."""
    first, second = ZERO, ZERO
    for k in range(len(weight)):
        value = as_float(weight[k])
        first += value * x[k]
        second += value * y[k]
    return first, second


@njit(cache=True, nogil=True, fastmath=FAST, parallel=True)
def product(weight, scale, x, y, rows, add):
    """Write the products of a matrix (N, K) with rows (R, K) into y (R, N), or add them."""
    for i in prange(len(weight)):
        for r in range(0, rows - 1, 2):
            first, second = _two_dots(weight[i], x[r], x[r + 1])
            y[r, i] = first * scale[i] + (y[r, i] if add else ZERO)
            y[r + 1, i] = second * scale[i] + (y[r + 1, i] if add else ZERO)
        if rows % 2:
            r = rows - 1
            y[r, i] = _dot(weight[i], x[r]) * scale[i] + (y[r, i] if add else ZERO)


@njit(cache=True, nogil=True, fastmath=FAST)
def _gate(gated, y, rows):
    """Write SiLU of the first half of ``gated`` (R, 2 H) times its second half into y (R, H)."""
    hidden = y.shape[1]
    for r in range(rows):
        for i in range(hidden):
            y[r, i] = gated[r, i] / (ONE + math.exp(-gated[r, i])) * gated[r, hidden + i]


@njit(cache=True, nogil=True, fastmath=FAST, parallel=True)
def _attend(scratch, cache, layer, rope, rows):
    """Rotate queries and keys, append keys and values to the cache, and attend to the columns of each row."""
    heads, width = cache.keys.shape[2], cache.keys.shape[4]
    factor = np.float32(1 / math.sqrt(width))
    for index in prange(rows * heads):
        row, head = index // heads, index % heads
        first, last = cache.starts[row], cache.lengths[row]
        keys, values = cache.keys[layer, row, head], cache.values[layer, row, head]
        qkv, start, size = scratch.qkv[row], head * width, heads * width
        query, key = qkv[start : start + width], qkv[size + start : size + start + width]
        angles = rope[last - first]
        for i in range(0, width, 2):
            cos, sin = angles[i], angles[i + 1]
            query[i], query[i + 1] = query[i] * cos - query[i + 1] * sin, query[i + 1] * cos + query[i] * sin
            keys[last, i] = as_stored(key[i] * cos - key[i + 1] * sin, keys[last, i])
            keys[last, i + 1] = as_stored(key[i + 1] * cos + key[i] * sin, keys[last, i])
        for i in range(width):
            values[last, i] = as_stored(qkv[2 * size + start + i], values[last, i])
        scores, largest = scratch.scores[row, head], np.float32(-np.inf)
        for column in range(first, last + 1):
            scores[column] = factor * _dot(keys[column], query)
            largest = max(largest, scores[column])
        total = ZERO
        for column in range(first, last + 1):
            scores[column] = math.exp(scores[column] - largest)
            total += scores[column]
        attended = scratch.attended[row, start : start + width]
        for i in range(width):
            attended[i] = ZERO
        for column in range(first, last + 1):
            weight = scores[column] / total
            for i in range(width):
                attended[i] += weight * as_float(values[column, i])
