"""The ``.npz`` keys of AMASS (Mahmood et al., ICCV 2019) in its SMPL-X form: z up, translation of the model's origin.

Tools that read AMASS (the SMPL-X add-on of Blender, body viewers, converters) open files with these keys.
"""

import numpy as np

from motion.body_shape import rest_joints
from motion.clip import AnyMotion, smplx85_of
from motion.resample import FPS
from motion.rotation import axis_angle_to_matrix, matrix_to_axis_angle
from motion.skeleton import y_up_to_z_up, z_up_to_y_up
from motion.smplx import SMPLX85, SMPLX85_WIDTH, smplx85_to_motion
from utils.errors import InputError

POSES = 165  # 55 joints of SMPL-X: body (22), jaw, eyes, hands
SMPLH_POSES = 156  # 52 joints of SMPL+H: body (22), hands
SMPLH_PELVIS = (-0.0018, -0.2233, 0.0282)  # metres; rest pelvis of SMPL's mean neutral shape


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
        "trans": (pelvis - rest_joints(betas)[0]).astype(np.float32),
        "betas": np.pad(betas, (0, 6)).astype(np.float32),
        "num_betas": np.array(16),
        "gender": np.array("neutral"),
        "surface_model_type": np.array("smplx"),
        "mocap_framerate": np.array(float(FPS)),  # the key of SMPL+H files
        "mocap_frame_rate": np.array(float(FPS)),  # the key of SMPL-X files
    }


def amass_to_smplx85(arrays: dict[str, np.ndarray]) -> np.ndarray:
    """Convert ``poses``, ``trans`` and optional ``betas`` of an AMASS file to (T, 85), at the file's own frame rate.

    Hands and face are dropped. The betas of SMPL+H do not apply to SMPL-X and become zero.

    Raises:
        InputError: the arrays do not fit together or hold unusable values.
    """
    poses, trans = arrays["poses"], arrays["trans"]
    if poses.ndim != 2 or poses.shape[1] not in (POSES, SMPLH_POSES) or trans.shape != (len(poses), 3):
        raise InputError(
            f"its poses {poses.shape} and trans {trans.shape} are not those of AMASS, (T, {POSES}) for SMPL-X or "
            f"(T, {SMPLH_POSES}) for SMPL+H, and (T, 3); convert it first"
        )
    if len(poses) == 0 or any(part.dtype.kind not in "fiu" or not np.isfinite(part).all() for part in (poses, trans)):
        raise InputError("its poses or trans are empty or hold NaN, infinite or non-numeric values; repair the file")
    smplx85 = np.zeros((len(poses), SMPLX85_WIDTH))
    rest_pelvis = np.array(SMPLH_PELVIS)
    if poses.shape[1] == POSES:
        betas = np.asarray(arrays.get("betas", np.zeros(10)))
        if betas.ndim != 1 or betas.dtype.kind not in "fiu" or not np.isfinite(betas).all():
            raise InputError(f"its betas {betas.shape} are not one row of finite numbers; repair the file")
        smplx85[:, SMPLX85["betas"]] = np.pad(betas, (0, 10))[:10]
        rest_pelvis = rest_joints(smplx85[0, SMPLX85["betas"]])[0]
    root = axis_angle_to_matrix(poses[:, None, :3].astype(np.float64))  # (T, 1, 3, 3)
    root, pelvis = z_up_to_y_up(root, trans + rest_pelvis)
    smplx85[:, :66] = poses[:, :66]
    smplx85[:, :3] = matrix_to_axis_angle(root[:, 0])
    smplx85[:, SMPLX85["translation"]] = pelvis
    return smplx85
