"""Changes of files: of bytes, of text, and of what is inside a format, so that it still opens."""

import io
import json
import os
import random
import re
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

NUMBERS = (
    "0 -1 1 2 3 7 255 65536 -2147483648 2147483648 4294967296 1000000000 1000000000000 9223372036854775807 "
    "9223372036854775808 18446744073709551616 1e-300 1e300 1e999 -1e999 nan NaN inf -Infinity 0.5 -0.0 1e-5 1:30 0x7f "
    f"1_000 {'9' * 400} {'9' * 5000}"
).split(" ")
WORDS = (
    "", " ", "null", "true", "[]", "{}", "[[]]", "''", '"', "'", "\\", "#", "|", ":", "- ", "[", "--", "-1", "--help",
    "{content.__class__}", "{content:>999999999}", "{0}", "%s", "(?P<content>", "left", "nan", "self", "config", "con",
    "../../../etc/passwd", "/dev/zero", "/", "\x00", "\x1b[31mred\x1b[0m", "\u202eabc", "\ud800", "\\ud800", "A" * 300,
    "é", "日本語", "😀", "\ufeff", "\u2028", "\x85", "\r", "&a", "*a", "<<: *a", "!!python/name:os.system",
    "2001-99-99", "2001-01-01", "class_path: evilmod.Evil", "__proto__", "!!binary x",
)  # fmt: skip
VALUES = (
    None, True, False, 0, -1, 5, 2**31, 2**63, 2**64, 10**12, 10**40, 1e308, float("inf"), float("nan"), 1e-300, 0.5,
    "", "5", "x" * 1000, "\x1b[31m", "\ud800", "../..", [], {}, [[]], [5], [None], ["a"], {"a": 5}, [[[[[[[[]]]]]]]],
)  # fmt: skip
IN_MEMORY = ("words.txt", "request.json")  # stand for what is not read from files
Random = random.Random


def mutate_folder(folder: Path, rng: Random, others: list[Path]) -> str:
    """Change one file of a folder.

    Args:
        folder: Copy of a seed, changed in place.
        rng: Source of all choices.
        others: Seeds of the same kind, to splice from.

    Returns:
        The name of the changed file and the changes, for the report.
    """
    file = rng.choice(sorted(path for path in folder.rglob("*") if path.is_file() and path.suffix != ".py"))
    name = str(file.relative_to(folder))
    if rng.random() < 0.03 and name not in IN_MEMORY:
        change = rng.choice((replaced_by_folder, replaced_by_fifo, replaced_by_device, removed, emptied))
        change(file)
        return f"{name}: {change.__name__}"
    if rng.random() < 0.05:
        return f"{name}: unchanged"
    content, changes = file.read_bytes(), []
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        change = rng.choice(changes_of(file.suffix))
        if change is splice:
            twins = [other / name for other in others if (other / name).is_file()]
            content = splice(content, rng, rng.choice(twins).read_bytes() if twins else content)
        else:
            content = change(content, rng)
        content = content[: 4 * 2**20]
        changes.append(change.__name__)
    file.write_bytes(content)
    return f"{name}: {', '.join(changes)}"


def changes_of(suffix: str) -> list[Callable]:
    """The changes that reach far into a file of this kind; those of bytes are for all."""
    of_bytes = [flip_bits, truncate, splice, repeat_part, remove_part, insert_noise, zero_part]
    of_text = [replace_number] * 4 + [replace_word] * 2 + [double_line, drop_line, swap_lines, nest, recode]
    kinds = {
        ".npy": [edit_npy_header] * 6 + [edit_floats] * 2,
        ".npz": [edit_npz_member] * 6 + [edit_npz_names] * 2,
        ".safetensors": [edit_safetensors_header] * 6 + [edit_floats] * 2,
        ".pth": [edit_pickle] * 6,
        ".json": [edit_json] * 10 + of_text,
        ".gltf": [edit_json] * 10 + of_text,
        ".jsonl": [edit_json_line] * 10 + of_text,
    }
    texts = of_text * 2 if suffix in (".txt", ".yaml", ".bvh") else []
    return of_bytes + kinds.get(suffix, texts)


# --- Another thing in place of the file


def replaced_by_folder(file: Path) -> None:
    file.unlink()
    file.mkdir()


def replaced_by_fifo(file: Path) -> None:
    file.unlink()
    os.mkfifo(file)


def replaced_by_device(file: Path) -> None:
    file.unlink()
    file.symlink_to("/dev/zero")


def removed(file: Path) -> None:
    file.unlink()


def emptied(file: Path) -> None:
    file.write_bytes(b"")


# --- Bytes


def part(content: bytes, rng: Random) -> tuple[int, int]:
    start = rng.randrange(len(content) + 1)
    return start, min(len(content), start + rng.choice((1, 4, 16, 200, 5000)))


