"""Jerk, the third derivative of joint positions, in the definitions of FlowMDM, HY-Motion and Motius.

The definitions are not comparable: FlowMDM and HY-Motion take the L1 norm per frame and the largest joint, Motius the
L2 norm in metres per second cubed and the mean joint, as ``motion.measures.jerk`` does. Joints are (B, T, J, 3) in
metres. Jerk at a frame takes this and the next three frames.
"""

from typing import NamedTuple

import numpy as np

# Mean jerk of real motion in FlowMDM (Barquero et al., CVPR 2024), from which the area under the curve is measured.
HUMANML3D_JERK = 0.033031363  # at 20 fps
BABEL_JERK = 0.016383045  # at 30 fps


class Transition(NamedTuple):
    """Jerk of generated transitions beside that of reference transitions, as in Motius."""

    peak_reference: float  # metres per second cubed
    peak_generated: float  # metres per second cubed
    area_between: float  # integral over time of the difference of the curves, metres per second squared


def frame_jerk(joints: np.ndarray, lengths: np.ndarray | None = None) -> np.ndarray:
    """Return the jerk (B, T - 3) of FlowMDM: L1 norm per frame^3 of the joint with the largest, zero in the padding.

    Args:
        joints: (B, T, J, 3).
        lengths: (B,) frames of each clip; None if no clip is padded.
    """
    jerk = np.abs(np.diff(joints.astype(np.float64), n=3, axis=1)).sum(axis=-1).max(axis=-1)  # (B, T - 3)
    if lengths is not None:
        jerk = np.where(np.arange(jerk.shape[1]) < lengths[:, None] - 3, jerk, 0)
    return jerk


def peak_jerk(jerk: np.ndarray) -> float:
    """Return FlowMDM's PJ: the maximum over frames of ``frame_jerk`` averaged over clips."""
    return float(jerk.mean(axis=0).max())


def area_under_jerk(jerk: np.ndarray, real: float = HUMANML3D_JERK) -> float:
    """Return FlowMDM's AUJ: the summed distance of ``frame_jerk``, averaged over clips, from that of real motion.

    Args:
        jerk: (B, T - 3).
        real: Mean jerk of real motion: ``HUMANML3D_JERK``, ``BABEL_JERK``, or that of the data at hand.
    """
    return float(np.abs(jerk.mean(axis=0) - real).sum())


def mean_jerk(jerk: np.ndarray) -> float:
    """Return HY-Motion's jerk: the mean of ``frame_jerk`` over clips and frames."""
    return float(jerk.mean())


def jerk_curve(joints: np.ndarray, fps: float) -> np.ndarray:
    """Return the jerk (T - 3,) of Motius: L2 norm averaged over clips and joints, in metres per second cubed."""
    third = np.diff(joints.astype(np.float64), n=3, axis=1) * fps**3
    return np.linalg.norm(third, axis=-1).mean(axis=(0, 2))


def transition_jerk(reference: np.ndarray, generated: np.ndarray, fps: float) -> Transition:
    """Compare the jerk of generated transitions with that of reference transitions, as Motius.

    Args:
        reference: (B, T, J, 3).
        generated: (C, T, J, 3), of as many frames.
        fps: Frames per second.
    """
    curves = [jerk_curve(joints, fps) for joints in (reference, generated)]
    area = np.trapezoid(np.abs(curves[0] - curves[1]), dx=1 / fps)
    return Transition(float(curves[0].max()), float(curves[1].max()), float(area))
