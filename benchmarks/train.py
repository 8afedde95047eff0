"""Speed of both trainings, compared with the training loop of the public repositories and with the machine's limit.

    python -m benchmarks.train

Each row is measured in its own process, one after the other: whole steps with gradient clipping and AdamW, the fastest
of three after a warm-up. Only real tokens and frames count, not padding.

The generator is the 44M model over 64,000 codes, on motions with realistic lengths and captions, with a randomly
initialised text encoder of the size of Flan-T5-base. "Public loop" is our reimplementation of the training loop of the
public repositories: float32, every row padded to the full block of 150 text features and 150 tokens, logits at every
position, rows in random order, and captions encoded one at a time as their rows are loaded. The tokenizer is the
full-width one (width 512, depth 3, 64,000 codes) on windows of 64 frames; its public loop is in float32 and computes
the codebook statistics through a one-hot matrix.
"""

import utils.interrupt  # noqa: F401

# isort: split

import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from jsonargparse.typing import PositiveInt
from torch import nn
from torch.utils.data import Dataset

from benchmarks.generate import alone, peak_memory
from benchmarks.text_encoder import make_captions, make_t5_base, plain_encoder
from dataset.batches import TokenBudgetBatches, endless_loader
from dataset.token_rows import collate
from models.fsq import FSQ
from models.llama import LLaMAHF
from models.llama_config import SIZES, LLaMAConfig
from models.motion_vqvae import HumanVQVAE, VQVAEConfig
from models.text_encoder import load_text_encoder
from models.text_features import CaptionFeatures
from models.vq_loss import MotionLoss, MotionLossConfig
from training.costs import MicroBatch, count_flops
from training.optimizer import make_optimizer
from training.options import Size
from utils.config import parse_options
from utils.device import PRECISIONS, gemm_rate
from utils.errors import exit_on_input_error

TEXT_DIM, TEXT_LENGTH, MAX_TOKENS = 768, 150, 150
LEVELS, PAD = [8, 8, 8, 5, 5, 5], 64_001
CPU = torch.device("cpu")
TEXT = torch.randn(18, TEXT_DIM)  # features of a caption of average length, if features are given

Encode = Callable[[list[str]], tuple[torch.Tensor, torch.Tensor]]  # captions to features and mask


@dataclass
class Options:
    """Options of the measurement."""

    size: Size = "44M"
    """Size of the generator, from the size table of models/llama_config.py."""
    batch_tokens: PositiveInt = 4096
    """Motion tokens per step of our loop, padding included."""
    public_rows: PositiveInt = 16
    """Rows per step of the public loop."""
    windows: PositiveInt = 256
    """Windows per step of the tokenizer."""
    repeats: PositiveInt = 3
    """Steps per measurement, of which the fastest counts."""


class Rows(Dataset):
    """Rows of random tokens, as long as motions of 1 to 10 s at two frames per token, with captions."""

    def __init__(self, count: int = 4096):
        chooser = np.random.default_rng(0)
        self.lengths = np.exp(chooser.normal(np.log(75), 0.5, count)).clip(15, MAX_TOKENS).astype(np.int64)
        self.tokens = [torch.from_numpy(chooser.integers(0, 64_000, length)) for length in self.lengths]
        self.captions = make_captions(1000, 0)

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, number: int) -> tuple[str, str, torch.Tensor, bool, int]:
        row = number % len(self)
        return str(row), self.captions[row % len(self.captions)], self.tokens[row], True, 0


@dataclass
class Measured:
    """One row of the tables."""

    speed: float
    """Real tokens or frames per second."""
    share: float
    """FLOPs of the model per second, as a fraction of the fastest matrix product's."""
    memory: float
    """Peak memory in GB."""


def measure(step: Callable[[], tuple[int, float]], rate: float, repeats: int) -> Measured:
    """Measure the fastest of several steps after a warm-up.

    Args:
        step: Takes one step and returns its real tokens or frames, and its FLOPs.
        rate: FLOPs per second of the fastest matrix product.
    """
    step()
    best = Measured(0, 0, 0)
    for _ in range(repeats):
        started = time.perf_counter()
        count, flops = step()
        seconds = time.perf_counter() - started
        if count / seconds > best.speed:
            best = Measured(count / seconds, flops / seconds / rate, 0)
    best.memory = peak_memory()
    return best


# --- the generator


def make_generator(options: Options) -> LLaMAHF:
    """Create a generator with random weights."""
    torch.manual_seed(0)
    shape = {"codebook_size": 64_000, "text_dim": TEXT_DIM, "text_encoder": "random", "text_length": TEXT_LENGTH}
    return LLaMAHF(LLaMAConfig(**shape, max_tokens=MAX_TOKENS, **SIZES[options.size])).train()


