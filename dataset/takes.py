"""Takes: labelled parts of motion files, and copies of them that give each action enough training clips.

A copy is played at another speed. Copies of a continuous action, any stretch of which shows it, are also windows of the
take.
"""

import math
from collections.abc import Iterator
from random import Random
from typing import Any, NamedTuple

import numpy as np

from motion.features272 import heading_angle
from motion.resample import FPS, resample_positions, resample_rotations
from motion.rotation import axis_angle_to_matrix, matrix_to_axis_angle, y_rotation
from motion.skeleton import turn_world
from utils.errors import InputError
from utils.reading.files import shown

SPEEDS = (0.87, 1.15)  # slowest and fastest copy
WINDOWS = (3.0, 8.0)  # seconds: shortest and longest window
LONGEST = 9.0  # seconds of a continuous take that is kept whole
TILE = 6.0  # seconds: longest part into which a longer one is divided
MAX_REPEATS = 100
FLOOR = np.array([1.0, 0.0, 1.0])  # factor that drops the height of a position


class Take(NamedTuple):
    """A part of a motion file with labels."""

    content: str
    """Label of the action; empty for a clip that has captions of its own."""
    style: str = ""
    """Label of the manner; empty if captions name none."""
    start: float = 0.0
    """First time in seconds."""
    end: float | None = None
    """Last time in seconds; None for the end of the file."""
    repeat: int = 1
    """Number of times that the part is played; more than 1 for a loop, whose last pose is its first one."""
    forward: float = 0.0
    """Speed in metres per second that is added to a motion recorded on the spot, in its mean direction."""

    @classmethod
    def parse(cls, entry: Any) -> "Take":
        """Read an entry of ``takes`` in a captions file: content; optionally style, from, to, repeat and forward.

        Raises:
            InputError: the entry is invalid.
        """
        if isinstance(entry, Take):
            return entry
        problem = f"the take {shown(repr(entry))} is invalid; "
        keys = ("content", "style", "from", "to", "repeat", "forward")
        if not isinstance(entry, dict) or "content" not in entry or not entry.keys() <= set(keys):
            raise InputError(f"{problem}give its content, and no keys but {', '.join(keys)}")
        names = dict(zip(keys, cls._fields, strict=True))
        values: dict[str, Any] = {names[key]: value for key, value in entry.items()}
        take = cls(**values)
        texts = isinstance(take.content, str) and take.content and isinstance(take.style, str)
        times = [take.start] if take.end is None else [take.start, take.end]
        if not texts or not all(_is_number(time) for time in times) or times != sorted(set(times)):
            raise InputError(f"{problem}content and style are texts, and from is before to in seconds")
        if not _is_number(take.forward):
            raise InputError(f"{problem}forward is a speed in metres per second")
        if type(take.repeat) is not int or not 1 <= take.repeat <= MAX_REPEATS:
            raise InputError(f"{problem}repeat is a number from 1 to {MAX_REPEATS}")
        return take

    def seconds(self, file_seconds: float) -> float:
        """Return the length of the take in a file of ``file_seconds``, with its repetitions."""
        end = file_seconds if self.end is None else min(self.end, file_seconds)
        return max(0.0, end - self.start) * self.repeat


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < math.inf


