"""The order of training batches: epochs, division among processes, resuming, and padding."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dataset.batches import POOL, FixedSizeBatches, StepDivision, TokenBudgetBatches
from utils.errors import InputError

LENGTHS = np.array([7 * index % 13 + 1 for index in range(50)])
ORDERS = ("shuffled", "by length", "by tokens")


def order_of(kind, *, tokens=96, seed=3, first_step=0, **division):
    """An order of 50 items: 8 items per step, or ``tokens`` tokens per step."""
    division = StepDivision(**division)
    if kind == "by tokens":
        order = TokenBudgetBatches(LENGTHS, tokens, seed, division=division)
    else:
        order = FixedSizeBatches(50, 8, seed, lengths=LENGTHS if kind == "by length" else None, division=division)
    order.first_step = first_step
    return order


def micro_batches(kind, batches=50, **settings):
    """The first micro-batches of an order of 50 items."""
    return list(itertools.islice(order_of(kind, **settings), batches))


@pytest.mark.parametrize("kind", ORDERS)
def test_every_epoch_is_another_permutation(kind):
    everything = micro_batches(kind, 3 * POOL)
    numbers = list(itertools.chain.from_iterable(everything))
    whole_epochs = len(numbers) // 50
    if kind == "by tokens":
        assert sorted(numbers[: whole_epochs * 50]) == list(range(whole_epochs * 50))
    else:
        assert {len(batch) for batch in everything} == {8}
        pools = sorted(numbers)
        assert pools[: whole_epochs * 50] == list(range(whole_epochs * 50))
    assert micro_batches(kind, seed=4) != everything[:50]
    epochs = [[number % 50 for number in numbers[first : first + 50]] for first in (0, 50)]
    assert epochs[0] != epochs[1]


def test_shuffled_order_equals_that_of_earlier_versions():
    order = torch.randperm(50, generator=torch.Generator().manual_seed(3 * 1_000_003)).tolist()
    assert list(itertools.chain.from_iterable(micro_batches("shuffled", 6))) == order[:48]


@settings(max_examples=40, deadline=None)
@given(
    kind=st.sampled_from(ORDERS),
    processes=st.sampled_from([1, 2, 4]),
    accumulate=st.sampled_from([1, 2]),
    first=st.integers(0, 200),
)
def test_processes_together_see_the_items_of_one_process_from_any_step(kind, processes, accumulate, first):
    parts, steps = processes * accumulate, 6
    if kind == "by tokens":  # one process that accumulates has the same micro-batches
        alone = micro_batches(kind, (first + steps) * parts, tokens=96 * 8, accumulate=parts)
    else:
        alone = micro_batches(kind, first + steps)
    shares = [
        micro_batches(kind, steps * accumulate, tokens=96 * 8, process=process, processes=processes,
                      accumulate=accumulate, first_step=first)
        for process in range(processes)
    ]  # fmt: skip
    for step in range(steps):
        share = [part for own in shares for part in own[step * accumulate : (step + 1) * accumulate]]
        if kind == "by tokens":
            expected = alone[(first + step) * parts : (first + step + 1) * parts]
            assert sorted(share) == sorted(expected)
        else:
            assert len({len(part) for part in share}) == 1
            assert sorted(itertools.chain(*share)) == sorted(alone[first + step])


@settings(max_examples=60, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 300), min_size=1, max_size=200),
    room=st.integers(0, 1000),
    parts=st.sampled_from([1, 2, 3]),
)
def test_no_micro_batch_exceeds_its_share_of_the_tokens(lengths, room, parts):
    lengths = np.array(lengths)
    budget = int(lengths.max()) + room
    seen = []
    for batch in TokenBudgetBatches(lengths, budget * parts, 0, division=StepDivision(accumulate=parts)):
        rows = lengths[np.array(batch) % len(lengths)]
        assert len(rows) and len(rows) * rows.max() <= budget
        seen += batch
        if len(seen) >= 2 * len(lengths):
            break
    assert sorted(seen[: len(lengths)]) == list(range(len(lengths)))


def test_less_than_a_tenth_is_padding():
    lengths = np.clip(np.random.default_rng(0).lognormal(3.5, 0.55, 30_000), 4, 160).astype(np.int32)  # as real motion

    def padding(order):
        """Share of padding in the first 2,000 batches."""
        batches = [lengths[np.array(batch) % len(lengths)] for batch in itertools.islice(order, 2000)]
        return 1 - sum(rows.sum() for rows in batches) / sum(len(rows) * rows.max() for rows in batches)

    assert padding(FixedSizeBatches(len(lengths), 32, seed=3)) > 0.4
    assert padding(FixedSizeBatches(len(lengths), 32, seed=3, lengths=lengths)) < 0.1
    for tokens in (1280, 16384):
        assert padding(TokenBudgetBatches(lengths, tokens, seed=3)) < 0.06


@pytest.mark.parametrize(
    "make, words",
    [
        (lambda: FixedSizeBatches(50, 10, 0, division=StepDivision(processes=4)),
         "--batch-size 10 cannot be divided among 4 processes x --accumulate 1; make --batch-size a multiple of 4, or "
         "change --accumulate"),
        (lambda: FixedSizeBatches(50, 8, 0, division=StepDivision(accumulate=3)),
         "divided among 1 process x --accumulate 3; make --batch-size a multiple of 3"),
        (lambda: TokenBudgetBatches(LENGTHS, 25, 0, division=StepDivision(processes=2)),
         "is 12 tokens, and the longest row has 13; set --batch-tokens to 26 or more"),
        (lambda: FixedSizeBatches(0, 8, 0), "no items to train on"),
        (lambda: TokenBudgetBatches(LENGTHS[:0], 96, 0), "no items to train on"),
    ],
)  # fmt: skip
def test_steps_that_cannot_be_divided_are_refused(make, words):
    with pytest.raises(InputError, match=words):
        make()
