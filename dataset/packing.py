"""Motions packed into a few large files: uncompressed .tar files of .npy files, as MotionMillion is on the hub.

Training maps these files into memory and reads a motion at its position, so it opens no file per motion. Nothing is
unpacked. An archive is refused if it holds anything but regular files and folders, or contradicts itself.
"""

import io
import os
import shutil
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, NamedTuple

from tqdm import tqdm

from dataset.feature_files import Place
from dataset.layouts import layout_of
from utils.errors import InputError, shown
from utils.files import refusing_write_errors
from utils.locks import exclusive_folder
from utils.reading.files import MB, is_inside, open_regular

BLOCK = tarfile.BLOCKSIZE
MAX_EXTENSION = MB  # bytes of an extended header: a name
SHARD = 2048 * MB  # bytes of motions in an archive
STAGING = ".preparing"  # removed by the next run
EXTENSIONS = (tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME)


class Member(NamedTuple):
    """A regular file in an archive."""

    name: str
    offset: int
    size: int


# --- Reading


def read_tars(folder: Path, names: list[str]) -> dict[str, Place]:
    """Return the place of each motion in the archives of a folder, by its name.

    Args:
        folder: Folder of the archives.
        names: File names of the archives; a place holds their position in this list.

    Raises:
        InputError: an archive cannot be read, or two members have the same name.
    """
    places: dict[str, Place] = {}
    for number, archive in enumerate(tqdm(names, desc="reading archives", unit="file", delay=2)):
        for member in tar_members(folder / archive):
            if not member.name.endswith(".npy"):
                continue
            name = member.name.removesuffix(".npy")
            if name in places:
                raise InputError(f"{folder / archive} holds {shown(name)}, which an archive holds already; remove one")
            places[name] = Place(number, member.offset, member.size)
    return places


