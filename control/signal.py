"""The control signal: the part of a track that lies ahead, seen from the root of the motion so far.

The generator gets one signal per token (``LLaMAHF.forward``), computed from the frames before the token. It holds:

    horizons    place and heading at fixed numbers of frames ahead, for timed paths
    path        points of the untimed path at fixed distances ahead, and the distance to its end
    next root   time, place and heading of the next frame with a given root, for waypoints
    next poses  time, place, heading and pose of the next frame with given rotations, and of the next from ``LATER`` on
    next pins   time and joints of the next frame with given positions of joints, and of the next from ``LATER`` on

Places are in the frame of the root: x to the left and z forward from the pelvis' place on the floor, in metres, scaled
to about unit size. All zeros ask for nothing.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from control.track import PATH_STEP, Track
from motion.skeleton import JOINTS, PARENTS, forward_kinematics

HORIZONS = (4, 8, 16, 32, 64)  # frames after the last frame of the motion so far
PATH_AHEAD = (0.15, 0.3, 0.6, 1.2, 2.4)  # metres along the path
LATER = 8  # frames
TIME_SCALES = (2.0, 8.0, 32.0, 128.0)  # frames
FAR = 3.0  # metres; larger distances are compressed
REACH = 1.0  # metres of the path in which the next place is searched: more than a runner covers in a token
SPEED_SCALE = 20.0  # brings metres per frame to unit size

_TARGET = len(TIME_SCALES) + 5 + 3  # time; place, known, speed; heading, known
_POSE = _TARGET + 3 + JOINTS * 3 + JOINTS + JOINTS * 3 + 1  # root and heading speed; pose, known; its speed, known
_PINS = len(TIME_SCALES) + JOINTS * 3 + JOINTS * 2  # time; places; known on the floor, known height
SIGNAL_WIDTH = len(HORIZONS) * 6 + len(PATH_AHEAD) * 2 + 4 + _TARGET + 2 * _POSE + 2 * _PINS


def signal(track: Track, frame: Tensor, root: Tensor, heading: Tensor, progress: Tensor | None = None) -> Tensor:
    """Compute control signals; see ``ControlSignal``, which is faster for many calls with one track.

    Args:
        track: With batch dimensions "...", which may be none.
        frame: (..., N) int64 number of frames made so far.
        root: (..., N, 2) x and z of the pelvis in the last of these frames, or at the start of the motion.
        heading: (..., N) heading in that frame, in radians.
        progress: (..., N) metres of the path behind; by default of N consecutive places, see ``path_progress``.

    Returns:
        (..., N, SIGNAL_WIDTH) float32.
    """
    return ControlSignal(track)(frame, root, heading, progress)


class ControlSignal:
    """Control signals of a track.

    The N positions of a call are independent of each other if ``progress`` is given: consecutive tokens of one motion,
    or particles of one motion, whose track then has no dimension for them.
    """

    def __init__(self, track: Track):
        batch = track.root_known.shape[:-1]
        self.frames = track.root_known.shape[-1]  # T, which stands for "no frame" in indices

        def extended(values: Tensor) -> Tensor:
            """Flatten the batch dimensions and append an empty frame: (..., T, ...) to (B, T + 1, ...)."""
            values = values.reshape(-1, *values.shape[len(batch) :])
            return torch.cat((values, values.new_zeros(len(values), 1, *values.shape[2:])), dim=1)

        pinned = track.joints_known & ~track.rotations_known.all(-1)[..., None, None]
        self.root, self.root_known = extended(track.root), extended(track.root_known)
        self.heading, self.heading_known = extended(track.heading), extended(track.heading_known)
        self.joints, self.pinned = extended(track.joints), extended(pinned)
        self.pose, self.pose_known = (extended(each) for each in body_pose(track))
        self.next_root = next_known(self.root_known)
        self.next_pose = next_known(extended(track.rotations_known.any(-1)))
        self.next_pin = next_known(self.pinned.flatten(-2).any(-1))
        self.has_pose, self.has_pins = bool(track.rotations_known.any()), bool(pinned.any())
        self.path = track.path.reshape(len(self.root), *track.path.shape[-2:])  # (B, P, 2)

    def __call__(self, frame: Tensor, root: Tensor, heading: Tensor, progress: Tensor | None = None) -> Tensor:
        """Return signals (..., N, SIGNAL_WIDTH); arguments as in ``signal``."""
        shape = frame.shape
        frame = frame.reshape(len(self.root), -1)  # (B, N)
        view = RootView(root.reshape(*frame.shape, 2), heading.reshape(frame.shape))
        progress = path_progress(self.path, view.root) if progress is None else progress.reshape(frame.shape)
        parts: list[Tensor] = [*self._horizons(frame, view), self._path(progress, view)]
        parts += self._target(_at(self.next_root, frame.clamp(max=self.frames)), frame, view)
        for later in (0, LATER):
            first = (frame + later).clamp(max=self.frames)
            parts += self._pose(_at(self.next_pose, first), frame, view)
            parts += self._pins(_at(self.next_pin, first), frame, view)
        return torch.cat(parts, dim=-1).reshape(*shape, SIGNAL_WIDTH)

    def _horizons(self, frame: Tensor, view: "RootView") -> list[Tensor]:
        """Return place, heading change and whether they are known per horizon, (B, N, 6) each."""
        parts: list[Tensor] = []
        for horizon in HORIZONS:
            index = (frame - 1 + horizon).clamp(max=self.frames)
            scale = SPEED_SCALE / horizon
            place = view.place(_at(self.root, index)) * scale
            parts += _masked(place / (1 + place.norm(dim=-1, keepdim=True) / 4), _at(self.root_known, index))
            parts += _masked(view.turn(_at(self.heading, index)), _at(self.heading_known, index))
        return parts

    def _path(self, progress: Tensor, view: "RootView") -> Tensor:
        """Return the points ahead, the distance to the end on three scales, and whether there is a path, (B, N, 14)."""
        if not self.path.shape[1]:
            return view.root.new_zeros(*view.root.shape[:2], len(PATH_AHEAD) * 2 + 4)
        length = path_length(self.path)[:, None]  # (B, 1)
        left = (length - progress).clamp(min=0)[..., None]  # (B, N, 1)
        ahead = left.new_tensor(PATH_AHEAD)
        points = view.place(path_points(self.path, progress[..., None] + ahead)) / ahead[:, None]  # (B, N, 5, 2)
        points = points / (1 + points.norm(dim=-1, keepdim=True) / 4)
        distance = torch.cat(((left / 5).clamp(max=1), (-left).exp(), (-left / 0.2).exp()), dim=-1)
        known = (length > 0).expand_as(progress)
        return torch.cat((*_masked(points.flatten(-2), known), *_masked(distance, known)[:1]), dim=-1)

    def _target(self, target: Tensor, frame: Tensor, view: "RootView") -> list[Tensor]:
        """Return time, place and heading of target frames (B, N); T for none."""
        time = (target - frame + 1).float()  # (B, N) frames, from the last frame made
        place = view.place(_at(self.root, target))
        near = place / (1 + place.norm(dim=-1, keepdim=True) / FAR)
        speed = place / time.clamp(min=1)[..., None] * SPEED_SCALE
        speed = speed / (1 + speed.norm(dim=-1, keepdim=True) / 4)
        place_known, exists = _at(self.root_known, target), target < self.frames
        return [
            _time(time, exists),
            *_masked(torch.cat((near, speed), dim=-1), place_known),
            *_masked(view.turn(_at(self.heading, target)), _at(self.heading_known, target)),
        ]

    def _pose(self, target: Tensor, frame: Tensor, view: "RootView") -> list[Tensor]:
        """Return a target as in ``_target``, its root and heading speed, its pose and the pose's speed."""
        if not self.has_pose:
            return [view.root.new_zeros(*target.shape, _POSE)]
        following = (target + 1).clamp(max=self.frames)
        at_target = RootView(_at(self.root, target), _at(self.heading, target))
        moves = _at(self.root_known & self.heading_known, target) & _at(self.root_known & self.heading_known, following)
        move = at_target.place(_at(self.root, following)) * SPEED_SCALE
        turn = at_target.turn(_at(self.heading, following))[..., :1] * SPEED_SCALE / 4
        pose, known = _at(self.pose, target), _at(self.pose_known, target)  # (B, N, 22, 3), (B, N, 22)
        both = known & _at(self.pose_known, following)
        speed = (_at(self.pose, following) - pose) * both[..., None] * SPEED_SCALE
        return [
            *self._target(target, frame, view),
            torch.cat((move, turn), dim=-1) * moves[..., None],
            (pose * known[..., None]).flatten(-2),
            known.float(),
            speed.flatten(-2),
            both.any(-1, keepdim=True).float(),
        ]

    def _pins(self, target: Tensor, frame: Tensor, view: "RootView") -> list[Tensor]:
        """Return time and places of pinned joints; a joint with only one of x and z given counts as not pinned."""
        if not self.has_pins:
            return [view.root.new_zeros(*target.shape, _PINS)]
        joints, pinned = _at(self.joints, target), _at(self.pinned, target)  # (B, N, 22, 3) each
        on_floor, height = pinned[..., 0] & pinned[..., 2], pinned[..., 1]
        place = view.place(joints[..., (0, 2)]) * on_floor[..., None]
        place = place / (1 + place.norm(dim=-1, keepdim=True) / FAR)
        values = torch.stack((place[..., 0], joints[..., 1] * height, place[..., 1]), dim=-1)
        time = (target - frame + 1).float()
        exists = target < self.frames
        return [_time(time, exists), values.flatten(-2), on_floor.float(), height.float()]


