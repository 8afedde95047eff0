"""Motion tokens and captions, for training the generator: memory-mapped Arrow files, made once a tokenizer.

tokens/<fingerprint of the tokenizer>/<split>/ of the data folder holds
    about.json              the tokenizer and the clips that the tokens were made from, and the number of files
    <digest>-<number>.arrow the rows of a fixed range of clips, one file a shard; the digest is that of about.json

A row is a motion with its captions: a whole clip, or the part of one that captions with times describe. Its columns are
id, tokens (in the smallest integer type that holds the codebook), length, captions, and context: how many tokens of
another clip are at its start.
"""

import hashlib
import json
import random
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.compute
import torch
from torch.utils.data import Dataset

from utils.checkpoint import fingerprint
from utils.errors import InputError
from utils.files import atomic_write

ABOUT = "about.json"
LEFT_OUT = b"left_out"  # in a file's schema: how many clips and parts of clips gave no row


class TokenRow(NamedTuple):
    """A motion and its captions; the first ``context`` tokens are of another clip."""

    id: str
    tokens: np.ndarray  # (n,) integers
    captions: list[str]
    context: int = 0


def prepare_folder(path: Path, about: dict) -> list[Path]:
    """Make a token folder ready for the shards of ``about``, and remove what is of others; returns the shards' files.

    Raises:
        InputError: the tokens in the folder are another tokenizer's, or it cannot be written.
    """
    made = read_about(path) if (path / ABOUT).exists() else about
    _check_tokenizer(path, made, about)
    if made != about or not (path / ABOUT).exists():
        with atomic_write(path / ABOUT) as file:
            file.write_text(json.dumps(about))
    files = shard_files(path, about)
    kept = {ABOUT, *(file.name for file in files)}
    for file in path.iterdir():
        with suppress(OSError):  # another process was faster, or may write here what this one may not
            unfinished = file.name.startswith(".") and time.time() - file.stat().st_mtime < 3600
            if file.name not in kept and not unfinished:
                file.unlink()
    return files


def read_about(path: Path) -> dict:
    """What about.json of a token folder says."""
    try:
        return json.loads((path / ABOUT).read_text())
    except (OSError, ValueError) as error:
        raise InputError(f"{path / ABOUT} is missing or damaged; remove {path} so that it is made again") from error


def shard_files(path: Path, about: dict) -> list[Path]:
    """The files of the shards that a token folder consists of."""
    digest = hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:10]
    return [path / f"{digest}-{number:05d}.arrow" for number in range(about["shards"])]


def write_shard(file: Path, rows: list[TokenRow], codebook_size: int, left_out: Counter) -> None:
    """Write the rows of a shard as one Arrow stream; the file is there whole or not at all."""
    lengths = [len(row.tokens) for row in rows]
    tokens = np.concatenate([row.tokens for row in rows]) if rows else np.zeros(0)
    tokens = pa.array(tokens.astype(np.min_scalar_type(codebook_size - 1)))
    offsets = pa.array(np.cumsum([0, *lengths]), pa.int32())
    columns = {
        "id": pa.array([row.id for row in rows], pa.string()),
        "tokens": pa.ListArray.from_arrays(offsets, tokens),
        "length": pa.array(lengths, pa.int32()),
        "captions": pa.array([row.captions for row in rows], pa.list_(pa.string())),
        "context": pa.array([row.context for row in rows], pa.int32()),
    }
    table = pa.table(columns).replace_schema_metadata({LEFT_OUT: json.dumps(left_out)})
    with atomic_write(file) as temporary, pa.ipc.new_stream(str(temporary), table.schema) as stream:
        stream.write_table(table)


def _check_tokenizer(path: Path, made: dict, expected: dict) -> None:
    for name in ("tokenizer", "codebook_size"):
        if name in expected and made.get(name) != expected[name]:
            raise InputError(
                f"{path} was made with {name} {made.get(name)} and not with {expected[name]}; "
                "remove that folder so that it is made again"
            )


