"""Writing of constraints into a track: values that are asked for twice are compared, and both names are reported."""

from collections.abc import Sequence

import numpy as np
import torch

from control.joints import STRETCHED_LIMB
from control.track import Track
from motion.features272 import heading_angle
from motion.resample import FPS
from motion.rotation import y_rotation
from motion.skeleton import JOINT_INDEX, JOINTS, PARENTS, forward_kinematics
from utils.errors import InputError

SAME_PLACE = 0.01  # metres by which two constraints may differ and still agree
SAME_ROTATION = np.radians(1)


class TrackWriter:
    """A track that is being built, and the constraints that its values come from.

    Args:
        frames: T, number of frames of the motion.

    Attributes:
        owners: for each field of the track, the number of the constraint in ``names`` behind each value, in the shape
            of the field's mask.
    """

    def __init__(self, frames: int):
        self.frames, self.names = frames, [""]
        track = Track.empty(frames)
        self.values = {
            field: getattr(track, field).numpy().astype(np.float64)
            for field in ("root", "heading", "joints", "rotations")
        }
        self.known = {field: getattr(track, f"{field}_known").numpy() for field in self.values}
        self.owners = {field: np.zeros(mask.shape, dtype=np.int64) for field, mask in self.known.items()}
        self.path = np.zeros((0, 2))

    def frame(self, seconds: float) -> int:
        """Return the frame nearest to a time; the end of the motion is its last frame."""
        return min(int(seconds * FPS + 0.5), self.frames - 1)

    def span(self, start: float, end: float) -> slice:
        """Return the frames from a time to another, both included."""
        return slice(self.frame(start), self.frame(end) + 1)

    def write_root(self, name: str, at: slice, places: np.ndarray) -> None:
        """Ask for the x and z (n, 2) of the pelvis."""
        self._write(name, "root", at, places, np.ones(len(places), dtype=bool), "places")

    def write_heading(self, name: str, at: slice, headings: np.ndarray) -> None:
        """Ask for headings (n,) in radians."""
        self._write(name, "heading", at, headings, np.ones(len(headings), dtype=bool), "headings")

    def write_pin(self, name: str, at: slice, joint: str, position: tuple[float | None, ...]) -> None:
        """Ask for the position of a joint, None on free axes. It takes precedence over a pose at its frames.

        The pose then gives up the rotations of the limb that reaches for the pin, and all that hangs from it.
        """
        index, frames = JOINT_INDEX[joint], np.arange(self.frames)[at]
        posed = frames[self.known["rotations"][at, index]]
        if len(posed):
            limb = list(STRETCHED_LIMB[joint])
            moved = [False] * JOINTS
            for child in range(1, JOINTS):
                moved[child] = PARENTS[child] in limb or moved[PARENTS[child]]
            self.known["rotations"][np.ix_(posed, limb)] = False
            self.known["joints"][np.ix_(posed, np.flatnonzero(moved))] = False
        axes = np.array([value is not None for value in position])
        values = np.array([[value or 0.0 for value in position]] * len(frames))[:, None]  # (n, 1, 3)
        self._write(name, "joints", at, values, np.broadcast_to(axes, values.shape), "positions", [index])
        if joint == "pelvis" and axes[0] and axes[2]:
            self.write_root(name, at, values[:, 0, ::2])

    def write_motion(
        self,
        name: str,
        at: slice,
        rotations: np.ndarray,
        pelvis: np.ndarray,
        joints: Sequence[str],
        given: tuple[bool, bool],
    ) -> None:
        """Ask for the rotations of some joints, and where the pelvis is one of them, for its place.

        Args:
            name: name of the constraint.
            at: n frames.
            rotations: (n, 22, 3, 3) local rotations, the root's in the world.
            pelvis: (n, 3) metres.
            joints: names of the joints.
            given: whether the place of the pelvis counts, and whether its heading does.
        """
        has = np.isin(np.arange(JOINTS), [JOINT_INDEX[joint] for joint in joints])
        heading = heading_angle(rotations[:, 0])
        local = rotations.copy()
        local[:, 0] = y_rotation(-heading) @ rotations[:, 0]
        self._write(name, "rotations", at, local, np.broadcast_to(has, (len(local), JOINTS)), "poses")
        if not has[0]:
            return
        place, facing = given
        if place:
            self.write_root(name, at, pelvis[:, ::2])
        if facing:
            self.write_heading(name, at, heading)
        placed = np.zeros((JOINTS, 3), dtype=bool)
        placed[0] = place, True, place  # a pose has a height wherever it is
        for joint in range(1, JOINTS):
            parent = PARENTS[joint]
            placed[joint] = place and facing and has[parent] and placed[parent].all()
        positions = forward_kinematics(rotations, pelvis)
        self._write(name, "joints", at, positions, np.broadcast_to(placed, positions.shape), "positions")

    def track(self) -> Track:
        """Return the track."""
        values = {field: torch.from_numpy(value).float() for field, value in self.values.items()}
        known = {f"{field}_known": torch.from_numpy(mask) for field, mask in self.known.items()}
        return Track(**values, **known, path=torch.from_numpy(self.path).float())

    def _write(
        self,
        name: str,
        field: str,
        at: slice,
        values: np.ndarray,
        mask: np.ndarray,
        noun: str,
        joints: list[int] | None = None,
    ) -> None:
        """Write values where the mask is set; ``joints`` are those that the second axis stands for, by default all.

        Raises:
            InputError: another constraint asks for another value.
        """
        where = (at,) if joints is None else (at, joints)
        old, known, owners = self.values[field][where], self.known[field][where], self.owners[field][where]
        clash = known & mask & _differs(field, old, values)
        if clash.any():
            first = tuple(np.argwhere(clash)[0])
            other = self.names[owners[first]]
            time = (range(self.frames)[at][first[0]]) / FPS
            if other == name:
                raise InputError(f"{name} is given twice, with two {noun}; remove one of them")
            raise InputError(f"{other} and {name} ask for two {noun} at {time:.2f} s; change or remove one of them")
        if name not in self.names:
            self.names.append(name)
        shaped = mask.reshape(*mask.shape, *[1] * (old.ndim - mask.ndim))
        self.values[field][where] = np.where(shaped, values, old)
        self.owners[field][where] = np.where(mask, self.names.index(name), owners)
        self.known[field][where] = known | mask


def _differs(field: str, old: np.ndarray, new: np.ndarray) -> np.ndarray:
    """Whether values of a field differ, in the shape of its mask."""
    if field == "root":
        return np.linalg.norm(old - new, axis=-1) > SAME_PLACE
    if field == "heading":
        return np.abs(np.angle(np.exp(1j * (old - new)))) > SAME_ROTATION
    if field == "joints":
        return np.abs(old - new) > SAME_PLACE
    trace = np.einsum("...ij,...ij->...", old, new)
    return np.arccos(np.clip((trace - 1) / 2, -1, 1)) > SAME_ROTATION
