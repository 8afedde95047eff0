"""The skeleton and the animation of a .glb file, as far as the add-on needs them; the standard library alone."""

import json
import struct
from array import array
from typing import Any

FLOAT = 5126
WIDTHS = {"translation": ("VEC3", 3), "rotation": ("VEC4", 4)}

Tracks = dict[tuple[str, str], list[tuple[float, ...]]]
"""Values per frame of the "translation" or "rotation" (x, y, z, w) of a bone, by (bone, path)."""


class Glb:
    """A .glb file with one binary chunk."""

    def __init__(self, content: bytes):
        _, _, size = struct.unpack_from("<4sII", content)
        length = struct.unpack_from("<I", content, 12)[0]
        self.document: dict[str, Any] = json.loads(content[20 : 20 + length])
        self.binary = bytearray(content[20 + length + 8 : size])

    def bones(self) -> dict[str, int]:
        """Return the nodes of the joints of all skins by name."""
        nodes = {joint for skin in self.document.get("skins", []) for joint in skin["joints"]}
        return {self.document["nodes"][node]["name"]: node for node in sorted(nodes)}

    def at_origin(self) -> None:
        """Remove translation and rotation of the nodes above the bones, so that motion is relative to the armature."""
        nodes, joints = self.document["nodes"], set(self.bones().values())
        for number, node in enumerate(nodes):
            if number not in joints and joints & set(node.get("children", [])):
                node.pop("translation", None)
                node.pop("rotation", None)

    def animation(self) -> tuple[str, Tracks]:
        """Return the name of the last animation and its values, one per frame."""
        names = {node: name for name, node in self.bones().items()}
        animation = self.document["animations"][-1]
        tracks: Tracks = {}
        for channel in animation["channels"]:
            bone, path = names.get(channel["target"]["node"]), channel["target"]["path"]
            if bone is not None and path in WIDTHS:
                tracks[bone, path] = self._values(animation["samplers"][channel["sampler"]]["output"])
        return animation["name"], tracks

    def _values(self, index: int) -> list[tuple[float, ...]]:
        accessor = self.document["accessors"][index]
        view = self.document["bufferViews"][accessor["bufferView"]]
        start = view.get("byteOffset", 0) + accessor.get("byteOffset", 0)
        width = 4 if accessor["type"] == "VEC4" else 3
        return list(struct.iter_unpack(f"<{width}f", self.binary[start : start + 4 * width * accessor["count"]]))

    def add_animation(self, name: str, tracks: Tracks) -> None:
        """Add an animation with 30 frames per second, as ``animation`` returns it."""
        bones = self.bones()
        count = len(next(iter(tracks.values())))
        times = self._add([(frame / 30,) for frame in range(count)], "SCALAR")
        samplers, channels = [], []
        for (bone, path), values in tracks.items():
            channels.append({"sampler": len(samplers), "target": {"node": bones[bone], "path": path}})
            samplers.append({"input": times, "output": self._add(values, WIDTHS[path][0])})
        animation = {"name": name, "samplers": samplers, "channels": channels}
        self.document.setdefault("animations", []).append(animation)

    def _add(self, values: list[tuple[float, ...]], kind: str) -> int:
        """Append values as an accessor and return its index."""
        self.binary += b"\0" * (-len(self.binary) % 4)
        numbers = array("f", [number for row in values for number in row]).tobytes()
        views, accessors = self.document["bufferViews"], self.document["accessors"]
        views.append({"buffer": 0, "byteOffset": len(self.binary), "byteLength": len(numbers)})
        accessors.append({"bufferView": len(views) - 1, "componentType": FLOAT, "count": len(values), "type": kind})
        if kind == "SCALAR":
            accessors[-1] |= {"min": list(min(values)), "max": list(max(values))}
        self.binary += numbers
        return len(accessors) - 1

    def to_bytes(self) -> bytes:
        """Return the content of the file."""
        self.document["buffers"][0]["byteLength"] = len(self.binary)
        text = json.dumps(self.document, separators=(",", ":")).encode()
        text += b" " * (-len(text) % 4)
        binary = bytes(self.binary) + b"\0" * (-len(self.binary) % 4)
        head = struct.pack("<4sIII4s", b"glTF", 2, 28 + len(text) + len(binary), len(text), b"JSON")
        return head + text + struct.pack("<I4s", len(binary), b"BIN\0") + binary
