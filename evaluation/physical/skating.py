"""Sliding feet: skating ratio of GMD and OmniControl, and Kimodo's measures with foot contacts.

Joints are (B, T, J, 3) in metres, y up, with the floor at y = 0.
"""

from typing import NamedTuple

import numpy as np
from scipy.ndimage import uniform_filter1d

from motion.measures import FEET
from motion.skeleton import JOINT_INDEX

GMD_FPS = 20.0  # fixed in the code of GMD
GMD_HEIGHT, GMD_SPEED, GMD_WINDOW = 0.05, 0.5, 5  # metres, metres per second, frames
KIT_FEET = (15, 20)  # of the 21 joints of KIT-ML

ANKLES_AND_TOES = tuple(JOINT_INDEX[name] for name in ("left_ankle", "left_foot", "right_ankle", "right_foot"))
TOES = slice(1, 4, 2)  # in ANKLES_AND_TOES
LOW_TOE, SLIDING_SPEED = 0.05, 0.2  # metres, metres per second
STILL_SPEED, LOW_FOOT = 0.15, 0.10  # metres per second, metres


class Skating(NamedTuple):
    """Skating of a batch of clips as in GMD."""

    ratio: np.ndarray  # (B,) share of steps between frames in which a foot skates
    velocity: np.ndarray  # (B, 2, T - 1) smoothed ground speed in contact, metres per second; 0 without contact


def skating(joints: np.ndarray, fps: float = GMD_FPS, feet: tuple[int, int] = FEET) -> Skating:
    """Return the skating ratio of Guided Motion Diffusion (Karunratanakul et al., ICCV 2023) and OmniControl.

    A foot joint skates if it is below 5 cm in two successive frames, and its ground speed and the mean of that speed
    over 5 frames exceed 0.5 m/s. Padding counts as frames: measure clips of different length one by one.

    Args:
        joints: (B, T, J, 3). KIT-ML is in millimetres: multiply by 0.001 first.
        fps: Frames per second. Public code uses 20 for every motion.
        feet: Left and right foot joint; ``KIT_FEET`` for KIT-ML.
    """
    positions = joints[:, :, feet].swapaxes(1, 2).astype(np.float64)  # (B, 2, T, 3)
    speed = np.linalg.norm(np.diff(positions[..., [0, 2]], axis=2), axis=-1) * fps  # (B, 2, T - 1)
    smooth = uniform_filter1d(speed, GMD_WINDOW, axis=2, mode="constant")
    low = positions[..., 1] < GMD_HEIGHT
    contact = low[..., :-1] & low[..., 1:]
    skates = (contact & (speed > GMD_SPEED) & (smooth > GMD_SPEED)).any(axis=1)  # (B, T - 1)
    return Skating(skates.mean(axis=1), contact * smooth)


class FootSkate(NamedTuple):
    """Kimodo's measures of a batch of clips, each (B,)."""

    from_height: np.ndarray  # mean speed of toes below 5 cm, metres per second
    from_contacts: np.ndarray  # mean speed of ankles and toes in contact, metres per second
    max_speed: np.ndarray  # highest speed of an ankle or toe in contact, metres per second
    ratio: np.ndarray  # share of the steps of toes below 5 cm that are faster than 0.2 m/s
    contact_consistency: np.ndarray  # share of foot contacts that agree with speed and height


def foot_skate(joints: np.ndarray, contacts: np.ndarray, lengths: np.ndarray, fps: float) -> FootSkate:
    """Return the foot measures of Kimodo (kimodo/metrics). Speeds are in space, not on the ground.

    A contact is consistent with a foot that is slower than 0.15 m/s and below 10 cm, and its absence with any other.

    Args:
        joints: (B, T, 22, 3).
        contacts: (B, T, 4) contacts of left ankle, left toe, right ankle, right toe: booleans, or numbers above 0.5.
        lengths: (B,) frames of each clip; the steps between them count.
        fps: Frames per second.
    """
    positions = joints[:, :, ANKLES_AND_TOES].astype(np.float64)  # (B, T, 4, 3)
    speed = np.linalg.norm(np.diff(positions, axis=1), axis=-1) * fps  # (B, T - 1, 4)
    height = positions[..., 1]
    valid = (np.arange(speed.shape[1]) < lengths[:, None] - 1)[..., None]  # (B, T - 1, 1)
    contact = (contacts[:, :-1] > 0.5) & valid
    low = (height[:, :-1, TOES] < LOW_TOE) & valid
    lying = low & (height[:, 1:, TOES] < LOW_TOE)
    consistent = (contacts[:, :-1] > 0.5) == ((speed < STILL_SPEED) & (height[:, :-1] < LOW_FOOT))
    return FootSkate(
        _mean_where(speed[..., TOES], low),
        _mean_where(speed, contact),
        np.where(contact, speed, 0).max(axis=(1, 2)),
        _mean_where(speed[..., TOES] > SLIDING_SPEED, lying),
        _mean_where(consistent, np.broadcast_to(valid, speed.shape)),
    )


def _mean_where(values: np.ndarray, where: np.ndarray) -> np.ndarray:
    """Return the mean (B,) of the values of each clip where a mask is true; 0 if it is true nowhere."""
    return np.where(where, values, 0).sum(axis=(1, 2)) / (where.sum(axis=(1, 2)) + 1e-6)
