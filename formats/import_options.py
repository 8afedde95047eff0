"""Options of reading a foreign motion file."""

from dataclasses import dataclass
from typing import Literal

from motion.resample import FPS, check_fps
from utils.errors import InputError

MAX_FRAMES = 100_000  # almost an hour; a longer file is damaged or not a motion
UpAxis = Literal["x", "y", "z", "-x", "-y", "-z"]
LengthUnit = Literal["m", "cm", "mm", "in", "ft"]


@dataclass(frozen=True)
class ImportOptions:
    """How a foreign motion file is read, where the file does not tell or tells wrong."""

    up: UpAxis | None = None
    """Axis that points up in the file; by default it is decided from the motion."""
    units: LengthUnit | None = None
    """Length unit of the positions in the file; by default the bones tell."""
    fps: float | None = None
    """Frames per second of the file; by default those that it names."""
    force: bool = False
    """Take motion that no person makes: knees that bend forward, a head below the feet, ..."""

    def __post_init__(self):
        if self.fps is not None:
            check_fps(self.fps)


def check_length(frames: int, fps: float) -> None:
    """Raise InputError if a file of ``frames`` frames is too long for a motion."""
    if frames / fps * FPS > MAX_FRAMES:
        raise InputError(
            f"{frames} frames at {fps:g} per second are too long for a motion; correct the frame rate with --fps"
        )
