"""Motion tokens and captions, for training the generator: one Arrow data set a split, made once a tokenizer."""

import hashlib
import json
import os
import random
import shutil
from pathlib import Path

import datasets
import torch
from torch.utils.data import Dataset
from tqdm import tqdm

from dataset.motion_folder import MotionFolder
from models.motion_vqvae import HumanVQVAE
from utils.checkpoint import fingerprint
from utils.errors import InputError

ABOUT = "about.json"  # which tokenizer and which clips a token folder was made from


def tokenize(folder: MotionFolder, tokenizer_folder: Path, tokenizer: HumanVQVAE, split: str) -> Path:
    """Tokenize a split unless that has been done with this tokenizer for these clips; returns the token folder.

    Every clip is tokenized once for each of its first ``stride`` start frames: the same motion, cut into tokens
    differently. The folder lies in ``tokens/<fingerprint of the tokenizer>/<split>`` of the data folder.

    Raises:
        InputError: the split is missing, a clip of it cannot be read, none has a caption, or the folder is read-only.
    """
    ids = folder.ids(split)
    about = {
        "tokenizer": fingerprint(tokenizer_folder),
        "codebook_size": tokenizer.codebook_size,
        "stride": tokenizer.config.stride,
        "clips": _digest(folder, ids),
    }
    target = folder.path / "tokens" / about["tokenizer"] / split
    if (target / ABOUT).is_file() and json.loads((target / ABOUT).read_text()) == about:
        return target
    rows = {"id": [], "tokens": [], "captions": []}
    for clip_id in tqdm(ids, desc=f"tokenizing {split}", unit="clip"):
        motion = tokenizer.normalize(torch.from_numpy(folder.motion(clip_id)).to(tokenizer.mean.device))
        captions = folder.captions(clip_id)
        if not captions:
            continue  # HumanML3D has clips whose captions all describe parts
        for tokens in _shifted_tokens(tokenizer, motion, shifts=tokenizer.config.stride if split == "train" else 1):
            for name, value in zip(rows, (clip_id, tokens, captions), strict=True):
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


@torch.no_grad()
def _shifted_tokens(tokenizer: HumanVQVAE, motion: torch.Tensor, shifts: int) -> list[list[int]]:
    """Tokens of normalised motion (T, 272) from each of its first ``shifts`` frames on, where a token fits."""
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

    An item is (caption, tokens (n,) int64, whole bool): a caption of the clip, and its tokens, or ``max_tokens``
    of them from a random start where the clip is longer (``whole`` is then False unless the end is inside). Choices
    depend on the item number alone (see ``utils.training.EndlessBatches``).

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

    def __getitem__(self, number: int) -> tuple[str, torch.Tensor, bool]:
        row = self.rows[number % len(self.rows)]
        choose = random.Random(number)
        caption, tokens = choose.choice(row["captions"]), torch.tensor(row["tokens"])
        start = choose.randint(0, max(0, len(tokens) - self.max_tokens))
        return caption, tokens[start : start + self.max_tokens], start + self.max_tokens >= len(tokens)


def collate(items: list[tuple[str, torch.Tensor, bool]], pad_id: int) -> tuple[list[str], torch.Tensor, torch.Tensor]:
    """Captions, tokens (B, N) filled up with ``pad_id`` on the right, and whole (B,) bool."""
    captions, tokens, whole = zip(*items, strict=True)
    return list(captions), torch.nn.utils.rnn.pad_sequence(tokens, True, pad_id), torch.tensor(whole)