def finish_step(model: nn.Module, optimizer: torch.optim.Optimizer, loss: torch.Tensor) -> None:
    """Backward pass, gradient clipping and optimizer step."""
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)


def public_generator(options: Options, t5: Path, with_text: bool) -> Measured:
    """Measure the public loop: float32, full blocks, all logits; captions encoded one at a time when loaded."""
    model, rows = make_generator(options), Rows()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, foreach=False, fused=False)
    encode = plain_encoder(t5) if with_text else lambda caption: TEXT
    order = np.random.default_rng(1).permutation(len(rows)).tolist()

    def step() -> tuple[int, float]:
        text = torch.zeros(options.public_rows, TEXT_LENGTH, TEXT_DIM)
        mask = torch.zeros(text.shape[:2], dtype=torch.bool)
        tokens = torch.full((options.public_rows, MAX_TOKENS), model.config.pad_id)
        for row in range(options.public_rows):
            _, caption, own, _, _ = rows[order.pop()]
            states = encode(caption)
            text[row, : len(states)], mask[row, : len(states)], tokens[row, : len(own)] = states, True, own
        targets = model.next_tokens(tokens)
        logits = model.lm_head(model.hidden_states(text, mask, tokens))[:, TEXT_LENGTH - 1 :]
        kept = targets != model.config.pad_id
        finish_step(model, optimizer, F.cross_entropy(logits.flatten(0, 1), targets.where(kept, -100).flatten()))
        return step_size(model, mask, kept)

    return measure(step, gemm_rate(CPU, torch.float32), options.repeats)


def step_size(model: LLaMAHF, mask: torch.Tensor, kept: torch.Tensor) -> tuple[int, float]:
    """Return the real tokens of a step, including ends, and its FLOPs without padding."""
    rows = zip(mask.sum(dim=1).tolist(), kept.sum(dim=1).tolist(), strict=True)
    return int(kept.sum()), sum(count_flops(model.config, MicroBatch(1, text, targets - 1)) for text, targets in rows)


def our_generator(options: Options, t5: Path, text: str, precision: str) -> Measured:
    """Measure the loop of train_t2m.py.

    Args:
        text: "encoded" in the step, "cached" on disk, or "none" for given features.
    """
    rows, dtype = Rows(), PRECISIONS[precision]
    if text == "none":
        encode: Encode = given_features(CPU)
    else:
        encoder = load_text_encoder("flan-t5-base", path=t5)
        encode = CaptionFeatures(encoder, t5 / "features" if text == "cached" else None, rows.captions)
    step = generator_step(options, token_batches(options, rows), encode, dtype, CPU)
    return measure(step, gemm_rate(CPU, dtype), options.repeats)


def token_batches(options: Options, rows: Rows) -> Iterator[tuple]:
    """Yield the micro-batches of train_t2m.py."""
    batches = TokenBudgetBatches(rows.lengths, options.batch_tokens, seed=0)
    return endless_loader(rows, batches, 0, CPU, partial(collate, pad_id=PAD))


def given_features(device: torch.device) -> Encode:
    """Return a text encoder that gives every caption the same features."""
    text = TEXT.to(device)

    def encode(captions: list[str]) -> tuple[torch.Tensor, torch.Tensor]:
        shape = len(captions), len(text)
        return text.expand(*shape, -1), torch.ones(shape, dtype=torch.bool, device=device)

    return encode


def generator_step(
    options: Options, batches: Iterator[tuple], encode: Encode, dtype: torch.dtype, device: torch.device
) -> Callable[[], tuple[int, float]]:
    """Return a step of train_t2m.py on a device; it returns its real tokens and its FLOPs."""
    model = make_generator(options).to(device)
    optimizer = make_optimizer(model, "adamw", 1e-4, 0.01)

    def step() -> tuple[int, float]:
        _, captions, tokens, _, _ = next(batches)
        features, mask = encode(captions)
        tokens = tokens.to(device)
        targets = model.next_tokens(tokens)
        with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
            loss = model(features, mask, tokens, targets)
        finish_step(model, optimizer, loss)
        return step_size(model, mask, targets != model.config.pad_id)

    return step


# --- the tokenizer


def tokenizer_training(options: Options, precision: str, statistics: Callable) -> Measured:
    """Measure the loop of train_vq.py with a given implementation of the codebook statistics."""
    dtype = PRECISIONS[precision]
    return measure(tokenizer_step(options, dtype, CPU, statistics), gemm_rate(CPU, dtype), options.repeats)


