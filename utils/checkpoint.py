"""Checkpoint folders: ``config.json`` + ``model.safetensors``, each file written whole or not at all, loading alone.

Where the weights are large they are split: ``model.safetensors.index.json`` names the file of each tensor and the
sha256 of each file. Split weights are loaded tensor by tensor, and bfloat16 stays what it is.
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
    """Base of the models: ``__init__(config: <dataclass>)``, saved as a folder, loaded from one or the hub.

    Attributes:
        _no_split_modules: Names of the classes that a training shards, recomputes and compiles piece by piece.
        forward_methods: Names of methods that are called beside ``forward``, also where the weights are sharded.
    """

    _no_split_modules: tuple[str, ...] = ()
    forward_methods: tuple[str, ...] = ()

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
        weights = INDEX if (source / INDEX).is_file() else WEIGHTS
        missing = [name for name in (CONFIG, weights) if not (source / name).is_file()]
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
                f"{source / weights} is damaged or half-written ({error}); copy or download it again"
            ) from error
        except (RuntimeError, TypeError, ValueError, KeyError) as error:
            if isinstance(error, InputError) and str(source) in str(error):
                raise  # it says all
            reason = str(error).splitlines()[0]
            raise InputError(
                f"{source / CONFIG} and {source / weights} do not hold a {cls.__name__} of this version ({reason}); "
                "train again, or use the code they were made with"
            ) from error

    @classmethod
    def _from_pretrained(cls, *, model_id: str, config: object = None, put: Callable | None = None, **kwargs):
        """Split weights, and any with ``put(model, folder)``, go into a model made without values."""
        folder = Path(model_id)
        if put is None and not (folder / INDEX).is_file():
            return super()._from_pretrained(model_id=model_id, config=config, **kwargs)
        with torch.device("meta"):
            model = cls(config)
        if put is None:
            put_weights(model, read_weights(folder))
        else:
            put(model, folder)
        return model.eval()


def stored_weights(folder: Path) -> dict[str, tuple[Path, torch.Tensor]]:
    """The file of each tensor of a checkpoint, and what loading gives but for the values (on the meta device).

    float16 only saves space: loading gives float32.

    Raises:
        InputError: the index is damaged, or a file that it names is missing. SafetensorError: a file is damaged.
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
    """Names and tensors of a checkpoint, or those among ``names``, one at a time; raises as ``stored_weights``."""
    for name, (path, empty) in stored_weights(folder).items():
        if names is None or name in names:
            with safe_open(path, framework="pt") as file:
                yield name, file.get_tensor(name).to(empty.dtype)


def put_weights(
    model: nn.Module,
    weights: Iterable[tuple[str, torch.Tensor]],
    device_of: Callable[[str], str | torch.device] = lambda name: "cpu",
) -> None:
    """Give a model made without values its parameters; tied ones stay tied.

    Raises:
        ValueError: a name or a shape is not the model's, or a parameter is left without values.
    """
    places = {}  # parameter -> names under which it is used
    for name, parameter in model.named_parameters(remove_duplicate=False):
        places.setdefault(parameter, []).append(name)
    parameters = {name: parameter for parameter, names in places.items() for name in names}
    for name, tensor in weights:
        if name not in parameters:
            raise ValueError(f"{name} is no parameter of it")
        if parameters[name].shape != tensor.shape:
            raise ValueError(f"{name} is {tuple(tensor.shape)} and should be {tuple(parameters[name].shape)}")
        value = nn.Parameter(tensor.to(device_of(name)))
        for place in places.pop(parameters[name], ()):
            module, _, attribute = place.rpartition(".")
            setattr(model.get_submodule(module), attribute, value)
    if places:
        raise ValueError(f"{next(iter(places.values()))[0]} is missing")


def without_tied_duplicates(model: nn.Module, weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Weights of a model by name, tied ones under the first of their names alone."""
    names = {name for name, _ in [*model.named_parameters(), *model.named_buffers()]}
    return {name: weight for name, weight in weights.items() if name in names}


def save_model(
    model: PretrainedModel, folder: Path, precision: str, weights: dict[str, torch.Tensor] | None = None
) -> None:
    """Save with parameters in "float32" or "float16" (loading gives float32 again); buffers stay as they are.

    Args:
        weights: by name; None takes the model's own.

    Raises:
        InputError: the precision is unknown, or the folder cannot be written.
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
    """Copy a model folder's two files."""
    for name in (CONFIG, WEIGHTS):
        with atomic_write(target / name) as file:
            shutil.copyfile(source / name, file)


def fingerprint(folder: str | Path) -> str:
    """The first 16 hexadecimal digits of the sha256 of a checkpoint's weights: names a model in files made with it.

    Of split weights it is that of the index, which holds the sha256 of each file.
    """
    index = Path(folder) / INDEX
    with open(index if index.is_file() else Path(folder) / WEIGHTS, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]
