"""Benchmark of the index of clips and of the token data set with millions of rows: time, memory and padding.

    python -m benchmarks.data                                              (2,000,000 synthetic rows)
    python -m benchmarks.data --data data/bandai --tokenizer runs/vq       (also a real data folder)

The synthetic rows have the lengths of real motion and one to three captions. They are written by the shard writer of
dataset/token_rows.py and by the index writer of dataset/clip_index.py; the motions themselves do not exist. Each part
is measured in a process of its own by the parent process. RSS includes the pages of libraries and of mapped rows that
were accessed, which the system can reclaim; own memory excludes them. Linux only.
"""

import utils.interrupt  # noqa: F401

# isort: split

import itertools
import math
import os
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import psutil
import pyarrow as pa
import torch
from jsonargparse.typing import NonNegativeInt, PositiveInt

from dataset.batches import EndlessBatches, FixedSizeBatches, TokenBudgetBatches, endless_loader
from dataset.clip_index import CHUNK, Motions, Scanned, index_file, write_index
from dataset.clips import SCHEMA
from dataset.feature_files import OWN_FILE
from dataset.layouts import OURS, Split
from dataset.motion_folder import MotionFolder
from dataset.token_rows import TokenDataset, TokenRow, collate, prepare_folder, write_shard
from dataset.tokenizing import MAX_SHARDS, tokenize
from dataset.windows import WindowDataset
from models.motion_vqvae import HumanVQVAE
from utils.checkpoint import fingerprint
from utils.config import parse_options
from utils.errors import InputError, exit_on_input_error
from utils.processes import worker_pool

TOKENIZER = Path(__file__).resolve().parent.parent / "checkpoints" / "demo" / "tokenizer"
CODES, MAX_TOKENS, PAD = 9600, 160, 9601
WORDS = ("a person", "someone", "walks", "runs", "turns", "waves", "slowly", "quickly", "to the left", "forward")


@dataclass
class Options:
    """Options of the benchmark."""

    rows: PositiveInt = 2_000_000
    """Number of synthetic clips and rows."""
    part: PositiveInt = 200_000
    """Number of synthetic rows to iterate over."""
    batch_tokens: PositiveInt = 16384
    """Tokens per batch, padding counted."""
    work: Path | None = None
    """Folder to write to; by default, a temporary folder that is removed at the end."""
    data: Path | None = None
    """Data folder whose padding and opening time are measured; needs --tokenizer."""
    tokenizer: Path | None = None
    """Folder of the tokenizer for --data."""
    joined: NonNegativeInt = 2
    """Rows per clip of --data in which the clip follows a part of another clip."""

    def __post_init__(self) -> None:
        if (self.data is None) != (self.tokenizer is None):
            raise InputError("--data and --tokenizer need each other; give both")


def main(options: Options) -> None:
    if options.data:
        print_folder(options)
    with TemporaryDirectory() as temporary:
        path = (options.work or Path(temporary)) / "train"
        print(f"\n{options.rows:,} rows, batches of {options.batch_tokens:,} tokens\n")
        print("| | seconds | | peak RSS, MB | peak own memory, MB |\n|---|---|---|---|---|")
        print_measured("process that only imports", idle)
        print_measured("building the index of a folder", build_index, path.parent / "data", options.rows)
        print_measured("opening the folder: windows", opening_windows, path.parent / "data")
        print_measured("opening the folder: clips", opening_clips, path.parent / "data")
        print_measured("building tokens", build, path, options.rows)
        print_measured("opening tokens", opening, path)
        print_measured("shuffling an epoch, first batch", shuffling, path, options.batch_tokens, 0)
        print_measured("the same, resumed in the 10th epoch", shuffling, path, options.batch_tokens, 9)
        for workers in (0, 2):
            name = f"iterating over {options.part:,} rows, {workers} workers"
            print_measured(name, iterating, path, options.batch_tokens, options.part, workers)
        lengths = TokenDataset(path, TOKENIZER, MAX_TOKENS).lengths
        order = TokenBudgetBatches(lengths, options.batch_tokens, seed=0)
        print(f"\npadding of an epoch: {padding(lengths, order):.1%}")


