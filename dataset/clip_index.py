"""Index of the clips of a split: an Arrow file that is built once, so that opening a folder reads no file per clip.

index/<split>-<purpose>.arrow in the data folder, or in a cache folder if that cannot be written (dataset/derived.py),
holds a row per clip (dataset/clips.py) and, in its metadata, the state of the files that it was built from. It is built
again if one of these has changed:
    the split file and the .tar files (size and modification time), and the folders that hold files of the split
    (modification time, which changes if a file is added, removed or replaced)
    in a split of at most EXACT motions, every motion and caption file (size and modification time)
Remove the folder index/ to build it again.
"""

import hashlib
import json
import os
import stat
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from tqdm import tqdm

from dataset.clip_rules import NO_MOTION, NO_TEXT, clips_of_motion
from dataset.clips import SCHEMA, Clips, map_table
from dataset.derived import derived_folder, derived_folders
from dataset.feature_files import OWN_FILE, FeatureFiles, Place
from dataset.layouts import Split
from utils.errors import InputError, shown
from utils.files import atomic_write
from utils.locks import exclusive_file
from utils.processes import WorkerDied, worker_pool
from utils.reading.files import is_inside
from utils.reading.texts import parse_json

VERSION = 1  # of the rules by which clips are made
ABOUT = b"about"  # key in the metadata of the Arrow file
EXACT = 100_000  # motions of a split up to which the time of every file is compared
CHUNK = 20_000  # motions that a process scans at a time
POOLED = 50_000  # motions from which several processes scan
INDEX = "index"  # folder for the indexes of a data folder


class Motions(NamedTuple):
    """The motions of a split."""

    names: list[str]
    containers: list[str]
    """Names of the .tar files in the folder of the motions."""
    places: dict[str, Place]
    """Places of the motions in containers."""


class Scanned(NamedTuple):
    """The clips of a range of motions."""

    table: pa.Table
    """Rows with the columns ``SCHEMA``."""
    left_out: Counter
    """Number of motions and parts left out, by reason."""
    example: str
    """Message about the first motion that cannot be read, or ""."""
    digest: str
    """Digest of the files of the motions."""


def open_clips(split: Split, list_motions: Callable[[Split], Motions]) -> Clips:
    """Open the clips of a split; builds its index if there is none or the data changed.

    Several processes may do this at once: one builds, the others wait.

    Raises:
        InputError: a file of the data folder is missing or invalid, or the index cannot be written.
    """
    files = [folder / _file_name(split) for folder in derived_folders(split.path, INDEX)]
    for file in files:
        clips = _opened(file, split)
        if clips is not None:
            return clips
    file = derived_folder(split.path, INDEX) / _file_name(split)
    with exclusive_file(file):
        clips = _opened(file, split)  # another process may have built it
        if clips is None:
            motions = list_motions(split)
            write_index(file, split, motions, _scan_all(split, motions))
            clips = _opened(file, split, check=False)
    if clips is None:
        raise InputError(f"{file} changed while it was read; run the same command again")
    return clips


def index_file(path: Path, split: Split) -> Path:
    """Return the index of a split in a data folder that can be written."""
    return path / INDEX / _file_name(split)


def _file_name(split: Split) -> str:
    return f"{split.name}-{'clips' if split.has_captions else 'motions'}.arrow"


# --- Opening


def _opened(file: Path, split: Split, check: bool = True) -> Clips | None:
    """Open an index; returns None if it is missing, damaged or out of date."""
    if not file.is_file():
        return None
    try:
        table = map_table(file)
        about = parse_json(table.schema.metadata[ABOUT])
        _check_rows(table, len(about["containers"]))
        if about["version"] != VERSION or about["layout"] != split.layout.title:
            return None
        if check and about["stamp"] != _stamp(split, about["folders"], about["containers"]):
            return None
        if check and about["names"] and about["digest"] != _digest(split, about["containers"], about["names"]):
            return None
        files = FeatureFiles(split.motions, about["containers"])
        return Clips(file, files, Counter(about["left_out"]), about["example"], about["digest"], split.layout.strict)
    except Exception:  # whatever is wrong with it, it is built again
        return None


