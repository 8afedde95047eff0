"""Wall times of calls."""

import time
from collections.abc import Callable


def seconds_of(call: Callable[[], object], repeats: int) -> list[float]:
    """Return the seconds of each of ``repeats`` calls, after a first one that is not measured."""
    call()
    seconds = []
    for _ in range(repeats):
        started = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - started)
    return seconds
