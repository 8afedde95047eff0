"""Streams that are decoded together: equal to streams alone, read at any pace, closed, and failing."""

import numpy as np
import pytest

from models.sampling import Sampling
from models.streams import StreamBatch
from tests.inference.helpers import PROMPTS

PLAIN = Sampling(guidance=1.0)


def rows_of_steps(model, monkeypatch) -> list[int]:
    """A list to which each step of the generator appends its number of rows."""
    rows, step = [], model.generator.step
    monkeypatch.setattr(
        model.generator, "step", lambda *arguments: (rows.append(len(arguments[0])), step(*arguments))[1]
    )
    return rows


def assert_equal(streamed: list, alone: list) -> None:
    """Compare chunks bit by bit."""
    for chunk, expected in zip(streamed, alone, strict=True):
        assert chunk.part == expected.part
        for name in ("tokens", "features", "smplx85"):
            np.testing.assert_array_equal(getattr(chunk, name), getattr(expected, name))


def test_streams_of_a_batch_are_bit_by_bit_those_alone(model):
    init = model.generate(["a person jumps"], [8], seconds=[1.0])[0].features[:22]
    asked = [
        {"prompts": PROMPTS[0], "seed": 3, "seconds": 1.0},
        {"prompts": PROMPTS[1], "seed": 4, "sampling": Sampling(guidance=3.0)},
        {"prompts": PROMPTS, "seed": 5, "seconds": [0.4, 1.0, 0.2], "sampling": PLAIN},
        {"prompts": PROMPTS[2], "seed": 6, "init": init, "sampling": PLAIN},
        {"prompts": PROMPTS[:2], "seed": 7, "sampling": Sampling(temperature=0)},
        {"prompts": PROMPTS[0], "seed": 8, "seconds": 0.8, "sampling": PLAIN},
    ]
    alone = [list(model.stream(**each)) for each in asked]
    batch = StreamBatch(model.generator, motions=4)  # some wait for others
    waiting, streams = list(enumerate(asked)), {}
    made = [[] for _ in asked]
    while waiting or streams:
        if waiting:
            number, each = waiting.pop(0)
            streams[number] = model.stream(**each, batch=batch)
        for number in list(streams):
            chunk = next(streams[number], None)
            made[number] += [chunk] if chunk else []
            if chunk is None:
                del streams[number]
    for chunks, expected in zip(made, alone, strict=True):
        assert_equal(chunks, expected)


def test_closed_streams_leave_the_steps_of_the_others(model, monkeypatch):
    rows = rows_of_steps(model, monkeypatch)
    batch = StreamBatch(model.generator, motions=4)
    streams = [model.stream(PROMPTS[0], seed, PLAIN, seconds=2.0, batch=batch) for seed in range(3)]
    for _ in range(3):
        for stream in streams:
            next(stream)
    assert rows == [3, 3]
    streams[1].close()
    assert next(streams[1], None) is None
    for _ in range(2):
        next(streams[0])
    late = model.stream(PROMPTS[1], 3, PLAIN, seconds=2.0, batch=batch)
    next(late)
    next(late)
    assert rows == [3, 3, 3, 2, 2, 3]
    never_read = model.stream(PROMPTS[1], 4, PLAIN, batch=batch)
    for stream in (*streams, late, never_read):
        stream.close()
    assert len(rows) == 6 and all(each.is_over for each in batch.decodings.values())
    assert_equal(list(model.stream(PROMPTS[2], 4, PLAIN, batch=batch)), list(model.stream(PROMPTS[2], 4, PLAIN)))


def test_stream_that_is_read_first_does_not_wait_for_the_others(model, monkeypatch):
    rows = rows_of_steps(model, monkeypatch)
    batch = StreamBatch(model.generator, motions=2)
    slow, fast = (model.stream(PROMPTS[0], seed, PLAIN, seconds=2.0, batch=batch) for seed in (1, 2))
    assert len(list(fast)) == len(rows) + 1 == 15
    chunks = list(slow)
    assert len(rows) == 14  # its tokens were there
    assert_equal(chunks, list(model.stream(PROMPTS[0], 1, PLAIN, seconds=2.0)))


def test_error_of_a_step_is_that_of_all_streams(model, monkeypatch):
    batch = StreamBatch(model.generator, motions=2)
    streams = [model.stream(PROMPTS[0], seed, PLAIN, seconds=2.0, batch=batch) for seed in (1, 2)]
    first = [next(stream) for stream in streams]
    with monkeypatch.context() as broken:
        broken.setattr(model.generator, "step", lambda *_: 1 / 0)
        for stream in streams:
            with pytest.raises(ZeroDivisionError):
                next(stream)
    again = model.stream(PROMPTS[0], 1, PLAIN, seconds=2.0, batch=batch)
    assert_equal([next(again)], first[:1])
