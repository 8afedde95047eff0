"""Random control tracks for training, drawn from the motion that the generator learns to reproduce.

A row gets one kind of constraint or two, at random frames of its motion. Given values are those of the motion, except
paths, which are smoothed: people draw lines, and the pelvis sways around them.
"""

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from control.track import PATH_STEP, Track
from motion.features272 import heading_angle, local_rotations, recover_root
from motion.skeleton import JOINT_INDEX, JOINTS, LIMBS, forward_kinematics

PINNED = tuple(JOINT_INDEX[f"{side}_{name}"] for name in ("wrist", "foot") for side in ("left", "right")) + (
    JOINT_INDEX["head"],
    JOINT_INDEX["pelvis"],
)
LEGS = tuple(sorted({joint for side in ("left", "right") for joint in LIMBS[f"{side}_leg"][1:]}))
ARMS = tuple(tuple(LIMBS[f"{side}_arm"][1:]) for side in ("left", "right"))
KEPT_PARTS = (tuple(joint for joint in range(1, JOINTS) if joint not in LEGS), LEGS, *ARMS)
AXES = ((1, 1, 1), (1, 0, 1), (0, 1, 0))  # of a pin: a point, a place on the floor, a height
SHORTEST_PATH = 0.5  # metres
SECOND_KIND = 0.3  # share of the rows with two kinds of constraints
NOISE = 0.01  # metres, standard deviation of given places


class Frames(NamedTuple):
    """Motion of B rows of T frames, in world axes."""

    root: Tensor  # (B, T, 2) x and z of the pelvis
    heading: Tensor  # (B, T) radians
    rotations: Tensor  # (B, T, 22, 3, 3) local; the root's has the heading removed
    joints: Tensor  # (B, T, 22, 3)
    lengths: Tensor  # (B,) frames of each row

    @classmethod
    def of(cls, features: Tensor, lengths: Tensor) -> "Frames":
        """Recover the motion of features (B, T, 272) with ``lengths`` (B,) frames."""
        turned, pelvis = recover_root(features)
        rotations = local_rotations(features)
        world = torch.cat(((turned @ rotations[..., 0, :, :]).unsqueeze(-3), rotations[..., 1:, :, :]), dim=-3)
        joints = forward_kinematics(world, pelvis)
        return cls(pelvis[..., (0, 2)], heading_angle(turned), rotations, joints, lengths)


class Draw:
    """Random choices for the frames of B rows of different lengths."""

    def __init__(self, lengths: Tensor, frames: int, generator: torch.Generator | None):
        self.lengths, self.frames, self.generator = lengths, frames, generator
        self.index = torch.arange(frames, device=lengths.device)  # (T,)

    def uniform(self, *shape: int) -> Tensor:
        """Return (B, ...) numbers in [0, 1), drawn on the CPU."""
        return torch.rand(len(self.lengths), *shape, generator=self.generator).to(self.lengths.device)

    def chance(self, probability: float) -> Tensor:
        """Return (B,) booleans that are true with a probability."""
        return self.uniform() < probability

    def between(self, low: float, high: float) -> Tensor:
        """Return (B,) numbers of frames; their logarithms are uniform, so that short spans are frequent."""
        return (low * (high / low) ** self.uniform()).round()

    def span(self, start: Tensor, end: Tensor) -> Tensor:
        """Return (B, T) booleans that are true from frame ``start`` (B,) to before ``end`` (B,)."""
        inside = (self.index >= start[:, None]) & (self.index < end[:, None])
        return inside & (self.index < self.lengths[:, None])

    def some_span(self, shortest: float, longest: float) -> Tensor:
        """Return (B, T) booleans that are true in a random span per row."""
        length = self.between(shortest, longest)
        start = (self.uniform() * (self.lengths - length + 1).clamp(min=1)).floor()
        return self.span(start, start + length)

    def some_frames(self, most: int) -> Tensor:
        """Return (B, T) booleans that are true at 1 to ``most`` random frames per row."""
        count = 1 + (self.uniform() * most).long()
        times = (self.uniform(most) * self.lengths[:, None]).long()  # (B, most)
        used = torch.arange(most, device=times.device) < count[:, None]
        return ((self.index == times[..., None]) & used[..., None]).any(1)


