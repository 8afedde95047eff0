"""Characters in the renderer: their meshes in motion, with the colours of materials, textures and vertices."""

import io
import warnings
from typing import Any

import numpy as np
import scipy.sparse
from einops import rearrange

from characters.character import Character
from characters.pose import joints_of, pose_character
from formats.gltf_file import GltfFile, content_of_uri
from formats.gltf_mesh import MeshPart
from motion.clip import AnyMotion
from motion.skeleton import JOINT_INDEX
from utils.errors import InputError
from utils.reading.files import naming
from visualize.actors import Actor
from visualize.camera import FLESH

CORNERS = 0.1 + 0.7 * np.eye(3)  # places of a face whose colours its corners have; not on the border to another face
MAX_PIXELS = 2**26  # of a texture
TALLEST = 1.85  # metres: taller characters are drawn smaller
SEEN = 0.5  # opacity from which a face is drawn


class CharacterMesh:
    """The mesh of a character, ready to be posed; all parts are one mesh, joined where their vertices coincide."""

    def __init__(self, character: Character):
        self.character = character
        shades, faces, places, bones, weights, start = [], [], [], [], [], 0
        most = max((part.bones.shape[1] for part in character.parts), default=1)
        textures: dict[int, np.ndarray] = {}
        with naming(character.file.path):
            for part in character.parts:
                colors = _corner_colors(character.file, part, textures)
                seen = colors[..., 3].mean(axis=1) >= SEEN
                shades.append(colors[seen][..., :3])
                faces.append(part.faces[seen] + start)
                places.append(part.vertices @ character.axes / character.scale)
                wide = ((0, 0), (0, most - part.bones.shape[1]))
                bones.append(np.pad(part.bones, wide))
                weights.append(np.pad(part.weights, wide))
                start += len(part.vertices)
            if not start:
                raise InputError("it has no mesh that its bones move, so that there is nothing to draw")
        self.colors = np.concatenate(shades).astype(np.float32)
        vertices = np.concatenate(places)
        top = vertices[:, 1].max()
        self.size = min(1.0, TALLEST / max(top, 1e-6))
        head = character.bones.joints["head"]
        crown = character.rest_places[head] * (1, 0, 1) + (0, top - FLESH / self.size, 0)
        self._crown = (crown - character.rest_places[head]) @ character.rest_turns[head]
        self._weld(vertices, np.concatenate(bones), np.concatenate(weights), np.concatenate(faces))

    def perform(self, motion: AnyMotion) -> Actor:
        """Return the character as it performs a motion."""
        posed = pose_character(self.character, motion)
        joints, head = joints_of(self.character, posed), self.character.bones.joints["head"]
        joints[:, JOINT_INDEX["head"]] += posed.turns[:, head] @ self._crown  # which the camera keeps in the picture
        transforms = np.concatenate((posed.turns, posed.places[..., None]), axis=-1).astype(np.float32)  # (T, J, 3, 4)

        def vertices(frames: np.ndarray) -> np.ndarray:
            moved = self._skin @ rearrange(transforms[frames], "t j row column -> (j column) (t row)")
            return self.size * np.ascontiguousarray(rearrange(moved, "v (t row) -> t v row", row=3))

        return Actor(self.size * joints, vertices, self._skin.shape[0], self.faces, self.colors, True)

    def _weld(self, places: np.ndarray, bones: np.ndarray, weights: np.ndarray, faces: np.ndarray) -> None:
        """Join vertices that coincide, for smooth normals, and make the skinning matrix (V, 4 J)."""
        keys = np.concatenate((places * 1e4, bones, weights * 100), axis=1).round().astype(np.int64)
        _, first, of_vertex = np.unique(keys, axis=0, return_index=True, return_inverse=True)
        self.faces = of_vertex.reshape(-1)[faces].astype(np.int32)
        places, bones, weights = places[first], bones[first], weights[first]
        local = (places[:, None] - self.character.rest_places[bones])[..., None, :] @ self.character.rest_turns[bones]
        entries = np.concatenate((local[..., 0, :], np.ones((*bones.shape, 1))), axis=-1) * weights[..., None]
        columns = bones[..., None] * 4 + np.arange(4)
        rows = np.repeat(np.arange(len(places)), 4 * bones.shape[1])
        shape = (len(places), 4 * len(self.character.rest_places))
        self._skin = scipy.sparse.csr_array((entries.ravel().astype(np.float32), (rows, columns.ravel())), shape=shape)


def _corner_colors(file: GltfFile, part: MeshPart, textures: dict[int, np.ndarray]) -> np.ndarray:
    """Return the sRGB colours and opacities (F, 3, 4) in 0..1 of the corners of the faces of a part."""
    material = part.material
    surface = material.get("pbrMetallicRoughness", {})
    factor = np.array(surface.get("baseColorFactor", [1.0] * 4), dtype=np.float64)
    linear = np.tile(factor, (len(part.faces), 3, 1))
    if "COLOR_0" in part.attributes:
        colors = part.attributes["COLOR_0"][part.faces]
        linear[..., : colors.shape[-1]] *= colors
    info = surface.get("baseColorTexture")
    if info and (texture := _texture(file, info.get("index"), textures)) is not None:
        coordinates = part.attributes.get(f"TEXCOORD_{info.get('texCoord', 0)}")
        if coordinates is not None and coordinates.shape[1] == 2:
            linear *= _sampled(texture, CORNERS @ coordinates[part.faces])
    linear = np.clip(linear, 0, 1)
    colors = np.where(linear <= 0.0031308, linear * 12.92, 1.055 * linear ** (1 / 2.4) - 0.055)
    colors[..., 3] = linear[..., 3] if material.get("alphaMode", "OPAQUE") != "OPAQUE" else 1
    return colors


def _sampled(texture: np.ndarray, coordinates: np.ndarray) -> np.ndarray:
    """Return the linear colours (..., 4) of a repeated texture (H, W, 4) at coordinates (..., 2)."""
    height, width = texture.shape[:2]
    columns = (np.floor(coordinates[..., 0] * width).astype(np.int64)) % width
    rows = (np.floor(coordinates[..., 1] * height).astype(np.int64)) % height
    return texture[rows, columns]


def _texture(file: GltfFile, index: Any, textures: dict[int, np.ndarray]) -> np.ndarray | None:
    """Return a texture as linear colours (H, W, 4); None for formats that are not read."""
    source = file.item("textures", index).get("source")
    if source is None:
        return None
    if source not in textures:
        image = file.item("images", source)
        content = content_of_uri(file, image["uri"]) if "uri" in image else bytes(file.view(image.get("bufferView")))
        textures[source] = _linear(content)
    return textures[source]


def _linear(content: bytes) -> np.ndarray:
    """Decode a PNG or JPEG picture into linear colours (H, W, 4) in 0..1, float32."""
    from PIL import Image

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            with Image.open(io.BytesIO(content), formats=("PNG", "JPEG", "WEBP")) as image:
                if image.width * image.height > MAX_PIXELS:
                    raise ValueError("too many pixels")
                values = np.asarray(image.convert("RGBA"), dtype=np.float32) / 255
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            raise InputError(
                f"it has a texture that is damaged or has over {MAX_PIXELS} pixels; export it again"
            ) from error
    rgb = values[..., :3]
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    return np.concatenate((linear, values[..., 3:]), axis=-1).astype(np.float32)
