"""Mesh renderer: a shaded body with its shadow on a floor, drawn on the CPU by loops that numba compiles.

No display, graphics driver or system library is needed. The body is rasterised with a z-buffer at twice the resolution,
then as the light sees it (shadow map) and as the floor sees it (contact shading: how near is the body above). Then
every pixel is put together from its body samples and the floor. Pattern and shadows of the floor are smooth by
construction (the checker is integrated over the pixel in closed form, the shadow maps are blurred), so that only the
body needs several samples a pixel.
"""

from collections.abc import Iterable, Iterator

import numpy as np
from numba import njit

from visualize.camera import Camera
from visualize.video import Title

SAMPLES = 2  # body samples a pixel along each axis
EMPTY = 1e9  # depth where there is nothing
SMOOTH = 0.006  # metres: samples of a pixel whose depths differ by less are one surface

SHADOW_TEXELS, CONTACT_TEXELS = 448, 192  # side of the maps up to a side of ONE_MAP metres; multiples for more people
ONE_MAP, LARGEST_MAP = 3.2, 4
MAP_STEP = 0.8  # metres: the maps' side is a multiple of this
SHADOW_BLUR, CONTACT_BLUR = 0.016, 0.030  # metres, radius of the box filter, applied twice
CONTACT_REACH = 0.09  # metres above the floor within which a body part darkens it

SHADOW, CONTACT = 0.52, 0.70  # share of the light that the sun's shadow and a touching foot take from the floor
TILE = 0.5  # metres
FOG = (1.375, 4.0)  # times the camera's distance from the people: where the floor begins to fade, and is gone
UP = np.array([0.0, 1.0, 0.0])
# Colours are linear: the frame shows their square root.
LIGHT = np.array([-0.42, 0.78, 0.46]) / np.linalg.norm([-0.42, 0.78, 0.46])  # right, up, backward
SUN, SKY, GROUND, FILL = (1.02, 0.97, 0.90), (0.40, 0.44, 0.50), (0.26, 0.24, 0.22), 0.16
FLOOR_LIGHT, FLOOR_DARK = (0.80, 0.81, 0.83), (0.64, 0.66, 0.69)
HORIZON, ZENITH = (0.86, 0.88, 0.90), (0.70, 0.75, 0.82)


def render_mesh(
    vertices: Iterable[np.ndarray],
    faces: np.ndarray,
    colors: np.ndarray,
    camera: Camera,
    floor: float = 0.0,
    title: str | None = None,
) -> Iterator[np.ndarray]:
    """Draw a moving mesh, a frame at a time.

    Args:
        vertices: (T, V, 3) array or an iterator of (V, 3) frames, in metres, y up.
        faces: (F, 3) vertex indices, counter-clockwise seen from outside. Several bodies are one mesh.
        colors: (V, 3) RGB in 0..1.
        camera: where the camera is in each frame, and the size of the frames.
        floor: height of the floor in metres.
        title: text at the top of the frame.

    Yields:
        (H, W, 3) uint8 frames.
    """
    painter = Painter(faces, colors, camera, floor)
    overlay = Title(title, camera.width, camera.height)
    for frame_vertices, eye in zip(vertices, camera.eye, strict=True):
        frame = painter.draw(frame_vertices, eye)
        overlay.draw(frame)
        yield frame


