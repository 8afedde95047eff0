"""Motion tokens and captions, for training the generator: one Arrow data set a split, made once a tokenizer."""

import hashlib
import json
import os
import random
import shutil
from pathlib import Path

import datasets
import numpy as np
import torch
from torch.utils.data import Dataset
from tqdm import tqdm

from dataset.joined import join
from dataset.motion_folder import MotionFolder
from models.motion_vqvae import HumanVQVAE
from utils.checkpoint import fingerprint
from utils.errors import InputError

JOINED = 40  # tokens of another clip before a joined one, at most
ABOUT = "about.json"  # which tokenizer and which clips a token folder was made from


def tokenize(folder: MotionFolder, tokenizer_folder: Path, tokenizer: HumanVQVAE, split: str, joined: int = 0) -> Path:
    """Tokenize a split unless that has been done with this tokenizer for these clips; returns the token folder.

    A training clip is tokenized once for each of its first ``stride`` start frames (the same motion, cut into tokens
    differently) and ``joined`` times after a part of another clip. The folder lies in
    ``tokens/<fingerprint of the tokenizer>/<split>`` of the data folder.

    Raises:
        InputError: the split is missing, a clip of it cannot be read, none has a caption, or the folder is read-only.
    """
    ids, stride = folder.ids(split), tokenizer.config.stride
    about = {
        "tokenizer": fingerprint(tokenizer_folder),
        "codebook_size": tokenizer.codebook_size,
        "stride": stride,
        "joined": joined,
        "clips": _digest(folder, ids),
    }
    target = folder.path / "tokens" / about["tokenizer"] / split
    if (target / ABOUT).is_file() and json.loads((target / ABOUT).read_text()) == about:
        return target
    rows = {"id": [], "tokens": [], "captions": [], "context": []}  # context: tokens of another clip at the start
    for clip_id in tqdm(ids, desc=f"tokenizing {split}", unit="clip"):
        captions = folder.captions(clip_id)
        if not captions:
            continue  # HumanML3D has clips whose captions all describe parts
        clip = folder.motion(clip_id)
        encoded = [(tokens, 0) for tokens in _shifted_tokens(tokenizer, clip, stride if split == "train" else 1)]
        for number in range(joined if encoded else 0):
            choose = random.Random(f"{clip_id} {number}")
            before = _some_end(folder.motion(choose.choice(ids)), stride, choose)
            if before is not None:
                encoded.append((*_shifted_tokens(tokenizer, join(before, clip), 1), len(before) // stride))
        for tokens, context in encoded:
            for name, value in zip(rows, (clip_id, tokens, captions, context), strict=True):
                rows[name].append(value)
    if not rows["id"]:
        raise InputError(
            f"no clip of the split {split} of {folder.path} has a caption and {tokenizer.config.stride} frames; add one"
        )
    temporary = target.with_name(f".{split}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    datasets.disable_progress_bars()
    try:
        datasets.Dataset.from_dict(rows).save_to_disk(temporary)
        (temporary / ABOUT).write_text(json.dumps(about))
        shutil.rmtree(target, ignore_errors=True)
        os.replace(temporary, target)
    except OSError as error:
        raise InputError(f"cannot write the tokens to {target}: {error.strerror}; make the folder writable") from error
    return target


def _some_end(clip: np.ndarray, stride: int, choose: random.Random) -> np.ndarray | None:
    """The last frames of a clip, or of a beginning of it: as many as 1 to ``JOINED`` tokens stand for."""
    tokens = min(choose.randint(1, JOINED), len(clip) // stride)
    if not tokens:
        return None
    end = len(clip) if choose.random() < 0.5 else choose.randint(tokens * stride, len(clip))
    return clip[end - tokens * stride : end]


@torch.no_grad()
def _shifted_tokens(tokenizer: HumanVQVAE, clip: np.ndarray, shifts: int) -> list[list[int]]:
    """Tokens of a clip (T, 272) from each of its first ``shifts`` frames on, where a token fits."""
    motion = tokenizer.normalize(torch.from_numpy(clip).to(tokenizer.mean.device))
    starts = [motion[start:] for start in range(shifts) if len(motion) - start >= tokenizer.config.stride]
    if not starts:
        return []
    lengths = torch.tensor([len(start) for start in starts], device=motion.device)
    tokens = tokenizer.encode(torch.nn.utils.rnn.pad_sequence(starts, batch_first=True), lengths)
    counts = (lengths // tokenizer.config.stride).tolist()
    return [row[:count].tolist() for row, count in zip(tokens, counts, strict=True)]


def _digest(folder: MotionFolder, ids: list[str]) -> str:
    """A digest of the clips' names, sizes and times of change: another one means that the data was prepared anew."""
    digest = hashlib.sha256()
    for clip_id in ids:
        for file in (folder.motion_file(clip_id), folder.path / "texts" / f"{clip_id}.txt"):
            facts = file.stat() if file.exists() else None
            digest.update(f"{clip_id} {facts and (facts.st_size, facts.st_mtime_ns)}".encode())
    return digest.hexdigest()


class TokenDataset(Dataset):
    """Rows of a token folder, memory-mapped.

    An item is (caption, tokens (n,) int64, whole bool, context int): a caption of the clip, and its tokens, or
    ``max_tokens`` of them from a random start where the clip is longer (``whole`` is then False unless the end is
    inside). The first ``context`` tokens are of another clip; such a row is cut at its end only. Choices depend on the
    item number alone (see ``utils.training.EndlessBatches``).

    Raises:
        InputError: the tokens were made with another tokenizer than the one given.
    """

    def __init__(self, path: Path, tokenizer_folder: Path, max_tokens: int):
        about = json.loads((path / ABOUT).read_text())
        if about["tokenizer"] != fingerprint(tokenizer_folder):
            raise InputError(
                f"{path} was made with tokenizer {about['tokenizer']} and not with {tokenizer_folder} "
                f"({fingerprint(tokenizer_folder)}); remove that folder so that it is made again"
            )
        self.rows = datasets.load_from_disk(str(path))
        self.max_tokens = max_tokens
        self.lengths = [min(len(tokens), max_tokens) for tokens in self.rows["tokens"]]

    def __len__(self) -> int:
        return len(self.rows)

    def captions(self) -> set[str]:
        """All captions of the clips."""
        return {caption for captions in self.rows["captions"] for caption in captions}

    def __getitem__(self, number: int) -> tuple[str, torch.Tensor, bool, int]:
        row = self.rows[number % len(self.rows)]
        choose = random.Random(number)
        caption, tokens = choose.choice(row["captions"]), torch.tensor(row["tokens"])
        start = 0 if row["context"] else choose.randint(0, max(0, len(tokens) - self.max_tokens))
        end = start + self.max_tokens
        return row["id"], caption, tokens[start:end], end >= len(tokens), min(row["context"], self.max_tokens)


def collate(
    items: list[tuple[str, torch.Tensor, bool, int]], pad_id: int
) -> tuple[list[str], *tuple[torch.Tensor, ...]]:
    """Captions, tokens (B, N) filled up with ``pad_id`` on the right, whole (B,) bool and context (B,)."""
    ids, captions, tokens, whole, context = zip(*items, strict=True)
    padded = torch.nn.utils.rnn.pad_sequence(tokens, True, pad_id)
    return list(ids), list(captions), padded, torch.tensor(whole), torch.tensor(context)
