"""A GPU that is not there: tensors that say in Python that they are on ``cuda:0``, with their values on the CPU.

    with pretended("cuda") as device:      # tests/pretended/patches.py; torch.cuda.is_available() is true inside
        ...                                # generation, training steps, whole scripts; the values are right
    device.waits, device.uploads           # Counters: "file:line operator" of the project -> how often
    device.kernels                         # Counter: operator -> how often

These raise inside, as they do on a GPU: operators between a CPU tensor and a tensor of the device (copies, CPU scalars
in elementwise operators and CPU indices are allowed, as in PyTorch), ``numpy()`` of a tensor of the device, a random
number generator of another device, and float64 on MPS.

These are counted:

- waits: the host waits for the device (item, tolist, bool, nonzero, boolean indices, unique, copies to the host);
- uploads: copies from host memory for which the host waits, too: torch.tensor(..., device="cuda"), .to("cuda"), lists
  as indices; not copies of pinned memory and those with non_blocking=True;
- kernels: operators that compute, without views and allocations. Linear layers, attention and RMSNorm are one each; a
  boolean mask costs attention one more, because it is converted.

Not covered: CUDA kernels (rounding, alignment, the choice of the attention kernel), torch.compile and CUDA graphs,
NCCL, memory, speed, streams, and operators that C++ chooses by device.

PyTorch's C++ sees CPU tensors with a Python dispatch key, so that autograd works without a driver; Python sees the
device of ``Pretended``.
"""

import sys
from collections import Counter
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map, tree_unflatten

ROOT = Path(__file__).parents[2]
CPU = torch.device("cpu")

aten = torch.ops.aten
COPIES = {aten._to_copy.default, aten.copy_.default}  # between devices, too
INDEXING = {  # takes CPU indices, too
    aten.index.Tensor, aten.index_put_.default, aten.index_put.default, aten._index_put_impl_.default,
    aten._unsafe_index.Tensor,
}  # fmt: skip
WAITING = {
    "_local_scalar_dense", "nonzero", "masked_select", "unique_dim", "_unique2", "unique_consecutive", "equal",
    "is_nonzero", "bincount", "argwhere",
}  # fmt: skip
NO_CPU_SCALARS = {
    "cat", "stack", "mm", "bmm", "addmm", "baddbmm", "embedding", "gather", "scatter", "convolution", "_softmax",
    "searchsorted", "index_select", "native_layer_norm",
}  # fmt: skip
NO_KERNEL = {
    "empty", "empty_strided", "empty_like", "new_empty", "new_empty_strided", "detach", "detach_", "alias",
    "_unsafe_view", "lift_fresh", "_local_scalar_dense", "_has_same_storage_numel", "_reshape_alias",
    "_fused_sdp_choice",
}  # fmt: skip
FUSED = {"linear", "scaled_dot_product_attention", "rms_norm"}  # one kernel on a GPU


class DeviceMismatch(RuntimeError):
    """An operator that a GPU refuses."""


class Pretended:
    """The device in use, and the operators that it was asked for.

    Attributes:
        device: Device that its tensors name.
        waits, uploads: Place and operator -> how often.
        kernels: Operator -> how often.
        downloading: Whether a copy to "cpu" is meant as such; otherwise it is C++'s idea of where the tensor is.
        is_fused: Whether the operators at work are parts of a fused one, which has been counted.
    """

    current: "Pretended"

    def __init__(self, kind: str) -> None:
        self.device = torch.device(kind, 0)
        self.downloading = self.is_fused = False
        self.reset()

    def reset(self) -> None:
        """Set all counts to zero."""
        self.waits, self.uploads, self.kernels = Counter[str](), Counter[str](), Counter[str]()


