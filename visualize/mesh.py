"""Mesh renderer: a shaded body with its shadow on a floor, drawn on the CPU.

It needs no display, graphics driver or system library. The body is rasterised with a z-buffer at twice the resolution,
then as seen from the sun (shadow map) and from the floor (contact map: the height of the body above). Then every pixel
is composed of its body samples and the floor. The pattern and the shadows of the floor are smooth by construction (the
checker is integrated over the pixel in closed form, the shadow maps are blurred), so only the body needs several
samples per pixel.
"""

from collections.abc import Iterable, Iterator

import numpy as np

from visualize.camera import Camera
from visualize.mesh_kernels import EMPTY, SAMPLES, Floor, Mesh, Sun, View, box_filter, rasterise, shade, vertex_normals
from visualize.video import Title

SHADOW_TEXELS, CONTACT_TEXELS = 448, 192  # side of the maps up to a span of ONE_MAP metres; multiples for a larger one
ONE_MAP, LARGEST_MAP = 3.2, 4
MAP_STEP = 0.8  # metres: the span of the maps is a multiple of this
SHADOW_BLUR, CONTACT_BLUR = 0.016, 0.030  # metres: radius of the box filter, which is applied twice
CONTACT_REACH = 0.09  # metres above the floor within which a body part darkens it

UP = np.array([0.0, 1.0, 0.0])
LIGHT = np.array([-0.42, 0.78, 0.46]) / np.linalg.norm([-0.42, 0.78, 0.46])  # to the sun: right, up, backward
FLOOR_AXES = np.array([[1.0, 0.0, 0.0], [0.0, 0.0, 1.0], [0.0, 1.0, 0.0]])  # rows u, v, depth of the contact map
NO_INDEX = np.empty((0, 0), np.int32)


def render_mesh(
    vertices: Iterable[np.ndarray],
    faces: np.ndarray,
    colors: np.ndarray,
    camera: Camera,
    floor: float = 0.0,
    title: str | None = None,
    two_sided: bool = False,
) -> Iterator[np.ndarray]:
    """Draw a moving mesh frame by frame.

    Args:
        vertices: (T, V, 3) array or an iterator of (V, 3) frames, in metres, y up.
        faces: (F, 3) vertex indices, counter-clockwise seen from outside. Several bodies are one mesh.
        colors: (F, 3, 3) sRGB in 0..1 of the corners of the faces.
        camera: Path of the camera, and size of the frames.
        floor: Height of the floor in metres.
        title: Text at the top of the frame.
        two_sided: Draw faces that are turned away as well.

    Yields:
        (H, W, 3) uint8 frames.
    """
    painter = Painter(faces, colors, camera, floor, two_sided)
    overlay = Title(title, camera.width, camera.height)
    for frame_vertices, eye in zip(vertices, camera.eye, strict=True):
        frame = painter.draw(frame_vertices, eye)
        overlay.draw(frame)
        yield frame


