"""Constraints and editing: how exactly they are kept, at which cost in quality and time.

    python -m benchmarks.control --data data/bandai

Prints a row per requirement: value, limit, and whether it is kept. Free motions are those of the same prompts without
constraints. The acceleration of a frame is that of the joint that accelerates most.
"""

import utils.interrupt  # noqa: F401

# isort: split

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Literal, NamedTuple

import numpy as np
import torch
from jsonargparse.typing import PositiveInt

from benchmarks.control_between import between_fid, fill, gaps, interpolate, joint_error
from benchmarks.control_motions import (
    FREE_SECONDS,
    FreeMotions,
    Recognition,
    above,
    evenly,
    follow_paths,
    keyframe_motions,
    loops,
    pin_errors,
)
from benchmarks.timing import seconds_of
from control.constraints import Constraints, RootPath
from dataset.motion_folder import MotionFolder
from evaluation.evaluators.any import load_any_evaluator
from evaluation.recorded import Recorded
from models.pipeline import TextToMotion
from motion.resample import FPS
from utils.config import parse_options
from utils.errors import InputError, exit_on_input_error

Part = Literal["paths", "keyframes", "pins", "between", "loop", "times"]
PROMPTS = {  # and the actions of the data that they describe on a path
    "a person walks": ("walk", "walk-turn-left", "walk-turn-right"),
    "a person runs": ("run",),
}


@dataclass
class Options:
    """Options of the benchmark."""

    data: Path = Path("data/bandai")
    """Data folder of the recorded clips."""
    checkpoint: Path = Path("checkpoints/demo")
    """Folder of a text-to-motion model."""
    evaluator: Path = Path("checkpoints/evaluator")
    """Folder of an evaluator."""
    captions: Path = Path("configs/data/bandai_captions.yaml")
    """Rules of the captions of the data, which name its actions."""
    split: str = "test"
    """Split of the recorded clips."""
    parts: list[Part] = field(default_factory=lambda: ["paths", "keyframes", "pins", "between", "loop", "times"])
    """Requirements to measure."""
    most: PositiveInt = 1000
    """Largest number of paths per prompt, motions with keyframes, gaps per length, and pins and loops per prompt."""
    free: PositiveInt = 64
    """Free motions per prompt."""
    gaps: list[PositiveInt] = field(default_factory=lambda: [1, 2, 3])
    """Lengths of gaps in seconds."""
    repeats: PositiveInt = 5
    """Number of measurements of a time, of which the median is printed."""


class Bar(NamedTuple):
    """A requirement: a value that is at most a limit, or at least one."""

    name: str
    value: float
    limit: float
    unit: str
    at_least: bool = False

    def __str__(self) -> str:
        kept = self.value >= self.limit if self.at_least else self.value <= self.limit
        relation = "at least" if self.at_least else "at most"
        return f"| {self.name} | {self.value:.3g} {self.unit} | {relation} {self.limit:g} | {'yes' if kept else 'NO'} |"


class Setting(NamedTuple):
    """What all measurements share."""

    model: TextToMotion
    recorded: Recorded
    recognition: Recognition
    options: Options


def measure_paths(setting: Setting) -> Iterator[Bar]:
    """Measure motions along paths."""
    for prompt, actions in PROMPTS.items():
        free = FreeMotions(setting.model, prompt, setting.options.free)
        found = follow_paths(setting.model, prompt, setting.options.most)
        joints = [motion.joints for motion in found.motions]
        yield Bar(f"{prompt}: mean distance from the path", 100 * np.mean(found.distances), 5, "cm")
        yield Bar(f"{prompt}: mean distance of the worst path", 100 * np.max(found.distances), 5, "cm")
        yield Bar(f"{prompt}: distance of the last frame from the end, worst path", 100 * np.max(found.ends), 5, "cm")
        share = np.mean([action in actions for action in setting.recognition(found.motions)])
        yield Bar(f"{prompt}: action recognized", 100 * share, 95, "%", at_least=True)
        yield Bar(f"{prompt}: skating, relative to free motions", free.relative_skating(joints), 1.3, "")
        yield Bar(f"{prompt}: frames above the 99.9th percentile of acceleration", above(joints, free.limit), 0, "")


