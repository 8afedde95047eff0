"""Constraints on a motion: poses, pinned joints, a path, waypoints, and parts of other motions, as plain data.

World axes: metres, y up, right-handed; facing 0 degrees is toward +z, 90 toward +x. The origin is the floor below the
pelvis of the first frame, unless a constraint places that frame elsewhere (``Constraints.placement``).

    constraints = Constraints(path=RootPath(((0, 0), (0, 2), (2, 4))), pins=(Pin("head", (None, 1.0, None), 2.0, 3.0),))
    track = constraints.track(frames=180)
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from control.joints import PINNED, joint_named
from control.paths import at_lengths, curve, lengths_along, place_at, resample
from control.poses import AtTime, Keep, Keyframe, Placement, without_time
from control.track import PATH_STEP, Track
from control.track_writer import TrackWriter
from control.values import MAX_SECONDS, check_number, check_span, check_time, coordinates
from motion.resample import FPS
from utils.errors import InputError, nearest, shown

KINDS = ("polyline", "spline")
LAST_FRAME = MAX_SECONDS  # time of the end pose: a time after the motion is in its last frame
START_DIRECTION = 0.3  # metres of a path that give the direction of its start


@dataclass(frozen=True)
class Pin:
    """A joint at a position, at a time or over a span."""

    joint: str
    """One of ``control.joints.PINNED``, or an alias."""
    position: tuple[float | None, float | None, float | None]
    """x, y and z in metres; None for a free axis."""
    start: float
    """Seconds from the start of the motion."""
    end: float | None = None
    """End of the span in seconds; None for the time ``start`` alone."""

    def __post_init__(self):
        object.__setattr__(self, "joint", joint_named(self.joint, PINNED))
        object.__setattr__(self, "position", coordinates(self.position, 3, "position", free=True))
        if all(value is None for value in self.position):
            raise InputError("no axis of the position is given; give x, y or z in metres")
        check_span(self.start, self.last)

    @property
    def first(self) -> float:
        """First time in seconds."""
        return self.start

    @property
    def last(self) -> float:
        """Last time in seconds."""
        return self.start if self.end is None else self.end

    @property
    def name(self) -> str:
        when = f"at {self.start:g} s" if self.end is None else f"from {self.start:g} to {self.end:g} s"
        return f"the pin of {self.joint} {when}"

    def write(self, writer: TrackWriter, start: Placement | None) -> None:
        """Write the position into a track."""
        writer.write_pin(self.name, writer.span(self.start, self.last), self.joint, self.position)

    def to_dict(self) -> dict[str, Any]:
        """Return the pin as it stands in a file."""
        when = {"time": self.start} if self.end is None else {"from": self.start, "to": self.end}
        return {"joint": self.joint, **when, "position": list(self.position)}


@dataclass(frozen=True)
class Waypoint(AtTime):
    """Where the pelvis is at a time, and the direction in which it faces."""

    time: float
    """Seconds from the start of the motion."""
    position: tuple[float, float] | None = None
    """x and z in metres; None for anywhere."""
    facing: float | None = None
    """Degrees, 0 toward +z, 90 toward +x; None for any direction."""

    def __post_init__(self):
        check_time(self.time)
        if self.position is not None:
            object.__setattr__(self, "position", coordinates(self.position, 2, "position"))
        if self.facing is not None:
            check_number(self.facing, "facing")
        if self.position is None and self.facing is None:
            raise InputError("a waypoint has neither position nor facing; give one of them")

    @property
    def name(self) -> str:
        return f"the waypoint at {self.time:g} s"

    def write(self, writer: TrackWriter, start: Placement | None) -> None:
        """Write place and heading into a track."""
        at = writer.span(self.time, self.time)
        if self.position is not None:
            writer.write_root(self.name, at, np.array([self.position]))
        if self.facing is not None:
            writer.write_heading(self.name, at, np.radians([self.facing]))

    def to_dict(self) -> dict[str, Any]:
        """Return the waypoint as it stands in a file."""
        values = {"time": self.time, "position": self.position and list(self.position), "facing": self.facing}
        return {key: value for key, value in values.items() if value is not None}


@dataclass(frozen=True)
class RootPath:
    """A line on the floor that the pelvis follows."""

    points: tuple[tuple[float, float], ...]
    """x and z in metres, at least two."""
    kind: Literal["polyline", "spline"] = "polyline"
    """Straight lines between the points, or a smooth curve through them."""
    times: tuple[float, ...] | None = None
    """When the pelvis is at each point, in seconds; None lets the motion choose its speed."""

    name = "the path"

    def __post_init__(self):
        if not isinstance(self.points, list | tuple) or len(self.points) < 2:
            raise InputError("a path needs at least two points; give points: [[x, z], [x, z], ...] in metres")
        object.__setattr__(self, "points", tuple(coordinates(point, 2, "a point") for point in self.points))
        for number, (point, following) in enumerate(zip(self.points, self.points[1:], strict=False), 1):
            if math.dist(point, following) < 1e-3:
                raise InputError(f"points {number} and {number + 1} of the path are the same; remove one")
        if self.kind not in KINDS:
            raise InputError(f"the kind of the path is {shown(self.kind, 40)}; {nearest(self.kind, KINDS)}")
        if self.times is not None:
            self._check_times()

    def _check_times(self) -> None:
        if not isinstance(self.times, list | tuple) or len(self.times) != len(self.points):
            raise InputError(f"the path has {len(self.points)} points; give one time for each of them, or no times")
        for time in self.times:
            check_time(time)
        object.__setattr__(self, "times", tuple(map(float, self.times)))
        for before, after in zip(self.times, self.times[1:], strict=False):
            if after <= before:
                raise InputError(f"the times of the path do not increase ({before:g}, {after:g}); put them in order")

    @property
    def first(self) -> float:
        """First time in seconds; without times, the path begins with the motion."""
        return self.times[0] if self.times else 0.0

    @property
    def last(self) -> float:
        """Last time in seconds that the path fixes."""
        return self.times[-1] if self.times else 0.0

    def curve(self) -> np.ndarray:
        """Return points (P, 2), ``PATH_STEP`` apart along the path (``resample``)."""
        return resample(curve(np.array(self.points), self.kind), PATH_STEP)

    def segment_lengths(self) -> np.ndarray:
        """Return the length (P - 1,) of the path between its points in metres."""
        line = curve(np.array(self.points), self.kind)
        return np.diff(lengths_along(line)[:: (len(line) - 1) // (len(self.points) - 1)])

    def write(self, writer: TrackWriter, start: Placement | None) -> None:
        """Write the path into a track: the place of each frame if it has times, otherwise its points."""
        if self.times is None:
            writer.path = self.curve()
            return
        at = writer.span(self.times[0], self.times[-1])
        seconds = np.arange(at.start, at.stop) / FPS
        writer.write_root(self.name, at, place_at(np.array(self.points), self.kind, np.array(self.times), seconds))

    def to_dict(self) -> dict[str, Any]:
        """Return the path as it stands in a file."""
        times = {} if self.times is None else {"times": list(self.times)}
        return {"points": [list(point) for point in self.points], "kind": self.kind, **times}


@dataclass(frozen=True, eq=False)
class Constraints:
    """All that is asked of a motion besides its text."""

    keyframes: tuple[Keyframe, ...] = ()
    pins: tuple[Pin, ...] = ()
    path: RootPath | None = None
    waypoints: tuple[Waypoint, ...] = ()
    keep: tuple[Keep, ...] = ()
    start: Keyframe | None = None
    """Pose of the first frame."""
    end: Keyframe | None = None
    """Pose of the last frame; the motion then needs a length."""
    length: float | None = None
    """Length of the motion in seconds; None leaves it to the generator and the other constraints."""

    def __post_init__(self):
        if self.length is not None:
            check_time(self.length, "the length")
            if self.length < 1 / FPS:
                raise InputError(f"the length is {self.length:g} s; give at least one frame")
        if self.start is not None:
            object.__setattr__(self, "start", replace(self.start, time=0.0, name="the start"))
        if self.end is not None:
            object.__setattr__(self, "end", replace(self.end, time=LAST_FRAME, name="the end"))

    def items(self) -> Iterator[Keyframe | Keep | RootPath | Waypoint | Pin]:
        """Yield all constraints, pins last."""
        for item in (self.start, *self.keyframes, self.end, *self.keep, self.path, *self.waypoints, *self.pins):
            if item is not None:
                yield item

    @property
    def needed_length(self) -> float:
        """Seconds that the motion must have at least: ``length``, or the last time of a constraint; 0 for none."""
        if self.length is not None:
            return self.length
        return max((item.last for item in self.items() if item is not self.end), default=0.0)

    @property
    def placement(self) -> Placement:
        """Place and heading of the first frame.

        They come from the constraints of that frame, otherwise from the first point and direction of a path that begins
        with the motion. By default, the motion starts at the origin and faces +z.
        """
        writer = TrackWriter(1)
        for item in self.items():
            if item.first * FPS < 0.5:
                item.write(writer, None)
        (x, z), heading = writer.values["root"][0], writer.values["heading"][0]
        if self.path is not None and self.path.first * FPS < 0.5:
            line = self.path.curve()
            if not writer.known["root"][0]:
                x, z = line[0]
            if not writer.known["heading"][0]:
                heading = math.atan2(*(at_lengths(line, np.array([START_DIRECTION]))[0] - line[0]))
        return Placement(float(x), float(z), float(heading))

    def track(self, frames: int) -> Track:
        """Return the values that a motion of ``frames`` frames shall have.

        Raises:
            InputError: two constraints contradict each other; the message names them.
        """
        return self.writer(frames).track()

    def writer(self, frames: int) -> TrackWriter:
        """Return the track with the names of the constraints behind its values; errors as ``track``."""
        writer, start = TrackWriter(frames), self.placement
        for item in self.items():
            item.write(writer, start)
        return writer

    def to_dict(self) -> dict[str, Any]:
        """Return the constraints as they stand in a JSON or YAML file; ``control.files`` reads them."""
        values: dict[str, Any] = {
            "length": self.length,
            "start": self.start and without_time(self.start),
            "end": self.end and without_time(self.end),
            "keyframes": [item.to_dict() for item in self.keyframes],
            "pins": [item.to_dict() for item in self.pins],
            "path": self.path and self.path.to_dict(),
            "waypoints": [item.to_dict() for item in self.waypoints],
            "keep": [item.to_dict() for item in self.keep],
        }
        return {key: value for key, value in values.items() if value}
