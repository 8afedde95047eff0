"""Torch files (.pth, .pt): named tensors, whatever other objects the file holds. No code of a file runs.

The pickle of a torch file is interpreted as data (``pickles.py``). Objects of other classes, such as the optimizer of
DeepSpeed beside the weights, are neither made nor looked up. In files of torch 1.6 and newer, the tensors are views of
the mapped file, whose values are read when they are used.
"""

import io
import math
import struct
import zipfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import torch

from utils.errors import InputError, shown
from utils.reading.files import open_regular, refusal
from utils.reading.pickles import Global, Record, Reference, read_pickle

ADVICE = "copy or download it again"
MAGIC_NUMBER = 0x1950A86A20F9469CFC6C  # of the format before torch 1.6
LOCAL_HEADER = struct.Struct("<26x2H")  # of a member of an archive: the lengths of its name and of its extra field
STORAGES = {
    f"torch.{name}Storage": dtype
    for name, dtype in {
        "Double": torch.float64,
        "Float": torch.float32,
        "Half": torch.float16,
        "BFloat16": torch.bfloat16,
        "Long": torch.int64,
        "Int": torch.int32,
        "Short": torch.int16,
        "Char": torch.int8,
        "Byte": torch.uint8,
        "Bool": torch.bool,
    }.items()
}


def read_torch(path: str | Path, advice: str = ADVICE) -> Any:
    """Read a torch file on the CPU, memory-mapped unless it is older than torch 1.6; no code of it runs.

    Args:
        path: File to read.
        advice: Remedy named at the end of an error.

    Returns:
        Its content: dense tensors in dicts and lists, with texts and numbers. Any other object is a
        ``pickles.Record``.

    Raises:
        InputError: The file is missing or damaged, or holds tensors larger than itself.
    """
    with open_regular(Path(path), "torch weights", advice=advice) as file:
        return _read_archive(path, file) if zipfile.is_zipfile(file) else _read_sequence(file)


def read_state_dict(path: str | Path, key: str | None = None) -> dict[str, torch.Tensor]:
    """Read named tensors of a torch file.

    Args:
        path: File to read.
        key: Key of the file's dict under which they are; None if the file is the dict of tensors itself.

    Returns:
        The tensors by name.

    Raises:
        InputError: As ``read_torch``, or the file has no such tensors.
    """
    content = read_torch(path)
    tensors = content if key is None else content.get(key) if isinstance(content, dict) else None
    if isinstance(tensors, dict) and all(
        isinstance(name, str) and isinstance(value, torch.Tensor) for name, value in tensors.items()
    ):
        return dict(tensors)
    under = "" if key is None else f" under {key!r}"
    others = f" (but {shown(', '.join(map(str, content)), 60)})" if isinstance(content, dict) else ""
    raise refusal(Path(path), f"it holds no named tensors{under}{others}", "give the file as it was released")


# --- Tensors


class _Storage(NamedTuple):
    """Values (n,) in a file that a tensor is a view of."""

    dtype: torch.dtype
    name: str


def _storage_of(reference: Any) -> _Storage:
    """Return the storage of a persistent id: ("storage", class, name, device, n), before torch 0.4 of a part of it."""
    match reference:
        case ("storage", Global() as kind, str() as name, _, _, *part) if kind.name in STORAGES and part in (
            [],
            [None],
        ):
            return _Storage(STORAGES[kind.name], name)
    raise InputError("it holds a tensor of an unknown type")


def _build(function: str, arguments: Any, values_of: Callable[[_Storage], torch.Tensor]) -> Any:
    """Build a tensor or dict of a pickle; all other calls are recorded."""
    match function, arguments:
        case "collections.OrderedDict", ():
            return {}
        case "torch._utils._rebuild_tensor_v2", (Reference(key), offset, shape, stride, *_):
            return _view(values_of(_storage_of(key)), offset, shape, stride)
        case "torch._utils._rebuild_parameter", (torch.Tensor() as tensor, *_):
            return tensor
    return Record(function, arguments)


def _view(values: torch.Tensor, offset: Any, shape: Any, stride: Any) -> torch.Tensor:
    """Return a view of stored values; raises InputError if they are not enough."""
    if not (_are_sizes((offset,)) and _are_sizes(shape) and _are_sizes(stride) and len(shape) == len(stride)):
        raise InputError("it holds a tensor whose shape is not one")
    if math.prod(shape) > len(values):  # a view may repeat values
        raise InputError(f"it holds a tensor of shape {shown(shape, 60)} without so many values")
    return values.as_strided(shape, stride, offset)