def tar_members(path: Path) -> Iterator[Member]:
    """Yield the regular files of an uncompressed tar archive, without reading their content.

    Raises:
        InputError: the archive is compressed, damaged or cut short, or holds links, sparse files, devices, or names
            that lead out of it.
    """
    with open_regular(path, "an uncompressed tar archive", advice="download or copy it again") as file:
        end = file.seek(0, io.SEEK_END)
        file.seek(0)
        extension: dict[str, str] = {}  # name and size of the next member that do not fit into its header
        while True:
            block = file.read(BLOCK)
            if len(block) == BLOCK and not any(block):
                return
            if len(block) < BLOCK:
                raise InputError("it is cut short: it has no end mark")
            header = _header(block)
            start = file.tell()
            size = header.size if header.type in EXTENSIONS else _size(header, extension)
            if size > end - start:
                raise InputError(f"its member {shown(header.name, 60)} needs {size} bytes and has {end - start}")
            if header.type in EXTENSIONS:
                extension |= _extension(header, file)
            else:
                name = _checked_name(header, extension)
                extension = {}
                if header.type != tarfile.DIRTYPE:
                    yield Member(name, start, size)
            file.seek(start + -(-size // BLOCK) * BLOCK)


def _header(block: bytes) -> tarfile.TarInfo:
    """Parse the header of a member."""
    try:
        header = tarfile.TarInfo.frombuf(block, "utf-8", "strict")
    except (tarfile.HeaderError, ValueError) as error:
        raise InputError(f"it is damaged, compressed or of another format ({shown(error, 60)})") from error
    if header.type not in (tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.DIRTYPE, *EXTENSIONS):
        raise InputError(f"its member {shown(header.name, 60)} is a link, device or sparse file")
    if header.size < 0:
        raise InputError(f"its member {shown(header.name, 60)} has a negative size")
    return header


def _extension(header: tarfile.TarInfo, file: IO[bytes]) -> dict[str, str]:
    """Read an extended header: the name of the next member in the form of GNU, or records of the form of POSIX."""
    if header.size > MAX_EXTENSION:
        raise InputError(f"an extended header has {header.size} bytes, more than the {MAX_EXTENSION} that are read")
    content = file.read(header.size)
    if header.type == tarfile.GNUTYPE_LONGNAME:
        return {"path": content.rstrip(b"\0").decode()}
    records = {}
    while content:
        digits = content.partition(b" ")[0]
        length = int(digits) if digits.isdigit() and len(digits) < 9 else 0
        key, equals, value = content[len(digits) + 1 : length].partition(b"=")
        if not equals or length > len(content):
            raise InputError("an extended header is damaged")
        records[key.decode()] = value.removesuffix(b"\n")
        content = content[length:]
    if any(key.startswith("GNU.sparse") for key in records):
        raise InputError("it holds a sparse file")
    known = {} if header.type == tarfile.XGLTYPE else {"path", "size"} & records.keys()
    return {key: records[key].decode() for key in known}


def _size(header: tarfile.TarInfo, extension: dict[str, str]) -> int:
    size = extension.get("size", str(header.size))
    if not (size.isascii() and size.isdigit() and len(size) < 19):
        raise InputError(f"its member {shown(header.name, 60)} has the size {shown(size, 40)}")
    return 0 if header.type == tarfile.DIRTYPE else int(size)


def _checked_name(header: tarfile.TarInfo, extension: dict[str, str]) -> str:
    """Return the name of a member, relative to the archive."""
    name = extension.get("path", header.name)
    while name.startswith("./"):
        name = name[2:]
    if header.type == tarfile.DIRTYPE and name in ("", "."):
        return name
    if not is_inside(name):
        raise InputError(f"its member {shown(name, 60)} leads out of the archive")
    return name


# --- Writing


def pack(source: Path, out: Path, shard: int = SHARD) -> int:
    """Write a data folder with its motions packed into .tar files; captions, splits and statistics are copied.

    The new folder has the layout of the old one and is read by the same commands.

    Args:
        source: Data folder in any of the layouts of dataset/layouts.py, with a file per motion.
        out: Folder to write; it must hold no data yet.
        shard: Bytes of motions in a .tar file, at most; a larger motion has a file of its own.

    Returns:
        Number of motions.

    Raises:
        InputError: the folder has no motions in files of their own, or ``out`` holds data or cannot be written.
    """
    layout = layout_of(source)
    splits = [""] if not layout.lists_all else ["train", "val", "test"]
    folders = [name for name in map(layout.motion_folder, splits) if (source / name).is_dir()]
    with exclusive_folder(out, "prepare_data.py", "--out") as folder, refusing_write_errors(out):
        if any(not entry.name.startswith(".") for entry in out.iterdir()):
            raise InputError(f"{out} is not empty; choose another --out")
        staging, count = out / STAGING, 0
        shutil.rmtree(staging, ignore_errors=True)  # of a run that was killed
        try:
            for name in folders:
                count += _pack_motions(source / name, staging / name, shard)
            if not count:
                raise InputError(f"{source} has no motion in a file of its own; there is nothing to pack")
            skipped = {*folders, "index", "tokens", "text_features"}
            _copy_others(source, staging, skipped)
            folder.check()
            for entry in sorted(staging.iterdir()):
                entry.rename(out / entry.name)
        finally:
            shutil.rmtree(staging, ignore_errors=True)
    return count


def _pack_motions(source: Path, out: Path, shard: int) -> int:
    """Pack the .npy files of a folder; returns their number."""
    files = sorted(source.rglob("*.npy"))
    out.mkdir(parents=True)
    with tqdm(desc=f"packing {source.name}", unit="clip", total=len(files)) as progress:
        for number, group in enumerate(_groups(files, shard)):
            with tarfile.open(out / f"{number:05d}.tar", "w") as archive:
                for file in group:
                    with open_regular(file, "features") as content:
                        member = tarfile.TarInfo(file.relative_to(source).as_posix())
                        member.size = os.fstat(content.fileno()).st_size
                        archive.addfile(member, content)
                    progress.update()
    return len(files)


def _groups(files: list[Path], most: int) -> Iterator[list[Path]]:
    """Yield consecutive files of together at most ``most`` bytes; a larger file is alone."""
    group: list[Path] = []
    total = 0
    for file in files:
        size = file.stat().st_size
        if group and total + size > most:
            yield group
            group, total = [], 0
        group.append(file)
        total += size
    if group:
        yield group


def _copy_others(source: Path, out: Path, skipped: set[str]) -> None:
    """Copy the files of a data folder that are neither motions nor made by training."""

    def left_out(folder: str, names: list[str]) -> set[str]:
        relative = Path(folder).relative_to(source)
        return {name for name in names if name.startswith(".") or (relative / name).as_posix() in skipped}

    shutil.copytree(source, out, ignore=left_out, dirs_exist_ok=True)
