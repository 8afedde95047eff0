"""The ``.npz`` keys of AMASS (Mahmood et al., ICCV 2019), in its SMPL-X form: z up, translation of the model's origin.

Tools that read AMASS (the SMPL-X add-on of Blender, body viewers, converters) take files with these keys as they are.
"""

import numpy as np

from motion.body_shape import rest_joints
from motion.resample import FPS
from motion.rotation import axis_angle_to_matrix, matrix_to_axis_angle
from motion.smplx import SMPLX85, SMPLX85_WIDTH, check_smplx85, smplx85_to_motion
from utils.errors import InputError

Y_TO_Z_UP = np.array([[1.0, 0.0, 0.0], [0.0, 0.0, -1.0], [0.0, 1.0, 0.0]])
POSES = 165  # 55 joints of SMPL-X: body (22), jaw, eyes, hands
SMPLH_POSES = 156  # 52 joints of SMPL+H: body (22), hands
SMPLH_PELVIS = (-0.0018, -0.2233, 0.0282)  # metres: where SMPL's mean neutral shape has its pelvis


def amass_arrays(smplx85: np.ndarray) -> dict[str, np.ndarray]:
    """The arrays of an AMASS file for (T, 85) motion at 30 frames per second."""
    smplx85 = check_smplx85(smplx85)
    rotations, pelvis = smplx85_to_motion(smplx85)
    betas = smplx85[0, SMPLX85["betas"]]
    poses = np.zeros((len(smplx85), POSES), np.float32)
    poses[:, :66] = smplx85[:, SMPLX85["axis_angle"]]
    poses[:, :3] = matrix_to_axis_angle(Y_TO_Z_UP @ rotations[:, 0])
    return {
        "poses": poses,
        "trans": (pelvis @ Y_TO_Z_UP.T - rest_joints(betas)[0]).astype(np.float32),
        "betas": np.pad(betas, (0, 6)).astype(np.float32),
        "num_betas": np.array(16),
        "gender": np.array("neutral"),
        "surface_model_type": np.array("smplx"),
        "mocap_framerate": np.array(float(FPS)),  # the key of SMPL+H files
        "mocap_frame_rate": np.array(float(FPS)),  # the key of SMPL-X files
    }


def amass_to_smplx85(arrays: dict[str, np.ndarray]) -> np.ndarray:
    """(T, 85) at the file's own frame rate from ``poses``, ``trans`` and perhaps ``betas`` of an AMASS file.

    Hands and face are dropped. The shape of SMPL+H bodies means nothing to SMPL-X: their betas become zero.

    Raises:
        InputError: the arrays do not fit together.
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
            raise InputError(f"its betas {betas.shape} are not a row of finite numbers; repair the file")
        smplx85[:, SMPLX85["betas"]] = np.pad(betas, (0, 10))[:10]
        rest_pelvis = rest_joints(smplx85[0, SMPLX85["betas"]])[0]
    smplx85[:, :66] = poses[:, :66]
    root = Y_TO_Z_UP.T @ axis_angle_to_matrix(poses[:, :3].astype(np.float64))
    smplx85[:, :3] = matrix_to_axis_angle(root)
    smplx85[:, SMPLX85["translation"]] = (trans + rest_pelvis) @ Y_TO_Z_UP
    return smplx85
