"""Skinned meshes of a glTF file in the rest pose of its skeleton."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from formats.gltf import Nodes, Skeleton, read_accessor
from formats.gltf_file import GltfFile, refuse_compression
from utils.errors import InputError

TRIANGLES = 4  # mode of a primitive
SETS = 4  # sets of four joints and weights that are read


@dataclass
class MeshPart:
    """A primitive of a mesh, with V vertices and F faces, bound to K bones per vertex."""

    vertices: np.ndarray  # (V, 3) world, in the rest pose
    faces: np.ndarray  # (F, 3)
    bones: np.ndarray  # (V, K) bones of the skeleton
    weights: np.ndarray  # (V, K); rows sum to 1
    attributes: dict[str, np.ndarray]  # texture coordinates and colours by their names in glTF
    material: dict[str, Any]


def read_meshes(file: GltfFile, nodes: Nodes, skeleton: Skeleton) -> list[MeshPart]:
    """Return the triangles of the meshes that the skeleton moves: skinned meshes, and meshes that hang on a bone.

    Raises:
        InputError: a mesh is damaged or compressed.
    """
    bone_of = {node: bone for bone, node in enumerate(skeleton.nodes)}
    bound, parts = dict(skeleton.bound), []
    world = nodes.world()
    for number, node in enumerate(file.items("nodes")):
        if "mesh" not in node:
            continue
        skin = node.get("skin")
        if skin in bound:
            joints = np.array([bone_of[joint] for joint in file.item("skins", skin)["joints"]])
            place = bound[skin]
        elif skin is None and (bone := _bone_above(nodes, number, bone_of)) is not None:
            joints = np.array([bone])
            place = skeleton.rest[bone] @ np.linalg.inv(skeleton.pose[bone]) @ world[number]
        else:
            continue
        for primitive in file.item("meshes", node["mesh"]).get("primitives", []):
            refuse_compression(primitive)
            if primitive.get("mode", TRIANGLES) == TRIANGLES:
                parts.append(_part(file, primitive, joints, place, is_skinned=skin is not None))
    return parts


def _bone_above(nodes: Nodes, node: int, bone_of: dict[int, int]) -> int | None:
    while node >= 0:
        if node in bone_of:
            return bone_of[node]
        node = nodes.parents[node]
    return None


def _part(file: GltfFile, primitive: dict[str, Any], joints: np.ndarray, place: np.ndarray, is_skinned: bool):
    """Return a primitive whose vertices ``place`` (4, 4) moves to the rest pose."""
    found = primitive.get("attributes", {})
    vertices = _attribute(file, found, "POSITION", None, (3,)).astype(np.float64)
    count = len(vertices)
    if "indices" in primitive:
        faces = read_accessor(file, primitive["indices"])
        if faces.dtype.kind != "u" or faces.size and faces.max() >= count:
            raise InputError("a mesh has faces with vertices that it does not have")
    else:
        faces = np.arange(count)
    faces = faces.reshape(-1)[: faces.size // 3 * 3].reshape(-1, 3).astype(np.int32)
    bones, weights = np.zeros((count, 1), np.int64), np.ones((count, 1))
    if is_skinned:
        sets = [number for number in range(SETS) if f"JOINTS_{number}" in found]
        if not sets:
            raise InputError("a skinned mesh has no joints")
        bones = np.concatenate([_attribute(file, found, f"JOINTS_{k}", count, (4,)) for k in sets], axis=1)
        weights = np.concatenate([_attribute(file, found, f"WEIGHTS_{k}", count, (4,)) for k in sets], axis=1)
        bones = np.where(weights > 0, bones, 0).astype(np.int64)
        if bones.size and bones.max() >= len(joints):
            raise InputError("a mesh is bound to a joint that its skin does not have")
        sums = weights.sum(axis=1, keepdims=True)
        weights = np.where(sums > 0, weights / np.where(sums > 0, sums, 1), np.eye(weights.shape[1])[0])
    attributes = {
        name: _attribute(file, found, name, count, (2, 3, 4))
        for name in found
        if name.startswith(("TEXCOORD_", "COLOR_0"))
    }
    material = file.item("materials", primitive["material"]) if "material" in primitive else {}
    return MeshPart(vertices @ place[:3, :3].T + place[:3, 3], faces, joints[bones], weights, attributes, material)


def _attribute(file: GltfFile, found: dict[str, Any], name: str, count: int | None, widths: tuple) -> np.ndarray:
    values = read_accessor(file, found.get(name))
    if count is not None and len(values) != count or values.shape[1] not in widths:
        raise InputError(f"a mesh of {count} vertices has {len(values)} values of {name}")
    return values
