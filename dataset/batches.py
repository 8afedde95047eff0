"""Order of the training items, and the data loader that follows it.

The order is a sequence of steps without end, epoch after epoch. A step is divided into parts, one per micro-batch of
each process. The number ``epoch * count + index`` stands for item ``index`` in an epoch. Datasets draw their random
choices from this number, so a run resumed at any step sees the same data, with any number of worker processes.
"""

import random
import signal
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler, default_collate

from utils.errors import InputError
from utils.processes import end_with_parent

POOL = 32  # steps that are sorted by length together
BUCKET_RATIO = 1.1  # longest row of a bucket divided by its shortest: less than a tenth of a batch is padding
AHEAD = 4  # batches that each worker process loads in advance
GRACE = 600  # seconds a worker survives SIGTERM: longer than a step, a validation and a checkpoint take


@dataclass(frozen=True)
class StepDivision:
    """Division of a step among processes and their micro-batches; ``process`` is the number of this process.

    Part ``a * processes + process`` of a step is micro-batch ``a`` of a process.
    """

    process: int = 0
    processes: int = 1
    accumulate: int = 1

    @property
    def parts(self) -> int:
        """Number of parts of a step."""
        return self.processes * self.accumulate

    @property
    def own_parts(self) -> range:
        """Parts of this process."""
        return range(self.process, self.parts, self.processes)

    def __str__(self) -> str:
        return f"{self.processes} process{'es' * (self.processes > 1)} x --accumulate {self.accumulate}"


WHOLE_STEP = StepDivision()


class EndlessBatches(Sampler[list[int]]):
    """Micro-batches of item numbers for one process, without end.

    Args:
        count: Number of items.
        seed: Seed of the order.
        division: Division of a step among processes and micro-batches.

    Attributes:
        first_step: Step to begin with; set it to resume.

    Raises:
        InputError: there are no items.
    """

    def __init__(self, count: int, seed: int, division: StepDivision):
        if count < 1:
            raise InputError("there are no items to train on; prepare more clips")
        self.count, self.seed, self.division = count, seed, division
        self.first_step = 0

    def __iter__(self) -> Iterator[list[int]]:
        step = self.first_step
        while True:
            for part in self.division.own_parts:
                yield self._numbers(step, part).tolist()
            step += 1

    @property
    def steps_per_epoch(self) -> float:
        """Number of steps in which every item is seen once."""
        raise NotImplementedError

    def _numbers(self, step: int, part: int) -> np.ndarray:
        """Item numbers of a part of a step."""
        raise NotImplementedError

    def _shuffled(self, epoch: int) -> np.ndarray:
        """Random order of the items in an epoch, (count,)."""
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + epoch)
        return torch.randperm(self.count, generator=generator).numpy()


