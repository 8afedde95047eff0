"""Measure the seams of edited motions: loops, joined motions, and spans made by the model.

    python -m benchmarks.editing --seeds 16 --recordings mocap/

At a seam, the speed of the fastest joint and the acceleration of the joint that accelerates most are compared with the
99th percentiles of the same values at all other frames of the result.
"""

import utils.interrupt  # noqa: F401

# isort: split

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jsonargparse.typing import PositiveInt

from editing.generate import between, redo
from editing.join import join
from editing.loops import find_seam, loop
from editing.spans import trim
from formats.clip import read_clip
from models.pipeline import TextToMotion
from motion.clip import Clip
from motion.measures import FEET, frame_acceleration, standing_feet
from motion.resample import FPS
from utils.config import parse_options
from utils.errors import InputError, exit_on_input_error

PROMPTS = ("a person walks forward", "a person runs forward", "a person waves with both hands")
LENGTH, GAP = 6.0, 2.0  # seconds of a motion and of a generated span
HEADER = (
    "| | motions | speed at the seam, m/s | 99th percentile | below it | acceleration at the seam, m/s² "
    "| 99th percentile | below it | sliding, cm/s |\n|---|---|---|---|---|---|---|---|---|"
)


@dataclass
class Options:
    """Options of the benchmark."""

    checkpoint: Path = Path("checkpoints/demo")
    """Folder of a text-to-motion model."""
    seeds: PositiveInt = 16
    """Number of motions per prompt."""
    recordings: Path | None = None
    """Folder of .bvh files, of which loops are measured too."""


@dataclass
class Seams:
    """Values at the seams of results, and the 99th percentiles of the same values elsewhere."""

    name: str
    rows: list[tuple[float, ...]]

    def add(self, joints: np.ndarray, *seams: int) -> None:
        """Add a result (T, 22, 3); each seam is the number of the first frame after it."""
        speeds = np.linalg.norm(np.diff(joints, axis=0), axis=-1).max(axis=1) * FPS  # (T - 1,)
        accelerations = frame_acceleration(joints)  # (T - 2,)
        steps = [seam - 1 for seam in seams]
        changes = [seam - offset for seam in seams for offset in (2, 1)]
        self.rows.append(
            (
                speeds[steps].max(),
                np.quantile(np.delete(speeds, steps), 0.99),
                accelerations[changes].max(),
                np.quantile(np.delete(accelerations, changes), 0.99),
                sliding(joints),
            )
        )

    def __str__(self) -> str:
        speed, usual_speed, acceleration, usual_acceleration, slide = np.array(self.rows).T
        return (
            f"| {self.name} | {len(self.rows)} | {speed.mean():.2f} | {usual_speed.mean():.2f} "
            f"| {100 * (speed <= usual_speed).mean():.0f} % | {acceleration.mean():.0f} "
            f"| {usual_acceleration.mean():.0f} | {100 * (acceleration <= usual_acceleration).mean():.0f} % "
            f"| {100 * slide.mean():.1f} |"
        )


def sliding(joints: np.ndarray) -> float:
    """Return the mean ground speed in metres per second of the feet that stand."""
    standing = standing_feet(joints)
    steps = np.linalg.norm(np.diff(joints[:, FEET], axis=0)[..., (0, 2)], axis=-1) * FPS
    both = standing[1:] & standing[:-1]
    return float(steps[both].mean()) if both.any() else 0.0


def measure_loops(name: str, clips: list[Clip]) -> Iterator[Seams | str]:
    """Yield rows of the table for the loops of clips; clips without a loop are left out."""
    found = []
    for clip in clips:
        try:
            found.append((clip, find_seam(clip)))
        except InputError:
            continue
    if not found:
        return
    seconds = np.mean([seam.frames for _, seam in found]) / FPS
    given = 100 * np.mean([sliding(trim(clip, seam.first / FPS, seam.last / FPS).joints()) for clip, seam in found])
    for way, settings in {
        "on its way": {},
        "on its way, feet locked": {"foot_lock": True},
        "in place": {"travel": False},
    }.items():
        seams = Seams(f"loop of {name}, {way}", [])
        for clip, seam in found:
            seams.add(loop(clip, repeats=2, seam=seam, **settings).joints(), seam.frames)
        yield seams
    left_out = len(clips) - len(found)
    yield f"{name}: {left_out} of {len(clips)} have no loop; {seconds:.1f} s per cycle; sliding before {given:.1f} cm/s"


def measure_spans(model: TextToMotion, walks: list[Clip], others: list[Clip]) -> Iterator[Seams | str]:
    """Yield rows of the table for joined motions and generated spans."""
    joined = Seams("join of a walk and another motion", [])
    for walk, other in zip(walks, others, strict=True):
        joined.add(join([walk, other]).joints(), len(walk.smplx85))
    yield joined
    count, times = round(GAP * FPS), []

    def timed(edit: Callable[..., Clip], *arguments: object, **settings: object) -> Clip:
        start = time.perf_counter()
        result = edit(model, *arguments, **settings)
        times.append(time.perf_counter() - start)
        return result

    spans = Seams("between a walk and another motion", [])
    for seed, (walk, other) in enumerate(zip(walks, others, strict=True)):
        result = timed(between, walk, other, PROMPTS[0], GAP, seed)
        spans.add(result.joints(), len(walk.smplx85), len(walk.smplx85) + count)
    yield spans
    for place in ("file", "free"):
        spans = Seams(f"a second of a walk redone as a run, place {place}", [])
        for seed, walk in enumerate(walks):
            first = len(walk.smplx85) // 2
            result = timed(redo, walk, PROMPTS[1], first / FPS, first / FPS + 1, seed=seed, place=place)
            spans.add(result.joints(), first, first + FPS)
        yield spans
    yield f"{np.mean(times):.1f} s per generated span"


def main(options: Options) -> None:
    model = TextToMotion.from_pretrained(options.checkpoint)
    print(f"{model.checkpoint_id}, {options.seeds} motions per prompt\n")
    prompts = [prompt for prompt in PROMPTS for _ in range(options.seeds)]
    made = model.generate(prompts, [*range(options.seeds)] * len(PROMPTS), seconds=LENGTH)
    clips = [Clip(motion.smplx85, motion.prompt) for motion in made]
    groups = {prompt: [clip for clip in clips if clip.title == prompt] for prompt in PROMPTS}
    walks, others = groups[PROMPTS[0]], groups[PROMPTS[2]]
    notes = []
    if options.recordings is not None:
        groups["recordings"] = [read_clip(path) for path in sorted(options.recordings.glob("*.bvh"))]
    print(HEADER)
    for rows in (*(measure_loops(*group) for group in groups.items()), measure_spans(model, walks, others)):
        for row in rows:
            if isinstance(row, Seams):
                print(row, flush=True)
            else:
                notes.append(row)
    print("", *notes, sep="\n")


if __name__ == "__main__":
    with exit_on_input_error():
        main(parse_options(Options, __doc__)[0])
