"""Arguments of a call, for all prompts or per prompt: seeds, lengths, constraints."""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import NamedTuple, cast

from control.constraints import Constraints
from utils.errors import InputError
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
    all_seeds = list(seeds) if isinstance(seeds, Iterable) else _successive(parsed, seeds)
    all_seconds: list[Seconds] = list(seconds) if isinstance(seconds, Iterable) else [seconds] * len(parsed)
    all_constraints: list[Constraints | None]
    all_constraints = list(constraints) if isinstance(constraints, Sequence) else [constraints] * len(parsed)
    if not len(parsed) == len(all_seeds) == len(all_seconds) == len(all_constraints):
        raise InputError(
            f"there are {len(parsed)} prompts, {len(all_seeds)} seeds, {len(all_seconds)} lengths and "
            f"{len(all_constraints)} constraints; give one per prompt, or one for all"
        )
    return list(map(Asked, parsed, all_seeds, all_seconds, all_constraints))


def _successive(prompts: Sequence[Prompt], seed: int) -> list[int]:
    """Return a seed per prompt: ``seed``, and the next ones for a prompt that occurs again, as in prompt files."""
    seen: Counter[Prompt] = Counter()
    seeds = []
    for prompt in prompts:
        seeds.append(seed + seen[prompt])
        seen[prompt] += 1
    return seeds


def lengths_of(seconds: Seconds, sentences: int) -> list[float | None]:
    """Return the length of each sentence in seconds; raises InputError if a list has another number of them."""
    if not isinstance(seconds, Iterable):
        return [seconds] * sentences
    lengths = list(seconds)
    if len(lengths) != sentences:
        raise InputError(f"there are {sentences} sentences and {len(lengths)} lengths; give one per sentence")
    return lengths
