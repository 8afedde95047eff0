"""The camera of both renderers: a three-quarter front view, slightly from above, that follows the people or is fixed.

Several people stand side by side across the picture, each at the position of their own first frame. Strips of poses
have a camera of their own, so far away that there is no perspective.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.ndimage import gaussian_filter1d

from motion.resample import FPS
from motion.skeleton import JOINT_INDEX, JOINTS
from utils.errors import InputError

AZIMUTH, ELEVATION = np.radians(32.0), np.radians(11.0)  # from the first frame's facing direction; above the horizon
TANGENT = np.tan(np.radians(15.0))  # tangent of half the vertical field of view
NEAREST = 4.0  # metres: the smallest distance from the people
FAR = 0.01  # ``TANGENT`` of a camera without perspective, about 130 m away
SMOOTHING = 0.45  # seconds: standard deviation of the Gaussian that smooths the camera's path
FLESH = 0.12  # metres by which the body extends beyond its joints: crown of the head, fingers, soles
SPACING = 1.3  # metres between people side by side
CAMERAS = ("follow", "fixed")
# The body stays within these shares of half the frame; there is more room at the top, for the title.
TOP, BOTTOM, SIDE = 0.70, 0.84, 0.90


@dataclass(frozen=True)
class Camera:
    """Pinhole camera of constant direction, without roll, that moves along a path."""

    eye: np.ndarray  # (T, 3) metres
    rotation: np.ndarray  # (3, 3) rows: right, down, forward, in world axes
    focal: float  # pixels
    distance: float  # metres from the eye to the person
    width: int
    height: int

    @property
    def haze(self) -> float:
        """Metres from which ``TANGENT`` shows the same section of the scene; the floor fades in this unit."""
        return self.distance * self.height / 2 / self.focal / TANGENT

    def at(self, frame: int) -> "Camera":
        """Return the camera of one frame."""
        return replace(self, eye=self.eye[frame : frame + 1])

    def project(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Project (T, ..., 3) world points to (T, ..., 2) pixels (x right, y down) and (T, ...) depths in metres."""
        eye = self.eye.reshape(len(self.eye), *[1] * (points.ndim - 2), 3)
        local = (points - eye) @ self.rotation.T
        return local[..., :2] * (self.focal / local[..., 2:]) + (self.width / 2, self.height / 2), local[..., 2]


def view_axes(joints: np.ndarray) -> np.ndarray:
    """Return the axes (3, 3) right, down, forward of a three-quarter front view of a person with (22, 3) joints."""
    hips = joints[JOINT_INDEX["left_hip"]] - joints[JOINT_INDEX["right_hip"]]
    angle = np.arctan2(-hips[2], hips[0]) + AZIMUTH  # facing direction: hips x up = (-z, 0, x) of the hips
    forward = -np.array([np.sin(angle) * np.cos(ELEVATION), np.sin(ELEVATION), np.cos(angle) * np.cos(ELEVATION)])
    right = np.array([np.cos(angle), 0.0, -np.sin(angle)])
    return np.stack((right, np.cross(forward, right), forward))


def side_by_side(starts: Sequence[np.ndarray], spacing: float = SPACING) -> np.ndarray:
    """Return (P, 3) translations that place P people side by side across the picture.

    Args:
        starts: (22, 3) joints of the first frame of each person.
        spacing: Distance between neighbours in metres.
    """
    right = view_axes(starts[0])[0]
    slots = np.arange(len(starts)) - (len(starts) - 1) / 2
    pelvis = np.array([joints[0] for joints in starts])  # (P, 3)
    return (slots[:, None] * spacing * right + pelvis[0] - pelvis) * (1, 0, 1)


def place_camera(
    joints: np.ndarray, width: int, height: int, floor: float = 0.0, fps: float = FPS, camera: str = "follow"
) -> Camera:
    """Place the camera so that the whole motion stays in the frame.

    Args:
        joints: (T, 22, 3) joint positions in metres, or (T, P, 22, 3) of several people.
        width: Width of the frame in pixels.
        height: Height of the frame in pixels.
        floor: Height of the floor in metres.
        fps: Frames per second of the motion.
        camera: ``follow`` moves with the people, ``fixed`` shows all of their path.

    Raises:
        InputError: unknown camera.
    """
    if camera not in CAMERAS:
        raise InputError(f"the camera {camera!r} is unknown; choose {' or '.join(CAMERAS)}")
    joints = joints.reshape(len(joints), -1, JOINTS, 3).astype(np.float64)  # (T, P, 22, 3)
    rotation = view_axes(joints[0, 0])
    target = joints[:, :, 0].mean(axis=1)  # (T, 3)
    if camera == "fixed":
        target = np.tile((target.min(axis=0) + target.max(axis=0)) / 2, (len(target), 1))
    else:
        length = round(3 * SMOOTHING * fps)  # extended at both ends, which keeps the person in the middle
        padded = np.pad(target, ((length, length), (0, 0)), mode="reflect", reflect_type="odd")
        target = gaussian_filter1d(padded, SMOOTHING * fps, axis=0)[length : length + len(target)]
    return _fitted(joints, target, rotation, (width, height), TANGENT, floor)


def place_far_camera(joints: np.ndarray, width: int, height: int) -> Camera:
    """Place a camera that sees all people from the same direction, without perspective, with its middle on theirs.

    Args:
        joints: (P, 22, 3) joint positions of P people in metres; the floor is at y = 0.
        width: Width of the picture in pixels.
        height: Height of the picture in pixels.
    """
    rotation, target = view_axes(joints[0]), joints[:, 0].mean(axis=0)
    across = (joints - target) @ rotation[0]
    target += (across.min() + across.max()) / 2 * rotation[0]
    return _fitted(joints[None], target[None], rotation, (width, height), FAR)


def _fitted(
    joints: np.ndarray,
    target: np.ndarray,
    rotation: np.ndarray,
    size: tuple[int, int],
    tangent: float,
    floor: float = 0.0,
) -> Camera:
    """Return the nearest camera that has (T, P, 22, 3) joints in its frame and looks at a path (T, 3) above the floor.

    Args:
        rotation: (3, 3) axes of ``view_axes``.
        tangent: Tangent of half the vertical field of view.
    """
    width, height = size
    tallest = max(joints[..., 1].max() + FLESH - floor, 1.0)
    target[:, 1] = floor + tallest * BOTTOM / (TOP + BOTTOM)
    x, y, z = np.moveaxis((joints - target[:, None, None]) @ rotation.T, -1, 0)  # (T, P, 22) each, y down
    # From distance d, a point is inside the frame if its offset plus FLESH is at most (z + d) * share * tangent.
    wide = (np.abs(x) + FLESH) / (SIDE * tangent * width / height) - z
    high = np.maximum((FLESH - y) / TOP, (FLESH + y) / BOTTOM) / tangent - z
    distance = max(NEAREST * TANGENT / tangent, wide.max(), high.max())
    return Camera(target - distance * rotation[2], rotation, height / 2 / tangent, distance, width, height)


def standing_height(lowest: np.ndarray) -> float:
    """Estimate the height of the floor in metres from the (T,) heights of the body's lowest point in each frame.

    The 20th percentile: jumps do not lift the floor, and a toe or a stray frame below it, common in motion capture and
    generated motion, does not make the person float in all other frames.
    """
    return float(np.quantile(lowest, 0.2))


def hold_last_frame(motion: np.ndarray, frames: int) -> np.ndarray:
    """Repeat the last frame of (T, ...) up to ``frames`` frames, for people who finish before others."""
    return motion[np.minimum(np.arange(frames), len(motion) - 1)]
