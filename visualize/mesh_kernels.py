"""Kernels of the mesh renderer: loops over faces and pixels that numba compiles.

Colours are linear. Arguments that belong together are NamedTuples. Their small constants are tuples of float32, because
reference counts of arrays would make the inner loops a fifth slower.
"""

from typing import NamedTuple

import numpy as np
from numba import njit

SAMPLES = 2  # body samples per pixel along each axis
EMPTY = 1e9  # depth where there is no surface
SMOOTH = 0.006  # metres: samples of a pixel whose depths differ by less belong to one surface

SHADOW, CONTACT = 0.52, 0.70  # share of the floor's light that the sun's shadow and a touching foot remove
TILE = 0.5  # metres: side of the floor's tiles
FOG = (0.375, 3.0)  # distances behind the people at which the floor starts to fade and disappears, in haze
SUN, SKY, GROUND, FILL = (1.02, 0.97, 0.90), (0.40, 0.44, 0.50), (0.26, 0.24, 0.22), 0.16
FLOOR_LIGHT, FLOOR_DARK = (0.80, 0.81, 0.83), (0.64, 0.66, 0.69)
HORIZON, ZENITH = (0.86, 0.88, 0.90), (0.70, 0.75, 0.82)

Vector = tuple[np.float32, np.float32, np.float32]
Row = tuple[np.float32, np.float32, np.float32, np.float32]
Transform = tuple[Row, Row, Row]  # 3 x 4 matrix from the world to texels u, v and depth of a map


class Mesh(NamedTuple):
    """The mesh of one frame."""

    faces: np.ndarray  # (F, 3) int32 vertex indices
    vertices: np.ndarray  # (V, 3) float32, world, metres
    points: np.ndarray  # (V, 3) float32, sample coordinates x and y (down), depth in metres
    normals: np.ndarray  # (V, 3) float32 unit normals
    albedo: np.ndarray  # (F, 3, 3) float32 linear colours of the corners of the faces


class View(NamedTuple):
    """The camera of one frame."""

    eye: Vector  # world
    rotation: tuple[Vector, Vector, Vector]  # rows: right, down, forward
    focal: float  # pixels
    distance: np.float32  # metres from the eye to the people
    haze: np.float32  # metres: the unit of FOG


class Sun(NamedTuple):
    """The sun and its shadow map."""

    direction: Vector  # from the scene to the sun
    depth: np.ndarray  # (S, S) float32 depth seen from the sun
    transform: Transform  # to the texels of ``depth``


class Floor(NamedTuple):
    """The floor and the shadows on it."""

    height: np.float32  # metres
    shadow: np.ndarray  # (S, S) float32 blurred share of shadow
    shadow_transform: Transform  # to the texels of ``shadow``
    contact: np.ndarray  # (C, C) float32 blurred darkening below body parts near the floor
    contact_transform: Transform  # to the texels of ``contact``


