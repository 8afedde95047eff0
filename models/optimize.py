"""Faster inference of a trained LLaMAHF: precision, weight layout, int8 and int4 weights, torch.compile.

On a CPU every linear layer gets a kernel that reads its weight at the speed of the memory: oneDNN with the weight in
oneDNN's blocked layout, or int8 weights. PyTorch's plain linear layer reaches a third to a half of that speed with few
rows (measured by ``benchmarks/generate.py``). Steps of up to four rows become one function (``models.few_rows``).
Optimized models are for inference only and cannot be saved.
"""

import logging
import warnings
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.few_rows import FewRowsStep, plain_weights
from models.kv_cache import KVCache
from models.llama import LLaMAHF
from models.llama_layers import MLP, Attention
from utils.device import can_compile
from utils.errors import InputError

QUANTIZE = ("none", "int8", "int4")
INT8_WIDTH = 32  # the int8 kernel for CPUs reads past the end of inputs whose width is not a multiple of it
INT4_GROUP = 128  # inputs that share a scale
PACKED_ROWS = 64  # number of input rows that oneDNN lays weights out for; the layout is also good for fewer


def optimize(model: LLaMAHF, dtype: torch.dtype, quantize: str = "none", compiled: bool = False) -> LLaMAHF:
    """Optimize the model for inference, in place and on its device.

    Args:
        dtype: Precision of weights and activations: float32, bfloat16 or float16; bfloat16 with quantized weights.
        quantize: Precision of the weights of linear layers: "none", "int8" (CPU and CUDA) or "int4" (CUDA), by
            ``torchao``.
        compiled: Whether to compile the decode step with ``torch.compile``. Its shapes are fixed: all slots and all
            columns. Without a C++ compiler this is skipped with a warning.

    Raises:
        InputError: the device does not support the combination.
    """
    device = model.transformer.wte.weight.device
    check_support(device.type, dtype, quantize)
    model.to(dtype).eval().requires_grad_(False)
    for block in model.blocks:
        block.mlp = FusedMLP(cast(MLP, block.mlp))
    if quantize != "none":
        _quantize(model, device.type, quantize)
    else:
        fuse_additions(model)
    if compiled and not can_compile(device):
        warnings.warn("no C++ compiler is found, so the step is not compiled; install g++", stacklevel=2)
        compiled = False
    if device.type == "cpu":
        _use_int8_kernel(model)
        if not compiled:
            weights = plain_weights(model)
            pack_linears(model)
            if weights is not None:
                model.step = FewRowsStep(model, weights)  # type: ignore[method-assign]
    if compiled:
        if device.type == "cpu":  # PyTorch warns about CUDA compilers on machines without a GPU
            logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)
        model.step = CompiledStep(model)  # type: ignore[method-assign]
        model.static_shapes = True
    return model


def check_support(device: str, dtype: torch.dtype, quantize: str) -> None:
    """Raise InputError unless a device ("cpu" or "cuda") supports the precision and quantization."""
    if quantize not in QUANTIZE:
        raise InputError(f"quantize {quantize} is unknown; use one of {', '.join(QUANTIZE)}")
    if quantize == "int4" and device != "cuda":
        raise InputError(f"int4 weights need a CUDA device and this is {device}; use int8, or none")
    if quantize != "none" and dtype != torch.bfloat16:
        raise InputError(
            f"{quantize} weights go with bf16 and {str(dtype).removeprefix('torch.')} is requested; use bf16"
        )
    if device == "cpu" and dtype == torch.float16:
        raise InputError("float16 is slow on a CPU; use float32 or bf16")


def _quantize(model: LLaMAHF, device: str, quantize: str) -> None:
    from torchao.quantization import Int4WeightOnlyConfig, Int8WeightOnlyConfig, quantize_

    config = Int8WeightOnlyConfig() if quantize == "int8" else Int4WeightOnlyConfig(group_size=INT4_GROUP)
    width = INT8_WIDTH if quantize == "int8" else INT4_GROUP
    try:
        quantize_(model, config, lambda module, _: isinstance(module, nn.Linear) and module.in_features % width == 0)
    except (ImportError, NotImplementedError, RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"torchao has no {quantize} kernels for this {device} device ({reason}); use none") from error


def _use_int8_kernel(model: nn.Module) -> None:
    for parent in list(model.modules()):
        for name, module in list(parent.named_children()):
            if isinstance(module, nn.Linear) and hasattr(module.weight, "qdata"):
                setattr(parent, name, Int8Linear(module))


