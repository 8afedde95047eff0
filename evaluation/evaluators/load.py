"""Loading of public evaluators from the files that a user downloads, put into one folder.

finest.tar, epoch=99.ckpt, ...    the weights as they were released, or model.safetensors of Motius
stats/{mean,std}.npy              the statistics of the evaluator
glove/                            T2M: our_vab_data.npy, our_vab_words.pkl, our_vab_idx.pkl
tokenizer/                        TMR: config.json and tokenizer of distilbert-base-uncased; searched if it is missing
config.json                       TMR: num_heads, where the number of attention heads is not 4

This is also the layout of the evaluators that Motius publishes. docs/evaluation.md lists the sources.
"""

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from torch import nn

from evaluation.evaluators import t2m, tmr272
from evaluation.evaluators.interface import Evaluator
from evaluation.evaluators.word_tokens import Vocabulary
from models.text_weights import find_folder
from utils.errors import InputError, shown
from utils.reading.arrays import read_vector
from utils.reading.files import refusal, refusing
from utils.reading.tensors import check_shapes, open_safetensors
from utils.reading.texts import read_json
from utils.reading.torch_files import read_state_dict, read_torch

WEIGHTS = (".safetensors", ".tar", ".ckpt")
NETWORKS = ("movement_encoder", "text_encoder", "motion_encoder")
MAX_HEADS = 64
ADVICE = "give the evaluator as it was released"
Network = TypeVar("Network", bound=nn.Module)
Tensors = dict[str, torch.Tensor]


def load_evaluator(
    folder: str | Path, device: str | torch.device = "cpu", frames: tuple[int, int] | None = None
) -> Evaluator:
    """Load a public evaluator from a folder of the layout above. Its kind follows from the names of its tensors.

    Args:
        folder: Folder of the files.
        device: Device of the networks.
        frames: Shortest and longest motion in frames; None takes the protocol of the evaluator.

    Raises:
        InputError: A file is missing or damaged, or the files are of no known evaluator or of different ones.
    """
    folder = Path(folder)
    path = _weights_file(folder)
    networks = _split(_read(path), path)
    load = _load_t2m if "movement_encoder" in networks else _load_tmr272
    return load(folder, path, networks, device, frames)


def _weights_file(folder: Path) -> Path:
    if not folder.is_dir():
        raise InputError(f"{shown(folder, 200)} is no folder; give a folder with the files of an evaluator")
    files = sorted(path for path in folder.iterdir() if path.suffix in WEIGHTS)
    if len(files) != 1:
        raise InputError(
            f"{shown(folder, 200)} holds {len(files)} files that end in {', '.join(WEIGHTS)}; put the weights of one "
            "evaluator there"
        )
    return files[0]


def _read(path: Path) -> Tensors:
    """Return the tensors of any of the released files under the names of Motius: ``motion_encoder.`` and so on."""
    if path.suffix == ".safetensors":
        with open_safetensors(path) as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
    if path.suffix == ".ckpt":  # textencoder.*, motionencoder.* and networks of the training
        return {
            name.replace("encoder.", "_encoder.", 1): value
            for name, value in read_state_dict(path, "state_dict").items()
        }
    content = read_torch(path)
    return {
        f"{network}.{name}": value
        for network, tensors in (content.items() if isinstance(content, dict) else ())
        for name, value in (tensors.items() if isinstance(tensors, dict) else ())
        if network in NETWORKS and isinstance(value, torch.Tensor)
    }


def _split(tensors: Tensors, path: Path) -> dict[str, Tensors]:
    """Return the tensors of each network; those of others are left out."""
    networks: dict[str, Tensors] = {}
    for name, value in tensors.items():
        network, _, rest = name.partition(".")
        if network in NETWORKS and rest != "text_model.embeddings.position_ids":  # of older transformers
            networks.setdefault(network, {})[rest] = value
    if not {"text_encoder", "motion_encoder"} <= networks.keys():
        raise refusal(path, "it holds no text encoder and motion encoder", "give the evaluator of T2M or a TMR for 272")
    return networks


def _load_t2m(
    folder: Path, path: Path, networks: dict[str, Tensors], device: str | torch.device, frames: tuple[int, int] | None
) -> t2m.T2MEvaluator:
    movement = _build(t2m.MovementEncoder, networks["movement_encoder"], path).to(device)
    text = _build(t2m.TextEncoder, networks["text_encoder"], path).to(device)
    motion = _build(t2m.BiGRU, networks["motion_encoder"], path).to(device)
    vocabulary, (mean, std) = Vocabulary(folder / "glove"), _statistics(folder, movement.features)
    return t2m.T2MEvaluator(movement, text, motion, vocabulary, mean, std, frames)


def _load_tmr272(
    folder: Path, path: Path, networks: dict[str, Tensors], device: str | torch.device, frames: tuple[int, int] | None
) -> tmr272.TMR272Evaluator:
    tokenizer, hub_id = folder / "tokenizer", f"distilbert/{tmr272.DISTILBERT}"
    if not tokenizer.is_dir():
        tokenizer = find_folder(tmr272.DISTILBERT, None, hub_id, ("config.json", "vocab.txt"), "1 MB")
    model, heads = tmr272.read_text_model(tokenizer), _heads(folder / "config.json")
    motion = _build(lambda shapes: tmr272.MotionEncoder(shapes, heads), networks["motion_encoder"], path)
    text = _build(lambda shapes: tmr272.TextEncoder(shapes, heads, model), networks["text_encoder"], path)
    mean, std = _statistics(folder, motion.skel_embedding.in_features)
    return tmr272.TMR272Evaluator(
        motion.to(device), text.to(device), tmr272.load_tokenizer(tokenizer), mean, std, frames
    )


def _heads(path: Path) -> int:
    """Return the number of attention heads, which the tensors do not show: that of Motius' configuration, or 4."""
    config = read_json(path) if path.is_file() else {}
    heads = config.get("num_heads", tmr272.HEADS) if isinstance(config, dict) else None
    if type(heads) is not int or not 1 <= heads <= MAX_HEADS:
        raise refusal(path, f"num_heads is {shown(heads, 40)}", "copy the file again, or remove it")
    return heads


def _build(make: Callable[[dict[str, tuple[int, ...]]], Network], tensors: Tensors, path: Path) -> Network:
    """Make a network by the shapes of its tensors and load them; the shapes are compared before memory is allocated."""
    shapes = {name: tuple(value.shape) for name, value in tensors.items()}
    with refusing(path, "weights of an evaluator", ADVICE):
        with torch.device("meta"):
            check_shapes(make(shapes), shapes, path)
        network = make(shapes)
        network.load_state_dict(tensors)
        return network.eval().requires_grad_(False)


def _statistics(folder: Path, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Read mean and std (width,) of the features, float32."""
    mean, std = (read_vector(folder / "stats" / f"{name}.npy", width) for name in ("mean", "std"))
    if (std <= 0).any():
        raise refusal(folder / "stats" / "std.npy", "it must hold values above zero", "copy the evaluator's statistics")
    return mean, std