def print_measured(name: str, function: Callable[..., tuple[float, str]], *arguments: Any) -> None:
    """Run ``function`` in a new process and print a table row: its seconds, its remark and the peaks of memory."""
    with worker_pool(1) as fresh:
        process = psutil.Process(fresh.submit(os.getpid).result())
        peaks: Counter = Counter()
        done = threading.Event()
        watcher = threading.Thread(target=watch, args=(process, peaks, done))
        watcher.start()
        try:
            seconds, remark = fresh.submit(function, *arguments).result()
        finally:
            done.set()
            watcher.join()
    memory = [
        " + ".join(f"{peaks[of, kind] / 1e6:,.0f}" for of in ("process", "worker") if peaks[of, kind])
        for kind in ("rss", "own")
    ]
    print(f"| {name} | {seconds:.2f} | {remark} | {' | '.join(memory)} |", flush=True)


def watch(process: psutil.Process, peaks: Counter, done: threading.Event) -> None:
    """Record the peak memory of a process and the largest of its workers until ``done`` is set."""
    while True:
        for of, watched in (("process", [process]), ("worker", process.children())):
            for one in watched:
                try:
                    memory = one.memory_info()
                except psutil.Error:  # the process has ended
                    continue
                peaks[of, "rss"] = max(peaks[of, "rss"], memory.rss)
                peaks[of, "own"] = max(peaks[of, "own"], memory.rss - memory.shared)
        if done.wait(0.02):
            return


def idle() -> tuple[float, str]:
    """Do nothing."""
    return 0.0, ""


def build_index(path: Path, count: int) -> tuple[float, str]:
    """Time the writing of the indexes of a data folder of ``count`` motions in 1,000 folders, after their scan."""
    names = [f"subset_{number % 1000:04d}/clip_{number:08d}" for number in range(count)]
    for folder in (OURS.motions, OURS.texts):
        for number in range(min(1000, count)):
            (path / folder / f"subset_{number:04d}").mkdir(parents=True)
    listed_in = path / "split" / "train.txt"
    listed_in.parent.mkdir()
    listed_in.write_text("\n".join(names))
    started, size = time.perf_counter(), 0
    for has_captions in (False, True):
        split = Split(path, OURS, "train", listed_in, has_captions)
        parts = (scanned(names[first : first + CHUNK], first, has_captions) for first in range(0, count, CHUNK))
        file = index_file(path, split)
        write_index(file, split, Motions(names, [], {}), parts)
        size += file.stat().st_size
    return time.perf_counter() - started, f"{size / 1e6:,.0f} MB"


def scanned(names: list[str], seed: int, has_captions: bool) -> Scanned:
    """Return synthetic clips with one to three captions."""
    rng, count = np.random.default_rng(seed), len(names)
    words = rng.integers(0, len(WORDS), (count, 3, 6)).tolist()
    captions = [
        [" ".join(WORDS[word] for word in caption) for caption in three[: has_captions * (1 + index % 3)]]
        for index, three in enumerate(words)
    ]
    zeros = np.zeros(count, np.int64)
    frames = np.clip(rng.lognormal(4.9, 0.55, count), 16, 640)
    columns = [names, captions, zeros, frames.astype(int), zeros > 0, zeros, zeros + OWN_FILE, zeros, zeros]
    arrays = [pa.array(column, kind) for column, kind in zip(columns, SCHEMA.types, strict=True)]
    return Scanned(pa.table(arrays, SCHEMA), Counter(), "", str(seed))


def opening_windows(path: Path) -> tuple[float, str]:
    """Time the opening of a data folder for the tokenizer, with the number of windows."""
    started = time.perf_counter()
    windows = len(WindowDataset(MotionFolder(path).motions("train"), 64))
    return time.perf_counter() - started, f"{windows:,} windows"


def opening_clips(path: Path) -> tuple[float, str]:
    """Time the opening of a data folder for the generator, with the lengths of its clips."""
    started = time.perf_counter()
    frames = MotionFolder(path).clips("train").frames
    return time.perf_counter() - started, f"{len(frames):,} clips"


