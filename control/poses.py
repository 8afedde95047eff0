"""Constraints from the frames of other motions: keyframes and kept spans."""

import hashlib
import math
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np

from control.joints import joints_named
from control.track_writer import TrackWriter
from control.values import check_number, check_span, check_time, coordinates
from motion.body_shape import leg_scale
from motion.clip import Clip
from motion.features272 import heading_angle
from motion.resample import FPS
from motion.rotation import y_rotation
from motion.skeleton import JOINT_NAMES, forward_kinematics, turn_world
from motion.smplx import SMPLX85, check_smplx85, motion_to_smplx85, smplx85_to_motion
from utils.errors import InputError, nearest

Place = Literal["free", "file"] | tuple[float, float]


class Placement(NamedTuple):
    """Place of the first frame of a motion."""

    x: float
    z: float
    heading: float  # radians, 0 toward +z, pi/2 toward +x


@dataclass(frozen=True, eq=False)
class MotionFrames:
    """Successive frames of a motion, at 30 frames per second, of a body of mean shape that stands on the floor."""

    rotations: np.ndarray
    """(T, 22, 3, 3) local rotations; the root's is in the world."""
    pelvis: np.ndarray
    """(T, 3) metres."""
    file: str | None = None
    """Name of the file they are from, as it was given."""
    first: int = 0
    """Number of their first frame in the file."""

    @classmethod
    def of(cls, clip: Clip, first: int = 0, count: int = 1, file: str | None = None) -> "MotionFrames":
        """Return ``count`` frames of a clip from frame ``first`` on; a negative number counts from the end.

        Raises:
            InputError: the clip has fewer frames.
        """
        total = len(clip.smplx85)
        start = first + total if first < 0 else first
        if start < 0 or start + count > total:
            raise InputError(
                f"frames {start} to {start + count - 1} are needed and the motion has {total} ({total / FPS:.2f} s); "
                "give an earlier time or a shorter span"
            )
        rotations, pelvis = smplx85_to_motion(clip.smplx85.astype(np.float64))
        pelvis = pelvis * leg_scale(clip.smplx85[0, SMPLX85["betas"]])
        pelvis[:, 1] -= forward_kinematics(rotations, pelvis)[..., 1].min()  # the lowest joint is on the floor
        return cls(rotations[start : start + count], pelvis[start : start + count], file, start)

    @classmethod
    def given(cls, smplx85: np.ndarray) -> "MotionFrames":
        """Return the frames of (T, 85) as they stand: the floor is at y = 0, and the body has the mean shape.

        Raises:
            InputError: unusable values, as in ``check_smplx85``.
        """
        rotations, pelvis = smplx85_to_motion(check_smplx85(smplx85).astype(np.float64))
        return cls(rotations, pelvis)

    @property
    def digest(self) -> str:
        """Hash of the frames, to the micrometre: whether a file still holds the same motion."""
        values = np.concatenate([self.rotations.ravel(), self.pelvis.ravel()])
        return hashlib.sha256(np.round(values * 1e6).astype(np.int64).tobytes()).hexdigest()[:16]

    def moved(self, place: Place, facing: float | None) -> tuple[np.ndarray, np.ndarray]:
        """Return rotations and pelvis, moved so that the first frame is at ``place`` and faces ``facing`` degrees."""
        own = heading_angle(self.rotations[0, 0])
        turn = y_rotation(np.array(0.0 if facing is None else math.radians(facing) - own))
        offset = self.pelvis[0] * (1.0, 0.0, 1.0)
        rotations, pelvis = turn_world(self.rotations, self.pelvis - offset, turn)
        to = offset if isinstance(place, str) else np.array([place[0], 0.0, place[1]])
        return rotations, pelvis + to

    def to_dict(self) -> Any:
        """Return ``{file, frame, digest}``, or the rows of smplx_85 if the frames are not from a file."""
        if self.file is not None:
            return {"file": self.file, "frame": self.first, "digest": self.digest}
        rows = motion_to_smplx85(self.rotations, self.pelvis)
        return [[round(value, 6) for value in row] for row in rows.tolist()]


class AtTime:
    """A constraint of one frame: its first and its last time are the same."""

    time: float

    @property
    def first(self) -> float:
        """First time in seconds."""
        return self.time

    @property
    def last(self) -> float:
        """Last time in seconds."""
        return self.time


