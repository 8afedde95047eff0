"""The order in which a training sees its items, and the loader that follows it."""

import random
import signal
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler, default_collate

from utils.errors import InputError


class EndlessBatches(Sampler[list[int]]):
    """Micro-batches of item numbers for one process of a run, epoch after epoch; ``accumulate`` of them are its step.

    Number ``epoch * count + index`` stands for item ``index``; datasets draw their random choices from the number, so
    a run resumed at any step sees the same data, with any number of workers. A step is divided into ``processes *
    accumulate`` parts, and part ``a * processes + process`` is the a-th micro-batch of a process.

    With ``batch_size``, a step has so many items, whatever the number of parts: part m takes every parts-th of them,
    from the m-th on. Where ``lengths`` are given, the items of ``POOL`` steps at a time are drawn, sorted by length,
    cut into steps, and these shuffled.

    With ``batch_tokens``, a part has as many rows as fit into its share of so many tokens, padding counted. An epoch's
    rows are sorted into buckets of like length, in random order within a bucket, and cut where the share is full; the
    cuts are shuffled. A bucket's longest row is less than ``RATIO`` times its shortest, so less than a tenth of a
    micro-batch is padding unless it lies across buckets. Every epoch is cut at the same places, so where a step begins
    is known without going through the ones before.

    Args:
        lengths: Tokens of each item, (count,).
        first_step: The step to begin with.

    Raises:
        InputError: the step cannot be divided, the share is too small for the longest row, or there are no items.
    """

    POOL = 32  # steps
    RATIO = 1.1

    def __init__(
        self,
        count: int,
        batch_size: int | None,
        seed: int,
        *,
        lengths: np.ndarray | None = None,
        batch_tokens: int | None = None,
        process: int = 0,
        processes: int = 1,
        accumulate: int = 1,
        first_step: int = 0,
    ):
        self.count, self.batch_size, self.seed, self.lengths = count, batch_size, seed, lengths
        self.parts, self.first_step = processes * accumulate, first_step
        self.own = range(process, self.parts, processes)
        self._epoch = self._pool = -1  # the ones held in _order, _numbers and _steps
        shared = f"{processes} process{'es' * (processes > 1)} x accumulate {accumulate}"
        if count < 1:
            raise InputError("there are no items to train on; prepare more clips")
        if (batch_size is None) == (batch_tokens is None):
            raise InputError("the size of a step is batch_size items or batch_tokens tokens; set one of the two")
        if batch_size is not None and batch_size % self.parts:
            raise InputError(
                f"batch_size {batch_size} cannot be divided among {shared}; "
                f"make batch_size a multiple of {self.parts}, or change accumulate"
            )
        if batch_tokens is not None:
            if lengths is None:
                raise InputError("batch_tokens is for rows of tokens; set batch_size here")
            self._cut(batch_tokens // self.parts, f"batch_tokens {batch_tokens} divided among {shared}")

    def __iter__(self) -> Iterator[list[int]]:
        step = self.first_step
        while True:
            for part in self.own:
                yield (self._of_step(step, part) if self.batch_size else self._of_cut(step, part)).tolist()
            step += 1

    @property
    def steps_an_epoch(self) -> float:
        """How many steps go once through the items."""
        return self.count / self.batch_size if self.batch_size else (len(self._cuts) - 1) / self.parts

    def _of_step(self, step: int, part: int) -> np.ndarray:
        """The numbers of a part of a step of ``batch_size`` items."""
        pool, place = divmod(step, self.POOL)
        if pool != self._pool:
            size = self.POOL * self.batch_size
            numbers, order = self._drawn(pool * size, (pool + 1) * size), list(range(self.POOL))
            if self.lengths is not None:
                numbers = numbers[np.argsort(self.lengths[numbers % self.count], kind="stable")]
                random.Random(f"{self.seed} {pool}").shuffle(order)
            self._pool, self._steps = pool, numbers.reshape(self.POOL, self.batch_size)[order]
        return self._steps[place][part :: self.parts]

    def _drawn(self, first: int, last: int) -> np.ndarray:
        """The item numbers at places ``first`` to ``last`` of the endless sequence of shuffled epochs."""
        drawn = []
        for epoch in range(first // self.count, (last - 1) // self.count + 1):
            if epoch != self._epoch:
                self._epoch, self._order = epoch, self._shuffled(epoch)
            start, stop = max(0, first - epoch * self.count), last - epoch * self.count
            drawn.append(epoch * self.count + self._order[start:stop])
        return np.concatenate(drawn)

    def _shuffled(self, epoch: int) -> np.ndarray:
        """The items (count,) in the order of an epoch."""
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + epoch)
        return torch.randperm(self.count, generator=generator).numpy()

    def _cut(self, budget: int, what: str) -> None:
        """Sort the rows into buckets, longest first, and find the places where each epoch is cut."""
        longest = int(self.lengths.max())
        if budget < longest:
            raise InputError(
                f"{what} is {budget} tokens, and the longest row has {longest}; "
                f"set batch_tokens to {longest * self.parts} or more"
            )
        bucket = np.ceil(np.log(np.arange(1, longest + 1)) / np.log(self.RATIO)).astype(np.uint8)  # of each length
        bucket = np.concatenate(([0], bucket[-1] - bucket))  # from 0 for the longest
        there = np.flatnonzero(np.bincount(self.lengths))
        most = np.zeros(256, np.int64)  # length in each bucket
        np.maximum.at(most, bucket[there], there)
        self._bucket = bucket[self.lengths].astype(np.uint8)  # (count,)
        rows = budget // most[np.sort(self._bucket)]  # (count,): of a micro-batch that begins at this place
        self._cuts = [0]
        while self._cuts[-1] < self.count:
            self._cuts.append(min(self.count, self._cuts[-1] + int(rows[self._cuts[-1]])))

    def _of_cut(self, step: int, part: int) -> np.ndarray:
        """The numbers of a part of a step of ``batch_tokens`` tokens."""
        epoch, place = divmod(step * self.parts + part, len(self._cuts) - 1)
        if epoch != self._epoch:
            order = self._shuffled(epoch)
            self._epoch, self._order = epoch, order[np.argsort(self._bucket[order], kind="stable")]
            self._places = np.random.default_rng((self.seed, epoch)).permutation(len(self._cuts) - 1)
        cut = self._places[place]
        return epoch * self.count + self._order[self._cuts[cut] : self._cuts[cut + 1]]


def endless_loader(
    dataset: Dataset,
    batches: Iterable[list[int]],
    workers: int,
    device: torch.device,
    collate: Callable[[list], Any] = default_collate,
) -> Iterator[Any]:
    """What ``collate`` makes of the items of each of ``batches``, in their order, loaded ahead by worker processes.

    The batches are the same with any number of workers. Each worker is ``AHEAD`` batches ahead at most. To be closed:
    the workers end with the iterator alone.

    Raises:
        InputError: an item is unfit; raised where its batch would have come.
    """
    loader = DataLoader(
        _Collated(dataset, collate),
        batch_size=None,  # a batch is what _Collated gives
        sampler=batches,
        num_workers=workers,
        persistent_workers=workers > 0,
        prefetch_factor=AHEAD if workers else None,
        pin_memory=device.type == "cuda",
        worker_init_fn=outlive_sigterm,
        generator=torch.Generator(),  # or it draws from the global one, and resuming would change dropout
    )
    try:
        for batch in loader:
            if isinstance(batch, InputError):
                raise batch
            yield batch
    finally:
        del loader  # which ends the workers, also where a traceback keeps this frame


AHEAD = 4  # batches
GRACE = 600  # seconds: longer than a step, a validation and a save should take


def outlive_sigterm(worker: int) -> None:
    """Let a worker live on for ``GRACE`` seconds: what asks a whole job to end is for the training to answer."""
    signal.signal(signal.SIGTERM, lambda *_: signal.alarm(GRACE))


class _Collated(Dataset):
    """Batches by the numbers of their items; an InputError is given back, as a worker's would come as a traceback."""

    def __init__(self, dataset: Dataset, collate: Callable[[list], Any]):
        self.dataset, self.collate = dataset, collate

    def __getitem__(self, numbers: list[int]) -> Any:
        try:
            return self.collate([self.dataset[number] for number in numbers])
        except InputError as error:
            return error
