"""Motions in .tar files: those of the hub, those that pack() writes, and archives that are refused."""

import io
import json
import pickle
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pytest

from dataset.motion_folder import MotionFolder
from dataset.packing import pack, tar_members
from dataset.splits import SPLITS, split_of
from tests.conftest import golden_eval
from utils.errors import InputError


def described(folder: MotionFolder, split: str) -> list[tuple]:
    """The clips of a split and their features."""
    clips = folder.clips(split)
    return [(clip[:6], clips.features(clip).tobytes()) for clip in clips]


def test_hub_archives_are_read_in_place(tmp_path):
    path = shutil.copytree(golden_eval("layouts/motionmillion_hub_data"), tmp_path / "hub")
    members = {}
    for file in path.rglob("*.tar"):
        with tarfile.open(file) as archive:
            members |= {
                m.name.removesuffix(".npy"): np.load(io.BytesIO(archive.extractfile(m).read()))
                for m in archive
                if m.isfile()
            }
    folder = MotionFolder(path)
    folder.mean_std()
    found = {clip.id: (clips, clip) for clips in (folder.motions(s, False) for s in SPLITS) for clip in clips}
    assert set(found) == set(members)
    for name, (clips, clip) in found.items():
        np.testing.assert_array_equal(clips.features(clip), members[name])
        assert clip.name == name and name in folder.motions(split_of(name)).ids and clip.frames == len(members[name])
    with pytest.raises(InputError, match=r"texts holds the captions of none of the \d+ motions; add NAME\.txt"):
        folder.clips(split_of(next(iter(members))))
    for name in members:
        text = path / "texts" / f"{name}.txt"
        text.parent.mkdir(parents=True, exist_ok=True)
        text.write_text(f"caption of {name}")
    (path / "split").mkdir()
    (path / "split" / "train.txt").write_text("\n".join(members))
    captions = {clip.id: clip.captions for clip in MotionFolder(path).clips("train")}
    assert captions == {name: [f"caption of {name}"] for name in members}


@pytest.mark.parametrize("name", ["humanml3d_272", "dataset/MotionMillion", "babel_272_stream"])
def test_packed_folder_has_the_same_clips(tmp_path, name):
    source = shutil.copytree(golden_eval("layouts") / name, tmp_path / "source")
    count = pack(source, tmp_path / "packed", shard=200_000)
    packed = MotionFolder(tmp_path / "packed")
    tars = list(packed.path.rglob("*.tar"))
    motions = list((source / packed.layout.motion_folder("train").split("/")[0]).rglob("*.npy"))
    largest = max(200_000, *(file.stat().st_size for file in motions)) + 20_000  # with headers
    assert count >= len(motions) and tars and all(file.stat().st_size < largest for file in tars)
    assert not list((packed.path / packed.layout.motion_folder("train")).rglob("*.npy"))
    for split in ("train", "val"):
        ours, theirs = described(packed, split), described(MotionFolder(source), split)
        assert [(clip[:6], features) for clip, features in ours] == theirs
        clips = packed.clips(split)
        clips.features(clips[0])
        copy = pickle.loads(pickle.dumps(clips))  # for a process that loads data
        np.testing.assert_array_equal(copy.features(copy[0]), clips.features(clips[0]))
        assert all(clip.size for clip in clips)
    with pytest.raises(InputError, match="is not empty; choose another --out"):
        pack(source, tmp_path / "packed")
    with pytest.raises(InputError, match="has no motion in a file of its own"):
        pack(packed.path, tmp_path / "again")
    assert not (tmp_path / "again").exists()


def test_names_longer_than_a_header_are_read(tmp_path):
    name = "/".join(["a long name of a folder é"] * 9) + "/motion.npy"
    for number, form in enumerate((tarfile.PAX_FORMAT, tarfile.GNU_FORMAT)):
        file = tmp_path / f"{number}.tar"
        with tarfile.open(file, "w", format=form) as archive:
            for each in (name, f"./{number}.npy"):
                member = tarfile.TarInfo(each)
                member.size, member.mtime = 700, 1.5
                archive.addfile(member, io.BytesIO(bytes(700)))
        members = list(tar_members(file))
        assert [(member.name, member.size) for member in members] == [(name, 700), (f"{number}.npy", 700)]


def member(name="a.npy", content=b"", **fields) -> bytes:
    """A member of an archive; ``fields`` are attributes of its header."""
    info = tarfile.TarInfo(name)
    info.size = len(content)
    for key, value in fields.items():
        setattr(info, key, value)
    return info.tobuf(tarfile.GNU_FORMAT) + content + bytes(-len(content) % 512)


