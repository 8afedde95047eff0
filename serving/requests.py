"""Validation of a browser's request for motion."""

from dataclasses import dataclass, replace

from models.pipeline import TextToMotion
from models.sampling import Sampling
from motion.resample import FPS
from serving.options import Options
from utils.errors import InputError
from utils.prompts import MAX_SEED, Prompt

COLDEST = 0.01  # lowest temperature above 0 (greedy)
WARMEST = 2
MAX_GUIDANCE = 10
MAX_KEYFRAMES = 12
MAX_POINTS = 64  # of a path
MAX_METRES = 40  # length of a path


@dataclass
class GenerationRequest:
    """A validated request for one or more variations of a motion."""

    prompt: Prompt
    seed: int
    variations: int
    sampling: Sampling
    seconds: float | None
    """Length per sentence in seconds; None lets the generator decide."""

    @classmethod
    def parse(cls, data: object, options: Options, model: TextToMotion, defaults: Sampling) -> "GenerationRequest":
        """Validate the JSON data of a browser's request.

        Args:
            data: Parsed JSON.
            options, model: Limits of lengths and numbers.
            defaults: Sampling settings for values that the request leaves out, with guidance resolved.

        Raises:
            InputError: a value is missing, of the wrong type, or beyond the limits.
        """
        if not isinstance(data, dict):
            raise InputError("the request is not a JSON object")
        prompts = data.get("prompts")
        if not isinstance(prompts, list) or not 1 <= len(prompts) <= options.sentences:
            raise InputError(f"give 1 to {options.sentences} sentences, one per line")
        prompt = Prompt.parse(prompts)

        def number(name: str, low: float, high: float, default: float | None) -> float:
            value = data.get(name, default)
            if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
                raise InputError(f"{name} must be a number from {low} to {high}")
            return value

        seed, variations = (
            number(name, low, high, low)
            for name, low, high in (("seed", 0, MAX_SEED - options.variations), ("variations", 1, options.variations))
        )
        if seed != int(seed) or variations != int(variations):
            raise InputError("seed and variations must be whole numbers")
        temperature = number("temperature", 0, WARMEST, defaults.temperature)
        if 0 < temperature < COLDEST:
            raise InputError(f"temperature must be 0 (greedy) or a number from {COLDEST} to {WARMEST}")
        longest = longest_seconds(options, model)
        sampling = replace(
            defaults,
            temperature=temperature,
            guidance=1.0 if defaults.guidance == 1 else number("guidance", 0, MAX_GUIDANCE, defaults.guidance),
            max_tokens=model.tokens_of(longest),
        )
        seconds = None
        return cls(prompt, int(seed), int(variations), sampling, seconds)


def longest_seconds(options: Options, model: TextToMotion) -> float:
    """Return the maximum length of the motion of one sentence in seconds."""
    return min(options.seconds, model.max_frames / FPS)
