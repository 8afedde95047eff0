"""The row of physical measures that an evaluation prints for real, reconstructed and generated motions."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from evaluation.physical.floor import floating, lowest_penetration
from evaluation.physical.skating import foot_skate, skating
from motion.measures import foot_slide, jerk, standing_feet
from motion.resample import FPS
from utils.errors import InputError

SHORTEST = 4  # frames; a third derivative takes four


class MotionQuality(NamedTuple):
    """Means over clips. Compare with the row of real motions: their values are not 0."""

    skating_ratio: float  # share of frames, as in GMD, at the true frame rate
    foot_speed: float  # metres per second, mean ground speed of feet below 5 cm
    penetration: float  # millimetres, depth of the lowest joint more than 5 mm below the floor
    floating: float  # millimetres, height of the lowest joint more than 5 mm above the floor
    jerk: float  # metres per second cubed, mean joint
    contact_consistency: float  # share of foot contacts that agree with speed and height, as in Kimodo


def motion_quality(clips: Sequence[np.ndarray]) -> MotionQuality:
    """Measure clips of (T, 22, 3) joints in metres, y up, floor at 0, at 30 frames per second.

    Raises:
        InputError: There are no clips, or one is shorter than 4 frames.
    """
    if not clips:
        raise InputError("there are no motions to measure; give at least one")
    for number, joints in enumerate(clips):
        if len(joints) < SHORTEST:
            raise InputError(f"motion {number} has {len(joints)} frames; leave out motions of fewer than {SHORTEST}")
    rows = [
        MotionQuality(
            skating_ratio=float(skating(joints[None], FPS).ratio[0]),
            foot_speed=foot_slide(joints),
            penetration=float(lowest_penetration(joints).mean()),
            floating=float(floating(joints).mean()),
            jerk=jerk(joints),
            contact_consistency=_contact_consistency(joints),
        )
        for joints in clips
    ]
    return MotionQuality(*np.mean(rows, axis=0).tolist())


def _contact_consistency(joints: np.ndarray) -> float:
    """Return Kimodo's measure with the contacts of ``standing_feet``, which accept slow sliding."""
    contacts = np.repeat(standing_feet(joints), 2, axis=1)  # (T, 4) of ankle and toe
    return float(foot_skate(joints[None], contacts[None], np.array([len(joints)]), FPS).contact_consistency[0])
