"""Motions and streams under constraints: from constraints to a track, and from final tokens to corrected frames."""

from collections.abc import Iterator
from copy import copy
from dataclasses import fields

import numpy as np
import torch
from torch import Tensor

from control.checks import check_constraints
from control.constraints import Constraints
from control.poses import Placement
from control.report import measure
from control.satisfy import satisfy
from control.signal import path_points
from control.track import PATH_STEP, Track, asked_frames
from models.controlled import Goal, NewFrames
from models.motion import Motion, MotionChunk, RootTracker
from motion.features272 import encode, heading_angle
from motion.resample import FPS
from motion.rotation import axis_angle_to_matrix, rotation_between, y_rotation
from motion.skeleton import JOINTS, forward_kinematics
from motion.spread import LONGEST, SHORTEST, spread
from utils.errors import InputError

HISTORY = 32  # final frames that the correction of the next ones sees
LEVER = 0.3  # metres from a joint to the hands and feet that it moves, for the time in which a rotation fades

Body = tuple[np.ndarray, np.ndarray]
"""Local rotations (T, 22, 3, 3), the root's in the world, and the pelvis (T, 3) in metres, in float64."""


def goal_of(constraints: Constraints, frames: int, seconds: float | None) -> Goal:
    """Return the values that the sampling of a motion keeps.

    Args:
        constraints: Of the motion.
        frames: Number of frames of the motion, or the largest number if its length is open.
        seconds: Requested length of the motion; None for an open length.

    Raises:
        InputError: the constraints contradict each other, cannot be reached, or exceed the motion.
    """
    check_constraints(constraints, seconds)
    if seconds is None and constraints.needed_length * FPS > frames:
        raise InputError(
            f"the constraints last until {constraints.needed_length:g} s and the checkpoint generates at most "
            f"{frames / FPS:.1f} s; give earlier times"
        )
    ends_with_path = seconds is None and constraints.path is not None and constraints.path.times is None
    return Goal(constraints.track(frames), constraints.placement, ends_with_path)


def start_before(start: Placement, decoded: np.ndarray, given: np.ndarray) -> Placement:
    """Return the start from which a decoded initial motion ends where the given one ends.

    Tokens keep the root of a motion roughly: after a second it is off by several centimetres and degrees.

    Args:
        start: Of the given motion.
        decoded, given: Features (T, 272) of the initial motion.
    """
    (own, own_place), (real, real_place) = (
        (heading_angle(rotations[-1, 0]), pelvis[-1])
        for rotations, pelvis in (RootTracker(start).place(features) for features in (decoded, given))
    )
    turn = float(real - own)
    place = real_place + y_rotation(np.array(turn)) @ (np.array([start.x, own_place[1], start.z]) - own_place)
    return Placement(float(place[0]), float(place[2]), start.heading + turn)


def constrained_motion(
    prompt: str, seed: int, constraints: Constraints, goal: Goal, new: Iterator[NewFrames]
) -> Motion:
    """Return the motion of final tokens, corrected as a whole."""
    steps = list(new)
    features = np.concatenate([step.features.cpu().numpy() for step in steps])  # (T, 2, 272)
    decoded, body = (RootTracker(goal.start).place(features[:, index]) for index in (0, 1))
    given = sum(len(step.features) for step in steps if step.part < 0)
    rotations, pelvis = satisfy(*body, anchored(constraints.track(len(features)), *body, given), decoded)
    heading = float(heading_angle(rotations[0, 0]))
    return Motion(
        prompt=prompt,
        seed=seed,
        tokens=np.array([step.token for step in steps]),
        features=encode(rotations, forward_kinematics(rotations, pelvis)).astype(np.float32),
        start=Placement(float(pelvis[0, 0]), float(pelvis[0, 2]), heading),
        constraints=constraints,
        errors=measure(constraints, rotations, pelvis),
    )


def anchored(track: Track, rotations: np.ndarray, pelvis: np.ndarray, given: int) -> Track:
    """Return a track that keeps the place and the velocity at the end of an initial motion.

    Args:
        track: Of T frames; changed in place.
        rotations, pelvis: Motion (T, 22, 3, 3) and (T, 3) that the corrections start from.
        given: Number of frames of the initial motion, which the corrections must not move as a whole.
    """
    for frame in range(max(0, given - 2), given):
        if not track.root_known[frame]:
            track.root[frame], track.root_known[frame] = torch.from_numpy(pelvis[frame, [0, 2]]), True
        if not track.heading_known[frame]:
            track.heading[frame], track.heading_known[frame] = float(heading_angle(rotations[frame, 0])), True
    return track


