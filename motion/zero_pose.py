"""The zero pose of a source skeleton: whether it is a standing person, and the direction that the person faces."""

import numpy as np

from motion.directions import nearest_axes, turn_angle, unit
from motion.source_motion import SourceMotion

UPRIGHT = 25.0  # degrees: a zero pose within this angle of the file's axes is set to them


def zero_pose_body(source: SourceMotion, joints: dict[str, list[int]]) -> np.ndarray | None:
    """Return the directions left, up and forward (columns, (3, 3)) of the zero pose; None if nobody is standing in it.

    They are set to the file's axes if they are near.
    """
    zero = source.zero_pose()
    return _body({name: zero[entry[0]] for name, entry in joints.items() if entry})


def _body(at: dict[str, np.ndarray]) -> np.ndarray | None:
    """Return the directions left, up and forward (columns, (3, 3)) of joint positions; None if nobody is standing."""
    hips, shoulders, ankles = ((at[f"left_{part}"] + at[f"right_{part}"]) / 2 for part in ("hip", "shoulder", "ankle"))
    trunk, legs = unit(at["head"] - hips), unit(hips - ankles)
    left = unit(at["left_hip"] - at["right_hip"])
    across = unit(at["left_shoulder"] - at["right_shoulder"])
    if not trunk @ legs > 0.7 or not left @ across > 0.5 or abs(left @ legs) > 0.5:
        return None
    up = unit(unit(at["head"] - ankles) + unit(shoulders - ankles))
    left = unit(unit(left + across) - (left + across) @ up / np.linalg.norm(left + across) * up)
    for side, sign in (("left", 1), ("right", -1)):
        parts = [at[f"{side}_{part}"] for part in ("hip", "knee", "ankle")]
        thigh, shin = unit(parts[1] - parts[0]), unit(parts[2] - parts[1])
        arm = unit(at[f"{side}_elbow"] - at[f"{side}_shoulder"])
        if max(thigh @ up, shin @ up) > -0.25 or sign * (arm @ left) < -0.5:
            return None
    body = np.stack((left, up, np.cross(left, up)), axis=1)
    nearest = nearest_axes(body)
    return nearest if turn_angle(nearest, body) < UPRIGHT else body