class DeviceTensor(Tensor):
    """A tensor of the pretended device; ``held`` has its values."""

    held: Tensor

    @staticmethod
    def __new__(cls, held: Tensor, requires_grad: bool = False):
        if isinstance(held, DeviceTensor) or held.is_meta:  # called as the class of a parameter
            return torch.nn.Parameter(held, requires_grad)
        if Pretended.current.device.type == "mps" and held.dtype == torch.float64:
            raise TypeError("Cannot convert a MPS Tensor to float64 dtype as the MPS framework doesn't support float64")
        tensor = Tensor._make_wrapper_subclass(
            cls, held.size(), strides=held.stride(), storage_offset=held.storage_offset(), dtype=held.dtype, device=CPU
        )
        tensor.held = held
        return tensor

    __torch_function__ = torch._C._disabled_torch_function_impl
    device = property(lambda self: Pretended.current.device)
    is_cuda = property(lambda self: self.device.type == "cuda")
    is_mps = property(lambda self: self.device.type == "mps")
    is_cpu = property(lambda self: False)

    def __repr__(self, *, tensor_contents=None):
        return f"DeviceTensor({self.held!r})"

    def get_device(self):
        return self.device.index

    def numpy(self, *args, **kwargs):
        raise TypeError(
            f"can't convert {self.device} device type tensor to numpy. Use Tensor.cpu() to copy the tensor to host "
            "memory first."
        )

    __array__ = numpy

    def tolist(self):
        return self.cpu().tolist()

    def cpu(self, *args, **kwargs):
        return self.to(CPU)

    def cuda(self, *args, **kwargs):
        return self

    def new_tensor(self, data, dtype=None, device=None, requires_grad=False):
        return torch.tensor(data, dtype=dtype or self.dtype, device=device or self.device, requires_grad=requires_grad)

    def pin_memory(self, *args, **kwargs):
        raise RuntimeError(f"cannot pin a tensor of {self.device}: only dense CPU tensors can be pinned")

    def to(self, *args, **kwargs):
        device, dtype = kwargs.get("device"), kwargs.get("dtype")
        for argument in args[:2]:
            if isinstance(argument, Tensor):
                device, dtype = argument.device, argument.dtype
            elif isinstance(argument, torch.dtype):
                dtype = argument
            elif isinstance(argument, str | torch.device | int):
                device = argument
        device = self.device if device is None or isinstance(device, int) else torch.device(device)
        if device.type == self.device.type and dtype in (None, self.dtype) and not kwargs.get("copy"):
            return self
        Pretended.current.downloading = device == CPU
        try:
            return aten._to_copy(self, dtype=dtype, device=device)
        finally:
            Pretended.current.downloading = False

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        return run(func, args, kwargs or {})