@dataclass
class Known:
    """Which values of the frames are given; the shapes are those of ``Track``."""

    root: Tensor
    heading: Tensor
    joints: Tensor
    rotations: Tensor
    timed_path: Tensor
    """(B, T) where the root is given by a path."""
    path: Tensor
    """(B,) whether the row has an untimed path."""

    @classmethod
    def nothing(cls, draw: Draw) -> "Known":
        none = torch.zeros(len(draw.lengths), draw.frames, dtype=torch.bool, device=draw.lengths.device)  # (B, T)
        joints = none[..., None, None].repeat(1, 1, JOINTS, 3)
        return cls(none, none, joints, none[..., None].repeat(1, 1, JOINTS), none, none[:, 0])

    def add(self, other: "Known", rows: Tensor) -> None:
        """Add what another one gives in ``rows`` (B,)."""
        for field in fields(self):
            mine, its = getattr(self, field.name), getattr(other, field.name)
            setattr(self, field.name, mine | its & rows.reshape(-1, *[1] * (its.ndim - 1)))


def give_poses(known: Known, at: Tensor, placed: Tensor) -> Known:
    """Give whole poses at frames ``at`` (B, T), with their place in the rows ``placed`` (B,)."""
    known.rotations = known.rotations | at[..., None]
    with_place = at & placed[:, None]
    known.root, known.heading = known.root | with_place, known.heading | with_place
    known.joints = known.joints | with_place[..., None, None]
    return known


def between(draw: Draw, known: Known) -> Known:
    """All frames after a gap are given, in half of the rows those before it too."""
    gap = draw.between(8, 120)
    start = (draw.uniform() * (draw.lengths - gap - 8).clamp(min=1)).floor()
    at = draw.span(start + gap, draw.lengths) | draw.span(torch.zeros_like(start), start * draw.chance(0.5))
    return give_poses(known, at, placed=torch.ones_like(known.path))


def keyframes(draw: Draw, known: Known) -> Known:
    """One to four poses, some of them anywhere, some followed by the next frame, which gives the velocity."""
    at = draw.some_frames(4)
    following = F.pad(at, (1, 0))[:, :-1] & draw.chance(0.4)[:, None] & (draw.index < draw.lengths[:, None])
    return give_poses(known, at | following, draw.chance(0.7))


def timed_path(draw: Draw, known: Known) -> Known:
    """The place of the root over a span, often of the whole motion; sometimes its heading."""
    start = (draw.uniform() * draw.lengths / 2 * draw.chance(0.3)).floor()
    end = draw.lengths - (draw.uniform() * draw.lengths / 2 * draw.chance(0.3)).floor()
    known.root = known.timed_path = draw.span(start, end)
    known.heading = known.root & draw.chance(0.3)[:, None]
    return known


def untimed_path(draw: Draw, known: Known) -> Known:
    """The whole way of the root; sometimes the place at a time."""
    known.path = torch.ones_like(known.path)
    known.root = draw.some_frames(2) & draw.chance(0.2)[:, None]
    return known


def waypoints(draw: Draw, known: Known) -> Known:
    """One to three places, in half of the rows with the heading."""
    known.root = draw.some_frames(3)
    known.heading = known.root & draw.chance(0.5)[:, None]
    return known


def pins(draw: Draw, known: Known) -> Known:
    """One or two joints, at some frames or over a span."""
    at = torch.where(draw.chance(0.5)[:, None], draw.some_frames(3), draw.some_span(8, 90))
    axes = torch.tensor(AXES, dtype=torch.bool, device=at.device)[(draw.uniform() ** 2 * len(AXES)).long()]  # (B, 3)
    candidates = torch.tensor(PINNED, device=at.device)
    pinned = torch.zeros_like(known.rotations[:, 0])  # (B, 22)
    for joint in candidates[(draw.uniform(2) * len(PINNED)).long()].unbind(1):
        pinned[torch.arange(len(pinned), device=at.device), joint] = True
    known.joints = at[..., None, None] & pinned[:, None, :, None] & axes[:, None, None]
    return known


def kept_parts(draw: Draw, known: Known) -> Known:
    """The rotations of a part of the body over a span."""
    parts = torch.zeros(len(KEPT_PARTS), JOINTS, dtype=torch.bool, device=draw.lengths.device)
    for row, part in zip(parts, KEPT_PARTS, strict=True):
        row[list(part)] = True
    chosen = parts[(draw.uniform() * len(parts)).long()]  # (B, 22)
    known.rotations = draw.some_span(15, 240)[..., None] & chosen[:, None]
    return known


KINDS: dict[Callable[[Draw, Known], Known], float] = {  # share of the rows
    between: 0.28,
    keyframes: 0.16,
    timed_path: 0.14,
    untimed_path: 0.20,
    waypoints: 0.06,
    pins: 0.11,
    kept_parts: 0.05,
}