@njit(cache=True, fastmath=True)
def box_filter(texels, radius):
    """Apply a box filter of side 2 * radius + 1 along both axes, twice, in place; texels outside the map are zero."""
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
def vertex_normals(vertices, faces, normals):
    """Write the area-weighted unit normals of the vertices into ``normals`` (V, 3)."""
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
def rasterise(points, faces, cull, far, depth, index):
    """Write the smallest depth at every sample, and its face.

    Args:
        points: (V, 3) sample coordinates x, y (down) and depth.
        faces: (F, 3) vertex indices.
        cull: Skip faces that are turned away.
        far: Skip faces beyond this depth.
        depth: (H, W) output; EMPTY where there is no face.
        index: (H, W) output, -1 where there is no face; or an empty array, if the faces are not needed.
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
    """Interpolate a map between its texels; zero outside."""
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
    """Average over a pixel of ``width`` the wave that is +1 and -1 on alternate tiles; both arguments in tiles."""
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
def _floor_row(row, down, view, floor):
    """Write the colours (W, 3) of floor and background along one row of pixels, whose rays have the slope ``down``.

    The camera does not roll, so all floor points of a row have the same distance, fog and pixel size.
    """
    eye, (right, below, forward) = view.eye, view.rotation
    shadow, to_shadow = floor.shadow, floor.shadow_transform
    contact, to_contact = floor.contact, floor.contact_transform
    dx, dy, dz = forward[0] + down * below[0], forward[1] + down * below[1], forward[2] + down * below[2]
    sky, height = _smoothstep(dy / 0.35), eye[1] - floor.height
    distance = height / -dy if dy < -1e-3 and height > 0 else view.distance + FOG[1] * view.haze
    clear = 1 - _smoothstep(((distance - view.distance) / view.haze - FOG[0]) / (FOG[1] - FOG[0]))
    for i in range(3):
        row[:, i] = _mix(HORIZON[i], ZENITH[i], sky)
    if clear <= 0:
        return
    # Size of a pixel on the floor: distance / focal across the view, longer along it by distance / height.
    wide, long = distance / view.focal, distance * distance / (view.focal * height)
    wide_x = (abs(right[0]) * wide + abs(right[2]) * long) / TILE
    wide_z = (abs(right[2]) * wide + abs(right[0]) * long) / TILE
    width = len(row)
    for column in range(width):
        across = (column + 0.5 - width / 2) / view.focal
        x, z = eye[0] + (dx + across * right[0]) * distance, eye[2] + (dz + across * right[2]) * distance
        pattern = 0.5 + 0.5 * _checker(x / TILE, wide_x) * _checker(z / TILE, wide_z)
        u = to_shadow[0][0] * x + to_shadow[0][1] * floor.height + to_shadow[0][2] * z + to_shadow[0][3]
        v = to_shadow[1][0] * x + to_shadow[1][1] * floor.height + to_shadow[1][2] * z + to_shadow[1][3]
        light = 1 - SHADOW * _bilinear(shadow, u, v)
        light *= 1 - CONTACT * _bilinear(
            contact, to_contact[0][0] * x + to_contact[0][3], to_contact[1][2] * z + to_contact[1][3]
        )
        for i in range(3):
            row[column, i] = _mix(row[column, i], _mix(FLOOR_DARK[i], FLOOR_LIGHT[i], pattern) * light, clear)


@njit(cache=True, fastmath=True)
def _sunlight(x, y, z, facing, sun):
    """Return the share of the 3 x 3 shadow-map texels around a point that are not covered by a nearer surface."""
    depth_map, to_map = sun.depth, sun.transform
    u = to_map[0][0] * x + to_map[0][1] * y + to_map[0][2] * z + to_map[0][3]
    v = to_map[1][0] * x + to_map[1][1] * y + to_map[1][2] * z + to_map[1][3]
    depth = to_map[2][0] * x + to_map[2][1] * y + to_map[2][2] * z + to_map[2][3]
    depth -= 0.014 + 0.03 * (1 - facing)  # against self-shadowing; more at grazing angles
    i, j = int(v), int(u)
    size = len(depth_map)
    if i < 1 or j < 1 or i >= size - 1 or j >= size - 1:
        return 1.0
    lit = 0.0
    for row in range(i - 1, i + 2):
        for column in range(j - 1, j + 2):
            if depth_map[row, column] > depth:
                lit += 1 / 9
    return lit


@njit(cache=True, fastmath=True)
def _body_color(face, px, py, mesh, eye, floor_height, sun):
    """Return the colour of a face at a sample position (px, py): sun with shadow, ambient light, fill, gloss, rim."""
    points, vertices, normals, albedo = mesh.points, mesh.vertices, mesh.normals, mesh.albedo
    light = sun.direction
    a, b, c = mesh.faces[face, 0], mesh.faces[face, 1], mesh.faces[face, 2]
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
    direct = 0.0
    gloss = 0.0
    if toward_light > 0:
        lit = _sunlight(x, y, z, toward_light, sun)
        direct = toward_light * lit
        hx, hy, hz = vx + light[0], vy + light[1], vz + light[2]
        gloss = max(0.0, (nx * hx + ny * hy + nz * hz) / np.sqrt(hx * hx + hy * hy + hz * hz))
        gloss = 0.16 * gloss**32 * lit
    up = 0.5 + 0.5 * ny
    near_floor = np.exp(-max(0.0, y - floor_height) / 0.12)
    ambient = 1 - 0.55 * near_floor * (1 - up)
    fill = FILL * toward_eye
    rim = 0.22 * (1 - toward_eye) ** 4 * up + gloss
    red = SUN[0] * direct + ambient * _mix(GROUND[0], SKY[0], up) + fill
    green = SUN[1] * direct + ambient * _mix(GROUND[1], SKY[1], up) + fill
    blue = SUN[2] * direct + ambient * _mix(GROUND[2], SKY[2], up) + fill
    corners = albedo[face]
    red = red * (wa * corners[0, 0] + wb * corners[1, 0] + wc * corners[2, 0]) + rim
    green = green * (wa * corners[0, 1] + wb * corners[1, 1] + wc * corners[2, 1]) + rim
    blue = blue * (wa * corners[0, 2] + wb * corners[1, 2] + wc * corners[2, 2]) + rim
    return red, green, blue


@njit(cache=True, fastmath=True)
def shade(frame, index, depth, mesh, view, floor, sun):
    """Colour every pixel of ``frame`` (H, W, 3) uint8: the mean of its body samples, and of the floor for the others.

    If all samples of a pixel lie on one smooth surface, one sample at its centre is used.

    Args:
        frame: Output.
        index: (SAMPLES * H, SAMPLES * W) faces from ``rasterise``.
        depth: (SAMPLES * H, SAMPLES * W) depths from ``rasterise``.
        mesh: ``Mesh``.
        view: ``View``.
        floor: ``Floor``.
        sun: ``Sun``.
    """
    height, width = frame.shape[:2]
    samples = SAMPLES * SAMPLES
    row = np.empty((width, 3), np.float32)
    for y in range(height):
        down = (y + 0.5 - height / 2) / view.focal
        _floor_row(row, down, view, floor)
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
                    mesh,
                    view.eye,
                    floor.height,
                    sun,
                )
            else:
                free = 1 - covered / samples
                red, green, blue = free * row[x, 0], free * row[x, 1], free * row[x, 2]
                for i in range(y * SAMPLES, (y + 1) * SAMPLES):
                    for j in range(x * SAMPLES, (x + 1) * SAMPLES):
                        if index[i, j] >= 0:
                            r, g, b = _body_color(index[i, j], j + 0.5, i + 0.5, mesh, view.eye, floor.height, sun)
                            red, green, blue = red + r / samples, green + g / samples, blue + b / samples
            frame[y, x, 0] = 255 * np.sqrt(min(red, 1.0))
            frame[y, x, 1] = 255 * np.sqrt(min(green, 1.0))
            frame[y, x, 2] = 255 * np.sqrt(min(blue, 1.0))
