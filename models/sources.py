"""Sources of checkpoints: folders and hub ids. Released models, which are converted first, are refused.

This module imports no PyTorch, so that options can be checked without it.
"""

import os
from pathlib import Path

from utils.errors import InputError, shown
from utils.hub import check_source

SETTINGS = "mm_config.json"
GENERATOR, TOKENIZER = "trans", "net"  # keys of the weights in a .pth file
HUB_NAMES = {GENERATOR: "ar.safetensors", TOKENIZER: "fsq.safetensors"}


def check_checkpoint(source: str | Path) -> None:
    """Raise InputError unless ``source`` may be a checkpoint: a folder, not of a released model, or a hub id."""
    refuse_release(source)
    check_source(source, "checkpoint")


def is_release(source: str | Path) -> bool:
    """Whether a path is a released model, not a checkpoint of this project: a .pth file, or a folder of the release."""
    path = Path(source)
    if not os.path.isdir(source):
        return os.path.isfile(source) and path.suffix == ".pth"
    return not (path / "config.json").exists() and (
        any((path / name).exists() for name in (SETTINGS, *HUB_NAMES.values())) or any(path.glob("*.pth"))
    )


def refuse_release(source: str | Path, folder: Path | None = None) -> None:
    """Raise InputError with the command that converts it if ``source`` is a released model.

    Args:
        folder: Folder of a hub id in the cache.
    """
    if is_release(folder or source):
        name = Path(str(source).partition("@")[0]).resolve().stem
        raise InputError(
            f"{shown(source, 120)} is a released model of MotionMillion-Codes; convert it once with `python -m "
            f"models.motionmillion --source {shown(source, 120)} --out checkpoints/{shown(name, 60)}`, then give that "
            "folder"
        )