class Part(NamedTuple):
    """The motion of a clip: a take or a window of it, at its own speed or at another one."""

    take: Take
    window: tuple[float, float] | None = None
    """First and last time in seconds of the take with its repetitions."""
    speed: float = 1.0
    """2 is twice as fast."""

    def of(self, rotations: np.ndarray, pelvis: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Cut the part out of the motion of a file.

        Args:
            rotations: Local rotations at 30 frames per second, (T, 22, 3, 3).
            pelvis: World positions of the pelvis in metres, (T, 3).

        Raises:
            InputError: the part lies beyond the end of the file.
        """
        take = self.take
        rotations, pelvis = (
            _between(values, take.start, take.end).astype(np.float64) for values in (rotations, pelvis)
        )
        if len(pelvis) < 2:
            raise InputError(f"the take from {take.start:g} s lies beyond the end of the file; correct it")
        rotations = rotations.astype(np.float64)
        pelvis = moved_forward(rotations, pelvis.astype(np.float64), take.forward)
        if take.repeat > 1:
            rotations, pelvis = repeated(*closed(rotations, pelvis), take.repeat)
        if self.window:
            rotations, pelvis = (_between(values, *self.window) for values in (rotations, pelvis))
        fps = FPS / self.speed
        return resample_rotations(rotations, FPS, fps), resample_positions(pelvis, FPS, fps)


def _between(values: np.ndarray, start: float, end: float | None) -> np.ndarray:
    return values[round(start * FPS) : None if end is None else round(end * FPS)]


def moved_forward(rotations: np.ndarray, pelvis: np.ndarray, speed: float) -> np.ndarray:
    """Return the pelvis (T, 3), moved at a speed in metres per second in the mean direction of the body."""
    heading = heading_angle(rotations[:, 0])
    direction = np.array([np.sin(heading).mean(), 0.0, np.cos(heading).mean()])
    return pelvis + speed / FPS * np.arange(len(pelvis))[:, None] * direction / np.linalg.norm(direction)


def closed(rotations: np.ndarray, pelvis: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Spread the small difference between the ends of a loop over its frames, so that its last pose is its first one.

    Heading and place of the last frame are kept; shapes as in ``repeated``.
    """
    turn = y_rotation(np.array(heading_angle(rotations[-1, 0]) - heading_angle(rotations[0, 0])))
    target, _ = turn_world(rotations[0], pelvis[0], turn)
    gap = matrix_to_axis_angle(rotations[-1].swapaxes(-1, -2) @ target)  # (22, 3)
    weight = np.linspace(0.0, 1.0, len(pelvis))[:, None]
    rise = weight * (pelvis[0] - pelvis[-1]) * (1.0 - FLOOR)
    return rotations @ axis_angle_to_matrix(weight[..., None] * gap), pelvis + rise


def repeated(rotations: np.ndarray, pelvis: np.ndarray, times: int) -> tuple[np.ndarray, np.ndarray]:
    """Play a loop several times; each round starts with the place and the heading that end the last one.

    Args:
        rotations: Local rotations (T, 22, 3, 3), the last of which are the first ones except for the heading.
        pelvis: World positions of the pelvis in metres, (T, 3).
        times: Number of rounds.

    Returns:
        Rotations and positions of ``times * (T - 1) + 1`` frames.
    """
    rounds = [(rotations, pelvis)]
    for _ in range(times - 1):
        ended, place = rounds[-1][0][-1, 0], rounds[-1][1][-1]
        turn = y_rotation(np.array(heading_angle(ended) - heading_angle(rotations[0, 0])))
        turned, path = turn_world(rotations[1:], pelvis[1:] - pelvis[0] * FLOOR, turn)
        rounds.append((turned, path + place * FLOOR))
    return np.concatenate([turned for turned, _ in rounds]), np.concatenate([path for _, path in rounds])


def tiles(take: Take, seconds: float) -> list[Part]:
    """Divide a continuous take of a length in seconds, with its repetitions, into equal windows if it is long."""
    if seconds <= LONGEST:
        return [Part(take)]
    edges = np.linspace(0.0, seconds, math.ceil(seconds / TILE) + 1)
    return [Part(take, (float(start), float(end))) for start, end in zip(edges[:-1], edges[1:], strict=True)]


def copies(take: Take, name: str, count: int, seconds: float | None = None) -> Iterator[Part]:
    """Yield copies of a take at speeds that are evenly spread; the same for the same name.

    Args:
        take: The take.
        name: Seed of the random choices.
        count: Number of copies.
        seconds: Length of a continuous take, of which copies are windows; None for a one-off action.
    """
    random = Random(name)
    offset, (slowest, fastest) = random.random(), SPEEDS
    for number in range(count):
        speed = round(slowest + (fastest - slowest) * (number + offset) / count, 4)
        window = None
        if seconds is not None and seconds > WINDOWS[0]:
            length = random.uniform(WINDOWS[0], min(WINDOWS[1], seconds))
            start = random.uniform(0.0, seconds - length)
            window = (round(start, 3), round(start + length, 3))
        yield Part(take, window, speed)


def shares(names: list[str], weights: list[float], total: int) -> list[int]:
    """Divide a number of copies among takes in proportion to their weights; remainders go to random takes."""
    exact = [total * weight / sum(weights) for weight in weights]
    counts = [int(value) for value in exact]
    order = sorted(range(len(names)), key=lambda index: (counts[index] - exact[index], Random(names[index]).random()))
    for index in order[: total - sum(counts)]:
        counts[index] += 1
    return counts
