"""Requests for motion within the limits of the server."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Protocol

import numpy as np

from control.checks import check_constraints
from control.constraints import Constraints
from control.files import ReadMotion, no_files, parse_constraints
from control.paths import lengths_along
from control.report import measure
from models.pipeline import TextToMotion
from models.sampling import Sampling
from models.streams import StreamBatch
from motion.resample import FPS
from motion.smplx import smplx85_to_motion
from serving.options import Options
from serving.schemas import COLDEST, WARMEST, GenerateBody
from utils.errors import InputError
from utils.prompts import Prompt, safe_name

SHORTEST = 0.1  # seconds of a sentence
MAX_CONSTRAINTS = 16  # poses, pins, waypoints and so on
MAX_POINTS = 64  # of a path
MAX_METRES = 40  # length of a path


class Frames(Protocol):
    """The next frames of a motion, such as a ``MotionChunk``."""

    @property
    def part(self) -> int:
        """Number of the sentence, from 0."""

    @property
    def smplx85(self) -> np.ndarray:
        """(T, 85) poses."""


Start = Callable[[TextToMotion, StreamBatch], Iterator[Frames]]
"""Starts the generation of a motion, which may be decoded together with those of the batch."""


@dataclass
class GenerationRequest:
    """A validated request for one or more variations of a motion."""

    prompt: Prompt
    seed: int
    variations: int
    sampling: Sampling
    seconds: list[float | None]
    """Length of each sentence in seconds; None lets the generator decide."""
    constraints: Constraints | None
    foot_lock: bool = False
    """Whether foot sliding is removed from the finished motions; constraints hold the feet themselves."""

    @classmethod
    def parse(
        cls, body: GenerateBody, options: Options, model: TextToMotion, defaults: Sampling, poses: ReadMotion = no_files
    ) -> "GenerationRequest":
        """Validate a request against the limits of the server.

        Args:
            body: The request.
            options, model: Limits of lengths and numbers.
            defaults: Sampling settings for values that the request leaves out, with guidance resolved.
            poses: Returns the motion of a character that poses of constraints name.

        Raises:
            InputError: a value is beyond the limits.
        """
        if not 1 <= len(body.prompts) <= options.sentences:
            raise InputError(f"give 1 to {options.sentences} sentences, one per line")
        if body.variations > options.variations:
            raise InputError(f"variations must be at most {options.variations}")
        prompt, longest = Prompt.parse(body.prompts), longest_seconds(options, model)
        seconds = parse_seconds(body.seconds, len(body.prompts), longest)
        return cls(
            prompt,
            seed=body.seed,
            variations=body.variations,
            sampling=parse_sampling(body, defaults, model.tokens_of(longest)),
            seconds=seconds,
            constraints=limited_constraints(body.constraints, seconds, longest, poses),
            foot_lock=body.foot_lock and body.constraints is None,
        )

    @property
    def title(self) -> str:
        """Title of the motions."""
        return " ".join(self.prompt.sentences)

    @property
    def sentences(self) -> tuple[str, ...]:
        """Sentences that the generator follows."""
        return self.prompt.sentences

    def starts(self) -> dict[str, Start]:
        """Return the name of each variation and the function that starts it."""
        name, seeds = safe_name(self.title), range(self.seed, self.seed + self.variations)
        return {f"{name}_seed{seed}": partial(self._start, seed) for seed in seeds}

    def errors(self, smplx85: np.ndarray) -> list[dict[str, Any]]:
        """Return how far a motion (T, 85) is from each constraint, as in ``control.report``."""
        if self.constraints is None:
            return []
        return [error.to_dict() for error in measure(self.constraints, *smplx85_to_motion(smplx85.astype(np.float64)))]

    def _start(self, seed: int, model: TextToMotion, batch: StreamBatch) -> Iterator[Frames]:
        return model.stream(self.prompt, seed, self.sampling, self.seconds, constraints=self.constraints, batch=batch)


def parse_sampling(body: GenerateBody, defaults: Sampling, max_tokens: int | None) -> Sampling:
    """Return the sampling settings of a request, which defaults complete.

    Raises:
        InputError: the temperature is beyond the limits.
    """
    temperature = defaults.temperature if body.temperature is None else body.temperature
    if 0 < temperature < COLDEST:
        raise InputError(f"temperature must be 0 (greedy) or a number from {COLDEST} to {WARMEST}")
    given = body.guidance is not None and defaults.guidance != 1  # the model was trained for it
    return replace(
        defaults,
        temperature=temperature,
        guidance=body.guidance if given else defaults.guidance,
        max_tokens=max_tokens,
    )


def parse_seconds(value: float | list[float | None] | None, sentences: int, longest: float) -> list[float | None]:
    """Return the length of each sentence; ``value`` is one for all of them, or a list with one for each.

    Raises:
        InputError: a length is beyond the limits, or their number is wrong.
    """
    lengths = value if isinstance(value, list) else [value] * sentences
    if len(lengths) != sentences:
        raise InputError(f"there are {sentences} sentences and {len(lengths)} lengths; give seconds for each sentence")
    if any(length is not None and not SHORTEST <= length <= longest for length in lengths):
        raise InputError(f"seconds must be a number from {SHORTEST} to {longest}")
    return lengths


def limited_constraints(
    value: object, seconds: list[float | None], longest: float, poses: ReadMotion = no_files
) -> Constraints | None:
    """Return the constraints of a request; poses are given as numbers or as frames of a character, not as files.

    Args:
        value: JSON in the form of ``control.files``, or None.
        seconds: Length of each sentence, or None.
        longest: Maximum length of a sentence in seconds.
        poses: Returns the motion of a character.

    Raises:
        InputError: a constraint is unusable or beyond the limits, or constraints contradict each other.
    """
    if value is None:
        return None
    constraints = parse_constraints(value, poses)
    count = sum(1 for _ in constraints.items())
    if count > MAX_CONSTRAINTS:
        raise InputError(f"the request has {count} constraints; give at most {MAX_CONSTRAINTS}")
    most = sum(longest if length is None else length for length in seconds)
    if constraints.needed_length > most + 1 / FPS:
        raise InputError(
            f"a constraint is at {constraints.needed_length:.1f} s, and the motion has at most {most:.1f} s; "
            "give the sentences more time, or move the constraint"
        )
    if constraints.path is not None:
        points, metres = constraints.path.points, lengths_along(constraints.path.curve())[-1]
        if len(points) > MAX_POINTS or metres > MAX_METRES:
            raise InputError(
                f"the path has {len(points)} points and {metres:.0f} m; give at most {MAX_POINTS} and {MAX_METRES} m"
            )
    check_constraints(constraints, None if None in seconds else most)
    return constraints


def longest_seconds(options: Options, model: TextToMotion) -> float:
    """Return the maximum length of the motion of one sentence in seconds."""
    return min(options.seconds, model.max_frames / FPS)