class Painter:
    """Buffers and constants of one clip."""

    def __init__(self, faces: np.ndarray, colors: np.ndarray, camera: Camera, floor: float):
        self.faces = np.ascontiguousarray(faces, dtype=np.int32)
        self.albedo = np.square(colors, dtype=np.float32)
        self.camera, self.floor = camera, np.float32(floor)
        self.rotation = camera.rotation.astype(np.float32)
        size = (camera.height * SAMPLES, camera.width * SAMPLES)
        self.depth, self.index = np.empty(size, np.float32), np.empty(size, np.int32)
        self.normals = np.empty((len(colors), 3), np.float32)
        self._make_maps(1)
        right, forward = camera.rotation[0], np.cross(camera.rotation[0], UP)
        light = np.stack((right, UP, forward), axis=1) @ LIGHT
        across = np.cross(UP, light) / np.linalg.norm(np.cross(UP, light))
        self.light = light.astype(np.float32)
        self.light_axes = np.stack((across, np.cross(light, across), -light))  # (3, 3) rows u, v, depth
        self.floor_axes = np.array([[1.0, 0.0, 0.0], [0.0, 0.0, 1.0], [0.0, 1.0, 0.0]])

    def _make_maps(self, scale: int) -> None:
        self.shadow_depth = np.empty((scale * SHADOW_TEXELS, scale * SHADOW_TEXELS), np.float32)
        self.contact_depth = np.empty((scale * CONTACT_TEXELS, scale * CONTACT_TEXELS), np.float32)

    def draw(self, vertices: np.ndarray, eye: np.ndarray) -> np.ndarray:
        """One (H, W, 3) uint8 frame of (V, 3) vertices seen from ``eye``."""
        vertices, eye = np.ascontiguousarray(vertices, dtype=np.float32), eye.astype(np.float32)
        camera = self.camera
        local = (vertices - eye) @ self.rotation.T  # right, down, forward
        centre = np.float32((camera.width / 2, camera.height / 2)) * SAMPLES
        local[:, :2] = local[:, :2] * (np.float32(camera.focal * SAMPLES) / np.maximum(local[:, 2:], 0.05)) + centre
        _rasterise(local, self.faces, True, EMPTY, self.depth, self.index)
        _vertex_normals(vertices, self.faces, self.normals)
        low, high = vertices[::16].min(axis=0), vertices[::16].max(axis=0)  # near enough to place the maps
        middle = (low + high) / 2
        span = MAP_STEP * np.ceil(1.15 * np.linalg.norm(high - low) / MAP_STEP)

        scale = int(np.clip(np.ceil(span / ONE_MAP - 1e-6), 1, LARGEST_MAP))
        if len(self.shadow_depth) != scale * SHADOW_TEXELS:
            self._make_maps(scale)
        shadow_view = _map_view(self.light_axes, middle, span, len(self.shadow_depth))
        nothing = np.empty((0, 0), np.int32)
        _rasterise(_transform(vertices, shadow_view), self.faces, False, EMPTY, self.shadow_depth, nothing)
        shade = _blurred(self.shadow_depth < EMPTY, SHADOW_BLUR, span)

        contact_view = _map_view(
            self.floor_axes, middle * (1, 0, 1) + (0, self.floor, 0), span, len(self.contact_depth)
        )
        reach = 3 * CONTACT_REACH
        _rasterise(_transform(vertices, contact_view), self.faces, False, reach, self.contact_depth, nothing)
        contact = _blurred(np.exp(-np.maximum(self.contact_depth, 0) / CONTACT_REACH), CONTACT_BLUR, span)

        frame = np.empty((camera.height, camera.width, 3), np.uint8)
        _shade(
            frame,
            self.index,
            self.depth,
            local,
            vertices,
            self.normals,
            self.albedo,
            self.faces,
            eye,
            self.rotation,
            camera.focal,
            self.floor,
            np.float32(camera.distance),
            self.light,
            self.shadow_depth,
            shade,
            shadow_view,
            contact,
            contact_view,
        )
        return frame


def _map_view(axes: np.ndarray, middle: np.ndarray, span: float, texels: int) -> np.ndarray:
    """(3, 4) transform from the world to texels u, v and depth; moves by whole texels, so that shadows do not swim."""
    scale = np.array([texels / span, texels / span, 1.0])
    offset = texels / 2 - np.round(axes @ middle * scale)
    offset[2] = -axes[2] @ middle
    return np.column_stack((axes * scale[:, None], offset)).astype(np.float32)


def _transform(points: np.ndarray, view: np.ndarray) -> np.ndarray:
    return points @ view[:, :3].T + view[:, 3]


def _blurred(texels: np.ndarray, radius: float, span: float) -> np.ndarray:
    """Two box filters one after the other, ``radius`` in metres on a map of side ``span``."""
    texels = texels.astype(np.float32)
    _box_filter(texels, max(1, round(radius * len(texels) / span)))
    return texels


@njit(cache=True, fastmath=True)
def _box_filter(texels, radius):
    """Box filter of side 2 * radius + 1 along both axes, twice, in place; zero outside."""
    size, scale = len(texels), np.float32(1.0 / (2 * radius + 1))
    line = np.empty(size, np.float32)
    for axis in (0, 1, 0, 1):
        for i in range(size):
            row = texels[i] if axis == 0 else texels[:, i]
            line[:] = row
            total = 0.0
            for j in range(radius):
                total += line[j]
            for j in range(size):
                if j + radius < size:
                    total += line[j + radius]
                row[j] = total * scale
                if j - radius >= 0:
                    total -= line[j - radius]