class FixedSizeBatches(EndlessBatches):
    """Steps of ``batch_size`` items: part m takes every ``parts``-th item of the step, starting at the m-th.

    With ``lengths``, items of similar length share a step: the items of ``POOL`` steps are drawn, sorted by length and
    cut into steps, and these steps are shuffled.

    Args:
        batch_size: Items per step, over all processes and micro-batches.
        lengths: Tokens of each item, (count,).

    Raises:
        InputError: ``batch_size`` is not a multiple of the number of parts, or there are no items.
    """

    def __init__(
        self,
        count: int,
        batch_size: int,
        seed: int,
        *,
        lengths: np.ndarray | None = None,
        division: StepDivision = WHOLE_STEP,
    ):
        super().__init__(count, seed, division)
        if batch_size % division.parts:
            raise InputError(
                f"--batch-size {batch_size} cannot be divided among {division}; "
                f"make --batch-size a multiple of {division.parts}, or change --accumulate"
            )
        self.batch_size, self.lengths = batch_size, lengths
        self._epoch, self._order = -1, np.empty(0, np.int64)  # order of the last epoch in use
        self._pool, self._steps = -1, np.empty((0, 0), np.int64)  # steps of the last pool in use

    @property
    def steps_per_epoch(self) -> float:
        return self.count / self.batch_size

    def _numbers(self, step: int, part: int) -> np.ndarray:
        pool, place = divmod(step, POOL)
        if pool != self._pool:
            size = POOL * self.batch_size
            numbers, order = self._sequence(pool * size, (pool + 1) * size), list(range(POOL))
            if self.lengths is not None:
                numbers = numbers[np.argsort(self.lengths[numbers % self.count], kind="stable")]
                random.Random(f"{self.seed} {pool}").shuffle(order)
            self._pool, self._steps = pool, numbers.reshape(POOL, self.batch_size)[order]
        return self._steps[place][part :: self.division.parts]

    def _sequence(self, first: int, last: int) -> np.ndarray:
        """Item numbers at the positions ``first`` to ``last`` of the endless sequence of shuffled epochs."""
        pieces = []
        for epoch in range(first // self.count, (last - 1) // self.count + 1):
            if epoch != self._epoch:
                self._epoch, self._order = epoch, self._shuffled(epoch)
            start, stop = max(0, first - epoch * self.count), last - epoch * self.count
            pieces.append(epoch * self.count + self._order[start:stop])
        return np.concatenate(pieces)


class TokenBudgetBatches(EndlessBatches):
    """Steps of at most ``batch_tokens`` tokens, padding counted: each part takes as many rows as fit into its share.

    The rows of an epoch are sorted into buckets of similar length, shuffled within each bucket, and cut into batches
    where the share is full; the batches are shuffled. In a bucket the longest row has less than ``BUCKET_RATIO`` times
    the tokens of the shortest, so padding is below a tenth except in a batch that crosses buckets. The cuts are the
    same in every epoch, so the start of any step is known without iterating over the steps before it.

    Args:
        lengths: Tokens of each row, (count,).
        batch_tokens: Tokens per step, over all processes and micro-batches.

    Raises:
        InputError: the share of a part is too small for the longest row, or there are no rows.
    """

    def __init__(self, lengths: np.ndarray, batch_tokens: int, seed: int, *, division: StepDivision = WHOLE_STEP):
        super().__init__(len(lengths), seed, division)
        budget, longest = batch_tokens // division.parts, int(lengths.max())
        if budget < longest:
            raise InputError(
                f"--batch-tokens {batch_tokens} divided among {division} is {budget} tokens, and the longest row has "
                f"{longest}; set --batch-tokens to {longest * division.parts} or more"
            )
        self._bucket, largest = _buckets(lengths)
        self._cuts = _cuts(budget // largest[np.sort(self._bucket)])
        self._epoch, self._order = -1, np.empty(0, np.int64)  # rows of the last epoch in use, sorted by bucket
        self._batches = np.empty(0, np.int64)  # shuffled order of its batches

    @property
    def steps_per_epoch(self) -> float:
        return (len(self._cuts) - 1) / self.division.parts

    def _numbers(self, step: int, part: int) -> np.ndarray:
        epoch, place = divmod(step * self.division.parts + part, len(self._cuts) - 1)
        if epoch != self._epoch:
            order = self._shuffled(epoch)
            self._epoch, self._order = epoch, order[np.argsort(self._bucket[order], kind="stable")]
            self._batches = np.random.default_rng((self.seed, epoch)).permutation(len(self._cuts) - 1)
        batch = self._batches[place]
        return epoch * self.count + self._order[self._cuts[batch] : self._cuts[batch + 1]]


def _buckets(lengths: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the bucket of each row (count,), 0 for the longest rows, and the longest length in each bucket (256,)."""
    longest = int(lengths.max())
    bucket = np.ceil(np.log(np.arange(1, longest + 1)) / np.log(BUCKET_RATIO)).astype(np.uint8)  # of lengths 1, 2, ...
    bucket = np.concatenate(([0], bucket[-1] - bucket))  # of lengths 0, 1, ...; 0 for the longest
    present = np.flatnonzero(np.bincount(lengths))
    largest = np.zeros(256, np.int64)
    np.maximum.at(largest, bucket[present], present)
    return bucket[lengths].astype(np.uint8), largest


def _cuts(fitting: np.ndarray) -> list[int]:
    """Return the positions where an epoch is cut, from 0 to count.

    Args:
        fitting: Number of rows that fit into a batch that begins at each position, (count,).
    """
    cuts = [0]
    while cuts[-1] < len(fitting):
        cuts.append(min(len(fitting), cuts[-1] + int(fitting[cuts[-1]])))
    return cuts


def endless_loader(
    dataset: Dataset,
    batches: Iterable[list[int]],
    workers: int,
    device: torch.device,
    collate: Callable[[list], Any] = default_collate,
) -> Generator[Any, None, None]:
    """Yield the collated items of each of ``batches``, in order, loaded in advance by worker processes.

    The result does not depend on the number of workers. Each worker loads at most ``AHEAD`` batches in advance. Close
    the iterator when done: the workers end with it.

    Raises:
        InputError: an item is invalid; raised in the place of its batch.
    """
    loader = DataLoader(
        _CollatedBatches(dataset, collate),
        batch_size=None,  # _CollatedBatches returns whole batches
        sampler=batches,
        num_workers=workers,
        persistent_workers=workers > 0,
        prefetch_factor=AHEAD if workers else None,
        pin_memory=device.type == "cuda",
        worker_init_fn=_start_worker,
        generator=torch.Generator(),  # the global generator stays untouched, or resuming would change dropout
    )
    try:
        for batch in loader:
            if isinstance(batch, InputError):
                raise batch
            yield batch
    finally:
        del loader  # ends the workers, even while a traceback keeps this frame alive


def _start_worker(worker: int) -> None:
    """Let a worker survive the signals on which training saves its state first, but never the training process."""
    end_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: signal.alarm(GRACE))


class _CollatedBatches(Dataset):
    """Collated batches by item numbers; an InputError is returned, because a worker would raise it as a traceback."""

    def __init__(self, dataset: Dataset, collate: Callable[[list], Any]):
        self.dataset, self.collate = dataset, collate

    def __getitem__(self, numbers: list[int]) -> Any:
        try:
            return self.collate([self.dataset[number] for number in numbers])
        except InputError as error:
            return error
