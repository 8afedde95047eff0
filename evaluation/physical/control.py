"""Distance between generated joints and the joints that a control signal asks for (OmniControl, ICLR 2024)."""

from typing import NamedTuple

import numpy as np

NEAR, FAR = 0.2, 0.5  # metres


class ControlError(NamedTuple):
    """Errors of a batch of clips, each (B,). A clip without control has 0 everywhere."""

    trajectory_20cm: np.ndarray  # 1 if any controlled joint is more than 20 cm away, else 0
    trajectory_50cm: np.ndarray  # the same for 50 cm
    location_20cm: np.ndarray  # share of controlled joints that are more than 20 cm away
    location_50cm: np.ndarray  # the same for 50 cm
    mean: np.ndarray  # mean distance in metres


def control_error(joints: np.ndarray, target: np.ndarray, controlled: np.ndarray) -> ControlError:
    """Return the trajectory, location and average errors of OmniControl.

    Args:
        joints: (B, T, J, 3) generated joints in metres.
        target: (B, T, J, 3) joints of the control signal in metres.
        controlled: (B, T, J, 1) booleans: whether the joint is controlled in the frame.
    """
    where = controlled[..., 0].astype(bool)
    distance = np.where(where, np.linalg.norm(joints.astype(np.float64) - target, axis=-1), 0)  # (B, T, J)
    count = np.maximum(where.sum(axis=(1, 2)), 1)
    near, far = ((distance > limit).sum(axis=(1, 2)) for limit in (NEAR, FAR))
    return ControlError(
        trajectory_20cm=(near > 0).astype(np.float64),
        trajectory_50cm=(far > 0).astype(np.float64),
        location_20cm=near / count,
        location_50cm=far / count,
        mean=distance.sum(axis=(1, 2)) / count,
    )
