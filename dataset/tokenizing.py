"""Tokenization of the clips of a split into the shards of a token folder (dataset/token_rows.py)."""

import math
import random
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from tqdm import tqdm

from dataset.clips import Clips
from dataset.derived import derived_folder, derived_folders
from dataset.motion_folder import MotionFolder
from dataset.token_rows import TokenRow, prepare_folder, shard_files, write_shard
from models.motion_vqvae import HumanVQVAE
from motion.joined import join
from utils.checkpoint import fingerprint

MAX_SHARDS = 512  # per split
MIN_CLIPS = 256  # per shard
CLIPS_IN_MEMORY = 64
FRAMES_PER_BATCH = 16384  # padding counted
MAX_CONTEXT = 40  # tokens of another clip at the start of a joined one


class _Version(NamedTuple):
    """A motion that is tokenized for a clip: the clip from a start frame, or joined to a part of another clip."""

    row: int  # number of the clip
    motion: np.ndarray  # (T, 272)
    context: int  # tokens at the start that belong to the other clip or to an earlier action


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

    A part of a motion that captions describe is a clip of its own and is tokenized as such: its first token depends on
    no frame before it, as in generation. A training clip is tokenized from each of its first ``stride`` frames (the
    same motion, cut into tokens differently) and ``joined`` times after a part of another clip. Each process makes the
    missing ones among its own shards. An interrupted run can be continued with any number of processes. When all
    processes have returned, the folder is complete.

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
    clips, stride = folder.clips(split), tokenizer.config.stride
    size = max(MIN_CLIPS, math.ceil(len(clips) / MAX_SHARDS))
    name = fingerprint(tokenizer_folder)
    about = {
        "tokenizer": name,
        "codebook_size": tokenizer.codebook_size,
        "stride": stride,
        "joined": joined,
        "clips": clips.digest,
        "shards": math.ceil(len(clips) / size),
    }
    paths = [tokens / name / split for tokens in derived_folders(folder.path, "tokens")]
    complete = (path for path in paths if all(file.exists() for file in shard_files(path, about)))
    path = next(complete, derived_folder(folder.path, "tokens") / name / split)
    shards = [
        (file, range(number * size, min((number + 1) * size, len(clips))))
        for number, file in enumerate(prepare_folder(path, about))
    ]
    missing = [(file, rows) for file, rows in shards[process::processes] if not file.exists()]
    total = sum(len(rows) for _, rows in missing)
    source = _Versions(clips, stride, stride if split == "train" else 1, joined)
    with tqdm(desc=f"tokenizing {split}", unit="clip", total=total, disable=not missing or process > 0) as progress:
        for file, rows in missing:
            token_rows, left_out = _shard_rows(source, tokenizer, rows, progress)
            write_shard(file, token_rows, tokenizer.codebook_size, left_out)
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
        clips: Clips of the split, of which parts are joined before a clip.
        stride: Frames per token.
        shifts: Number of start frames per clip.
        joined: Number of parts of other clips per clip.
    """

    def __init__(self, clips: Clips, stride: int, shifts: int, joined: int):
        self.clips, self.stride, self.shifts, self.joined = clips, stride, shifts, joined

    def of(self, row: int) -> Iterator[_Version]:
        """Yield a clip from each start frame, then joined to parts of other clips.

        A clip that has no token or is damaged yields nothing. A clip that has an earlier action at its start is not
        joined to another one.
        """
        clip = self.clips[row]
        motion = self.clips.valid_features(clip)
        if motion is None:
            return
        for shift in range(self.shifts):
            context = max(0, clip.context - shift) // self.stride
            if (len(motion) - shift) // self.stride > context:
                yield _Version(row, motion[shift:], context)
        if clip.context or len(motion) < self.stride:
            return
        for number in range(self.joined):
            choose = random.Random(f"{clip.name} {number}")
            other = self.clips.valid_features(self.clips[choose.randrange(len(self.clips))])
            before = None if other is None else self._random_part(other, choose)
            if before is not None:
                yield _Version(row, join(before, motion), context=len(before) // self.stride)

    def _random_part(self, clip: np.ndarray, choose: random.Random) -> np.ndarray | None:
        """Frames of 1 to ``MAX_CONTEXT`` tokens of a clip (T, 272), half of the time those at its end."""
        tokens = min(choose.randint(1, MAX_CONTEXT), len(clip) // self.stride)
        if not tokens:
            return None
        end = len(clip) if choose.random() < 0.5 else choose.randint(tokens * self.stride, len(clip))
        return clip[end - tokens * self.stride : end]


def _shard_rows(
    source: _Versions, tokenizer: HumanVQVAE, rows: range, progress: tqdm
) -> tuple[list[TokenRow], Counter]:
    """Return the token rows of the clips of a shard, in order, and the number of clips without one."""
    clips = {row: source.clips[row] for row in rows}
    captions = {row: list(filter(None, clip.captions)) for row, clip in clips.items()}
    by_size = sorted((row for row in rows if captions[row]), key=lambda row: clips[row].frames)
    made: dict[int, list[TokenRow]] = {row: [] for row in rows}
    for start in range(0, len(by_size), CLIPS_IN_MEMORY):
        group = by_size[start : start + CLIPS_IN_MEMORY]
        versions = [version for row in group for version in source.of(row)]
        encoded = encode_all(tokenizer, [version.motion for version in versions])
        for (row, _, context), tokens in zip(versions, encoded, strict=True):
            made[row].append(TokenRow(clips[row].name, tokens, captions[row], context))
        progress.update(len(group))
    progress.update(len(rows) - len(by_size))
    left_out = Counter(clips=sum(not token_rows for token_rows in made.values()))
    return [token_row for token_rows in made.values() for token_row in token_rows], left_out