def _check_rows(table: pa.Table, containers: int) -> None:
    """Raise InputError if rows are damaged: Arrow itself compares no more than the last offset with the values."""
    if not table.schema.equals(SCHEMA):
        raise InputError("it has other columns")
    for batch in table.to_batches():
        batch.validate()
        ids, captions = batch["id"], batch["captions"]
        for array in (ids, captions, captions.values):
            offsets = np.frombuffer(array.buffers()[1], np.int32)[array.offset :][: len(array) + 1]
            if (np.diff(offsets) < 0).any():
                raise InputError("its texts overlap")
        start, frames, context, container, offset, size = (
            batch[name].to_numpy() for name in ("start", "frames", "context", "container", "offset", "size")
        )
        numbers = ((start < 0) | (frames < 1) | (context < 0) | (context > frames) | (offset < 0) | (size < 0)).any()
        if numbers or (container < OWN_FILE).any() or (container >= containers).any():
            raise InputError("its numbers are out of range")
        if any(column.null_count for column in (*batch.columns, captions.values)):
            raise InputError("values are missing")


def _stamp(split: Split, folders: list[str], containers: list[str]) -> list[list]:
    """Return path, size and modification time of the split file, the containers and the folders."""
    listed = [split.listed_in] if split.listed_in else []
    paths = [*listed, *(split.motions / name for name in containers), *(split.path / folder for folder in folders)]
    return [_status(path, split.path) for path in paths]


def _status(path: Path, folder: Path) -> list:
    """Return path, size and modification time of a file or folder; the size of a folder counts as 0."""
    name = str(path.relative_to(folder))
    try:
        status = os.stat(path)
    except OSError:
        return [name, -1, 0]
    return [name, 0 if stat.S_ISDIR(status.st_mode) else status.st_size, status.st_mtime_ns]


def _digest(split: Split, containers: list[str], names: list[str]) -> str:
    """Return the digest of the containers and of the files of motions."""
    chunks = (names[first : first + CHUNK] for first in range(0, len(names), CHUNK))
    return _combined(split, containers, [_chunk_digest(split, chunk) for chunk in chunks])


def _combined(split: Split, containers: list[str], digests: list[str]) -> str:
    about = [VERSION, split.layout.title, [_status(split.motions / name, split.path) for name in containers], digests]
    return hashlib.sha256(json.dumps(about).encode()).hexdigest()


def _chunk_digest(split: Split, names: list[str]) -> str:
    """Return the digest of names and of size and modification time of their motion and caption files."""
    digest, folders = hashlib.sha256(), [(str(split.motions), "npy"), (str(split.texts), "txt")]
    for name in names:
        for folder, suffix in folders[: 1 + split.has_captions]:
            try:
                status = os.stat(f"{folder}/{name}.{suffix}")  # a Path per file would be slow for many files
                digest.update(f"{name} {status.st_size} {status.st_mtime_ns}\n".encode())
            except OSError:
                digest.update(f"{name} -\n".encode())
    return digest.hexdigest()


# --- Building


def write_index(file: Path, split: Split, motions: Motions, scanned: Iterable[Scanned]) -> None:
    """Write the index of a split, atomically.

    Args:
        file: File to write.
        split: The split.
        motions: Its motions.
        scanned: Clips of consecutive ranges of the motions; read after the times of the files have been taken, so that
            a change during the scan is noticed later.

    Raises:
        InputError: the data set is only half of one, or the file cannot be written.
    """
    folders = _folders(split, motions.names)
    stamp = _stamp(split, folders, motions.containers)
    parts = list(scanned)
    left_out: Counter = sum((part.left_out for part in parts), Counter())
    _check_halves(split, len(motions.names), left_out)
    about = {
        "version": VERSION,
        "layout": split.layout.title,
        "stamp": stamp,
        "folders": folders,
        "containers": motions.containers,
        "names": motions.names if len(motions.names) <= EXACT else [],
        "digest": _combined(split, motions.containers, [part.digest for part in parts]),
        "left_out": dict(left_out),
        "example": next((part.example for part in parts if part.example), ""),
    }
    table = pa.concat_tables([SCHEMA.empty_table(), *(part.table for part in parts)])
    table = table.replace_schema_metadata({ABOUT: json.dumps(about)})
    with atomic_write(file) as temporary, pa.ipc.new_stream(str(temporary), table.schema) as stream:
        stream.write_table(table)


