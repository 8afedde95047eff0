"""Edits of finished motions in the browser: a span that is made anew, and seamless loops."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from editing.generate import redo
from editing.loops import loop
from models.pipeline import TextToMotion
from models.streams import StreamBatch
from motion.clip import Clip
from motion.resample import FPS
from serving.errors import Refused
from serving.options import Options
from serving.requests import Start, longest_seconds
from serving.schemas import LoopBody, RedoBody
from utils.errors import InputError, shown
from utils.prompts import Prompt, safe_name

FindMotions = Callable[[str], dict[str, Clip]]
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
    """Whether foot sliding is removed from the results; an edit keeps the rest of its motion as it is."""

    def starts(self) -> dict[str, Start]:
        """Return the name of each result and the function that starts it."""
        return {name: partial(as_one_chunk, edit) for name, edit in self.edits.items()}

    def errors(self, smplx85: np.ndarray) -> list[dict[str, Any]]:
        """Return nothing: an edit has no constraints besides the motion that it keeps."""
        return []

    @classmethod
    def parse_redo(cls, body: RedoBody, motions: FindMotions, options: Options, model: TextToMotion) -> "EditRequest":
        """Validate a request to make a span anew with a sentence.

        Args:
            body: The request.
            motions: Finished motions.
            options, model: Limits of lengths and numbers.

        Raises:
            InputError: a value is beyond the limits, or the motion is no longer kept.
        """
        clips, longest = finished(body, motions), longest_seconds(options, model)
        seconds, start, end = max(len(clip.smplx85) for clip in clips) / FPS, body.start, body.to
        if end > round(seconds, 2):
            raise InputError(f"to is {end:g} s, and the motion has {seconds:.2f} s; select a span within it")
        if not 0 < end - start <= longest:
            raise InputError(f"the selection has {end - start:.1f} s; select a span of up to {longest:.1f} s, above 0")
        if end - start > seconds - SHORTEST_REST:
            raise InputError("the selection is the whole motion; select a part of it, or generate a new motion")
        sentence, name = Prompt.parse(body.prompt), safe_name(clips[0].title)
        if len(sentence.sentences) > options.sentences:
            raise InputError(f"give 1 to {options.sentences} sentences for the selection")
        edits = {
            f"{name}_redo{seed}": partial(redone, clip, str(sentence), start, end, seed)
            for seed, clip in enumerate(clips, body.seed)
        }
        return cls(clips[0].title, edits, sentence.sentences)

    @classmethod
    def parse_loop(cls, body: LoopBody, motions: FindMotions) -> "EditRequest":
        """Validate a request to make motions seamless; arguments and errors as in ``parse_redo``."""
        clips = finished(body, motions)
        name = safe_name(clips[0].title)
        return cls(
            clips[0].title,
            {
                f"{name}_loop{count}": partial(looped, clip, body.travel, body.foot_lock)
                for count, clip in enumerate(clips, 1)
            },
        )


def finished(body: RedoBody | LoopBody, motions: FindMotions) -> list[Clip]:
    """Return the motions that a request edits; raises InputError if they are no longer kept, or a name is unknown."""
    kept = motions(body.motion)
    if not kept:
        raise Refused("this motion is no longer available; generate it again", 404)
    names = kept if body.names is None else body.names
    if not names or not set(names) <= set(kept):
        raise InputError(f"names is {shown(names, 100)}; give some of {', '.join(kept)}, or leave it out")
    return [clip for name, clip in kept.items() if name in names]


def looped(clip: Clip, travel: bool, foot_lock: bool, model: TextToMotion) -> Clip:
    """Return a clip as a seamless loop, on its way or in place."""
    return loop(clip, travel, foot_lock=foot_lock)


def redone(clip: Clip, sentence: str, start: float, end: float, seed: int, model: TextToMotion) -> Clip:
    """Return a clip whose span from ``start`` to ``end`` seconds is made anew; a shorter clip ends before ``end``."""
    return redo(model, clip, sentence, start, min(end, len(clip.smplx85) / FPS), seed=seed)


def as_one_chunk(
    edit: Callable[[TextToMotion], Clip], model: TextToMotion, batch: StreamBatch
) -> Iterator[WholeMotion]:
    """Make an edit when the first chunk is asked for."""
    yield WholeMotion(0, edit(model).smplx85)
