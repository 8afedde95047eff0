"""Arguments of a call, for all prompts or per prompt: seeds, lengths, constraints."""

from collections import Counter
from collections.abc import Iterable, Sequence
from numbers import Integral, Real
from typing import Any, NamedTuple, cast

from control.constraints import Constraints
from utils.errors import InputError, shown
from utils.prompts import Prompt

PromptLike = str | list[str] | Prompt  # see Prompt.parse
Prompts = str | Prompt | Sequence[PromptLike]
Seeds = int | Sequence[int]
Seconds = float | None | Sequence[float | None]  # of each sentence, or one number for all
AllSeconds = Seconds | Sequence[Seconds]
AllConstraints = Constraints | None | Sequence[Constraints | None]


class Asked(NamedTuple):
    """A motion that is asked for."""

    prompt: Prompt
    seed: int
    seconds: Seconds
    constraints: Constraints | None


def per_prompt(prompts: Prompts, seeds: Seeds, seconds: AllSeconds, constraints: AllConstraints) -> list[Asked]:
    """Return the motions that a call of ``TextToMotion.generate_each`` asks for.

    Raises:
        InputError: a prompt is unusable, or there are not as many seeds, lengths or constraints as prompts.
    """
    if isinstance(prompts, str | Prompt) or not isinstance(prompts, Sequence):
        prompts, seconds = [prompts], [cast(Seconds, seconds)]
    parsed = [Prompt.parse(prompt) for prompt in prompts]
    all_seeds = _successive(parsed, seeds) if isinstance(seeds, Integral) else _listed(seeds, len(parsed))
    all_seconds, all_constraints = _listed(seconds, len(parsed)), _listed(constraints, len(parsed))
    if not len(parsed) == len(all_seeds) == len(all_seconds) == len(all_constraints):
        raise InputError(
            f"there are {len(parsed)} prompts, {len(all_seeds)} seeds, {len(all_seconds)} lengths and "
            f"{len(all_constraints)} constraints; give one per prompt, or one for all"
        )
    return list(map(Asked, parsed, all_seeds, all_seconds, all_constraints))


def check_types(asked: Asked) -> None:
    """Raise InputError if the seed, a length or the constraints are of another type."""
    if not isinstance(asked.seed, Integral):
        raise InputError(f"the seed is {shown(repr(asked.seed), 40)}; give a whole number")
    for length in _listed(asked.seconds, 1):
        if not isinstance(length, Real | None):
            raise InputError(f"a length is {shown(repr(length), 40)}; give a number of seconds, or None")
    if not isinstance(asked.constraints, Constraints | None):
        raise InputError(
            f"the constraints are {shown(repr(asked.constraints), 40)}; give Constraints, such as those of "
            "control.files.parse_constraints or read_constraints"
        )


def _listed(value: Any, count: int) -> list[Any]:
    """Return the values of a list, or one value ``count`` times."""
    return list(value) if isinstance(value, Iterable) and not isinstance(value, str | dict) else [value] * count


def _successive(prompts: Sequence[Prompt], seed: Integral) -> list[int]:
    """Return a seed per prompt: ``seed``, and the next ones for a prompt that occurs again, as in prompt files."""
    seen: Counter[Prompt] = Counter()
    seeds = []
    for prompt in prompts:
        seeds.append(int(seed) + seen[prompt])
        seen[prompt] += 1
    return seeds


def lengths_of(seconds: Seconds, sentences: int) -> list[float | None]:
    """Return the length of each sentence in seconds; raises InputError if a list has another number of them."""
    lengths = _listed(seconds, sentences)
    if len(lengths) != sentences:
        raise InputError(f"there are {sentences} sentences and {len(lengths)} lengths; give one per sentence")
    return lengths
