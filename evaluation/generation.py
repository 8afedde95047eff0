"""Generated motions of an evaluation, stored as they are made, so that an interrupted evaluation resumes.

The file motions-<digest>.jsonl has a line per motion: {"prompt": ..., "seed": ..., "tokens": [...]}. The digest is of
the checkpoint and of all settings that motions depend on, so that motions of others are never reused.
"""

import hashlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from models.pipeline import TextToMotion
from models.sampling import Sampling
from utils.errors import InputError
from utils.files import refusing_write_errors
from utils.prompts import Prompt
from utils.reading.files import MB
from utils.reading.texts import parse_json

LARGEST = 4096 * MB
Key = tuple[str, int]  # prompt, seed


class GeneratedMotions:
    """Motions of a model by prompt and seed, generated where they are not stored.

    Args:
        model: Text-to-motion model.
        folder: Folder of the file; no other process may write there.
        sampling: Temperature, guidance and so on.
        settings: Further settings that motions depend on, as values of JSON.
        slots: Number of motions generated at a time; an interruption loses at most as many.
    """

    def __init__(
        self, model: TextToMotion, folder: Path, sampling: Sampling, settings: dict[str, Any], slots: int = 32
    ):
        self.model, self.sampling, self.slots = model, sampling, slots
        key = json.dumps([model.checkpoint_id, vars(sampling), settings], sort_keys=True)
        self.path = folder / f"motions-{hashlib.sha256(key.encode()).hexdigest()[:16]}.jsonl"
        self.tokens = read_tokens(self.path, model.tokenizer.codebook_size, model.generator.config.max_tokens)
        self.stored = len(self.tokens)

    def generate(self, prompts: Sequence[str], seeds: Sequence[int], name: str = "generate") -> None:
        """Generate and store the motions that are missing.

        Raises:
            InputError: a prompt does not fit the checkpoint, or the file cannot be written.
        """
        keys = zip(prompts, seeds, strict=True)
        missing = [key for key in dict.fromkeys(keys) if key not in self.tokens]
        if not missing:
            return
        motions = self.model.generate_each(
            [prompt for prompt, _ in missing], [seed for _, seed in missing], self.sampling, slots=self.slots
        )
        with refusing_write_errors(self.path), self.path.open("a", encoding="utf-8") as file:
            for number, motion in tqdm(motions, desc=name, total=len(missing), unit="motion", mininterval=2):
                prompt, seed = missing[number]
                self.tokens[prompt, seed] = motion.tokens.astype(np.int32)
                line = {"prompt": prompt, "seed": seed, "tokens": motion.tokens.tolist()}
                file.write(json.dumps(line, separators=(",", ":")) + "\n")
                file.flush()

    def features(self, prompt: str, seed: int) -> np.ndarray:
        """Return the features (T, 272) of a motion that has been generated."""
        return self.model.decode([torch.from_numpy(self.tokens[prompt, seed].astype(np.int64))])[0]


def read_tokens(path: Path, codes: int, most: int) -> dict[Key, np.ndarray]:
    """Read the tokens (n,) of stored motions; damaged lines are left out, and an incomplete last line is removed.

    Args:
        path: File of the motions; it may be missing.
        codes: Size of the codebook.
        most: Largest number of tokens per sentence of a prompt.

    Raises:
        InputError: the file cannot be read or is too large.
    """
    motions: dict[Key, np.ndarray] = {}
    if not path.exists():
        return motions
    with refusing_write_errors(path), path.open("rb+") as file:
        size = file.seek(0, 2)
        if size > LARGEST:
            raise InputError(f"{path} has {size:,} bytes; remove it")
        file.seek(0)
        complete = 0
        for line in file:
            if not line.endswith(b"\n"):
                break
            complete += len(line)
            motions.update(_motions_in(line, codes, most))
        file.truncate(complete)
    return motions


def _motions_in(line: bytes, codes: int, most: int) -> Iterator[tuple[Key, np.ndarray]]:
    """Yield the motion of a line, or nothing if it holds none."""
    try:
        entry = parse_json(line)
        if not isinstance(entry, dict) or not isinstance(prompt := entry.get("prompt"), str):
            return
        longest = most * len(Prompt.parse(prompt).sentences)
    except (InputError, ValueError):
        return
    tokens, seed = entry.get("tokens"), entry.get("seed")
    if type(seed) is not int or not isinstance(tokens, list) or not 0 < len(tokens) <= longest:
        return
    if all(type(code) is int and 0 <= code < codes for code in tokens):
        yield (prompt, seed), np.array(tokens, np.int32)
