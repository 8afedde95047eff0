"""prepare_data.py on HumanML3D, KIT-ML and Motion-X as published, captions from a table, and recognition of folders."""

import json
import shutil

import numpy as np
import pytest

import prepare_data
from dataset.caption_table import caption_line, mirrored_line
from dataset.captions import CaptionLine
from dataset.motion_folder import MotionFolder
from dataset.recognize import recognize
from dataset.sources.humanml3d import FEATURES
from dataset.sources.motionx import MOTIONS, TEXTS
from dataset.splits import MIRRORED, SPLITS
from motion.features263 import HUMANML3D, KIT
from motion.features272 import features_from_motion
from motion.resample import FPS
from motion.rotation import axis_angle_to_matrix
from motion.smplx import SMPLX322
from tests.conftest import golden_eval
from tests.prepare_helpers import prepare, write_amass
from utils.errors import InputError

LAYOUTS = golden_eval("layouts")
SKELETONS = {"HumanML3D": ("humanml3d", HUMANML3D), "KIT-ML": ("kit", KIT)}
MEAN_ERROR = 15  # millimetres, required of the joints


@pytest.mark.parametrize("tree", SKELETONS)
def test_clips_and_captions_are_those_of_the_public_reader(tree, tmp_path, monkeypatch):
    kind, skeleton = SKELETONS[tree]
    prepare(monkeypatch, kind, LAYOUTS / tree, tmp_path / "data", min_frames=1)
    folder = MotionFolder(tmp_path / "data")
    expected = json.loads((LAYOUTS / "expected.json").read_text())[tree]
    for split, clips in expected.items():
        kept = folder.clips(split, required=False)
        ours = sorted((clip.id, clip.is_part, clip.captions, clip.frames) for clip in kept)
        theirs = sorted((clip["name"], clip["part"], clip["captions"], clip["length"]) for clip in clips)
        assert [clip[:3] for clip in ours] == [clip[:3] for clip in theirs]
        for (*_, frames), (*_, length) in zip(ours, theirs, strict=True):
            assert abs(frames - length * FPS / skeleton.fps) <= 3
    kept = {clip["name"] for clips in expected.values() for clip in clips}
    report = json.loads((tmp_path / "data" / "report.json").read_text())
    listed = {name for split in SPLITS for name in (LAYOUTS / tree / f"{split}.txt").read_text().split()}
    assert set(report["rejected"]) >= listed - {file.stem for file in folder.path.rglob("texts/*.txt")}
    assert kept <= listed and 0 < report["joint_error_mm"]["mean"] < MEAN_ERROR


def test_motionx_is_converted_with_its_captions(tmp_path, monkeypatch):
    tree = LAYOUTS / "motionx"
    prepare(monkeypatch, "motionx", tree, tmp_path / "data", min_frames=1, val_share=0.0, test_share=0.0)
    folder = MotionFolder(tmp_path / "data")
    names = sorted(file.relative_to(tree / MOTIONS).with_suffix("").as_posix() for file in tree.rglob("*.npy"))
    assert sorted(folder.ids("train")) == sorted([*names, *(name + MIRRORED for name in names)])
    for name in names:
        lines = [line.split("#") for line in (tree / TEXTS / f"{name}.txt").read_text().splitlines() if line]
        captions = [line[0] for line in lines if not any(np.nan_to_num([*map(float, line[2:4])]))]  # not of parts
        assert folder.captions(name) == captions
        data = np.load(tree / MOTIONS / f"{name}.npy").astype(np.float64)
        turns = axis_angle_to_matrix(data[:, SMPLX322["body_pose"]].reshape(-1, 22, 3))
        wanted = features_from_motion(turns, data[:, SMPLX322["translation"]])
        np.testing.assert_allclose(folder.motion(name)[:, 140:], wanted[:, 140:], atol=1e-3)


