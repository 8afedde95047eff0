"""Edits of finished motions in the browser: a span that is made anew, and seamless loops."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import numpy as np

from editing.loops import loop as redo
from editing.loops import loop
from models.pipeline import TextToMotion
from models.sampling import Sampling
from motion.clip import Clip
from motion.resample import FPS
from serving.options import Options
from serving.requests import Start, as_object, longest_seconds, number, parse_sampling, whole_number
from utils.errors import InputError
from utils.prompts import MAX_SEED, Prompt, safe_name

Motions = Callable[[str], dict[str, Clip]]
"""Returns the finished motions of a token by name."""


class WholeMotion(NamedTuple):
    """An edited motion as its only ``Frames``."""

    part: int
    smplx85: np.ndarray


@dataclass
class EditRequest:
    """A validated edit of all motions of a finished request."""

    title: str
    edits: dict[str, Callable[[TextToMotion], Clip]]
    """Name of each result and the function that makes it."""

    def starts(self) -> dict[str, Start]:
        """Return the name of each result and the function that starts it."""
        return {name: partial(as_one_chunk, edit) for name, edit in self.edits.items()}

    @classmethod
    def parse_redo(
        cls, data: object, motions: Motions, options: Options, model: TextToMotion, defaults: Sampling
    ) -> "EditRequest":
        """Validate the JSON data of a request to make a span anew with a sentence.

        Args:
            data: Parsed JSON.
            motions: Finished motions.
            options, model: Limits of lengths and numbers.
            defaults: Sampling settings for values that the request leaves out, with guidance resolved.

        Raises:
            InputError: a value is missing, of the wrong type, or beyond the limits, or the motion is no longer kept.
        """
        values = as_object(data)
        clips, longest = finished(values, motions), longest_seconds(options, model)
        end = max(len(clip.smplx85) for clip in clips) / FPS
        start, stop = number(values, "from", 0, end), number(values, "to", 0, end + 0.1)
        if not 0 < stop - start <= longest:
            raise InputError(f"the selection has {stop - start:.1f} s; select a span of up to {longest:.1f} s")
        prompt = values.get("prompt")
        sentence = str(Prompt.parse([prompt]))  # type: ignore[list-item]  # Prompt.parse checks its type
        seed = whole_number(values, "seed", 0, MAX_SEED - options.variations, 0)
        sampling = parse_sampling(values, defaults, model.tokens_of(longest))
        name = safe_name(clips[0].title)
        edits: dict[str, Callable[[TextToMotion], Clip]] = {}
        for number_, clip in enumerate(clips):
            edits[f"{name}_redo{seed + number_}"] = partial(
                redone, clip, start, stop, sentence, seed + number_, sampling
            )
        return cls(clips[0].title, edits)

    @classmethod
    def parse_loop(cls, data: object, motions: Motions) -> "EditRequest":
        """Validate the JSON data of a request to make motions seamless; arguments and errors as in ``parse_redo``."""
        values = as_object(data)
        clips, travel = finished(values, motions), values.get("travel", True)
        if not isinstance(travel, bool):
            raise InputError("travel must be true or false")
        name = safe_name(clips[0].title)
        return cls(
            clips[0].title,
            {f"{name}_loop{count}": partial(looped, clip, travel) for count, clip in enumerate(clips, 1)},
        )


def finished(values: dict, motions: Motions) -> list[Clip]:
    """Return the motions that a request names by their token; raises InputError if they are no longer kept."""
    token = values.get("motion")
    clips = list(motions(token).values()) if isinstance(token, str) else []
    if not clips:
        raise InputError("this motion is no longer available; generate it again")
    return clips


def looped(clip: Clip, travel: bool, model: TextToMotion) -> Clip:
    """Return a clip as a seamless loop, on its way or in place."""
    return loop(clip, travel)


def redone(
    clip: Clip, start: float, end: float, sentence: str, seed: int, sampling: Sampling, model: TextToMotion
) -> Clip:
    """Return a clip whose span from ``start`` to ``end`` seconds is made anew; it may end before ``end``."""
    return redo(model, clip, start, min(end, len(clip.smplx85) / FPS), sentence, seed, sampling)


def as_one_chunk(edit: Callable[[TextToMotion], Clip], model: TextToMotion) -> Iterator[WholeMotion]:
    """Make an edit when the first chunk is asked for."""
    yield WholeMotion(0, edit(model).smplx85)
