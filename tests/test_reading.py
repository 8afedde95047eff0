"""Readers of foreign files: what is good is read, everything else is one sentence, and nothing large is allocated."""

import io
import json
import os
import pickle
import struct
import time
import zipfile
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from utils.errors import InputError, shown
from utils.reading.arrays import read_npy, read_npy_header, read_npz
from utils.reading.files import open_regular
from utils.reading.tensors import check_shapes, open_safetensors, read_config, read_safetensors_header
from utils.reading.texts import (
    check_template,
    parse_json,
    parse_yaml,
    read_json,
    read_json_lines,
    read_lines,
    read_text,
    read_yaml,
)
from utils.reading.torch_files import read_state_dict


class MakesFile:
    """Unpickled, it makes a file."""

    def __init__(self, file: Path):
        self.file = file

    def __reduce__(self):
        return Path.touch, (self.file,)


@pytest.fixture
def refused(tmp_path):
    """Calls a reader on a file of given content; returns the sentence that refuses it."""

    def refuse(reader, content: bytes | str | Path, **arguments) -> str:
        path = content
        if not isinstance(content, Path):
            path = tmp_path / "file"
            path.write_bytes(content.encode() if isinstance(content, str) else content)
        started = time.perf_counter()
        with pytest.raises(InputError) as caught:
            result = reader(path, **arguments)
            list(result)  # of a generator
        message = str(caught.value)
        assert str(path) in message and len(message) < 500 and message.isprintable(), message
        assert time.perf_counter() - started < 5
        return message

    return refuse


def npy(shape: object, descr: str = "'<f4'", data: bytes = b"", version: bytes = b"\1\0") -> bytes:
    """An .npy file whose header promises ``shape``."""
    header = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}".ljust(117).encode() + b"\n"
    return b"\x93NUMPY" + version + struct.pack("<H" if version == b"\1\0" else "<I", len(header)) + header + data


def npz(*members: tuple[str, bytes], compression: int = zipfile.ZIP_DEFLATED) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as archive:
        for name, content in members:
            archive.writestr(name, content)
    return file.getvalue()


def safetensors(header: object, data: bytes = b"") -> bytes:
    header = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(header).to_bytes(8, "little") + header + data


# --- Files


def test_shown_text_is_one_printable_line():
    assert shown("a\nb\x1b[31m\u202e\ud800é") == "a\\nb\\x1b[31m\\u202e\\ud800é"
    assert len(shown("x" * 10**7)) == 80 and shown("x" * 100 + "end").endswith("end")


@pytest.mark.parametrize("reader", [read_text, read_json, read_yaml, read_npy, read_npz, read_state_dict])
def test_only_regular_files_are_read(reader, tmp_path, refused):
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    for path in (fifo, tmp_path, Path("/dev/zero")):
        assert "regular file" in refused(reader, path)
    assert "missing" in refused(reader, tmp_path / "absent")


def test_files_over_the_limit_are_refused(refused):
    assert "11 bytes, more than the 10" in refused(read_text, b"0123456789\n", most=10)


def test_errors_of_a_library_name_the_file(tmp_path):
    file = tmp_path / "file"
    file.touch()
    for error in (KeyError("x"), RuntimeError("a\nb"), MemoryError(), RecursionError(), OSError(5, "I/O error")):
        with pytest.raises(InputError, match="file: "), open_regular(file, "text"):
            raise error


# --- Text, JSON, YAML


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_text_is_read_in_every_unicode_encoding(encoding, tmp_path):
    file = tmp_path / "text"
    file.write_bytes("größer\r\nb\u2028c\rd\n".encode(encoding))
    assert read_text(file) == "größer\nb\u2028c\nd\n"
    assert read_lines(file) == ["größer", "b\u2028c", "d"]


def test_text_with_bytes_of_something_else_is_refused(refused):
    assert "UTF-16" in refused(read_text, "ab".encode("utf-16-le"))
    assert "UTF-8" in refused(read_text, b"\xe9t\xe9")
    refused(read_text, b"\xff\xfea")  # half a character
    refused(read_text, b"a\0b")


