"""What millions of clips cost before a model sees them: time and memory of the token data set, and its padding.

    python -m benchmarks.data                                              (2,000,000 synthetic rows)
    python -m benchmarks.data --data data/bandai --tokenizer runs/vq       (and a real data folder)

Rows have lengths like those of real motion and one to three captions, and are written by the shard writer of
dataset/token_rows.py. Each part is measured in a process of its own, which is watched from outside. RSS counts
the pages of libraries and of the mapped rows that it has looked at, which the system may take back; own memory does
not. Linux only.
"""

import itertools
import math
import os
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import psutil
import torch
from jsonargparse.typing import NonNegativeInt, PositiveInt

from dataset.batches import EndlessBatches, endless_loader
from dataset.motion_folder import MotionFolder
from dataset.token_rows import TokenDataset, TokenRow, collate, prepare_folder, write_shard
from dataset.tokenizing import SHARDS, tokenize
from dataset.windows import WindowDataset
from models.motion_vqvae import HumanVQVAE
from utils.checkpoint import fingerprint
from utils.config import parse_options
from utils.errors import InputError, exit_on_input_error

TOKENIZER = Path(__file__).resolve().parent.parent / "checkpoints" / "demo" / "tokenizer"
CODES, MAX_TOKENS, PAD = 9600, 160, 9601
WORDS = ("a person", "someone", "walks", "runs", "turns", "waves", "slowly", "quickly", "to the left", "forward")


@dataclass
class Options:
    """What to measure.

    Attributes:
        rows: Synthetic rows.
        part: How many of them are iterated.
        batch_tokens: Tokens of a batch.
        work: Where to write; by default a folder in the system's place for temporary files, removed at the end.
        data: A data folder, to measure its padding and what opening it costs.
        tokenizer: Its tokenizer.
        joined: Rows a clip in which it follows a part of another clip.
    """

    rows: PositiveInt = 2_000_000
    part: PositiveInt = 200_000
    batch_tokens: PositiveInt = 16384
    work: Path | None = None
    data: Path | None = None
    tokenizer: Path | None = None
    joined: NonNegativeInt = 2

    def __post_init__(self):
        if (self.data is None) != (self.tokenizer is None):
            raise InputError("--data and --tokenizer go together; give both")


def main(options: Options) -> None:
    if options.data:
        print_folder(options)
    with TemporaryDirectory() as temporary:
        path = (options.work or Path(temporary)) / "train"
        print(f"\n{options.rows:,} rows, batches of {options.batch_tokens:,} tokens\n")
        print("| | seconds | | most RSS, MB | most own memory, MB |\n|---|---|---|---|---|")
        print_measured("a process that imports and does nothing", idle)
        print_measured("building", build, path, options.rows)
        print_measured("opening", opening, path)
        print_measured("shuffling an epoch, first batch of it", shuffling, path, options.batch_tokens, 0)
        print_measured("the same for a run resumed in its 10th epoch", shuffling, path, options.batch_tokens, 9)
        for workers in (0, 2):
            what = f"iterating {options.part:,} rows, {workers} workers"
            print_measured(what, iterating, path, options.batch_tokens, options.part, workers)
        rows = TokenDataset(path, TOKENIZER, MAX_TOKENS)
        print(f"\npadding of an epoch: {padding(rows.lengths, options.batch_tokens):.1%}")


def print_measured(name: str, function: Callable[..., tuple[float, str]], *arguments: Any) -> None:
    """A line of the table: ``function`` in a fresh process, its seconds and words about them, and its peaks."""
    with ProcessPoolExecutor(1, get_context("spawn")) as fresh:
        process = psutil.Process(fresh.submit(os.getpid).result())
        peaks, done = Counter(), threading.Event()
        watcher = threading.Thread(target=watch, args=(process, peaks, done))
        watcher.start()
        try:
            seconds, words = fresh.submit(function, *arguments).result()
        finally:
            done.set()
            watcher.join()
    memory = [
        " + ".join(f"{peaks[of, kind] / 1e6:,.0f}" for of in ("process", "worker") if peaks[of, kind])
        for kind in ("rss", "own")
    ]
    print(f"| {name} | {seconds:.2f} | {words} | {' | '.join(memory)} |", flush=True)


def watch(process: psutil.Process, peaks: Counter, done: threading.Event) -> None:
    """The most memory that a process, and any of its workers, is seen with."""
    while True:
        for of, watched in (("process", [process]), ("worker", process.children())):
            for one in watched:
                try:
                    memory = one.memory_info()
                except psutil.Error:  # it has ended
                    continue
                peaks[of, "rss"] = max(peaks[of, "rss"], memory.rss)
                peaks[of, "own"] = max(peaks[of, "own"], memory.rss - memory.shared)
        if done.wait(0.02):
            return


def idle() -> tuple[float, str]:
    return 0.0, ""