class TokenDataset(Dataset):
    """Rows of a token folder, memory-mapped.

    An item is (clip id, caption, tokens (n,) int64, whole bool, context int): a caption of the row, and its tokens.
    With ``cut_longer``, rows of more than ``max_tokens`` give so many from a random start (``whole`` is False unless
    the end is inside); those with ``context`` are cut at their end only. Choices depend on the item number alone (see
    ``dataset.batches.EndlessBatches``). ``left_out`` counts the "clips" and "parts" of clips that gave no row.

    Args:
        token_drop: share of the items that lose their first or their last token, as T2M-GPT has it (there: 1/3); the
            motion then begins later, or ends earlier. Not those with context.

    Raises:
        InputError: the tokens are another tokenizer's, incomplete or damaged, there are none, or a row is too long.
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
        shards, left_out = zip(*map(_open, files), strict=True)
        self.rows, self.left_out = datasets.concatenate_datasets(shards), sum(left_out, Counter())
        self.max_tokens, self.token_drop = max_tokens, token_drop
        if not len(self.rows):
            raise InputError(
                f"no clip of the split {path.name} of {path.parents[2]} has a caption and {about['stride']} frames; "
                "add one"
            )
        lengths = self.rows.data.column("length").to_numpy()
        longest = int(lengths.argmax())
        if lengths[longest] > max_tokens and not cut_longer:
            raise InputError(
                f"clip {self.rows[longest]['id']} of the split {path.name} has {lengths[longest]} tokens and "
                f"model.max_tokens is {max_tokens}; set model.max_tokens to {lengths[longest]} or more, or "
                "cut_longer: true to cut longer ones at random places"
            )

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def lengths(self) -> np.ndarray:
        """The most tokens that each row gives, (rows,)."""
        return np.minimum(self.rows.data.column("length").to_numpy(), self.max_tokens)

    def captions(self) -> set[str]:
        """All captions of the rows."""
        return set(pa.compute.unique(pa.compute.list_flatten(self.rows.data.column("captions"))).to_pylist())

    def __getitem__(self, number: int) -> tuple[str, str, torch.Tensor, bool, int]:
        row = number % len(self.rows)
        clip_id, tokens, captions, context = (  # many times faster than self.rows[row]
            self.rows.data.column(name)[row] for name in ("id", "tokens", "captions", "context")
        )
        choose = random.Random(number)
        caption, context = choose.choice(captions).as_py(), context.as_py()
        tokens = torch.from_numpy(tokens.values.to_numpy().astype(np.int64))
        if self.token_drop and not context and len(tokens) > 1 and choose.random() < self.token_drop:
            tokens = tokens[1:] if choose.random() < 0.5 else tokens[:-1]
        start = 0 if context else choose.randint(0, max(0, len(tokens) - self.max_tokens))
        end = start + self.max_tokens
        return clip_id.as_py(), caption, tokens[start:end], end >= len(tokens), min(context, self.max_tokens)


def _open(file: Path) -> tuple[datasets.Dataset, Counter]:
    """The rows of a shard, and what gave none."""
    try:
        with pa.memory_map(str(file)) as source:
            left_out = json.loads(pa.ipc.open_stream(source).schema.metadata[LEFT_OUT])
        return datasets.Dataset.from_file(str(file)), Counter(left_out)
    except (OSError, pa.ArrowException, KeyError, TypeError) as error:
        raise InputError(f"{file} is damaged; remove it and tokenize the split again") from error


def collate(
    items: list[tuple[str, str, torch.Tensor, bool, int]], pad_id: int
) -> tuple[list[str], list[str], *tuple[torch.Tensor, ...]]:
    """Clip ids, captions, tokens (B, N) filled up with ``pad_id`` on the right, whole (B,) bool and context (B,)."""
    ids, captions, tokens, whole, context = zip(*items, strict=True)
    padded = torch.nn.utils.rnn.pad_sequence(tokens, True, pad_id)
    return list(ids), list(captions), padded, torch.tensor(whole), torch.tensor(context)
