"""Self-contained checkpoint folders: ``config.json`` and ``model.safetensors``, each written atomically.

Large weights are sharded: ``model.safetensors.index.json`` names the file of each tensor and the sha256 of each file.
Sharded weights are loaded tensor by tensor and keep bfloat16.
"""

import hashlib
import io
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Container, Iterable, Iterator
from contextlib import redirect_stdout
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import PyTorchModelHubMixin
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn

from utils.errors import InputError
from utils.files import atomic_write

WEIGHTS, CONFIG = "model.safetensors", "config.json"
INDEX = f"{WEIGHTS}.index.json"


class PretrainedModel(nn.Module, PyTorchModelHubMixin):
    """Base class of the models: ``__init__(config: <dataclass>)``, saved to a folder, loaded from a folder or the hub.

    Attributes:
        _no_split_modules: Names of the module classes that are sharded, recomputed and compiled one by one in training.
        forward_methods: Names of the methods that, besides ``forward``, are called on sharded weights.
    """

    config: Any  # a dataclass
    _no_split_modules: tuple[str, ...] = ()
    forward_methods: tuple[str, ...] = ()

    def save_pretrained(self, save_directory: str | Path, **kwargs) -> str | None:
        """Write ``config.json`` and ``model.safetensors`` to temporary files, then rename them into the folder.

        Raises:
            InputError: if the folder cannot be written.
        """
        target = Path(save_directory)
        try:
            target.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(prefix=".saving-", dir=target) as temporary:
                result = super().save_pretrained(temporary, **kwargs)
                for name in (WEIGHTS, CONFIG):  # without the library's default model card
                    os.replace(Path(temporary) / name, target / name)
        except (OSError, SafetensorError) as error:
            reason = getattr(error, "strerror", None) or error
            raise InputError(f"cannot save to {target}: {reason}; choose a writable folder with space") from error
        return result

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | Path, **kwargs):
        """Load from a folder or a hub id, in evaluation mode.

        Raises:
            InputError: if the folder is missing or incomplete, or its config and weights do not match.
        """
        source = Path(pretrained_model_name_or_path)
        is_hub_id = len(source.parts) == 2 and not Path(source.parts[0]).exists()  # otherwise a mistyped folder
        weights = INDEX if (source / INDEX).is_file() else WEIGHTS
        missing = [name for name in (CONFIG, weights) if not (source / name).is_file()]
        if missing and not is_hub_id:
            raise InputError(
                f"{source} is not a {cls.__name__} checkpoint: {' and '.join(missing)} missing; "
                "give the folder that holds both files, or train a model"
            )
        try:
            with redirect_stdout(io.StringIO()):  # the library prints a line per load
                return super().from_pretrained(str(pretrained_model_name_or_path), strict=True, **kwargs)
        except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError) as error:
            raise InputError(
                f"{source} is not a folder, and the Hugging Face hub does not provide it; check the path"
            ) from error
        except OSError as error:
            raise InputError(f"{source} cannot be read: {error.strerror or error}; check its permissions") from error
        except (SafetensorError, EOFError) as error:
            raise InputError(
                f"{source / weights} is damaged or half-written ({error}); copy or download it again"
            ) from error
        except (RuntimeError, TypeError, ValueError, KeyError) as error:
            if isinstance(error, InputError) and str(source) in str(error):
                raise  # already complete
            reason = str(error).splitlines()[0]
            raise InputError(
                f"{source / CONFIG} and {source / weights} do not hold a {cls.__name__} of this version ({reason}); "
                "train again, or use the version of the code that wrote them"
            ) from error

    @classmethod
    def _from_pretrained(cls, *, model_id: str, config: object = None, load_weights: Callable | None = None, **kwargs):
        """Load sharded weights, or any with ``load_weights(model, folder)``, into a model on the meta device."""
        folder = Path(model_id)
        if load_weights is None and not (folder / INDEX).is_file():
            return super()._from_pretrained(model_id=model_id, config=config, **kwargs)
        with torch.device("meta"):
            model = cls(config)
        if load_weights is None:
            assign_weights(model, read_weights(folder))
        else:
            load_weights(model, folder)
        return model.eval()