def build(path: Path, count: int) -> tuple[float, str]:
    """Write a token folder of ``count`` rows."""
    started, rng = time.perf_counter(), np.random.default_rng(0)
    shards = min(SHARDS, count)
    about = {"tokenizer": fingerprint(TOKENIZER), "codebook_size": CODES, "stride": 4, "clips": count, "shards": shards}
    for number, file in enumerate(prepare_folder(path, about)):
        first, last = number * count // shards, (number + 1) * count // shards
        lengths = np.clip(rng.lognormal(3.5, 0.55, last - first), 4, MAX_TOKENS).astype(int)
        tokens = np.split(rng.integers(0, CODES, lengths.sum()), np.cumsum(lengths)[:-1])
        words = rng.integers(0, len(WORDS), (len(lengths), 3, 6)).tolist()
        captions = [
            [" ".join(WORDS[word] for word in caption) for caption in three[: 1 + index % 3]]
            for index, three in enumerate(words)
        ]
        rows = [TokenRow(f"clip_{first + i:08d}", *row) for i, row in enumerate(zip(tokens, captions, strict=True))]
        write_shard(file, rows, CODES, Counter())
    seconds = time.perf_counter() - started
    files = list(path.iterdir())
    size = sum(file.stat().st_size for file in files)
    return seconds, f"{count / seconds:,.0f} rows/s; {len(files) - 1} shards, {size / 1e6:,.0f} MB"


def opening(path: Path) -> tuple[float, str]:
    started = time.perf_counter()
    lengths = TokenDataset(path, TOKENIZER, MAX_TOKENS).lengths
    return time.perf_counter() - started, f"{len(lengths):,} lengths read"


def shuffling(path: Path, batch_tokens: int, epoch: int) -> tuple[float, str]:
    """The first batch of an epoch, of which and of those before nothing has been asked yet."""
    lengths = TokenDataset(path, TOKENIZER, MAX_TOKENS).lengths
    started = time.perf_counter()
    order = EndlessBatches(len(lengths), None, 0, lengths=lengths, batch_tokens=batch_tokens)
    order.first_step = epoch * int(order.steps_an_epoch)
    next(iter(order))
    return time.perf_counter() - started, f"{order.steps_an_epoch:,.0f} batches an epoch"


def iterating(path: Path, batch_tokens: int, part: int, workers: int) -> tuple[float, str]:
    """Load batches in training's order until ``part`` rows have come."""
    rows = TokenDataset(path, TOKENIZER, MAX_TOKENS)
    order = EndlessBatches(len(rows), None, 0, lengths=rows.lengths, batch_tokens=batch_tokens)
    loader = endless_loader(rows, order, workers, torch.device("cpu"), partial(collate, pad_id=PAD))
    next(loader)  # the workers have started
    seen, real, started = 0, 0, time.perf_counter()
    while seen < part:
        ids, _, tokens, _, _ = next(loader)
        seen, real = seen + len(ids), real + int((tokens != PAD).sum())
    seconds = time.perf_counter() - started
    loader.close()
    return seconds, f"{seen / seconds:,.0f} rows/s, {real / seconds:,.0f} tokens/s"


def padding(lengths: np.ndarray, batch_tokens: int | None, batch_size: int | None = None) -> float:
    """The share of padding in the batches of an epoch."""
    order = EndlessBatches(len(lengths), batch_size, 0, lengths=lengths, batch_tokens=batch_tokens)
    real = padded = 0
    for batch in itertools.islice(order, math.ceil(order.steps_an_epoch)):
        rows = lengths[np.array(batch) % len(lengths)]
        real, padded = real + int(rows.sum()), padded + len(rows) * int(rows.max())
    return 1 - real / padded


def print_folder(options: Options) -> None:
    """What it takes to check and open a real data folder, and the padding of its rows."""
    folder, tokenizer = MotionFolder(options.data), HumanVQVAE.from_pretrained(options.tokenizer)
    make = partial(tokenize, folder, options.tokenizer, tokenizer, "train", options.joined)
    path, clips = make(), len(folder.ids("train"))
    for what, function in (
        ("finding that the clips have been tokenized", make),
        ("opening their windows", partial(WindowDataset, folder, "train", 64)),
    ):
        started = time.perf_counter()
        function()
        print(f"{what}: {(time.perf_counter() - started) / clips * 1e6:.0f} us a clip ({clips:,} clips)")
    lengths = TokenDataset(path, options.tokenizer, MAX_TOKENS, cut_longer=True).lengths
    print(f"{len(lengths):,} rows of {lengths.min()} to {lengths.max()} tokens, on average {lengths.mean():.0f}")
    for batch_size in (32, 256):
        print(f"padding of batches of {batch_size} rows of like length: {padding(lengths, None, batch_size):.1%}")
    for batch_tokens in (1280, 4096, 16384):
        print(f"padding of batches of {batch_tokens:,} tokens: {padding(lengths, batch_tokens):.1%}")


if __name__ == "__main__":
    with exit_on_input_error():
        main(parse_options(Options, __doc__)[0])