@dataclass(frozen=True, eq=False)
class Keyframe(AtTime):
    """A pose of the whole body at a time."""

    time: float
    """Seconds from the start of the motion."""
    pose: MotionFrames
    """One frame."""
    place: Place = "free"
    """Where the pelvis is: anywhere, where it is in its file, or at x and z in metres."""
    facing: float | None = None
    """Direction of the pelvis in degrees; None: as in the file with place "file", otherwise any."""
    name: str = ""
    """Name in messages and reports; by default, from the time."""

    def __post_init__(self):
        check_time(self.time)
        _check_placed(self)
        object.__setattr__(self, "name", self.name or f"the keyframe at {self.time:g} s")

    def write(self, writer: TrackWriter, start: Placement | None) -> None:
        """Write the pose into a track; a free pose in the first frame is at ``start``."""
        at = writer.span(self.time, self.time)
        place, facing = self.place, self.facing
        if at.start == 0 and start is not None:
            place = (start.x, start.z) if place == "free" else place
            facing = math.degrees(start.heading) if facing is None and place != "file" else facing
        given = (place != "free", facing is not None or place == "file")
        rotations, pelvis = self.pose.moved(place, facing)
        writer.write_motion(self.name, at, rotations, pelvis, JOINT_NAMES, given)

    def to_dict(self) -> dict[str, Any]:
        """Return the keyframe as it stands in a file."""
        return {"time": self.time, "pose": self.pose.to_dict(), **_placed_to_dict(self)}


@dataclass(frozen=True, eq=False)
class Keep:
    """Joints that move as in another motion, over a span of time."""

    start: float
    """Seconds from the start of the motion."""
    end: float
    """Seconds; the frame at this time is the last one."""
    motion: MotionFrames
    """A frame for each of the span (``frames_of_span``)."""
    joints: tuple[str, ...] = ("full_body",)
    """Names of joints and groups (``control.joints.GROUPS``)."""
    place: Place = "file"
    """Where the pelvis of the first frame is, if it is among the joints; with "free", the root moves as it likes."""
    facing: float | None = None
    """Direction of the pelvis in the first frame in degrees; None: as in the file."""

    def __post_init__(self):
        check_span(self.start, self.end)
        object.__setattr__(self, "joints", (self.joints,) if isinstance(self.joints, str) else tuple(self.joints))
        joints_named(self.joints)
        _check_placed(self)
        if len(self.motion.pelvis) != frames_of_span(self.start, self.end):
            raise InputError(
                f"the span from {self.start:g} to {self.end:g} s has {frames_of_span(self.start, self.end)} frames and "
                f"its motion {len(self.motion.pelvis)}; give one for each"
            )

    @property
    def name(self) -> str:
        return f"the keep of {', '.join(self.joints)} from {self.start:g} to {self.end:g} s"

    @property
    def first(self) -> float:
        """First time in seconds."""
        return self.start

    @property
    def last(self) -> float:
        """Last time in seconds."""
        return self.end

    def write(self, writer: TrackWriter, start: Placement | None) -> None:
        """Write the frames into a track; free ones from the first frame on are at ``start``."""
        at = writer.span(self.start, self.end)
        place, facing = self.place, self.facing
        if place == "free" and at.start == 0 and start is not None:
            place, facing = (start.x, start.z), math.degrees(start.heading)
        rotations, pelvis = self.motion.moved(place, facing)
        count = at.stop - at.start
        given = (place != "free", place != "free")
        writer.write_motion(self.name, at, rotations[:count], pelvis[:count], joints_named(self.joints), given)

    def to_dict(self) -> dict[str, Any]:
        """Return the span as it stands in a file."""
        span = {"from": self.start, "to": self.end, "motion": self.motion.to_dict()}
        return {**span, "joints": list(self.joints), **_placed_to_dict(self)}


def frames_of_span(start: float, end: float) -> int:
    """Return the number of frames from a time to another, both included."""
    return int(end * FPS + 0.5) - int(start * FPS + 0.5) + 1


def without_time(keyframe: Keyframe) -> dict[str, Any]:
    """Return a start or end pose as it stands in a file."""
    values = keyframe.to_dict()
    del values["time"]
    return values


def _check_placed(item: Keyframe | Keep) -> None:
    """Check place and facing, and that the frames hold finite rotations."""
    if not isinstance(item.place, str):
        object.__setattr__(item, "place", coordinates(item.place, 2, "place"))
    elif item.place not in ("free", "file"):
        raise InputError(f"place is {item.place}; {nearest(item.place, ['free', 'file', '[x, z]'])}")
    if item.facing is not None:
        check_number(item.facing, "facing")
    motion = item.pose if isinstance(item, Keyframe) else item.motion
    if not (np.isfinite(motion.rotations).all() and np.isfinite(motion.pelvis).all()):
        raise InputError("the pose holds NaN or infinite values; give another frame")


def _placed_to_dict(item: Keyframe | Keep) -> dict[str, Any]:
    facing = {} if item.facing is None else {"facing": item.facing}
    return {"place": item.place if isinstance(item.place, str) else list(item.place), **facing}