def _are_sizes(values: Any) -> bool:
    return isinstance(values, tuple) and all(type(value) is int and 0 <= value < 2**62 for value in values)


# --- The archive of torch 1.6 and newer


def _read_archive(path: str | Path, file: BinaryIO) -> Any:
    """Read an archive with the members NAME/data.pkl, NAME/data/0, NAME/data/1 ..."""
    with zipfile.ZipFile(file) as archive:
        members = {member.filename: member for member in archive.infolist()}
        size = file.seek(0, 2)
        _check_stored(members, size)
        pickles = [name for name in members if name.count("/") == 1 and name.endswith("/data.pkl")]
        if len(pickles) != 1:
            raise InputError("it is an archive without the pickle of a torch file")
        content, folder = archive.read(pickles[0]), pickles[0].removesuffix("data.pkl")
        if f"{folder}byteorder" in members and archive.read(f"{folder}byteorder") != b"little":
            raise InputError("its values are big-endian; save it again on a machine that is little-endian")
    mapped = torch.UntypedStorage.from_file(str(path), False, size)

    def values_of(storage: _Storage) -> torch.Tensor:
        member = members.get(f"{folder}data/{storage.name}")
        if member is None:
            raise InputError(f"it does not hold the values {shown(storage.name, 20)} of a tensor")
        file.seek(member.header_offset)
        start = member.header_offset + LOCAL_HEADER.size + sum(LOCAL_HEADER.unpack(file.read(LOCAL_HEADER.size)))
        stop, width = start + member.file_size, storage.dtype.itemsize
        if stop > size or start % width or member.file_size % width:
            raise InputError(f"the values {shown(storage.name, 20)} of a tensor are not where they should be")
        return torch.empty(0, dtype=storage.dtype).set_(mapped[start:stop])

    return read_pickle(io.BytesIO(content), partial(_build, values_of=values_of))


def _check_stored(members: dict[str, zipfile.ZipInfo], size: int) -> None:
    """Refuse a torch archive whose members are compressed, which torch never writes, or larger than the file."""
    if any(member.compress_type != zipfile.ZIP_STORED for member in members.values()):
        raise InputError("its members are compressed, as those of a TorchScript program, which is not run")
    if sum(member.file_size for member in members.values()) > size:
        raise InputError("its members are larger than the file")


# --- The sequence of pickles before torch 1.6


def _read_sequence(file: BinaryIO) -> Any:
    """Read a sequence of pickles (magic number, version, machine, content, names of storages), then the storages.

    The content is interpreted twice, because the sizes of the storages' values are known only after it.
    """
    file.seek(0)
    if read_pickle(file) != MAGIC_NUMBER:
        raise ValueError("it is of another format")
    read_pickle(file)
    machine = read_pickle(file)
    if isinstance(machine, dict) and not machine.get("little_endian", True):
        raise InputError("its values are big-endian; save it again on a machine that is little-endian")
    start, dtypes, values = file.tell(), dict[str, torch.dtype](), dict[str, torch.Tensor]()

    def note_storages(function: str, arguments: Any) -> Record:
        for argument in arguments if isinstance(arguments, tuple) else ():
            if isinstance(argument, Reference):
                storage = _storage_of(argument.key)
                dtypes[storage.name] = storage.dtype
        return Record(function, arguments)

    def values_of(storage: _Storage) -> torch.Tensor:
        if dtypes[storage.name] != storage.dtype:
            raise InputError("it holds a tensor of two types")
        return values[storage.name]

    read_pickle(file, note_storages)
    for name in read_pickle(file):
        values[name] = _read_values(file, dtypes[name])
    file.seek(start)
    return read_pickle(file, partial(_build, values_of=values_of))


def _read_values(file: BinaryIO, dtype: torch.dtype) -> torch.Tensor:
    """Read the next storage of a sequence: the number n of values, and the values (n,)."""
    start = file.tell() + 8
    size = int.from_bytes(file.read(8), "little") * dtype.itemsize
    if start + size > file.seek(0, 2):
        raise InputError("it ends within the values of a tensor")
    file.seek(start)
    return torch.frombuffer(bytearray(file.read(size)), dtype=dtype) if size else torch.empty(0, dtype=dtype)
