"""Removal of single frames that jerk, which samples of a generator have now and then.

A frame jerks if the acceleration of its fastest joint exceeds both what is usual in the motion and what is usual around
the frame; a fast movement of several frames, such as a punch, does not. The frame is moved toward the middle of its
neighbours as far as needed, by less than a centimetre as a rule: an excess of 15 m/s^2 is 8 mm at 30 frames per second.
"""

import numpy as np
from scipy.ndimage import median_filter

from motion.measures import frame_acceleration
from motion.rotation import slerp
from motion.skeleton import forward_kinematics

USUAL = 0.97  # quantile of the accelerations of the motion
ABOVE_USUAL, ABOVE_NEARBY = 1.05, 1.35  # factors of that quantile and of the median of the frames around
NEARBY = 7  # frames
ROUNDS = 12  # a calmed frame moves the acceleration of its neighbours


def calm(rotations: np.ndarray, pelvis: np.ndarray, fixed: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return a motion without single frames that jerk.

    Args:
        rotations: (T, 22, 3, 3) local rotations, the root's in the world frame.
        pelvis: (T, 3) metres.
        fixed: (T,) frames that do not change; the first and the last never do.

    Returns:
        Rotations and pelvis of the same shapes; most frames are unchanged.
    """
    rotations, pelvis = rotations.copy(), pelvis.copy()
    for _ in range(ROUNDS if len(pelvis) > NEARBY else 0):
        acceleration = frame_acceleration(forward_kinematics(rotations, pelvis))  # (T - 2,)
        usual = ABOVE_USUAL * np.quantile(acceleration, USUAL)
        nearby = ABOVE_NEARBY * median_filter(acceleration, NEARBY, mode="nearest")
        nearby[:NEARBY] = 0  # the first frames of a sample jerk most, and several of them at a time
        limit = np.maximum(usual, nearby)
        jerks = np.flatnonzero((acceleration > limit) & ~fixed[1:-1])
        if not len(jerks):
            break
        share = 1 - limit[jerks] / acceleration[jerks]  # (N,)
        before, at, after = jerks, jerks + 1, jerks + 2
        half = np.full((len(jerks), rotations.shape[1]), 0.5)
        middle = slerp(rotations[before], rotations[after], half)
        rotations[at] = slerp(rotations[at], middle, np.repeat(share[:, None], rotations.shape[1], axis=1))
        pelvis[at] += share[:, None] * ((pelvis[before] + pelvis[after]) / 2 - pelvis[at])
    return rotations, pelvis
