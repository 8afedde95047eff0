"""The ``.npz`` keys of AMASS (Mahmood et al., ICCV 2019) in its SMPL-X form: z up, translation of the model's origin.

Tools that read AMASS (the SMPL-X add-on of Blender, body viewers, the retargeter GMR) open files with these keys.
SMPL and SMPL+H files can also be read.
"""

import numpy as np

from motion.body_shape import rest_joints
from motion.clip import AnyMotion, smplx85_of
from motion.resample import FPS
from motion.rotation import axis_angle_to_matrix, matrix_to_axis_angle
from motion.skeleton import JOINT_INDEX, JOINTS, forward_kinematics, y_up_to_z_up
from motion.smplx import SMPLX85, SMPLX85_WIDTH, smplx85_to_motion
from motion.world_axes import TURNS, up_of_body
from utils.errors import InputError

POSES = 165  # 55 joints of SMPL-X: body (22), jaw, eyes, hands
OTHER_POSES = {156: "SMPL+H", 72: "SMPL", 66: "body only"}  # 52, 24 and 22 joints; the first 22 are ours
SMPLH_PELVIS = (-0.0018, -0.2233, 0.0282)  # metres; rest pelvis of SMPL's mean neutral shape
PARTS = {  # slices of the 165 values, under the keys of the SMPL-X release of AMASS
    "root_orient": slice(0, 3),
    "pose_body": slice(3, 66),
    "pose_jaw": slice(66, 69),
    "pose_eye": slice(69, 75),
    "pose_hand": slice(75, 165),
}
LEGS = (0.8, 1.25)  # range of leg lengths, relative to the mean shape


def amass_arrays(motion: AnyMotion) -> dict[str, np.ndarray]:
    """Return the arrays of an AMASS file.

    Args:
        motion: A clip or a (T, 85) array, at 30 frames per second.

    Raises:
        InputError: unusable motion, as in ``check_smplx85``.
    """
    smplx85 = smplx85_of(motion)
    rotations, pelvis = y_up_to_z_up(*smplx85_to_motion(smplx85))
    betas = smplx85[0, SMPLX85["betas"]]
    poses = np.zeros((len(smplx85), POSES), np.float32)
    poses[:, :66] = smplx85[:, SMPLX85["axis_angle"]]
    poses[:, :3] = matrix_to_axis_angle(rotations[:, 0])
    return {
        "poses": poses,
        **{key: poses[:, part] for key, part in PARTS.items()},
        "trans": (pelvis - rest_joints(betas)[0]).astype(np.float32),
        "betas": np.pad(betas, (0, 6)).astype(np.float32),
        "num_betas": np.array(16),
        "gender": np.array("neutral"),
        "surface_model_type": np.array("smplx"),
        "mocap_framerate": np.array(float(FPS)),  # the key of SMPL+H files
        "mocap_frame_rate": np.array(float(FPS)),  # the key of SMPL-X files
    }


def read_arrays(arrays: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray] | None:
    """Return poses (T, P) and translation (T, 3) under any of the keys in use, or None if they are missing.

    ``poses``, or ``root_orient`` and ``pose_body`` (or ``global_orient`` and ``body_pose``); ``trans`` or ``transl``.
    """
    poses = arrays.get("poses")
    for root, body in (("root_orient", "pose_body"), ("global_orient", "body_pose")):
        if poses is None and root in arrays and body in arrays:
            parts = [np.asarray(arrays[key]) for key in (root, body)]
            parts = [part.reshape(len(part), -1) if part.ndim > 1 else part for part in parts]
            if any(part.ndim != 2 for part in parts) or len(parts[0]) != len(parts[1]):
                raise InputError(
                    f"its {root} {parts[0].shape} and {body} {parts[1].shape} do not fit; give a row per frame"
                )
            poses = np.concatenate(parts, axis=1)
            poses = np.pad(poses, ((0, 0), (0, max(0, 66 - poses.shape[1]))))
    trans = arrays.get("trans", arrays.get("transl"))
    return None if poses is None or trans is None else (np.asarray(poses), np.asarray(trans))