@njit(cache=True, fastmath=True)
def _vertex_normals(vertices, faces, normals):
    """Area-weighted unit normals of the vertices."""
    normals[:] = 0.0
    for f in range(len(faces)):
        a, b, c = faces[f, 0], faces[f, 1], faces[f, 2]
        ux, uy, uz = vertices[b, 0] - vertices[a, 0], vertices[b, 1] - vertices[a, 1], vertices[b, 2] - vertices[a, 2]
        vx, vy, vz = vertices[c, 0] - vertices[a, 0], vertices[c, 1] - vertices[a, 1], vertices[c, 2] - vertices[a, 2]
        x, y, z = uy * vz - uz * vy, uz * vx - ux * vz, ux * vy - uy * vx
        for i in (a, b, c):
            normals[i, 0] += x
            normals[i, 1] += y
            normals[i, 2] += z
    for i in range(len(normals)):
        x, y, z = normals[i, 0], normals[i, 1], normals[i, 2]
        scale = 1.0 / (np.sqrt(x * x + y * y + z * z) + 1e-20)
        normals[i, 0], normals[i, 1], normals[i, 2] = x * scale, y * scale, z * scale


@njit(cache=True, fastmath=True)
def _rasterise(points, faces, cull, far, depth, index):
    """Keep at every sample the smallest depth below ``far`` and, if ``index`` has a size, the face it belongs to.

    points: (V, 3) sample coordinates x, y and depth. cull: leave out faces that are turned away (y points down).
    """
    depth[:] = EMPTY
    index[:] = -1
    height, width = depth.shape
    for f in range(len(faces)):
        a, b, c = faces[f, 0], faces[f, 1], faces[f, 2]
        ax, ay, az = points[a, 0], points[a, 1], points[a, 2]
        bx, by, bz = points[b, 0] - ax, points[b, 1] - ay, points[b, 2] - az
        cx, cy, cz = points[c, 0] - ax, points[c, 1] - ay, points[c, 2] - az
        area = bx * cy - by * cx
        if area == 0.0 or (cull and (area > 0.0 or az <= 0.05)) or az > far:
            continue
        left, right = np.ceil(ax + min(0.0, bx, cx) - 0.5), np.floor(ax + max(0.0, bx, cx) - 0.5)
        top, bottom = np.ceil(ay + min(0.0, by, cy) - 0.5), np.floor(ay + max(0.0, by, cy) - 0.5)
        inverse = 1.0 / area
        for y in range(int(max(top, 0.0)), int(min(bottom, height - 1.0)) + 1):
            py = y + 0.5 - ay
            for x in range(int(max(left, 0.0)), int(min(right, width - 1.0)) + 1):
                px = x + 0.5 - ax
                wb = (px * cy - py * cx) * inverse
                wc = (bx * py - by * px) * inverse
                if wb >= 0.0 and wc >= 0.0 and wb + wc <= 1.0:
                    z = az + wb * bz + wc * cz
                    if z < depth[y, x]:
                        depth[y, x] = z
                        if index.size:
                            index[y, x] = f


@njit(cache=True, fastmath=True)
def _bilinear(texels, u, v):
    """Value of a map between its texels; zero outside."""
    u, v = u - 0.5, v - 0.5
    i, j = int(np.floor(v)), int(np.floor(u))
    if i < 0 or j < 0 or i + 1 >= len(texels) or j + 1 >= len(texels):
        return 0.0
    s, t = u - j, v - i
    upper = texels[i, j] * (1 - s) + texels[i, j + 1] * s
    lower = texels[i + 1, j] * (1 - s) + texels[i + 1, j + 1] * s
    return upper * (1 - t) + lower * t


@njit(cache=True, fastmath=True)
def _checker(position, width):
    """Mean over a pixel ``width`` of the wave that is +1 and -1 on alternate tiles; both in tiles."""
    before, after = (position - width / 2) / 2, (position + width / 2) / 2
    return (abs(before - np.floor(before) - 0.5) - abs(after - np.floor(after) - 0.5)) * (2 / width)


@njit(cache=True, fastmath=True)
def _mix(a, b, share):
    return a + (b - a) * share


@njit(cache=True, fastmath=True)
def _smoothstep(x):
    x = min(max(x, 0.0), 1.0)
    return x * x * (3 - 2 * x)