END = bytes(1024)
SPARSE = b"22 GNU.sparse.major=1\n"
HOSTILE = {
    "name leads out": (member("../../a.npy") + END, "leads out of the archive"),
    "absolute name": (member("/etc/a.npy") + END, "leads out of the archive"),
    "link": (member(type=tarfile.SYMTYPE, linkname="/etc/passwd") + END, "is a link, device or sparse file"),
    "hard link": (member(type=tarfile.LNKTYPE, linkname="b.npy") + END, "is a link, device or sparse file"),
    "device": (member(type=tarfile.CHRTYPE) + END, "is a link, device or sparse file"),
    "sparse": (member(type=tarfile.GNUTYPE_SPARSE) + END, "is a link, device or sparse file"),
    "sparse of POSIX": (member("x", SPARSE, type=tarfile.XHDTYPE) + member() + END, "holds a sparse file"),
    "size beyond the end": (member(size=10**12) + END, "needs 1000000000000 bytes and has"),
    "negative size": (member(size=-5) + END, "negative size|damaged"),
    "size of POSIX": (
        member("x", b"21 size=99999999999\n\n", type=tarfile.XHDTYPE) + member() + END,
        "bytes and has|size",
    ),
    "huge name": (member("x", bytes(2**21), type=tarfile.GNUTYPE_LONGNAME) + END, "more than the"),
    "records": (member("x", b"99 path=a\n", type=tarfile.XHDTYPE) + member() + END, "an extended header is damaged"),
    "no end": (member(content=bytes(512)), "cut short"),
    "compressed": (b"\x1f\x8b" + bytes(2000), "compressed"),
    "empty": (b"", "cut short"),
    "twice": (2 * member() + END, "holds already"),
    "no array": (member(content=bytes(600)) + END, "cannot be read as a NumPy array"),
}


@pytest.mark.parametrize("fault", HOSTILE)
def test_hostile_archive_is_refused_in_one_sentence(tmp_path, fault):
    path = shutil.copytree(golden_eval("layouts/motionmillion_hub_data"), tmp_path / "hub")
    content, words = HOSTILE[fault]
    file = path / "motion_272rpr" / "damaged.tar"
    file.write_bytes(content)
    before = {entry for entry in tmp_path.rglob("*") if "index" not in entry.parts}
    folder = MotionFolder(path)
    if fault == "no array":  # only this motion is left out
        notes = [note for split in SPLITS for note in folder.motions(split, required=False).notes(split)]
        assert "".join(notes).count("1 that cannot be read") == 1 and words in "".join(notes)
    else:
        with pytest.raises(InputError, match=words) as caught:
            folder.motions("train")
        assert str(file) in str(caught.value) and "\n" not in str(caught.value)
    assert {entry for entry in tmp_path.rglob("*") if "index" not in entry.parts} == before


def test_header_of_an_array_that_lies_is_refused(tmp_path):
    path = tmp_path / "hub"
    shutil.copytree(golden_eval("layouts/motionmillion_hub_data"), path)
    array = io.BytesIO()
    np.lib.format.write_array_header_1_0(array, {"descr": "<f4", "fortran_order": False, "shape": (10**9, 272)})
    following = io.BytesIO()
    np.save(following, np.zeros((40, 272), np.float32))
    content = member("a.npy", array.getvalue()) + member("b.npy", following.getvalue()) + END
    (path / "motion_272rpr" / "lies.tar").write_bytes(content)
    folder = MotionFolder(path)
    names = {name for split in SPLITS for name in folder.motions(split, required=False).ids}
    assert "b" in names and "a" not in names
    notes = json.dumps([folder.motions(split, required=False).notes(split) for split in SPLITS])
    assert "lies.tar/a.npy" in notes and "needs" in notes


def test_replaced_archive_is_noticed(tmp_path):
    path = Path(shutil.copytree(golden_eval("layouts/motionmillion_hub_data"), tmp_path / "hub"))
    (path / "split").mkdir()
    [name, *_] = [m.name.removesuffix(".npy") for file in path.rglob("*.tar") for m in tar_members(file)]
    (path / "split" / "train.txt").write_text(name)
    first = MotionFolder(path).motions("train")
    for file in path.rglob("*.tar"):
        if any(member.name == f"{name}.npy" for member in tar_members(file)):
            array = io.BytesIO()
            np.save(array, np.asfortranarray(np.arange(33 * 272).reshape(33, 272).astype(np.float64)))
            file.write_bytes(member(f"{name}.npy", array.getvalue()) + END)
    second = MotionFolder(path).motions("train")
    assert second[0].frames == 33 and second.digest != first.digest
    features = second.features(second[0])
    assert features.dtype == np.float32 and (features == np.arange(33 * 272).reshape(33, 272)).all()
