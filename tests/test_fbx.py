"""FBX through a program that speaks as Blender does; tests/blender has the tests with a real one."""

import json
import sys
from itertools import islice
from pathlib import Path

import numpy as np
import pytest

from characters.character import load_character
from characters.write import write_character
from dataset.synthetic import synthetic_clips
from formats import fbx
from formats.clip import read_clip
from formats.fbx import write_fbx
from inference_batch import Options
from motion.clip import Clip
from motion.smplx import motion_to_smplx85
from tests.conftest import run_script
from tests.rigs import Rig, write_rig
from utils.errors import InputError

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="the program is a script that starts with #!")
PROGRAM = '''#!{python}
"""Files whose content is the word "walk" become a walk."""
import json, os, shutil, sys, time
print("Blender 5.0.1", flush=True)
with open("{folder}/starts", "a") as starts:
    starts.write("start\\n")
for line in sys.stdin:
    source, target = json.loads(line)
    word, reason = open(source, "rb").read(), ""
    if word == b"crash":
        print("Segmentation fault", flush=True)
        os.close(1)
        os.close(2)
        time.sleep(2)  # its output has ended, and the process has not
        os._exit(11)
    elif word == b"slow":
        time.sleep(60)
    elif word == b"walk" or source.endswith(".glb"):
        shutil.copyfile("{folder}/walk.glb", target)
    else:
        reason = "Cannot read " + source
    print("Info: done")
    print("\\n{answer}" + json.dumps(reason), flush=True)
'''


@pytest.fixture
def program(tmp_path, monkeypatch) -> Path:
    """The folder with the program in place of Blender, walk.glb, and a line in "starts" per start of the program."""
    _, rotations, pelvis, _ = next(islice(synthetic_clips(12, seed=1), 1, None))
    clip = Clip(motion_to_smplx85(rotations.astype(float), pelvis.astype(float))[:60], "walk")
    rig = load_character(write_rig(tmp_path / "rig.glb", Rig()))
    write_character(tmp_path / "walk.glb", rig, [clip])
    blender = tmp_path / "blender"
    blender.write_text(PROGRAM.format(python=sys.executable, folder=tmp_path, answer=fbx.ANSWER))
    blender.chmod(0o755)
    monkeypatch.setenv(fbx.VARIABLE, str(blender))
    return tmp_path


def written(path: Path, word: str) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_text(word)
    return path


def starts(folder: Path) -> int:
    return len((folder / "starts").read_text().splitlines())


def test_one_process_converts_all_files_and_starts_again_after_a_crash(program, monkeypatch):
    walks = [read_clip(written(program / f"walk{number}.fbx", "walk")) for number in range(2)]
    assert len(walks[0].smplx85) == 60 and np.array_equal(walks[0].smplx85, walks[1].smplx85)
    with pytest.raises(InputError, match=r"junk\.fbx: Blender cannot convert it \(Cannot read the file\)"):
        read_clip(written(program / "junk.fbx", "junk"))
    write_fbx(program / "out.fbx", lambda glb: glb.write_bytes(b""))
    assert (program / "out.fbx").exists() and starts(program) == 1
    with pytest.raises(InputError, match="Segmentation fault"):
        read_clip(written(program / "crash.fbx", "crash"))
    read_clip(program / "walk0.fbx")  # the next process has started
    monkeypatch.setattr(fbx, "LONGEST", 1)
    with pytest.raises(InputError, match="did not convert it within 1 s"):
        read_clip(written(program / "slow.fbx", "slow"))
    monkeypatch.undo()
    monkeypatch.setenv(fbx.VARIABLE, str(program / "blender"))
    assert len(read_clip(program / "walk0.fbx").smplx85) == 60 and starts(program) == 3


def test_a_folder_of_fbx_files_becomes_a_data_folder(program):
    source = program / "source"
    for name in ("one", "two", "crash", "junk"):
        written(source / f"{name}.fbx", "walk" if name in ("one", "two") else name).with_suffix(".txt").write_text(name)
    run_script("prepare_data.py", "bvh", "--source", source, "--out", program / "data", "--mirrored", "false",
               "--workers", 1)  # fmt: skip
    rejected = json.dumps(json.loads((program / "data" / "report.json").read_text()))
    assert {path.stem for path in (program / "data").rglob("*.npy")} >= {"one", "two"}
    assert "Segmentation fault" in rejected and "Cannot read the file" in rejected
    assert starts(program) == 2  # all files of a worker, and those after the crash


def test_without_blender_fbx_is_refused_before_any_work(tmp_path, monkeypatch, refused):
    monkeypatch.setenv(fbx.VARIABLE, str(tmp_path / "none"))
    with pytest.raises(InputError, match="no program"):
        Options(prompt="a person walks", save="npz,fbx")
    written(tmp_path / "source" / "a.fbx", "walk")
    assert "no program" in refused("prepare_data.py", "bvh", "--source", tmp_path / "source", "--out", tmp_path / "out")