def build(path: Path, count: int) -> tuple[float, str]:
    """Time the writing of a token folder of ``count`` rows."""
    started, rng = time.perf_counter(), np.random.default_rng(0)
    shards = min(MAX_SHARDS, count)
    about = {"tokenizer": fingerprint(TOKENIZER), "codebook_size": CODES, "stride": 4, "joined": 0}
    about |= {"clips": f"{count} random clips", "shards": shards}
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
    """Time the opening of a token folder, with the lengths of its rows."""
    started = time.perf_counter()
    lengths = TokenDataset(path, TOKENIZER, MAX_TOKENS).lengths
    return time.perf_counter() - started, f"{len(lengths):,} lengths read"


def shuffling(path: Path, batch_tokens: int, epoch: int) -> tuple[float, str]:
    """Time the first batch of an epoch, without the epochs before it."""
    lengths = TokenDataset(path, TOKENIZER, MAX_TOKENS).lengths
    started = time.perf_counter()
    order = TokenBudgetBatches(lengths, batch_tokens, seed=0)
    order.first_step = epoch * int(order.steps_per_epoch)
    next(iter(order))
    return time.perf_counter() - started, f"{order.steps_per_epoch:,.0f} batches per epoch"


def iterating(path: Path, batch_tokens: int, part: int, workers: int) -> tuple[float, str]:
    """Time the loading of ``part`` rows in the order of training."""
    rows = TokenDataset(path, TOKENIZER, MAX_TOKENS)
    order = TokenBudgetBatches(rows.lengths, batch_tokens, seed=0)
    loader = endless_loader(rows, order, workers, torch.device("cpu"), partial(collate, pad_id=PAD))
    next(loader)  # wait for the workers to start
    seen, real, started = 0, 0, time.perf_counter()
    while seen < part:
        batch = next(loader)
        seen, real = seen + len(batch.ids), real + int((batch.tokens != PAD).sum())
    seconds = time.perf_counter() - started
    loader.close()
    return seconds, f"{seen / seconds:,.0f} rows/s, {real / seconds:,.0f} tokens/s"


def padding(lengths: np.ndarray, order: EndlessBatches) -> float:
    """Return the share of padding in the batches of an epoch."""
    real = padded = 0
    for batch in itertools.islice(order, math.ceil(order.steps_per_epoch)):
        rows = lengths[np.array(batch) % len(lengths)]
        real, padded = real + int(rows.sum()), padded + len(rows) * int(rows.max())
    return 1 - real / padded


def print_folder(options: Options) -> None:
    """Time the checks and the opening of a real data folder, and print the padding of its rows."""
    folder, tokenizer = MotionFolder(options.data), HumanVQVAE.from_pretrained(options.tokenizer)
    make = partial(tokenize, folder, options.tokenizer, tokenizer, "train", options.joined)
    path, clips = make(), len(folder.clips("train"))
    for name, function in (
        ("checking that the clips are tokenized", make),
        ("opening their windows", lambda: WindowDataset(folder.motions("train"), 64)),
    ):
        started = time.perf_counter()
        function()
        print(f"{name}: {(time.perf_counter() - started) / clips * 1e6:.0f} us per clip ({clips:,} clips)")
    lengths = TokenDataset(path, options.tokenizer, MAX_TOKENS, cut_longer=True).lengths
    print(f"{len(lengths):,} rows of {lengths.min()} to {lengths.max()} tokens, on average {lengths.mean():.0f}")
    for batch_size in (32, 256):
        order = FixedSizeBatches(len(lengths), batch_size, seed=0, lengths=lengths)
        print(f"padding of batches of {batch_size} rows of similar length: {padding(lengths, order):.1%}")
    for batch_tokens in (1280, 4096, 16384):
        share = padding(lengths, TokenBudgetBatches(lengths, batch_tokens, seed=0))
        print(f"padding of batches of {batch_tokens:,} tokens: {share:.1%}")


if __name__ == "__main__":
    with exit_on_input_error():
        main(parse_options(Options, __doc__)[0])
