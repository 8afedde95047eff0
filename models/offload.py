"""A generator larger than its device: layers that do not fit are kept elsewhere and fetched when their turn comes.

Embedding, head and as many layers as fit lie on the device. The others lie in the host's memory, or where that is too
small (or is the device) in the checkpoint's files. Accelerate's hooks fetch each for its part of every step: the tokens
are the same, each step costs the transfer of what is not on the device.
"""

import logging
from itertools import chain
from pathlib import Path

import torch
from accelerate import dispatch_model
from accelerate.utils import get_max_memory

from models.llama import LLaMAHF
from utils.checkpoint import assign_weights, read_weights, stored_weights
from utils.errors import InputError

GB = 10**9


def load_offloaded(folder: Path, device: torch.device, memory: float, dtype: torch.dtype) -> LLaMAHF:
    """The generator of a checkpoint folder in ``dtype``, with at most ``memory`` GB of its weights on ``device``.

    Prints what lies where.

    Raises:
        InputError: see ``LLaMAHF.from_pretrained`` and ``dispatch_layers``.
    """
    said = []
    model = LLaMAHF.from_pretrained(
        folder, load_weights=lambda model, folder: said.append(dispatch_layers(model, folder, device, memory, dtype))
    )
    print(*said)  # not inside, where the library's announcements are kept back
    return model


def dispatch_layers(model: LLaMAHF, folder: Path, device: torch.device, memory: float, dtype: torch.dtype) -> str:
    """Load the weights in ``folder`` into a model without values, each to where it belongs; a sentence says where.

    Raises:
        InputError: embedding, head and one layer do not fit into ``memory`` GB.
    """
    stored = stored_weights(folder)
    layers = model.transformer.h
    layer_bytes = sum(parameter.numel() for parameter in layers[0].parameters()) * dtype.itemsize
    other_bytes = (
        sum(parameter.numel() for parameter in model.parameters()) * dtype.itemsize - len(layers) * layer_bytes
    )
    fitting = int((memory * GB - other_bytes) // layer_bytes)
    if fitting < 1:
        raise InputError(
            f"the device memory given is {memory:g} GB; embedding, head and one layer of {folder} need "
            f"{(other_bytes + layer_bytes) / GB:.3g}; give more, or leave --device-memory out"
        )
    here = len(layers) if fitting >= len(layers) else fitting - 1  # one place is for the layer whose turn it is
    away_bytes = (len(layers) - here) * layer_bytes
    in_host = device.type != "cpu" and away_bytes < get_max_memory()["cpu"]
    main = str(device)
    places = dict.fromkeys(("lm_head", "transformer.wte", "transformer.ln_f", "llama_proj"), main)
    places |= {
        f"transformer.h.{layer}": main if layer < here else "cpu" if in_host else "disk" for layer in range(len(layers))
    }
    owner = {name: next(module for module in places if name.startswith(f"{module}.")) for name in stored}
    on_disk = {name: file_and_tensor for name, file_and_tensor in stored.items() if places[owner[name]] == "disk"}
    fetched = ((name, tensor) for name, (_, tensor) in on_disk.items())  # without values
    weights = chain(read_weights(folder, stored.keys() - on_disk.keys()), fetched)
    assign_weights(
        model,
        ((name, tensor.to(dtype)) for name, tensor in weights),
        lambda name: "meta" if name in on_disk else places[owner[name]],
    )
    index = {
        name: {"safetensors_file": str(file), "weight_name": name, "dtype": str(dtype).removeprefix("torch.")}
        for name, (file, _) in on_disk.items()
    }
    if here < len(layers):
        logging.getLogger(dispatch_model.__module__).setLevel(logging.ERROR)  # it warns of what is meant
        dispatch_model(model, places, main_device=main, offload_index=index or None, force_hooks=True)
    return (
        f"{here} of {len(layers)} layers on {device}, the others in {'host memory' if in_host else folder}: "
        f"{away_bytes / GB:.2f} GB are fetched at each step"
    )