def _check_halves(split: Split, count: int, left_out: Counter) -> None:
    """Raise InputError if a data set has texts without motions, or motions without texts."""
    present = count - left_out[NO_MOTION]
    if count and not present:
        raise InputError(
            f"{shown(split.listed_in or split.path, 180)} lists {count:,} motions, and none of them is in "
            f"{shown(split.motions, 180)}; add the motions or correct the list"
        )
    if count and split.has_captions and (left_out[NO_TEXT] == present or not split.texts.is_dir()):
        packed = split.path / f"{split.texts.name}.zip"
        advice = f"unzip {packed.name} there" if packed.is_file() else "add NAME.txt for each motion NAME"
        raise InputError(f"{shown(split.texts, 180)} holds the captions of none of the {present:,} motions; {advice}")


def _folders(split: Split, names: list[str]) -> list[str]:
    """Return the folders, relative to the data folder, that hold the files of motions."""
    roots = [split.layout.motion_folder(split.name)]
    roots += [split.layout.text_folder(split.name)] if split.has_captions else []
    inner = {PurePosixPath(folder) for folder in {name.rpartition("/")[0] for name in names} if is_inside(folder)}
    inner |= {parent for folder in inner for parent in folder.parents} | {PurePosixPath()}
    return sorted(str(root / folder) for root in map(PurePosixPath, roots) for folder in inner)


def _scan_all(split: Split, motions: Motions) -> Iterator[Scanned]:
    """Yield the results of consecutive ranges of motions; many motions are scanned by several processes."""
    items = [(name, motions.places.get(name, Place())) for name in motions.names]
    chunks = [items[first : first + CHUNK] for first in range(0, len(items), CHUNK)]
    scan = partial(_scan, split, motions.containers)
    with tqdm(desc=f"indexing {split.name}", unit="clip", total=len(items), delay=2) as progress:
        if len(items) < POOLED:
            for chunk in chunks:
                yield scan(chunk)
                progress.update(len(chunk))
            return
        with worker_pool(min(os.cpu_count() or 1, len(chunks))) as pool:
            for job, chunk in [(pool.submit(scan, chunk), chunk) for chunk in chunks]:
                try:
                    yield job.result()
                except WorkerDied as error:
                    raise InputError(f"indexing {split.path} failed: {error}") from error
                progress.update(len(chunk))


def _scan(split: Split, containers: list[str], items: list[tuple[str, Place]]) -> Scanned:
    """Read the headers and the captions of motions."""
    digest = _chunk_digest(split, [name for name, _ in items])  # before the files are read: a change is noticed later
    files, left_out, example = FeatureFiles(split.motions, containers), Counter[str](), ""
    columns: list[list] = [[] for _ in SCHEMA]
    for name, place in items:
        try:
            if not is_inside(name):
                raise InputError(f"{shown(name)} cannot be the name of a motion; remove it from {split.listed_in}")
            for clip in clips_of_motion(split, files, name, place, left_out):
                for column, value in zip(columns, clip, strict=True):
                    column.append(value)
        except InputError as error:
            if split.layout.strict:
                raise
            left_out["that cannot be read"] += 1
            example = example or str(error)
    arrays = [pa.array(column, kind) for column, kind in zip(columns, SCHEMA.types, strict=True)]
    return Scanned(pa.table(arrays, SCHEMA), left_out, example, digest)
