"""Corrupted copies of a motion, which a text-motion evaluator should distinguish from recorded motion.

A corrupted motion is validly encoded; only the order of its poses, their tempo or their sides are wrong.
"""

import math

import torch
from torch import Tensor

from motion.features272 import LAYOUT, features_from_motion, heading_angle, recover_root, recover_rotations
from motion.rotation import matrix_to_rotation_6d, y_rotation
from motion.skeleton import JOINTS, MIRROR, mirror

POSITIONS, VELOCITIES = LAYOUT["joint_positions"], LAYOUT["joint_velocities"]


def replay(features: Tensor, times: Tensor) -> Tensor:
    """Return the features (T', 272) of a motion (T, 272) that takes the poses of the frames ``times`` (T',), in order.

    Poses between frames are interpolated linearly. This needs no forward kinematics, so it is fast enough for training.
    """
    heading, pelvis = recover_root(features)
    before, after, share = times.floor().long(), times.ceil().long(), (times % 1)[:, None]
    replayed = torch.lerp(features[before], features[after], share)
    angle = heading_angle(torch.lerp(heading[before], heading[after], share[..., None]))  # (T',)
    path = torch.lerp(pelvis[before], pelvis[after], share)  # (T', 3)
    step = (y_rotation(-angle[:-1]) @ path.diff(dim=0)[..., None])[:, (0, 2), 0]
    replayed[:, LAYOUT["root_velocity"]] = torch.cat((step.new_zeros(1, 2), step))
    turn = torch.cat((angle.new_zeros(1), angle.diff()))
    replayed[:, LAYOUT["heading_change"]] = matrix_to_rotation_6d(y_rotation(-turn))
    replayed[0, VELOCITIES] = 0
    replayed[1:, VELOCITIES] = replayed[:, POSITIONS].diff(dim=0)
    return replayed


def reverse(features: Tensor) -> Tensor:
    """Play a motion (T, 272) backward."""
    return replay(features, torch.arange(len(features) - 1, -1, -1.0))


def change_speed(features: Tensor, speed: float) -> Tensor:
    """Play a motion (T, 272) at another speed: 0.5 doubles its length."""
    frames = math.floor((len(features) - 1) / speed + 1e-6) + 1
    return replay(features, (torch.arange(frames) * speed).clamp(max=len(features) - 1))


def freeze(features: Tensor, start: float = 0.0) -> Tensor:
    """Hold a pose of a motion (T, 272) to its end: that of the first frame, or at the share ``start`` of the motion."""
    return replay(features, torch.arange(float(len(features))).clamp(max=math.floor(start * (len(features) - 1))))


def swap_limbs(features: Tensor) -> Tensor:
    """Exchange the left and the right joints of a motion (T, 272) without a reflection: arms and legs cross over."""
    swapped = features.clone()
    for block in (POSITIONS, VELOCITIES, LAYOUT["joint_rotations"]):
        swapped[:, block] = features[:, block].unflatten(-1, (JOINTS, -1))[:, list(MIRROR)].flatten(-2)
    return swapped


def reflect(features: Tensor) -> Tensor:
    """Reflect a motion (T, 272): left and right are exchanged, and a turn to the left becomes one to the right."""
    return features_from_motion(*mirror(*recover_rotations(features)))
