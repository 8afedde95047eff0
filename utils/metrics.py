"""Measures of reconstructed and generated motion. Joints (T, 22, 3) in metres, 30 frames per second."""

from dataclasses import dataclass

import numpy as np
import torch

from models.motion_vqvae import HumanVQVAE
from utils.motion272 import FPS, heading_angle, local_joints, local_joints_fk, recover_joints_fk, recover_rotations
from utils.skeleton import JOINT_INDEX


@dataclass
class Reconstruction:
    """Errors of one whole clip: millimetres, and degrees between start and end heading."""

    local_mm: float  # joints from rotations, pelvis on the origin and heading removed
    local_positions_mm: float  # the same from the position block
    global_mm: float  # joints from rotations in the world
    turn: float  # degrees turned, real
    turn_error: float  # decoded minus real
    tokens: np.ndarray


@torch.no_grad()
def reconstruct(tokenizer: HumanVQVAE, features: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
    """Tokens (n) and decoded features (n * stride, 272), not normalised, of a whole clip (T, 272)."""
    motion = tokenizer.normalize(torch.from_numpy(features).to(tokenizer.mean.device))[None]
    tokens = tokenizer.encode(motion)
    return tokens[0].cpu(), tokenizer.denormalize(tokenizer.decode(tokens))[0].cpu()


def reconstruction_error(tokenizer: HumanVQVAE, features: np.ndarray) -> Reconstruction:
    """Encode and decode a whole clip (T, 272) and compare; what the last token does not cover is left out."""
    tokens, decoded = reconstruct(tokenizer, features)
    real = torch.from_numpy(features[: len(decoded)])
    turns = [total_turn(part) for part in (real, decoded)]
    return Reconstruction(
        local_mm=_millimetres(local_joints_fk(decoded), local_joints_fk(real)),
        local_positions_mm=_millimetres(local_joints(decoded), local_joints(real)),
        global_mm=_millimetres(recover_joints_fk(decoded), recover_joints_fk(real)),
        turn=turns[0],
        turn_error=turns[1] - turns[0],
        tokens=tokens.numpy(),
    )


def total_turn(features: torch.Tensor) -> float:
    """Degrees by which the heading turns from the first to the last frame of (T, 272); left is positive."""
    rotations, _ = recover_rotations(features.double())
    heading = np.unwrap(heading_angle(rotations[:, 0]).numpy())
    return float(np.rad2deg(heading[-1] - heading[0]))


def _millimetres(ours: torch.Tensor, real: torch.Tensor) -> float:
    return float(1000 * (ours - real).norm(dim=-1).mean())


def speed(joints: np.ndarray) -> float:
    """Mean ground speed of the pelvis in metres per second."""
    steps = np.diff(joints[:, 0][:, [0, 2]], axis=0)
    return float(np.linalg.norm(steps, axis=-1).mean() * FPS)


def foot_slide(joints: np.ndarray, height: float = 0.05) -> float:
    """Mean ground speed, in metres per second, of the foot joints while they are below ``height`` metres."""
    feet = joints[:, [JOINT_INDEX["left_foot"], JOINT_INDEX["right_foot"]]]
    steps = np.linalg.norm(np.diff(feet[..., [0, 2]], axis=0), axis=-1) * FPS
    low = np.maximum(feet[1:, :, 1], feet[:-1, :, 1]) < height
    return float(steps[low].mean()) if low.any() else 0.0


def jerk(joints: np.ndarray) -> float:
    """Mean size of the third derivative of joint positions, in metres per second cubed."""
    return float(np.linalg.norm(np.diff(joints, n=3, axis=0), axis=-1).mean() * FPS**3) if len(joints) > 3 else 0.0
