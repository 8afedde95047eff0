"""Settings of sampling; this module imports no PyTorch, so that options can be read without it."""

from dataclasses import dataclass

from utils.errors import InputError

GUIDANCE = 2.0  # default scale for models trained with text dropout
# Bounds within which logits divided by the temperature, and guided logits, stay finite and distinct in float32.
MIN_TEMPERATURE, MAX_TEMPERATURE = 1e-9, 100.0
MIN_TOP_P = 1e-9
MAX_GUIDANCE = 100.0


@dataclass(frozen=True)
class Sampling:
    """Settings by which tokens are sampled from logits; invalid values raise InputError."""

    temperature: float = 1.0
    """Divisor of the logits, from ``MIN_TEMPERATURE`` to ``MAX_TEMPERATURE``; 0 selects the most likely token
    (greedy)."""
    top_k: int = 0
    """Sample from the k most likely tokens; 0 for all."""
    top_p: float = 1.0
    """Sample from the most likely tokens that together reach this probability (Holtzman et al., 2020); from
    ``MIN_TOP_P`` to 1."""
    guidance: float | None = 1.0
    """Scale of classifier-free guidance: 1 for none, larger values up to ``MAX_GUIDANCE`` follow the text more closely.
    None is ``GUIDANCE``, or 1 for a model trained without text dropout (see ``resolve_guidance``)."""
    min_tokens: int = 1
    """Smallest number of tokens before the end; at least 1, as a motion is never empty."""
    max_tokens: int | None = None
    """Largest number of tokens; the model's limit if None."""

    def __post_init__(self) -> None:
        if self.temperature != 0 and not MIN_TEMPERATURE <= self.temperature <= MAX_TEMPERATURE:
            raise InputError(
                f"temperature is {self.temperature}; give 0 (greedy) or {MIN_TEMPERATURE:g} to {MAX_TEMPERATURE:g}"
            )
        if self.top_k < 0:
            raise InputError(f"top_k is {self.top_k}; give 0 (off) or more")
        if not MIN_TOP_P <= self.top_p <= 1:
            raise InputError(f"top_p is {self.top_p}; give a probability from {MIN_TOP_P:g} to 1")
        if self.guidance is not None and not 0 <= self.guidance <= MAX_GUIDANCE:
            raise InputError(f"guidance is {self.guidance}; give 1 (none) or another scale from 0 to {MAX_GUIDANCE:g}")
        if self.min_tokens < 1:
            raise InputError(f"min_tokens is {self.min_tokens}; give at least 1")
        if self.max_tokens is not None and self.max_tokens < self.min_tokens:
            raise InputError(f"max_tokens is {self.max_tokens}, below min_tokens ({self.min_tokens}); raise it")


DEFAULT_SAMPLING = Sampling(temperature=0.9, top_p=0.95, guidance=None)