def test_json_of_every_kind_is_read(tmp_path):
    file = tmp_path / "file.json"
    value = {"a": [1, -2.5, None, True, "é😀"], "b": {"c": 2**63 - 1}}
    file.write_text(json.dumps(value), encoding="utf-16")
    assert read_json(file) == value
    file.write_text('{"a": 1}\r\n\r\n[2]\n', newline="")
    assert list(read_json_lines(file)) == [(1, {"a": 1}), (3, [2])]
    assert parse_json("Infinity", finite=False) == np.inf


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "NaN",
        "-Infinity",
        "1e999",
        "9" * 30,
        "9" * 10_000,
        "[" * 100_000,
        "[" * 40 + "]" * 40,
        '{"a":' * 50 + "1" + "}" * 50,
        r'"\ud800"',
        r'{"\ud800": 1}',
    ],
)
def test_json_that_breaks_programs_is_refused(text, refused):
    refused(read_json, text)
    if text:
        assert "line 2" in refused(read_json_lines, f"1\n{text}\n")


def test_yaml_is_plain_data(tmp_path):
    file = tmp_path / "file.yaml"
    file.write_text("a: &x [1, 2.5, yes, text, 2001-99-99]\nb: *x\nc: {<<: {d: 1}}\n")
    assert read_yaml(file) == {"a": (a := [1, 2.5, True, "text", "2001-99-99"]), "b": a, "c": {"d": 1}}
    assert parse_yaml("") is None


