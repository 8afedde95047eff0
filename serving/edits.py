"""Edits of finished motions in the browser: a span that is made anew, and seamless loops."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from editing.generate import redo
from editing.loops import loop
from models.pipeline import TextToMotion
from motion.clip import Clip
from motion.resample import FPS
from serving.options import Options
from serving.requests import Start, as_object, longest_seconds, number, truth, whole_number
from utils.errors import InputError
from utils.prompts import MAX_SEED, Prompt, safe_name

Motions = Callable[[str], dict[str, Clip]]
"""Returns the finished motions of a token by name."""
SHORTEST_REST = 0.2  # seconds that a redone span leaves of a motion


class WholeMotion(NamedTuple):
    """An edited motion as its only ``Frames``."""

    part: int
    smplx85: np.ndarray


@dataclass
class EditRequest:
    """A validated edit of all motions of a finished request."""

    title: str
    edits: Mapping[str, Callable[[TextToMotion], Clip]]
    """Name of each result and the function that makes it."""
    sentences: tuple[str, ...] = ()
    """Sentences that the generator follows."""
    foot_lock: bool = False

    def starts(self) -> dict[str, Start]:
        """Return the name of each result and the function that starts it."""
        return {name: partial(as_one_chunk, edit) for name, edit in self.edits.items()}

    def errors(self, smplx85: np.ndarray) -> list[dict[str, Any]]:
        """Return nothing: an edit has no constraints besides the motion that it keeps."""
        return []

    @classmethod
    def parse_redo(cls, data: object, motions: Motions, options: Options, model: TextToMotion) -> "EditRequest":
        """Validate the JSON data of a request to make a span anew with a sentence.

        Args:
            data: Parsed JSON.
            motions: Finished motions.
            options, model: Limits of lengths and numbers.

        Raises:
            InputError: a value is missing, of the wrong type, or beyond the limits, or the motion is no longer kept.
        """
        values = as_object(data)
        clips, longest = finished(values, motions), longest_seconds(options, model)
        seconds = max(len(clip.smplx85) for clip in clips) / FPS
        start, end = (number(values, name, 0, round(seconds, 2)) for name in ("from", "to"))
        if not 0 < end - start <= longest:
            raise InputError(f"the selection has {end - start:.1f} s; select a span of up to {longest:.1f} s")
        if end - start > seconds - SHORTEST_REST:
            raise InputError("the selection is the whole motion; select a part of it, or generate a new motion")
        sentence = Prompt.parse([values.get("prompt")])  # type: ignore[list-item]  # it is checked there
        seed, name = whole_number(values, "seed", 0, MAX_SEED - len(clips), 0), safe_name(clips[0].title)
        edits = {
            f"{name}_redo{seed}": partial(redone, clip, str(sentence), start, end, seed)
            for seed, clip in enumerate(clips, seed)
        }
        return cls(clips[0].title, edits, sentence.sentences)

    @classmethod
    def parse_loop(cls, data: object, motions: Motions) -> "EditRequest":
        """Validate the JSON data of a request to make motions seamless; arguments and errors as in ``parse_redo``."""
        values = as_object(data)
        clips = finished(values, motions)
        travel, foot_lock = truth(values, "travel", True), truth(values, "foot_lock", False)
        name = safe_name(clips[0].title)
        return cls(
            clips[0].title,
            {f"{name}_loop{count}": partial(looped, clip, travel, foot_lock) for count, clip in enumerate(clips, 1)},
        )


def finished(values: dict, motions: Motions) -> list[Clip]:
    """Return the motions of the token of a request, all or those in ``names``; raises InputError without any."""
    token, names = values.get("motion"), values.get("names")
    kept = motions(token) if isinstance(token, str) else {}
    clips = [clip for name, clip in kept.items() if not isinstance(names, list) or name in names]
    if not clips:
        raise InputError("this motion is no longer available; generate it again")
    return clips


def looped(clip: Clip, travel: bool, foot_lock: bool, model: TextToMotion) -> Clip:
    """Return a clip as a seamless loop, on its way or in place."""
    return loop(clip, travel, foot_lock=foot_lock)


def redone(clip: Clip, sentence: str, start: float, end: float, seed: int, model: TextToMotion) -> Clip:
    """Return a clip whose span from ``start`` to ``end`` seconds is made anew; a shorter clip ends before ``end``."""
    return redo(model, clip, sentence, start, min(end, len(clip.smplx85) / FPS), seed=seed)


def as_one_chunk(edit: Callable[[TextToMotion], Clip], model: TextToMotion) -> Iterator[WholeMotion]:
    """Make an edit when the first chunk is asked for."""
    yield WholeMotion(0, edit(model).smplx85)
