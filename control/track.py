"""A control track: the values that a motion shall have, frame by frame.

All constraints (``control/constraints.py``) are brought into this one form. Training draws random tracks from recorded
motions, sampling weighs motions by their distance from it, and the last corrections make it exact.
"""

from dataclasses import dataclass, fields

import torch
from torch import Tensor

from motion.skeleton import JOINTS

PATH_STEP = 0.05  # metres between the points of a path


@dataclass
class Track:
    """Values of T frames at 30 frames per second, and which of them are given. Leading dimensions are batches.

    World axes as everywhere: metres, y up. A value that is not given is 0, or the identity for rotations.
    """

    root: Tensor
    """(..., T, 2) x and z of the pelvis."""
    root_known: Tensor
    """(..., T) bool."""
    heading: Tensor
    """(..., T) heading in radians, 0 toward +z, pi/2 toward +x (``motion.features272.heading_angle``)."""
    heading_known: Tensor
    """(..., T) bool."""
    joints: Tensor
    """(..., T, 22, 3) world positions of joints."""
    joints_known: Tensor
    """(..., T, 22, 3) bool, per axis."""
    rotations: Tensor
    """(..., T, 22, 3, 3) local rotations; the root's has the heading removed, as in the 272 features."""
    rotations_known: Tensor
    """(..., T, 22) bool."""
    path: Tensor
    """(..., P, 2) points of the floor, ``PATH_STEP`` apart, that the pelvis follows at its own speed; P may be 0."""

    @classmethod
    def empty(cls, frames: int, batch: tuple[int, ...] = ()) -> "Track":
        """Return a track of ``frames`` frames that asks for nothing."""
        shape = (*batch, frames)
        return cls(
            root=torch.zeros(*shape, 2),
            root_known=torch.zeros(shape, dtype=torch.bool),
            heading=torch.zeros(shape),
            heading_known=torch.zeros(shape, dtype=torch.bool),
            joints=torch.zeros(*shape, JOINTS, 3),
            joints_known=torch.zeros(*shape, JOINTS, 3, dtype=torch.bool),
            rotations=torch.eye(3).expand(*shape, JOINTS, 3, 3).clone(),
            rotations_known=torch.zeros(*shape, JOINTS, dtype=torch.bool),
            path=torch.zeros(*batch, 0, 2),
        )

    def to(self, device: torch.device) -> "Track":
        """Return the track on a device."""
        return Track(**{field.name: getattr(self, field.name).to(device) for field in fields(self)})


def asked_frames(track: Track) -> Tensor:
    """Return the frames (..., T) of which a track asks something, besides its path."""
    posed = track.rotations_known.any(dim=-1) | track.joints_known.flatten(-2).any(dim=-1)
    return track.root_known | track.heading_known | posed
