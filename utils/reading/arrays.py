"""NumPy files: an array or an archive of arrays, never an object of Python."""

import io
import math
import struct
import zipfile
from collections.abc import Collection
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np

from utils.errors import InputError, shown
from utils.reading.files import MB, open_regular, refusal, refusing

MAX_BYTES = 512 * MB  # of the arrays of a file, unpacked
MAX_MEMBERS = 1000  # of an archive
MAX_HEADER = 10_240  # bytes of the header of an .npy file; NumPy itself reads no more than 10,000
SMALL, MAX_RATIO = 64 * MB, 100  # what an archive may always unpack to, and otherwise how many times its own size
KINDS = "biufcSU"  # numbers and texts; no objects, dates or records


class Header(NamedTuple):
    """Shape and type of an array that has not been read."""

    shape: tuple[int, ...]
    dtype: np.dtype


def read_npy_header(path: str | Path) -> Header:
    """Read shape and type of an ``.npy`` file and compare them with its size.

    Raises:
        InputError: The file is missing, no array of numbers or text, or cut short.
    """
    with open_regular(Path(path), "a NumPy array") as file:
        return _checked_header(file, _size(file))


def read_npy(path: str | Path, mapped: bool = False, most: int = MAX_BYTES) -> np.ndarray:
    """Read an ``.npy`` file.

    Args:
        path: File to read.
        mapped: Map the file into memory, read only, instead of reading it.
        most: Largest size of the array in bytes, unless mapped.

    Returns:
        The array, of numbers or text.

    Raises:
        InputError: The file is missing, no array of numbers or text, cut short or too large.
    """
    with open_regular(Path(path), "a NumPy array") as file:
        header = _checked_header(file, _size(file))
        if mapped:
            return np.load(path, mmap_mode="r", allow_pickle=False)
        _check_limit(_bytes(header), most)
        file.seek(0)
        return np.lib.format.read_array(file, allow_pickle=False)


def view_npy(content: memoryview, path: str | Path) -> np.ndarray:
    """Return a view of an ``.npy`` file that lies in memory, such as in a mapped archive.

    Args:
        content: Bytes of the file.
        path: Name for the error.

    Raises:
        InputError: The bytes are no array of numbers or text, or are cut short.
    """
    with refusing(Path(path), "a NumPy array"):
        file = io.BytesIO(content[:MAX_HEADER])
        header, by_columns = _checked_header_and_order(file, len(content))
        return np.ndarray(*header, content, file.tell(), order="F" if by_columns else "C")


def read_vector(path: str | Path, length: int) -> np.ndarray:
    """Read an ``.npy`` file of ``length`` finite numbers, as float32.

    Raises:
        InputError: As ``read_npy``, or the file holds something else.
    """
    values = read_npy(path)
    if values.dtype.kind in "fiu" and values.shape == (length,):
        values = to_float32(values)
        if np.isfinite(values).all():
            return values
    raise refusal(Path(path), f"it is no array of {length} finite numbers", "give or prepare the statistics again")


def to_float32(values: np.ndarray) -> np.ndarray:
    """Convert numbers to float32; those beyond its range become infinite."""
    with np.errstate(over="ignore"):
        return values.astype(np.float32, copy=False)


def read_npz(path: str | Path, names: Collection[str] | None = None, most: int = MAX_BYTES) -> dict[str, np.ndarray]:
    """Read arrays of an ``.npz`` archive.

    Args:
        path: File to read.
        names: Arrays to read, where the archive has them; None for all.
        most: Largest size of these arrays together, in bytes.

    Returns:
        The arrays by name.

    Raises:
        InputError: The file is missing, no archive of arrays, damaged, or unpacks to too much.
    """
    with open_regular(Path(path), "an archive of NumPy arrays") as file:
        _check_directory(file)
        with zipfile.ZipFile(file) as archive:
            members = _members(archive, names)
            total = sum(member.file_size for member in members.values())
            _check_limit(total, min(most, max(SMALL, MAX_RATIO * _size(file))))
            arrays = {}
            for name, member in members.items():
                with archive.open(member) as content:
                    _checked_header(content, member.file_size, f"its array {shown(name, 40)}")
                with archive.open(member) as content:
                    arrays[name] = np.lib.format.read_array(content, allow_pickle=False)
            return arrays


def _size(file: IO[bytes]) -> int:
    size = file.seek(0, 2)
    file.seek(0)
    return size


def _bytes(header: Header) -> int:
    return math.prod(header.shape) * header.dtype.itemsize


def _check_limit(size: int, most: int) -> None:
    if size > most:
        raise InputError(f"its arrays would take {size / MB:,.0f} MB, more than the {most / MB:,.0f} MB that are read")


def _checked_header(file: IO[bytes], size: int, subject: str = "its array") -> Header:
    """Read the header at the start of a file of ``size`` bytes, and compare the two."""
    return _checked_header_and_order(file, size, subject)[0]


def _checked_header_and_order(file: IO[bytes], size: int, subject: str = "its array") -> tuple[Header, bool]:
    """Read and compare a header; also return whether the array is stored by columns (Fortran order)."""
    version = np.lib.format.read_magic(file)
    readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    if version not in readers:
        raise InputError(f"{subject} is of version {version[0]}.{version[1]} of the format, which is not read")
    shape, by_columns, dtype = readers[version](file)
    if dtype.kind not in KINDS or dtype.subdtype:
        found = "Python objects" if dtype.hasobject else shown(dtype, 40)
        raise InputError(f"{subject} holds {found} where numbers or text belong")
    if any(isinstance(length, bool) or length < 0 for length in shape):
        raise InputError(f"{subject} has the impossible shape {shown(shape, 60)}")
    header = Header(shape, dtype)
    available = size - file.tell()
    unfolded = math.prod(length or 1 for length in shape) * max(1, dtype.itemsize)  # 10^12 empty rows take no bytes
    if _bytes(header) > available or unfolded > max(available, MB):
        raise InputError(f"{subject} of shape {shown(shape, 60)} needs {_bytes(header)} bytes and has {available}")
    return header, by_columns


def _check_directory(file: IO[bytes]) -> None:
    """Refuse an archive by the size of its directory, which Python's reader takes in whole."""
    size = _size(file)
    file.seek(max(0, size - 65_557))  # the end record has 22 bytes and a comment of at most 65,535
    end = file.read()
    start = end.rfind(b"PK\5\6")
    if start < 0 or len(end) < start + 22:
        raise InputError("it is no complete archive of NumPy arrays")
    _, _, _, count, directory = struct.unpack_from("<4HI", end, start + 4)
    if count > MAX_MEMBERS or directory > MB:
        raise InputError(
            f"its directory has {count} members in {directory} bytes, more than {MAX_MEMBERS} are not read"
        )
    file.seek(0)


def _members(archive: zipfile.ZipFile, names: Collection[str] | None) -> dict[str, zipfile.ZipInfo]:
    """Return the members that hold arrays, by the name of the array."""
    members: dict[str, zipfile.ZipInfo] = {}
    for member in archive.infolist():
        name = member.filename.removesuffix(".npy")
        if names is not None and name not in names:
            continue
        if name in members:
            raise InputError(f"it holds {shown(name, 40)} twice")
        if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) or member.flag_bits & 1:
            raise InputError(f"its member {shown(name, 40)} is encrypted or compressed in an unusual way")
        members[name] = member
    return members
