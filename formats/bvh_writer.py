"""Motion to BVH: the 22 joints of SMPL-X by name, centimetres, y up, as Blender and game engines import it."""

import warnings
from pathlib import Path

import numpy as np
from scipy.spatial.transform import Rotation

from motion.body_shape import rest_offsets
from motion.resample import FPS
from motion.skeleton import JOINT_NAMES, JOINTS, PARENTS
from motion.smplx import SMPLX85, check_smplx85
from utils.files import atomic_write

CENTIMETRES = 100.0
TIPS = {  # metres beyond the joints that end a limb: crown of the head, fingertips, toes
    "head": (0.0, 0.18, 0.0),
    "left_wrist": (0.17, 0.0, 0.0),
    "right_wrist": (-0.17, 0.0, 0.0),
    "left_foot": (0.0, 0.0, 0.06),
    "right_foot": (0.0, 0.0, 0.06),
}


def write_bvh(path: str | Path, smplx85: np.ndarray) -> Path:
    """Write (T, 85) motion at 30 frames per second; the root has position and rotation, other joints rotation.

    Raises:
        InputError: unusable motion, or a target that cannot be written.
    """
    smplx85 = check_smplx85(smplx85)
    children = [[child for child in range(JOINTS) if PARENTS[child] == joint] for joint in range(JOINTS)]
    # The root has no offset, its position channels hold all: some readers add the one to the other, some do not.
    offsets = rest_offsets(smplx85[0, SMPLX85["betas"]])
    lines, order = ["HIERARCHY"], []

    def add(joint: int, depth: int) -> None:
        indent, order_of_channels = "  " * depth, "Zrotation Yrotation Xrotation"
        order.append(joint)
        lines.append(f"{indent}{'JOINT' if depth else 'ROOT'} {JOINT_NAMES[joint]}")
        lines.append(f"{indent}{{")
        lines.append(f"{indent}  OFFSET {_numbers(offsets[joint] * CENTIMETRES)}")
        if depth:
            lines.append(f"{indent}  CHANNELS 3 {order_of_channels}")
        else:
            lines.append(f"{indent}  CHANNELS 6 Xposition Yposition Zposition {order_of_channels}")
        for child in children[joint]:
            add(child, depth + 1)
        if not children[joint]:
            tip = _numbers(np.array(TIPS[JOINT_NAMES[joint]]) * CENTIMETRES)
            lines.extend((f"{indent}  End Site", f"{indent}  {{", f"{indent}    OFFSET {tip}", f"{indent}  }}"))
        lines.append(f"{indent}}}")

    add(0, 0)
    rotations = smplx85[:, SMPLX85["axis_angle"]].reshape(-1, JOINTS, 3)[:, order]  # (T, 22, 3), depth first
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # gimbal lock: one of many equal solutions is as good as another
        angles = Rotation.from_rotvec(rotations.reshape(-1, 3)).as_euler("ZYX", degrees=True).reshape(rotations.shape)
    angles = np.unwrap(angles, period=360, axis=0)  # no jumps for what interpolates between frames
    position = smplx85[:, SMPLX85["translation"]] * CENTIMETRES
    values = np.concatenate((position, angles.reshape(len(angles), -1)), axis=1)  # (T, 69)
    lines += ["MOTION", f"Frames: {len(values)}", f"Frame Time: {1 / FPS:.8f}", *map(_numbers, values)]
    with atomic_write(Path(path)) as file:
        file.write_text("\n".join(lines) + "\n", encoding="ascii")
    return Path(path)


def _numbers(values: np.ndarray) -> str:
    return " ".join(f"{value:.6f}" for value in values)
