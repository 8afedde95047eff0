"""The skeleton (first 22 joints of SMPL-X, in SMPL-X order), forward kinematics, mirroring and changes of axes.

Metres, y up. The rest pose faces +z, with the left side toward +x.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from motion.rotation import Array, numpy_or_torch
from utils.device import to_device

# Name, parent, rest offset from the parent in metres, for the mean neutral SMPL-X body (zero shape) as published by the
# mannequin-x package. The pelvis' offset is its position in the body model's own frame.
_TABLE = (
    ("pelvis", -1, (0.00312, -0.35141, 0.01204)),
    ("left_hip", 0, (0.05819, -0.09276, -0.02600)),
    ("right_hip", 0, (-0.06327, -0.10391, -0.02125)),
    ("spine1", 0, (-0.00276, 0.10989, -0.02762)),
    ("left_knee", 1, (0.05470, -0.37875, -0.00940)),
    ("right_knee", 2, (-0.04421, -0.36238, -0.01682)),
    ("spine2", 3, (0.00945, 0.13185, -0.00594)),
    ("left_ankle", 4, (-0.04345, -0.40306, -0.03188)),
    ("right_ankle", 5, (0.01542, -0.41073, -0.02019)),
    ("spine3", 6, (-0.01133, 0.05224, 0.02845)),
    ("left_foot", 7, (0.04726, -0.05800, 0.11822)),
    ("right_foot", 8, (-0.03881, -0.05833, 0.11905)),
    ("neck", 9, (-0.01216, 0.16517, -0.03162)),
    ("left_collar", 9, (0.04636, 0.08494, -0.00722)),
    ("right_collar", 9, (-0.04769, 0.08434, -0.01340)),
    ("head", 12, (0.02478, 0.16045, 0.02074)),
    ("left_shoulder", 13, (0.11924, 0.05773, -0.01546)),
    ("right_shoulder", 14, (-0.10258, 0.05352, -0.01267)),
    ("left_elbow", 16, (0.25412, -0.07215, -0.04246)),
    ("right_elbow", 17, (-0.27115, -0.03649, -0.02647)),
    ("left_wrist", 18, (0.25199, 0.02322, -0.00247)),
    ("right_wrist", 19, (-0.24927, -0.00453, -0.01533)),
)

JOINT_NAMES = tuple(name for name, _, _ in _TABLE)
PARENTS = tuple(parent for _, parent, _ in _TABLE)
REST_OFFSETS = np.array([offset for _, _, offset in _TABLE], dtype=np.float32)  # (22, 3)
JOINTS = len(_TABLE)
JOINT_INDEX = {name: index for index, name in enumerate(JOINT_NAMES)}


def _swap_side(name: str) -> str:
    side, _, rest = name.partition("_")
    return {"left": "right", "right": "left"}[side] + "_" + rest if side in ("left", "right") else name


MIRROR = tuple(JOINT_INDEX[_swap_side(name)] for name in JOINT_NAMES)  # (22,) index of the joint on the other side


def _chain(*names: str) -> tuple[int, ...]:
    return tuple(JOINT_INDEX[name] for name in names)


LIMBS = {
    "spine": _chain("pelvis", "spine1", "spine2", "spine3", "neck", "head"),
    "left_leg": _chain("pelvis", "left_hip", "left_knee", "left_ankle", "left_foot"),
    "right_leg": _chain("pelvis", "right_hip", "right_knee", "right_ankle", "right_foot"),
    "left_arm": _chain("spine3", "left_collar", "left_shoulder", "left_elbow", "left_wrist"),
    "right_arm": _chain("spine3", "right_collar", "right_shoulder", "right_elbow", "right_wrist"),
}
Z_UP_TO_Y_UP = ((1.0, 0.0, 0.0), (0.0, 0.0, 1.0), (0.0, -1.0, 0.0))  # (x, y, z) -> (x, z, -y)


class WorldPose(NamedTuple):
    """Joints in the world frame, as returned by ``world_pose``."""

    rotations: Array  # (..., J, 3, 3)
    positions: Array  # (..., J, 3)


@numpy_or_torch
def world_pose(
    rotations: Tensor, offsets: Array, parents: Sequence[int] = PARENTS, root: Tensor | None = None
) -> WorldPose:
    """Compute forward kinematics of any hierarchy.

    Args:
        rotations: (..., J, 3, 3) local rotations; those of root joints are in the world frame.
        offsets: Position of each joint in its parent's frame, (J, 3) if constant and (..., J, 3) otherwise; of root
            joints, the world position.
        parents: Index of the parent of each joint, -1 for root joints. Parents come before their children.
        root: (..., 3) world position of joint 0, which replaces its offset.

    Returns:
        World rotations (..., J, 3, 3) and positions (..., J, 3), in the unit of ``offsets``.
    """
    local_positions = to_device(torch.as_tensor(offsets, dtype=rotations.dtype), rotations.device)
    world: list[Tensor] = []
    positions: list[Tensor] = []
    for joint, parent in enumerate(parents):
        local, offset = rotations[..., joint, :, :], local_positions[..., joint, :]
        if parent < 0:
            start = root if joint == 0 and root is not None else offset
            world.append(local)
            positions.append(start.expand(*local.shape[:-1]))
        else:
            step = world[parent] @ offset if offset.ndim == 1 else (world[parent] @ offset[..., None])[..., 0]
            world.append(world[parent] @ local)
            positions.append(positions[parent] + step)
    return WorldPose(torch.stack(world, dim=-3), torch.stack(positions, dim=-2))


@numpy_or_torch
def parent_relative(world: Tensor) -> Tensor:
    """Return the local rotations of world rotations (..., 22, 3, 3), as ``world_pose`` takes them."""
    local = world[..., PARENTS[1:], :, :].transpose(-1, -2) @ world[..., 1:, :, :]
    return torch.cat((world[..., :1, :, :], local), dim=-3)


@numpy_or_torch
def forward_kinematics(rotations: Tensor, pelvis: Tensor, offsets: Array = REST_OFFSETS) -> Tensor:
    """Compute world joint positions of our skeleton from local rotations.

    Args:
        rotations: (..., 22, 3, 3) local rotations; the pelvis' is in the world frame.
        pelvis: (..., 3) world position of the pelvis joint in metres.
        offsets: (22, 3) rest offsets from the parent joints; the pelvis' row is not used.

    Returns:
        (..., 22, 3) joint positions in metres.
    """
    return world_pose(rotations, offsets, root=pelvis).positions


@numpy_or_torch
def mirror(rotations: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
    """Swap left and right by reflection at the plane x = 0.

    Args:
        rotations: (..., 22, 3, 3) local rotations.
        positions: (..., 3) world positions, for example of the pelvis.

    Returns:
        Rotations and positions of the same shapes. The reflection of R is S R S with S = diag(-1, 1, 1).
    """
    sign = torch.tensor([-1.0, 1.0, 1.0], dtype=rotations.dtype, device=rotations.device)
    return rotations[..., list(MIRROR), :, :] * sign[:, None] * sign, positions * sign


@numpy_or_torch
def turn_world(rotations: Tensor, positions: Tensor, turn: Tensor) -> tuple[Tensor, Tensor]:
    """Rotate a motion as a whole about the world origin.

    Args:
        rotations: (..., J, 3, 3) local rotations, of which joint 0 is the root.
        positions: (..., 3) world positions, for example of the pelvis.
        turn: (..., 3, 3) rotation in the world frame, applied from the left.

    Returns:
        Rotations and positions of the same shapes; only the root's rotation changes.
    """
    root = turn @ rotations[..., 0, :, :]
    return torch.cat((root.unsqueeze(-3), rotations[..., 1:, :, :]), dim=-3), (turn @ positions[..., None])[..., 0]


@numpy_or_torch
def z_up_to_y_up(rotations: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
    """Change local rotations (..., J, 3, 3) and positions (..., 3) from z up to y up: (x, y, z) -> (x, z, -y)."""
    return turn_world(rotations, positions, rotations.new_tensor(Z_UP_TO_Y_UP))


@numpy_or_torch
def y_up_to_z_up(rotations: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
    """Change local rotations (..., J, 3, 3) and positions (..., 3) from y up to z up; inverts ``z_up_to_y_up``."""
    return turn_world(rotations, positions, rotations.new_tensor(Z_UP_TO_Y_UP).T)
