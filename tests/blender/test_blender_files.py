"""Files that Blender opens and writes: joints, frames and units of BVH, glTF and FBX, and of characters."""

from pathlib import Path

import numpy as np
import pytest

from characters.character import load_character
from characters.pose import pose_character
from dataset.motion_folder import VECTORS
from formats.clip import read_clip
from motion.skeleton import JOINT_INDEX
from tests.conftest import run_script
from tests.export_helpers import export
from tests.rigs import MIXAMO, UNREAL, Rig, write_rig
from utils.errors import InputError
from visualize.body import floor_height, load_body

ENDS = ("head", "left_wrist", "right_wrist", "left_ankle", "right_ankle", "left_foot", "right_foot")
MILLIMETRE = 1e-3


def test_our_body_is_in_blender_where_it_is_in_the_npz(walk, tmp_path, probe):
    targets = [tmp_path / name for name in ("walk.bvh", "metres.bvh", "walk.glb", "walk.fbx")]
    for target in targets:
        export([str(walk), str(target), *(["--bvh-units", "m"] if target.stem == "metres" else [])])
    joints, clip = np.load(walk)["joints"], read_clip(walk)
    lift = (0, -floor_height(load_body(), clip.smplx85), 0)  # glTF and FBX have the soles on the floor
    for target, found in zip(targets, probe(*targets), strict=True):
        assert found["fps"] == pytest.approx(30) and np.ptp(found["frames"]) + 1 == len(joints)
        if target.suffix == ".fbx":  # centimetres, as Unreal expects them
            assert found["unit"] == 1 and np.allclose(found["scales"], 1, atol=1e-5)
        for name in ENDS:
            ours = joints[:, JOINT_INDEX[name]] + (lift if target.suffix != ".bvh" else 0)
            assert np.abs(found["places"][name] - ours).max() < MILLIMETRE, (target, name)
    back = read_clip(tmp_path / "walk.fbx")
    assert back.title == "walk" and np.abs(back.smplx85 - clip.smplx85 - np.eye(85)[73] * lift[1]).max() < MILLIMETRE


RIGS = {
    "mixamo, A-pose, below a node of scale 0.01": Rig(MIXAMO, arms=45, armature=0.01, axes="turned"),
    "unreal, turned bones": Rig(UNREAL, axes="random", above=("root",), twists=True, legs=1.2),
    "a hundred units per metre": Rig(MIXAMO, scale=100.0),
}


@pytest.mark.parametrize("suffix", [".glb", ".fbx"])
def test_characters_are_in_blender_where_our_kinematics_puts_them(walk, tmp_path, probe, suffix):
    characters, targets = [], []
    for number, rig in enumerate(RIGS.values()):
        characters.append(write_rig(tmp_path / f"rig{number}.glb", rig))
        targets.append(tmp_path / f"out{number}{suffix}")
        export([str(walk), str(targets[-1]), "--character", str(characters[-1])])
    for path, found in zip(characters, probe(*targets), strict=True):
        character = load_character(path)
        posed = pose_character(character, read_clip(walk))
        places = posed.places * character.scale @ character.axes.T
        assert found["fps"] == pytest.approx(30) and np.ptp(found["frames"]) + 1 == len(places)
        for bone in character.bones.all():
            error = np.abs(found["places"][character.skeleton.names[bone]] - places[:, bone]).max()
            assert error < MILLIMETRE * character.scale, (path, character.skeleton.names[bone])


def test_an_fbx_character_takes_several_motions_and_its_animations_are_read(walk, tmp_path, probe):
    rig = write_rig(tmp_path / "rig.glb", Rig(MIXAMO, arms=30, axes="turned"))
    export([str(walk), str(tmp_path / "hero.fbx"), "--character", str(rig), "--title", "first"])
    second = tmp_path / "second.fbx"
    export([str(walk), str(second), "--character", str(tmp_path / "hero.fbx"), "--title", "second"])
    (found,) = probe(second)
    assert sorted(name.rpartition("|")[2] for name in found["actions"]) == ["first", "second"]
    with pytest.raises(InputError, match="2 animations .*; choose one with --animation"):
        read_clip(second)
    export([str(second), str(tmp_path / "back.npz"), "--animation", "second"])
    back, joints = np.load(tmp_path / "back.npz")["joints"], np.load(walk)["joints"]
    assert len(back) == len(joints)
    assert np.abs((back - back[:, :1]) - (joints - joints[:, :1])).max() < 0.03  # the feet stand exactly


def test_scripts_read_folders_of_fbx_and_write_fbx(walk, tmp_path):
    source = tmp_path / "source"
    source.mkdir()
    for name in ("one", "two", "bad"):
        (source / f"{name}.txt").write_text("a person walks\n")
    rig = write_rig(tmp_path / "rig.glb", Rig(MIXAMO, arms=30, axes="turned"))
    export([str(walk), str(source / "one.fbx"), "--character", str(rig)])
    export([str(walk), str(source / "two.fbx")])
    (source / "bad.fbx").write_bytes(b"junk")
    run_script("prepare_data.py", "bvh", "--source", source, "--out", tmp_path / "data", "--mirrored", "false",
               "--workers", 1)  # fmt: skip
    clips = {file.stem: np.load(file) for file in (tmp_path / "data" / VECTORS).glob("*.npy")}
    assert clips.keys() == {"one", "two"} and all(clip.shape == (60, 272) for clip in clips.values())
    assert "Blender cannot convert it" in (tmp_path / "data" / "report.json").read_text()
    run_script("inference_batch.py", "--prompt", "a person walks", "--seconds", 1, "--save", "fbx", "--out-dir",
               tmp_path / "out", "--init-motion", source / "one.fbx", "--workers", 1)  # fmt: skip
    (written,) = (tmp_path / "out").glob("*.fbx")
    made, back = np.load(written.with_suffix(".npz"))["joints"], read_clip(written).smplx85
    assert len(back) == len(made) > 60


def test_damaged_fbx_files_are_refused_in_one_sentence(tmp_path, walk):
    for content in (b"junk", b"", b"Kaydara FBX Binary  \x00\x1a\x00\xe8\x1c\x00\x00" + bytes(200)):
        Path(tmp_path / "bad.fbx").write_bytes(content)
        with pytest.raises(InputError, match=r"bad\.fbx: .*") as refusal:
            read_clip(tmp_path / "bad.fbx")
        assert "Traceback" not in str(refusal.value) and str(refusal.value).count("bad.fbx") == 1