def pack_linears(model: nn.Module) -> None:
    """Replace the linear layers of a frozen model on a CPU by ``PackedLinear``, one after the other to save memory."""
    for parent in [module for module in model.modules() if not isinstance(module, nn.Linear)]:
        for name, module in list(parent.named_children()):
            if isinstance(module, nn.Linear):
                setattr(parent, name, PackedLinear(module))


class FusedMLP(nn.Module):
    """``MLP`` whose two input layers are one: a weight is read faster in one large piece."""

    def __init__(self, mlp: MLP) -> None:
        super().__init__()
        hidden, width = mlp.c_fc1.weight.shape
        self.c_fc = nn.Linear(width, 2 * hidden, bias=False, device="meta")
        weight = torch.cat((mlp.c_fc1.weight, mlp.c_fc2.weight))
        self.c_fc.weight = nn.Parameter(weight, requires_grad=False)
        self.c_proj = mlp.c_proj

    def forward(self, x: Tensor) -> Tensor:
        gate, value = self.c_fc(x).chunk(2, dim=-1)
        return F.silu(gate) * value


def fuse_additions(part: nn.Module) -> None:
    """Let the projections of the blocks in a part of a model, on a GPU, add their output to the residual stream."""
    for module in part.modules():
        if isinstance(module, Attention | FusedMLP) and module.c_proj.weight.device.type != "cpu":
            module.c_proj = AddingLinear(module.c_proj)


class AddingLinear(nn.Linear):
    """Linear layer without bias that can add its output to a residual stream in the same operator."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__(linear.in_features, linear.out_features, bias=False, device="meta")
        self.weight = linear.weight

    def add(self, x: Tensor, y: Tensor) -> Tensor:
        """Add the output for y (..., K) to x (..., N) in place; returns x."""
        x.flatten(0, -2).addmm_(y.flatten(0, -2), self.weight.t())
        return x


class PackedLinear(nn.Module):
    """Linear layer on a CPU with its weight in oneDNN's blocked layout: (..., K) to (..., N)."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.weight = torch.ops.mkldnn._reorder_linear_weight(linear.weight.detach().contiguous(), PACKED_ROWS)
        self.bias = linear.bias

    def forward(self, x: Tensor) -> Tensor:
        return torch.ops.mkldnn._linear_pointwise(x, self.weight, self.bias, "none", [], "")

    def add(self, x: Tensor, y: Tensor) -> Tensor:
        """Return x (..., N) plus the output for y (..., K)."""
        return torch.ops.mkldnn._linear_pointwise.binary(y, x, self.weight, self.bias, "add")


class Int8Linear(nn.Module):
    """Linear layer on a CPU with int8 weights, by PyTorch's own kernel: (..., K) to (..., N) in bfloat16.

    ``torchao``'s layer dequantizes the weight at every call unless it is compiled; this kernel reads int8.

    Args:
        linear: Layer quantized by ``torchao``.
    """

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        quantized = cast(Any, linear.weight)
        self.weight, self.scale = quantized.qdata, quantized.scale.flatten().bfloat16()  # (N, K) int8, (N,)
        self.bias = linear.bias

    def forward(self, x: Tensor) -> Tensor:
        y = torch._weight_int8pack_mm(x.flatten(0, -2), self.weight, self.scale).unflatten(0, x.shape[:-1])
        return y if self.bias is None else y + self.bias


class CompiledStep:
    """``LLaMAHF.step`` compiled once, for all rows and columns of a cache; unused rows are computed too."""

    def __init__(self, model: LLaMAHF) -> None:
        on_cuda = model.transformer.wte.weight.device.type == "cuda"
        # CUDA graphs on a GPU, packed weights on a CPU
        settings: dict[str, Any] = {"mode": "reduce-overhead"} if on_cuda else {"options": {"freezing": True}}
        self.compiled = torch.compile(model.step, dynamic=False, **settings)

    def __call__(self, tokens: Tensor, cache: KVCache, extent: int, control: Tensor | None = None) -> Tensor:
        unused = len(cache.lengths) - len(tokens)
        if control is not None:
            control = F.pad(control, (0, 0, 0, unused))
        logits = self.compiled(F.pad(tokens, (0, unused)), cache, len(cache.columns), control)
        cache.lengths[len(tokens) :] = 0
        return logits[: len(tokens)]
