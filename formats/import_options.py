"""Options for reading a foreign motion file."""

from dataclasses import dataclass
from typing import Literal

from jsonargparse.typing import PositiveFloat

from motion.frame_rate import FPS, check_fps
from utils.errors import InputError

MAX_FRAMES = 100_000  # almost an hour; a longer file is damaged or not a motion
UpAxis = Literal["x", "y", "z", "-x", "-y", "-z"]
LengthUnit = Literal["m", "cm", "mm", "in", "ft"]


@dataclass(kw_only=True)
class ImportOptions:
    """Properties of a foreign motion file that it does not state, or states incorrectly."""

    up: UpAxis | None = None
    """Axis that points up in the file; by default it is inferred from the motion."""
    units: LengthUnit | None = None
    """Length unit of the positions in the file; by default it is inferred from the bone lengths."""
    fps: PositiveFloat | None = None
    """Frame rate of the file in frames per second; by default the rate stated in the file."""
    animation: str | None = None
    """Name of the animation to read from a file (.glb, .gltf, .fbx) with several."""
    force: bool = False
    """Skip the plausibility check, which refuses for example knees that bend the wrong way."""

    def __post_init__(self):
        if self.fps is not None:
            check_fps(self.fps)


def check_length(frames: int, fps: float) -> None:
    """Raise InputError if ``frames`` frames are too many for a motion."""
    if frames / fps * FPS > MAX_FRAMES:
        raise InputError(
            f"{frames} frames at {fps:g} per second are too long for a motion; correct the frame rate with --fps"
        )
