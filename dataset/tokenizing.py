"""Tokenize the clips of a split into the shards of a token folder (dataset/token_rows.py)."""

import hashlib
import math
import os
import random
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from dataset.joined import join
from dataset.motion_folder import VECTORS, MotionFolder
from dataset.token_rows import TokenRow, prepare_folder, write_shard
from models.motion_vqvae import HumanVQVAE
from motion.resample import FPS
from utils.checkpoint import fingerprint

JOINED = 40  # tokens of another clip before a joined one, at most


SHARDS, CLIPS = 512, 256  # shards a split at most, and clips a shard at least


GROUP = 64  # clips that are held at once while they are tokenized


FRAMES = 16384  # frames that go through the tokenizer at once, padding counted


def tokenize(
    folder: MotionFolder,
    tokenizer_folder: Path,
    tokenizer: HumanVQVAE,
    split: str,
    joined: int = 0,
    process: int = 0,
    processes: int = 1,
) -> Path:
    """Tokenize a split where that has not been done with this tokenizer for these clips; returns the token folder.

    A training clip is tokenized once for each of its first ``stride`` start frames (the same motion, cut into tokens
    differently) and ``joined`` times after a part of another clip. The clips are cut into shards, of which a process
    makes those that are its own and missing; killed and started again, with any number of processes, the work goes on
    with the missing ones. When all processes have returned, the folder is whole.

    Raises:
        InputError: the split or the captions of a clip are missing, a clip cannot be read, the tokens in the folder
            are another tokenizer's, or it is read-only.
    """
    ids, stride = folder.ids(split), tokenizer.config.stride
    size = max(CLIPS, math.ceil(len(ids) / SHARDS))
    about = {
        "tokenizer": fingerprint(tokenizer_folder),
        "codebook_size": tokenizer.codebook_size,
        "stride": stride,
        "joined": joined,
        "clips": _digest(folder, ids),
        "shards": math.ceil(len(ids) / size),
    }
    path = folder.path / "tokens" / about["tokenizer"] / split
    shards = [
        (file, ids[number * size : (number + 1) * size]) for number, file in enumerate(prepare_folder(path, about))
    ]
    missing = [(file, clips) for file, clips in shards[process::processes] if not file.exists()]
    total = sum(len(clips) for _, clips in missing)
    shifts = stride if split == "train" else 1
    with tqdm(desc=f"tokenizing {split}", unit="clip", total=total, disable=not missing or process > 0) as progress:
        for file, clips in missing:
            rows, left_out = _rows_of(folder, tokenizer, clips, ids, shifts, joined, progress)
            write_shard(file, rows, tokenizer.codebook_size, left_out)
    return path


def _rows_of(
    folder: MotionFolder,
    tokenizer: HumanVQVAE,
    clips: list[str],
    ids: list[str],
    shifts: int,
    joined: int,
    progress: tqdm,
) -> tuple[list[TokenRow], Counter]:
    """The rows of a shard's clips in their order, and how many clips and parts of clips gave none."""
    captions = {clip_id: folder.spans(clip_id) for clip_id in clips}
    by_size = sorted(clips, key=lambda clip_id: folder.motion_file(clip_id).stat().st_size)
    rows, left_out = {}, Counter()
    for start in range(0, len(by_size), GROUP):
        group = [clip_id for clip_id in by_size[start : start + GROUP] if captions[clip_id]]
        motions, places = [], []  # place: (clip id, tokens of another clip at the start)
        for clip_id in group:
            clip = folder.motion(clip_id)
            shifted = [clip[shift:] for shift in range(shifts) if len(clip) - shift >= tokenizer.config.stride]
            motions += shifted
            places += [(clip_id, 0)] * len(shifted)
            for before in _befores(folder, clip_id, ids, tokenizer.config.stride, joined if shifted else 0):
                motions.append(join(before, clip))
                places.append((clip_id, len(before) // tokenizer.config.stride))
        encoded = {clip_id: [] for clip_id in group}
        for (clip_id, context), tokens in zip(places, encode_all(tokenizer, motions), strict=True):
            encoded[clip_id].append((tokens, context))
        for clip_id in group:
            rows[clip_id], parts = _with_captions(clip_id, encoded[clip_id], captions[clip_id], tokenizer.config.stride)
            left_out["parts"] += parts
        progress.update(len(by_size[start : start + GROUP]))
    left_out["clips"] = sum(not rows.get(clip_id) for clip_id in clips)
    return [row for clip_id in clips for row in rows.get(clip_id, ())], left_out


def _befores(folder: MotionFolder, clip_id: str, ids: list[str], stride: int, joined: int) -> Iterator[np.ndarray]:
    """Parts of other clips (T, 272) that a clip is to follow."""
    for number in range(joined):
        choose = random.Random(f"{clip_id} {number}")
        before = _some_end(folder.motion(choose.choice(ids)), stride, choose)
        if before is not None:
            yield before


def _some_end(clip: np.ndarray, stride: int, choose: random.Random) -> np.ndarray | None:
    """The last frames of a clip, or of a beginning of it: as many as 1 to ``JOINED`` tokens stand for."""
    tokens = min(choose.randint(1, JOINED), len(clip) // stride)
    if not tokens:
        return None
    end = len(clip) if choose.random() < 0.5 else choose.randint(tokens * stride, len(clip))
    return clip[end - tokens * stride : end]


@torch.no_grad()
def encode_all(tokenizer: HumanVQVAE, motions: list[np.ndarray]) -> list[np.ndarray]:
    """Tokens (n,) of each motion (T, 272): those of like length go through the tokenizer together."""
    stride, device = tokenizer.config.stride, tokenizer.mean.device
    waiting = sorted(range(len(motions)), key=lambda index: len(motions[index]))
    encoded = [None] * len(motions)
    while waiting:
        count = max(1, FRAMES // len(motions[waiting[-1]]))  # the longest come first
        batch, waiting = waiting[-count:], waiting[:-count]
        lengths = torch.tensor([len(motions[index]) for index in batch], device=device)
        padded = torch.nn.utils.rnn.pad_sequence([torch.from_numpy(motions[index]) for index in batch], True)
        tokens = tokenizer.encode(tokenizer.normalize(padded.to(device)), lengths).cpu().numpy()
        for index, row in zip(batch, tokens, strict=True):
            encoded[index] = row[: len(motions[index]) // stride]
    return encoded


def _with_captions(
    clip_id: str,
    encoded: list[tuple[np.ndarray, int]],
    captions: dict[tuple[float, float] | None, list[str]],
    stride: int,
) -> tuple[list[TokenRow], int]:
    """Rows of a clip, and the number of its described parts that hold no token.

    Args:
        encoded: tokens from each start frame, with 0; then those after another clip, with the tokens of that one.
        captions: by the seconds they describe (see ``MotionFolder.spans``).
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
    """A digest of the clips' names, sizes and times of change: another one means that the data was prepared anew."""
    digest, vectors, texts = hashlib.sha256(), folder.path / VECTORS, folder.path / "texts"
    try:
        for clip_id in ids:
            for file in (f"{vectors}/{clip_id}.npy", f"{texts}/{clip_id}.txt"):
                facts = os.stat(file)
                digest.update(f"{clip_id} {facts.st_size} {facts.st_mtime_ns}".encode())
    except FileNotFoundError:
        folder.spans(clip_id)  # says that the captions are missing
        raise
    return digest.hexdigest()
