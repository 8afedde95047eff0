"""Tokenization of the clips of a split into the shards of a token folder (dataset/token_rows.py)."""

import hashlib
import math
import os
import random
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from tqdm import tqdm

from dataset.joined import join
from dataset.motion_folder import VECTORS, MotionFolder
from dataset.token_rows import TokenRow, prepare_folder, write_shard
from models.motion_vqvae import HumanVQVAE
from motion.resample import FPS
from utils.checkpoint import fingerprint
from utils.reading.files import refusal

MAX_SHARDS = 512  # per split
MIN_CLIPS = 256  # per shard
CLIPS_IN_MEMORY = 64
FRAMES_PER_BATCH = 16384  # padding counted
MAX_CONTEXT = 40  # tokens of another clip at the start of a joined one


class _Version(NamedTuple):
    """A motion that is tokenized for a clip: the clip from a start frame, or joined to a part of another clip."""

    clip_id: str
    motion: np.ndarray  # (T, 272)
    context: int  # tokens of the other clip at the start


class _Tokens(NamedTuple):
    """Tokens of a version."""

    tokens: np.ndarray  # (n,)
    context: int


def tokenize(
    folder: MotionFolder,
    tokenizer_folder: Path,
    tokenizer: HumanVQVAE,
    split: str,
    joined: int = 0,
    process: int = 0,
    processes: int = 1,
) -> Path:
    """Tokenize a split, unless this was done already with this tokenizer and these clips.

    A training clip is tokenized from each of its first ``stride`` frames (the same motion, cut into tokens
    differently) and ``joined`` times after a part of another clip. Each process makes the missing ones among its own
    shards. An interrupted run can be continued with any number of processes. When all processes have returned, the
    folder is complete.

    Args:
        folder: Data folder.
        tokenizer_folder: Folder of ``tokenizer``.
        tokenizer: Tokenizer, on the device that encodes.
        split: "train", "val" or "test".
        joined: Rows per training clip in which it follows a part of another clip.
        process: Number of this process.
        processes: Number of processes.

    Returns:
        The token folder.

    Raises:
        InputError: the split or the captions of a clip are missing, a clip cannot be read, or the token folder holds
            tokens of another tokenizer or cannot be written.
    """
    ids, stride = folder.ids(split), tokenizer.config.stride
    size = max(MIN_CLIPS, math.ceil(len(ids) / MAX_SHARDS))
    name = fingerprint(tokenizer_folder)
    about = {
        "tokenizer": name,
        "codebook_size": tokenizer.codebook_size,
        "stride": stride,
        "joined": joined,
        "clips": _digest(folder, ids),
        "shards": math.ceil(len(ids) / size),
    }
    path = folder.path / "tokens" / name / split
    shards = [
        (file, ids[number * size : (number + 1) * size]) for number, file in enumerate(prepare_folder(path, about))
    ]
    missing = [(file, clips) for file, clips in shards[process::processes] if not file.exists()]
    total = sum(len(clips) for _, clips in missing)
    source = _Versions(folder, ids, stride, stride if split == "train" else 1, joined)
    with tqdm(desc=f"tokenizing {split}", unit="clip", total=total, disable=not missing or process > 0) as progress:
        for file, clips in missing:
            rows, left_out = _shard_rows(source, tokenizer, clips, progress)
            write_shard(file, rows, tokenizer.codebook_size, left_out)
    return path


