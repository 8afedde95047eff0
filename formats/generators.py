"""The ``.npz`` files of other generators: Kimodo (NVIDIA) and HY-Motion (Tencent).

Both are y up, in metres, at 30 frames per second, which their files do not state. Every function returns smplx_85 at
the frame rate of the file.
"""

import numpy as np

from formats.amass import SMPLH_PELVIS, amass_to_smplx85, body_poses
from formats.import_options import ImportOptions
from formats.joint_names import find_joints
from motion.body_shape import rest_joints
from motion.resample import FPS
from motion.retarget import UNITS, Axes, retarget
from motion.rotation import axis_angle_to_matrix
from motion.skeleton import JOINTS, forward_kinematics, turn_world
from motion.smplx import motion_to_smplx85, smplx85_to_motion
from motion.source_motion import SourceMotion
from motion.world_axes import TURNS
from utils.errors import InputError

SIDES = ("Left", "Right")
ROBOT = 34  # joints of the Unitree G1
HALF_TURN = np.diag([-1.0, 1.0, -1.0])  # about the vertical axis
ROUNDING = 0.01  # largest deviation of R R^T from the identity


def _soma_joints(joints: int) -> list[str]:
    """Return the joint names of Kimodo's SOMA skeleton with 77 or 30 joints, in the order of its files."""
    full = joints == 77
    fingers = {"Thumb": 3, "Index": 4, "Middle": 4, "Ring": 4, "Pinky": 4}
    hand = [f"Hand{finger}{part}" for finger, count in fingers.items() for part in (*range(1, count + 1), "End")]
    trunk = ["Hips", "Spine1", "Spine2", "Chest", "Neck1", "Neck2", "Head", *(["HeadEnd"] if full else [])]
    arm = ["Shoulder", "Arm", "ForeArm", "Hand", *(hand if full else ["HandThumbEnd", "HandMiddleEnd"])]
    leg = ["Leg", "Shin", "Foot", "ToeBase", *(["ToeEnd"] if full else [])]
    limbs = [side + joint for limb in (arm, leg) for side in SIDES for joint in limb]
    return [*trunk, "Jaw", "LeftEye", "RightEye", *limbs]


SOMA_CHAINS = (  # of the joints that a body needs; HandMiddleEnd and ToeEnd only give directions
    "Hips Spine1 Spine2 Chest Neck1 Neck2 Head",
    *(f"Chest {side}Shoulder {side}Arm {side}ForeArm {side}Hand {side}HandMiddleEnd" for side in SIDES),
    *(f"Hips {side}Leg {side}Shin {side}Foot {side}ToeBase {side}ToeEnd" for side in SIDES),
)
SOMA_PARENTS: dict[str, str | None] = {"Hips": None}  # parents first
for _chain in map(str.split, SOMA_CHAINS):
    SOMA_PARENTS |= zip(_chain[1:], _chain[:-1], strict=True)


def kimodo_to_smplx85(arrays: dict[str, np.ndarray], options: ImportOptions, notes: list[str]) -> np.ndarray:
    """Convert the arrays of a Kimodo file to (T, 85).

    The 22 joints of SMPL-X are taken as they are; the 30 or 77 joints of SOMA are retargeted.

    Args:
        arrays: ``local_rot_mats`` (T, J, 3, 3), ``root_positions`` (T, 3), and for SOMA ``posed_joints`` (T, J, 3).
        options: Options of the import.
        notes: List to which decisions are added.

    Raises:
        InputError: another skeleton, or arrays that do not fit together.
    """
    frames, joints = (*arrays["local_rot_mats"].shape, 0, 0)[:2]
    if joints == ROBOT:
        raise InputError(
            f"it moves the robot Unitree G1 ({ROBOT} joints), which has no head and no human spine; generate the "
            "motion with a SMPL-X or SOMA model of Kimodo"
        )
    if joints not in (JOINTS, 30, 77):
        raise InputError(
            f"its local_rot_mats have the shape {arrays['local_rot_mats'].shape}; the skeletons of Kimodo have "
            f"{JOINTS} (SMPL-X), 30 or 77 (SOMA) joints"
        )
    rotations = _numbers(arrays, "local_rot_mats", (frames, joints, 3, 3))
    root = _numbers(arrays, "root_positions", (frames, 3))
    off = np.abs(rotations @ rotations.swapaxes(-1, -2) - np.eye(3)).max()
    if off > ROUNDING or np.linalg.det(rotations).min() < 0:
        raise InputError("its local_rot_mats are not rotations; write the file again")
    if joints == JOINTS:
        turn, metres = TURNS[options.up or "y"].astype(np.float64), UNITS[options.units or "m"]
        return motion_to_smplx85(*turn_world(rotations, root * metres, turn))
    source = _soma_motion(rotations, root, _numbers(arrays, "posed_joints", (frames, joints, 3)))
    result = retarget(source, find_joints(source), FPS, axes=Axes(options.up or "y", options.units))
    notes.extend(result.notes)
    return motion_to_smplx85(result.rotations.astype(np.float64), result.pelvis.astype(np.float64))