class RootView:
    """The frame of the root: x to the left and z forward, from places (B, N, 2) and headings (B, N)."""

    def __init__(self, root: Tensor, heading: Tensor):
        self.root, self.heading = root, heading
        self.cos, self.sin = heading.cos(), heading.sin()

    def place(self, points: Tensor) -> Tensor:
        """Bring points (B, N, 2) or (B, N, K, 2) of the floor into the frame of the root."""
        many = points.ndim - self.root.ndim
        root = self.root[:, :, None] if many else self.root
        cos, sin = (each[..., None] if many else each for each in (self.cos, self.sin))
        x, z = (points - root).unbind(-1)
        return torch.stack((cos * x - sin * z, sin * x + cos * z), dim=-1)

    def turn(self, heading: Tensor) -> Tensor:
        """Return sine and 1 - cosine (B, N, 2) of the change to headings (B, N)."""
        change = heading - self.heading
        return torch.stack((change.sin(), 1 - change.cos()), dim=-1)


def body_pose(track: Track) -> tuple[Tensor, Tensor]:
    """Return the given poses, from the rotations.

    Returns:
        Joints (..., T, 22, 3) relative to the pelvis' place on the floor and its heading, and which are known
        (..., T, 22): those whose parent's rotation is given. If the height of the pelvis is not given, the lowest joint
        is on the floor.
    """
    parents = [max(parent, 0) for parent in PARENTS]
    known = track.rotations_known[..., parents]
    if not known.any():
        return torch.zeros_like(track.joints), known
    pose = forward_kinematics(track.rotations, track.root.new_zeros(*track.root.shape[:-1], 3))
    has_height = track.joints_known[..., 0, 1]
    height = torch.where(has_height, track.joints[..., 0, 1], -pose[..., 1].amin(-1))
    return pose + F.pad(height[..., None, None], (1, 1)), known


