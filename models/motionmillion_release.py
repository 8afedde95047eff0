"""The files of a released model of MotionMillion-Codes: found in a folder, beside a file, or on the Hugging Face hub.

The release exists in two forms:

    motionmillion_3B_all.pth {"trans": ...}, fsq_net_6000000.pth {"net": ...}, mean_std/.../{mean,std}.npy
    ar.safetensors, fsq.safetensors, mean.npy, std.npy, mm_config.json                   (on the hub)
"""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import torch

from models.sources import GENERATOR, HUB_NAMES, SETTINGS, TOKENIZER
from utils.errors import InputError, shown
from utils.hub import find_folder
from utils.reading.tensors import open_safetensors
from utils.reading.texts import read_json
from utils.reading.torch_files import read_state_dict, read_torch

HUB_FILES = (SETTINGS, *HUB_NAMES.values(), "mean.npy", "std.npy")
STATISTICS_FOLDERS = (".", "mean_std/vector_272", "mean_std")  # in the folder of the release or beside it
Tensors = dict[str, torch.Tensor]


class Release(NamedTuple):
    """Files of a released model; None for those that were not found."""

    tokenizer: Path | None
    generator: Path | None
    mean: Path | None
    std: Path | None
    settings: dict[str, Any]
    """Settings of the tokenizer in mm_config.json; empty without it."""


def find_release(source: str | Path) -> Release:
    """Find the files of a released model.

    Args:
        source: Folder, file of the generator or hub id; or file of the tokenizer, which is then found alone.

    Raises:
        InputError: there is none, or several generators or tokenizers are in the folder.
    """
    path = Path(source)
    if os.path.isfile(source):
        folder, chosen = path.parent, _weights_in([path])
        if not chosen:
            raise InputError(f"{shown(path, 200)} holds neither a released generator nor a tokenizer; give one of both")
    else:
        folder, chosen = find_folder(source, HUB_FILES, "model"), {}
    neighbours = _weights_in(sorted(folder.glob("*.pth")), required=not chosen)
    weights = neighbours | chosen
    for key, name in HUB_NAMES.items():
        if (folder / name).exists() and key not in chosen:
            weights[key] = [folder / name]
    if TOKENIZER in chosen:
        weights.pop(GENERATOR, None)
    for key, kind in ((GENERATOR, "generators"), (TOKENIZER, "tokenizers")):
        if len(weights.get(key, ())) > 1:
            names = ", ".join(file.name for file in weights[key])
            raise InputError(f"{folder} holds several {kind} ({shown(names, 120)}); give one of the files as --source")
    if not weights:
        raise InputError(
            f"{shown(source, 200)} is no released model: it holds neither {' nor '.join(HUB_NAMES.values())} nor .pth "
            f"files with {GENERATOR!r} or {TOKENIZER!r}; give another one"
        )
    (generator,), (tokenizer,) = weights.get(GENERATOR, [None]), weights.get(TOKENIZER, [None])
    return Release(tokenizer, generator, *_statistics(folder), _settings(folder))


def read_tensors(path: Path, key: str) -> Tensors:
    """Read a released state dict, memory-mapped, and strip the prefixes "module." of its names.

    Args:
        path: .safetensors file, or torch file.
        key: Key of the state dict in a torch file.

    Raises:
        InputError: if the file is missing or damaged, or holds no such state dict.
    """
    if path.suffix == ".safetensors":
        with open_safetensors(path) as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
    else:
        tensors = read_state_dict(path, key)
    return {name.replace("module.", ""): value for name, value in tensors.items()}


def _weights_in(files: Iterable[Path], required: bool = True) -> dict[str, list[Path]]:
    """Group files by the key of the weights that they hold; other files are left out.

    Raises:
        InputError: a file cannot be read, although ``required``.
    """
    found: dict[str, list[Path]] = {}
    for file in files:
        for key, name in HUB_NAMES.items():
            if file.name == name or (file.suffix != ".safetensors" and key in _keys(file, required)):
                found.setdefault(key, []).append(file)
    return found


def _keys(file: Path, required: bool) -> Iterable[Any]:
    try:
        content = read_torch(file)
    except InputError:
        if required:
            raise
        return ()
    return content if isinstance(content, dict) else ()


def _statistics(folder: Path) -> tuple[Path | None, Path | None]:
    """Find mean and standard deviation of the features that belong to a release."""
    inner, *outer = STATISTICS_FOLDERS
    for place in (folder / inner, *(parent / name for parent in (folder, folder.parent) for name in outer)):
        for mean, std in (("mean.npy", "std.npy"), ("Mean.npy", "Std.npy")):
            if (place / mean).exists() and (place / std).exists():
                return place / mean, place / std
    return None, None


def _settings(folder: Path) -> dict[str, Any]:
    """Return the settings of the tokenizer in mm_config.json."""
    if not (folder / SETTINGS).exists():
        return {}
    content = read_json(folder / SETTINGS)
    for key in ("config", "vqvae"):
        content = content.get(key) if isinstance(content, dict) else None
    return content if isinstance(content, dict) else {}
