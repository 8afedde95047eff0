"""Self-contained checkpoint folders: ``config.json`` and ``model.safetensors``, each written atomically.

Large weights are sharded: ``model.safetensors.index.json`` names the file of each tensor and the sha256 of each file.
Sharded weights are loaded tensor by tensor and keep bfloat16.
"""

import hashlib
import json
import os
import shutil
import tempfile
import typing
from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import torch
from huggingface_hub import PyTorchModelHubMixin
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_model, save_file
from torch import nn

from utils.errors import InputError, shown
from utils.files import atomic_write
from utils.hub import HubId, find_folder, hub_errors, parse_hub_id
from utils.paths import find_shipped
from utils.reading.files import open_regular, refusal, refusing
from utils.reading.tensors import check_shapes, read_config, read_safetensors_header
from utils.reading.texts import read_json

WEIGHTS, CONFIG = "model.safetensors", "config.json"
INDEX = f"{WEIGHTS}.index.json"
MODEL_FILES = (CONFIG, WEIGHTS, INDEX, "model-*.safetensors")  # patterns of the files of a model
ADVICE = "copy or download it again, or train again"


class PretrainedModel(nn.Module, PyTorchModelHubMixin):
    """Base class of the models: ``__init__(config: <dataclass>)``, saved to a folder, loaded from a folder or the hub.

    Attributes:
        _no_split_modules: Names of the module classes that are sharded, recomputed and compiled one by one in training.
        forward_methods: Names of the methods that, besides ``forward``, are called on sharded weights.
        config_bounds: Largest values of the integers of a config that is loaded.
        config_repeats: Names of the integers of the config that count modules with weights of their own.
    """

    config: Any  # a dataclass
    _no_split_modules: tuple[str, ...] = ()
    forward_methods: tuple[str, ...] = ()
    config_bounds: Mapping[str, int] = {}
    config_repeats: tuple[str, ...] = ()

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

    def push_to_hub(self, repo_id: str, **upload) -> str:
        """Save and upload the model; see ``PyTorchModelHubMixin.push_to_hub``, and ``models.publish`` for a folder.

        Raises:
            InputError: if the upload is refused, or the hub cannot be reached.
        """
        with hub_errors(HubId(repo_id)):
            return super().push_to_hub(repo_id, **upload)

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | Path,
        load_weights: Callable[[Any, Path], None] | None = None,
        **download,
    ):
        """Load from a folder or a hub id, in evaluation mode.

        The config is compared with bounds and with the stored tensors before anything of its size is made. Sharded
        weights are compared with their sha256.

        Args:
            pretrained_model_name_or_path: Folder, or hub id (user/name, user/name@revision).
            load_weights: Called with the model on the meta device and the folder, in place of loading the weights.
            download: Arguments of ``huggingface_hub.snapshot_download`` for a hub id, such as revision.

        Raises:
            InputError: if the folder is missing or incomplete, its config and weights are damaged or do not match, or
                they cannot be downloaded.
        """
        folder = find_checkpoint(pretrained_model_name_or_path, cls.__name__, **download)
        sharded = os.path.exists(folder / INDEX)
        with refusing(folder, f"a {cls.__name__}", ADVICE):
            stored = stored_weights(folder)
            bounds = {**cls.config_bounds, **dict.fromkeys(cls.config_repeats, len(stored))}
            config = read_config(folder / CONFIG, typing.get_type_hints(cls.__init__)["config"], bounds)
            with torch.device("meta"):
                model = cls(config)
            shapes = {name: tuple(tensor.shape) for name, (_, tensor) in stored.items()}
            check_shapes(model, shapes, folder / (INDEX if sharded else WEIGHTS))
            if sharded:
                verify_shards(folder)
            if load_weights is None and sharded:
                assign_weights(model, read_weights(folder))
            elif load_weights is None:
                model = cls(config)  # with the values of its buffers
                load_model(model, folder / WEIGHTS)
        if load_weights is not None:
            load_weights(model, folder)
        return model.eval()


def find_checkpoint(source: str | Path, kind: str, **download: Any) -> Path:
    """Find the folder of a checkpoint, and download it if ``source`` is a hub id.

    Args:
        source: Folder or hub id.
        kind: Name of the model, for the error.
        download: Arguments of ``utils.hub.find_folder``.

    Raises:
        InputError: if it is neither a folder nor on the hub, or config or weights are missing.
    """
    is_on_hub = parse_hub_id(source) is not None
    folder = find_folder(source, MODEL_FILES, kind, **download) if is_on_hub else find_shipped(source)
    weights = INDEX if os.path.exists(folder / INDEX) else WEIGHTS
    missing = [name for name in (CONFIG, weights) if not os.path.exists(folder / name)]
    if missing:
        raise InputError(
            f"{shown(source, 200)} is not a {kind} checkpoint: {' and '.join(missing)} missing; "
            f"give {'a model of this project' if is_on_hub else 'the folder that holds both files'}, or train a model"
        )
    return folder


