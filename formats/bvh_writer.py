"""Write motion as BVH: the 22 SMPL-X joints by name, centimetres, y up, as Blender and game engines import it."""

import warnings
from pathlib import Path

import numpy as np
from scipy.spatial.transform import Rotation

from motion.body_shape import rest_offsets
from motion.clip import AnyMotion, smplx85_of
from motion.resample import FPS
from motion.skeleton import JOINT_NAMES, JOINTS, PARENTS
from motion.smplx import SMPLX85
from utils.files import atomic_write

CENTIMETRES = 100.0  # per metre
ROTATION_CHANNELS = "Zrotation Yrotation Xrotation"
TIPS = {  # end sites, in metres from the last joint of each limb: crown of the head, fingertips, toes
    "head": (0.0, 0.18, 0.0),
    "left_wrist": (0.17, 0.0, 0.0),
    "right_wrist": (-0.17, 0.0, 0.0),
    "left_foot": (0.0, 0.0, 0.06),
    "right_foot": (0.0, 0.0, 0.06),
}


def write_bvh(path: str | Path, motion: AnyMotion) -> Path:
    """Write a BVH file whose root has position and rotation channels and whose other joints have rotation channels.

    Args:
        path: Target; its folder is created if needed.
        motion: A clip or a (T, 85) array, at 30 frames per second.

    Raises:
        InputError: unusable motion, or a target that cannot be written.
    """
    smplx85 = smplx85_of(motion)
    lines, order = _hierarchy(rest_offsets(smplx85[0, SMPLX85["betas"]]))
    rotations = smplx85[:, SMPLX85["axis_angle"]].reshape(-1, JOINTS, 3)[:, order]  # (T, 22, 3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # gimbal lock: any of the equivalent solutions is right
        angles = Rotation.from_rotvec(rotations.reshape(-1, 3)).as_euler("ZYX", degrees=True).reshape(rotations.shape)
    angles = np.unwrap(angles, period=360, axis=0)  # no jumps, for programs that interpolate between frames
    position = smplx85[:, SMPLX85["translation"]] * CENTIMETRES
    values = np.concatenate((position, angles.reshape(len(angles), -1)), axis=1)  # (T, 69)
    lines += ["MOTION", f"Frames: {len(values)}", f"Frame Time: {1 / FPS:.8f}", *map(_numbers, values)]
    with atomic_write(Path(path)) as file:
        file.write_text("\n".join(lines) + "\n", encoding="ascii")
    return Path(path)


def _hierarchy(offsets: np.ndarray) -> tuple[list[str], list[int]]:
    """Return the lines of the HIERARCHY section for (22, 3) offsets in metres, and the joints in its order.

    The root's offset is zero and its position channels hold the whole position, because some readers add the two and
    others do not.
    """
    lines, order = ["HIERARCHY"], []

    def add(joint: int, depth: int) -> None:
        indent, children = "  " * depth, [child for child in range(JOINTS) if PARENTS[child] == joint]
        order.append(joint)
        lines.append(f"{indent}{'JOINT' if depth else 'ROOT'} {JOINT_NAMES[joint]}")
        lines.append(f"{indent}{{")
        lines.append(f"{indent}  OFFSET {_numbers(offsets[joint] * CENTIMETRES)}")
        if depth:
            lines.append(f"{indent}  CHANNELS 3 {ROTATION_CHANNELS}")
        else:
            lines.append(f"{indent}  CHANNELS 6 Xposition Yposition Zposition {ROTATION_CHANNELS}")
        for child in children:
            add(child, depth + 1)
        if not children:
            tip = _numbers(np.array(TIPS[JOINT_NAMES[joint]]) * CENTIMETRES)
            lines.extend((f"{indent}  End Site", f"{indent}  {{", f"{indent}    OFFSET {tip}", f"{indent}  }}"))
        lines.append(f"{indent}}}")

    add(0, 0)
    return lines, order


def _numbers(values: np.ndarray) -> str:
    return " ".join(f"{value:.6f}" for value in values)
