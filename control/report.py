"""How well a motion keeps its constraints: an error in metres for each."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from control.constraints import Constraints, Pin, RootPath, Waypoint
from control.paths import distances
from control.track_writer import TrackWriter
from motion.features272 import heading_angle
from motion.resample import FPS
from motion.rotation import y_rotation
from motion.skeleton import JOINT_INDEX, forward_kinematics


@dataclass(frozen=True)
class ConstraintError:
    """Distance of a motion from one constraint."""

    name: str
    """Name of the constraint, as in messages."""
    time: float
    """Seconds at which the error is largest."""
    error: float
    """Largest error over the frames of the constraint in metres: of the joint that is farthest off in a pose, of the
    given axes of a pin, of the pelvis on the floor for waypoints and paths."""
    mean: float
    """Mean over the frames in metres."""
    degrees: float | None = None
    """Largest error of the heading, if it is given."""

    def to_dict(self) -> dict[str, Any]:
        """Return the values, rounded to 0.1 mm and 0.01 degrees."""
        values = {"name": self.name, **{key: round(getattr(self, key), 4) for key in ("time", "error", "mean")}}
        return values if self.degrees is None else {**values, "degrees": round(self.degrees, 2)}


def measure(constraints: Constraints, rotations: np.ndarray, pelvis: np.ndarray) -> list[ConstraintError]:
    """Measure how well a motion keeps its constraints.

    The error of a pose is the distance of the joints from where they would be with its rotations and, if given, its
    place and facing. Joints that reach for a pin at that time are left as they are: pins take precedence.

    Args:
        constraints: the constraints of the motion.
        rotations: (T, 22, 3, 3) local rotations; the root's is in the world.
        pelvis: (T, 3) metres, in the world of the constraints.

    Returns:
        An error per constraint; a path without times also has one for its end.
    """
    return list(_errors(constraints, rotations.astype(np.float64), pelvis.astype(np.float64)))


def _errors(constraints: Constraints, rotations: np.ndarray, pelvis: np.ndarray) -> Iterator[ConstraintError]:
    start, whole = constraints.placement, constraints.writer(len(pelvis))
    for item in constraints.items():
        own = TrackWriter(len(pelvis))
        item.write(own, start)
        at = own.span(item.first, item.last)
        places, moved, turned = pelvis[at, ::2], rotations[at], None
        if isinstance(item, RootPath) and item.times is None:
            yield _error(item.name, 0, distances(own.path, pelvis[:, ::2]))
            yield _error("the end of the path", len(pelvis) - 1, _lengths(pelvis[-1:, ::2] - own.path[-1]))
        elif isinstance(item, RootPath | Waypoint):
            if own.known["heading"][at].all():
                turned = heading_angle(moved[:, 0]) - own.values["heading"][at]
            off = (places - own.values["root"][at]) * own.known["root"][at][:, None]
            yield _error(item.name, at.start, _lengths(off), turned)
        elif isinstance(item, Pin):
            joint = JOINT_INDEX[item.joint]
            off = forward_kinematics(moved, pelvis[at])[:, joint] - own.values["joints"][at, joint]
            yield _error(item.name, at.start, _lengths(off * own.known["joints"][at, joint]))
        else:
            wanted = _with_pose(own, whole, at, moved, pelvis[at])
            off = forward_kinematics(moved, pelvis[at]) - forward_kinematics(*wanted)
            yield _error(item.name, at.start, _lengths(off).max(axis=-1))


def _with_pose(
    own: TrackWriter, whole: TrackWriter, at: slice, rotations: np.ndarray, pelvis: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return the motion of frames ``at`` with the values of one pose (``own``) that all constraints leave to it."""
    heading = heading_angle(rotations[:, 0])
    local = rotations.copy()
    local[:, 0] = y_rotation(-heading) @ local[:, 0]
    given = own.known["rotations"][at] & whole.known["rotations"][at]
    local = np.where(given[..., None, None], own.values["rotations"][at], local)
    heading = np.where(own.known["heading"][at], own.values["heading"][at], heading)
    local[:, 0] = y_rotation(heading) @ local[:, 0]
    return local, np.where(own.known["joints"][at, 0], own.values["joints"][at, 0], pelvis)


def _lengths(vectors: np.ndarray) -> np.ndarray:
    return np.linalg.norm(vectors, axis=-1)


def _error(name: str, first: int, metres: np.ndarray, turned: np.ndarray | None = None) -> ConstraintError:
    """Return the error of frames from ``first`` on: metres (n,), and radians (n,) if there are any."""
    degrees = None if turned is None else float(np.degrees(np.abs(np.angle(np.exp(1j * turned)))).max())
    worst = int(metres.argmax())
    return ConstraintError(name, (first + worst) / FPS, float(metres[worst]), float(metres.mean()), degrees)
