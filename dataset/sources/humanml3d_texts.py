"""Caption files of HumanML3D and KIT-ML, and which clips and parts the public reader keeps.

Source: text-to-motion (Guo et al., CVPR 2022), data/dataset.py, Text2MotionDatasetV2. A clip, and a part of a clip,
is kept within limits of its length; parts of a clip outside the limits are dropped with it.
"""

from pathlib import Path
from typing import NamedTuple

from dataset.caption_table import caption_line
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
    if not limits.keeps(frames):
        raise InputError(f"{shown(file, 200)} is of a clip of {frames} frames, and {limits.name} uses "
                         f"{limits.least} to {limits.below - 1}; nothing is to be done")  # fmt: skip
    kept, left_out = [], []
    for number, line in enumerate(lines, start=1):
        try:
            caption, span = CaptionLine.parse(line)
        except InputError as error:
            left_out.append(f"{shown(file, 200)}: line {number} {error}")
            continue
        if not caption:
            continue
        if span is None:
            kept.append(caption_line(caption))
            continue
        part = len(range(frames)[int(span[0] * limits.fps) : int(span[1] * limits.fps)])
        if limits.keeps(part):
            kept.append(caption_line(caption, (span[0] * stretch, span[1] * stretch)))
        else:
            left_out.append(f"{shown(file, 200)}: line {number} is left out: its part has {part} frames, and "
                            f"{limits.name} uses {limits.least} to {limits.below - 1}")  # fmt: skip
    if not kept:
        raise InputError(f"{shown(file, 200)} has no caption that {limits.name} uses; write one")
    return kept, left_out