def flip_bits(content: bytes, rng: Random) -> bytes:
    changed = bytearray(content)
    near = rng.choice((64, 512, len(content))) if content else 0  # headers are at the start
    for _ in range(rng.choice((1, 2, 8)) if content else 0):
        changed[rng.randrange(min(len(content), near))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def truncate(content: bytes, rng: Random) -> bytes:
    return content[: rng.randrange(len(content) + 1)]


def splice(content: bytes, rng: Random, other: bytes) -> bytes:
    return content[: rng.randrange(len(content) + 1)] + other[rng.randrange(len(other) + 1) :]


def repeat_part(content: bytes, rng: Random) -> bytes:
    start, end = part(content, rng)
    return content[:end] + content[start:end] * rng.choice((1, 2, 50)) + content[end:]


def remove_part(content: bytes, rng: Random) -> bytes:
    start, end = part(content, rng)
    return content[:start] + content[end:]


def insert_noise(content: bytes, rng: Random) -> bytes:
    start, end = part(content, rng)
    return content[:start] + rng.randbytes(end - start) + content[start:]


def zero_part(content: bytes, rng: Random) -> bytes:
    start, end = part(content, rng)
    return content[:start] + bytes(end - start) + content[end:]


def edit_floats(content: bytes, rng: Random) -> bytes:
    changed = bytearray(content)
    for _ in range(rng.choice((1, 1, 20)) if len(content) > 256 else 0):
        place = len(content) - 4 * rng.randrange(1, (len(content) - 128) // 4)
        struct.pack_into("<f", changed, place, rng.choice((0.0, -1.0, float("nan"), float("inf"), 1e38, 1e-38, 1e6)))
    return bytes(changed)


# --- Text


def encoded(text: str) -> bytes:
    """UTF-8; bytes that were not text come back, other halves of surrogate pairs become what UTF-8 has no room for."""
    return b"".join(
        c.encode("utf-8", "surrogateescape") if "\udc80" <= c <= "\udcff" else c.encode("utf-8", "surrogatepass")
        for c in text
    )


def text_change(change: Callable[[str, Random], str]) -> Callable[[bytes, Random], bytes]:
    def changed(content: bytes, rng: Random) -> bytes:
        return encoded(change(content.decode("utf-8", "surrogateescape"), rng))

    changed.__name__ = change.__name__
    return changed


def replace_one(pattern: str, text: str, rng: Random, replacements: tuple[str, ...]) -> str:
    found = list(re.finditer(pattern, text))
    if not found:
        return text + rng.choice(replacements)
    place = rng.choice(found)
    return text[: place.start()] + rng.choice(replacements) + text[place.end() :]


@text_change
def replace_number(text: str, rng: Random) -> str:
    head = rng.choice((400, len(text)))  # what numbers mean stands at the start
    return replace_one(r"-?\d+(\.\d+)?(e-?\d+)?", text[:head], rng, tuple(NUMBERS)) + text[head:]


@text_change
def replace_word(text: str, rng: Random) -> str:
    return replace_one(r"[^\s,:;\[\]{}]+", text, rng, WORDS)


@text_change
def double_line(text: str, rng: Random) -> str:
    lines = text.split("\n")
    place = rng.randrange(len(lines))
    return "\n".join(
        lines[: place + 1] + lines[place : place + rng.choice((1, 3))] * rng.choice((1, 20)) + lines[place + 1 :]
    )


@text_change
def drop_line(text: str, rng: Random) -> str:
    lines = text.split("\n")
    del lines[rng.randrange(len(lines))]
    return "\n".join(lines)


@text_change
def swap_lines(text: str, rng: Random) -> str:
    lines = text.split("\n")
    one, other = rng.randrange(len(lines)), rng.randrange(len(lines))
    lines[one], lines[other] = lines[other], lines[one]
    return "\n".join(lines)


@text_change
def nest(text: str, rng: Random) -> str:
    before, after, depth = (
        *rng.choice((("[", "]"), ('{"a":', "}"), ("{", "}"), ("- ", ""), ("(", ")"))),
        rng.choice((5, 40, 3000)),
    )
    place = rng.randrange(len(text) + 1)
    return text[:place] + before * depth + "1" + after * rng.choice((0, depth)) + text[place:]


def recode(content: bytes, rng: Random) -> bytes:
    text = content.decode("utf-8", "replace")
    encoding = rng.choice(("utf-8-sig", "utf-16", "utf-16-le", "utf-32", "latin-1", "cp037", "\r\n", "\r"))
    if encoding in ("\r\n", "\r"):
        return text.replace("\n", encoding).encode()
    return text.encode(encoding, "replace")


# --- Inside of a format


def edit_npy_header(content: bytes, rng: Random) -> bytes:
    """Change the text of the header; its length is put right."""
    if len(content) < 10:
        return content
    length = int.from_bytes(content[8:10], "little")
    header = content[10 : 10 + length].rstrip()
    if rng.random() < 0.3:
        kinds = (
            b"'|O'",
            b"'<U0'",
            b"'<M8[s]'",
            b"'<c16'",
            b"'|V8'",
            b"'<f2'",
            b"'>f8'",
            b"[('a', '<f4')]",
            b"'|b1'",
            b"'<u8'",
        )
        header = re.sub(rb"'[<>|=][^']*'", lambda _: rng.choice(kinds), header, count=1)
    elif rng.random() < 0.2:
        header = re.sub(
            rb"\([^)]*\)",
            lambda _: rng.choice((b"()", b"(0, 272)", b"(-1, 85)", b"(10000000000000, 0)", b"(8, 85")),
            header,
        )
    else:
        header = rng.choice((replace_number, replace_number, replace_word, nest))(header, rng)
    header = header[:60_000].ljust(117) + b"\n"
    return content[:8] + len(header).to_bytes(2, "little") + header + content[10 + length :]


def repack(members: list[tuple[str, bytes]], compression: int) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as archive:
        for name, content in members:
            archive.writestr(zipfile.ZipInfo(name), content, compression)
    return file.getvalue()


def unpacked(content: bytes) -> list[tuple[str, bytes]]:
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            return [(member.filename, archive.read(member)) for member in archive.infolist()]
    except Exception:  # an earlier change damaged it
        return []


def edit_npz_member(content: bytes, rng: Random) -> bytes:
    members = unpacked(content)
    if not members:
        return content
    place = rng.randrange(len(members))
    name, member = members[place]
    change = rng.choice((edit_npy_header, edit_npy_header, edit_npy_header, edit_floats, truncate, flip_bits))
    members[place] = name, change(member, rng)
    return repack(members, zipfile.ZIP_DEFLATED)


def edit_npz_names(content: bytes, rng: Random) -> bytes:
    """Drop, exchange, rename or add a member; one of the added is a bomb."""
    members = unpacked(content)
    if not members:
        return content
    one, other = rng.randrange(len(members)), rng.randrange(len(members))
    match rng.randrange(5):
        case 0:
            del members[one]
        case 1:
            members[one], members[other] = (members[one][0], members[other][1]), (members[other][0], members[one][1])
        case 2:
            members[one] = (
                rng.choice(("a", "../x.npy", "/x.npy", "poses.npy", "smplx_85.npy", "é.npy")),
                members[one][1],
            )
        case 3:
            header = (
                b"\x93NUMPY\1\0v\0"
                + b"{'descr': '|u1', 'fortran_order': False, 'shape': (50000000,), }".ljust(117)
                + b"\n"
            )
            members[one] = members[one][0], header + bytes(50_000_000)
        case 4:
            return repack(members, rng.choice((zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)))
    return repack(members, zipfile.ZIP_DEFLATED)


def edit_safetensors_header(content: bytes, rng: Random) -> bytes:
    if len(content) < 8 or int.from_bytes(content[:8], "little") > len(content):
        return content
    length = int.from_bytes(content[:8], "little")
    header = rng.choice((edit_json, edit_json, replace_number, replace_word, nest))(content[8 : 8 + length], rng)
    header = header.ljust(-(-len(header) // 8) * 8)
    return len(header).to_bytes(8, "little") + header + content[8 + length :]


def edit_pickle(content: bytes, rng: Random) -> bytes:
    """Change the pickle of a torch archive, and leave its checksums right."""
    members = unpacked(content)
    if not members:
        return flip_bits(content, rng)
    place = next((i for i, (name, _) in enumerate(members) if name.endswith("data.pkl")), 0)
    if rng.random() < 0.2:
        place = rng.randrange(len(members))
    change = rng.choice((flip_bits, flip_bits, truncate, remove_part, repeat_part, insert_noise))
    members[place] = members[place][0], change(members[place][1], rng)
    return repack(members, rng.choice((zipfile.ZIP_STORED,) * 5 + (zipfile.ZIP_DEFLATED,)))


def edit_json(content: bytes, rng: Random) -> bytes:
    """Replace, remove or add a value somewhere in JSON."""
    try:
        value = json.loads(content)
    except Exception:  # an earlier change damaged it
        return replace_number(content, rng)
    places = []  # container and key of each value
    waiting = [value]
    while waiting:
        container = waiting.pop()
        if isinstance(container, (dict, list)):
            keys = list(container) if isinstance(container, dict) else range(len(container))
            places.extend((container, key) for key in keys)
            waiting.extend(container[key] for key in keys)
    if not places or rng.random() < 0.05:
        return json.dumps(rng.choice(VALUES)).encode()
    container, key = rng.choice(places)
    if rng.random() < 0.15:
        del container[key]
    elif rng.random() < 0.1 and isinstance(container, dict):
        container[rng.choice(WORDS)] = rng.choice(VALUES)
    else:
        container[key] = rng.choice(VALUES)
    return json.dumps(value).encode()


def edit_json_line(content: bytes, rng: Random) -> bytes:
    lines = content.split(b"\n")
    place = rng.randrange(len(lines))
    lines[place] = edit_json(lines[place], rng)
    return b"\n".join(lines)
