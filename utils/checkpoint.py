"""Checkpoint folders: ``config.json`` + ``model.safetensors``, each file written whole or not at all, loading alone."""

import copy
import hashlib
import io
import os
import shutil
import tempfile
from contextlib import redirect_stdout
from pathlib import Path

import torch
from huggingface_hub import PyTorchModelHubMixin
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError
from safetensors import SafetensorError
from torch import nn

from utils.errors import InputError
from utils.files import written_whole

WEIGHTS, CONFIG = "model.safetensors", "config.json"


class PretrainedModel(nn.Module, PyTorchModelHubMixin):
    """Base of the models: ``__init__(config: <dataclass>)``, saved as a folder, loaded from one or the hub."""

    def save_pretrained(self, save_directory: str | Path, **kwargs) -> str | None:
        """Write ``config.json`` and ``model.safetensors`` under temporary names, then rename them into the folder.

        Raises:
            InputError: the folder cannot be written.
        """
        target = Path(save_directory)
        try:
            target.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(prefix=".saving-", dir=target) as temporary:
                result = super().save_pretrained(temporary, **kwargs)
                for name in (WEIGHTS, CONFIG):  # the library's default model card stays behind
                    os.replace(Path(temporary) / name, target / name)
        except (OSError, SafetensorError) as error:
            reason = getattr(error, "strerror", None) or error
            raise InputError(f"cannot save to {target}: {reason}; choose a writable folder with space") from error
        return result

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | Path, **kwargs):
        """Load from a folder or a hub id, in evaluation mode.

        Raises:
            InputError: the folder is missing or incomplete, or its config and weights do not fit together.
        """
        source = Path(pretrained_model_name_or_path)
        is_hub_id = len(source.parts) == 2 and not Path(source.parts[0]).exists()  # else it is a mistyped folder
        missing = [name for name in (CONFIG, WEIGHTS) if not (source / name).is_file()]
        if missing and not is_hub_id:
            raise InputError(
                f"{source} is not a {cls.__name__} checkpoint: {' and '.join(missing)} missing; "
                "give the folder that holds both files, or train one"
            )
        try:
            with redirect_stdout(io.StringIO()):  # the library announces each load
                return super().from_pretrained(str(pretrained_model_name_or_path), strict=True, **kwargs)
        except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError) as error:
            raise InputError(
                f"{source} is neither a folder here nor can it be had from the Hugging Face hub; check the path"
            ) from error
        except OSError as error:
            raise InputError(f"{source} cannot be read: {error.strerror or error}; check its permissions") from error
        except (SafetensorError, EOFError) as error:
            raise InputError(
                f"{source / WEIGHTS} is damaged or half-written ({error}); copy or download it again"
            ) from error
        except (RuntimeError, TypeError, ValueError, KeyError) as error:
            reason = str(error).splitlines()[0]
            raise InputError(
                f"{source / CONFIG} and {source / WEIGHTS} do not hold a {cls.__name__} of this version ({reason}); "
                "train again, or use the code they were made with"
            ) from error


def save_model(model: PretrainedModel, folder: Path, precision: str) -> None:
    """Save with parameters in "float32" or "float16" (loading gives float32 again); buffers stay as they are.

    Raises:
        InputError: the precision is unknown, or the folder cannot be written.
    """
    if precision not in ("float32", "float16"):
        raise InputError(f"save_precision {precision} is unknown; use float32 or float16")
    if precision == "float16":
        model = copy.deepcopy(model)
        for parameter in model.parameters():
            parameter.data = parameter.data.half()
    model.save_pretrained(folder)


def copy_model(source: Path, target: Path) -> None:
    """Copy a model folder's two files."""
    for name in (CONFIG, WEIGHTS):
        with written_whole(target / name) as file:
            shutil.copyfile(source / name, file)


def fingerprint(folder: str | Path) -> str:
    """The first 16 hexadecimal digits of the sha256 of a checkpoint's weights: names a model in files made with it."""
    with open(Path(folder) / WEIGHTS, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]


def save_state(path: Path, state: dict) -> None:
    """Write a training state (tensors and plain values) under a temporary name, then rename it.

    Raises:
        InputError: the file cannot be written; an older one stays as it was.
    """
    try:
        with written_whole(path) as file:
            torch.save(state, file)
    except RuntimeError as error:  # torch's way to say that the disk is full
        raise InputError(
            f"cannot save the training state to {path} ({error}); free space, then run with --resume true"
        ) from error


def load_state(path: Path) -> dict:
    """Read a training state.

    Raises:
        InputError: the file is missing or damaged.
    """
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise InputError(f"{path} is missing, so there is nothing to resume; run without --resume") from error
    except Exception as error:  # torch raises many kinds on a damaged file
        reason = str(error).splitlines()[0]
        raise InputError(f"{path} is damaged or half-written ({reason}); start again without --resume") from error
