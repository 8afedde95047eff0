"""Edit motion files: cut, mirror, speed, loops, joins, parts of the body, and spans that a sentence describes.

    python edit_motion.py trim walk.bvh part.npz --from 1.0 --to 3.5
    python edit_motion.py loop walk.npz loop.glb --in-place
    python edit_motion.py join walk.npz wave.npz both.npz
    python edit_motion.py combine wave.npz walk.npz both.npz --joints upper_body

The files to read come first, the file to write is the last one. Reads and writes all formats of visualize.export: .npz
(ours, AMASS, Kimodo, HY-Motion), .bvh and .npy are read; .npz, .npy, .bvh, .glb, .html, .mp4, .gif and .png are
written. The result stays in the world of the first file. docs/editing.md describes each command.
"""

import utils.interrupt  # noqa: F401

# isort: split

import sys
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import Any

from jsonargparse.typing import NonNegativeFloat, PositiveFloat, PositiveInt

from editing.combine import combine
from editing.join import join
from editing.loops import ALIKE, SHORTEST, find_seam, loop
from editing.spans import change_speed, in_place, mirror, trim
from formats.clip import read_clip
from formats.import_options import ImportOptions
from motion.clip import Clip
from motion.resample import FPS
from utils.config import parse_command
from utils.errors import InputError, exit_on_input_error
from visualize.body import load_body
from visualize.export import Options as ExportOptions
from visualize.export import check_kept, check_target, export


@dataclass(kw_only=True)
class EditOptions(ImportOptions):
    """Options of every command."""

    skeleton: Path | None = None
    """YAML file that maps the joints of a BVH file to the 22 SMPL-X joints; by default joints are found by name and
    hierarchy."""
    overwrite: bool = False
    """Replace an existing motion file (.npz, .npy, .bvh); existing pictures, videos and pages are always replaced."""


@dataclass
class TrimOptions(EditOptions):
    """Cut a part out of a motion."""

    from_: NonNegativeFloat = 0.0
    """Start of the part in seconds."""
    to: PositiveFloat | None = None
    """End of the part in seconds. (default: end of the motion)"""

    def edit(self, clip: Clip) -> Clip:
        return trim(clip, self.from_, self.to)


@dataclass
class MirrorOptions(EditOptions):
    """Swap left and right; place and heading of the first frame are kept."""

    def edit(self, clip: Clip) -> Clip:
        return mirror(clip)


@dataclass
class SpeedOptions(EditOptions):
    """Play a motion faster or slower, on the same path."""

    factor: PositiveFloat | None = None
    """Factor of the speed: 2 is twice as fast."""
    seconds: PositiveFloat | None = None
    """Length of the result in seconds, in place of --factor."""

    def __post_init__(self):
        super().__post_init__()
        if (self.factor is None) == (self.seconds is None):
            raise InputError("give either --factor or --seconds")

    def edit(self, clip: Clip) -> Clip:
        if self.factor is not None:
            return change_speed(clip, self.factor)
        assert self.seconds is not None  # by __post_init__
        return change_speed(clip, len(clip.smplx85) / FPS / self.seconds)


@dataclass
class InPlaceOptions(EditOptions):
    """Remove the horizontal travel of a motion and keep the sway of the body."""

    heading: bool = False
    """Remove the turning as well, so that the body keeps its first direction."""

    def edit(self, clip: Clip) -> Clip:
        return in_place(clip, self.heading)


@dataclass
class LoopOptions(EditOptions):
    """Cut a seamless loop out of a motion, between the frames that are most alike."""

    in_place: bool = False
    """Stay in place; by default, each cycle starts where the one before ends."""
    repeats: PositiveInt = 1
    """Number of cycles."""
    seconds: PositiveFloat | None = None
    """Length in seconds that the repeated cycles at least have, in place of --repeats."""
    shortest: PositiveFloat = SHORTEST
    """Length of the shortest cycle in seconds."""
    foot_lock: bool = False
    """Remove foot sliding, also at the seam (adjusts hip, knee and ankle rotations)."""

    def edit(self, clip: Clip) -> Clip:
        seam = find_seam(clip, self.shortest)
        note(f"the cycle is {seam.first / FPS:.2f} to {seam.last / FPS:.2f} s, {seam.frames} frames")
        if seam.distance > ALIKE:
            note(f"its ends differ by {100 * seam.distance:.0f} cm, so the seam may be visible")
        return loop(clip, not self.in_place, self.repeats, self.seconds, self.foot_lock, seam)


@dataclass
class JoinOptions(EditOptions):
    """Join motions; each starts where the one before ends."""

    def edit(self, *clips: Clip) -> Clip:
        return join(clips)


@dataclass
class CombineOptions(EditOptions):
    """Take a part of the body from the first motion and the rest from the second."""

    joints: str = "upper_body"
    """Joints and groups that the first motion gives, separated by commas: upper_body, lower_body, arms, legs, left_arm,
    right_leg, head, left_elbow ..."""
    from_: NonNegativeFloat = 0.0
    """Time in seconds in the result at which the first motion starts."""
    to: PositiveFloat | None = None
    """Time in seconds until which it is used. (default: its end)"""

    def edit(self, part: Clip, rest: Clip) -> Clip:
        return combine(part, rest, [name.strip() for name in self.joints.split(",")], self.from_, self.to)


COMMANDS: dict[str, type[EditOptions]] = {
    "trim": TrimOptions,
    "mirror": MirrorOptions,
    "speed": SpeedOptions,
    "in-place": InPlaceOptions,
    "loop": LoopOptions,
    "join": JoinOptions,
    "combine": CombineOptions,
}
FILES = dict.fromkeys(COMMANDS, "INPUT OUTPUT") | {
    "join": "FIRST SECOND [MORE ...] OUTPUT",
    "combine": "PART REST OUTPUT",
}


def note(text: str) -> None:
    """Print a note for the user."""
    print(f"note: {text}", file=sys.stderr)


def main(arguments: list[str]) -> None:
    command, *words = arguments or [""]
    files = [Path(word) for word in takewhile(lambda word: not word.startswith("-"), words)]
    options: Any = parse_command(COMMANDS, __doc__ or "", [command, *words[len(files) :]], FILES)
    check_files(files, FILES[command])
    *sources, target = files
    check_target(target, 1)
    check_kept(target, sources, options.overwrite)
    result = options.edit(*(read(source, options) for source in sources))
    export([result], target, ExportOptions(), load_body("mannequin"))
    print(target)


def check_files(files: list[Path], names: str) -> None:
    """Raise InputError if the number of files is not that of their names in the usage line."""
    least = len(names.replace(" [MORE ...]", "").split())
    if len(files) < least or (len(files) > least and "[" not in names):
        raise InputError(f"{len(files)} files are given; give {names}")


def read(source: Path, options: EditOptions) -> Clip:
    """Read a motion file and print the notes of the reader."""
    clip = read_clip(source, options.skeleton, options)
    for text in clip.notes:
        note(f"{source}: {text}")
    return clip


if __name__ == "__main__":
    with exit_on_input_error():
        main(sys.argv[1:])
