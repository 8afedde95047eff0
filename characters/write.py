"""Write motion onto a character: its file with one more animation per motion, as .glb or .vrm."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy.spatial.transform import Rotation

from characters.character import Character
from characters.pose import Posed, pose_character
from formats.fbx import write_fbx
from formats.gltf_file import GltfFile, content_of_uri
from formats.gltf_writer import Parts, animation_name, write_glb
from motion.clip import Clip
from motion.resample import FPS
from utils.reading.files import refusing

IMAGE_TYPES = {b"\x89PNG": "image/png", b"RIFF": "image/webp", b"\xabKTX 20": "image/ktx2"}  # by their first bytes


def write_character(path: str | Path, character: Character, clips: Sequence[Clip]) -> Path:
    """Write a character with an animation per clip, named by its title; all else of its file is kept.

    Args:
        path: ``.glb`` or ``.vrm``; or ``.fbx``, which Blender writes.

    Raises:
        InputError: unusable motion, or a target that cannot be written.
    """
    if Path(path).suffix.lower() == ".fbx":
        return write_fbx(path, lambda glb: write_character(glb, character, clips))
    with refusing(character.file.path, "a character", "export the character again"):
        document, binary = embedded(character.file)
    names = [animation.get("name") for animation in document.get("animations", [])]
    animations = list(document.get("animations", []))
    parts = Parts(document, binary)
    _without_matrices(character, document)
    for clip in clips:
        name = unused_name(clip.title, names)
        names.append(name)
        rights = {"extras": {"license": clip.rights}} if clip.rights else {}  # the copyright is that of the character
        animations.append({"name": name, **_animation(parts, character, pose_character(character, clip)), **rights})
    document["animations"] = animations
    document["buffers"][0]["byteLength"] = len(binary)
    return write_glb(path, document, binary)


def unused_name(title: str, names: Sequence[str | None]) -> str:
    """Return a title as the name of an animation, with a number if the name is used."""
    name, number = animation_name(title), 2
    found = name
    while found in names:
        found, number = f"{name} {number}", number + 1
    return found


def embedded(file: GltfFile) -> tuple[dict[str, Any], bytearray]:
    """Return a copy of the document with one buffer that holds all buffers and images of the file.

    Raises:
        InputError: an image cannot be read.
    """
    document = {key: list(value) if isinstance(value, list) else value for key, value in file.document.items()}
    binary, starts = bytearray(), []
    for content in file.buffers:
        binary += b"\0" * (-len(binary) % 4)
        starts.append(len(binary))
        binary += content
    views = document.setdefault("bufferViews", [])
    if len(starts) > 1:
        views[:] = [view | {"buffer": 0, "byteOffset": view.get("byteOffset", 0) + starts[view["buffer"]]}
                    for view in views]  # fmt: skip
    for number, image in enumerate(file.items("images")):
        if "uri" in image:
            content = content_of_uri(file, image["uri"])
            binary += b"\0" * (-len(binary) % 4)
            views.append({"buffer": 0, "byteOffset": len(binary), "byteLength": len(content)})
            kept = {key: value for key, value in image.items() if key != "uri"}
            document["images"][number] = {"mimeType": _image_type(content)} | kept | {"bufferView": len(views) - 1}
            binary += content
    first = {key: value for key, value in file.items("buffers")[0].items() if key != "uri"} if file.buffers else {}
    document["buffers"] = [first | {"byteLength": len(binary)}]
    return document, binary


def _image_type(content: bytes) -> str:
    return next((kind for start, kind in IMAGE_TYPES.items() if content.startswith(start)), "image/jpeg")


def _without_matrices(character: Character, document: dict[str, Any]) -> None:
    """Replace the matrices of animated nodes, which glTF forbids, with translation, rotation and scale."""
    nodes = character.nodes
    for node in (character.skeleton.nodes[drive.bone] for drive in character.drives):
        if "matrix" in document["nodes"][node]:
            kept = {key: value for key, value in document["nodes"][node].items() if key != "matrix"}
            document["nodes"][node] = kept | {
                "translation": nodes.translations[node].tolist(),
                "rotation": nodes.rotations[node].tolist(),
                "scale": nodes.scales[node].tolist(),
            }


def _animation(parts: Parts, character: Character, posed: Posed) -> dict[str, Any]:
    """Return the samplers and channels of an animation: rotations of the driven bones, translation of the pelvis."""
    skeleton = character.skeleton
    times = parts.add((np.arange(len(posed.turns), dtype=np.float32) / FPS)[:, None])
    samplers: list[dict[str, int]] = []
    channels: list[dict[str, Any]] = []

    def add(bone: int, path: str, values: np.ndarray) -> None:
        channels.append({"sampler": len(samplers), "target": {"node": skeleton.nodes[bone], "path": path}})
        samplers.append({"input": times, "output": parts.add(values.astype(np.float32))})

    for drive in character.drives:
        parent = skeleton.parents[drive.bone]
        above = posed.turns[:, parent] if parent >= 0 else character.axes.T
        add(drive.bone, "rotation", quaternions(np.swapaxes(above, -1, -2) @ posed.turns[:, drive.bone]))
    pelvis = character.pelvis
    path = posed.places[:, pelvis] * character.scale @ character.axes.T  # in the axes of the file
    parent = skeleton.parents[pelvis]
    above = np.linalg.inv(skeleton.pose[parent]) if parent >= 0 else np.eye(4)
    add(pelvis, "translation", path @ above[:3, :3].T + above[:3, 3])
    return {"samplers": samplers, "channels": channels}


def quaternions(turns: np.ndarray) -> np.ndarray:
    """Return unit quaternions x, y, z, w (T, 4) of rotations (T, 3, 3), whose signs are continuous over time."""
    values = Rotation.from_matrix(turns).as_quat()
    flips = np.where((values[1:] * values[:-1]).sum(axis=-1) < 0, -1.0, 1.0)
    values[1:] *= np.cumprod(flips)[:, None]
    return values
