"""Steering: small turns of the root that lead a motion to its path and its next place while it is generated.

A generator that was trained without control walks straight on, and a trained one does not meet a path exactly. As in
pure pursuit (Coulter, 1992), the direction of travel is turned toward a point of the path some way ahead. The turn is
part of the motion; ``control.satisfy`` keeps the feet from sliding through it.
"""

import torch
from torch import Tensor

from control.signal import next_known, path_points
from control.track import Track
from motion.features272 import LAYOUT
from motion.rotation import matrix_to_rotation_6d, rotation_6d_to_matrix, y_rotation

AHEAD, STEPS_AHEAD = 0.3, 2.0  # metres ahead on the path, plus a number of times the last token's travel
FRAMES_AHEAD = 12  # of a path in time; turns toward a place that is due later are smaller, so that sway is not steered
GAIN = 0.7  # share of the missing turn that a token makes
LARGEST = 0.4  # radians per token
SLOW = 0.05  # metres per token, and metres from the target, below which directions hardly count
MEMORY = 0.5  # weight of the past in the direction of travel


class Steering:
    """Turns toward the places of a track (without batch dimensions).

    Places of whole poses do not count: a motion goes to them on a way of its own, which straight lines would spoil.
    """

    def __init__(self, track: Track) -> None:
        self.track, self.path = track, track.path[None]
        self.frames = len(track.root_known)
        self.places = track.root_known & ~track.rotations_known.all(dim=-1)  # (T,)
        ended = torch.cat((self.places, self.places.new_zeros(1)))
        self.next_place = next_known(ended[None])[0].tolist()  # (T + 1,), T where none follows

    def turn(self, count: int, progress: Tensor, root: Tensor, direction: Tensor, travel: Tensor) -> Tensor:
        """Return the turns (P,) in radians that the next token makes.

        Args:
            count: Number of frames so far.
            progress: (P,) metres of the path behind.
            root: (P, 2) x and z of the pelvis in metres.
            direction: (P,) of travel in radians, 0 toward +z, pi/2 toward +x.
            travel: (P,) metres per token.
        """
        found = self._target(count, progress, travel)
        if found is None:
            return torch.zeros_like(travel)
        target, gain = found
        way = target - root
        missing = torch.atan2(way[:, 0], way[:, 1]) - direction
        missing = torch.atan2(missing.sin(), missing.cos())
        certain = _certain(travel) * _certain(way.norm(dim=-1))
        return (gain * missing * certain).clamp(-LARGEST, LARGEST)

    def _target(self, count: int, progress: Tensor, travel: Tensor) -> tuple[Tensor, float] | None:
        """Return the places (P, 2) to go to, and the share of the turn that a token makes; None for anywhere."""
        if self.path.shape[1]:
            return path_points(self.path, (progress + AHEAD + STEPS_AHEAD * travel)[None])[0], GAIN
        ahead = min(count + FRAMES_AHEAD, self.frames)
        place = ahead if ahead < self.frames and self.places[ahead] else self.next_place[min(count, self.frames)]
        if place == self.frames:
            return None
        return self.track.root[place].expand(len(travel), 2), GAIN * FRAMES_AHEAD / max(FRAMES_AHEAD, place - count)


def bend(features: Tensor, turn: Tensor) -> Tensor:
    """Turn the root of features (P, F, 272) by angles (P,) in radians, evenly over the frames."""
    changes = rotation_6d_to_matrix(features[..., LAYOUT["heading_change"]])  # (P, F, 3, 3), of the inverse turn
    turned = y_rotation(-turn / features.shape[1])[:, None] @ changes
    bent = features.clone()
    bent[..., LAYOUT["heading_change"]] = matrix_to_rotation_6d(turned)
    return bent


def _certain(distance: Tensor) -> Tensor:
    return distance.square() / (distance.square() + SLOW**2)
