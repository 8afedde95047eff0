"""prepare_data.py amass: published files, frame rates, the cuts of HumanML3D, the labels of BABEL, and bad files."""

import io
import json
import os
import zipfile
from pathlib import Path

import numpy as np
import pytest

from dataset.motion_folder import MotionFolder
from dataset.sources.amass import frame_rate
from dataset.sources.humanml3d_index import SequenceKey
from dataset.splits import MIRRORED
from motion.features272 import LAYOUT, features_from_motion, local_rotations, recover_joints
from motion.resample import FPS
from motion.rotation import axis_angle_to_matrix, matrix_to_axis_angle
from motion.skeleton import JOINT_INDEX, Z_UP_TO_Y_UP
from tests.conftest import golden_eval
from tests.prepare_helpers import prepare, write_amass
from utils.errors import InputError
from utils.reading.arrays import read_npz

TREE = golden_eval("layouts") / "amass"


@pytest.fixture
def converted(tmp_path, monkeypatch, capsys):
    """Converts a folder of AMASS; returns the data folder and its report."""

    def convert(source: Path, name: str = "data", **options) -> tuple[MotionFolder, dict]:
        prepare(monkeypatch, "amass", source, tmp_path / name, **options)
        return MotionFolder(tmp_path / name), json.loads((tmp_path / name / "report.json").read_text())

    return convert


def elbow(features: np.ndarray, side: str = "left") -> np.ndarray:
    """Angle in radians by which an elbow is turned, per frame."""
    turns = local_rotations(features.astype(np.float64))[:, JOINT_INDEX[f"{side}_elbow"]]
    return np.linalg.norm(matrix_to_axis_angle(turns), axis=-1)


