"""Corrections of the pose: known rotations of joints, and the height of the pelvis that belongs to them."""

import numpy as np

from control.targets import Targets
from motion.directions import turn_about
from motion.features272 import heading_angle
from motion.limbs import ARMS, LEGS
from motion.rotation import matrix_to_axis_angle, y_rotation
from motion.skeleton import JOINT_INDEX, forward_kinematics
from motion.spread import spread, spread_rotations

LEVER = 0.5  # metres: distance of hands and feet from the joints that move them, for the widths of fades
STRAIGHT = np.deg2rad(4)  # bend of knee and elbow below which a fading offset does not straighten them
SOLES = [JOINT_INDEX[f"{side}_{name}"] for side in ("left", "right") for name in ("ankle", "foot")]


def pose(rotations: np.ndarray, pelvis: np.ndarray, targets: Targets) -> tuple[np.ndarray, np.ndarray]:
    """Rotate joints so that known rotations are met exactly; the difference fades within a second around them.

    The pelvis takes the known height. Where a pose is known without it, the lower foot keeps its height.

    Args:
        rotations: (T, 22, 3, 3) local rotations, the root's in the world frame.
        pelvis: (T, 3) metres.
        targets: What is asked of the T frames.

    Returns:
        Rotations and pelvis of the same shapes.
    """
    asked = targets.rotations.copy()
    asked[:, 0] = y_rotation(heading_angle(rotations[:, 0])) @ asked[:, 0]
    result = spread_rotations(rotations, asked, targets.rotations_known, LEVER)
    for limb in (*ARMS.values(), *LEGS.values()):
        bend = _hindrance(result[:, limb.middle], limb.axis) - _hindrance(rotations[:, limb.middle], limb.axis)
        bend = np.where(targets.rotations_known[:, limb.middle], 0, np.maximum(bend, 0))
        result[:, limb.middle] = result[:, limb.middle] @ turn_about(np.array(limb.axis), bend)
    missing = np.where(
        targets.joints_known[:, 0, 1],
        targets.joints[:, 0, 1] - pelvis[:, 1],
        _lowest(rotations, pelvis) - _lowest(result, pelvis),
    )
    return result, pelvis + spread(targets.posed, missing[:, None]) * (0, 1, 0)


def _hindrance(rotations: np.ndarray, axis: tuple[float, float, float]) -> np.ndarray:
    """Return the angles (T,) about its axis by which a knee or an elbow must bend so that it is not overextended."""
    bend = matrix_to_axis_angle(rotations) @ np.array(axis)
    return STRAIGHT * np.logaddexp(0, 1 - bend / STRAIGHT)


def _lowest(rotations: np.ndarray, pelvis: np.ndarray) -> np.ndarray:
    """Return the (T,) heights of the lowest joint of the feet."""
    return forward_kinematics(rotations, pelvis)[:, SOLES, 1].min(axis=1)
