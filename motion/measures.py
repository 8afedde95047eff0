"""Measures of motion: turn, speed, acceleration, jerk, and the contacts and sliding of the feet.

Joints are (T, 22, 3) in metres, y up, at 30 frames per second unless ``fps`` is given.
"""

import numpy as np
from scipy.ndimage import binary_closing, binary_opening, gaussian_filter1d, median_filter
from torch import Tensor

from motion.features272 import heading_angle, recover_rotations
from motion.resample import FPS
from motion.skeleton import JOINT_INDEX

FEET = (JOINT_INDEX["left_foot"], JOINT_INDEX["right_foot"])

STANDING_HEIGHT = 0.06  # metres above the low point of the feet, below which a foot may stand
STANDING_SPEED = 0.4  # metres per second below which a foot may stand
SHORTEST_CONTACT, LONGEST_GAP = 4, 2  # frames: shorter contacts are dropped, gaps of at most this length are filled


def total_turn(features: Tensor) -> float:
    """Return the heading change in degrees from the first to the last frame of (T, 272) features; left is positive."""
    rotations, _ = recover_rotations(features.double())
    heading = np.unwrap(heading_angle(rotations[:, 0]).numpy())
    return float(np.rad2deg(heading[-1] - heading[0]))


def speed(joints: np.ndarray) -> float:
    """Return the mean ground speed of the pelvis in metres per second."""
    steps = np.diff(joints[:, 0][:, [0, 2]], axis=0)
    return float(np.linalg.norm(steps, axis=-1).mean() * FPS)


def jerk(joints: np.ndarray) -> float:
    """Return the mean norm of the third derivative of joint positions, in metres per second cubed."""
    return float(np.linalg.norm(np.diff(joints, n=3, axis=0), axis=-1).mean() * FPS**3) if len(joints) > 3 else 0.0


def frame_acceleration(joints: np.ndarray) -> np.ndarray:
    """Return (T - 2,) accelerations of the joint that accelerates most, in metres per second squared."""
    return np.linalg.norm(np.diff(joints, n=2, axis=0), axis=-1).max(axis=1) * FPS**2


def foot_slide(joints: np.ndarray, height: float = 0.05) -> float:
    """Return the mean ground speed, in metres per second, of the foot joints while they are below ``height`` metres."""
    feet = joints[:, FEET]
    steps = np.linalg.norm(np.diff(feet[..., [0, 2]], axis=0), axis=-1) * FPS
    low = np.maximum(feet[1:, :, 1], feet[:-1, :, 1]) < height
    return float(steps[low].mean()) if low.any() else 0.0


def still_feet(joints: np.ndarray) -> np.ndarray:
    """Return (T - 1, 2) booleans: whether the left and the right foot are still, at any height.

    The foot contacts of the 272-dim representation: speed below 1.5 mm per frame, then a median filter over 6 frames.
    """
    still = np.linalg.norm(np.diff(joints[:, FEET], axis=0), axis=-1) < 0.0015
    return median_filter(still, size=(6, 1), mode="nearest")


def standing_feet(joints: np.ndarray, fps: float = FPS) -> np.ndarray:
    """Return (T, 2) booleans: whether the left and the right foot stand on the floor; slow sliding counts as standing.

    The foot contacts of the foot lock: a foot joint is low and slow for at least ``SHORTEST_CONTACT`` frames.
    """
    feet = joints[:, FEET]  # (T, 2, 3)
    low = feet[..., 1] < np.quantile(feet[..., 1].min(axis=1), 0.05) + STANDING_HEIGHT
    smooth = gaussian_filter1d(feet, 1.0, axis=0, mode="nearest")
    steps = np.gradient(smooth, axis=0) if len(feet) > 1 else np.zeros_like(feet)
    slow = np.linalg.norm(steps, axis=-1) * fps < STANDING_SPEED
    standing = np.pad(low & slow, ((LONGEST_GAP, LONGEST_GAP), (0, 0)), mode="edge")
    standing = binary_closing(standing, np.ones((LONGEST_GAP + 1, 1), bool))[LONGEST_GAP:-LONGEST_GAP]
    # A contact that is cut off by an end of the clip is kept, however short.
    padded = np.pad(standing, ((SHORTEST_CONTACT, SHORTEST_CONTACT), (0, 0)), mode="edge")
    return binary_opening(padded, np.ones((SHORTEST_CONTACT, 1), bool))[SHORTEST_CONTACT:-SHORTEST_CONTACT]
