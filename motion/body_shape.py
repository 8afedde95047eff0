"""Rest joints of a body shape: the skeleton that belongs to SMPL-X betas."""

from functools import lru_cache

import numpy as np

from motion.skeleton import JOINT_INDEX, JOINTS, PARENTS, REST_OFFSETS, forward_kinematics


def rest_joints(betas: np.ndarray) -> np.ndarray:
    """Return the (22, 3) rest joints of a shape in SMPL-X's own frame, in metres.

    The mannequin-x package has the skeleton of SMPL-X for every shape; the zero shape needs no body model.
    """
    return _rest_joints(tuple(np.asarray(betas, dtype=np.float64).tolist())).copy()


@lru_cache(maxsize=1024)  # 35 ms per shape; the recordings of a person share theirs
def _rest_joints(betas: tuple[float, ...]) -> np.ndarray:
    if not any(betas):
        return forward_kinematics(np.tile(np.eye(3), (JOINTS, 1, 1)), REST_OFFSETS[0].astype(np.float64))
    from mannequin import Mannequin

    mannequin = Mannequin("wooden", shape=np.array(betas))
    return np.asarray(mannequin.joint_transforms(mannequin.rest_pose()))[:JOINTS, :3, 3].astype(np.float64)


def rest_offsets(betas: np.ndarray) -> np.ndarray:
    """Return the (22, 3) rest offsets of a shape's joints from their parents in metres; the pelvis' row is zero."""
    joints = rest_joints(betas)
    offsets = joints - joints[list(PARENTS)]
    offsets[0] = 0
    return offsets


def leg_length(betas: np.ndarray) -> float:
    """Mean length of the legs of a shape, hip to ankle, in metres."""
    offsets = rest_offsets(betas)
    legs = [JOINT_INDEX[f"{side}_{joint}"] for side in ("left", "right") for joint in ("knee", "ankle")]
    return float(np.linalg.norm(offsets[legs], axis=-1).sum() / 2)


def leg_scale(betas: np.ndarray) -> float:
    """Return the factor that scales the path of a body of some shape to the legs of the mean shape."""
    return leg_length(np.zeros(10)) / leg_length(betas) if np.any(betas) else 1.0
