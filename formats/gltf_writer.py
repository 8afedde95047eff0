"""Write binary glTF 2.0 (.glb): arrays in the only buffer of a document, and the file."""

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np

from utils.files import atomic_write

FLOAT, UINT, UBYTE = 5126, 5125, 5121  # component types of glTF
TYPES = {1: "SCALAR", 3: "VEC3", 4: "VEC4", 16: "MAT4"}  # by the number of values per element


class Parts:
    """The only buffer of a document, to which arrays are added.

    Args:
        document: Document of the file; its accessors and buffer views are extended in place.
        data: Content of the buffer, extended in place.
    """

    def __init__(self, document: dict[str, Any], data: bytearray):
        self.data = data
        self.views, self.accessors = (document.setdefault(name, []) for name in ("bufferViews", "accessors"))

    def add(
        self, values: np.ndarray, component: int = FLOAT, target: int | None = None, normalized: bool = False
    ) -> int:
        """Append an (N, width) array of the component type and return the index of its accessor."""
        self.data += b"\0" * (-len(self.data) % 4)
        view = {"buffer": 0, "byteOffset": len(self.data), "byteLength": values.nbytes}
        accessor: dict[str, Any] = {"bufferView": len(self.views), "componentType": component, "count": len(values)}
        accessor["type"] = TYPES[values.shape[1]]
        if component == FLOAT:  # required for positions and times
            accessor |= {"min": values.min(axis=0).tolist(), "max": values.max(axis=0).tolist()}
        self.views.append(view | ({"target": target} if target else {}))
        self.accessors.append(accessor | ({"normalized": True} if normalized else {}))
        self.data += values.tobytes()
        return len(self.accessors) - 1


def animation_name(title: str) -> str:
    """Return a title as the name of an animation."""
    return title.encode("utf-8", "replace").decode()[:400] or "motion"


def write_glb(path: str | Path, document: dict[str, Any], binary: bytes | bytearray) -> Path:
    """Write a document and its only buffer as .glb.

    Raises:
        InputError: the target cannot be written.
    """
    text = json.dumps(document, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()
    text += b" " * (-len(text) % 4)
    padding = b"\0" * (-len(binary) % 4)
    size = 12 + 8 + len(text) + 8 + len(binary) + len(padding)
    with atomic_write(Path(path)) as temporary, open(temporary, "wb") as out:
        out.write(struct.pack("<4sII", b"glTF", 2, size))
        out.write(struct.pack("<I4s", len(text), b"JSON") + text)
        out.write(struct.pack("<I4s", len(binary) + len(padding), b"BIN\0"))
        out.write(binary)
        out.write(padding)
    return Path(path)
