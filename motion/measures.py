"""Measures of reconstructed and generated motion. Joints (T, 22, 3) in metres, 30 frames per second."""

import numpy as np
import torch

from motion.features272 import heading_angle, recover_rotations
from motion.resample import FPS
from motion.skeleton import JOINT_INDEX


def total_turn(features: torch.Tensor) -> float:
    """Degrees by which the heading turns from the first to the last frame of (T, 272); left is positive."""
    rotations, _ = recover_rotations(features.double())
    heading = np.unwrap(heading_angle(rotations[:, 0]).numpy())
    return float(np.rad2deg(heading[-1] - heading[0]))


def speed(joints: np.ndarray) -> float:
    """Mean ground speed of the pelvis in metres per second."""
    steps = np.diff(joints[:, 0][:, [0, 2]], axis=0)
    return float(np.linalg.norm(steps, axis=-1).mean() * FPS)


def foot_slide(joints: np.ndarray, height: float = 0.05) -> float:
    """Mean ground speed, in metres per second, of the foot joints while they are below ``height`` metres."""
    feet = joints[:, [JOINT_INDEX["left_foot"], JOINT_INDEX["right_foot"]]]
    steps = np.linalg.norm(np.diff(feet[..., [0, 2]], axis=0), axis=-1) * FPS
    low = np.maximum(feet[1:, :, 1], feet[:-1, :, 1]) < height
    return float(steps[low].mean()) if low.any() else 0.0


def jerk(joints: np.ndarray) -> float:
    """Mean size of the third derivative of joint positions, in metres per second cubed."""
    return float(np.linalg.norm(np.diff(joints, n=3, axis=0), axis=-1).mean() * FPS**3) if len(joints) > 3 else 0.0


def foot_contacts(joints: np.ndarray) -> np.ndarray:
    """(T, 22, 3) joints to (T - 1, 2) booleans, left and right foot still: under 1.5 mm a frame, median of 6."""
    from scipy.ndimage import median_filter

    feet = joints[:, (JOINT_INDEX["left_foot"], JOINT_INDEX["right_foot"])]
    still = np.linalg.norm(np.diff(feet, axis=0), axis=-1) < 0.0015
    return median_filter(still, size=(6, 1), mode="nearest")
