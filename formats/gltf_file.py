"""Read glTF 2.0 files (.glb, .gltf, .vrm): the JSON document and the bytes of its buffers.

The document stays the dictionary of the file, so that everything in it, known here or not, is kept when it is written
again (``formats/gltf_writer.py``). The glTF libraries on PyPI at the time of writing do not: pygltflib 1.16 loses the
blend shape weights of nodes and empty or null values of extras, and adds defaults where they are not allowed.
"""

import base64
import binascii
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from utils.errors import InputError, shown
from utils.reading.files import MB, is_inside, read_bytes, refusing
from utils.reading.texts import parse_json

MAX_BYTES = 512 * MB  # of a file, and of all its buffers
ADVICE = "export the file again"
COMPRESSIONS = {"KHR_draco_mesh_compression": "Draco", "EXT_meshopt_compression": "meshopt"}


@dataclass
class GltfFile:
    """A glTF file."""

    path: Path
    document: dict[str, Any]
    buffers: list[bytes]

    def items(self, name: str) -> list[dict[str, Any]]:
        """Return the list ``name`` of the document, for example the nodes; empty if the file has none.

        Raises:
            InputError: it is no list of objects.
        """
        found = self.document.get(name, [])
        if not isinstance(found, list) or not all(isinstance(item, dict) for item in found):
            raise InputError(f"its {name} are no list of objects")
        return found

    def item(self, name: str, index: Any) -> dict[str, Any]:
        """Return one of ``items``.

        Raises:
            InputError: there is no such item.
        """
        return self.items(name)[checked_index(index, len(self.items(name)), name)]

    def view(self, index: Any) -> memoryview:
        """Return the bytes of a buffer view.

        Raises:
            InputError: the view is compressed, or not inside its buffer.
        """
        view = self.item("bufferViews", index)
        refuse_compression(view)
        buffer = self.buffers[checked_index(view.get("buffer"), len(self.buffers), "buffers")]
        start, size = whole(view.get("byteOffset", 0), "a byteOffset"), whole(view.get("byteLength"), "a byteLength")
        if start + size > len(buffer):
            raise InputError(f"buffer view {index} ends at byte {start + size} of a buffer of {len(buffer)}")
        return memoryview(buffer)[start : start + size]


def read_gltf(path: str | Path) -> GltfFile:
    """Read a glTF file with all of its buffers; nothing outside its folder is opened.

    Raises:
        InputError: the file is missing, truncated, too large, or not glTF 2.0; or a buffer is missing, remote or
            outside the folder.
    """
    path = Path(path)
    content = read_bytes(path, "glTF", MAX_BYTES)
    with refusing(path, "glTF", ADVICE):
        text, binary = _chunks(content) if content[:4] == b"glTF" else (content, None)
        try:
            document = parse_json(bytes(text))
        except InputError as error:
            raise InputError(f"its document is {error}") from error
        asset = document.get("asset") if isinstance(document, dict) else None
        if not isinstance(asset, dict) or not str(asset.get("version", "")).startswith("2."):
            raise InputError("it is no glTF 2.0")
        file = GltfFile(path, document, [])
        for number, buffer in enumerate(file.items("buffers")):
            file.buffers.append(_buffer(file, buffer, binary if number == 0 else None))
            if sum(map(len, file.buffers)) > MAX_BYTES:
                raise InputError(f"its buffers have more than {MAX_BYTES // MB} MB")
        return file


def refuse_compression(item: dict[str, Any]) -> None:
    """Raise InputError if a buffer view or a primitive of a mesh is compressed."""
    for extension, name in COMPRESSIONS.items():
        if extension in (item.get("extensions") or {}):
            raise InputError(f"it is compressed with {name}, which is not read; export it without compression")


def checked_index(index: Any, count: int, name: str) -> int:
    """Return an index of the document; raise InputError unless it is from 0 to ``count`` - 1."""
    if not isinstance(index, int) or isinstance(index, bool) or not 0 <= index < count:
        raise InputError(f"it names number {shown(index, 20)} of its {name}, of which there are {count}")
    return index


def whole(value: Any, name: str) -> int:
    """Return a size or an offset of the document; raise InputError unless it is a whole number from 0 to 2^40."""
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= 2**40:
        raise InputError(f"it has {name} of {shown(value, 20)}")
    return value


def file_of_uri(folder: Path, uri: str) -> Path:
    """Return the file that a relative URI names.

    Raises:
        InputError: it is remote, or outside the folder.
    """
    name = unquote(uri)
    if ":" in name or "\\" in name or not is_inside(name):
        raise InputError(f"it refers to {shown(name, 60)!r}, and only files in its own folder are opened")
    path = folder / name
    if not path.resolve().is_relative_to(folder.resolve()):
        raise InputError(f"{shown(name, 60)!r} leads out of its folder, and only files in its own folder are opened")
    return path


def content_of_uri(file: GltfFile, uri: Any) -> bytes:
    """Return the bytes of a data URI or of a file in the folder of the glTF file.

    Raises:
        InputError: it is no such URI, or the file cannot be read.
    """
    if not isinstance(uri, str):
        raise InputError(f"it has the URI {shown(uri, 40)}")
    if not uri.startswith("data:"):
        return read_bytes(file_of_uri(file.path.parent, uri), "the data of a glTF file", MAX_BYTES)
    header, _, text = uri.partition(",")
    if not header.endswith(";base64"):
        raise InputError("it has a data URI that is not in base64")
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error as error:
        raise InputError(f"it has a damaged data URI ({error})") from error


def _chunks(content: bytes) -> tuple[memoryview, memoryview | None]:
    """Return the JSON and the binary chunk of a .glb."""
    if len(content) < 20:
        raise InputError(f"it has {len(content)} bytes and is cut off")
    _, version, size = struct.unpack_from("<4sII", content)
    if version != 2:
        raise InputError(f"it is glTF {version}, and glTF 2.0 is read; convert it")
    if size > len(content):
        raise InputError(f"it is cut off: {len(content)} of {size} bytes")
    chunks: list[tuple[bytes, memoryview]] = []
    start = 12
    while start + 8 <= size and len(chunks) < 2:
        length, kind = struct.unpack_from("<I4s", content, start)
        if start + 8 + length > size:
            raise InputError(f"it is cut off: a chunk ends at byte {start + 8 + length} of {size}")
        chunks.append((kind, memoryview(content)[start + 8 : start + 8 + length]))
        start += 8 + length
    if not chunks or chunks[0][0] != b"JSON":
        raise InputError("its first chunk is not JSON")
    return chunks[0][1], chunks[1][1] if len(chunks) > 1 and chunks[1][0] == b"BIN\0" else None


def _buffer(file: GltfFile, buffer: dict[str, Any], binary: memoryview | None) -> bytes:
    size = whole(buffer.get("byteLength"), "a byteLength")
    content = content_of_uri(file, buffer["uri"]) if "uri" in buffer else bytes(binary or b"")
    if len(content) < size:
        raise InputError(f"a buffer of {size} bytes has {len(content)}")
    return content[:size]