def stored_weights(folder: Path) -> dict[str, tuple[Path, torch.Tensor]]:
    """List the tensors of a checkpoint without reading their values.

    Returns:
        The file of each tensor by name, and the tensor on the meta device, in the dtype that loading yields: float16
        is a storage format only and is loaded as float32.

    Raises:
        InputError: if the index is damaged, or a file that it names is missing.
        SafetensorError: if a file is damaged.
    """
    files = {folder / WEIGHTS}
    if (folder / INDEX).is_file():
        try:
            files = {folder / name for name in json.loads((folder / INDEX).read_text())["weight_map"].values()}
        except (ValueError, KeyError, AttributeError, TypeError) as error:
            raise InputError(f"{folder / INDEX} is damaged; copy or download it again") from error
    stored = {}
    for path in sorted(files):
        if not path.is_file():
            raise InputError(f"{path} is missing; copy or download it again")
        with safe_open(path, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118 (not a dict)
                part = file.get_slice(name)
                dtype = part[:0].dtype
                dtype = torch.float32 if dtype == torch.float16 else dtype
                stored[name] = path, torch.empty(part.get_shape(), dtype=dtype, device="meta")
    return stored


def read_weights(folder: Path, names: Container[str] | None = None) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield the names and tensors of a checkpoint, or those in ``names``; raises the errors of ``stored_weights``."""
    for name, (path, empty) in stored_weights(folder).items():
        if names is None or name in names:
            with safe_open(path, framework="pt") as file:
                yield name, file.get_tensor(name).to(empty.dtype)


def assign_weights(
    model: nn.Module,
    weights: Iterable[tuple[str, torch.Tensor]],
    device_of: Callable[[str], str | torch.device] = lambda name: "cpu",
) -> None:
    """Assign the parameters of a model on the meta device; tied ones stay tied.

    Args:
        device_of: Device of a parameter, by its name in ``weights``.

    Raises:
        ValueError: if a name is unknown, a shape does not match, or a parameter is missing.
    """
    names_of: dict[nn.Parameter, list[str]] = {}  # all names of each parameter
    for name, parameter in model.named_parameters(remove_duplicate=False):
        names_of.setdefault(parameter, []).append(name)
    parameters = {name: parameter for parameter, names in names_of.items() for name in names}
    for name, tensor in weights:
        if name not in parameters:
            raise ValueError(f"{name} is not a parameter of the model")
        if parameters[name].shape != tensor.shape:
            raise ValueError(f"{name} is {tuple(tensor.shape)} and should be {tuple(parameters[name].shape)}")
        value = nn.Parameter(tensor.to(device_of(name)))
        for full_name in names_of.pop(parameters[name], ()):
            module, _, attribute = full_name.rpartition(".")
            setattr(model.get_submodule(module), attribute, value)
    if names_of:
        raise ValueError(f"{next(iter(names_of.values()))[0]} is missing")


def without_tied_duplicates(model: nn.Module, weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return the weights of a model by name, with each tied weight under its first name only."""
    names = {name for name, _ in [*model.named_parameters(), *model.named_buffers()]}
    return {name: weight for name, weight in weights.items() if name in names}


def save_model(
    model: PretrainedModel, folder: Path, precision: str, weights: dict[str, torch.Tensor] | None = None
) -> None:
    """Save a model with its parameters in "float32" or "float16" (loaded as float32) and its buffers unchanged.

    Args:
        weights: Weights by name; the model's own by default.

    Raises:
        InputError: if the precision is unknown, or the folder cannot be written.
    """
    if precision not in ("float32", "float16"):
        raise InputError(f"save_precision {precision} is unknown; use float32 or float16")
    weights = without_tied_duplicates(model, model.state_dict() if weights is None else weights)
    smaller = {name for name, _ in model.named_parameters()} if precision == "float16" else ()
    weights = {name: weight.half() if name in smaller else weight for name, weight in weights.items()}
    try:
        with atomic_write(folder / WEIGHTS) as file:
            save_file({name: weight.contiguous() for name, weight in weights.items()}, file, {"format": "pt"})
    except SafetensorError as error:
        raise InputError(f"cannot save to {folder}: {error}; choose a writable folder with space") from error
    with atomic_write(folder / CONFIG) as file:
        file.write_text(json.dumps(asdict(model.config), indent=2, sort_keys=True))


def copy_model(source: Path, target: Path) -> None:
    """Copy the config and the weights of a model folder, each atomically."""
    for name in (CONFIG, WEIGHTS):
        with atomic_write(target / name) as file:
            shutil.copyfile(source / name, file)


def fingerprint(folder: str | Path) -> str:
    """Return the first 16 hexadecimal digits of the sha256 of a checkpoint's weights, which identify the model.

    For sharded weights it is the hash of the index, which holds the sha256 of each file.
    """
    index = Path(folder) / INDEX
    with open(index if index.is_file() else Path(folder) / WEIGHTS, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]