def amass_to_smplx85(
    arrays: dict[str, np.ndarray], up: str | None = None, metres: float = 1.0, notes: list[str] | None = None
) -> np.ndarray:
    """Convert the arrays of a SMPL, SMPL+H or SMPL-X file (see ``read_arrays``) to (T, 85) at the file's frame rate.

    Hands and face are dropped. The betas of SMPL and SMPL+H do not apply to SMPL-X: they become zero, and the
    translation is scaled by leg length, which is estimated from the feet on the floor.

    Args:
        arrays: The arrays of the file.
        up: Axis that points up; by default z, unless the body stands along another axis in the motion.
        metres: Length unit of the translation.
        notes: List to which decisions are added.

    Raises:
        InputError: the arrays do not fit together.
    """
    notes = [] if notes is None else notes
    poses, trans = body_poses(arrays)
    betas = _betas(arrays)
    smplx = _is_smplx(arrays)
    smplx85 = np.zeros((len(poses), SMPLX85_WIDTH))
    if smplx:
        smplx85[:, SMPLX85["betas"]] = betas
    rest_pelvis = rest_joints(betas)[0] if smplx else np.array(SMPLH_PELVIS)
    smplx85[:, SMPLX85["axis_angle"]] = poses
    rotations = axis_angle_to_matrix(poses.reshape(-1, JOINTS, 3))
    pelvis = trans * metres + rest_pelvis
    up = up or up_of_body(forward_kinematics(rotations, pelvis), "z", notes)
    turn = TURNS[up]
    smplx85[:, :3] = matrix_to_axis_angle(turn @ rotations[:, 0])
    rotations[:, 0] = turn @ rotations[:, 0]
    pelvis = pelvis @ turn.T
    if not smplx and betas.any():
        pelvis /= _leg_length(rotations, pelvis)
    smplx85[:, SMPLX85["translation"]] = pelvis
    return smplx85


def body_poses(arrays: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Return the axis-angles of the 22 body joints (T, 66) and the translation (T, 3) as float64.

    Raises:
        InputError: the arrays have other shapes, are empty, or hold values that are not finite numbers.
    """
    poses, trans = read_arrays(arrays)
    if poses.ndim != 2 or poses.shape[1] not in (POSES, *OTHER_POSES) or trans.shape != (len(poses), 3):
        raise InputError(
            f"its poses {poses.shape} and trans {trans.shape} are not those of AMASS, (T, {POSES}) for SMPL-X, "
            f"{', '.join(f'(T, {width}) for {name}' for width, name in OTHER_POSES.items())}, and (T, 3); convert it "
            "first"
        )
    if len(poses) == 0 or any(part.dtype.kind not in "fiu" or not np.isfinite(part).all() for part in (poses, trans)):
        raise InputError("its poses or trans are empty or hold NaN, infinite or non-numeric values; repair the file")
    return poses[:, :66].astype(np.float64), trans.astype(np.float64)


def _is_smplx(arrays: dict[str, np.ndarray]) -> bool:
    """Whether the betas are those of SMPL-X. ``pose_body`` is a key of its release, which SMPL+H files lack."""
    width = read_arrays(arrays)[0].shape[1]
    model = str(arrays.get("surface_model_type", "smplx" if "pose_body" in arrays else ""))
    return width == POSES or width == 66 and "smplx" in model


def _betas(arrays: dict[str, np.ndarray]) -> np.ndarray:
    """Return the first ten shape parameters; rows per frame are averaged."""
    betas = np.asarray(arrays.get("betas", np.zeros(10)))
    if betas.ndim == 2 and len(betas):
        betas = betas.mean(axis=0)
    if betas.ndim != 1 or betas.dtype.kind not in "fiu" or not np.isfinite(betas).all():
        raise InputError(f"its betas {betas.shape} are not rows of finite numbers; repair the file")
    return np.pad(betas, (0, 10))[:10]


def _leg_length(rotations: np.ndarray, pelvis: np.ndarray) -> float:
    """Return the leg length relative to the mean shape with which the lowest feet are on the floor (y = 0)."""
    feet = [JOINT_INDEX[f"{side}_{joint}"] for side in ("left", "right") for joint in ("ankle", "foot")]
    below = -(forward_kinematics(rotations, np.zeros_like(pelvis))[:, feet, 1].min(axis=1))
    upright = below > 0.6  # metres: sitting or lying frames are not used
    if upright.sum() < 5:
        return 1.0
    ratio = float(np.percentile(pelvis[upright, 1] / below[upright], 10))
    return ratio if LEGS[0] < ratio < LEGS[1] else 1.0