@njit(cache=True, fastmath=True)
def _floor_row(row, down, focal, eye, rotation, floor, fog, shade, shadow_view, contact, contact_view):
    """Linear colours (W, 3) of floor and background along one row of pixels, whose rays go ``down`` by that much.

    Without roll, all points of a row are equally far below the horizon: distance, fog and pixel size belong to the row.
    """
    dx, dy, dz = rotation[2] + down * rotation[1]
    sky, height = _smoothstep(dy / 0.35), eye[1] - floor
    distance = height / -dy if dy < -1e-3 and height > 0 else FOG[1] * fog
    clear = 1 - _smoothstep((distance / fog - FOG[0]) / (FOG[1] - FOG[0]))
    for i in range(3):
        row[:, i] = _mix(HORIZON[i], ZENITH[i], sky)
    if clear <= 0:
        return
    # The width of a pixel on the floor: distance / focal across the view, longer along it by distance / height.
    across, along = distance / focal, distance * distance / (focal * height)
    wide_x = (abs(rotation[0, 0]) * across + abs(rotation[0, 2]) * along) / TILE
    wide_z = (abs(rotation[0, 2]) * across + abs(rotation[0, 0]) * along) / TILE
    width = len(row)
    for column in range(width):
        right = (column + 0.5 - width / 2) / focal
        x, z = eye[0] + (dx + right * rotation[0, 0]) * distance, eye[2] + (dz + right * rotation[0, 2]) * distance
        pattern = 0.5 + 0.5 * _checker(x / TILE, wide_x) * _checker(z / TILE, wide_z)
        u = shadow_view[0, 0] * x + shadow_view[0, 1] * floor + shadow_view[0, 2] * z + shadow_view[0, 3]
        v = shadow_view[1, 0] * x + shadow_view[1, 1] * floor + shadow_view[1, 2] * z + shadow_view[1, 3]
        light = 1 - SHADOW * _bilinear(shade, u, v)
        light *= 1 - CONTACT * _bilinear(
            contact, contact_view[0, 0] * x + contact_view[0, 3], contact_view[1, 2] * z + contact_view[1, 3]
        )
        for i in range(3):
            row[column, i] = _mix(row[column, i], _mix(FLOOR_DARK[i], FLOOR_LIGHT[i], pattern) * light, clear)


@njit(cache=True, fastmath=True)
def _sunlight(x, y, z, facing, shadow_depth, view):
    """Share of 3 x 3 shadow-map texels around the point that nothing nearer to the light covers."""
    u = view[0, 0] * x + view[0, 1] * y + view[0, 2] * z + view[0, 3]
    v = view[1, 0] * x + view[1, 1] * y + view[1, 2] * z + view[1, 3]
    depth = view[2, 0] * x + view[2, 1] * y + view[2, 2] * z + view[2, 3]
    depth -= 0.014 + 0.03 * (1 - facing)  # against shadowing itself; more where light grazes
    i, j = int(v), int(u)
    size = len(shadow_depth)
    if i < 1 or j < 1 or i >= size - 1 or j >= size - 1:
        return 1.0
    lit = 0.0
    for row in range(i - 1, i + 2):
        for column in range(j - 1, j + 2):
            if shadow_depth[row, column] > depth:
                lit += 1 / 9
    return lit


