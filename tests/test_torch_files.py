"""Torch files with other objects beside the weights: the weights are read, and no code of a file runs."""

import argparse
import collections
import importlib.util
import io
import os
import pickle
import resource
import struct
import sys
import zipfile
from collections.abc import Iterator

import pytest
import torch

from tests.conftest import golden_eval
from utils.errors import InputError
from utils.reading.pickles import Record, read_pickle
from utils.reading.torch_files import read_state_dict, read_torch

DRIVE_MODEL = golden_eval("layouts/motionmillion_drive_model")


class Optimizer:
    """Stands for a class that is missing where the file is read."""

    def __init__(self, tensor):
        self.state = {"step": tensor}

    def __setstate__(self, state):
        raise AssertionError("the state of an object must not be set")


class Calls:
    """Pickled, it is a call of ``function``."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def records(value: object) -> Iterator[Record]:
    """The objects of unknown classes within dicts and lists."""
    if isinstance(value, Record):
        yield value
    elif isinstance(value, (dict, list, tuple)):
        for item in value.values() if isinstance(value, dict) else value:
            yield from records(item)


def test_released_file_with_an_object_of_a_missing_class():
    file = next(DRIVE_MODEL.glob("motionmillion_*_all.pth"))
    with pytest.raises(pickle.UnpicklingError):
        torch.load(file, weights_only=True)
    content = read_torch(file)
    assert set(content) == {"trans", "optimizer", "scheduler", "nb_iter", "actual_nb_iter"}
    modules = {record.function.partition(".")[0] for record in records(content["optimizer"])}
    assert any(importlib.util.find_spec(module) is None for module in modules)
    tensors = read_state_dict(file, "trans")
    assert tensors and all(name.startswith("module.") for name in tensors)
    assert all(value.dtype == torch.bfloat16 and value.isfinite().all() for value in tensors.values())


def test_weights_are_those_that_torch_reads(tmp_path):
    weights = collections.OrderedDict(
        matrix=torch.randn(3, 4).T,
        part=torch.arange(10)[2:7:2],
        parameter=torch.nn.Parameter(torch.randn(2)),
        flag=torch.tensor(True),
        none=torch.zeros(0, 5, dtype=torch.bfloat16),
        half=torch.randn(4).half(),
    )
    weights["same"] = weights["matrix"]
    weights._metadata = {"": {"version": 1}}
    torch.save({"net": weights}, tmp_path / "plain.pth")
    objects = {"optimizer": Optimizer(torch.ones(5)), "args": argparse.Namespace(lr=1)}
    torch.save({"net": weights, **objects}, tmp_path / "objects.pth")
    torch.save({"net": weights, **objects}, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    expected = torch.load(tmp_path / "plain.pth", weights_only=True)["net"]
    for name in ("plain.pth", "objects.pth", "old.pth"):
        read = read_state_dict(tmp_path / name, "net")
        assert list(read) == list(expected)
        for key, value in expected.items():
            assert torch.equal(read[key], value) and read[key].dtype == value.dtype


def test_values_that_are_not_used_are_not_read(tmp_path):
    """A file with 2 GB of optimizer states (a hole on the disk) is read with little memory."""
    small, large = torch.ones(5), torch.empty(500 * 2**20).untyped_storage().nbytes()
    with torch.serialization.skip_data():
        torch.save({"net": {"a": small}, "optimizer": {"exp_avg": torch.empty(500 * 2**20)}}, tmp_path / "file.pth")
    assert (tmp_path / "file.pth").stat().st_size > large
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert read_state_dict(tmp_path / "file.pth", "net")["a"].shape == (5,)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000  # kB


# --- Hostile pickles


def archive(content: bytes, **members: bytes) -> bytes:
    """A torch file with a pickle of this content."""
    with zipfile.ZipFile(file := io.BytesIO(), "w") as written:
        for name, data in {"a/data.pkl": content, "a/byteorder": b"little", **members}.items():
            written.writestr(name, data)
    return file.getvalue()


def text(value: str) -> bytes:
    """Instruction that pushes a text."""
    return b"X" + struct.pack("<I", len(value)) + value.encode()


def hostile_pickles(command: str) -> dict[str, bytes]:
    """Pickles that run code in a usual unpickler, or take memory, time or the stack."""
    touch = f"__import__('os').system({command!r})"
    rebuild = b"ctorch._utils\n_rebuild_tensor_v2\n"
    return {
        "os.system": pickle.dumps(Calls(os.system, command)),
        "eval": pickle.dumps(Calls(eval, touch), protocol=4),
        "import": b"cthis\nd\n.",
        "call of a result": b"cbuiltins\ngetattr\n(cos\n__dict__\n" + text("system") + b"tR(" + text(command) + b"tR.",
        "instance": b"(" + text(command) + b"ios\nsystem\n.",
        "object of a class": b"(cos\nsystem\n" + text(command) + b"o.",
        "new object with keywords": b"\x80\x04cos\nsystem\n" + text(command) + b"\x85}\x92.",
        "state with a method": b"cbuiltins\nobject\n)\x81}" + text("__reduce__") + b"cos\nsystem\nsb.",
        "attributes of a function": rebuild + b"N}" + text("__defaults__") + text(command) + b"\x85s\x86b.",
        "state of an OrderedDict": b"ccollections\nOrderedDict\n)R}" + text("__class__") + b"cos\nsystem\nsb.",
        "extension": b"\x82\x01.",
        "nested lists": b"]" * 100_000 + b"a" * 99_999 + b".",
        "nested tuples as a key": b"})" + b"\x85" * 100_000 + b"Ns.",
        "doubled tuples as a key": b"})" + b"2\x86" * 60 + b"Ns.",
        "list within itself": b"]q\x00h\x00a.",
        "dict within itself": b"}q\x00" + text("a") + b"h\x00s.",
        "number of a memory": b"]r\xff\xff\xff\xff.",
        "text of 4 GB": b"X\xff\xff\xff\xff.",
        "bytes of 2**60": b"\x96" + struct.pack("<Q", 2**60) + b".",
        "number of many digits": b"L" + b"9" * 100_000 + b"L\n.",
        "empty stack": b"0.",
        "no end": b"]",
        "too large": text("a" * 2**21) + b"0N.",
    }


def test_no_hostile_pickle_runs_code(tmp_path, capfd):
    command = f"touch {tmp_path / 'EXECUTED'}"
    defaults = torch._utils._rebuild_tensor_v2.__defaults__
    for name, content in hostile_pickles(command).items():
        for file in (archive(content), content):
            (tmp_path / "file.pth").write_bytes(file)
            with pytest.raises(InputError) as caught:
                read_state_dict(tmp_path / "file.pth", "trans")
            assert "file.pth" in str(caught.value) and "\n" not in str(caught.value), name
        beside = b"\x80\x02}" + text("trans") + b"}s" + text("optimizer") + content[:-1] + b"s."
        (tmp_path / "file.pth").write_bytes(archive(beside))
        try:
            assert read_state_dict(tmp_path / "file.pth", "trans") == {}, name
        except InputError as error:
            assert "file.pth" in str(error), name
    assert not (tmp_path / "EXECUTED").exists() and "this" not in sys.modules
    assert torch._utils._rebuild_tensor_v2.__defaults__ == defaults


def tensor_of(storage: bytes = b"0", offset: int = 0, size: int = 4, stride: int = 1) -> bytes:
    """Pickle of {"trans": {"a": tensor}} with a storage, an offset, a shape (size,) and a stride."""

    def number(value: int) -> bytes:
        data = value.to_bytes(16, "little", signed=True)
        return b"\x8a\x10" + data

    persistent = b"(" + text("storage") + b"ctorch\nFloatStorage\n" + text(storage.decode()) + text("cpu") + b"K\x04tQ"
    rebuilt = b"ctorch._utils\n_rebuild_tensor_v2\n(" + persistent + number(offset) + number(size) + b"\x85"
    return b"}" + text("trans") + b"}" + text("a") + rebuilt + number(stride) + b"\x85\x89NtRss."


def test_tensors_that_the_file_does_not_hold_are_refused(tmp_path):
    values = struct.pack("<4f", 1, 2, 3, 4)
    file = tmp_path / "file.pth"

    def read(content: bytes, **members: bytes) -> list[float]:
        stored = {"a/.data": b"0" * 26, "a/data/0": values}  # the first aligns the second
        for padding in range(16):  # until the values lie at a multiple of their size
            stored["a/.data"] = b"0" * padding
            file.write_bytes(archive(content, **stored, **members))
            if file.read_bytes().index(values) % 4 == 0:
                break
        return read_state_dict(file, "trans")["a"].tolist()

    assert read(tensor_of()) == [1, 2, 3, 4] and read(tensor_of(offset=2, size=1)) == [3]
    for changes in (
        {"storage": b"1"},
        {"storage": b"../../etc/passwd"},
        {"offset": 2},
        {"offset": -1},
        {"offset": 2**63},
        {"size": 5},
        {"size": 2**62},
        {"size": -1},
        {"size": 2**61, "stride": 0},
        {"stride": 2},
        {"stride": -1},
    ):
        with pytest.raises(InputError, match="file.pth"):
            read(tensor_of(**changes))


def test_every_protocol_is_read_as_data():
    content = {"a": [1, -2, 3.5, None, True, "é", 2**70, (1, 2, 3, 4), {"b": ()}], 5: {}}
    for protocol in range(2, 6):
        assert read_pickle(io.BytesIO(pickle.dumps(content, protocol))) == content
    (other,) = read_pickle(io.BytesIO(pickle.dumps({"a": {1, 2}, (1, 2): 3}))).values()
    assert other.function == "builtins.set"