# --- Weights


def stored_weights(folder: Path) -> dict[str, tuple[Path, torch.Tensor]]:
    """List the tensors of a checkpoint without reading their values.

    Returns:
        The file of each tensor by name, and the tensor on the meta device, in the dtype that loading yields: float16
        is a storage format only and is loaded as float32.

    Raises:
        InputError: if the index or a file is missing or damaged.
    """
    if os.path.exists(folder / INDEX):
        weight_map = read_index(folder).files
        headers = {path: read_safetensors_header(path).tensors for path in sorted(set(weight_map.values()))}
    else:
        headers = {folder / WEIGHTS: read_safetensors_header(folder / WEIGHTS).tensors}
        weight_map = dict.fromkeys(headers[folder / WEIGHTS], folder / WEIGHTS)
    stored = {}
    for name, path in weight_map.items():
        if name not in headers[path]:
            raise refusal(path, f"it does not hold the tensor {shown(name, 60)} of {INDEX}", ADVICE)
        dtype, shape = headers[path][name]
        dtype = torch.float32 if dtype == torch.float16 else dtype
        stored[name] = path, torch.empty(shape, dtype=dtype, device="meta")
    return stored


class ShardIndex(NamedTuple):
    """Content of the index of sharded weights."""

    files: dict[str, Path]  # by tensor
    sha256: dict[Path, str]  # by file; empty if the index has no checksums


def read_index(folder: Path) -> ShardIndex:
    """Read the index of sharded weights; the files that it names are in its folder.

    Raises:
        InputError: if it is missing or damaged.
    """
    content = read_json(folder / INDEX)
    with refusing(folder / INDEX, "an index of weights", ADVICE):
        digests = content["metadata"].get("sha256", {}) if "metadata" in content else {}
        for file in (*content["weight_map"].values(), *digests):
            if file != Path(file).name or not file.endswith(".safetensors"):
                raise InputError(f"it names {shown(file, 60)}, which is no file of this folder")
        files = {name: folder / file for name, file in content["weight_map"].items()}
        return ShardIndex(files, {folder / file: digest for file, digest in digests.items()})


def verify_shards(folder: Path) -> None:
    """Compare each file of sharded weights with its sha256 in the index.

    Raises:
        InputError: if a file differs.
    """
    for path, expected in read_index(folder).sha256.items():
        with open_regular(path, "safetensors weights") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() != expected:
                raise refusal(path, f"its sha256 is not that of {INDEX}", ADVICE)


def read_weights(
    folder: Path, names: Container[str] | None = None, dtype: torch.dtype | None = None
) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield the names and tensors of a checkpoint.

    Args:
        names: Tensors to read; all if None.
        dtype: Their precision; that of ``stored_weights`` if None.

    Raises:
        InputError: as ``stored_weights``.
    """
    for name, (path, empty) in stored_weights(folder).items():
        if names is None or name in names:
            with refusing(path, "safetensors weights", ADVICE), safe_open(path, framework="pt") as file:
                tensor = file.get_tensor(name).to(dtype or empty.dtype, copy=True)  # the file may change later
            yield name, tensor


def assign_weights(
    model: nn.Module,
    weights: Iterable[tuple[str, torch.Tensor]],
    device_of: Callable[[str], str | torch.device] = lambda name: "cpu",
) -> None:
    """Assign those parameters of a model that are on the meta device; tied ones stay tied.

    Args:
        device_of: Device of a parameter, by its name in ``weights``.

    Raises:
        InputError: if a name is unknown, a shape does not match, or a parameter is missing.
    """
    names_of: dict[nn.Parameter, list[str]] = {}  # all names of each parameter
    for name, parameter in model.named_parameters(remove_duplicate=False):
        if parameter.is_meta:
            names_of.setdefault(parameter, []).append(name)
    parameters = {name: parameter for parameter, names in names_of.items() for name in names}
    for name, tensor in weights:
        if name not in parameters:
            raise InputError(f"{name} is not a parameter of the model")
        if parameters[name].shape != tensor.shape:
            raise InputError(f"{name} is {tuple(tensor.shape)} and should be {tuple(parameters[name].shape)}")
        value = nn.Parameter(tensor.to(device_of(name)))
        for full_name in names_of.pop(parameters[name], ()):
            module, _, attribute = full_name.rpartition(".")
            setattr(model.get_submodule(module), attribute, value)
    if names_of:
        raise InputError(f"{next(iter(names_of.values()))[0]} is missing")


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
    with open_regular(index if os.path.exists(index) else Path(folder) / WEIGHTS, "weights") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]