@pytest.mark.parametrize(
    "text",
    [
        "a: !!python/object/apply:os.system ['touch EXECUTED']",
        "!!python/name:os.system",
        "a: !mine b",
        "a: !!timestamp 2001-01-01",
        "&a {steps: *a}",
        "a: *b",
        "[" * 1000,
        "- " * 1000 + "a",
        "a: " + "9" * 10_000,
        "a: b: c",
        "{[a]: b}",
        "a:\n\tb",
        "\x01",
        "--- a\n--- b",
    ],
)
def test_yaml_that_breaks_programs_is_refused(text, refused, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    refused(read_yaml, text)
    assert not (tmp_path / "EXECUTED").exists()


def test_yaml_aliases_that_unfold_to_millions_are_refused(refused):
    lines = ["a0: &a0 [x,x,x,x,x,x,x,x,x,x]"]
    lines += [f"a{i}: &a{i} [{','.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 10)]
    assert "aliases" in refused(read_yaml, "\n".join(lines))
    merges = ["a0: &a0 {x: 1}", *(f"a{i}: &a{i} {{<<: [{','.join([f'*a{i - 1}'] * 9)}]}}" for i in range(1, 10))]
    assert "aliases" in refused(read_yaml, "\n".join(merges))


def test_template_fields_are_names_alone():
    check_template("a {content} {{b}} {style}", ("content", "style"))
    for template in ("{}", "{0}", "{other}", "{content.__class__}", "{content[0]}", "{content:>999999999}",
                     "{content!r}", "{content:{style}}", "{content", "}"):  # fmt: skip
        with pytest.raises(InputError, match="template"):
            check_template(template, ("content", "style"))


# --- NumPy


@pytest.mark.parametrize("array", [np.zeros((3, 2), "f4"), np.array(5), np.array("text"), np.zeros((0, 272)),
                                   np.asfortranarray(np.arange(6).reshape(2, 3))])  # fmt: skip
def test_arrays_are_read(array, tmp_path):
    np.save(tmp_path / "a.npy", array)
    np.savez_compressed(tmp_path / "a.npz", a=array, b=1)
    for got in (
        read_npy(tmp_path / "a.npy"),
        read_npy(tmp_path / "a.npy", mapped=True),
        read_npz(tmp_path / "a.npz")["a"],
    ):
        np.testing.assert_array_equal(got, array)
        assert got.dtype == array.dtype
    assert read_npy_header(tmp_path / "a.npy") == (array.shape, array.dtype)
    assert list(read_npz(tmp_path / "a.npz", ("b", "c"))) == ["b"]


HOSTILE_NPY = {
    "empty": b"",
    "magic alone": b"\x93NUMPY\1\0",
    "claims more than it has": npy("(10000000000, 85)"),
    "claims a product beyond 64 bits": npy((2**40, 2**40)),
    "negative": npy((-1, 85), data=bytes(340)),
    "truth as length": npy("(True, 85)", data=bytes(340)),
    "unclosed tuple": npy("(8, 85"),
    "no tuple": npy("8"),
    "nested": npy("(" * 60),
    "empty rows": npy((10**12, 0)),
    "texts of no length": npy((10**12,), "'<U0'"),
    "objects": npy((1,), "'|O'", pickle.dumps([1])),
    "records": npy((1,), "[('a', '<f4')]", bytes(4)),
    "subarrays": npy((1,), "('<f4', (1000000000,))", bytes(4)),
    "dates": npy((1,), "'<M8[s]'", bytes(8)),
    "code": npy("__import__('os').system('touch EXECUTED')"),
    "version 9": npy((1,), data=bytes(4), version=b"\x09\0"),
    "cut": npy((2,), data=bytes(7)),
}


@pytest.mark.parametrize("name", HOSTILE_NPY)
def test_hostile_arrays_are_refused(name, refused, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    content = HOSTILE_NPY[name]
    refused(read_npy_header, content)
    refused(read_npy, content)
    refused(read_npy, content, mapped=True)
    refused(read_npz, npz(("a.npy", content)))
    refused(read_npz, content)  # no archive
    assert not (tmp_path / "EXECUTED").exists()


def test_arrays_of_python_objects_do_not_run(refused, tmp_path):
    np.save(tmp_path / "a.npy", np.array([MakesFile(tmp_path / "EXECUTED")], dtype=object))
    refused(read_npy, tmp_path / "a.npy")
    refused(read_npz, npz(("a.npy", (tmp_path / "a.npy").read_bytes())))
    refused(read_npz, pickle.dumps(MakesFile(tmp_path / "EXECUTED")))
    assert not (tmp_path / "EXECUTED").exists()


def test_archives_that_unpack_to_much_are_refused(refused):
    bomb = npz(("a.npy", npy((300 * 2**18,), data=bytes(300 * 2**20))))
    assert len(bomb) < 2**20 and "MB" in refused(read_npz, bomb)
    assert "MB" in refused(read_npz, npz(("a.npy", npy((10**6,), data=bytes(4 * 10**6)))), most=10**6)
    assert "members" in refused(read_npz, npz(*((f"{i}.npy", b"") for i in range(1001))))
    small = npy((1,), data=bytes(4))
    with pytest.warns(UserWarning, match="Duplicate"):
        twice = npz(("a.npy", small), ("a.npy", small))
    assert "twice" in refused(read_npz, twice)
    refused(read_npz, npz(("a.npy", small), compression=zipfile.ZIP_LZMA))
    good = npz(("a.npy", small))
    for cut in range(0, len(good), 7):
        refused(read_npz, good[:cut])
    encrypted = bytearray(good)
    encrypted[good.index(b"PK\1\2") + 8] |= 1
    refused(read_npz, bytes(encrypted))
    damaged = bytearray(npz(("a.npy", small), compression=zipfile.ZIP_STORED))
    damaged[damaged.index(b"PK\1\2") - 1] ^= 1
    refused(read_npz, bytes(damaged))  # its checksum


# --- Weights


@pytest.fixture
def weights(tmp_path) -> Path:
    save_file({"b": torch.zeros(2), "a": torch.ones(2, 3, dtype=torch.bfloat16)}, tmp_path / "weights", {"x": "y"})
    return tmp_path / "weights"


def test_safetensors_header_is_what_the_file_holds(weights):
    header = read_safetensors_header(weights)
    assert header.tensors == {"b": (torch.float32, (2,)), "a": (torch.bfloat16, (2, 3))}
    assert header.metadata == {"x": "y"}
    with open_safetensors(weights) as file:
        assert file.get_tensor("a").sum() == 6


def test_damaged_safetensors_are_refused(weights, refused):
    def entry(**changes):
        return {"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]} | changes}

    content = weights.read_bytes()
    for cut in range(0, len(content), 5):
        refused(read_safetensors_header, content[:cut])
    for header in (
        b"\xff" * 8,
        b"[" * 1000,
        [],
        {"a": 5},
        {"a": {}},
        entry(dtype="F31"),
        entry(dtype=[]),
        entry(shape=[10**12]),
        entry(shape=[-1]),
        entry(shape=[True]),
        entry(shape=5),
        entry(data_offsets=[4, 0]),
        entry(data_offsets=[1, 5]),
        entry(data_offsets=[0, 2**63]),
        entry() | {"b": entry()["a"]},
        entry() | {"__metadata__": {"x": 5}},
    ):
        refused(read_safetensors_header, safetensors(header, bytes(4)))
    refused(read_safetensors_header, (2**63).to_bytes(8, "little") + b"{}")
    refused(read_safetensors_header, safetensors(entry(), bytes(5)))
    with pytest.raises(InputError, match="weights"), open_safetensors(weights) as file:
        file.get_tensor("absent")


@pytest.mark.parametrize("zipped", [True, False])
def test_state_dicts_are_read(zipped, tmp_path):
    tensors = {"a": torch.ones(3), "b": torch.arange(4).view(2, 2).T}
    torch.save({"net": tensors, "step": 5}, tmp_path / "file.pth", _use_new_zipfile_serialization=zipped)
    read = read_state_dict(tmp_path / "file.pth", "net")
    assert list(read) == ["a", "b"] and torch.equal(read["b"], tensors["b"])


def test_torch_files_that_are_not_plain_tensors_are_refused(tmp_path, refused):
    def saved(content, **settings) -> bytes:
        torch.save(content, file := io.BytesIO(), **settings)
        return file.getvalue()

    code = {"net": MakesFile(tmp_path / "EXECUTED")}
    for content in (
        b"",
        b"PK\3\4",
        pickle.dumps(code),
        saved(code),
        saved(code, _use_new_zipfile_serialization=False),
        saved({"net": torch.zeros(1).expand(10**12)}),
        saved({"net": torch.zeros(2, 2).to_sparse()}),
        saved({"net": torch.empty(10**12, device="meta")}),
        saved([torch.zeros(1)]),
        saved({"other": {}}),
        saved({"net": {"a": 5}}),
        saved({"net": {5: torch.zeros(1)}}),
        saved({"net": {"a": torch.zeros(100)}})[:-200],
        npz(("a/data.pkl", b"")),
    ):
        refused(read_state_dict, content, key="net")
    assert not (tmp_path / "EXECUTED").exists()


@dataclass
class Shape:
    width: int
    share: float = 0.5
    tied: bool = False
    name: str = ""
    levels: list[int] = field(default_factory=list)


def test_config_is_checked_before_a_model_is_made(tmp_path, refused):
    bounds = {"width": 1000, "levels": 100}
    file = tmp_path / "config.json"
    file.write_text('{"width": 5, "share": 1, "levels": [8, 5]}')
    assert read_config(file, Shape, bounds) == Shape(5, 1, levels=[8, 5])
    for change in ({"width": 10**12}, {"width": -(10**12)}, {"width": "5"}, {"width": True}, {"width": 5.0},
                   {"width": None}, {"share": "x"}, {"tied": 1}, {"name": 5}, {"levels": 5}, {"levels": [101]},
                   {"levels": [1] * 65}, {"levels": [[1]]}, {"more": 1}):  # fmt: skip
        message = refused(read_config, json.dumps({"width": 5} | change), kind=Shape, bounds=bounds)
        assert next(iter(change)) in message
    refused(read_config, "{}", kind=Shape, bounds=bounds)
    refused(read_config, "[]", kind=Shape, bounds=bounds)


def test_weights_are_compared_with_the_model(tmp_path):
    file = tmp_path / "weights"
    with torch.device("meta"):
        model = torch.nn.Linear(3, 2)

    def shapes() -> dict[str, tuple[int, ...]]:
        return {name: tensor.shape for name, tensor in read_safetensors_header(file).tensors.items()}

    def refusal_of(**tensors: torch.Tensor) -> str:
        save_file(tensors, file)
        with pytest.raises(InputError) as caught:
            check_shapes(model, shapes(), file)
        return str(caught.value)

    save_file({"weight": torch.zeros(2, 3), "bias": torch.zeros(2)}, file)
    check_shapes(model, shapes(), file)
    assert "bias of the model is missing" in refusal_of(weight=torch.zeros(2, 3))
    assert "(3, 2) and should be (2, 3)" in refusal_of(weight=torch.zeros(3, 2), bias=torch.zeros(2))
    assert "other" in refusal_of(weight=torch.zeros(2, 3), bias=torch.zeros(2), other=torch.zeros(1))
