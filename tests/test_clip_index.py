"""The index of clips: reuse, renewal when the data changes, damage, a folder that cannot be written."""

import os
import pickle
import shutil

import numpy as np
import pytest

import dataset.clip_index
import dataset.derived
from dataset.motion_folder import MotionFolder


@pytest.fixture
def built(monkeypatch):
    """The index files that were built."""
    files = []
    write = dataset.clip_index.write_index

    def record(file, *arguments):
        files.append(file.name)
        write(file, *arguments)

    monkeypatch.setattr(dataset.clip_index, "write_index", record)
    return files


def test_index_is_built_once_and_again_when_a_file_changed(small_folder, built):
    shutil.rmtree(small_folder.path / "index", ignore_errors=True)
    first, second = small_folder.ids("train")[:2]
    built.clear()
    for _ in range(2):
        clips = small_folder.clips("train")
        assert MotionFolder(small_folder.path).motions("train").ids == clips.ids
    assert built == ["train-clips.arrow"]
    small_folder.caption_file(first).write_text("another caption\nand one more\n")
    assert small_folder.clips("train")[0].captions == ["another caption", "and one more"]
    assert small_folder.clips("train").digest != clips.digest
    np.save(small_folder.motion_file(second), small_folder.motion(second)[:20])
    assert small_folder.clips("train")[1].frames == small_folder.motions("train")[1].frames == 20
    (small_folder.path / "split" / "train.txt").write_text(second)
    assert small_folder.ids("train") == [second] == small_folder.clips("train").ids
    assert built == 3 * ["train-clips.arrow"] + ["train-motions.arrow", "train-motions.arrow", "train-clips.arrow"]


def test_large_folders_are_checked_by_their_folders_and_lists_alone(small_folder, built, monkeypatch):
    monkeypatch.setattr(dataset.clip_index, "EXACT", 3)
    name = small_folder.ids("train")[0]
    features = small_folder.motion(name)
    built.clear()

    def replace(frames):
        np.save(small_folder.path / "new.npy", features[:frames])
        (small_folder.path / "new.npy").rename(small_folder.motion_file(name))

    replace(20)
    assert small_folder.motions("train")[0].frames == 20
    time = os.stat(small_folder.path / "split" / "train.txt").st_mtime_ns + 10**9
    os.utime(small_folder.path / "split" / "train.txt", ns=(time, time))
    small_folder.motions("train")
    small_folder.motions("train")
    assert len(built) == 2
    stat = os.stat
    monkeypatch.setattr(os, "stat", lambda path, **options: counted.append(path) or stat(path, **options))
    counted: list = []
    small_folder.motions("train")
    assert len(counted) < 20


def test_many_motions_are_scanned_by_processes_in_order(small_folder, monkeypatch):
    expected = list(small_folder.clips("train"))
    monkeypatch.setattr(dataset.clip_index, "CHUNK", 4)
    shutil.rmtree(small_folder.path / "index")
    assert list(small_folder.clips("train")) == expected
    monkeypatch.setattr(dataset.clip_index, "POOLED", 1)
    monkeypatch.setattr(os, "cpu_count", lambda: 1)
    shutil.rmtree(small_folder.path / "index")
    assert list(small_folder.clips("train")) == expected


@pytest.mark.parametrize("damage", [lambda content: content[:300], lambda content: b"x" + content[1:], lambda _: b""])
def test_damaged_index_is_built_again(small_folder, built, damage):
    expected = list(small_folder.clips("train"))
    file = small_folder.path / "index" / "train-clips.arrow"
    file.write_bytes(damage(file.read_bytes()))
    assert list(small_folder.clips("train")) == expected and len(built) == 2


def test_index_of_a_folder_that_cannot_be_written_is_in_the_cache(small_folder, built, monkeypatch, tmp_path):
    shutil.rmtree(small_folder.path / "index", ignore_errors=True)
    (small_folder.path / "index").write_text("no folder")
    monkeypatch.setattr(dataset.derived, "cache_folder", lambda: tmp_path / "cache")
    for _ in range(2):
        assert len(small_folder.clips("train")) == 7
    assert len(built) == 1 and len(list((tmp_path / "cache").glob("*/index/train-clips.arrow"))) == 1


def test_copy_for_another_process_maps_the_index_again(small_folder):
    clips = small_folder.clips("train")
    content = pickle.dumps(clips)
    copy = pickle.loads(content)
    assert len(content) < 20_000 and list(copy) == list(clips)
    np.testing.assert_array_equal(copy.features(copy[3]), clips.features(clips[3]))
