"""Pickle files of plain data are read like pickle reads them; all others are refused, and nothing of them runs."""

import os
import pickle
from collections import OrderedDict
from pathlib import Path

import pytest

from utils.errors import InputError
from utils.reading.pickles import read_plain_pickle

PLAIN = [
    {"sos": 22, "eos": -6, "unk": 300, "long": 70_000, "big": 2**31},
    ["a", "b", "\u00fc", "\U0001f600", "a"],
    [None, True, False, 1.5, {"nested": [[], {}]}],
    {str(number): number for number in range(3000)},
    [],
]


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("value", PLAIN, ids=["dict", "texts", "mixed", "many", "empty"])
def test_plain_data_are_read(tmp_path, value, protocol):
    path = tmp_path / "data.pkl"
    path.write_bytes(pickle.dumps(value, protocol))
    assert read_plain_pickle(path) == value


class Marker:
    """Leaves a trace when it is unpickled."""

    def __reduce__(self) -> tuple:
        return os.mkdir, ("trace",)


@pytest.mark.parametrize(
    "content",
    [
        pickle.dumps(Marker()),
        pickle.dumps({"a": OrderedDict()}),
        pickle.dumps(Path("x")),
        b"cos\nsystem\n(S'touch trace'\ntR.",
        pickle.dumps(PLAIN[0])[:-5],
        b"",
        b"no pickle",
        b"]r\xff\xff\xff\x7fe.",  # APPENDS without a mark, after a memo entry of a large number
        b"K\x01K\x02a.",
        b"h\x05.",
        b"}]K\x01s.",  # a list as a key
    ],
)
def test_other_files_are_refused_and_never_run(tmp_path, monkeypatch, content):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "data.pkl"
    path.write_bytes(content)
    with pytest.raises(InputError, match="data.pkl"):
        read_plain_pickle(path)
    assert not (tmp_path / "trace").exists()


def test_large_files_are_refused(tmp_path):
    path = tmp_path / "data.pkl"
    path.write_bytes(pickle.dumps(["x" * 2000]))
    with pytest.raises(InputError, match="more than the 1000"):
        read_plain_pickle(path, most=1000)
