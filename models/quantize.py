"""int8 and int4 weights of linear layers, for inference in bfloat16.

int8 has a scale per output. int4 has a scale and a zero point per ``INT4_GROUP`` inputs, by ``torchao``, in the layout
of PyTorch's kernel for CUDA, which pads each row of weights to a multiple of ``INT4_WIDTH``.
"""

import logging
from collections.abc import Callable
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from utils.errors import InputError, reason_of

QUANTIZE = ("none", "int8", "int4")
INT8_WIDTH = 32  # the int8 kernel for CPUs reads past the end of a row of weights that is not a multiple of it
MPS_HEIGHT = 32  # the int8 kernel for Apple GPUs needs a number of outputs that is a multiple of it
INT4_GROUP = 128
INT4_WIDTH, INT4_HEIGHT = 1024, 8  # inputs and outputs are padded to multiples of these
CHUNK = 2**20  # weights that are quantized at a time, which keeps their copies in float32 small

Product = Callable[[Tensor, Tensor, Tensor], Tensor]


def quantize_linears(module: nn.Module, quantize: str) -> None:
    """Replace the weights of the linear layers in a module by quantized ones, one layer after the other to save memory.

    Layers whose number of inputs does not fit the kernel stay in bfloat16.

    Args:
        module: A frozen model in bfloat16, or a part of it.
        quantize: "int8" or "int4".

    Raises:
        InputError: there are no int4 kernels for the device.
    """
    for parent in list(module.modules()):
        for name, child in list(parent.named_children()):
            if not isinstance(child, nn.Linear) or hasattr(child.weight, "qdata"):  # quantized by torchao
                continue
            if quantize == "int8" and child.in_features % INT8_WIDTH == 0:
                setattr(parent, name, Int8Linear(child))
            if quantize == "int4" and child.in_features % INT4_GROUP == 0:
                _use_int4(child)


def bytes_per_weight(quantize: str, outputs: int, inputs: int) -> float:
    """Return the bytes of a quantized weight matrix, with scales, per weight; 2 if it stays in bfloat16."""
    if quantize == "int8" and inputs % INT8_WIDTH == 0:
        return 1 + 2 / inputs
    if quantize == "int4" and inputs % INT4_GROUP == 0:
        padded = _multiple(outputs, INT4_HEIGHT) * _multiple(inputs, INT4_WIDTH)
        return padded * (0.5 + 4 / INT4_GROUP) / (outputs * inputs)
    return 2


def _multiple(size: int, of: int) -> int:
    """Return a size rounded up to a multiple."""
    return -(-size // of) * of


class Int8Linear(nn.Module):
    """Linear layer with int8 weights: (..., K) to (..., N) in bfloat16.

    The largest absolute weight of an output is 127 times its scale.

    Args:
        linear: Layer in bfloat16.
    """

    weight: Tensor
    scale: Tensor

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        weight = linear.weight.detach()  # (N, K)
        scale = torch.maximum(weight.amax(dim=1), -weight.amin(dim=1)) / 127
        scale = scale.clamp(min=torch.finfo(scale.dtype).tiny)  # (N,)
        quantized = torch.empty_like(weight, dtype=torch.int8)
        rows = max(1, CHUNK // weight.shape[1])
        for part, target, unit in zip(weight.split(rows), quantized.split(rows), scale.split(rows), strict=True):
            target.copy_((part.float() / unit.float()[:, None]).round())
        self.register_buffer("weight", quantized)  # a CUDA graph copies tensors that are not registered
        self.register_buffer("scale", scale)
        self.bias = linear.bias
        self.product = _fastest_product(weight)

    def forward(self, x: Tensor) -> Tensor:
        y = self.product(x.flatten(0, -2), self.weight, self.scale).unflatten(0, x.shape[:-1])
        return y if self.bias is None else y + self.bias


def _fastest_product(weight: Tensor) -> Product:
    """Return the fastest product of x (M, K) and int8 weights (N, K) with a scale (N,)."""
    if weight.device.type == "cuda":
        return _cuda_product(weight.device)
    fits = weight.device.type != "mps" or len(weight) % MPS_HEIGHT == 0
    return torch._weight_int8pack_mm if fits else expanded_product


@cache
def _cuda_product(device: torch.device) -> Product:
    try:
        from models import int8_kernel

        int8_kernel.check(device)
    except Exception as error:  # of Triton, the compiler that it calls, or the driver
        reason = reason_of(error)
        logging.getLogger(__name__).warning("Triton cannot be used (%s), so products with int8 are slower", reason)
        return expanded_product

    def product(x: Tensor, weight: Tensor, scale: Tensor) -> Tensor:
        few = len(x) <= int8_kernel.MOST_ROWS
        return (int8_kernel.int8_product if few else expanded_product)(x, weight, scale)

    return product


def expanded_product(x: Tensor, weight: Tensor, scale: Tensor) -> Tensor:
    """Multiply by weights that are expanded to the precision of x, which suits many rows.

    The scale is in float32, because the compiler would replace a product with a bfloat16 scale by PyTorch's int8
    kernel, which is slow on CUDA.
    """
    return (F.linear(x, weight.to(x.dtype)) * scale.float()).to(x.dtype)


def int4_config() -> Any:
    """Return the configuration of ``torchao`` for the layout of PyTorch's own kernel, on CUDA or ROCm."""
    from torchao.quantization import Int4WeightOnlyConfig

    # torchao's default layout needs a package that is not in requirements.txt
    return Int4WeightOnlyConfig(
        group_size=INT4_GROUP,
        int4_packing_format="tile_packed_to_4d",
        int4_tile_packed_ntile=INT4_HEIGHT if torch.version.hip is None else 16,
        set_inductor_config=False,
    )


def _use_int4(linear: nn.Linear) -> None:
    from torchao.quantization import quantize_

    try:
        quantize_(linear, int4_config())
    except (ImportError, NotImplementedError, RuntimeError, AssertionError, ValueError) as error:
        reason = reason_of(error)
        raise InputError(f"there are no int4 kernels for this device ({reason}); use int8, or none") from error