# --- Paths


def path_length(path: Tensor) -> Tensor:
    """Return the lengths (B,) in metres of paths (B, P, 2)."""
    return path.diff(dim=1).norm(dim=-1).sum(-1)


def path_points(path: Tensor, distance: Tensor) -> Tensor:
    """Return the points (B, ..., 2) at distances (B, ...) in metres along paths (B, P, 2), at most their ends."""
    place = (distance / PATH_STEP).clamp(0, path.shape[1] - 1)
    index = place.long().clamp(max=max(0, path.shape[1] - 2))
    fraction = (place - index)[..., None]
    start = _at(path, index.flatten(1)).unflatten(1, index.shape[1:])
    following = (index + 1).clamp(max=path.shape[1] - 1)
    end = _at(path, following.flatten(1)).unflatten(1, index.shape[1:])
    return start + (end - start) * fraction


def follow_path(path: Tensor, root: Tensor, progress: Tensor) -> Tensor:
    """Return the distance along a path that is nearest to the root, from the last one on.

    Only the next metre of the path is searched, so that paths may cross themselves.

    Args:
        path: (B, P, 2) with points ``PATH_STEP`` apart; P may be 0.
        root: (B, N, 2).
        progress: (B, N) metres, before; never decreases.

    Returns:
        (B, N) metres.
    """
    if not path.shape[1]:
        return progress
    steps = torch.arange(round(REACH / PATH_STEP) + 1, device=path.device) * PATH_STEP
    points = path_points(path, progress[..., None] + steps)  # (B, N, S, 2)
    segment = points.diff(dim=-2)
    to_root = root[..., None, :] - points[..., :-1, :]
    fraction = ((to_root * segment).sum(-1) / segment.square().sum(-1).clamp(min=1e-9)).clamp(0, 1)  # (B, N, S - 1)
    distance = (to_root - segment * fraction[..., None]).square().sum(-1)
    nearest = distance.argmin(-1, keepdim=True)  # (B, N, 1)
    advance = (nearest[..., 0] + fraction.gather(-1, nearest)[..., 0]) * PATH_STEP
    return torch.minimum(progress + advance, path_length(path)[:, None].clamp(min=0)).maximum(progress)


def path_progress(path: Tensor, root: Tensor) -> Tensor:
    """Return the progress (B, N) in metres of the consecutive places ``root`` (B, N, 2) along paths (B, P, 2)."""
    progress = [root.new_zeros(len(root), 1)]
    for place in root.unbind(1):
        progress.append(follow_path(path, place[:, None], progress[-1]))
    return torch.cat(progress[1:], dim=1)


# --- Parts of a signal


def next_known(known: Tensor) -> Tensor:
    """Return the first known frame (B, F) at or after each of the F frames of ``known`` (B, F), F - 1 if none is."""
    last = known.shape[1] - 1
    index = torch.where(known, torch.arange(last + 1, device=known.device), last)
    return index.flip(1).cummin(1).values.flip(1)


def _at(values: Tensor, index: Tensor) -> Tensor:
    """Return the values (B, N, ...) of frames ``index`` (B, N), from ``values`` (B, T, ...)."""
    rows = torch.arange(len(values), device=values.device)[:, None]
    return values[rows, index]


def _masked(values: Tensor, known: Tensor) -> tuple[Tensor, Tensor]:
    """Return values (B, N, K) that are zero where not known (B, N), and the mask as a channel (B, N, 1)."""
    mask = known[..., None].float()
    return values * mask, mask


def _time(time: Tensor, exists: Tensor) -> Tensor:
    """Return a time (B, N) in frames on several scales, (B, N, S), zero where there is no target."""
    scales = time.new_tensor(TIME_SCALES)
    return (-(time[..., None] - 1) / scales).exp() * exists[..., None]
