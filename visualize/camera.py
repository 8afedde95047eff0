"""The camera of both renderers: three-quarters from the front, slightly from above, following the person smoothly."""

from dataclasses import dataclass, replace

import numpy as np
from scipy.ndimage import gaussian_filter1d

from utils.motion272 import FPS
from utils.skeleton import JOINT_INDEX

AZIMUTH, ELEVATION = np.radians(32.0), np.radians(11.0)  # from the first frame's facing direction; above the horizontal
TANGENT = np.tan(np.radians(15.0))  # of half the vertical field of view
NEAREST = 4.0  # metres: nobody is shown larger than from here
SMOOTHING = 0.45  # seconds, standard deviation of the Gaussian that smooths the path
FLESH = 0.12  # metres that the body reaches beyond the joints: crown of the head, fingers, soles
# The body stays within these shares of the half frame; more room above, where the title stands.
TOP, BOTTOM, SIDE = 0.70, 0.84, 0.90


@dataclass(frozen=True)
class Camera:
    """Pinhole camera of fixed direction, without roll, that moves along a path."""

    eye: np.ndarray  # (T, 3) metres
    rotation: np.ndarray  # (3, 3) rows: right, down, forward, in world axes
    focal: float  # pixels
    distance: float  # metres from the eye to the person
    width: int
    height: int

    def at(self, frame: int) -> "Camera":
        """The camera of one frame."""
        return replace(self, eye=self.eye[frame : frame + 1])

    def project(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(T, ..., 3) world points to (T, ..., 2) pixels (x right, y down) and (T, ...) depths in metres."""
        eye = self.eye.reshape(len(self.eye), *[1] * (points.ndim - 2), 3)
        local = (points - eye) @ self.rotation.T
        return local[..., :2] * (self.focal / local[..., 2:]) + (self.width / 2, self.height / 2), local[..., 2]


def follow_camera(joints: np.ndarray, width: int, height: int, floor: float = 0.0, fps: float = FPS) -> Camera:
    """Place the camera so that the whole motion stays in the frame.

    Args:
        joints: (T, 22, 3) joint positions in metres.
        width, height: of the frame in pixels.
        floor: height of the floor in metres.
        fps: frames per second of the motion.
    """
    hips = joints[0, JOINT_INDEX["left_hip"]] - joints[0, JOINT_INDEX["right_hip"]]
    angle = np.arctan2(-hips[2], hips[0]) + AZIMUTH  # the facing direction is hips x up = (-z, 0, x) of the hips
    forward = -np.array([np.sin(angle) * np.cos(ELEVATION), np.sin(ELEVATION), np.cos(angle) * np.cos(ELEVATION)])
    right = np.array([np.cos(angle), 0.0, -np.sin(angle)])
    rotation = np.stack((right, np.cross(forward, right), forward))

    pelvis = joints[:, 0].astype(np.float64)
    length = round(3 * SMOOTHING * fps)  # the path is continued at both ends, so that the person stays in the middle
    padded = np.pad(pelvis, ((length, length), (0, 0)), mode="reflect", reflect_type="odd")
    target = gaussian_filter1d(padded, SMOOTHING * fps, axis=0)[length : length + len(pelvis)]  # (T, 3)
    tallest = max(joints[..., 1].max() + FLESH - floor, 1.0)
    target[:, 1] = floor + tallest * BOTTOM / (TOP + BOTTOM)
    x, y, z = np.moveaxis((joints - target[:, None]) @ rotation.T, -1, 0)  # (T, 22) each, y down
    # A point is inside from distance d if its offset, with flesh, is at most (z + d) * share * tangent.
    wide = (np.abs(x) + FLESH) / (SIDE * TANGENT * width / height) - z
    high = np.maximum((FLESH - y) / TOP, (FLESH + y) / BOTTOM) / TANGENT - z
    distance = max(NEAREST, wide.max(), high.max())
    return Camera(target - distance * forward, rotation, height / 2 / TANGENT, distance, width, height)


def standing_height(lowest: np.ndarray) -> float:
    """Height of the floor in metres, from the height of the lowest point of the body in each frame.

    The 20th percentile: flight does not lift the floor, and a toe or a stray frame that dips below it, as motion
    capture and generated motion have, does not make the person float the rest of the time.
    """
    return float(np.quantile(lowest, 0.2))