def copy_with_rounded_rate(source: Path, copy: Path) -> None:
    """Copy a file of AMASS with its rate rounded down to a multiple of 30, which the public code takes it for."""
    copy.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(source) as file, zipfile.ZipFile(copy, "w") as written:
        for member in file.namelist():
            content = io.BytesIO(file.read(member))
            if member in ("mocap_framerate.npy", "mocap_frame_rate.npy"):
                rate = np.load(content)
                np.save(content := io.BytesIO(), rate // FPS * FPS)
            written.writestr(member, content.getvalue())


def test_published_files_are_converted_as_by_the_public_code(converted, tmp_path):
    options = {"val_share": 0.0, "test_share": 0.0, "min_frames": 1}
    expected = read_npz(TREE / "expected.npz")
    files = [file for file in TREE.rglob("*.npz") if f"{file.stem}__smpl85_yup" in expected]
    for file in files:
        copy_with_rounded_rate(file, tmp_path / "rounded" / file.relative_to(TREE))
    folder, report = converted(TREE, **options)
    assert files and list(report["rejected"]) == ["expected"]  # is no motion; body shapes are not counted
    rounded, _ = converted(tmp_path / "rounded", "of_rounded_rates", **options)
    for file in files:
        name = file.relative_to(TREE).with_suffix("").as_posix()
        arrays = read_npz(file, ("trans", "mocap_framerate", "mocap_frame_rate"))
        frames = int((len(arrays["trans"]) - 1) * FPS / frame_rate(arrays) + 1e-6) + 1
        for copy, theirs in ((name, "smpl85_yup"), (name + MIRRORED, "smpl85_yup_mirrored")):
            assert len(folder.motion(copy)) == frames
            features, poses = rounded.motion(copy), expected[f"{file.stem}__{theirs}"].astype(np.float64)
            assert len(poses) == len(features)
            rotations = axis_angle_to_matrix(poses[:, :66].reshape(-1, 22, 3))
            wanted = features_from_motion(rotations, poses[:, 72:75])
            for block in ("joint_rotations", "heading_change"):
                np.testing.assert_allclose(features[:, LAYOUT[block]], wanted[:, LAYOUT[block]], atol=2e-3)
            path, theirs_path = features[:, LAYOUT["root_velocity"]], wanted[:, LAYOUT["root_velocity"]]
            scale = (path * theirs_path).sum() / (theirs_path**2).sum()  # of the legs
            assert 0.7 < scale < 1.4
            np.testing.assert_allclose(path, scale * theirs_path, atol=1e-5)


@pytest.mark.parametrize("fps", [25.0, 59.94, 60.0, 100.0, 120.0, 250.0])
def test_any_frame_rate_becomes_30_to_a_millimetre(converted, tmp_path, fps):
    write_amass(tmp_path / "source" / "walk_poses.npz", fps, 3.0)
    folder, _ = converted(tmp_path / "source", val_share=0.0, test_share=0.0, mirrored=False)
    features = folder.motion("walk_poses")
    times = np.arange(len(features)) / FPS
    turns = np.zeros((len(times), 22, 3))
    turns[:, JOINT_INDEX["left_elbow"], 1] = -0.1 * times
    path = np.stack((0.1 * np.sin(2 * np.pi * times), 0.5 * times, np.full(len(times), 1.1)), axis=1)
    expected = features_from_motion(axis_angle_to_matrix(turns), path @ np.array(Z_UP_TO_Y_UP).T)
    assert len(times) in (90, 91)
    distance = np.linalg.norm(recover_joints(features.astype(np.float64)) - recover_joints(expected), axis=-1)
    assert distance.max() < 1e-3


CLIPS = {  # name -> source path in index.csv, first and end frame at 20 fps
    "000000": ("Eyes_Japan_Dataset/aita/turn-01-look at-aita", 10, 110),
    "000001": ("KIT/3/kick", 0, 60),
    "000002": ("KIT/3/kick", 20, 61),  # one frame of features more than the shortest that are kept
    "000003": ("KIT/3/kick", 20, 60),
    "000004": ("humanact12/humanact12/P11G01R02F1812T1847A0402", 0, -1),
    "000005": ("KIT/3/missing", 0, 60),
    "000006": ("SSM_synced/1/slow", 0, 80),
    "000007": ("KIT/3/kick", 900, 1000),
}


@pytest.fixture
def humanml3d(tmp_path) -> Path:
    """The index, captions and splits of HumanML3D for files of AMASS in ``source``."""
    write_amass(tmp_path / "source/EyesJapanDataset/aita/turn-01-look_at-aita_stageii.npz", 120, 10)
    write_amass(tmp_path / "source/KIT/3/kick_poses.npz", 100, 4)
    write_amass(tmp_path / "source/SSM_synced/1/slow_poses.npz", 59.94, 4)
    folder = tmp_path / "HumanML3D"
    (folder / "texts").mkdir(parents=True)
    rows = [f"./pose_data/{path}{'' if 'act12' in path else '_poses'}.npy,{start},{end},{name}.npy"
            for name, (path, start, end) in CLIPS.items()]  # fmt: skip
    (folder / "index.csv").write_text("\n".join(["source_path,start_frame,end_frame,new_name", *rows, ""]))
    for name in CLIPS:
        side = {"": "left", "M": "right"}
        for mark, word in side.items():
            lines = [f"turns {word}#turn/VERB {word}/ADV#0.0#0.0", "part#part/NOUN#0.5#3.0", "short#short/ADJ#0.5#1.0"]
            (folder / "texts" / f"{mark}{name}.txt").write_text("\n".join(lines))
    (folder / "texts" / "M000001.txt").unlink()
    (folder / "train.txt").write_text("000000\nM000000\n000001\nM000001\n000006\n")
    (folder / "val.txt").write_text("000002\n000003\n099999\n")
    (folder / "test.txt").write_text("000004\n000005\n000007\n")
    return folder


def test_clips_of_humanml3d_are_cut_out_of_amass(converted, humanml3d, tmp_path):
    folder, report = converted(tmp_path / "source", humanml3d=humanml3d)
    assert folder.ids("train") == ["000000", "M000000", "000001", "000006"]
    assert folder.ids("val") == ["000002"] and folder.ids("test", required=False) == []
    reasons = {"M000001": "file is missing", "000003": "39 frames, outside the 40 to 199", "099999": "not in index.csv",
               "000004": "humanact12", "000005": "not in the source",
               "000007": "the clip has 0 frames"}  # fmt: skip
    assert set(report["rejected"]) == set(reasons)
    assert all(reason in report["rejected"][name] for name, reason in reasons.items())
    angles = elbow(folder.motion("000000"))
    assert len(angles) == 149  # 100 frames at 20 fps last 4.95 s
    assert angles[0] == pytest.approx(0.1 * (3.0 + 10 / 20), abs=1e-4)  # the first 3 s of this part are removed
    np.testing.assert_allclose(np.diff(angles), 0.1 / FPS, atol=1e-4)
    np.testing.assert_allclose(elbow(folder.motion("M000000"), "right"), angles, atol=1e-3)
    assert elbow(folder.motion("000002"))[0] == pytest.approx(0.1 * 20 / 20, abs=1e-4)


def test_captions_of_cuts_keep_the_public_parts_and_their_place_in_the_motion(converted, humanml3d, tmp_path):
    folder, report = converted(tmp_path / "source", humanml3d=humanml3d)
    lines = folder.caption_file("M000000").read_text().splitlines()
    assert lines == ["turns right#turn/VERB right/ADV#0.0#0.0", "part#part/NOUN#0.5#3.0"]
    assert any("M000000.txt: the part of line 3 has 10 frames" in note for note in report["notes"])
    # 59.94 fps is 29.97 "20 fps" upstream, so that 3 s of captions are 2 s of motion
    assert len(folder.motion("000006")) == int(79 * 2 / 59.94 * FPS) + 1
    part = [clip for clip in folder.clips("train") if clip.id == "000006" and clip.is_part]
    assert [(clip.start, clip.frames) for clip in part] == [(10, 50)]


def test_labels_of_babel_become_captions_of_sequences_and_parts(converted, tmp_path):
    for name in ("CMU/01/01_01", "CMU/01/01_02", "BMLrub/rub001/0001 walk"):
        write_amass(tmp_path / "source" / f"{name}_poses.npz", 60, 2)
    babel = tmp_path / "babel"
    babel.mkdir()

    def labels(*texts: tuple) -> dict:
        keys = ("raw_label", "proc_label", "act_cat", "start_t", "end_t")
        return {"babel_lid": "x", "labels": [dict(zip(keys, (text, text, None, *times), strict=False))
                                             for text, *times in texts]}  # fmt: skip

    train = {
        "1": {"feat_p": "CMU/CMU/01/01_01_poses.npz", "dur": 2.0, "seq_ann": labels(("walk left",)),
              "frame_ann": labels(("walk", 0, 1.2), ("transition", 1.2, 1.4), ("turn left", 1.4, 2.0))},
        "2": {"feat_p": "CMU/CMU/99/99_01_poses.npz", "dur": 2.0, "seq_ann": labels(("walk",)), "frame_ann": None},
        "3": {"feat_p": "CMU/CMU/01/01_02_poses.npz", "dur": 2.0, "seq_ann": labels((None,)), "frame_ann": None},
    }  # fmt: skip
    extra = {"4": {"feat_p": "BioMotionLab_NTroje/BioMotionLab_NTroje/rub001/0001_walk_poses.npz", "dur": 2.0,
                   "seq_anns": [labels(("walk",)), labels(("walk",), ("stroll",))], "frame_anns": None}}  # fmt: skip
    (babel / "train.json").write_text(json.dumps(train))
    (babel / "extra_val.json").write_text(json.dumps(extra))
    folder, report = converted(tmp_path / "source", babel=babel)
    name = "CMU/01/01_01_poses"
    assert folder.ids("train") == [name, name + MIRRORED] and folder.ids("val") == ["BMLrub/rub001/0001 walk_poses"]
    clips = [(clip.id, clip.captions, clip.start, clip.frames) for clip in folder.clips("train")]
    assert clips == [
        (name, ["walk left"], 0, 61), (name, ["walk"], 0, 36), (name, ["turn left"], 42, 18),
        (name + MIRRORED, ["walk right"], 0, 61), (name + MIRRORED, ["walk"], 0, 36),
        (name + MIRRORED, ["turn right"], 42, 18),
    ]  # fmt: skip
    assert [clip.captions for clip in folder.clips("val")] == [["walk", "stroll"]]
    reasons = sorted(report["rejected"].values(), key=lambda reason: "not in the source" in reason)
    assert len(reasons) == 2 and "no labels" in reasons[0] and "not in the source" in reasons[1]


def test_sequences_have_the_same_key_in_all_releases():
    paths = ("pose_data/BioMotionLab_NTroje/rub1/0001 walk_poses.npy", "smplx/BMLrub/rub1/0001_walk_stageii.npz")
    assert SequenceKey.of(Path(paths[0])) == SequenceKey.of(Path(paths[1]))
    assert SequenceKey.of(Path("a/KIT/3/kick_poses.npz")) != SequenceKey.of(Path("a/EKUT/3/kick_poses.npz"))


class Attack:
    """Object whose unpickling makes a file."""

    def __init__(self, file: Path):
        self.file = file

    def __reduce__(self):
        return os.mkdir, (str(self.file),)


BAD = {
    "nan": ({"trans": np.full((61, 3), np.nan)}, "NaN"),
    "no_rate": ({"mocap_framerate": None, "framerate": np.array(60.0)}, "neither mocap_framerate nor mocap_frame_rate"),
    "zero_rate": ({"mocap_framerate": np.array(0.0)}, "fps is 0"),
    "text_rate": ({"mocap_framerate": np.array("fast")}, "frame rate is fast"),
    "slow": ({"mocap_framerate": np.array(1e-4)}, "too long"),
    "short": ({"poses": np.zeros((9, 156)), "trans": np.zeros((9, 3))}, "fewer than --min-frames"),
    "lengths": ({"trans": np.zeros((9, 3))}, "not those of AMASS"),
    "other": ({"poses": np.zeros((61, 30))}, "not those of AMASS"),
    "no_poses": ({"poses": None}, "is no motion of AMASS"),
}


def test_bad_files_cost_themselves_alone(converted, tmp_path, monkeypatch):
    source = tmp_path / "source"
    for name, (changes, _) in BAD.items():
        write_amass(source / f"{name}_poses.npz", 60, 1, **changes)
    write_amass(source / "attack_poses.npz", 60, 1, poses=np.array(Attack(tmp_path / "attacked"), dtype=object))
    (source / "torn_poses.npz").write_bytes((source / "nan_poses.npz").read_bytes()[:-100])
    with pytest.raises(InputError, match=f"no usable training clip came out of {len(BAD) + 2} files"):
        prepare(monkeypatch, "amass", source, tmp_path / "none")
    assert not (tmp_path / "none").exists()
    write_amass(source / "good_poses.npz", 60, 1)
    folder, report = converted(source, val_share=0.0, test_share=0.0)
    assert folder.ids("train") == ["good_poses", "good_poses" + MIRRORED] and not (tmp_path / "attacked").exists()
    rejected = report["rejected"]
    assert set(rejected) == {f"{name}_poses" for name in (*BAD, "attack", "torn")}
    assert "Python objects" in rejected["attack_poses"] and "torn_poses.npz" in rejected["torn_poses"]
    for name, (_, reason) in BAD.items():
        assert reason in rejected[f"{name}_poses"] and f"{name}_poses.npz" in rejected[f"{name}_poses"]


def test_bad_sources_are_refused_in_one_sentence(refused, tmp_path):
    write_amass(tmp_path / "source" / "a_poses.npz", 60, 1)
    empty = tmp_path / "empty"
    (empty / "texts").mkdir(parents=True)
    amass = ("prepare_data.py", "amass", "--out", tmp_path / "out", "--source")
    assert "no motion of AMASS" in refused(*amass, empty)
    assert "index.csv is missing" in refused(*amass, tmp_path / "source", "--humanml3d", empty)
    (empty / "index.csv").write_text("path,start\n1,2\n")
    assert "has not the columns" in refused(*amass, tmp_path / "source", "--humanml3d", empty)
    assert "no folder texts" in refused(*amass, tmp_path / "source", "--humanml3d", tmp_path / "source")
    assert "none of train.json" in refused(*amass, tmp_path / "source", "--babel", empty)
    (empty / "train.json").write_text('{"1": {"feat_p": 3}}')
    assert "sequence 1 has no feat_p" in refused(*amass, tmp_path / "source", "--babel", empty)
    assert "both give captions" in refused(*amass, tmp_path / "source", "--babel", empty, "--humanml3d", empty)
    assert "leave no training clip" in refused(*amass, tmp_path / "source", "--val-share", 0.5, "--test-share", 0.5)
    assert "--val-share is 2" in refused(*amass, tmp_path / "source", "--val-share", 2)
    assert not (tmp_path / "out").exists()