def measure_keyframes(setting: Setting) -> Iterator[Bar]:
    """Measure motions through three poses."""
    for placed, name in ((False, "three poses anywhere"), (True, "three poses with places")):
        errors, jumps = keyframe_motions(setting.model, setting.recorded, placed, setting.options.most)
        yield Bar(f"{name}: largest error of a joint", 100 * np.max(errors), 1, "cm")
        yield Bar(f"{name}: frames near them above the 99.9th percentile of acceleration", np.sum(jumps), 0, "")


def measure_pins(setting: Setting) -> Iterator[Bar]:
    """Measure a wrist that is held at a place."""
    yield Bar("pinned wrist: largest error", 1000 * np.max(pin_errors(setting.model, setting.options.most)), 5, "mm")


def measure_between(setting: Setting) -> Iterator[Bar]:
    """Measure in-betweening of recorded clips."""
    evaluator = setting.recognition.evaluator
    for seconds in setting.options.gaps:
        found = evenly(gaps(setting.recorded, seconds * FPS), setting.options.most)
        if not found:
            raise InputError(f"no clip of the split has room for a gap of {seconds} s; use longer clips")
        filled = [fill(setting.model, gap, seed) for seed, gap in enumerate(found)]
        base = [interpolate(gap) for gap in found]
        errors = [np.mean([joint_error(*pair) for pair in zip(found, each, strict=True)]) for each in (filled, base)]
        fids = [between_fid(evaluator, found, each) for each in (filled, base)]
        name = f"gap of {seconds} s ({len(found)})"
        yield Bar(
            f"{name}: joint error below interpolation ({100 * errors[0]:.2f} and {100 * errors[1]:.2f} cm)",
            100 * (1 - errors[0] / errors[1]),
            30,
            "%",
            at_least=True,
        )
        yield Bar(
            f"{name}: FID relative to interpolation ({fids[0]:.4f} and {fids[1]:.4f})", fids[0] / fids[1], 0.5, ""
        )


def measure_loop(setting: Setting) -> Iterator[Bar]:
    """Measure the seams of loops."""
    velocity, acceleration = loops(setting.model, setting.options.most)
    yield Bar("loop: seams below the 99th percentile of velocity", 100 * np.mean(velocity), 100, "%", at_least=True)
    yield Bar(
        "loop: seams below the 99th percentile of acceleration", 100 * np.mean(acceleration), 100, "%", at_least=True
    )


def measure_times(setting: Setting) -> Iterator[Bar]:
    """Measure the seconds of generation."""
    model, prompt, repeats = setting.model, "a person walks", setting.options.repeats
    path = RootPath(((0, 0), (0, 3), (3, 6)))
    timed, untimed = Constraints(path=path, length=FREE_SECONDS), Constraints(path=path)
    calls: dict[str, tuple[Callable[[], object], float]] = {
        "a motion of 6 s on a path": (lambda: model.generate([prompt], [0], constraints=[timed]), 3),
        "first frames of a stream on a path": (lambda: next(model.stream(prompt, constraints=untimed)), 0.3),
        "a motion of 6 s without constraints": (lambda: model.generate([prompt], [0], seconds=[FREE_SECONDS]), np.inf),
        "first frames of a stream without constraints": (lambda: next(model.stream(prompt)), np.inf),
    }
    for name, (call, limit) in calls.items():
        yield Bar(name, median(seconds_of(call, repeats)), limit, "s")


MEASURES: dict[Part, Callable[[Setting], Iterator[Bar]]] = {
    "paths": measure_paths,
    "keyframes": measure_keyframes,
    "pins": measure_pins,
    "between": measure_between,
    "loop": measure_loop,
    "times": measure_times,
}


def machine() -> str:
    """Return the processor and the number of threads."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    names = {line.split(":")[1].strip() for line in lines if line.startswith("model name")}
    return f"{', '.join(sorted(names)) or 'unknown processor'}, {torch.get_num_threads()} threads"


def main(options: Options) -> None:
    evaluator = load_any_evaluator(options.evaluator)
    recorded = Recorded(MotionFolder(options.data), options.split, evaluator)
    model = TextToMotion.from_pretrained(options.checkpoint)
    setting = Setting(model, recorded, Recognition(evaluator, options.captions), options)
    print(f"{model.checkpoint_id}, split {options.split} of {options.data}; {machine()}\n")
    print("| requirement | value | limit | kept |\n|---|---|---|---|", flush=True)
    for part in options.parts:
        for bar in MEASURES[part](setting):
            print(bar, flush=True)


if __name__ == "__main__":
    with exit_on_input_error():
        main(parse_options(Options, __doc__)[0])