@njit(cache=True, fastmath=True)
def _body_color(face, px, py, faces, points, vertices, normals, albedo, eye, floor, light, shadow_depth, shadow_view):
    """Linear colour of a face at a sample position (px, py): sun with shadow, sky and floor light, fill, gloss, rim."""
    a, b, c = faces[face, 0], faces[face, 1], faces[face, 2]
    bx, by = points[b, 0] - points[a, 0], points[b, 1] - points[a, 1]
    cx, cy = points[c, 0] - points[a, 0], points[c, 1] - points[a, 1]
    px, py = px - points[a, 0], py - points[a, 1]
    inverse = 1 / (bx * cy - by * cx)
    wb, wc = (px * cy - py * cx) * inverse, (bx * py - by * px) * inverse
    wa = 1 - wb - wc
    x = wa * vertices[a, 0] + wb * vertices[b, 0] + wc * vertices[c, 0]
    y = wa * vertices[a, 1] + wb * vertices[b, 1] + wc * vertices[c, 1]
    z = wa * vertices[a, 2] + wb * vertices[b, 2] + wc * vertices[c, 2]
    nx = wa * normals[a, 0] + wb * normals[b, 0] + wc * normals[c, 0]
    ny = wa * normals[a, 1] + wb * normals[b, 1] + wc * normals[c, 1]
    nz = wa * normals[a, 2] + wb * normals[b, 2] + wc * normals[c, 2]
    scale = 1 / np.sqrt(nx * nx + ny * ny + nz * nz + 1e-12)
    nx, ny, nz = nx * scale, ny * scale, nz * scale
    vx, vy, vz = eye[0] - x, eye[1] - y, eye[2] - z
    scale = 1 / np.sqrt(vx * vx + vy * vy + vz * vz)
    vx, vy, vz = vx * scale, vy * scale, vz * scale

    toward_light = max(0.0, nx * light[0] + ny * light[1] + nz * light[2])
    toward_eye = max(0.0, nx * vx + ny * vy + nz * vz)
    sun = 0.0
    gloss = 0.0
    if toward_light > 0:
        lit = _sunlight(x, y, z, toward_light, shadow_depth, shadow_view)
        sun = toward_light * lit
        hx, hy, hz = vx + light[0], vy + light[1], vz + light[2]
        gloss = max(0.0, (nx * hx + ny * hy + nz * hz) / np.sqrt(hx * hx + hy * hy + hz * hz))
        gloss = 0.16 * gloss**32 * lit
    up = 0.5 + 0.5 * ny
    near_floor = np.exp(-max(0.0, y - floor) / 0.12)
    ambient = 1 - 0.55 * near_floor * (1 - up)
    fill = FILL * toward_eye
    rim = 0.22 * (1 - toward_eye) ** 4 * up + gloss
    red = albedo[a, 0] * (SUN[0] * sun + ambient * _mix(GROUND[0], SKY[0], up) + fill) + rim
    green = albedo[a, 1] * (SUN[1] * sun + ambient * _mix(GROUND[1], SKY[1], up) + fill) + rim
    blue = albedo[a, 2] * (SUN[2] * sun + ambient * _mix(GROUND[2], SKY[2], up) + fill) + rim
    return red, green, blue


@njit(cache=True, fastmath=True)
def _shade(
    frame,
    index,
    depth,
    points,
    vertices,
    normals,
    albedo,
    faces,
    eye,
    rotation,
    focal,
    floor,
    fog,
    light,
    shadow_depth,
    shade,
    shadow_view,
    contact,
    contact_view,
):
    """Colour every pixel of ``frame`` (H, W, 3): the mean of its body samples and, for the others, of the floor.

    Where all samples lie on one smooth surface, one in the middle of the pixel stands for them.
    """
    height, width = frame.shape[:2]
    samples = SAMPLES * SAMPLES
    row = np.empty((width, 3), np.float32)
    for y in range(height):
        down = (y + 0.5 - height / 2) / focal
        _floor_row(row, down, focal, eye, rotation, floor, fog, shade, shadow_view, contact, contact_view)
        for x in range(width):
            covered, near, far = 0, EMPTY, -EMPTY
            for i in range(y * SAMPLES, (y + 1) * SAMPLES):
                for j in range(x * SAMPLES, (x + 1) * SAMPLES):
                    if index[i, j] >= 0:
                        covered, near, far = covered + 1, min(near, depth[i, j]), max(far, depth[i, j])
            if covered == samples and far - near < SMOOTH:
                red, green, blue = _body_color(
                    index[y * SAMPLES, x * SAMPLES],
                    (x + 0.5) * SAMPLES,
                    (y + 0.5) * SAMPLES,
                    faces,
                    points,
                    vertices,
                    normals,
                    albedo,
                    eye,
                    floor,
                    light,
                    shadow_depth,
                    shadow_view,
                )
            else:
                free = 1 - covered / samples
                red, green, blue = free * row[x, 0], free * row[x, 1], free * row[x, 2]
                for i in range(y * SAMPLES, (y + 1) * SAMPLES):
                    for j in range(x * SAMPLES, (x + 1) * SAMPLES):
                        if index[i, j] >= 0:
                            r, g, b = _body_color(
                                index[i, j],
                                j + 0.5,
                                i + 0.5,
                                faces,
                                points,
                                vertices,
                                normals,
                                albedo,
                                eye,
                                floor,
                                light,
                                shadow_depth,
                                shadow_view,
                            )
                            red, green, blue = red + r / samples, green + g / samples, blue + b / samples
            frame[y, x, 0] = 255 * np.sqrt(min(red, 1.0))
            frame[y, x, 1] = 255 * np.sqrt(min(green, 1.0))
            frame[y, x, 2] = 255 * np.sqrt(min(blue, 1.0))
