"""Write motion as BVH, y up: the 22 joints of SMPL-X, under their own names or those of another skeleton."""

import warnings
from pathlib import Path

import numpy as np
from scipy.spatial.transform import Rotation

from formats.bvh_options import Names, Unit
from formats.bvh_skeletons import joint_names, rest_frames
from motion.body_shape import rest_offsets
from motion.clip import AnyMotion, smplx85_of
from motion.resample import FPS
from motion.skeleton import JOINT_INDEX, JOINT_NAMES, JOINTS, PARENTS
from motion.smplx import SMPLX85, smplx85_to_motion
from utils.files import atomic_write

PER_METRE = {"cm": 100.0, "m": 1.0}
ROTATION_CHANNELS = "Zrotation Yrotation Xrotation"
TIPS = {  # end sites, in metres from the last joint of each limb: crown of the head, fingertips, toes
    "head": (0.0, 0.18, 0.0),
    "left_wrist": (0.17, 0.0, 0.0),
    "right_wrist": (-0.17, 0.0, 0.0),
    "left_foot": (0.0, 0.0, 0.06),
    "right_foot": (0.0, 0.0, 0.06),
}


def write_bvh(path: str | Path, motion: AnyMotion, names: Names = "smplx", unit: Unit = "cm") -> Path:
    """Write a BVH file whose root has position and rotation channels and whose other joints have rotation channels.

    Args:
        path: Target; its folder is created if needed.
        motion: A clip or a (T, 85) array, at 30 frames per second.
        names: Skeleton whose names, joints and local axes the file has.
        unit: Length unit of the file.

    Raises:
        InputError: unusable motion, or a target that cannot be written.
    """
    smplx85 = smplx85_of(motion)
    offsets = rest_offsets(smplx85[0, SMPLX85["betas"]])
    frames = rest_frames(names, offsets)  # (22, 3, 3)
    above = frames[list(PARENTS)]  # of the parents
    above[0] = np.eye(3)
    size = PER_METRE[unit]
    local_offsets = (offsets[:, None] @ above)[:, 0] * size
    tips = {name: np.array(tip) @ frames[JOINT_INDEX[name]] * size for name, tip in TIPS.items()}
    lines, order = _hierarchy(joint_names(names), local_offsets, tips)
    rotations, pelvis = smplx85_to_motion(smplx85)
    angles = _euler_angles(above.swapaxes(-1, -2) @ rotations @ frames)  # (T, 22, 3)
    angles = np.pad(angles, ((0, 0), (0, 1), (0, 0)))[:, order]  # column -1 is of joints that do not rotate
    values = np.concatenate((pelvis * size, angles.reshape(len(angles), -1)), axis=1)  # (T, 3 + 3 J)
    lines += ["MOTION", f"Frames: {len(values)}", f"Frame Time: {1 / FPS:.8f}", *map(_numbers, values)]
    with atomic_write(Path(path)) as file:
        file.write_text("\n".join(lines) + "\n", encoding="ascii")
    return Path(path)


def _euler_angles(rotations: np.ndarray) -> np.ndarray:
    """Return the angles (T, J, 3) in degrees about z, y and x of rotations (T, J, 3, 3), without jumps over time.

    Programs that interpolate between frames need angles without jumps.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # gimbal lock: any of the equivalent solutions is right
        angles = Rotation.from_matrix(rotations.reshape(-1, 3, 3)).as_euler("ZYX", degrees=True)
    return np.unwrap(angles.reshape(rotations.shape[:-1]), period=360, axis=0)


def _hierarchy(names: list[str], offsets: np.ndarray, tips: dict[str, np.ndarray]) -> tuple[list[str], list[int]]:
    """Return the lines of the HIERARCHY section, and the joints in its order, -1 for those that do not rotate.

    The root's offset is zero and its position channels hold the whole position, because some readers add the two and
    others do not.

    Args:
        names: Names of the 22 joints, as ``joint_names`` returns them.
        offsets: Offsets (22, 3) in the local axes of the parents.
        tips: End sites of the last joints of the limbs, in local axes.
    """
    lines: list[str] = ["HIERARCHY"]
    order: list[int] = []

    def add(joint: int, depth: int) -> None:
        *fixed, own = names[joint].split("/")
        top = depth
        for name in (*fixed, own):
            indent, position = "  " * depth, "" if depth else "Xposition Yposition Zposition "
            offset = offsets[joint] if name == own else np.zeros(3)
            lines.append(f"{indent}{'JOINT' if depth else 'ROOT'} {name}")
            lines.append(f"{indent}{{")
            lines.append(f"{indent}  OFFSET {_numbers(offset)}")
            lines.append(f"{indent}  CHANNELS {3 if depth else 6} {position}{ROTATION_CHANNELS}")
            order.append(joint if name == own else -1)
            depth += 1
        for child in (child for child in range(JOINTS) if PARENTS[child] == joint):
            add(child, depth)
        if JOINT_NAMES[joint] in tips:
            indent, tip = "  " * depth, _numbers(tips[JOINT_NAMES[joint]])
            lines.extend((f"{indent}End Site", f"{indent}{{", f"{indent}  OFFSET {tip}", f"{indent}}}"))
        lines.extend(f"{'  ' * level}}}" for level in reversed(range(top, depth)))

    add(0, 0)
    return lines, order


def _numbers(values: np.ndarray) -> str:
    return " ".join(["%.6f"] * len(values)) % tuple(values.tolist())  # four times as fast as a format per value