def test_half_a_data_set_is_refused_or_listed(refused, tmp_path, monkeypatch):
    out = ("--out", tmp_path / "out", "--source")
    half = tmp_path / "half"
    shutil.copytree(LAYOUTS / "HumanML3D", half)
    shutil.rmtree(half / FEATURES)
    assert f"holds no {FEATURES}" in refused("prepare_data.py", "humanml3d", *out, half)
    assert f"holds no motion in {MOTIONS}" in refused("prepare_data.py", "motionx", *out, half)
    (half / FEATURES).mkdir()
    assert "holds no .npy file" in refused("prepare_data.py", "humanml3d", *out, half)
    shutil.rmtree(half / "texts")
    (half / "texts.zip").write_bytes(b"")
    assert "texts.zip is not extracted" in refused("prepare_data.py", "humanml3d", *out, half)
    assert not (tmp_path / "out").exists()
    kit = tmp_path / "kit"
    shutil.copytree(LAYOUTS / "KIT-ML", kit)
    for split in SPLITS:
        (kit / f"{split}.txt").unlink()
    (kit / "texts" / "lonely.txt").write_text("nobody#nobody/NOUN#0.0#0.0")
    prepare(monkeypatch, "kit", kit, tmp_path / "kit_out", val_share=0.0, test_share=0.0)
    assert "lonely.txt: new_joint_vecs has no motion" in (tmp_path / "kit_out" / "report.json").read_text()
    shutil.copytree(LAYOUTS / "motionx", tmp_path / "motionx")
    names = [file.relative_to(tmp_path / "motionx" / TEXTS).with_suffix("").as_posix()
             for file in sorted((tmp_path / "motionx").rglob("*.txt"))]  # fmt: skip
    (tmp_path / "motionx" / MOTIONS / f"{names[0]}.npy").unlink()
    text = tmp_path / "motionx" / TEXTS / f"{names[1]}.txt"
    copy = tmp_path / "motionx" / MOTIONS / "more" / "a.npy"
    copy.parent.mkdir()
    shutil.copy(tmp_path / "motionx" / MOTIONS / f"{names[1]}.npy", copy)
    assert text.is_file()
    prepare(monkeypatch, "motionx", tmp_path / "motionx", tmp_path / "out", min_frames=1, val_share=0, test_share=0)
    rejected = json.loads((tmp_path / "out" / "report.json").read_text())["rejected"]
    assert set(rejected) == {names[0], "more/a"}
    assert "has no motion of this name" in rejected[names[0]] and "file is missing" in rejected["more/a"]


ROWS = [
    ("walk_poses.npz", "he walks, slowly", "", ""),
    ("sub/run", "runs left", "0.5", "1.5"),
    ("run", "never used: the row with the folder wins", "", ""),
    ("absent.npz", "nobody", "", ""),
]


@pytest.mark.parametrize("form", ["csv", "tsv", "jsonl"])
def test_captions_of_all_files_can_be_in_one_table(form, tmp_path, monkeypatch):
    for name in ("walk", "sub/run"):
        write_amass(tmp_path / "source" / f"{name}{'_poses' if name == 'walk' else ''}.npz", 60, 2)
    write_amass(tmp_path / "source" / "silent.npz", 60, 2)
    table, columns = tmp_path / f"captions.{form}", ("file", "text", "from", "to")
    if form == "jsonl":
        rows = [{key: float(value) if key in ("from", "to") else value for key, value in zip(columns, row, strict=True)
                 if value} for row in ROWS]  # fmt: skip
        table.write_text("\n".join(map(json.dumps, rows)))
    else:
        comma = {"csv": ",", "tsv": "\t"}[form]
        table.write_text("\n".join([comma.join(columns), *(comma.join(f'"{cell}"' for cell in row) for row in ROWS)]))
    prepare(monkeypatch, "amass", tmp_path / "source", tmp_path / "data", captions=table, val_share=0.0, test_share=0.0)
    folder = MotionFolder(tmp_path / "data")
    clips = {(clip.id, *clip.captions): (clip.start, clip.frames) for clip in folder.clips("train")}
    assert clips == {
        ("walk_poses", "he walks, slowly"): (0, 61), ("walk_poses" + MIRRORED, "he walks, slowly"): (0, 61),
        ("sub/run", "runs left"): (15, 30), ("sub/run" + MIRRORED, "runs right"): (15, 30),
    }  # fmt: skip
    rejected = json.loads((tmp_path / "data" / "report.json").read_text())["rejected"]
    assert set(rejected) == {"silent", "run", "absent"} and "no row for the file" in rejected["silent"]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("name,text\na,b", "no column file"),
        ("file,text\na,", "line 2 has no file or no text"),
        ("file,text,from,to\na,b,1,", "only one of from and to"),
        ("file,text,from,to\na,b,2,1", "ends at 1 s, not after its start"),
        ("file,text,from,to\na,b,x,1", "from of line 2 is 'x' instead of seconds"),
        ("file,text\n", "holds no captions"),
        ('file,text\n"a', "cannot be read as a table of captions"),
    ],
)
def test_tables_with_faults_are_refused(text, reason, refused, tmp_path):
    write_amass(tmp_path / "source" / "a.npz", 60, 1)
    (tmp_path / "captions.csv").write_text(text)
    error = refused("prepare_data.py", "amass", "--source", tmp_path / "source", "--out", tmp_path / "out",
                    "--captions", tmp_path / "captions.csv")  # fmt: skip
    assert reason in error and "captions.csv" in error