def constrained_chunks(goal: Goal, new: Iterator[NewFrames]) -> Iterator[MotionChunk]:
    """Yield the corrected frames of each token as soon as it is final."""
    stream = CorrectedStream(goal)
    for step in new:
        yield stream.next(step)


class CorrectedStream:
    """Corrections of a stream, token by token: each sees the last final frames and those of the look-ahead.

    Successive corrections differ, because they see other frames. The difference at the last yielded frames is added to
    the next ones and fades.
    """

    def __init__(self, goal: Goal) -> None:
        self.track, self.roots = goal.track, (RootTracker(goal.start), RootTracker(goal.start))
        self.frames = 0  # yielded so far
        nothing: Body = np.zeros((0, JOINTS, 3, 3)), np.zeros((0, 3))
        self.final = nothing, nothing  # the last of them before the corrections: as decoded, and with turns
        self.yielded = nothing  # and after
        self.progress = [0.0] * (HISTORY + 1)  # metres of the path behind each of ``final`` and the frame before

    def next(self, step: NewFrames) -> MotionChunk:
        """Return the frames of the next token."""
        features, known = step.features.cpu().numpy(), len(self.yielded[1])
        count = len(features)
        later = np.concatenate((features, step.ahead.cpu().numpy()))
        decoded, window = (
            _joined(final, copy(root).place(later[:, index]))
            for index, (final, root) in enumerate(zip(self.final, self.roots, strict=True))
        )
        for index, root in enumerate(self.roots):
            root.place(features[:, index])
        self.progress = [*self.progress, *[step.progress] * count][-HISTORY - 1 :]
        track = self._window(self.frames - known, len(window[1]), step.progress_ahead)
        corrected = satisfy(*window, track, decoded)
        continued = _continued(corrected, self.yielded, self._fade(track, known))
        new = _part(continued, known, known + count)
        self.yielded = _joined(self.yielded, new)
        body = _last(self.yielded, count + 1)  # one frame before them, for the velocities
        chunk = encode(body[0], forward_kinematics(*body))[-count:]
        seen = known + count
        self.final = _last(_part(decoded, 0, seen), HISTORY), _last(_part(window, 0, seen), HISTORY)
        self.yielded, self.frames = _last(self.yielded, HISTORY), self.frames + count
        return MotionChunk.of(step.part, [step.token], chunk, *new)

    def _fade(self, track: Track, known: int) -> int:
        """Return the frames until something is asked, within limits."""
        asked = asked_frames(track)[known:].nonzero()
        frames = int(asked[0]) + 1 if len(asked) else len(track.root_known) - known
        return min(max(frames, SHORTEST), LONGEST)

    def _window(self, first: int, count: int, progress: float) -> Track:
        """Return the track of ``count`` frames from frame ``first`` on, with the path between their places on it."""
        timed = {
            field.name: getattr(self.track, field.name)[first : first + count]
            for field in fields(Track)
            if field.name != "path"
        }
        return Track(**timed, path=part_of_path(self.track.path, self.progress[0], progress))


def part_of_path(path: Tensor, start: float, end: float) -> Tensor:
    """Return the points (P, 2) of a path from a distance along it to another, about ``PATH_STEP`` apart."""
    steps = round((end - start) / PATH_STEP)
    if not len(path) or steps < 1:
        return path[:0]
    return path_points(path[None], torch.linspace(start, end, steps + 1)[None])[0]


def _continued(body: Body, yielded: Body, fade: int) -> Body:
    """Move a body so that it goes on from the yielded frames that precede it, which are the first of its own frames.

    The difference fades in ``fade`` frames.
    """
    known = np.zeros(len(body[1]), dtype=bool)
    count = len(yielded[1])
    if not count:
        return body
    known[max(0, count - 2) : count] = True
    places, turns = np.zeros_like(body[1]), np.zeros((len(body[1]), JOINTS, 3))
    places[:count] = yielded[1] - body[1][:count]
    turns[:count] = rotation_between(body[0][:count], yielded[0])
    turns = spread(known, turns.reshape(len(turns), -1), LEVER, fade).reshape(turns.shape)
    return axis_angle_to_matrix(turns) @ body[0], body[1] + spread(known, places, longest=fade)


def _joined(first: Body, second: Body) -> Body:
    return np.concatenate((first[0], second[0])), np.concatenate((first[1], second[1]))


def _part(body: Body, first: int, end: int) -> Body:
    return body[0][first:end], body[1][first:end]


def _last(body: Body, count: int) -> Body:
    return body[0][-count:], body[1][-count:]
