"""Cost of generated frames against a track: how far they are from the values that the track asks for.

The cost of a frame is the sum, over root, heading, joints, pose and path, of d^2 / (2 tolerance^2), the negative
logarithm of a normal density of the distance d. The distance from the next value counts before it is due, with a
tolerance that grows with the time to go: a root that is 1 m from its waypoint costs little 1 s before, much 0.1 s
before.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from control.signal import follow_path, next_known, path_length, path_points
from control.track import Track, asked_frames
from motion.resample import FPS
from motion.rotation import matrix_to_rotation_6d, y_rotation


class Tolerance(NamedTuple):
    """Distance that costs 1/2 at the frame it is due, and its growth per second of time to go."""

    due: float
    growth: float

    def cost(self, squared: Tensor, seconds: Tensor | float) -> Tensor:
        """Return the cost of squared distances ``seconds`` before they are due."""
        return squared / (2 * (self.due**2 + (self.growth * seconds) ** 2))


ROOT = Tolerance(0.05, 1.0)  # metres
HEADING = Tolerance(0.15, 1.0)  # radians
JOINTS = Tolerance(0.05, 1.0)  # metres in the world, root mean square over the known coordinates
POSE = Tolerance(0.15, 1.0)  # radians, root mean square over the known rotations
PATH = Tolerance(0.15, 1.0)  # metres off the path; metres before its end when the motion ends
LOST = 0.5  # metres off the path, beyond which the distance that a motion walks counts as its progress


class Frames(NamedTuple):
    """F frames of P motions."""

    root: Tensor  # (P, F, 2) x and z of the pelvis in metres
    heading: Tensor  # (P, F) radians
    joints: Tensor  # (P, F, 22, 3) metres, in the heading frame, over the origin
    rotations: Tensor  # (P, F, 22, 6) local rotations in 6D; the root's has the heading removed

    def world_joints(self) -> Tensor:
        """Return the positions (P, F, 22, 3) in the world."""
        turned = (y_rotation(self.heading)[:, :, None] @ self.joints[..., None])[..., 0]
        return torch.stack(
            (turned[..., 0] + self.root[..., :1], turned[..., 1], turned[..., 2] + self.root[..., 1:]), dim=-1
        )


class Step(NamedTuple):
    """Costs of the next frames of P motions."""

    progress: Tensor  # (P,) metres of the path behind them; it never falls
    kept: Tensor  # (P,) mean cost of the frames
    ahead: Tensor  # (P,) cost of the distance from the next value, seen from the last frame


class TrackCost:
    """Costs of frames against one track (without batch dimensions).

    Args:
        track: Of T frames.
        path_due: Whether the path has to be at its end in the last frame of the track.
    """

    def __init__(self, track: Track, path_due: bool) -> None:
        self.track, self.path_due = track, path_due and len(track.path) > 0
        self.path = track.path[None]  # (1, P, 2)
        self.path_length = path_length(self.path)[0]
        self.has_pose = track.rotations_known.any(dim=-1)  # (T,)
        self.has_joints = track.joints_known.flatten(1).any(dim=-1)  # (T,)
        self.asked = asked_frames(track)  # (T,)
        self.length = len(track.root_known)
        ended = torch.cat((self.asked, self.asked.new_zeros(1)))
        self.following = next_known(ended[None])[0].tolist()  # next frame of which something is asked; T if none is
        self.pose = matrix_to_rotation_6d(track.rotations)  # (T, 22, 6)

    def step(self, first: int, frames: Frames, progress: Tensor) -> Step:
        """Return the costs of the next frames, ``first .. first + F - 1``.

        Args:
            progress: (P,) metres of the path behind the frames before.
        """
        kept, end = self._of_frames(first, frames), first + frames.root.shape[1]
        if self.path.shape[1]:
            root = frames.root[None, :, -1]  # (1, P, 2)
            nearest = follow_path(self.path, root, progress[None])  # (1, P)
            off = (path_points(self.path, nearest) - root)[0].square().sum(dim=-1)
            walked = frames.root.diff(dim=1).norm(dim=-1).mean(dim=-1) * frames.root.shape[1]
            lost = torch.minimum(progress + walked, self.path_length)
            progress = torch.where(off > LOST**2, torch.maximum(nearest[0], lost), nearest[0])
            kept = kept + PATH.cost(off, 0.0)
        return Step(progress, kept, self._ahead(end, frames, progress))

    def begins(self, first: int, end: int) -> bool:
        """Return whether something is asked of a frame from ``first`` to ``end - 1`` and not of the frame before it."""
        return any(bool(self.asked[frame]) and not self.asked[frame - 1] for frame in range(max(first, 1), end))

    @property
    def last_asked(self) -> int:
        """Last frame of which something is asked; -1 if there is none."""
        asked = self.asked.nonzero()
        return int(asked[-1]) if len(asked) else -1

    def _of_frames(self, first: int, frames: Frames) -> Tensor:
        """Return the mean cost (P,) of frames ``first .. first + F - 1`` in their timed values."""
        asked = [index for index in range(frames.root.shape[1]) if self.asked[first + index]]
        if not asked:
            return frames.root.new_zeros(len(frames.root))
        chosen = Frames(*(value[:, asked] for value in frames))
        return self._timed([first + index for index in asked], chosen, 0.0).sum(dim=1) / frames.root.shape[1]

    def _ahead(self, count: int, frames: Frames, progress: Tensor) -> Tensor:
        """Return the cost (P,) of the distance from the next value, seen from the last of ``count`` frames."""
        last = Frames(*(value[:, -1:] for value in frames))
        cost = last.root.new_zeros(len(last.root))
        if count < self.length and (due := self.following[count]) < self.length:
            cost = cost + self._timed([due], last, (due - count + 1) / FPS)[:, 0]
        if self.path_due:
            cost = cost + PATH.cost((self.path_length - progress).square(), (self.length - count) / FPS)
        return cost

    def _timed(self, due: list[int], frames: Frames, seconds: float) -> Tensor:
        """Return the cost (P, F) of each frame against the values at frames ``due`` (F), ``seconds`` before them."""
        track = self.track
        moved = (frames.root - track.root[due]).square().sum(dim=-1) * track.root_known[due]
        turned = (2 - 2 * torch.cos(frames.heading - track.heading[due])) * track.heading_known[due]
        cost = ROOT.cost(moved, seconds) + HEADING.cost(turned, seconds)
        if self.has_joints[due].any():
            known = track.joints_known[due]  # (F, 22, 3)
            squared = (frames.world_joints() - track.joints[due]).square() * known
            cost = cost + JOINTS.cost(3 * squared.sum(dim=(-2, -1)) / known.sum(dim=(-2, -1)).clamp(min=1), seconds)
        if self.has_pose[due].any():
            known = track.rotations_known[due]  # (F, 22)
            squared = (frames.rotations - self.pose[due]).square().sum(dim=-1) * 3 / 4 * known  # of small angles
            cost = cost + POSE.cost(squared.sum(dim=-1) / known.sum(dim=-1).clamp(min=1), seconds)
        return cost
