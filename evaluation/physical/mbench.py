"""Physical measures of MBench, in the definitions of Motius (evaluation/metrics/physical.py).

All measures are per frame, not per second: compare motions of equal frame rate only. Joints are (T, 22, 3) in metres,
y up; the floor is the lowest height of the foot joints in the clip, so penetration is always 0.
"""

from typing import NamedTuple

import numpy as np
from scipy.signal import find_peaks

from motion.measures import FEET

STILL, LOW = 0.01, 0.02  # metres per frame, metres above the floor: a foot is in contact below either
SUNK = 0.005  # metres below the floor from which on a foot penetrates it
ROOT_MOVES = 0.001  # metres per frame
FOOT_MOVES = 1.2e-4  # metres per frame
RATES = (0.6, 1.75)  # speed of a foot relative to the root, divided by that of the root: limits of a foot in contact
SLOW_SWING = 0.4  # the same rate, below which a foot in the air floats
SHORTEST = 4  # frames of a swing
MOST_PEAKS = 2  # local maxima of the angle of a swing


class MBench(NamedTuple):
    """Measures of a clip."""

    jitter: float  # metres per frame^2
    dynamic: float  # metres per frame
    penetration: float  # metres
    sliding: float  # metres per frame
    floating: float  # share of frames


class Feet(NamedTuple):
    """Motion of the feet in each frame; displacements lead to the next frame, and the last one is repeated."""

    positions: np.ndarray  # (T, 2, 3)
    step: np.ndarray  # (T, 2) displacement of each foot, metres
    contact: np.ndarray  # (T, 2) whether it is in contact
    rate: np.ndarray  # (T, 2) displacement relative to the root divided by that of the root
    root_step: np.ndarray  # (T,) displacement of the root, metres


def mbench(joints: np.ndarray) -> MBench:
    """Return the measures of a clip of (T, 22, 3) joints with at least 3 frames."""
    joints = joints.astype(np.float64)
    feet = _feet(joints)
    height = feet.positions[..., 1] - feet.positions[..., 1].min()
    sunk = np.where(height < -SUNK, -height, 0)
    ground = _last_repeated(np.linalg.norm(np.diff(feet.positions[..., [0, 2]], axis=0), axis=-1))
    slides = (ground * feet.contact).sum(axis=0) / (feet.contact.sum(axis=0) + 1e-6)  # (2,)
    return MBench(
        jitter=_mean_difference(joints, 2),
        dynamic=_mean_difference(joints, 1),
        penetration=float(sunk.mean()),
        sliding=float(slides.mean()),
        floating=floating_share(feet),
    )


def table_row(clips: list[np.ndarray]) -> MBench:
    """Return the measures as MBench prints them: means over clips times 1000, floating in percent."""
    means = np.mean([mbench(joints) for joints in clips], axis=0) * (1000, 1000, 1000, 1000, 100)
    return MBench(*means.tolist())


def floating_share(feet: Feet) -> float:
    """Return (I + F / 2 + O) / T, the share of frames in which the body floats.

    I counts frames in which the root moves and the feet in contact do not move with it, F frames in the air in which a
    foot moves too slowly for the root, O frames of swings of both feet whose angle oscillates.
    """
    return float((_invalid_contacts(feet) + _slow_in_air(feet) / 2 + _oscillating(feet)) / len(feet.step))


def _feet(joints: np.ndarray) -> Feet:
    positions, root = joints[:, FEET], joints[:, 0]
    step = _last_repeated(np.linalg.norm(np.diff(positions, axis=0), axis=-1))
    relative = _last_repeated(np.linalg.norm(np.diff(positions - root[:, None], axis=0), axis=-1))
    root_step = _last_repeated(np.linalg.norm(np.diff(root, axis=0), axis=-1))
    low = positions[..., 1] - positions[..., 1].min() < LOW
    return Feet(positions, step, (step < STILL) | low, relative / (root_step[:, None] + 1e-6), root_step)


def _mean_difference(joints: np.ndarray, order: int) -> float:
    """Return the mean norm of differences of joints in the world plus that of joints relative to the root."""
    differences = (np.diff(values, n=order, axis=0) for values in (joints, joints - joints[:, :1]))
    return sum(float(np.linalg.norm(values, axis=-1).mean()) for values in differences)


def _last_repeated(steps: np.ndarray) -> np.ndarray:
    return np.concatenate([steps, steps[-1:]])


def _invalid_contacts(feet: Feet) -> int:
    """Count the frames in which the root moves and no foot in contact moves as it should (I)."""
    root_step = feet.root_step[:, None]
    wrong = (feet.rate < RATES[0]) | ((feet.rate > RATES[1]) & (root_step > FOOT_MOVES))
    invalid = wrong & (feet.step > FOOT_MOVES)
    all_invalid = feet.contact.any(axis=1) & (invalid | ~feet.contact).all(axis=1)
    return int((all_invalid & (feet.root_step >= ROOT_MOVES)).sum())


def _swings(feet: Feet, foot: int) -> list[tuple[int, int]]:
    """Return first frame and end of each maximal run of frames without contact."""
    edges = np.flatnonzero(np.diff(np.pad(~feet.contact[:, foot], 1).astype(int)))
    return list(zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True))


def _slow_in_air(feet: Feet) -> int:
    """Count the frames in which a foot in the air moves too slowly for the root (F).

    Swings of at least 4 frames count if the root moves in at least half of their frames.
    """
    frames = 0
    for foot in range(2):
        for start, end in _swings(feet, foot):
            root_rests = (feet.root_step[start:end] < ROOT_MOVES).mean() > 0.5
            if end - start >= SHORTEST and not root_rests:
                frames += int((feet.rate[start:end, foot] < SLOW_SWING).sum())
    return frames


def _oscillating(feet: Feet) -> int:
    """Count the frames of overlapping swings of both feet in which the angle of the left foot oscillates (O)."""
    frames = 0
    for left in _swings(feet, 0):
        for right in _swings(feet, 1):
            start, end = max(left[0], right[0]), min(left[1], right[1])
            if end - start >= SHORTEST and len(find_peaks(_angles(feet.positions[start:end, 0]))[0]) > MOST_PEAKS:
                frames += end - start
    return frames


def _angles(positions: np.ndarray) -> np.ndarray:
    """Return the angles (n - 1,) in degrees between the way of a foot (n, 3) so far and its whole way."""
    so_far, whole = positions[1:] - positions[0], positions[-1] - positions[0]
    norms = (np.linalg.norm(so_far, axis=1) + 1e-6) * (np.linalg.norm(whole) + 1e-6)
    return np.degrees(np.arccos(np.clip(so_far @ whole / norms, -1, 1)))
