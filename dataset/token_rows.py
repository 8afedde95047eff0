"""Token folders: motion tokens and captions for the training of the generator, in memory-mapped Arrow files.

tokens/<fingerprint of the tokenizer>/<split>/ of the data folder holds
    about.json               tokenizer and clips that the tokens were made from, and the number of shards
    <digest>-<number>.arrow  one shard: the rows of a fixed range of clips; <digest> is the digest of about.json

A row is a motion with its captions: a whole clip, or the part of a clip that captions with times describe. Its columns
are id, tokens (in the smallest integer type that holds the codebook), length, captions, and context (the number of
tokens at its start that belong to another clip).

The first half of this file writes the folder (for dataset/tokenizing.py), the second half reads it.
"""

import hashlib
import json
import random
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute
import torch
from torch.utils.data import Dataset

from utils.checkpoint import fingerprint
from utils.errors import InputError, shown
from utils.files import atomic_write
from utils.reading.files import MB, open_regular
from utils.reading.texts import parse_json

ABOUT = "about.json"
ABOUT_KINDS = {"tokenizer": str, "codebook_size": int, "stride": int, "joined": int, "clips": str, "shards": int}
MAX_SHARDS, MAX_CODES = 10_000, 2**32
LEFT_OUT = b"left_out"  # key in the schema of a shard: number of clips and of parts of clips without a row
UNFINISHED = 3600  # seconds before a temporary file is considered abandoned


class TokenRow(NamedTuple):
    """A stored row: a motion and all its captions. The first ``context`` tokens belong to another clip."""

    id: str
    tokens: np.ndarray  # (n,) integers
    captions: list[str]
    context: int = 0


class TokenItem(NamedTuple):
    """A training item: a row, possibly cut, with one of its captions."""

    id: str
    caption: str
    tokens: torch.Tensor  # (n,) int64
    is_whole: bool  # whether the tokens reach the end of the motion
    context: int


class TokenBatch(NamedTuple):
    """Collated items."""

    ids: list[str]
    captions: list[str]
    tokens: torch.Tensor  # (B, N) int64, padded on the right
    is_whole: torch.Tensor  # (B,) bool
    context: torch.Tensor  # (B,) int64


# --- Writing


def prepare_folder(path: Path, about: dict) -> list[Path]:
    """Write about.json of a token folder and remove files that do not belong to it.

    Args:
        path: Token folder; created if missing.
        about: Content of about.json.

    Returns:
        Path of each shard, whether or not it exists.

    Raises:
        InputError: the folder holds tokens of another tokenizer, or cannot be written.
    """
    existing = read_about(path) if (path / ABOUT).exists() else about
    _check_tokenizer(path, existing, about)
    if existing != about or not (path / ABOUT).exists():
        with atomic_write(path / ABOUT) as file:
            file.write_text(json.dumps(about))
    files = shard_files(path, about)
    kept = {ABOUT, *(file.name for file in files)}
    for file in path.iterdir():
        with suppress(OSError):  # another process removed it first, or this process has no permission
            unfinished = file.name.startswith(".") and time.time() - file.stat().st_mtime < UNFINISHED
            if file.name not in kept and not unfinished:
                file.unlink()
    return files


def write_shard(file: Path, rows: list[TokenRow], codebook_size: int, left_out: Counter) -> None:
    """Write the rows of a shard as one Arrow stream, atomically."""
    lengths = [len(row.tokens) for row in rows]
    tokens = np.concatenate([row.tokens for row in rows]) if rows else np.zeros(0)
    schema = _schema(codebook_size)
    columns = [
        [row.id for row in rows],
        pa.ListArray.from_arrays(
            pa.array(np.cumsum([0, *lengths]), pa.int32()),
            pa.array(tokens, schema.field("tokens").type.value_type),
        ),
        lengths,
        [row.captions for row in rows],
        [row.context for row in rows],
    ]
    arrays = [pa.array(column, kind) for column, kind in zip(columns, schema.types, strict=True)]
    table = pa.table(arrays, schema.with_metadata({LEFT_OUT: json.dumps(left_out)}))
    with atomic_write(file) as temporary, pa.ipc.new_stream(str(temporary), table.schema) as stream:
        stream.write_table(table)


