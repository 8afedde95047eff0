"""Helpers of the inference tests: a tiny model, hostile prompts, and checks of an output folder."""

import json
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import imageio_ffmpeg
import numpy as np
import torch

from models.llama import LLaMAHF
from models.llama_config import LLaMAConfig
from models.motion_vqvae import HumanVQVAE, VQVAEConfig
from motion.features272 import encode
from motion.skeleton import JOINTS, forward_kinematics

PROMPTS = ["a person walks forward", "someone waves the left hand", "a jump"]
HOSTILE = {
    "slashes": "../../../etc/passwd",
    "absolute": "/tmp/owned",
    "dots": "..",
    "backslashes": "..\\..\\windows\\system32",
    "newlines": "a person\nwalks\r\n\tand stops",
    "emoji": "🏃 👋🏽",
    "html": "<script>alert('&amp;')</script>",
    "right to left": "رجل يمشي \u202eforward",
    "line separator": "walks\u2028and turns",
    "shell": "$(touch owned); `rm -rf *` %s {0} | & > < \" '",
    "hidden": ".hidden",
    "long": "word " * 190,
}


class InProcess(ThreadPoolExecutor):
    """Replacement for the pool of renderer processes that runs in this process."""

    def __init__(self, workers, prepare, *arguments):
        super().__init__(1)


def tiny_tokenizer(levels: list[int]) -> HumanVQVAE:
    """An untrained tokenizer whose motions sway around a person standing upright."""
    torch.manual_seed(0)
    tokenizer = HumanVQVAE(VQVAEConfig(levels=levels, code_dim=16, width=16, down_t=2, depth=1))
    rotations = np.tile(np.eye(3, dtype=np.float32), (2, JOINTS, 1, 1))
    joints = forward_kinematics(rotations, np.float32([[0, 0.95, 0]] * 2))
    tokenizer.mean.copy_(torch.from_numpy(encode(rotations, joints)[0]))
    tokenizer.std.fill_(0.03)
    return tokenizer.eval()


def tiny_generator(tokenizer: HumanVQVAE, **changes) -> LLaMAHF:
    """An untrained generator for MiniLM features; ``changes`` are fields of LLaMAConfig."""
    torch.manual_seed(1)
    config = {
        "codebook_size": tokenizer.codebook_size,
        "text_dim": 384,
        "text_encoder": "minilm",
        "text_length": 64,
        "max_tokens": 16,
        "text_dropout": 0.1,
        "n_layer": 2,
        "n_head": 2,
        "n_embd": 32,
    } | changes
    generator = LLaMAHF(LLaMAConfig(**config))
    with torch.no_grad():
        generator.lm_head.weight *= 30
        generator.llama_proj.weight *= 30
    return generator.eval()


def save_tiny_checkpoint(folder: Path) -> Path:
    """Save an untrained text-to-motion model; returns its folder."""
    tokenizer = tiny_tokenizer([5, 5, 5])
    tiny_generator(tokenizer).save_pretrained(folder)
    tokenizer.save_pretrained(folder / "tokenizer")
    return folder


def assert_refused(result: tuple[int, str, str], *words: str) -> None:
    """Assert exit status 2 and a single line "error: ..." that contains the words."""
    status, _, errors = result
    assert status == 2
    lines = errors.strip().splitlines()
    assert len(lines) == 1 and lines[0].startswith("error: "), errors
    for word in words:
        assert str(word) in lines[0]


def results_in(folder: Path) -> list[dict]:
    return json.loads((folder / "results.json").read_text(encoding="utf-8"))


def load(path: Path) -> dict[str, np.ndarray]:
    with np.load(path, allow_pickle=False) as saved:
        return dict(saved)


def npz_files(folder: Path) -> list[Path]:
    return sorted(file for file in folder.iterdir() if file.suffix == ".npz" and not file.name.startswith("."))


def frames_of(path: Path) -> int:
    """Number of frames that can be decoded; a damaged file raises."""
    reader = imageio_ffmpeg.read_frames(str(path))
    size = next(reader)["size"]
    return sum(len(frame) == size[0] * size[1] * 3 for frame in reader)


def backdate(folder: Path) -> dict[str, int]:
    """Make all files ten seconds older, so that later writes show; returns their new modification times."""
    for file in folder.iterdir():
        written = file.stat().st_mtime_ns - 10_000_000_000
        os.utime(file, ns=(written, written))
    return {file.name: file.stat().st_mtime_ns for file in folder.iterdir()}


def changed_files(folder: Path, before: dict[str, int]) -> set[str]:
    """Names of the files that are new or were written since ``backdate``."""
    return {file.name for file in folder.iterdir() if file.stat().st_mtime_ns != before.get(file.name)}


def truncate(path: Path) -> None:
    """Cut off the second half of a file."""
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