def test_caption_lines_are_read_as_they_were_meant():
    for text, span in (("a #1.0#2.0#3.0", None), ("song #5", None), ("left", (0.0, 2.5)), ("a/B c/D", (1e-5, 1.0))):
        parsed = CaptionLine.parse(caption_line(text, span))
        assert parsed.caption == text and (parsed.span or ()) == pytest.approx(span or (), abs=1e-4)
    assert mirrored_line("left#left/ADJ#1.5#2.0") == "right##1.5#2.0"


def test_folders_are_recognized_with_the_command_for_them(tmp_path, capfd, run_here, refused):
    known = {"HumanML3D": "humanml3d", "KIT-ML": "kit", "amass": "amass", "motionx": "motionx", "gmr": "bvh"}
    for tree, command in known.items():
        assert f"prepare_data.py {command} --source" in str(recognize(LAYOUTS / tree))
    for tree in ("humanml3d_272", "babel_272", "babel_272_stream", "dataset/MotionMillion", "motionmillion_hub_data"):
        assert "read in place" in str(recognize(LAYOUTS / tree))
    motions = len(list((LAYOUTS / "KIT-ML" / FEATURES).iterdir()))
    assert f"KIT-ML, 251 features: {motions} motions" in run_here("prepare_data.py", LAYOUTS / "KIT-ML")
    (tmp_path / "babel").mkdir()
    (tmp_path / "babel" / "train.json").write_text('{"1": {"feat_p": "a/b/c_poses.npz"}}')
    assert "--babel" in str(recognize(tmp_path / "babel"))
    (tmp_path / "babel" / "index.csv").write_text("source_path,start_frame,end_frame,new_name\n")
    assert "--humanml3d" in str(recognize(tmp_path / "babel"))
    (tmp_path / "empty").mkdir()
    assert "HumanML3D, KIT-ML, AMASS" in refused("prepare_data.py", tmp_path / "empty")
    with pytest.raises(InputError, match="its subfolder babel is"):
        recognize(tmp_path)
    assert "is no folder" in refused("prepare_data.py", tmp_path / "missing")
    assert "give a folder alone" in refused("prepare_data.py", LAYOUTS / "KIT-ML", "--out", tmp_path / "out")
    assert "train_t2m.py" not in str(recognize(LAYOUTS / "motionmillion_hub_data"))  # no captions
    assert "train_t2m.py" in str(recognize(LAYOUTS / "humanml3d_272"))
    with pytest.raises(InputError, match=r"models\.motionmillion --source"):
        recognize(LAYOUTS / "motionmillion_hub_model")
    (tmp_path / "empty" / "texts").mkdir()
    with pytest.raises(InputError, match="half of a data set"):
        recognize(tmp_path / "empty")
    (tmp_path / "empty" / "ACCAD.tar.bz2").touch()
    with pytest.raises(InputError, match="holds ACCAD.tar.bz2 as downloaded"):
        recognize(tmp_path / "empty")
    assert prepare_data.COMMANDS.keys() >= set(known.values())