def _schema(codebook_size: int) -> pa.Schema:
    """Return the columns of a shard; tokens are of the smallest type that holds the codebook."""
    token = pa.from_numpy_dtype(np.min_scalar_type(codebook_size - 1))
    return pa.schema({"id": pa.string(), "tokens": pa.list_(token), "length": pa.int32(),
                      "captions": pa.list_(pa.string()), "context": pa.int32()})  # fmt: skip


def read_about(path: Path) -> dict:
    """Read about.json of a token folder.

    Raises:
        InputError: the file is missing or damaged.
    """
    advice = f"remove {shown(path.name, 40)} in {shown(path.parent.name, 40)}"
    with open_regular(path / ABOUT, "the description of tokens", MB, advice) as file:
        about = parse_json(file.read())
        for name, kind in ABOUT_KINDS.items():
            if type(about[name]) is not kind:
                raise InputError(f"it holds the {name} {shown(about[name], 40)}")
        if not (0 < about["shards"] <= MAX_SHARDS and 0 < about["codebook_size"] <= MAX_CODES):
            raise InputError("its shards or codebook_size are out of range")
        return about


def shard_files(path: Path, about: dict) -> list[Path]:
    """Return the path of each shard of a token folder."""
    digest = hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:10]
    return [path / f"{digest}-{number:05d}.arrow" for number in range(about["shards"])]


def _check_tokenizer(path: Path, about: dict, expected: dict) -> None:
    """Raise InputError if a token folder was made by a tokenizer other than the expected one."""
    for name in ("tokenizer", "codebook_size"):
        if name in expected and about[name] != expected[name]:
            raise InputError(
                f"{path} was made with {name} {shown(about[name], 40)}, not with {expected[name]}; "
                "remove that folder so that it is made again"
            )


# --- Reading


class TokenDataset(Dataset):
    """Rows of a token folder, memory-mapped; the items are of type ``TokenItem``.

    The caption of an item is drawn from those of its row. With ``cut_longer``, a row of more than ``max_tokens`` gives
    ``max_tokens`` tokens from a random start; rows with context are cut only at their end. All choices depend only on
    the item number (see ``dataset/batches.py``).

    Args:
        path: Token folder.
        tokenizer_folder: Folder of the tokenizer that made the tokens.
        max_tokens: Largest number of tokens of an item.
        cut_longer: Cut longer rows instead of refusing them.
        token_drop: Share of the items that lose their first or last token, as in T2M-GPT (1/3 there): the motion begins
            later or ends earlier. Items with context lose nothing.

    Attributes:
        table: Rows of all shards, with the columns of the folder; a copy for another process maps the files again.
        left_out: Number of "clips" and of "parts" of clips without a row.

    Raises:
        InputError: the tokens were made by another tokenizer, are incomplete or damaged, there are none, or a row is
            too long.
    """

    def __init__(
        self, path: Path, tokenizer_folder: Path, max_tokens: int, cut_longer: bool = False, token_drop: float = 0.0
    ):
        about = read_about(path)
        _check_tokenizer(path, about, {"tokenizer": fingerprint(tokenizer_folder)})
        files = shard_files(path, about)
        missing = sum(not file.exists() for file in files)
        if missing:
            raise InputError(f"{missing} of the {len(files)} files of {path} are missing; tokenize the split again")
        self.files = files
        self.left_out: Counter = sum((_check_shard(file, about["codebook_size"]) for file in files), Counter())
        self.table = _map_shards(files)
        self.max_tokens, self.token_drop = max_tokens, token_drop
        if not len(self):
            raise InputError(
                f"no clip of the split {path.name} of {path.parents[2]} has a caption and {about['stride']} frames; "
                "add one"
            )
        lengths = self.table["length"].to_numpy()
        longest = int(lengths.argmax())
        if lengths[longest] > max_tokens and not cut_longer:
            raise InputError(
                f"clip {self.table['id'][longest]} of the split {path.name} has {lengths[longest]} tokens and "
                f"--model.max-tokens is {max_tokens}; set --model.max-tokens to {lengths[longest]} or more, or give "
                "--cut-longer to cut longer clips at random places"
            )

    def __len__(self) -> int:
        return len(self.table)

    @property
    def lengths(self) -> np.ndarray:
        """Largest number of tokens that an item of each row can have, (rows,)."""
        return np.minimum(self.table["length"].to_numpy(), self.max_tokens)

    def captions(self) -> set[str]:
        """Return the distinct captions of all rows."""
        return set(pa.compute.unique(pa.compute.list_flatten(self.table["captions"])).to_pylist())

    def some_captions(self, rows: int) -> set[str]:
        """Return the distinct captions of a random choice of ``rows`` rows, the same one on every call."""
        chosen = sorted(random.Random(0).sample(range(len(self)), min(rows, len(self))))
        return set(pa.compute.list_flatten(self.table["captions"].take(chosen)).to_pylist())

    def __getitem__(self, number: int) -> TokenItem:
        row = number % len(self)
        clip_id, tokens, captions, context = (self.table[name][row] for name in ("id", "tokens", "captions", "context"))
        choose = random.Random(number)
        caption, context = choose.choice(captions).as_py(), context.as_py()
        tokens = torch.from_numpy(tokens.values.to_numpy().astype(np.int64))
        if self.token_drop and not context and len(tokens) > 1 and choose.random() < self.token_drop:
            tokens = tokens[1:] if choose.random() < 0.5 else tokens[:-1]
        start = 0 if context else choose.randint(0, max(0, len(tokens) - self.max_tokens))
        end = start + self.max_tokens
        return TokenItem(clip_id.as_py(), caption, tokens[start:end], end >= len(tokens), min(context, self.max_tokens))

    def __getstate__(self) -> dict:
        return self.__dict__ | {"table": None}

    def __setstate__(self, state: dict) -> None:
        self.__dict__ |= state | {"table": _map_shards(state["files"])}