class Painter:
    """Buffers and constants of one clip; arguments as in ``render_mesh``."""

    def __init__(self, faces: np.ndarray, colors: np.ndarray, camera: Camera, floor: float, two_sided: bool = False):
        self.faces = np.ascontiguousarray(faces, dtype=np.int32)
        self.albedo = np.square(colors, dtype=np.float32)  # linear: the frame shows its square root
        self.camera, self.floor, self.two_sided = camera, np.float32(floor), two_sided
        self.rotation = camera.rotation.astype(np.float32)
        size = (camera.height * SAMPLES, camera.width * SAMPLES)
        self.depth, self.index = np.empty(size, np.float32), np.empty(size, np.int32)
        self._make_maps(1)
        right, forward = camera.rotation[0], np.cross(camera.rotation[0], UP)
        sun = np.stack((right, UP, forward), axis=1) @ LIGHT
        across = np.cross(UP, sun) / np.linalg.norm(np.cross(UP, sun))
        self.sun = sun.astype(np.float32)
        self.sun_axes = np.stack((across, np.cross(sun, across), -sun))  # (3, 3) rows u, v, depth

    def _make_maps(self, scale: int) -> None:
        self.shadow_depth = np.empty((scale * SHADOW_TEXELS, scale * SHADOW_TEXELS), np.float32)
        self.contact_depth = np.empty((scale * CONTACT_TEXELS, scale * CONTACT_TEXELS), np.float32)

    def draw(self, vertices: np.ndarray, eye: np.ndarray) -> np.ndarray:
        """Return one (H, W, 3) uint8 frame of (V, 3) vertices seen from ``eye`` (3,)."""
        vertices, eye = np.ascontiguousarray(vertices, dtype=np.float32), eye.astype(np.float32)
        points = self._project(vertices, eye)
        rasterise(points, self.faces, not self.two_sided, EMPTY, self.depth, self.index)
        normals = np.empty_like(vertices)
        vertex_normals(vertices, self.faces, normals)
        mesh, camera = Mesh(self.faces, vertices, points, normals, self.albedo), self.camera
        away, haze = np.float32(camera.distance), np.float32(camera.haze)
        view = View(_as_tuple(eye), _as_tuple(self.rotation), camera.focal, away, haze)
        frame = np.empty((camera.height, camera.width, 3), np.uint8)
        shade(frame, self.index, self.depth, mesh, view, *self._shadows(vertices))
        return frame

    def _project(self, vertices: np.ndarray, eye: np.ndarray) -> np.ndarray:
        """Return (V, 3) sample coordinates x, y (down) and depths in metres."""
        camera = self.camera
        points = (vertices - eye) @ self.rotation.T  # right, down, forward
        centre = np.float32((camera.width / 2, camera.height / 2)) * SAMPLES
        points[:, :2] = points[:, :2] * (np.float32(camera.focal * SAMPLES) / np.maximum(points[:, 2:], 0.05)) + centre
        return points

    def _shadows(self, vertices: np.ndarray) -> tuple[Floor, Sun]:
        """Draw the shadow map and the contact map of (V, 3) vertices."""
        low, high = vertices[::16].min(axis=0), vertices[::16].max(axis=0)  # precise enough to place the maps
        middle = (low + high) / 2
        span = MAP_STEP * np.ceil(1.15 * np.linalg.norm(high - low) / MAP_STEP)  # metres
        scale = int(np.clip(np.ceil(span / ONE_MAP - 1e-6), 1, LARGEST_MAP))
        if len(self.shadow_depth) != scale * SHADOW_TEXELS:
            self._make_maps(scale)

        shadow_matrix = _map_view(self.sun_axes, middle, span, len(self.shadow_depth))
        rasterise(_transform(vertices, shadow_matrix), self.faces, False, EMPTY, self.shadow_depth, NO_INDEX)
        shadow = _blurred(self.shadow_depth < EMPTY, SHADOW_BLUR, span)

        below = middle * (1, 0, 1) + (0, self.floor, 0)
        contact_matrix = _map_view(FLOOR_AXES, below, span, len(self.contact_depth))
        points, far = _transform(vertices, contact_matrix), 3 * CONTACT_REACH
        rasterise(points, self.faces, False, far, self.contact_depth, NO_INDEX)
        contact = _blurred(np.exp(-np.maximum(self.contact_depth, 0) / CONTACT_REACH), CONTACT_BLUR, span)
        to_shadow, to_contact = _as_tuple(shadow_matrix), _as_tuple(contact_matrix)
        floor = Floor(self.floor, shadow, to_shadow, contact, to_contact)
        return floor, Sun(_as_tuple(self.sun), self.shadow_depth, to_shadow)


def _map_view(axes: np.ndarray, middle: np.ndarray, span: float, texels: int) -> np.ndarray:
    """Return the (3, 4) transform from the world to texels u, v and depth.

    The map moves by whole texels, so that shadows do not flicker.
    """
    scale = np.array([texels / span, texels / span, 1.0])
    offset = texels / 2 - np.round(axes @ middle * scale)
    offset[2] = -axes[2] @ middle
    return np.column_stack((axes * scale[:, None], offset)).astype(np.float32)


def _transform(points: np.ndarray, view: np.ndarray) -> np.ndarray:
    return points @ view[:, :3].T + view[:, 3]


def _blurred(texels: np.ndarray, radius: float, span: float) -> np.ndarray:
    """Apply two box filters of ``radius`` metres to a map with a side of ``span`` metres."""
    texels = texels.astype(np.float32)
    box_filter(texels, max(1, round(radius * len(texels) / span)))
    return texels


def _as_tuple(values: np.ndarray) -> tuple:
    """Convert a vector to a tuple of its values, and a matrix to a tuple of such rows."""
    return tuple(values) if values.ndim == 1 else tuple(map(tuple, values))