def _soma_motion(rotations: np.ndarray, root: np.ndarray, places: np.ndarray) -> SourceMotion:
    """Return the body joints of a SOMA motion; bones have the lengths of the joint positions (T, J, 3)."""
    order = _soma_joints(rotations.shape[1])
    names = [name for name in SOMA_PARENTS if name in order]
    columns = [order.index(name) for name in names]
    parents = [names.index(parent) if (parent := SOMA_PARENTS[name]) else -1 for name in names]
    source = SourceMotion(names, parents, np.zeros((len(names), 3)), rotations[:, columns], places[:, columns], FPS)
    turns = source.world()[0]
    steps = places[:, columns] - places[:, [columns[parent] for parent in parents]]
    source.positions = (turns[:, parents].swapaxes(-1, -2) @ steps[..., None])[..., 0]
    source.positions[:, 0] = root
    source.offsets[1:] = source.positions[0, 1:]
    return source


def kimodo_amass_to_smplx85(arrays: dict[str, np.ndarray], options: ImportOptions, notes: list[str]) -> np.ndarray:
    """Convert the arrays of Kimodo's ``*_amass.npz`` to (T, 85), with the heading of its other file.

    Kimodo turns the motion to z up and +y forward, which is half a turn from the usual change of axes.
    """
    decisions: list[str] = []
    smplx85 = amass_to_smplx85(arrays, options.up, UNITS[options.units or "m"], decisions)
    notes.extend(decisions)
    if decisions or options.up not in (None, "z"):
        return smplx85
    rotations, pelvis = turn_world(*smplx85_to_motion(smplx85), HALF_TURN)
    return motion_to_smplx85(rotations, pelvis, smplx85[0, 75:])


def hymotion_to_smplx85(arrays: dict[str, np.ndarray], options: ImportOptions, notes: list[str]) -> np.ndarray:
    """Convert the arrays of a HY-Motion file to (T, 85); its hands are dropped, and its body has the mean shape.

    ``trans`` moves the origin of a body model that the file does not contain. The origin is that of SMPL, or on the
    floor below the pelvis; the reading that puts the feet nearer to the floor is used.
    """
    poses, trans = body_poses(arrays)
    turn, metres = TURNS[options.up or "y"].astype(np.float64), UNITS[options.units or "m"]
    rotations, moved = turn_world(axis_angle_to_matrix(poses.reshape(-1, JOINTS, 3)), trans * metres, turn)
    rest = rest_joints(np.zeros(10))
    on_floor = np.array([0.0, (rest[0] - rest.min(axis=0))[1], 0.0])
    levels = {}
    for origin in (np.array(SMPLH_PELVIS), on_floor):
        lowest = forward_kinematics(rotations, moved + origin)[..., 1].min(axis=1)
        levels[abs(float(np.percentile(lowest, 5)))] = origin
    return motion_to_smplx85(rotations, moved + levels[min(levels)])


def _numbers(arrays: dict[str, np.ndarray], key: str, shape: tuple[int, ...]) -> np.ndarray:
    """Return an array as float64.

    Raises:
        InputError: the array is missing, has another shape, is empty, or holds values that are not finite numbers.
    """
    if key not in arrays:
        raise InputError(f"it has no {key}; save the motion again with Kimodo")
    array = arrays[key]
    if array.shape != shape:
        raise InputError(f"its {key} have the shape {array.shape} in place of {shape}; save the motion again")
    if array.size == 0 or array.dtype.kind not in "fiu" or not np.isfinite(array).all():
        raise InputError(f"its {key} are empty or hold NaN, infinite or non-numeric values; repair the file")
    return array.astype(np.float64)