def collate(items: list[TokenItem], pad_id: int) -> TokenBatch:
    """Collate items into a batch; tokens are padded with ``pad_id`` on the right."""
    ids, captions, tokens, is_whole, context = zip(*items, strict=True)
    padded = torch.nn.utils.rnn.pad_sequence(list(tokens), True, pad_id)  # (B, N)
    return TokenBatch(list(ids), list(captions), padded, torch.tensor(is_whole), torch.tensor(context))


def _map_shards(files: list[Path]) -> pa.Table:
    """Map the rows of shards that ``_check_shard`` has passed."""
    return pa.concat_tables(pa.ipc.open_stream(pa.memory_map(str(file))).read_all() for file in files)


def _check_shard(file: Path, codebook_size: int) -> Counter:
    """Validate a shard; returns the numbers of clips and parts without a row."""
    advice = "it is damaged: remove it and tokenize the split again"
    with open_regular(file, "token rows", advice=advice), pa.memory_map(str(file)) as source:
        stream = pa.ipc.open_stream(source)
        metadata = stream.schema.metadata
        if set(metadata) != {LEFT_OUT} or stream.schema != _schema(codebook_size):
            raise InputError("it has other columns")
        for batch in stream:
            _check_rows(batch, codebook_size)
        return Counter({name: int(count) for name, count in parse_json(metadata[LEFT_OUT]).items()})


def _check_rows(batch: pa.RecordBatch, codebook_size: int) -> None:
    """Raise InputError if rows are damaged: Arrow itself compares no more than the last offset with the values."""
    batch.validate()
    ids, tokens, lengths, captions, context = batch.columns
    ends = [ids, tokens, captions, captions.values]
    offsets = [np.frombuffer(array.buffers()[1], np.int32)[array.offset :][: len(array) + 1] for array in ends]
    numbers = lengths.to_numpy(), context.to_numpy()
    if (
        any(array.null_count for array in (*batch.columns, tokens.values, captions.values))
        or any((np.diff(each) < 0).any() for each in offsets)
        or (np.diff(offsets[1]) != numbers[0]).any()
        or (np.diff(offsets[2]) < 1).any()
        or (numbers[0] < 1).any()
        or (numbers[1] < 0).any()
        or tokens.values.to_numpy().max(initial=0) >= codebook_size
    ):
        raise InputError("its rows contradict one another")
