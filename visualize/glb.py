"""Write motion as binary glTF 2.0 (.glb): a skinned, animated body for Blender, three.js, Unity, Windows and phones.

One mesh with one primitive per colour, 22 joints with the names of SMPL-X, and one animation with the rotation of each
joint and the translation of the pelvis. The node above the pelvis lifts the soles onto y = 0.
"""

from pathlib import Path
from typing import Any

import numpy as np

from formats.gltf_writer import FLOAT, UBYTE, UINT, Parts, animation_name
from formats.gltf_writer import write_glb as write_document
from motion.clip import AnyMotion, rights_of, smplx85_of
from motion.resample import FPS
from motion.skeleton import JOINT_NAMES, JOINTS, PARENTS
from motion.smplx import SMPLX85
from visualize.body import Body, floor_height, load_body
from visualize.skin import Skin, quaternions, skin_of, vertex_normals

VERTICES, INDICES = 34962, 34963  # targets of buffer views in glTF


def write_glb(path: str | Path, motion: AnyMotion, title: str = "", body: Body | None = None) -> Path:
    """Write a motion on a body as .glb.

    Args:
        path: Target; its folder is created if needed.
        motion: A clip or a (T, 85) array, at 30 frames per second.
        title: Name of the animation.
        body: Body from ``load_body``; None is the mannequin.

    Raises:
        InputError: unusable motion, or a target that cannot be written.
    """
    smplx85, body = smplx85_of(motion), body or load_body()
    skin = skin_of(body, smplx85[0, SMPLX85["betas"]])
    document: dict[str, Any] = {"asset": {"version": "2.0", "generator": "text to motion"}}
    if rights := rights_of(motion):
        document["asset"]["copyright"] = rights
    parts = Parts(document, bytearray())
    document |= {
        "scene": 0,
        "scenes": [{"nodes": [JOINTS, JOINTS + 1]}],
        "nodes": [*_joint_nodes(skin), *_root_nodes(-floor_height(body, smplx85))],
        "meshes": [{"primitives": _primitives(parts, skin)}],
        "materials": _materials(skin),
        "skins": [{"joints": list(range(JOINTS)), "skeleton": JOINTS, "inverseBindMatrices": _bind(parts, skin)}],
        "animations": [_animation(parts, smplx85, title)],
        "buffers": [{"byteLength": len(parts.data)}],
    }
    return write_document(path, document, parts.data)


def _joint_nodes(skin: Skin) -> list[dict]:
    nodes = []
    for joint, name in enumerate(JOINT_NAMES):
        offset = skin.joints[joint] - (skin.joints[PARENTS[joint]] if joint else 0)
        nodes.append({"name": name, "translation": offset.tolist()})
        children = [child for child in range(JOINTS) if PARENTS[child] == joint]
        nodes[-1] |= {"children": children} if children else {}
    return nodes


def _root_nodes(lift: float) -> list[dict]:
    """Return the parent node of the pelvis and the mesh node; skinning ignores the transform of the latter."""
    return [
        {"name": "skeleton", "children": [0], "translation": [0.0, lift, 0.0]},
        {"name": "body", "mesh": 0, "skin": 0},
    ]


def _primitives(parts: Parts, skin: Skin) -> list[dict]:
    attributes = {
        "POSITION": parts.add(skin.vertices.astype(np.float32), FLOAT, VERTICES),
        "NORMAL": parts.add(vertex_normals(skin.vertices, skin.faces), FLOAT, VERTICES),
        "JOINTS_0": parts.add(skin.indices, UBYTE, VERTICES),
        "WEIGHTS_0": parts.add(skin.weights, UBYTE, VERTICES, normalized=True),
    }
    colors, of_vertex = np.unique(skin.colors, axis=0, return_inverse=True)
    of_face = of_vertex.reshape(-1)[skin.faces[:, 0]]
    return [
        {
            "attributes": attributes,
            "indices": parts.add(skin.faces[of_face == color].astype(np.uint32).reshape(-1, 1), UINT, INDICES),
            "material": color,
        }
        for color in range(len(colors))
    ]


def _materials(skin: Skin) -> list[dict]:
    """Return one material per colour; glTF requires linear RGB."""
    linear = [np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4) for c in np.unique(skin.colors, axis=0)]
    return [
        {
            "pbrMetallicRoughness": {
                "baseColorFactor": [*np.float64(color).round(4).tolist(), 1.0],
                "metallicFactor": 0.0,
                "roughnessFactor": 0.6,
            }
        }
        for color in linear
    ]


def _bind(parts: Parts, skin: Skin) -> int:
    """Add the inverse bind matrices (column-major), which move the rest position of each joint to the origin."""
    matrices = np.tile(np.eye(4, dtype=np.float32), (JOINTS, 1, 1))
    matrices[:, 3, :3] = -skin.joints
    return parts.add(matrices.reshape(JOINTS, 16), FLOAT)


def _animation(parts: Parts, smplx85: np.ndarray, title: str) -> dict:
    times = parts.add((np.arange(len(smplx85), dtype=np.float32) / FPS)[:, None], FLOAT)
    rotations = quaternions(smplx85).astype(np.float32)  # (T, 22, 4)
    tracks = [("rotation", joint, rotations[:, joint]) for joint in range(JOINTS)]
    tracks.append(("translation", 0, smplx85[:, SMPLX85["translation"]].astype(np.float32)))
    return {
        "name": animation_name(title),
        "samplers": [{"input": times, "output": parts.add(np.ascontiguousarray(v), FLOAT)} for _, _, v in tracks],
        "channels": [
            {"sampler": number, "target": {"node": joint, "path": path}}
            for number, (path, joint, _) in enumerate(tracks)
        ],
    }