@torch.no_grad()
def encode_all(tokenizer: HumanVQVAE, motions: list[np.ndarray]) -> list[np.ndarray]:
    """Encode motions (T, 272) into their tokens (n,); motions of similar length share a batch."""
    stride, device = tokenizer.config.stride, tokenizer.mean.device
    waiting = sorted(range(len(motions)), key=lambda index: len(motions[index]))
    encoded = [np.empty(0, np.int64)] * len(motions)
    while waiting:
        count = max(1, FRAMES_PER_BATCH // len(motions[waiting[-1]]))  # longest motions first
        batch, waiting = waiting[-count:], waiting[:-count]
        lengths = torch.tensor([len(motions[index]) for index in batch], device=device)  # (B,)
        padded = torch.nn.utils.rnn.pad_sequence(  # (B, T, 272)
            [torch.from_numpy(motions[index]) for index in batch], batch_first=True
        )
        tokens = tokenizer.encode(tokenizer.normalize(padded.to(device)), lengths).cpu().numpy()  # (B, N)
        for index, row in zip(batch, tokens, strict=True):
            encoded[index] = row[: len(motions[index]) // stride]
    return encoded


class _Versions:
    """The versions of each clip of a split that are tokenized.

    Args:
        ids: All clips of the split, of which parts are joined before a clip.
        stride: Frames per token.
        shifts: Number of start frames per clip.
        joined: Number of parts of other clips per clip.
    """

    def __init__(self, folder: MotionFolder, ids: list[str], stride: int, shifts: int, joined: int):
        self.folder, self.ids, self.stride, self.shifts, self.joined = folder, ids, stride, shifts, joined

    def of(self, clip_id: str) -> Iterator[_Version]:
        """Yield the clip from each start frame, then joined to parts of other clips; nothing if it has no token."""
        clip = self.folder.motion(clip_id)
        if len(clip) < self.stride:
            return
        for shift in range(self.shifts):
            if len(clip) - shift >= self.stride:
                yield _Version(clip_id, clip[shift:], context=0)
        for number in range(self.joined):
            choose = random.Random(f"{clip_id} {number}")
            before = self._random_part(self.folder.motion(choose.choice(self.ids)), choose)
            if before is not None:
                yield _Version(clip_id, join(before, clip), context=len(before) // self.stride)

    def _random_part(self, clip: np.ndarray, choose: random.Random) -> np.ndarray | None:
        """Frames of 1 to ``MAX_CONTEXT`` tokens of a clip (T, 272), half of the time those at its end."""
        tokens = min(choose.randint(1, MAX_CONTEXT), len(clip) // self.stride)
        if not tokens:
            return None
        end = len(clip) if choose.random() < 0.5 else choose.randint(tokens * self.stride, len(clip))
        return clip[end - tokens * self.stride : end]


def _shard_rows(
    source: _Versions, tokenizer: HumanVQVAE, clips: list[str], progress: tqdm
) -> tuple[list[TokenRow], Counter]:
    """Return the rows of the clips of a shard, in order, and the number of clips and parts of clips without a row."""
    captions = {clip_id: source.folder.spans(clip_id) for clip_id in clips}
    by_size = sorted(clips, key=lambda clip_id: source.folder.motion_file(clip_id).stat().st_size)
    rows: dict[str, list[TokenRow]] = {}
    left_out: Counter = Counter()
    for start in range(0, len(by_size), CLIPS_IN_MEMORY):
        group = [clip_id for clip_id in by_size[start : start + CLIPS_IN_MEMORY] if captions[clip_id]]
        versions = [version for clip_id in group for version in source.of(clip_id)]
        encoded: dict[str, list[_Tokens]] = {clip_id: [] for clip_id in group}
        tokens = encode_all(tokenizer, [version.motion for version in versions])
        for version, of_version in zip(versions, tokens, strict=True):
            encoded[version.clip_id].append(_Tokens(of_version, version.context))
        for clip_id in group:
            rows[clip_id], empty = _clip_rows(clip_id, encoded[clip_id], captions[clip_id], source.stride)
            left_out["parts"] += empty
        progress.update(len(by_size[start : start + CLIPS_IN_MEMORY]))
    left_out["clips"] = sum(not rows.get(clip_id) for clip_id in clips)
    return [row for clip_id in clips for row in rows.get(clip_id, ())], left_out


def _clip_rows(
    clip_id: str,
    encoded: list[_Tokens],
    captions: dict[tuple[float, float] | None, list[str]],
    stride: int,
) -> tuple[list[TokenRow], int]:
    """Return the rows of a clip, and the number of its described parts that hold no token.

    Args:
        captions: Captions by the seconds they describe (see ``MotionFolder.spans``).
    """
    rows, empty = [], 0
    for span, texts in captions.items():
        if span is None:
            rows += [TokenRow(clip_id, tokens, texts, context) for tokens, context in encoded]
            continue
        first, last = (max(0, int(second * FPS / stride + 1e-6)) for second in span)  # 1e-6: 2.8 * 30 is below 84
        parts = [tokens[first:last] for tokens, context in encoded if not context]
        rows += [TokenRow(clip_id, part, texts) for part in parts if len(part)]
        empty += not any(map(len, parts))
    return rows, empty


def _digest(folder: MotionFolder, ids: list[str]) -> str:
    """Digest of the names, sizes and modification times of the files of the clips; changes if the data changed."""
    digest, vectors, texts = hashlib.sha256(), folder.path / VECTORS, folder.path / "texts"
    try:
        for clip_id in ids:
            for file in (f"{vectors}/{clip_id}.npy", f"{texts}/{clip_id}.txt"):
                status = os.stat(file)
                digest.update(f"{clip_id} {status.st_size} {status.st_mtime_ns}".encode())
    except FileNotFoundError as error:
        folder.spans(clip_id)  # raises InputError if the captions are missing
        raise refusal(folder.motion_file(clip_id), "the file is missing", "prepare the data again") from error
    return digest.hexdigest()