def tokenizer_step(
    options: Options, dtype: torch.dtype, device: torch.device, statistics: Callable = FSQ.compute_perplexity
) -> Callable[[], tuple[int, float]]:
    """Return a step of train_vq.py on a device; it returns its frames and its FLOPs."""
    torch.manual_seed(0)
    config = VQVAEConfig(levels=LEVELS, code_dim=512, width=512, depth=3)
    model, loss_function = HumanVQVAE(config).to(device), MotionLoss(MotionLossConfig(joints=0, velocity=0, path=0))
    optimizer = make_optimizer(model, "adamw", 1e-4, 0.01)
    model.quantizer.compute_perplexity = partial(statistics, model.quantizer)
    motion = torch.randn(options.windows, 64, 272, device=device)
    lengths = torch.full((options.windows,), 64, device=device)
    flops = 3 * model.flops_per_frame() * motion[..., 0].numel()

    def step() -> tuple[int, float]:
        with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
            reconstruction = model(motion, lengths)[0]
        finish_step(model, optimizer, loss_function(reconstruction, motion, model.mean, model.std, lengths)[0])
        return motion[..., 0].numel(), flops

    return step


def dense_statistics(
    quantizer: FSQ, indices: torch.Tensor, mask: torch.Tensor | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return perplexity and active fraction as in public code: through a one-hot matrix (codes, tokens)."""
    indices = indices if mask is None else indices[mask]
    one_hot = torch.zeros(quantizer.codebook_size, indices.numel()).scatter_(0, indices.reshape(1, -1), 1)
    counts = one_hot.sum(dim=1)
    share = counts / counts.sum()
    return (-(share * (share + 1e-7).log()).sum()).exp(), (counts > 0).float().mean()


def statistics_alone(options: Options, statistics: Callable) -> Measured:
    """Measure the codebook statistics of a step."""
    quantizer = FSQ(LEVELS)
    indices = torch.randint(0, 64_000, (options.windows, 16))

    def step() -> tuple[int, float]:
        statistics(quantizer, indices)
        return indices.numel(), 0.0

    return measure(step, 1.0, options.repeats)


# --- data loading


def loading_alone(options: Options) -> float:
    """Return the rows per second of the data loader of the generator training, without training."""
    loader = token_batches(options, Rows())
    next(loader)
    started = time.perf_counter()
    count = sum(len(batch[0]) for batch in islice(loader, 100))
    return count / (time.perf_counter() - started)


def table(title: str, unit: str, cases: list[tuple[str, Callable, tuple]]) -> None:
    """Measure and print cases; speeds are compared with the first one."""
    print(f"\n{title}\n\n| | {unit}/s | speedup over public | share of the fastest matmul | memory, GB |")
    print("|---|---|---|---|---|")
    first = None
    for name, function, arguments in cases:
        result = alone(function, *arguments)
        first = first or result.speed
        share = f"{100 * result.share:.0f} %" if result.share else ""
        speedup = f"{result.speed / first:.1f}"
        print(f"| {name} | {result.speed:,.0f} | {speedup} | {share} | {result.memory:.1f} |", flush=True)


def main(options: Options) -> None:
    rates = {name: alone(gemm_rate, CPU, PRECISIONS[name]) for name in ("float32", "bf16")}
    print(f"{torch.get_num_threads()} threads, PyTorch {torch.__version__}; ", end="")
    print(", ".join(f"{name} products {rate / 1e9:.0f} GFLOPS" for name, rate in rates.items()))
    with tempfile.TemporaryDirectory() as folder:
        t5 = Path(folder) / "t5"
        make_t5_base(t5, make_captions(1000, 0), 0)
        table(
            f"Generator {options.size}, text encoder included",
            "tokens",
            [
                ("public loop", public_generator, (options, t5, True)),
                ("ours, float32", our_generator, (options, t5, "encoded", "float32")),
                ("ours, bf16", our_generator, (options, t5, "encoded", "bf16")),
                ("ours, bf16, features on disk", our_generator, (options, t5, "cached", "bf16")),
            ],
        )
        table(
            f"Generator {options.size}, text features given",
            "tokens",
            [
                ("public loop", public_generator, (options, t5, False)),
                ("ours, float32", our_generator, (options, t5, "none", "float32")),
                ("ours, bf16", our_generator, (options, t5, "none", "bf16")),
            ],
        )
    table(
        "Tokenizer of width 512 and depth 3",
        "frames",
        [
            ("public loop", tokenizer_training, (options, "float32", dense_statistics)),
            ("ours, float32", tokenizer_training, (options, "float32", FSQ.compute_perplexity)),
            ("ours, bf16", tokenizer_training, (options, "bf16", FSQ.compute_perplexity)),
        ],
    )
    table(
        "Codebook statistics of 64,000 codes",
        "tokens",
        [
            ("one-hot matrix", statistics_alone, (options, dense_statistics)),
            ("counting", statistics_alone, (options, FSQ.compute_perplexity)),
        ],
    )
    print(f"\ndata loading: {alone(loading_alone, options):,.0f} rows/s")


if __name__ == "__main__":
    with exit_on_input_error():
        main(parse_options(Options, __doc__)[0])
