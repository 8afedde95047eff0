"""The 272-dim motion features of MotionMillion / MotionStreamer: encoding body motion and recovering it.

A frame holds the root's step and heading change, and the body in its own heading frame, which makes the features
independent of position and heading. Layout (``LAYOUT``), for the pelvis p, heading angle theta (direction of the root's
z axis on the ground) and H_t = Ry(-theta_t):

    root_velocity      0:2    x and z of H_{t-1} (p_t - p_{t-1}), metres per frame           (frame 0: zero)
    heading_change     2:8    6D of Ry(-(theta_t - theta_{t-1}))                              (frame 0: identity)
    joint_positions    8:74   22 x 3, H_t (joint - (p_x, 0, p_z)), metres
    joint_velocities  74:140  22 x 3, joint_positions_t - joint_positions_{t-1}, per frame    (frame 0: zero)
    joint_rotations  140:272  22 x 6, local rotations in 6D; the root's is H_t R_root

Source: the published description and numeric behaviour of the 272-dim representation (MotionStreamer, ICCV 2025;
MotionMillion-Codes, ICCV 2025). All functions accept NumPy arrays or torch tensors with any batch axes before T.
"""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from motion.rotation import Array, matrix_to_rotation_6d, numpy_or_torch, rotation_6d_to_matrix, y_rotation
from motion.skeleton import JOINTS, REST_OFFSETS, forward_kinematics, turn_world
from motion.smplx import motion_to_smplx85
from utils.errors import InputError

FEATURES = 272
LAYOUT = {
    "root_velocity": slice(0, 2),
    "heading_change": slice(2, 8),
    "joint_positions": slice(8, 74),
    "joint_velocities": slice(74, 140),
    "joint_rotations": slice(140, 272),
}
ROOT = slice(0, 8)  # root_velocity and heading_change, which recovery integrates over time
PELVIS_HEIGHT = LAYOUT["joint_positions"].start + 1


def check_features(features: Array, source: str) -> None:
    """Raise InputError unless ``features`` is (..., T, 272), T >= 1, and finite.

    Args:
        features: Array or tensor to check.
        source: Name in the message, for example the file.
    """
    if features.ndim < 2 or features.shape[-1] != FEATURES:
        raise InputError(
            f"{source} has shape {tuple(features.shape)} where (frames, {FEATURES}) is needed; "
            "convert the motion with prepare_data.py"
        )
    if features.shape[-2] == 0:
        raise InputError(f"{source} holds no frames; remove it or record it again")
    if not bool((np.isfinite(features) if isinstance(features, np.ndarray) else torch.isfinite(features)).all()):
        raise InputError(f"{source} holds NaN or infinite values; convert it again or remove it")


@numpy_or_torch
def heading_angle(root_rotation: Tensor) -> Tensor:
    """Return the angle theta (...) of the root's z axis on the ground, in (-pi, pi]; 0 is +z, pi/2 is +x."""
    return torch.atan2(root_rotation[..., 0, 2], root_rotation[..., 2, 2])


