"""The parts of PyTorch that ask the driver of a GPU, replaced for the pretended device of tests/pretended/device.py."""

import contextlib
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any
from unittest import mock

import torch
import torch._dynamo  # PyTorch would import it later, and it does not load while its functions are replaced
import torch.distributed.checkpoint.filesystem as checkpoint_files
import torch.nn.utils.clip_grad
from torch import Tensor

from tests.pretended.device import DeviceMode, DeviceTensor, Pretended

GB = 10**9


@contextlib.contextmanager
def pretended(kind: str) -> Iterator[Pretended]:
    """Pretend that this machine has a device, "cuda" or "mps", inside the context."""
    before = getattr(Pretended, "current", None)
    device = Pretended.current = Pretended(kind)
    generator = torch.Generator()
    replaced = everywhere(device) | (cuda(generator) if kind == "cuda" else mps(generator))
    swaps = torch.__future__.get_swap_module_params_on_conversion()
    torch._C._ensureCUDADeviceGuardSet()
    with contextlib.ExitStack() as stack:
        for (owner, name), value in replaced.items():
            stack.enter_context(mock.patch.object(owner, name, value))
        torch.__future__.set_swap_module_params_on_conversion(True)  # tied weights stay tied
        torch._C._set_only_lift_cpu_tensors(True)  # torch.tensor(..., device="cuda") is made on the CPU, then copied
        try:
            with DeviceMode():
                yield device
        finally:
            torch._C._set_only_lift_cpu_tensors(False)
            torch.__future__.set_swap_module_params_on_conversion(swaps)
            Pretended.current = before  # type: ignore[assignment]


def cuda(generator: torch.Generator) -> dict[tuple[Any, str], Any]:
    """Return the functions of ``torch.cuda`` for one GPU, whose random numbers come from ``generator``."""
    properties = SimpleNamespace(
        name="a pretended GPU", major=9, minor=0, total_memory=80 * GB, multi_processor_count=132
    )
    functions = {
        "is_available": lambda: True,
        "_lazy_init": lambda: None,
        "is_initialized": lambda: True,
        "device_count": lambda: 1,
        "current_device": lambda: 0,
        "set_device": lambda device: None,
        "is_bf16_supported": lambda including_emulation=True: True,
        "get_device_name": lambda device=None: properties.name,
        "get_device_properties": lambda device=None: properties,
        "get_device_capability": lambda device=None: (properties.major, properties.minor),
        "synchronize": lambda device=None: None,
        "empty_cache": lambda: None,
        "mem_get_info": lambda device=None: (80 * GB, 80 * GB),
        "manual_seed_all": generator.manual_seed,
        "manual_seed": generator.manual_seed,
        "get_rng_state": lambda device="cuda": generator.get_state(),
        "get_rng_state_all": lambda: [generator.get_state()],
        "set_rng_state": lambda state, device="cuda": generator.set_state(state),
    }
    return {(torch.cuda, name): function for name, function in functions.items()}


def mps(generator: torch.Generator) -> dict[tuple[Any, str], Any]:
    """Return the functions of ``torch.mps``, whose random numbers come from ``generator``."""
    backend = {
        "is_available": lambda: True,
        "is_built": lambda: True,
        "is_macos_or_newer": lambda major, minor: True,
    }
    functions = {
        "synchronize": lambda: None,
        "empty_cache": lambda: None,
        "manual_seed": generator.manual_seed,
        "get_rng_state": lambda device="mps": generator.get_state(),
        "set_rng_state": lambda state, device="mps": generator.set_state(state),
    }
    replaced = {(torch.backends.mps, name): function for name, function in backend.items()}
    return replaced | {(torch.mps, name): function for name, function in functions.items()}


def everywhere(device: Pretended) -> dict[tuple[Any, str], Any]:
    """Return the functions of PyTorch that C++ or a driver answers by device."""
    autocast = torch.amp.autocast_mode.autocast
    enter, leave = autocast.__enter__, autocast.__exit__
    group_tensors = torch.utils._foreach_utils._group_tensors_by_device_and_dtype
    pad_on_cpu = torch._C._nn.pad_sequence

    def enter_both(self):  # autocast of the device is also that of the CPU
        if self.device == device.device.type:
            self.on_cpu = autocast("cpu", dtype=self.fast_dtype, enabled=self._enabled)
            enter(self.on_cpu)
        return enter(self)

    def leave_both(self, *error):
        result = leave(self, *error)
        if self.device == device.device.type:
            leave(self.on_cpu, *error)
        return result

    def group(lists, with_indices=False):
        groups = {}
        for (place, dtype), parts in group_tensors(lists, with_indices).items():
            is_ours = any(isinstance(tensor, DeviceTensor) for tensor in parts[0][0])
            groups[device.device if is_ours else place, dtype] = parts
        return groups

    def one_hot(indices, num_classes):
        return (indices[..., None] == torch.arange(num_classes, device=indices.device)).long()

    def pad_sequence(sequences, batch_first=False, padding_value=0.0, padding_side="right"):
        if not all(isinstance(row, DeviceTensor) for row in sequences):
            return pad_on_cpu(sequences, batch_first, padding_value, padding_side)
        longest, first = max(map(len, sequences)), sequences[0]
        shape = (len(sequences), longest, *first.shape[1:])
        rows = torch.full(shape, padding_value, dtype=first.dtype, device=first.device)
        for row, values in zip(rows, sequences, strict=True):
            row[slice(longest - len(values), None) if padding_side == "left" else slice(len(values))] = values
        return rows if batch_first else rows.transpose(0, 1)

    def pin_memory(tensor: Tensor, device=None) -> Tensor:
        tensor = tensor.clone()
        tensor.is_pretended_pinned = True  # type: ignore[attr-defined]
        return tensor

    def loader(resolve, **_):  # PyTorch's own copies on streams
        return checkpoint_files._SerialCpuLoader(resolve)

    return {
        (autocast, "__enter__"): enter_both,
        (autocast, "__exit__"): leave_both,
        (torch.nn.utils.clip_grad, "_group_tensors_by_device_and_dtype"): group,
        (torch.nn.functional, "one_hot"): one_hot,
        (torch._C._nn, "pad_sequence"): pad_sequence,
        (torch.Tensor, "pin_memory"): pin_memory,
        (checkpoint_files, "_OverlappingCpuLoader"): loader,
    }
