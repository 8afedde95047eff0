"""Caption files of HumanML3D and KIT-ML, and which clips and parts the public reader keeps.

Source: text-to-motion (Guo et al., CVPR 2022), data/dataset.py, Text2MotionDatasetV2. A clip, and a part of a clip,
is kept within limits of its length; parts of a clip outside the limits are dropped with it.
"""

from pathlib import Path
from typing import NamedTuple

from dataset.captions import CaptionLine
from utils.errors import InputError, shown


class Limits(NamedTuple):
    """Frame rate of a data set, and the lengths that its public reader keeps, in frames."""

    name: str
    fps: float
    least: int
    below: int

    def keeps(self, frames: int) -> bool:
        return self.least <= frames < self.below


HUMANML3D = Limits("HumanML3D", 20, 40, 200)
KIT = Limits("KIT-ML", 12.5, 24, 200)


def kept_lines(
    lines: list[str], frames: int, limits: Limits, file: Path, stretch: float = 1.0
) -> tuple[list[str], list[str]]:
    """Return the caption lines of a clip that the public reader keeps, and a sentence for each other one.

    Args:
        lines: Lines of the caption file.
        frames: Length of the clip in frames of the data set.
        limits: The data set.
        file: The caption file, for the sentences.
        stretch: Seconds of the motion per second in the file, by which the times are multiplied.

    Raises:
        InputError: the clip itself is outside the limits, or no line is kept.
    """
    bounds = f"the {limits.least} to {limits.below - 1} frames that {limits.name} uses"
    if not limits.keeps(frames):
        raise InputError(f"the clip has {frames} frames, outside {bounds}")
    kept, left_out = [], []
    for number, line in enumerate(map(str.strip, lines), start=1):
        try:
            caption, span = CaptionLine.parse(line)
        except InputError as error:
            left_out.append(f"{shown(file, 200)}: line {number} {error}")
            continue
        if caption and span is None:
            kept.append(line)
        elif caption and span:
            part = len(range(frames)[int(span[0] * limits.fps) : int(span[1] * limits.fps)])
            if limits.keeps(part):
                kept.append(line if stretch == 1 else _stretched(line, span, stretch))
            else:
                left_out.append(f"{shown(file, 200)}: the part of line {number} has {part} frames, outside {bounds}")
    if not kept:
        raise InputError(f"{file.name} has no caption of the clip, nor of a part with {bounds}")
    return kept, left_out


def _stretched(line: str, span: tuple[float, float], stretch: float) -> str:
    """Return a line with its times multiplied."""
    start, end = (round(time * stretch, 4) for time in span)
    return f"{line.rsplit('#', 2)[0]}#{start}#{end}"
