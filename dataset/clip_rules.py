"""The clips of a motion by the rules of its data set: their frames, their captions, and reasons for leaving out."""

import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from dataset.captions import CaptionLine, CaptionStyle, TwoActions
from dataset.clips import Clip
from dataset.feature_files import OWN_FILE, FeatureFiles, Place
from dataset.layouts import Split
from motion.resample import FPS
from utils.errors import InputError, shown
from utils.reading.texts import read_lines

# Reasons for leaving out motions and parts, to stand after their number.
NO_MOTION = "without a motion file"
NO_TEXT = "without a caption file"
NO_CAPTION = "without a caption"
NO_FRAMES = "as a described part outside its motion"


class Description(NamedTuple):
    """Captions of a motion or of a part of it."""

    captions: list[str]
    frames: tuple[int, int] | None = None
    """First frame of the described part, and the frame after its last; None for the whole motion."""
    context: int = 0
    """Frames at the start of the motion that are not described."""


def clips_of_motion(split: Split, files: FeatureFiles, name: str, place: Place, left_out: Counter) -> Iterator[Clip]:
    """Yield the clips of a motion: the whole motion if it is described as a whole, then the described parts.

    Without captions (``split.has_captions``), the whole motion is the only clip. A part is the frames
    int(from * 30):int(to * 30) of the motion. In the splits that the public code evaluates on, a motion and a part of
    other lengths than the layout's are left out; a motion is left out with all its parts.

    Args:
        name: Name of the motion.
        place: Place of the motion.
        left_out: Number of motions and parts left out, by reason; this function adds to it.

    Raises:
        InputError: a file cannot be read, or is missing in a strict layout.
    """
    if place.container == OWN_FILE and not os.path.isfile(files.source(name, place)):
        if split.layout.strict:
            raise InputError(
                f"{shown(split.listed_in, 180)} lists {shown(name)}, but {shown(files.source(name, place), 180)} does "
                "not exist; prepare the data again"
            )
        left_out[NO_MOTION] += 1
        return
    total = files.count_frames(name, place)
    if not split.has_captions:
        yield Clip(name, [], 0, total, False, 0, *place)
        return
    file = split.texts / f"{name}.txt"
    if not split.layout.strict and not os.path.isfile(file):
        left_out[NO_TEXT] += 1
        return
    if not _has_length(total, split, left_out):
        return
    described = read_descriptions(file, name, split)
    if not described:
        left_out[NO_CAPTION] += 1
    for captions, part, context in described:
        start, stop = part or (0, total)
        frames = min(stop, total) - start
        if frames < 1 or context >= frames:
            left_out[NO_FRAMES] += 1
        elif part is None or _has_length(frames, split, left_out, "as a described part "):
            yield Clip(name, captions, start, frames, part is not None, context, *place)


def _has_length(frames: int, split: Split, left_out: Counter, prefix: str = "") -> bool:
    """Whether clips of a split may have a number of frames; counts those that may not."""
    if split.lengths is None or frames in split.lengths:
        return True
    shortest, longest = split.lengths[0], split.lengths[-1]
    reason = f"shorter than {shortest} frames" if frames < shortest else f"longer than {longest} frames"
    left_out[prefix + reason] += 1
    return False


def read_descriptions(file: Path, name: str, split: Split) -> list[Description]:
    """Read a caption file: the captions of the whole motion first, if there are any, then those of its parts.

    In a strict layout, captions with the same times share a part. Otherwise each line with times is a part of its own,
    as in the public code.

    Args:
        file: Caption file.
        name: Name of the motion, for the error.
        split: Split of the motion; its layout determines the form of the lines.

    Raises:
        InputError: the file is missing, or a line has another form.
    """
    if not os.path.exists(file):
        raise InputError(f"clip {name} has no captions: {file} is missing; write them to it, one per line")
    lines, style = read_lines(file, "captions"), split.layout.captions
    whole: list[str] = []
    parts: list[Description] = []
    for number, line in enumerate(lines, start=1):
        try:
            if style is CaptionStyle.TWO_ACTIONS:
                if line.strip():
                    parts += _two_actions(TwoActions.parse(line))
                continue
            caption, span = CaptionLine.parse(line, style)
        except InputError as error:
            raise InputError(f"line {number} of {file} {error}") from error
        if span is None:
            whole.append(caption)
        elif caption:
            frames = (max(0, int(span[0] * FPS)), max(0, int(span[1] * FPS)))
            same = next((part for part in parts if part.frames == frames), None) if split.layout.strict else None
            if same is None:
                parts.append(Description([caption], frames))
            else:
                same.captions.append(caption)
    keeps_blank = style is CaptionStyle.LINE and split.name != "train"  # as in the public evaluation of MotionMillion
    captions = whole if keeps_blank and any(whole) else list(filter(None, whole))
    return [*([Description(captions)] if captions else []), *parts]


def _two_actions(line: TwoActions) -> list[Description]:
    """Descriptions of two actions in a row: the second one with the first as its context, and the first one alone."""
    second = [Description([line.second], None, line.frames)] if line.second else []
    first = [Description([line.first], (0, line.frames))] if line.first and line.frames else []
    return second + first