class DeviceMode(TorchDispatchMode):
    """Sends every operator to ``run``, also those that make tensors."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs, device = kwargs or {}, Pretended.current
        if not (torch.is_inference_mode_enabled() and func._can_decompose()):
            return run(func, args, kwargs)
        is_fused = operator_name(func) in FUSED and isinstance(args[0], DeviceTensor) and not device.is_fused
        if is_fused:
            count_fused(func, args, kwargs)
        device.is_fused |= is_fused
        try:
            with self:  # without autograd, operators arrive as they were called
                return func.decompose(*args, **kwargs)
        finally:
            device.is_fused &= not is_fused


def run(func, args: tuple, kwargs: dict) -> Any:
    """Compute an operator on the values, if it concerns the device, and check and count it."""
    flat, spec = tree_flatten((args, kwargs))
    tensors = [value for value in flat if isinstance(value, Tensor)]
    ours = [tensor for tensor in tensors if isinstance(tensor, DeviceTensor)]
    others = [tensor for tensor in tensors if not isinstance(tensor, DeviceTensor) and tensor.device == CPU]
    current = Pretended.current
    asked = None if kwargs.get("device") is None else torch.device(kwargs["device"])
    if asked == CPU and ours and not current.downloading:
        asked = current.device
    if kwargs.get("pin_memory"):
        kwargs |= {"pin_memory": False}
    if not ours and (asked is None or asked.type != current.device.type):
        return func(*args, **kwargs)
    on_device = bool(ours) if asked is None else asked.type == current.device.type
    check(func, args, kwargs, ours, others, on_device)
    count(func, args, kwargs, asked, ours, others)
    if operator_name(func) == "_fused_sdp_choice":
        return 0  # attention by several operators
    held = [value.held if isinstance(value, DeviceTensor) else value for value in flat]
    inner_args, inner_kwargs = tree_unflatten(held, spec)
    if asked is not None and asked.type in ("cpu", current.device.type):
        inner_kwargs |= {"device": CPU} | ({"non_blocking": False} if func in COPIES else {})
    result = func(*inner_args, **inner_kwargs)
    if torch.is_inference_mode_enabled() and ours and is_view(func) and not ours[0].is_inference():
        with torch.inference_mode(False):  # a view of a normal tensor is a normal tensor
            return tree_map(wrapped, result)
    if any(argument.alias_info is not None and argument.alias_info.is_write for argument in func._schema.arguments):
        return written(func, args, kwargs, result)
    return tree_map(wrapped, result) if on_device else result


def check(func, args: tuple, kwargs: dict, ours: list, others: list, on_device: bool) -> None:
    """Raise DeviceMismatch where a GPU refuses an operator."""
    if func in INDEXING and ours:
        if not isinstance(args[0], DeviceTensor):
            raise DeviceMismatch(f"{func}: the indices of a CPU tensor are on the device")
        if len(args) > 2 and not isinstance(args[2], DeviceTensor) and args[2].dim():
            raise DeviceMismatch(f"{func}: the values are on the CPU")
    elif ours and func not in COPIES and any(t.dim() or operator_name(func) in NO_CPU_SCALARS for t in others):
        raise DeviceMismatch(f"{func}: tensors on the device and on the CPU, {[tuple(t.shape) for t in others]}")
    if ours and func not in COPIES:
        for argument, value in zip(func._schema.arguments, args, strict=False):
            is_written = argument.alias_info is not None and argument.alias_info.is_write
            if is_written and isinstance(value, Tensor) and not isinstance(value, DeviceTensor):
                raise DeviceMismatch(f"{func}: a result on the device is written into a CPU tensor")
    generator = kwargs.get("generator")
    if generator is not None and (generator.device == CPU) == on_device:
        raise DeviceMismatch(f"{func}: a generator on {generator.device} for a tensor elsewhere")


def count(func, args: tuple, kwargs: dict, asked: torch.device | None, ours: list, others: list) -> None:
    """Count the waits, uploads and kernels of an operator."""
    current, name, is_copy = Pretended.current, operator_name(func), func in COPIES
    into_cpu = asked == CPU if func is aten._to_copy.default else not isinstance(args[0], DeviceTensor)
    is_download = bool(is_copy and ours and into_cpu)
    is_upload = bool(is_copy and others and not is_download)
    indices = [index for index in args[1] if index is not None] if func in INDEXING else []
    if is_download:
        current.waits[f"{place()} copy to the host"] += 1
    elif any(index.dtype in (torch.bool, torch.uint8) for index in indices):
        current.waits[f"{place()} boolean index"] += 1
    elif name in WAITING:
        current.waits[f"{place()} {name}"] += 1
    is_blocking = not (kwargs.get("non_blocking") or (func is aten.copy_.default and len(args) > 2 and args[2]))
    if is_upload and is_blocking and others[0].numel() and not getattr(others[0], "is_pretended_pinned", False):
        current.uploads[f"{place()} copy"] += 1
    if any(not isinstance(index, DeviceTensor) for index in indices):
        current.uploads[f"{place()} index"] += 1
    if not (current.is_fused or is_download or is_upload or name in NO_KERNEL or is_view(func)):
        current.kernels[name] += 1


def count_fused(func, args: tuple, kwargs: dict) -> None:
    """Count an operator that is one kernel on a GPU."""
    kernels = Pretended.current.kernels
    kernels[operator_name(func)] += 1
    mask = kwargs.get("attn_mask", args[3] if len(args) > 3 else None)
    if func is aten.scaled_dot_product_attention.default and mask is not None and mask.dtype == torch.bool:
        kernels["mask of attention"] += 1


def place() -> str:
    """Return file and line of the project that are at work."""
    frame = sys._getframe(2)
    while frame is not None:
        path = Path(frame.f_code.co_filename)
        if path.is_relative_to(ROOT) and ".venv" not in path.parts and path.name not in ("device.py", "patches.py"):
            return f"{path.relative_to(ROOT)}:{frame.f_lineno}"
        frame = frame.f_back
    return "elsewhere"


def operator_name(func) -> str:
    """Return the name of an operator without its overload."""
    return func._schema.name.removeprefix("aten::")


def is_view(func) -> bool:
    """Return whether the result of an operator shares the memory of an argument that it does not change."""
    return any(
        argument.alias_info is not None and not argument.alias_info.is_write for argument in func._schema.arguments
    )


def wrapped(value: Any) -> Any:
    """Put a tensor onto the device."""
    return DeviceTensor(value) if isinstance(value, Tensor) else value


def written(func, args: tuple, kwargs: dict, result: Any) -> Any:
    """Return the result of an operator that writes into arguments: these arguments."""
    schema = func._schema
    if not schema.returns:
        return None
    given = dict(zip((argument.name for argument in schema.arguments), args, strict=False)) | kwargs
    targets = iter(
        given[argument.name]
        for argument in schema.arguments
        if argument.alias_info is not None and argument.alias_info.is_write and given.get(argument.name) is not None
    )
    results = result if isinstance(result, tuple) else (result,)
    outputs = [
        next(targets) if output.alias_info is not None else tree_map(wrapped, value)
        for output, value in zip(schema.returns, results, strict=True)
    ]
    return outputs[0] if len(outputs) == 1 else tuple(outputs)
