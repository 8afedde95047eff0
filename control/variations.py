"""Variations of motion for training with control: other speeds and other curves.

A generator remembers the recordings that it was trained on: their beginnings tell it their ends, and a track adds
nothing. Here each motion is played at a random speed and its way is bent at random, so that only the track tells how
it goes on. Poses stay those of the recording; the way is bent as little as a person turns while walking.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from motion.features272 import LAYOUT, heading_angle
from motion.rotation import matrix_to_rotation_6d, rotation_6d_to_matrix, y_rotation

SLOWEST, FASTEST = 0.8, 1.25  # factors of the speed
BENT = 0.6  # share of the motions that are bent
CURVATURE = 0.45  # 1 / metre, standard deviation
BEND_FRAMES = 45  # frames between independent curvatures


def varied(features: Tensor, lengths: Tensor, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
    """Return motions at random speeds on bent ways.

    Args:
        features: (B, T, 272), not normalized.
        lengths: (B,) frames of each row, at least 2.
        generator: CPU generator; by default PyTorch's own.

    Returns:
        Features (B, T', 272) and lengths (B,).
    """
    device = features.device
    factor = SLOWEST * (FASTEST / SLOWEST) ** torch.rand(len(features), generator=generator).to(device)  # (B,)
    features, lengths = played_at(features, lengths, factor)
    knots = features.shape[1] // BEND_FRAMES + 2
    curvature = CURVATURE * torch.randn(len(features), 1, knots, generator=generator).to(device)
    curvature *= (torch.rand(len(features), 1, 1, generator=generator) < BENT).to(device)
    curvature = F.interpolate(curvature, size=features.shape[1], mode="linear", align_corners=True)[:, 0]  # (B, T)
    return bent(features, curvature), lengths


def played_at(features: Tensor, lengths: Tensor, factor: Tensor) -> tuple[Tensor, Tensor]:
    """Play motions (B, T, 272) with ``lengths`` (B,) at ``factor`` (B,) times their speed; interpolation is linear."""
    longer = ((lengths - 1) / factor).long() + 1
    place = torch.arange(int(longer.max()), device=features.device) * factor[:, None]  # (B, T')
    index = torch.minimum(place.long(), lengths[:, None] - 2)
    fraction = (place - index).clamp(0, 1)[..., None]
    rows = torch.arange(len(features), device=features.device)[:, None]
    played = features[rows, index].lerp(features[rows, index + 1], fraction)
    for name in ("root_velocity", "joint_velocities"):
        played[..., LAYOUT[name]] *= factor[:, None, None]
    turns = turn_of(played) * factor[:, None]
    played[..., LAYOUT["heading_change"]] = matrix_to_rotation_6d(y_rotation(-turns))
    return played, longer


def bent(features: Tensor, curvature: Tensor) -> Tensor:
    """Return motions (B, T, 272) with ``curvature`` (B, T) in radians per metre added to their ways."""
    steps = features[..., LAYOUT["root_velocity"]].norm(dim=-1)
    turns = turn_of(features) + curvature * steps
    return torch.cat(
        (
            features[..., LAYOUT["root_velocity"]],
            matrix_to_rotation_6d(y_rotation(-turns)),
            features[..., LAYOUT["joint_positions"].start :],
        ),
        dim=-1,
    )


def turn_of(features: Tensor) -> Tensor:
    """Return the heading changes (..., T) per frame of features (..., T, 272), in radians."""
    return -heading_angle(rotation_6d_to_matrix(features[..., LAYOUT["heading_change"]]))
