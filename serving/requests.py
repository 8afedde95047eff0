"""Validation of a browser's requests: motion for sentences, and edits of motions that were made before."""

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
from motion.resample import FPS
from motion.smplx import smplx85_to_motion
from serving.options import Options
from utils.errors import InputError
from utils.prompts import MAX_SEED, Prompt, safe_name

COLDEST = 0.01  # lowest temperature above 0 (greedy)
WARMEST = 2
MAX_GUIDANCE = 10
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


Start = Callable[[TextToMotion], Iterator[Frames]]
"""Starts the generation of a motion."""


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
    """Whether foot sliding is removed from the finished motions."""

    @classmethod
    def parse(
        cls, data: object, options: Options, model: TextToMotion, defaults: Sampling, poses: ReadMotion = no_files
    ) -> "GenerationRequest":
        """Validate the JSON data of a browser's request.

        Args:
            data: Parsed JSON.
            options, model: Limits of lengths and numbers.
            defaults: Sampling settings for values that the request leaves out, with guidance resolved.
            poses: Returns the motion of a character that poses of constraints name.

        Raises:
            InputError: a value is missing, of the wrong type, or beyond the limits.
        """
        values = as_object(data)
        prompts = values.get("prompts")
        if not isinstance(prompts, list) or not 1 <= len(prompts) <= options.sentences:
            raise InputError(f"give 1 to {options.sentences} sentences, one per line")
        prompt, longest = Prompt.parse(prompts), longest_seconds(options, model)
        seconds = parse_seconds(values.get("seconds"), len(prompts), longest)
        return cls(
            prompt,
            seed=whole_number(values, "seed", 0, MAX_SEED - options.variations, 0),
            variations=whole_number(values, "variations", 1, options.variations, 1),
            sampling=parse_sampling(values, defaults, model.tokens_of(longest)),
            seconds=seconds,
            constraints=limited_constraints(values.get("constraints"), seconds, longest, poses),
            foot_lock=truth(values, "foot_lock", False),
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

    def _start(self, seed: int, model: TextToMotion) -> Iterator[Frames]:
        return model.stream(self.prompt, seed, self.sampling, self.seconds, constraints=self.constraints)


def as_object(data: object) -> dict:
    """Return the data of a request; raises InputError if they are not a JSON object."""
    if not isinstance(data, dict):
        raise InputError("the request is not a JSON object")
    return data


def number(values: dict, name: str, low: float, high: float, default: float | None = None) -> float:
    """Return a number of a request; raises InputError unless it is from ``low`` to ``high``."""
    value = values.get(name, default)
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        raise InputError(f"{name} must be a number from {low} to {high}")
    return value


def truth(values: dict, name: str, default: bool) -> bool:
    """Return a truth value of a request; raises InputError for anything else."""
    value = values.get(name, default)
    if not isinstance(value, bool):
        raise InputError(f"{name} must be true or false")
    return value


def whole_number(values: dict, name: str, low: int, high: int, default: int) -> int:
    """Return a whole number of a request; errors as ``number``."""
    value = number(values, name, low, high, default)
    if value != int(value):
        raise InputError(f"{name} must be a whole number")
    return int(value)


def parse_sampling(values: dict, defaults: Sampling, max_tokens: int | None) -> Sampling:
    """Return the sampling settings of a request, which defaults complete.

    Raises:
        InputError: a value is beyond the limits.
    """
    temperature = number(values, "temperature", 0, WARMEST, defaults.temperature)
    if 0 < temperature < COLDEST:
        raise InputError(f"temperature must be 0 (greedy) or a number from {COLDEST} to {WARMEST}")
    trained = defaults.guidance != 1
    guidance = number(values, "guidance", 0, MAX_GUIDANCE, defaults.guidance) if trained else 1.0
    return replace(defaults, temperature=temperature, guidance=guidance, max_tokens=max_tokens)


def parse_seconds(value: object, sentences: int, longest: float) -> list[float | None]:
    """Return the length of each sentence; ``value`` is one for all of them, or a list with one for each.

    Raises:
        InputError: a length is not a number within the limits, or their number is wrong.
    """
    lengths = value if isinstance(value, list) else [value] * sentences
    if len(lengths) != sentences:
        raise InputError(f"there are {sentences} sentences and {len(lengths)} lengths; give seconds for each sentence")
    return [None if length is None else number({"seconds": length}, "seconds", 0.1, longest) for length in lengths]


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
