"""Reconstruction error of the tokenizer on whole clips."""

from dataclasses import dataclass

import numpy as np
import torch

from models.motion_vqvae import HumanVQVAE
from motion.features272 import local_joints, local_joints_fk, recover_joints_fk
from motion.measures import total_turn


@dataclass
class Reconstruction:
    """Errors of one whole clip, in millimetres, and turn between start and end heading, in degrees."""

    local_mm: float  # joints from rotations, with ground position and heading removed
    local_positions_mm: float  # joints from the position block, with ground position and heading removed
    global_mm: float  # joints from rotations, in the world
    turn: float  # of the real clip, degrees
    turn_error: float  # turn of the decoded clip minus that of the real clip, degrees
    tokens: np.ndarray  # (n,)
    features: np.ndarray  # (n * stride, 272) decoded, not normalized


@torch.no_grad()
def reconstruct(tokenizer: HumanVQVAE, features: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
    """Encode and decode a whole clip (T, 272); return its tokens (n,) and the decoded features (n * stride, 272)."""
    motion = tokenizer.normalize(torch.from_numpy(features).to(tokenizer.mean.device))[None]
    tokens = tokenizer.encode(motion)
    return tokens[0].cpu(), tokenizer.denormalize(tokenizer.decode(tokens))[0].cpu()


def reconstruction_error(tokenizer: HumanVQVAE, features: np.ndarray) -> Reconstruction:
    """Encode and decode a whole clip (T, 272) and compare, without the frames after the last token."""
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
        features=decoded.numpy(),
    )


def _millimetres(decoded: torch.Tensor, real: torch.Tensor) -> float:
    return float(1000 * (decoded - real).norm(dim=-1).mean())
