"""Measure motion on characters: directions of the limbs, feet, and the time to write them.

python -m benchmarks.characters --motions data/bandai --characters "[hero.glb, other.vrm]" --count 100
"""

import utils.interrupt  # noqa: F401

# isort: split

import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jsonargparse.typing import PositiveInt

from characters.character import Character, load_character
from characters.feet import Stance
from characters.pose import pose_character
from characters.write import write_character
from formats.clip import read_clip
from motion.body_shape import leg_scale, rest_offsets
from motion.clip import Clip
from motion.directions import unit
from motion.resample import FPS
from motion.retarget import BONE_CHILD
from motion.skeleton import JOINT_INDEX, world_pose
from motion.smplx import SMPLX85, smplx85_to_motion
from utils.config import parse_options
from utils.errors import InputError, exit_on_input_error

ON_FLOOR = 0.005  # metres: a standing foot of the source that is lower has its sole on the floor


@dataclass
class Options:
    """Options of the measurement."""

    motions: Path
    """Folder with .npz, .npy, .bvh or .glb files of motion; subfolders are included."""
    characters: list[Path]
    """Characters: .glb, .gltf or .vrm."""
    count: PositiveInt = 100
    """Number of motions, evenly chosen among the files."""


def main(options: Options) -> None:
    files = sorted(file for file in options.motions.rglob("*") if file.suffix in (".npz", ".npy", ".bvh", ".glb"))
    if not files:
        raise InputError(f"{options.motions} contains no motion; check --motions")
    chosen = np.unique(np.linspace(0, len(files) - 1, options.count).round().astype(int))
    clips = [read_clip(files[number]) for number in chosen]
    print(f"{len(clips)} motions, {sum(len(clip.smplx85) for clip in clips) / FPS:.0f} s")
    print("| character | arms, degrees: worst | legs: 95 %, 99 %, worst | standing feet off the floor, cm: 95 %, worst "
          "| skating, cm/s: source, character | seconds |")  # fmt: skip
    print("|---|---|---|---|---|---|")
    for path in options.characters:
        started = time.perf_counter()
        character = load_character(path)
        with tempfile.TemporaryDirectory() as folder:
            for number, clip in enumerate(clips):
                write_character(Path(folder) / f"{number}.glb", character, [clip])
        seconds = time.perf_counter() - started
        vertices = sum(len(part.vertices) for part in character.parts)
        print(f"| {path.stem}, {vertices} vertices | {row(character, clips)} | {seconds:.1f} |")


def row(character: Character, clips: list[Clip]) -> str:
    """Return the cells of a character."""
    arms, legs, lows, slides = [], [], [], []
    for clip in clips:
        degrees, heights, speeds = measure(character, clip)
        arms.append(degrees[:, 4:].max())
        legs.append(degrees[:, :4].ravel())
        lows.append(heights)
        slides.append(speeds)
    leg, low = np.concatenate(legs), 100 * np.concatenate(lows)
    slide = 100 * np.concatenate(slides, axis=1).mean(axis=1)
    return (
        f"{max(arms):.2f} | {np.percentile(leg, 95):.2f}, {np.percentile(leg, 99):.2f}, {leg.max():.2f} | "
        f"{np.percentile(low, 95):.2f}, {low.max():.2f} | {slide[0]:.2f}, {slide[1]:.2f}"
    )


def measure(character: Character, clip: Clip) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Compare a character with its motion.

    Returns:
        Angles (T, 8) in degrees between the limbs; heights (N) of the soles where those of the source stand on the
        floor; and speeds (2, M) over the floor of the standing feet of source and character. Metres at the scale of a
        mean leg.
    """
    betas = clip.smplx85[0, SMPLX85["betas"]]
    rotations, pelvis = smplx85_to_motion(clip.smplx85.astype(np.float64))
    world, joints = world_pose(rotations, rest_offsets(betas), root=pelvis)
    stance, posed = Stance.of(world, joints * leg_scale(betas)), pose_character(character, clip)
    bones, found = character.bones.joints, []
    for places, number in ((stance.joints, JOINT_INDEX), (posed.places, bones)):
        found.append([unit(places[:, number[end]] - places[:, number[start]]) for start, end in BONE_CHILD.items()])
    ours, theirs = np.array(found)  # (8, T, 3) each
    degrees = np.degrees(2 * np.arcsin(np.clip(np.linalg.norm(ours - theirs, axis=-1) / 2, 0, 1))).T
    soles = [character.soles[side].places(posed.turns, posed.places)[..., 1].min(axis=1) for side in ("left", "right")]
    heights = np.abs(np.stack(soles, axis=1))[stance.stands & (stance.heights < ON_FLOOR)]
    stands = stance.stands[1:] & stance.stands[:-1]
    speeds = []
    for places, number in ((stance.joints, JOINT_INDEX), (posed.places, bones)):
        ends = [f"{side}_{'foot' if f'{side}_foot' in bones else 'ankle'}" for side in ("left", "right")]
        steps = np.diff(places[:, [number[end] for end in ends]][..., [0, 2]], axis=0)
        speeds.append(np.linalg.norm(steps, axis=-1)[stands] * FPS)
    return degrees, heights, np.array(speeds)


if __name__ == "__main__":
    with exit_on_input_error():
        main(parse_options(Options, __doc__)[0])
