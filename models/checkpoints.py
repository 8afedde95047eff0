"""Checkpoints of text-to-motion models: their location, and the files that are downloaded."""

import os
from pathlib import Path

from models.llama_config import LLaMAConfig
from models.sources import SETTINGS, check_checkpoint, refuse_release
from utils.checkpoint import CONFIG, MODEL_FILES, fingerprint
from utils.errors import InputError, shown
from utils.hub import find_folder
from utils.paths import find_shipped

TOKENIZER = "tokenizer"  # folder of the tokenizer in that of the generator
KNOWN = "known.safetensors"  # sentences that the checkpoint knows; see models/known.py
CHECKPOINT_FILES = (*MODEL_FILES, KNOWN, *(f"{TOKENIZER}/{name}" for name in MODEL_FILES))


def find_checkpoint(source: str | Path, revision: str | None = None) -> tuple[str, Path]:
    """Find a checkpoint, and download it if ``source`` is a hub id.

    Returns:
        Its name, and its folder, which holds the folder of the tokenizer.

    Raises:
        InputError: as ``utils.hub.find_folder``, or it is no checkpoint of a text-to-motion model.
    """
    check_checkpoint(source)
    folder = find_folder(source, [*CHECKPOINT_FILES, SETTINGS], "checkpoint", revision)
    refuse_release(source, folder)
    if not (folder / TOKENIZER).is_dir():
        raise InputError(
            f"{shown(source, 120)} is no checkpoint of a text-to-motion model: it has no folder "
            f"{shown(source, 120)}/{TOKENIZER}; give a run folder of train_t2m.py"
        )
    is_folder = os.path.isdir(find_shipped(source))
    return (folder.resolve() if is_folder else Path(str(source).partition("@")[0])).name, folder


def find_tokenizer(source: str | Path) -> Path:
    """Find the folder of a tokenizer: ``source`` itself, or the tokenizer of a text-to-motion model.

    Raises:
        InputError: as ``utils.hub.find_folder``, or ``source`` is a released model that was not converted.
    """
    refuse_release(source)
    inner = [name for name in CHECKPOINT_FILES if name.startswith(TOKENIZER)]
    folder = find_folder(source, [CONFIG, *inner], "tokenizer")
    return folder / TOKENIZER if (folder / TOKENIZER).is_dir() else find_folder(source, MODEL_FILES, "tokenizer")


def check_tokenizer(folder: Path, generator: LLaMAConfig) -> None:
    """Raise InputError unless the tokenizer in a checkpoint folder is the one that its generator was trained with."""
    if generator.tokenizer not in ("", fingerprint(folder / TOKENIZER)):
        raise InputError(
            f"{folder / TOKENIZER} is not the tokenizer that the generator of {folder} was trained with; "
            "copy that tokenizer there, or train again"
        )
