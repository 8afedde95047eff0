"""prepare_data.py: BVH files, good and broken, to a data folder."""

import json
import re

import numpy as np
import pytest
import yaml

from dataset.converting import convert_source
from dataset.motion_folder import VECTORS, MotionFolder
from dataset.sources import bvh
from dataset.sources.bvh import BvhOptions
from dataset.splits import MIRRORED, split_of
from dataset.synthetic import synthetic_clips
from motion.features272 import LAYOUT, features_from_motion, recover_joints_fk, recover_rotations
from motion.resample import FPS
from motion.skeleton import MIRROR, mirror
from tests.bvh_files import HAND_WRITTEN, OWN_MAP, own_clip, write_bvh
from tests.conftest import run_script
from utils.errors import InputError

pytestmark = pytest.mark.filterwarnings("ignore:Gimbal lock")  # of the writer of test files


@pytest.fixture(scope="module")
def motions():
    """Rotations and pelvis of one procedural clip per action, by action."""
    return {name.rpartition("_")[0]: (rotations, pelvis) for name, rotations, pelvis, _ in synthetic_clips(22, seed=1)}


def clip_name(stem, split):
    return next(name for name in (f"{stem} {number}" for number in range(1000)) if split_of(name) == split)


GOOD = {clip_name("walk left", "train"): "walk_turn_left", clip_name("wave", "train"): "wave_right_hand",
        clip_name("kick", "test"): "kick_left"}  # fmt: skip
CAPTIONS = ["A person moves to the left, right hand up.", "someone  does it", "", "Left!"]


@pytest.fixture(scope="module")
def prepared(tmp_path_factory, motions):
    """(source folder, data folder, output) of a source with three valid files in subfolders and many invalid ones."""
    root = tmp_path_factory.mktemp("bvh")
    source, out = root / "source", root / "data"
    for name, kind in GOOD.items():
        write_bvh(source / kind / f"{name}.bvh", own_clip(*motions[kind]))
        (source / kind / f"{name}.txt").write_text("\n".join(CAPTIONS))
    example = source / "walk_turn_left" / f"{next(iter(GOOD))}.bvh"
    text = example.read_text()
    bad = {
        "binary": b"\x80\xff" * 100,
        "truncated": text[: int(0.7 * len(text))].encode(),
        "half_header": text[:300].encode(),
        "nan": re.sub(r"(Frame Time.*\n)\S+", r"\1nan", text).encode(),
        "no_frames": (text[: text.index("Frames:")] + "Frames: 0\nFrame Time: 0.033333\n").encode(),
        "other_joints": text.replace("left_wrist", "LeftHand").encode(),
        "channels": text.replace("Zrotation", "Wrotation", 1).encode(),
        "silent": text.encode(),
    }
    for name, content in bad.items():
        (source / f"{name}.bvh").write_bytes(content)
        if name != "silent":
            (source / f"{name}.txt").write_text("a person walks\n")
    write_bvh(source / "short.bvh", own_clip(*(array[:15] for array in motions["squat"])))
    (source / "short.txt").write_text("a person squats\n")
    (root / "map.yaml").write_text(yaml.safe_dump(OWN_MAP))
    output = run_script("prepare_data.py", "bvh", "--source", source, "--out", out, "--skeleton", root / "map.yaml",
                        "--workers", 2)  # fmt: skip
    return source, out, output


def test_rejected_files_are_reported_and_the_others_converted(prepared):
    source, out, output = prepared
    report = json.loads((out / "report.json").read_text())
    reasons = {
        "binary": "cannot be read as a BVH file",
        "truncated": "promises",
        "half_header": "complete BVH file",
        "nan": "NaN",
        "no_frames": "promises 0 frames",
        "other_joints": "no joint left_wrist .*LeftHand",
        "channels": "unknown channels Wrotation",
        "silent": r"no caption; write silent\.txt beside it, one caption per line",
        "short": "15 frames at 30 fps, fewer than --min-frames 16",
    }
    assert list(report["rejected"]) == sorted(reasons)
    for name, reason in reasons.items():
        assert re.search(reason, report["rejected"][name]), report["rejected"][name]
    printed = {name for name in reasons if f"rejected: {report['rejected'][name]}" in output}
    assert printed == set(reasons) - {"truncated"} and "(likewise in 1 other files)" in output  # as no_frames
    assert report["clips"] == {"train": 4, "val": 0, "test": 1} and report["fps"] == FPS
    assert "9 files rejected" in output


def test_prepared_folder_holds_the_motion_of_the_files(prepared, motions):
    _, out, _ = prepared
    folder = MotionFolder(out)
    trained = sorted(name for name in GOOD if split_of(name) == "train")
    assert folder.ids("train") == sorted([*trained, *(name + MIRRORED for name in trained)])
    assert folder.ids("val", required=False) == [] and len(folder.ids("test")) == 1
    for name, kind in GOOD.items():
        features = folder.motion(name)
        expected = features_from_motion(*(array.astype(np.float64) for array in motions[kind]))
        assert features.dtype == np.float32
        np.testing.assert_allclose(features, expected, atol=2e-4)
        assert folder.captions(name) == [line for line in CAPTIONS if line]


