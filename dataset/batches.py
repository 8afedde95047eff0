"""Batches of item numbers without end, and the loader that turns them into data."""

import random
from collections.abc import Callable, Iterator

import torch
from torch.utils.data import DataLoader, Dataset, Sampler


class EndlessBatches(Sampler[list[int]]):
    """Batches of item numbers, epoch after epoch, that depend on the seed and the step alone.

    Number ``epoch * count + index`` stands for item ``index``; datasets draw their random choices from the number, so
    a run resumed at any step sees the same data, with any number of workers. With ``lengths`` (one an item), items of
    like length come together, so that little is padded: ``POOL`` batches at a time are drawn, sorted, and shuffled.
    """

    POOL = 32

    def __init__(self, count, batch_size, seed, *, lengths=None, process=0, processes=1, accumulate=1, first_step=0):
        self.count, self.batch_size, self.seed = count, batch_size, seed
        self.first_step, self.lengths = first_step, lengths
        self.process, self.processes, self.accumulate = process, processes, accumulate
        self._epoch, self._order = -1, None

    def __iter__(self) -> Iterator[list[int]]:
        pool, place = divmod(self.first_step, self.POOL)
        while True:
            for batch in self._batches(pool)[place:]:
                for a in range(self.accumulate):
                    yield batch[a * self.processes + self.process :: self.processes * self.accumulate]
            pool, place = pool + 1, 0

    def _batches(self, pool: int) -> list[list[int]]:
        """The ``POOL`` batches of one pool."""
        size = self.POOL * self.batch_size
        numbers = [self._number(place) for place in range(pool * size, (pool + 1) * size)]
        if self.lengths is not None:
            numbers.sort(key=lambda number: self.lengths[number % self.count])
        batches = [numbers[start : start + self.batch_size] for start in range(0, size, self.batch_size)]
        if self.lengths is not None:
            random.Random(f"{self.seed} {pool}").shuffle(batches)
        return batches

    def _number(self, place: int) -> int:
        """The item number at a place in the endless sequence of shuffled epochs."""
        epoch, offset = divmod(place, self.count)
        if epoch != self._epoch:
            generator = torch.Generator().manual_seed(self.seed * 1_000_003 + epoch)
            self._epoch, self._order = epoch, torch.randperm(self.count, generator=generator).tolist()
        return epoch * self.count + self._order[offset]


def endless_loader(
    dataset: Dataset, batches: EndlessBatches, workers: int, device: torch.device, collate: Callable | None = None
) -> Iterator:
    """An iterator over the batches' data."""
    own_generator = torch.Generator()  # or each new loader draws from the global one, and resuming would change dropout
    return iter(
        DataLoader(
            dataset,
            batch_sampler=batches,
            num_workers=workers,
            pin_memory=device.type == "cuda",
            collate_fn=collate,
            generator=own_generator,
        )
    )
