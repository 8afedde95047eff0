"""Edit motion files: cut, mirror, speed, loops, joins, parts of the body, and spans that a sentence describes.

    python edit_motion.py trim walk.bvh part.npz --from 1.0 --to 3.5
    python edit_motion.py loop walk.npz loop.glb --in-place
    python edit_motion.py join walk.npz wave.npz both.npz
    python edit_motion.py combine wave.npz walk.npz both.npz --joints upper_body
    python edit_motion.py between walk.npz wave.npz both.npz --seconds 2 --prompt "a person turns left"
    python edit_motion.py redo walk.npz run.npz --from 2 --to 4 --prompt "a person runs forward"

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
from typing import TYPE_CHECKING

from jsonargparse.typing import NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

from editing.options import SHORTEST, Place
from formats.import_options import ImportOptions
from motion.frame_rate import FPS
from utils.config import bounded, parse_command
from utils.errors import InputError, exit_on_input_error
from utils.paths import files_of
from utils.prompts import MAX_SAMPLES, Prompt
from visualize.options import Options as ExportOptions

if TYPE_CHECKING:
    from motion.clip import Clip

    Samples = int
else:
    Samples = bounded("Samples", int, (">=", 1), ("<=", MAX_SAMPLES))


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


@dataclass
class MirrorOptions(EditOptions):
    """Swap left and right; place and heading of the first frame are kept."""


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

    def factor_for(self, clip: "Clip") -> float:
        """Return the factor of the speed for a clip."""
        if self.factor is not None:
            return self.factor
        assert self.seconds is not None  # by __post_init__
        return len(clip.smplx85) / FPS / self.seconds


@dataclass
class InPlaceOptions(EditOptions):
    """Remove the horizontal travel of a motion and keep the sway of the body."""

    heading: bool = False
    """Remove the turning as well, so that the body keeps its first direction."""


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


@dataclass
class JoinOptions(EditOptions):
    """Join motions; each starts where the one before ends."""


@dataclass
class PartOptions(EditOptions):
    """Options of the commands that take a part of the body from a motion."""

    joints: str = "upper_body"
    """Joints and groups of the part, separated by commas: upper_body, lower_body, arms, legs, left_arm, right_leg,
    head, left_elbow ..."""

    def __post_init__(self):
        from control.joints import joints_named  # imports PyTorch

        super().__post_init__()
        joints_named(self.names)

    @property
    def names(self) -> list[str]:
        return [name.strip() for name in self.joints.split(",")]


@dataclass
class CombineOptions(PartOptions):
    """Take a part of the body from the first motion and the rest from the second."""

    from_: NonNegativeFloat = 0.0
    """Time in seconds in the result at which the first motion starts."""
    to: PositiveFloat | None = None
    """Time in seconds until which it is used. (default: its end)"""


@dataclass
class GeneratingOptions(EditOptions):
    """Options of the commands that generate motion."""

    prompt: str
    """Sentence for the generated part."""
    seed: NonNegativeInt = 0
    """Seed of the generated motion; the same seed gives the same motion."""
    samples: Samples = 1
    """Number of results, with successive seeds, named OUTPUT_seed0, OUTPUT_seed1 ..."""
    checkpoint: str = "checkpoints/demo"
    """Text-to-motion model: a folder, as train_t2m.py writes it, or an id of the Hugging Face hub: user/name or
    user/name@revision."""
    text_encoder_path: Path | None = None
    """Folder of the text encoder's weights. By default, checkpoints/<name>, the Hugging Face cache and the Hugging Face
    hub are searched, in this order."""
    device: str = "auto"
    """Device of the models: auto, cpu, cuda, cuda:1, ..."""

    @property
    def seeds(self) -> range:
        return range(self.seed, self.seed + self.samples)


@dataclass
class CompleteOptions(PartOptions, GeneratingOptions):
    """Keep a part of the body and generate the rest from a sentence."""


@dataclass
class BetweenOptions(GeneratingOptions):
    """Generate the motion from the end of one motion to the start of another."""

    seconds: PositiveFloat = 1.0
    """Length of the generated part in seconds."""
    place: Place = "free"
    """Place of the second motion: where the generated part leads (free), or where it is in its file (file)."""


@dataclass
class RedoOptions(GeneratingOptions):
    """Generate a span of a motion again, with another sentence."""

    from_: NonNegativeFloat = 0.0
    """Start of the span in seconds."""
    to: PositiveFloat | None = None
    """End of the span in seconds. (default: end of the motion)"""
    seconds: PositiveFloat | None = None
    """Length of the new span in seconds. (default: that of the old one)"""
    place: Place = "file"
    """Place of the frames after the span: unchanged (file), or where the new span leads (free)."""


COMMANDS: dict[str, type[EditOptions]] = {
    "trim": TrimOptions,
    "mirror": MirrorOptions,
    "speed": SpeedOptions,
    "in-place": InPlaceOptions,
    "loop": LoopOptions,
    "join": JoinOptions,
    "combine": CombineOptions,
    "complete": CompleteOptions,
    "between": BetweenOptions,
    "redo": RedoOptions,
}
FILES = dict.fromkeys(COMMANDS, "INPUT OUTPUT") | {  # the files of each command
    "join": "FIRST SECOND [MORE ...] OUTPUT",
    "combine": "PART REST OUTPUT",
    "between": "FIRST SECOND OUTPUT",
}


def read_arguments(arguments: list[str]) -> tuple[list[Path], EditOptions]:
    """Return the files of a command line, the one to write last, and the options of its command.

    Raises:
        InputError: an option is invalid, or the number of files does not fit the command.
    """
    command, *others = arguments or [""]
    words = list(takewhile(lambda word: not word.startswith("-"), others))
    options = parse_command(COMMANDS, __doc__ or "", [command, *others[len(words) :]], FILES)
    files = files_of(words)
    check_files(len(files), FILES[command])
    return files, options


def check_files(count: int, names: str) -> None:
    """Raise InputError if ``count`` files do not fit their names in the usage line."""
    required = len([name for name in names.split() if name.isalpha()])
    if count < required or (count > required and "..." not in names):
        raise InputError(f"{count} files are given; give {names}")


if __name__ == "__main__":  # --help and invalid options end here, before the slow imports
    with exit_on_input_error():
        ARGUMENTS = read_arguments(sys.argv[1:])

from collections.abc import Iterator

from editing.combine import combine
from editing.generate import between, complete, redo, span_to_redo
from editing.join import join
from editing.loops import ALIKE, find_seam, loop
from editing.spans import change_speed, in_place, mirror, trim
from formats.clip import read_clip
from models.pipeline import TextToMotion
from motion.clip import Clip
from utils.device import choose_device
from visualize.body import load_body
from visualize.export import check_kept, check_target, export


def main(files: list[Path], options: EditOptions) -> None:
    *sources, last = files
    targets = files_to_write(last, options)
    for target in targets:
        check_target(target, 1)
        check_kept(target, sources, options.overwrite)
    clips = [read(source, options) for source in sources]
    results = generated(options, clips) if isinstance(options, GeneratingOptions) else iter([edited(options, clips)])
    for target, result in zip(targets, results, strict=True):
        export([result], target, ExportOptions(), load_body("mannequin"))
        print(target)


def files_to_write(last: Path, options: EditOptions) -> list[Path]:
    """Return the files to write: one, or one for each sample."""
    if not isinstance(options, GeneratingOptions) or options.samples == 1:
        return [last]
    return [last.with_stem(f"{last.stem}_seed{seed}") for seed in options.seeds]


def read(source: Path, options: EditOptions) -> Clip:
    """Read a motion file and print the notes of the reader."""
    clip = read_clip(source, options.skeleton, options)
    for text in clip.notes:
        note(f"{source}: {text}")
    return clip


def note(text: str) -> None:
    """Print a note for the user."""
    print(f"note: {text}", file=sys.stderr)


def edited(options: EditOptions, clips: list[Clip]) -> Clip:
    """Return the result of a command that generates nothing.

    Raises:
        InputError: the motions do not fit the options.
    """
    match options:
        case TrimOptions():
            return trim(clips[0], options.from_, options.to)
        case MirrorOptions():
            return mirror(clips[0])
        case SpeedOptions():
            return change_speed(clips[0], options.factor_for(clips[0]))
        case InPlaceOptions():
            return in_place(clips[0], options.heading)
        case LoopOptions():
            return looped(clips[0], options)
        case CombineOptions():
            return combine(clips[0], clips[1], options.names, options.from_, options.to)
        case _:
            return join(clips)


def looped(clip: Clip, options: LoopOptions) -> Clip:
    """Return a loop, and print its ends."""
    seam = find_seam(clip, options.shortest)
    note(f"a cycle is {seam.first / FPS:.2f} to {seam.last / FPS:.2f} s of the motion ({seam.frames} frames)")
    if seam.distance > ALIKE:
        note(f"its ends differ by {100 * seam.distance:.0f} cm, so that the seam may be visible")
    return loop(clip, not options.in_place, options.repeats, options.seconds, options.foot_lock, seam)


def generated(options: GeneratingOptions, clips: list[Clip]) -> Iterator[Clip]:
    """Yield the results of a command that generates motion, one per seed.

    Raises:
        InputError: the motions do not fit the options, or the model cannot be used.
    """
    Prompt.parse(options.prompt)  # what can be refused is refused before the model is loaded
    if isinstance(options, RedoOptions):
        span_to_redo(clips[0], options.from_, options.to)
    device, dtype, reason = choose_device(options.device, "auto", training=False)
    print(reason)
    model = TextToMotion.from_pretrained(options.checkpoint, device, dtype, text_encoder_path=options.text_encoder_path)
    for seed in options.seeds:
        match options:
            case CompleteOptions():
                yield complete(model, clips[0], options.names, options.prompt, seed)
            case BetweenOptions():
                first, second = clips
                yield between(model, first, second, options.prompt, options.seconds, seed, options.place)
            case RedoOptions():
                span = options.from_, options.to, options.seconds
                yield redo(model, clips[0], options.prompt, *span, seed, options.place)


if __name__ == "__main__":
    with exit_on_input_error():
        main(*ARGUMENTS)
