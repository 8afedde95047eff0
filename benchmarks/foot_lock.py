"""What the foot lock does to generated motion: slide of the feet before and after, and how far the body moved for it.

python -m benchmarks.foot_lock --seeds 8
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

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
OTHERS = [joint for joint in range(len(JOINT_NAMES)) if joint not in LEGS]


@dataclass
class Options:
    """What to measure.

    Attributes:
        checkpoint: Folder of a text-to-motion model.
        prompts: File of prompts.
        seeds: Motions a prompt.
    """

    checkpoint: Path = Path("checkpoints/demo")
    prompts: Path = Path("assets/demo_prompts.txt")
    seeds: int = 8


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
                "speed of standing feet, cm/s": [slide_in(contacts, before), slide_in(contacts, after)],
                "speed of feet below 5 cm, cm/s": [100 * foot_slide(each) for each in (before, after)],
                "jerk, m/s^3": [jerk(before), jerk(after)],
                "knees, ankles, feet moved, mean cm": [0, 100 * moved[:, LEGS].mean()],
                "all other joints moved, most, cm": [0, 100 * moved[:, OTHERS].max()],
            }
        )
    print(f"| {len(motions)} motions | before | after |\n|---|---|---|")
    for label in rows[0]:
        before, after = np.nanmean([row[label] for row in rows], axis=0)
        print(f"| {label} | {before:.2f} | {after:.2f} |")


def slide_in(contacts: np.ndarray, joints: np.ndarray) -> float:
    """Mean ground speed of the feet in centimetres per second between frames in which they stand."""
    speed = 100 * FPS * np.linalg.norm(np.diff(joints[:, FEET][..., [0, 2]], axis=0), axis=-1)  # (T - 1, 2)
    standing = contacts[1:] & contacts[:-1]
    return float(speed[standing].mean()) if standing.any() else np.nan


if __name__ == "__main__":
    with exit_on_input_error():
        main(parse_options(Options, __doc__)[0])
