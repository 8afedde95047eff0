"""The skin of a body: rest pose and skinning weights, which glTF viewers and the browser animate by joint rotations.

Four joints per vertex with weights in 255ths, as graphics formats require. Pose-dependent corrections (SMPL-X's pose
blend shapes) are omitted, because these formats cannot hold them.
"""

from dataclasses import dataclass, replace

import numpy as np
import scipy.sparse.csgraph
from scipy.spatial import cKDTree

from motion.skeleton import JOINTS
from motion.smplx import SMPLX85, SMPLX85_WIDTH
from visualize.body import Body

INFLUENCES = 4  # joints per vertex


@dataclass
class Skin:
    """The rest pose of a body in its own frame."""

    vertices: np.ndarray  # (V, 3) float32 metres
    faces: np.ndarray  # (F, 3) int32
    colors: np.ndarray  # (V, 3) float32 sRGB in 0..1
    joints: np.ndarray  # (22, 3) float32 metres
    indices: np.ndarray  # (V, 4) uint8 joints; 0 where the weight is 0
    weights: np.ndarray  # (V, 4) uint8 adding up to 255


def skin_of(body: Body, betas: np.ndarray | None = None) -> Skin:
    """Return the skin of a body of shape ``betas`` (10,); None is the mean shape."""
    rest = np.zeros((1, SMPLX85_WIDTH))
    rest[:, SMPLX85["translation"]] = body.rest_pelvis
    rest[:, SMPLX85["betas"]] = 0 if betas is None else betas
    indices = np.argsort(-body.weights, axis=1, kind="stable")[:, :INFLUENCES]  # (V, 4)
    weights = np.take_along_axis(body.weights, indices, axis=1)
    weights = np.round(weights / weights.sum(axis=1, keepdims=True) * 255).astype(int)
    weights[:, 0] += 255 - weights.sum(axis=1)
    indices[weights == 0] = 0
    return Skin(
        vertices=body.vertices(rest)[0],
        faces=body.faces,
        colors=body.colors,
        joints=body.joints(rest)[0],
        indices=indices.astype(np.uint8),
        weights=weights.astype(np.uint8),
    )


def simplified(skin: Skin, removed: float = 0.6) -> Skin:
    """Return a skin with fewer faces, for browsers without a graphics card.

    Each part (a limb, a ball joint) is simplified alone. New vertices take colour and weights from the nearest old
    vertex of their part.

    Args:
        skin: Skin to simplify.
        removed: Share of the faces that is removed.
    """
    import fast_simplification

    corners = skin.faces.ravel()
    links = scipy.sparse.coo_array((np.ones(len(corners)), (corners, np.roll(skin.faces, 1, axis=1).ravel())))
    links.resize((len(skin.vertices), len(skin.vertices)))
    _, part_of = scipy.sparse.csgraph.connected_components(links, directed=False)
    vertices, faces, sources, count = [], [], [], 0
    for part in np.unique(part_of[corners]):
        members = np.flatnonzero(part_of == part)
        own = skin.faces[part_of[skin.faces[:, 0]] == part]
        points, triangles = fast_simplification.simplify(
            skin.vertices[members], np.searchsorted(members, own), target_reduction=removed
        )
        vertices.append(points)
        faces.append(triangles + count)
        sources.append(members[cKDTree(skin.vertices[members]).query(points)[1]])
        count += len(points)
    old = np.concatenate(sources)
    return replace(
        skin,
        vertices=np.concatenate(vertices).astype(np.float32),
        faces=np.concatenate(faces).astype(np.int32),
        colors=skin.colors[old],
        indices=skin.indices[old],
        weights=skin.weights[old],
    )


def vertex_normals(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """Return (V, 3) unit normals, each the area-weighted mean of the normals of the adjacent faces."""
    a, b, c = (vertices[faces[:, corner]].astype(np.float64) for corner in range(3))
    across = np.cross(b - a, c - a)
    normals = np.zeros(vertices.shape)
    for corner in range(3):
        np.add.at(normals, faces[:, corner], across)
    length = np.linalg.norm(normals, axis=1, keepdims=True)
    return np.where(length > 1e-12, normals / np.maximum(length, 1e-12), (0.0, 1.0, 0.0)).astype(np.float32)


def quaternions(smplx85: np.ndarray) -> np.ndarray:
    """Convert (T, 85) to (T, 22, 4) unit quaternions x, y, z, w, whose signs are continuous over time."""
    from scipy.spatial.transform import Rotation

    rotations = smplx85[:, SMPLX85["axis_angle"]].reshape(-1, 3)
    values = Rotation.from_rotvec(rotations).as_quat().reshape(-1, JOINTS, 4)
    flips = np.where((values[1:] * values[:-1]).sum(axis=-1) < 0, -1.0, 1.0)  # (T - 1, 22)
    values[1:] *= np.cumprod(flips, axis=0)[..., None]
    return values
