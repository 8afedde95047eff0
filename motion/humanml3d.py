"""The steps by which HumanML3D cuts its clips from joint positions of AMASS: frames, axes and mirrored copies.

A clip of ``index.csv`` has the frames ``clip_span`` of its source file at 20 frames per second, and the axes of
``to_y_up``. Its copy "M" + name is ``mirror_joints`` of it. ``motion.features263`` encodes both.

Source: HumanML3D (Guo et al., CVPR 2022), raw_pose_processing.ipynb.
"""

import numpy as np

from motion.features263 import HUMANML3D
from motion.skeleton import MIRROR
from utils.errors import InputError

LEADING_SECONDS = {  # removed from the start of all files of these parts of AMASS
    "Eyes_Japan_Dataset": 3.0,
    "MPI_HDM05": 3.0,
    "TotalCapture": 1.0,
    "MPI_Limits": 1.0,
    "Transitions_mocap": 0.5,
}
WHOLE = "humanact12"  # part that is neither cut nor reflected
BODY, FINGERS, FINGER_JOINTS = len(MIRROR), 5, 3  # SMPL-H: body, then the fingers of the left and of the right hand
RIGHT_FINGERS = (2, 1, 4, 0, 3)  # of each left finger; HumanML3D mixes up the fingers, which its features do not use


def _mirror_with_hands() -> list[int]:
    """Return the index (52) of the joint of SMPL-H on the other side."""
    fingers = np.arange(BODY, BODY + 2 * FINGERS * FINGER_JOINTS).reshape(2, FINGERS, FINGER_JOINTS)
    left, right = fingers
    return [*MIRROR, *right[list(RIGHT_FINGERS)].ravel(), *left[np.argsort(RIGHT_FINGERS)].ravel()]


SWAPPED = {BODY: list(MIRROR), BODY + 2 * FINGERS * FINGER_JOINTS: _mirror_with_hands()}  # by number of joints


def frame_step(fps: float, target_fps: float = HUMANML3D.fps) -> int:
    """Return the step at which HumanML3D takes frames of a file of ``fps`` frames per second, without interpolation.

    The step is rounded down, so that for example 59.94 frames per second become 29.97 instead of 20.

    Raises:
        InputError: the file has fewer frames per second than the target.
    """
    if not fps >= target_fps:
        raise InputError(f"the file has {fps:g} frames per second and {target_fps:g} are needed; resample it")
    return int(fps / target_fps)


def clip_span(source: str, start_frame: int, end_frame: int) -> slice:
    """Return the frames of a row of ``index.csv`` in its source file at 20 frames per second.

    Args:
        source: Path of the source file in the row, which names the part of AMASS.
        start_frame, end_frame: Frames of the row.
    """
    if WHOLE in source:
        return slice(None)
    leading = next((seconds for part, seconds in LEADING_SECONDS.items() if part in source), 0.0)
    skipped = int(leading * HUMANML3D.fps)
    return slice(skipped + start_frame, skipped + end_frame)


def to_y_up(joints: np.ndarray, source: str = "") -> np.ndarray:
    """Change joint positions (..., 3) of the body model from z up to y up: (x, y, z) -> (-x, z, y).

    Args:
        source: Path of the source file; x keeps its sign for HumanAct12.
    """
    sign = 1.0 if WHOLE in source else -1.0
    return joints[..., [0, 2, 1]] * (sign, 1.0, 1.0)


def mirror_joints(joints: np.ndarray) -> np.ndarray:
    """Swap left and right of (..., J, 3) joints of SMPL (22) or SMPL-H (52) by reflection at the plane x = 0.

    Raises:
        InputError: another number of joints.
    """
    if joints.shape[-2] not in SWAPPED:
        raise InputError(f"{joints.shape[-2]} joints cannot be mirrored; give the 22 of SMPL or the 52 of SMPL-H")
    return joints[..., SWAPPED[joints.shape[-2]], :] * (-1.0, 1.0, 1.0)