def test_mirrored_copies_swap_sides_in_motion_and_captions(prepared):
    _, out, _ = prepared
    folder = MotionFolder(out)
    for name in (name for name in GOOD if split_of(name) == "train"):
        original, mirrored = folder.motion(name), folder.motion(name + MIRRORED)
        expected = mirror(*recover_rotations(original))
        rotations, pelvis = recover_rotations(mirrored)
        np.testing.assert_allclose(rotations, expected[0], atol=1e-3)
        np.testing.assert_allclose(pelvis[:, [0, 2]], expected[1][:, [0, 2]], atol=1e-2)
        left = recover_joints_fk(original) * [-1, 1, 1]
        assert np.abs(recover_joints_fk(mirrored)[:, MIRROR] - left).max() < 0.1  # the rest skeleton is not symmetric
        assert folder.captions(name + MIRRORED)[0] == "A person moves to the right, left hand up."
    assert not list((out / VECTORS).glob("kick*mirrored*"))  # only training clips are mirrored


def test_statistics_are_over_the_training_clips_with_one_std_per_block(prepared):
    _, out, _ = prepared
    folder = MotionFolder(out)
    everything = np.concatenate([folder.motion(name) for name in folder.ids("train")]).astype(np.float64)
    mean, std = folder.mean_std()
    np.testing.assert_allclose(mean, everything.mean(axis=0), atol=1e-5)
    for block in LAYOUT.values():
        np.testing.assert_allclose(std[block], everything[:, block].std(axis=0).mean(), rtol=1e-3)


def test_captions_file_gives_captions_or_the_reason_for_a_rejection(prepared, tmp_path):
    source, _, _ = prepared
    file = next((source / "wave_right_hand").glob("*.bvh"))

    def convert(rules, mirrored=False):
        (tmp_path / "captions.yaml").write_text(yaml.safe_dump({"clips": rules}))
        options = BvhOptions(source, tmp_path / "out", tmp_path / "map.yaml", tmp_path / "captions.yaml",
                             mirrored=mirrored, captions_per_clip=2)  # fmt: skip
        return bvh.plan(options)

    (tmp_path / "map.yaml").write_text(yaml.safe_dump(OWN_MAP))
    plan = convert({file.stem: ["one", "two", "three"]})
    (task,) = plan.tasks
    assert task.cuts[0].lines == ("one", "two")
    assert [clip.captions for clip in plan.convert(task).clips] == [["one", "two"]]
    plan = convert({"another clip": ["a person walks"]})
    assert not plan.tasks and "no entry for the clip" in plan.left_out[f"wave_right_hand/{file.stem}"]
    with pytest.raises(InputError, match="no usable training clip came out of"):
        convert_source(plan, BvhOptions(source, tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_invalid_command_line_ends_with_one_sentence(refused, prepared, tmp_path):
    source, _, _ = prepared
    (tmp_path / "file").write_text("")
    (tmp_path / "faulty.yaml").write_text("clips: 3")
    twins = tmp_path / "twins"
    for folder in ("a", "b"):
        (twins / folder).mkdir(parents=True)
        (twins / folder / "walk.bvh").write_text(HAND_WRITTEN)
    bvh, out = ("prepare_data.py", "bvh", "--source"), ("--out", tmp_path / "out")
    assert "none holds no .bvh file" in refused(*bvh, tmp_path / "none", *out)
    assert "walk.bvh more than once" in refused(*bvh, twins, *out)
    assert "is not a captions file" in refused(*bvh, source, *out, "--captions", tmp_path / "faulty.yaml")
    assert "none.yaml: the file is missing" in refused(*bvh, source, *out, "--skeleton", tmp_path / "none.yaml")
    assert "cannot write" in refused(*bvh, source, "--out", tmp_path / "file" / "data")
    assert "--min-frames is 0" in refused(*bvh, source, *out, "--min_frames", 0)
    assert "--colour" in refused("prepare_data.py", "synthetic", *out, "--colour", "red")
    assert "--seed is -1" in refused("prepare_data.py", "synthetic", *out, "--seed", -1)
    assert "--out is missing" in refused("prepare_data.py", "synthetic")
    assert "give one of the commands" in refused("prepare_data.py", "--out", tmp_path / "out")
    assert "cannot write" in refused("prepare_data.py", "synthetic", "--out", tmp_path / "file")
    assert not (tmp_path / "out").exists()


def test_upper_case_suffixes_and_foreign_text_encodings_are_read(tmp_path, motions):
    source, name = tmp_path / "source", clip_name("walk", "train")
    write_bvh(source / f"{name}.bvh", own_clip(*motions["walk_turn_left"]))
    (source / f"{name}.bvh").rename(source / f"{name}.BVH")
    text = "turns left, counter-clockwise\r\n\r\nleft the room right after song #5\r\n"
    (source / f"{name}.TXT").write_bytes(text.encode("utf-16"))
    (tmp_path / "map.yaml").write_text(yaml.safe_dump(OWN_MAP))
    options = BvhOptions(source, tmp_path / "out", tmp_path / "map.yaml", workers=1, force=True)
    convert_source(bvh.plan(options), options)
    folder = MotionFolder(tmp_path / "out")
    assert folder.captions(name) == ["turns left, counter-clockwise", "left the room right after song #5"]
    assert folder.captions(name + MIRRORED) == ["turns right, clockwise", "left the room right after song #5"]
