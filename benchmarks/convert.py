"""Measure time and memory of converting a checkpoint of a released size, made with random weights.

    python -m benchmarks.convert --work /tmp/convert     (3B in bfloat16 needs 2 x 6.8 GB on the disk)

The conversion runs in its own process. Prints its time, its largest allocated memory, and its largest resident memory,
which includes pages of the mapped files (the system reclaims them if memory is short).
"""

import utils.interrupt  # noqa: F401

# isort: split

import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from models.llama import LLaMAHF
from models.llama_config import SIZES, LLaMAConfig
from models.motion_vqvae import HumanVQVAE, VQVAEConfig
from models.motionmillion import DTYPES, MAX_TOKENS, TEXT_LENGTH, tokenizer_names
from motion.features272 import FEATURES
from utils.config import parse_options
from utils.errors import InputError, exit_on_input_error

VQ = VQVAEConfig(levels=[8, 8, 8, 5, 5, 5], code_dim=512, width=512, down_t=1, norm="layer", causal=False)  # released


@dataclass
class Options:
    """Options of the measurement."""

    work: Path
    """New folder for the files; removed at the end."""
    size: str = "3B"
    """Size of the generator in the table of models/llama_config.py."""
    precision: Literal["float32", "bf16"] = "bf16"
    """Precision of the generator's file."""

    def __post_init__(self):
        if self.work.exists():
            raise InputError(f"--work {self.work} exists already; give the name of a new folder")
        if self.size not in SIZES:
            raise InputError(f"--size {self.size} is unknown; use one of {', '.join(SIZES)}")


def main(options: Options) -> None:
    options.work.mkdir(parents=True)
    try:
        make_files(options)
        files = {name: options.work / name for name in ("tokenizer.pth", "generator.pth", "mean.npy", "std.npy")}
        command = [sys.executable, "-m", "models.motionmillion", "--out", options.work / "out"]
        command += [word for name, path in files.items() for word in (f"--{path.stem}", path)]
        started = time.perf_counter()
        own, resident = watch(subprocess.Popen(command, cwd=Path(__file__).parent.parent))
        seconds = time.perf_counter() - started
        size = files["generator.pth"].stat().st_size
        print(
            f"{options.size} in {options.precision}, {size / 1e9:.2f} GB: converted in {seconds:.0f} s; "
            f"at most {own / 1e9:.2f} GB allocated and {resident / 1e9:.2f} GB resident with mapped files"
        )
    finally:
        shutil.rmtree(options.work)


def make_files(options: Options) -> None:
    """Write random weights in the reference's layout."""
    np.save(options.work / "mean.npy", np.zeros(FEATURES))
    np.save(options.work / "std.npy", np.ones(FEATURES))
    names = tokenizer_names(VQ, patcher=False)
    tokenizer = {}
    for name, value in HumanVQVAE(VQ).state_dict().items():
        layer, _, kind = name.rpartition(".")
        if layer:  # all but mean and std
            tokenizer[f"{names.get(layer, f'vqvae.{layer}')}.{kind}"] = value
    torch.save({"net": tokenizer}, options.work / "tokenizer.pth")
    config = LLaMAConfig(
        codebook_size=64000,
        text_dim=2048,
        text_encoder="flan-t5-xl",
        text_length=TEXT_LENGTH,
        max_tokens=MAX_TOKENS,
        **SIZES[options.size],
    )
    with torch.device("meta"):
        shapes = {name: value.shape for name, value in LLaMAHF(config).state_dict().items()}
    dtype = DTYPES[options.precision]
    weights = {name: torch.empty(shape, dtype=dtype).uniform_(-0.02, 0.02) for name, shape in shapes.items()}
    torch.save({"trans": weights}, options.work / "generator.pth")


def watch(process: subprocess.Popen) -> tuple[int, int]:
    """Wait for a process; return its largest allocated and resident bytes, sampled 100 times per second."""
    own = resident = 0
    while process.poll() is None:
        try:
            status = Path(f"/proc/{process.pid}/status").read_text()
        except OSError:
            break
        values = {
            line.split(":")[0]: line.split()[1] for line in status.splitlines() if line.startswith(("Rss", "VmR"))
        }
        own = max(own, 1024 * int(values.get("RssAnon", 0)))
        resident = max(resident, 1024 * int(values.get("VmRSS", 0)))
        time.sleep(0.01)
    if process.wait() != 0:
        raise InputError("the conversion failed; see its error above")
    return own, resident


if __name__ == "__main__":
    with exit_on_input_error():
        main(parse_options(Options, __doc__)[0])