def random_tracks(
    motion: Frames, generator: torch.Generator | None = None, kinds: dict[Callable, float] | None = None
) -> Track:
    """Draw a track for each row.

    Args:
        motion: Decoded rows.
        generator: CPU generator; by default PyTorch's own.
        kinds: Kinds of constraints and their shares; by default ``KINDS``.

    Returns:
        Track with the batch dimension B, on the device of the motion. Rows without a path have one of length 0, and
        shorter paths repeat their last point.
    """
    kinds = KINDS if kinds is None else kinds
    batch, frames = motion.heading.shape
    draw = Draw(motion.lengths, frames, generator)
    known = Known.nothing(draw)
    shares = torch.tensor(list(kinds.values())).repeat(batch, 1)  # (B, K)
    if untimed_path in kinds:
        stays = (motion.root - motion.root[:, :1]).norm(dim=-1).amax(1) < SHORTEST_PATH
        shares[stays.cpu(), list(kinds).index(untimed_path)] = 1e-9
    choice = torch.multinomial(shares, 2, True, generator=generator).to(motion.lengths.device)  # (B, 2)
    choice[:, 1] = torch.where(draw.chance(SECOND_KIND), choice[:, 1], choice[:, 0])
    for number, kind in enumerate(kinds):
        rows = (choice == number).any(1)
        known.add(kind(draw, Known.nothing(draw)), rows)
    return make_track(motion, known, draw)


def make_track(motion: Frames, known: Known, draw: Draw) -> Track:
    """Return the track with the given values of the motion, and paths smoothed."""
    sigma = float(4 * 4 ** torch.rand((), generator=draw.generator))  # frames, of this batch
    smooth = smoothed(motion.root, motion.lengths, sigma)  # (B, T, 2)
    on_path = known.timed_path & ~known.rotations.any(-1)
    root = torch.where(on_path[..., None], smooth, motion.root)
    root = root + NOISE * torch.randn(root.shape[0], 1, 2, generator=draw.generator).to(root.device)
    identity = torch.eye(3, device=root.device)
    return Track(
        root=root * known.root[..., None],
        root_known=known.root,
        heading=motion.heading * known.heading,
        heading_known=known.heading,
        joints=motion.joints * known.joints,
        joints_known=known.joints,
        rotations=torch.where(known.rotations[..., None, None], motion.rotations, identity),
        rotations_known=known.rotations,
        path=resampled_paths(smooth, known.path),
    )


def smoothed(root: Tensor, lengths: Tensor, sigma: float) -> Tensor:
    """Smooth the ways of roots (B, T, 2) with a Gaussian of ``sigma`` frames; their first and last places stay.

    Frames after the end of a row (``lengths`` (B,)) repeat its last place.
    """
    frames = root.shape[1]
    pad = min(round(3 * sigma), frames - 1)
    last = lengths[:, None] - 1
    index = torch.arange(-pad, frames + pad, device=root.device).expand(len(root), -1)  # (B, pad + T + pad)
    before, after = index < 0, index > last
    inside = torch.where(before, -index, torch.where(after, 2 * last - index, index))
    values = _at(root, torch.minimum(inside.clamp(min=0), last))  # mirrored at both ends
    values = torch.where(before[..., None], 2 * root[:, :1] - values, values)  # through the first place, and the last
    values = torch.where(after[..., None], 2 * _at(root, last) - values, values)
    taps = torch.arange(-pad, pad + 1, device=root.device)
    kernel = (-((taps / sigma) ** 2) / 2).exp()
    smooth = F.conv1d(values.transpose(1, 2).reshape(-1, 1, frames + 2 * pad), (kernel / kernel.sum())[None, None])
    smooth = smooth.reshape(len(root), 2, frames).transpose(1, 2)
    return _at(smooth, torch.arange(frames, device=root.device).minimum(last))


def resampled_paths(ways: Tensor, wanted: Tensor) -> Tensor:
    """Return the points (B, P, 2) of ways (B, T, 2), ``PATH_STEP`` apart; one place where not wanted (B,) or short."""
    distance = F.pad(ways.diff(dim=1).norm(dim=-1).cumsum(1), (1, 0))  # (B, T)
    length = torch.where(wanted & (distance[:, -1] > SHORTEST_PATH), distance[:, -1], 0)
    points = int(length.max() / PATH_STEP) + 2 if len(length) else 0
    targets = torch.minimum(torch.arange(points, device=ways.device) * PATH_STEP, length[:, None])  # (B, P)
    end = torch.searchsorted(distance, targets).clamp(1, ways.shape[1] - 1)
    start_distance, end_distance = distance.gather(1, end - 1), distance.gather(1, end)
    fraction = ((targets - start_distance) / (end_distance - start_distance).clamp(min=1e-6)).clamp(0, 1)
    return _at(ways, end - 1).lerp(_at(ways, end), fraction[..., None])


def _at(places: Tensor, index: Tensor) -> Tensor:
    """Return the places (B, N, 2) at ``index`` (B, N) of ``places`` (B, T, 2)."""
    return places.gather(1, index[..., None].expand(-1, -1, 2))
