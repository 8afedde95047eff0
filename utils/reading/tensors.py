"""Weights: safetensors, and the config.json of a model against bounds and against its weights."""

import dataclasses
import math
import typing
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, Literal, NamedTuple, TypeVar

import torch
from safetensors import safe_open

from utils.errors import InputError, shown
from utils.reading.files import MB, open_regular, refusal, refusing
from utils.reading.texts import parse_json, read_json

Config = TypeVar("Config")
ADVICE = "copy or download it again"
MAX_HEADER = 100 * MB  # the limit of safetensors itself
MAX_LENGTH = 64  # entries of a list in a config
DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}


class StoredTensor(NamedTuple):
    """A tensor of a file that has not been read."""

    dtype: torch.dtype
    shape: tuple[int, ...]


class SafetensorsHeader(NamedTuple):
    """The tensors and texts that a safetensors file holds."""

    tensors: dict[str, StoredTensor]
    metadata: dict[str, str]


# --- safetensors


def read_safetensors_header(path: str | Path) -> SafetensorsHeader:
    """Read the header of a safetensors file and compare it with the size of the file.

    Raises:
        InputError: The file is missing, damaged or cut short.
    """
    with open_regular(Path(path), "safetensors weights", advice=ADVICE) as file:
        return safetensors_header(file)


def safetensors_header(file: BinaryIO) -> SafetensorsHeader:
    """Read the header of an open safetensors file; see ``read_safetensors_header``."""
    size = file.seek(0, 2)
    file.seek(0)
    length = int.from_bytes(file.read(8), "little")
    if size < 8 or length > min(size - 8, MAX_HEADER):
        raise InputError(f"its header should have {length} bytes, and the file has {size}")
    try:
        header = parse_json(file.read(length))
    except InputError as error:
        raise InputError(f"its header is {error}") from error
    if not isinstance(header, dict):
        raise InputError("its header is not a table of tensors")
    metadata = header.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(text, str) for text in metadata.values()):
        raise InputError("its metadata are not texts")
    tensors, end = {}, 0
    for name, entry in sorted(header.items(), key=lambda item: _offsets(*item)):
        tensors[name] = StoredTensor(_dtype(name, entry), _shape(name, entry))
        start, stop = _offsets(name, entry)
        needed = math.prod(tensors[name].shape) * tensors[name].dtype.itemsize
        if start != end or stop - start != needed:
            raise InputError(f"its tensor {shown(name, 60)} needs {needed} bytes and has {start} to {stop}")
        end = stop
    if end != size - 8 - length:
        raise InputError(f"its tensors need {end} bytes, and it holds {size - 8 - length}")
    return SafetensorsHeader(tensors, metadata)


def _offsets(name: str, entry: Any) -> tuple[int, int]:
    offsets = entry.get("data_offsets") if isinstance(entry, dict) else None
    if not isinstance(offsets, list) or len(offsets) != 2 or not _sizes(offsets):
        raise InputError(f"its tensor {shown(name, 60)} has no place in the file")
    return offsets[0], offsets[1]


def _shape(name: str, entry: dict) -> tuple[int, ...]:
    if not _sizes(entry.get("shape")):
        raise InputError(f"its tensor {shown(name, 60)} has no shape")
    return tuple(entry["shape"])


def _dtype(name: str, entry: dict) -> torch.dtype:
    if not isinstance(entry.get("dtype"), str) or entry["dtype"] not in DTYPES:
        raise InputError(f"its tensor {shown(name, 60)} is of the unknown type {shown(entry.get('dtype'), 20)}")
    return DTYPES[entry["dtype"]]


def _sizes(values: Any) -> bool:
    return isinstance(values, list) and all(type(value) is int and value >= 0 for value in values)


@contextmanager
def open_safetensors(path: str | Path) -> Iterator[Any]:
    """Open a safetensors file whose header has been checked, memory-mapped.

    Yields:
        The ``safe_open`` object; exceptions within become InputError.

    Raises:
        InputError: As ``read_safetensors_header``.
    """
    read_safetensors_header(path)
    with refusing(Path(path), "safetensors weights", ADVICE), safe_open(path, "pt") as file:
        yield file


# --- Config


def read_config(path: str | Path, kind: type[Config], bounds: Mapping[str, int]) -> Config:
    """Read the config.json of a model, before anything of its size is made.

    Args:
        path: File to read.
        kind: Dataclass to fill; its field types are ``int``, ``float``, ``bool``, ``str``, ``Literal``, ``list[int]``.
        bounds: Largest value of each integer (of each entry of a list); integers without a bound may have 64 bits.

    Returns:
        The filled dataclass.

    Raises:
        InputError: The file is no config of ``kind``, a value has another type, is beyond its bound or is refused by
            the dataclass.
    """
    path, values = Path(path), read_json(path)
    with refusing(path, "a model configuration", "use the code that it was made with, or copy it again"):
        fields = {field.name: field for field in dataclasses.fields(kind)}  # type: ignore[arg-type]
        types = typing.get_type_hints(kind)
        if not isinstance(values, dict):
            raise InputError("it is not a table of settings")
        unknown = sorted(set(values) - set(fields))
        if unknown:
            raise InputError(f"the setting {shown(unknown[0], 60)} is unknown")
        for name, value in values.items():
            _check_value(name, value, types[name], bounds.get(name))
        return kind(**values)


def _check_value(name: str, value: Any, kind: Any, bound: int | None) -> None:
    if typing.get_origin(kind) is Literal:
        choices = typing.get_args(kind)
        if (type(value), value) not in [(type(choice), choice) for choice in choices]:
            raise InputError(f"{name} is {shown(value, 60)}; it should be one of {', '.join(map(str, choices))}")
        return
    if typing.get_origin(kind) is list:
        if not isinstance(value, list) or len(value) > MAX_LENGTH:
            raise InputError(f"{name} is {shown(value, 60)}; it should be a list of at most {MAX_LENGTH} values")
        for entry in value:
            _check_value(name, entry, typing.get_args(kind)[0], bound)
        return
    base = next(base for base in (bool, int, float, str) if issubclass(kind, base))  # of a bounded type, too
    if type(value) is not base and (base, type(value)) != (float, int):
        raise InputError(f"{name} is {shown(value, 60)}; it should be of type {base.__name__}")
    if type(value) is int and bound is not None and abs(value) > bound:
        raise InputError(f"{name} is {value}; it should be at most {bound}")


def check_shapes(model: torch.nn.Module, stored: Mapping[str, tuple[int, ...]], path: Path) -> None:
    """Compare a model made on the meta device with the tensors of a file, before values are allocated or read.

    Args:
        model: Model without values. Tied parameters need only be stored under one of their names.
        stored: Shape of each tensor of the file.
        path: File, for the message.

    Raises:
        InputError: A name or a shape differs, or a tensor is missing.
    """
    expected = model.state_dict(keep_vars=True)
    names_of: dict[int, list[str]] = {}
    for name, tensor in expected.items():
        names_of.setdefault(id(tensor), []).append(name)
    advice = "copy or download it again, or use the config.json that belongs to it"
    for name, shape in stored.items():
        if name not in expected:
            raise refusal(path, f"its tensor {shown(name, 60)} is not one of the model's", advice)
        if tuple(expected[name].shape) != shape:
            shapes = f"{shown(shape, 50)} and should be {tuple(expected[name].shape)}"
            raise refusal(path, f"its tensor {shown(name, 60)} is {shapes}", advice)
    for names in names_of.values():
        if not any(name in stored for name in names):
            raise refusal(path, f"the tensor {names[0]} of the model is missing", advice)
