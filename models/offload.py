"""Inference with a generator larger than its device: layers that do not fit are loaded for their part of each step.

Embedding, head and as many layers as fit are on the device. The other layers are in the host's memory or, if that is
too small or is the device, in the files of the checkpoint. Accelerate's hooks transfer each of them when it is needed.
The tokens are the same; each step costs the transfer of the layers that are not on the device.
"""

import logging
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import torch
from accelerate import dispatch_model
from accelerate.utils import get_max_memory

from models.llama import LLaMAHF
from utils.checkpoint import assign_weights, read_weights, stored_weights
from utils.errors import InputError

GB = 10**9


class Placement(NamedTuple):
    """Devices of the modules of a generator."""

    device_of: dict[str, str]  # module name -> device, "cpu" or "disk"
    on_device: int  # number of layers
    offloaded_bytes: int  # weights of the other layers
    offloaded_to: str  # "host memory" or the checkpoint folder


def load_offloaded(folder: Path, device: torch.device, memory: float, dtype: torch.dtype) -> LLaMAHF:
    """Load the generator of a checkpoint folder in ``dtype``, with at most ``memory`` GB of its weights on ``device``.

    Prints the placement of the layers.

    Raises:
        InputError: see ``LLaMAHF.from_pretrained`` and ``dispatch_layers``.
    """
    placements = []

    def load_weights(model: LLaMAHF, folder: Path) -> None:
        placements.append(dispatch_layers(model, folder, device, memory, dtype))

    model = LLaMAHF.from_pretrained(folder, load_weights=load_weights)
    for placement in placements:  # not printed while loading, where the library's output is suppressed
        print(
            f"{placement.on_device} of {model.config.n_layer} layers on {device}, the others in "
            f"{placement.offloaded_to}: {placement.offloaded_bytes / GB:.2f} GB are transferred at each step"
        )
    return model


def dispatch_layers(model: LLaMAHF, folder: Path, device: torch.device, memory: float, dtype: torch.dtype) -> Placement:
    """Load the weights in ``folder`` into a model on the meta device, each to the device of its module.

    Raises:
        InputError: embedding, head and one layer do not fit into ``memory`` GB.
    """
    placement = plan_placement(model, folder, device, memory, dtype)
    device_of, stored = placement.device_of, stored_weights(folder)
    module_of = {name: next(module for module in device_of if name.startswith(f"{module}.")) for name in stored}
    on_disk = {name: stored[name] for name in stored if device_of[module_of[name]] == "disk"}
    without_values = ((name, tensor.to(dtype)) for name, (_, tensor) in on_disk.items())
    assign_weights(
        model,
        chain(read_weights(folder, stored.keys() - on_disk.keys(), dtype), without_values),
        lambda name: "meta" if name in on_disk else device_of[module_of[name]],
    )
    if placement.on_device < len(model.transformer.h):
        index = {
            name: {"safetensors_file": str(file), "weight_name": name, "dtype": str(dtype).removeprefix("torch.")}
            for name, (file, _) in on_disk.items()
        }
        logging.getLogger(dispatch_model.__module__).setLevel(logging.ERROR)  # it warns about offloading
        dispatch_model(model, device_of, main_device=str(device), offload_index=index or None, force_hooks=True)
    return placement


def plan_placement(model: LLaMAHF, folder: Path, device: torch.device, memory: float, dtype: torch.dtype) -> Placement:
    """Assign each module to ``device``, to the host's memory or to disk; arguments as in ``dispatch_layers``."""
    layers = len(model.transformer.h)
    layer_bytes = sum(parameter.numel() for parameter in model.transformer.h[0].parameters()) * dtype.itemsize
    other_bytes = sum(parameter.numel() for parameter in model.parameters()) * dtype.itemsize - layers * layer_bytes
    fitting = int((memory * GB - other_bytes) // layer_bytes)
    if fitting < 1:
        raise InputError(
            f"the device memory given is {memory:g} GB; embedding, head and one layer of {folder} need "
            f"{(other_bytes + layer_bytes) / GB:.3g}; give more, or leave --device-memory out"
        )
    on_device = layers if fitting >= layers else fitting - 1  # one place is for the layer being transferred
    offloaded_bytes = (layers - on_device) * layer_bytes
    in_host = device.type != "cpu" and offloaded_bytes < get_max_memory()["cpu"]
    others = ["lm_head", "transformer.wte", "transformer.ln_f", "llama_proj"]
    device_of = dict.fromkeys(others + ["control_proj"] * bool(model.config.control), str(device))
    for layer in range(layers):
        device_of[f"transformer.h.{layer}"] = str(device) if layer < on_device else "cpu" if in_host else "disk"
    return Placement(device_of, on_device, offloaded_bytes, "host memory" if in_host else str(folder))
