"""Faster inference of a trained LLaMAHF: precision, weight layout, int8 and int4 weights, torch.compile.

On a CPU every linear layer gets a kernel that reads its weight at the speed of the memory: oneDNN with the weight in
oneDNN's blocked layout, or int8 weights. PyTorch's plain linear layer reaches a third to a half of that speed with few
rows (measured by ``benchmarks/generate.py``). Steps of up to four rows become one function (``models.few_rows``).
Optimized models are for inference only and cannot be saved.
"""

import logging
import warnings
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.compiled_step import CompiledStep
from models.few_rows import FewRowsStep, plain_weights
from models.llama import LLaMAHF
from models.llama_config import LLaMAConfig
from models.llama_layers import MLP, Attention, add_projection
from models.quantize import QUANTIZE, bytes_per_weight, quantize_linears
from utils.checkpoint import assign_weights, read_weights, stored_weights
from utils.device import can_compile
from utils.errors import InputError

PACKED_ROWS = 64  # number of input rows that oneDNN lays weights out for; the layout is also good for fewer


def optimize(model: LLaMAHF, dtype: torch.dtype, quantize: str = "none", compiled: bool = False) -> LLaMAHF:
    """Optimize the model for inference, in place and on its device.

    Args:
        dtype: Precision of weights and activations: float32, bfloat16 or float16; bfloat16 with quantized weights.
        quantize: Precision of the weights of linear layers: "none", "int8" or "int4" (CUDA); see ``models.quantize``.
        compiled: Whether to compile the decode step with ``torch.compile``. Its shapes are fixed: all slots and all
            columns. Without a C++ compiler this is skipped with a warning.

    Raises:
        InputError: the device does not support the combination.
    """
    check_support(model.transformer.wte.weight.device.type, dtype, quantize)
    model.to(dtype)
    _prepare(model, quantize)
    return _with_fast_step(model.eval(), compiled)


def load_optimized(
    folder: Path, device: torch.device, dtype: torch.dtype, quantize: str = "none", compiled: bool = False
) -> LLaMAHF:
    """Load the generator of a checkpoint folder and optimize it, layer by layer.

    At most one layer at a time is in memory in another precision than its final one. Arguments and errors as in
    ``optimize`` and ``LLaMAHF.from_pretrained``.
    """
    check_support(device.type, dtype, quantize)

    def load_weights(model: LLaMAHF, folder: Path) -> None:
        parts: dict[str, nn.Module] = {f"transformer.h.{layer}.": block for layer, block in enumerate(model.blocks)}
        parts[""] = model  # the rest
        names = set(stored_weights(folder))
        for prefix, part in parts.items():
            own = {name for name in names if name.startswith(prefix)}
            names -= own
            weights = ((name.removeprefix(prefix), tensor) for name, tensor in read_weights(folder, own, dtype))
            assign_weights(part, weights, lambda name: device)
            _prepare(part, quantize)

    return _with_fast_step(LLaMAHF.from_pretrained(folder, load_weights=load_weights), compiled)


def check_support(device: str, dtype: torch.dtype, quantize: str) -> None:
    """Raise InputError unless a device ("cpu", "cuda" or "mps") supports the precision and quantization."""
    if quantize not in QUANTIZE:
        raise InputError(f"quantize {quantize} is unknown; use one of {', '.join(QUANTIZE)}")
    if not isinstance(dtype, torch.dtype):
        raise InputError(f"dtype is {dtype!r}; give torch.float32, torch.bfloat16 or torch.float16")
    if quantize == "int4" and device != "cuda":
        raise InputError(f"int4 weights need a CUDA device and this is {device}; use int8, or none")
    if quantize != "none" and dtype != torch.bfloat16:
        raise InputError(
            f"{quantize} weights go with bf16 and {str(dtype).removeprefix('torch.')} is requested; use bf16"
        )
    if device == "cpu" and dtype == torch.float16:
        raise InputError("float16 is slow on a CPU; use float32 or bf16")


def weight_bytes(config: LLaMAConfig, precision: str) -> float:
    """Return the bytes of the weights of a generator in "float32", "bf16", "int8" or "int4"."""
    with torch.device("meta"):
        model = LLaMAHF(config)
    if precision in ("float32", "bf16"):
        return (4 if precision == "float32" else 2) * sum(parameter.numel() for parameter in model.parameters())
    total = 0.0
    for module in model.modules():
        for parameter in module.parameters(recurse=False):
            is_quantized = isinstance(module, nn.Linear) and parameter.ndim == 2
            total += parameter.numel() * (bytes_per_weight(precision, *parameter.shape) if is_quantized else 2)
    return total


@torch.no_grad()
def _prepare(part: nn.Module, quantize: str) -> None:
    """Fuse and quantize the layers of a part of a model."""
    part.requires_grad_(False)
    for parent in list(part.modules()):
        for name, module in list(parent.named_children()):
            if isinstance(module, MLP):
                setattr(parent, name, FusedMLP(module))
    if quantize != "none":
        quantize_linears(part, quantize)
    else:
        fuse_additions(part)


def _with_fast_step(model: LLaMAHF, compiled: bool) -> LLaMAHF:
    """Replace the decode step of a model whose layers are prepared."""
    device = model.transformer.wte.weight.device
    if compiled and not can_compile(device):
        warnings.warn("no C++ compiler is found, so the step is not compiled; install g++", stacklevel=3)
        compiled = False
    if device.type == "cpu" and not compiled:
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
        self.c_proj, self.dropout = mlp.c_proj, mlp.dropout

    def forward(self, residual: Tensor, x: Tensor) -> Tensor:
        gate, value = self.c_fc(x).chunk(2, dim=-1)
        return add_projection(residual, self.c_proj, F.silu(gate) * value, self.dropout)


def fuse_additions(part: nn.Module) -> None:
    """Let the projections of the blocks in a part of a model, on a GPU, add their output to the residual stream."""
    for module in part.modules():
        projection = module.c_proj if isinstance(module, Attention | FusedMLP) else None
        if type(projection) is nn.Linear and projection.weight.device.type != "cpu":
            module.c_proj = AddingLinear(projection)


class AddingLinear(nn.Linear):
    """Linear layer without bias that can add its output to a residual stream in the same operator."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__(linear.in_features, linear.out_features, bias=False, device="meta")
        self.weight = linear.weight

    def add(self, x: Tensor, y: Tensor) -> Tensor:
        """Add the output for y (..., K) to x (..., N) in place; returns x."""
        x.view(-1, x.shape[-1]).addmm_(y.flatten(0, -2), self.weight.t())
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