@numpy_or_torch
def face_forward(rotations: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
    """Rotate a whole clip about the world origin so that its first frame faces +z.

    Args:
        rotations: (..., T, 22, 3, 3) local rotations.
        positions: (..., T, 3) world positions, for example of the pelvis.

    Returns:
        Rotations and positions of the same shapes, turned by Ry(-theta_0).
    """
    return turn_world(rotations, positions, y_rotation(-heading_angle(rotations[..., :1, 0, :, :])))


@numpy_or_torch
def ground(joints: Tensor) -> Tensor:
    """Translate (..., T, 22, 3) joints: frame 0's pelvis moves over the origin, the clip's lowest joint to y = 0."""
    lowest = joints[..., 1].amin(dim=(-2, -1))
    shift = torch.stack((joints[..., 0, 0, 0], lowest, joints[..., 0, 0, 2]), dim=-1)
    return joints - shift[..., None, None, :]


@numpy_or_torch
def encode(rotations: Tensor, joints: Tensor) -> Tensor:
    """Encode body motion as features.

    Args:
        rotations: (..., T, 22, 3, 3) local rotations; the root's is in the world frame. The features do not hold the
            heading of the first frame; apply ``face_forward`` first if it matters.
        joints: (..., T, 22, 3) world joint positions in metres, grounded (``ground``).

    Returns:
        (..., T, 272) features, one row per frame.
    """
    heading = heading_angle(rotations[..., 0, :, :])  # (..., T)
    to_body = y_rotation(-heading)  # (..., T, 3, 3)
    pelvis = joints[..., 0, :]
    step = (to_body[..., :-1, :, :] @ (pelvis[..., 1:, :] - pelvis[..., :-1, :])[..., None])[..., (0, 2), 0]
    turn = matrix_to_rotation_6d(y_rotation(-(heading[..., 1:] - heading[..., :-1])))

    over_origin = joints - pelvis[..., None, :] * pelvis.new_tensor([1.0, 0.0, 1.0])
    positions = (to_body[..., None, :, :] @ over_origin[..., None])[..., 0].flatten(-2)  # (..., T, 66)
    velocities = positions[..., 1:, :] - positions[..., :-1, :]
    root = to_body @ rotations[..., 0, :, :]
    local = torch.cat((root.unsqueeze(-3), rotations[..., 1:, :, :]), dim=-3)

    identity = turn.new_tensor([1.0, 0.0, 0.0, 0.0, 1.0, 0.0]).expand(*positions.shape[:-2], 1, 6)
    return torch.cat(
        (
            torch.cat((torch.zeros_like(positions[..., :1, :2]), step), dim=-2),
            torch.cat((identity, turn), dim=-2),
            positions,
            torch.cat((torch.zeros_like(positions[..., :1, :]), velocities), dim=-2),
            matrix_to_rotation_6d(local).flatten(-2),
        ),
        dim=-1,
    )


@numpy_or_torch
def recover_root(
    features: Tensor, heading: Tensor | None = None, position: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Integrate the root's steps and heading changes; the recovered clip starts at the origin, facing +z.

    Args:
        features: (..., T, 272).
        heading: (..., 3, 3) heading of the previous frame, if the features continue a clip.
        position: (..., 3) pelvis of the previous frame, if the features continue a clip.

    Returns:
        Heading (..., T, 3, 3), the rotation from the heading frame to the world, and pelvis (..., T, 3) in metres.
    """
    to_body = _accumulate(rotation_6d_to_matrix(features[..., LAYOUT["heading_change"]]))
    if heading is not None:
        to_body = to_body @ heading.transpose(-1, -2).unsqueeze(-3)
    turned = to_body.transpose(-1, -2)
    step = features[..., LAYOUT["root_velocity"]]
    step = torch.stack((step[..., 0], torch.zeros_like(step[..., 0]), step[..., 1]), dim=-1)[..., None]
    first = step[..., :1, :, :] if heading is None else heading.unsqueeze(-3) @ step[..., :1, :, :]
    step = torch.cat((first, turned[..., :-1, :, :] @ step[..., 1:, :, :]), dim=-3)  # (..., T, 3, 1)
    translation = step[..., 0].cumsum(dim=-2)
    if position is not None:
        translation = translation + position.unsqueeze(-2)
    height = features[..., PELVIS_HEIGHT]
    return turned, torch.stack((translation[..., 0], height, translation[..., 2]), dim=-1)


def _accumulate(changes: torch.Tensor) -> torch.Tensor:
    """Return the running products S_t = D_t S_{t-1} of ``(..., T, 3, 3)``, in log2(T) batched products."""
    total, shift = changes, 1
    while shift < changes.shape[-3]:
        total = torch.cat((total[..., :shift, :, :], total[..., shift:, :, :] @ total[..., :-shift, :, :]), dim=-3)
        shift *= 2
    return total


@numpy_or_torch
def local_rotations(features: Tensor) -> Tensor:
    """Return local rotations (..., T, 22, 3, 3) in the heading frame: the root's has the heading removed."""
    stored = features[..., LAYOUT["joint_rotations"]]
    return rotation_6d_to_matrix(stored.reshape(*stored.shape[:-1], JOINTS, 6))


@numpy_or_torch
def local_joints(features: Tensor) -> Tensor:
    """Return joint positions (..., T, 22, 3) in the heading frame, over the origin, from the position block."""
    stored = features[..., LAYOUT["joint_positions"]]
    return stored.reshape(*stored.shape[:-1], JOINTS, 3)


@numpy_or_torch
def local_joints_fk(features: Tensor, offsets: Array = REST_OFFSETS) -> Tensor:
    """Return joint positions (..., T, 22, 3) in the heading frame, over the origin, from the rotations."""
    pelvis = F.pad(local_joints(features)[..., 0, 1:2], (1, 1))  # its height
    return forward_kinematics(local_rotations(features), pelvis, offsets)


@numpy_or_torch
def recover_rotations(
    features: Tensor, heading: Tensor | None = None, position: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Recover local rotations (..., T, 22, 3, 3), the root's in the world frame, and the pelvis (..., T, 3).

    Arguments as in ``recover_root``.
    """
    heading, pelvis = recover_root(features, heading, position)
    rotations = local_rotations(features)
    root = heading @ rotations[..., 0, :, :]
    return torch.cat((root.unsqueeze(-3), rotations[..., 1:, :, :]), dim=-3), pelvis


@numpy_or_torch
def recover_joints(features: Tensor) -> Tensor:
    """Recover world joint positions (..., T, 22, 3) in metres from the position block."""
    heading, pelvis = recover_root(features)
    world = (heading[..., None, :, :] @ local_joints(features)[..., None])[..., 0]
    return world + (pelvis * pelvis.new_tensor([1.0, 0.0, 1.0]))[..., None, :]


@numpy_or_torch
def recover_joints_fk(features: Tensor, offsets: Array = REST_OFFSETS) -> Tensor:
    """Recover world joint positions (..., T, 22, 3) in metres from the rotations, by forward kinematics."""
    rotations, pelvis = recover_rotations(features)
    return forward_kinematics(rotations, pelvis, offsets)


@numpy_or_torch
def features_to_smplx85(features: Tensor) -> Tensor:
    """Convert (..., T, 272) to (..., T, 85): 66 axis-angle, 6 zeros, 3 position of the pelvis joint, 10 zeros (betas).

    The translation is the grounded pelvis, not SMPL-X's ``transl``, which is less by the body model's rest pelvis.
    """
    return motion_to_smplx85(*recover_rotations(features))


@numpy_or_torch
def features_from_motion(rotations: Tensor, pelvis: Tensor, offsets: Array = REST_OFFSETS) -> Tensor:
    """Encode local rotations (..., T, 22, 3, 3) and pelvis (..., T, 3): face +z, forward kinematics, ground, encode."""
    rotations, pelvis = face_forward(rotations, pelvis)
    return encode(rotations, ground(forward_kinematics(rotations, pelvis, offsets)))
