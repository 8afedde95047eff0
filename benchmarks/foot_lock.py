"""Measure the effect of the foot lock on generated motion: sliding and sinking of the feet, displacement of the body.

python -m benchmarks.foot_lock --seeds 8
"""

import utils.interrupt  # noqa: F401

# isort: split

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jsonargparse.typing import PositiveInt

from models.pipeline import TextToMotion
from motion.foot_lock import lock_feet
from motion.measures import FEET, foot_slide, jerk, standing_feet
from motion.resample import FPS
from motion.skeleton import JOINT_INDEX, JOINT_NAMES, forward_kinematics
from motion.smplx import smplx85_to_motion
from utils.config import parse_options
from utils.errors import exit_on_input_error
from utils.prompts import read_prompts

LEGS = [JOINT_INDEX[name] for name in JOINT_NAMES if name.endswith(("knee", "ankle", "foot"))]
FEET_AND_ANKLES = [JOINT_INDEX[f"{side}_{name}"] for side in ("left", "right") for name in ("ankle", "foot")]
OTHERS = [joint for joint in range(len(JOINT_NAMES)) if joint not in LEGS]


@dataclass
class Options:
    """Options of the measurement."""

    checkpoint: Path = Path("checkpoints/demo")
    """Folder of a text-to-motion model."""
    prompts: Path = Path("assets/demo_prompts.txt")
    """File of prompts."""
    seeds: PositiveInt = 8
    """Motions per prompt."""


def main(options: Options) -> None:
    items = read_prompts(options.prompts, 0, options.seeds)
    model = TextToMotion.from_pretrained(options.checkpoint)
    motions = model.generate([item.prompt for item in items], [item.seed for item in items])
    rows = []
    for motion in motions:
        before, after = (
            forward_kinematics(*smplx85_to_motion(smplx85.astype(np.float64)))
            for smplx85 in (motion.smplx85, lock_feet(motion.smplx85))
        )  # (T, 22, 3), grounded
        contacts, moved = standing_feet(before), np.linalg.norm(after - before, axis=-1)
        rows.append(
            {
                "speed of standing feet, cm/s": [standing_speed(contacts, before), standing_speed(contacts, after)],
                "speed of feet below 5 cm, cm/s": [100 * foot_slide(each) for each in (before, after)],
                "depth of the lowest foot joint below the floor, cm": [sunk(before), sunk(after)],
                "jerk, m/s^3": [jerk(before), jerk(after)],
                "mean movement of knees, ankles, feet, cm": [0, 100 * moved[:, LEGS].mean()],
                "largest movement of other joints, cm": [0, 100 * moved[:, OTHERS].max()],
            }
        )
    print(f"| {len(motions)} motions | before | after |\n|---|---|---|")
    for label in rows[0]:
        before, after = np.nanmean([row[label] for row in rows], axis=0)
        print(f"| {label} | {before:.2f} | {after:.2f} |")


def sunk(joints: np.ndarray) -> float:
    """Return the depth in centimetres of the lowest ankle or foot joint below the floor."""
    return 100 * max(0.0, float(-joints[:, FEET_AND_ANKLES, 1].min()))


def standing_speed(contacts: np.ndarray, joints: np.ndarray) -> float:
    """Return the mean ground speed of standing feet in centimetres per second."""
    speed = 100 * FPS * np.linalg.norm(np.diff(joints[:, FEET][..., [0, 2]], axis=0), axis=-1)  # (T - 1, 2)
    standing = contacts[1:] & contacts[:-1]
    return float(speed[standing].mean()) if standing.any() else np.nan


if __name__ == "__main__":
    with exit_on_input_error():
        main(parse_options(Options, __doc__)[0])
