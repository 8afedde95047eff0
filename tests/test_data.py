"""Data preparation and windows: captions, the canonical folder, what the tokenizer trains on."""

import json
import re

import numpy as np
import pytest
import torch
import yaml

import prepare_data
from dataset.captions import CaptionRules, swap_left_right
from dataset.motion_folder import MIRRORED, STATISTICS, VECTORS, MotionFolder, Statistics, split_of
from dataset.synthetic import synthetic_clips
from dataset.windows import WindowDataset
from formats.bvh import SkeletonMap
from motion.features272 import LAYOUT, features_from_motion, recover_joints_fk, recover_rotations
from motion.resample import FPS
from motion.skeleton import MIRROR, mirror
from tests.bvh_files import HAND_WRITTEN, OWN_MAP, own_clip, write_bvh
from tests.conftest import run_script
from utils.errors import InputError

pytestmark = pytest.mark.filterwarnings("ignore:Gimbal lock")  # of the writer of test files


@pytest.fixture(scope="module")
def motions():
    """Rotations and pelvis of one procedural clip a kind, by kind."""
    return {name.rpartition("_")[0]: (rotations, pelvis) for name, rotations, pelvis, _ in synthetic_clips(22, seed=1)}


# --- Captions


def test_left_and_right_swap_as_words_only():
    text = "Left, RIGHT and left; leftover copyright Right-handed"
    assert swap_left_right(text) == "Right, LEFT and right; leftover copyright Left-handed"
    assert swap_left_right(swap_left_right(text)) == text


RULES = {
    "clips": {"special": ["a person waves", "someone waves"]},
    "pattern": r"(?P<content>[a-z]+)_(?P<style>[a-z]+)_\d+",
    "contents": {"walk": ["walks", "strolls", "goes"]},
    "styles": {"glad": ["gladly", "with joy"], "plain": ["in the usual way", "as usual"]},
    "templates": ["a person {content} {style}", "someone {content} {style}", "{style}, he {content}"],
    "templates_without_style": ["a person {content}"],
    "styles_without_mention": ["plain"],
    "content_overrides": {"run_glad_9": "walk"},
}


def test_captions_come_from_labels_and_stay_the_same(tmp_path):
    (tmp_path / "captions.yaml").write_text(yaml.safe_dump(RULES))
    rules = CaptionRules.from_yaml(tmp_path / "captions.yaml")
    captions = rules.captions("walk_glad_1", 3)
    assert len(set(captions)) == 3 and captions == CaptionRules(**RULES).captions("walk_glad_1", 3)
    assert all(re.search("walks|strolls|goes", text) and re.search("gladly|with joy", text) for text in captions)
    assert any("usual" not in text for text in rules.captions("walk_plain_1", 30))
    assert rules.captions("special", 8) == RULES["clips"]["special"] and len(rules.captions("special", 1)) == 1
    assert re.search("walks|strolls|goes", rules.captions("run_glad_9", 1)[0])
    for clip_id, words in (("other", "says nothing of the clip other"), ("fly_glad_1", "no phrases for fly glad")):
        with pytest.raises(InputError, match=words):
            rules.captions(clip_id, 3)


@pytest.mark.parametrize(
    "content, words",
    [
        (None, "is not a captions file"),
        (b"\xff\xfe\x00", "is not a captions file"),
        ("clips: [", "is not a captions file"),
        ("just a text", "is not a captions file"),
        ({"clip": {}}, "clip"),
        ({"clips": ["a"]}, "is not a captions file"),
        ({"clips": {"walk": "a person walks"}}, r"clips\.walk .* list of texts"),
        ({"clips": {"walk": []}}, r"clips\.walk .* list of texts"),
        ({**RULES, "styles": {"glad": "gladly"}}, r"styles\.glad .* list of texts"),
        ({**RULES, "contents": {"walk": [1, 2]}}, r"contents\.walk .* list of texts"),
        ({**RULES, "pattern": "(?P<content>.*"}, "is not a captions file"),
        ({**RULES, "pattern": "(?P<content>.*)"}, "lacks the group content or style"),
        ({**RULES, "templates": ["a person {what}"]}, "a person {what}"),
    ],
)
def test_faulty_captions_files_are_refused(tmp_path, content, words):
    path = tmp_path / "captions.yaml"
    if content is not None:
        path.write_bytes(content if isinstance(content, bytes) else yaml.safe_dump(content).encode())
    with pytest.raises(InputError, match=words) as caught:
        CaptionRules.from_yaml(path)
    assert "\n" not in str(caught.value)


# --- prepare_data.py bvh


def clip_name(stem, split):
    return next(name for name in (f"{stem} {number}" for number in range(1000)) if split_of(name) == split)


GOOD = {clip_name("walk left", "train"): "walk_turn_left", clip_name("wave", "train"): "wave_right_hand",
        clip_name("kick", "test"): "kick_left"}  # fmt: skip
CAPTIONS = ["A person moves to the left, right hand up.", "someone  does it", "", "Left!"]


@pytest.fixture(scope="module")
def prepared(tmp_path_factory, motions):
    """(source folder, data folder, what was printed) of three good files, in subfolders, among many bad ones."""
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


def test_rejected_files_are_reported_with_reasons_and_the_others_go_on(prepared):
    source, out, output = prepared
    report = json.loads((out / "report.json").read_text())
    reasons = {
        "binary": "cannot be read as a BVH text file",
        "truncated": "promises",
        "half_header": "not a complete BVH file",
        "nan": "NaN",
        "no_frames": "promises 0 frames",
        "other_joints": "no joint left_wrist .*LeftHand",
        "channels": "unknown channels Wrotation",
        "silent": r"no caption; write silent\.txt beside it",
        "short": "15 frames at 30 fps, fewer than --min_frames 16",
    }
    assert list(report["rejected"]) == sorted(reasons)
    for name, reason in reasons.items():
        assert re.search(reason, report["rejected"][name]), report["rejected"][name]
        assert f"rejected: {report['rejected'][name]}" in output
    assert report["clips"] == {"train": 4, "val": 0, "test": 1} and report["fps"] == FPS
    assert "9 files rejected" in output


def test_prepared_folder_reads_back_as_the_motion_that_went_in(prepared, motions):
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
    assert not list((out / VECTORS).glob("kick*mirrored*"))  # training clips alone


def test_statistics_are_those_of_the_training_clips_with_one_std_a_block(prepared):
    _, out, _ = prepared
    folder = MotionFolder(out)
    everything = np.concatenate([folder.motion(name) for name in folder.ids("train")]).astype(np.float64)
    mean, std = folder.mean_std()
    np.testing.assert_allclose(mean, everything.mean(axis=0), atol=1e-5)
    for block in LAYOUT.values():
        np.testing.assert_allclose(std[block], everything[:, block].std(axis=0).mean(), rtol=1e-3)


def test_statistics_do_not_depend_on_how_clips_are_cut():
    features = np.random.default_rng(0).normal(3, 2, (90, 272))
    whole, parts = Statistics(), Statistics()
    whole.add(90, features.sum(axis=0), (features**2).sum(axis=0))
    for part in np.split(features, [10, 37]):
        parts.add(len(part), part.sum(axis=0), (part**2).sum(axis=0))
    for one, other in zip(whole.mean_std(), parts.mean_std(), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5)
    constant = Statistics()
    constant.add(2, np.full(272, 2.0), np.full(272, 2.0))
    assert (constant.mean_std()[1] > 0).all()


def test_split_is_fixed_by_the_name_and_shared_with_the_mirrored_copy():
    known = {"run_00045": "val", "jump_00053": "test", "walk_00088": "val", "walk_00000": "train"}
    assert {name: split_of(name) for name in known} == known
    names = [f"{number:06d}" for number in range(20000)]
    splits = [split_of(name) for name in names]
    assert [split_of(name + MIRRORED) for name in names] == splits
    assert splits.count("val") / 20000 == pytest.approx(0.03, abs=0.005)
    assert splits.count("test") / 20000 == pytest.approx(0.05, abs=0.005)


def test_captions_file_gives_the_captions_or_the_reason_of_a_rejection(prepared, tmp_path):
    source, _, _ = prepared
    file = next((source / "wave_right_hand").glob("*.bvh"))

    def convert(rules):
        return prepare_data.convert_bvh(file, tmp_path / "out", SkeletonMap(**OWN_MAP), rules, False, 2, 16)

    prepare_data.make_folder(tmp_path / "out")
    assert [written.clip_id for written in convert(CaptionRules({file.stem: ["one", "two", "three"]}))] == [file.stem]
    assert (tmp_path / "out" / "texts" / f"{file.stem}.txt").read_text() == "one\ntwo\n"
    rejected = convert(CaptionRules(**RULES))
    assert "says nothing of the clip" in rejected[0].rejected
    with pytest.raises(InputError, match="no usable training clip came out of 1 files"):
        prepare_data.finish_folder(tmp_path / "out", rejected)


def test_bad_command_lines_end_with_one_sentence(refused, prepared, tmp_path):
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
    assert "is not a skeleton map" in refused(*bvh, source, *out, "--skeleton", tmp_path / "none.yaml")
    assert "cannot write to" in refused(*bvh, source, "--out", tmp_path / "file" / "data")
    assert "min_frames" in refused(*bvh, source, *out, "--min-frames", 0)
    assert "--colour" in refused("prepare_data.py", "synthetic", *out, "--colour", "red")
    assert "out" in refused("prepare_data.py", "synthetic")
    assert "cannot write to" in refused("prepare_data.py", "synthetic", "--out", tmp_path / "file")
    assert not (tmp_path / "out").exists()


# --- The canonical folder


def test_humanml3d_caption_lines(small_folder):
    clip_id = small_folder.ids("train")[0]
    lines = ["a plain caption", "a person walks#a/DET person/NOUN walk/VERB#0.0#0.0", "he walks#he/PRON#nan#nan",
             "a part of it#a/DET part/NOUN#1.5#3.0", "", "  #x#0.0#0.0", "with tokens only#with/ADP"]  # fmt: skip
    (small_folder.path / "texts" / f"{clip_id}.txt").write_text("\n".join(lines))
    whole = ["a plain caption", "a person walks", "he walks", "with tokens only"]
    assert small_folder.captions(clip_id) == whole
    assert small_folder.spans(clip_id) == {None: whole, (1.5, 3.0): ["a part of it"]}
    (small_folder.path / "texts" / f"{clip_id}.txt").write_text("he walks\nhe runs#he/PRON#soon#3.0\n")
    with pytest.raises(InputError, match=rf"line 2 of .*{clip_id}\.txt has soon#3\.0 where from#to in seconds"):
        small_folder.captions(clip_id)


def test_faults_of_a_folder_are_named(small_folder):
    path, clip_id = small_folder.path, small_folder.ids("train")[0]
    with pytest.raises(InputError, match="holds no motion_data"):
        MotionFolder(path / "texts")
    with pytest.raises(InputError, match=r"split/val\.txt is empty"):
        small_folder.ids("val")
    with pytest.raises(InputError, match=r"split/other\.txt is missing"):
        small_folder.ids("other")
    with pytest.raises(InputError, match=r"none\.txt is missing"):
        small_folder.captions("none")
    (path / "texts" / f"{clip_id}.txt").write_bytes(b"\xff\xfe")
    with pytest.raises(InputError, match=f"{clip_id}.txt cannot be read as UTF-8"):
        small_folder.captions(clip_id)
    (path / "split" / "val.txt").write_text("gone\n")
    with pytest.raises(InputError, match="names gone, which has no"):
        small_folder.ids("val")
    np.save(path / STATISTICS / "std.npy", np.zeros(272))
    with pytest.raises(InputError, match=r"std\.npy is not 272 finite values"):
        small_folder.mean_std()
    (path / STATISTICS / "mean.npy").unlink()
    with pytest.raises(InputError, match=r"mean\.npy cannot be read"):
        small_folder.mean_std()


FAULTS = {
    "half-written": (lambda file: file.write_bytes(file.read_bytes()[:5000]), "cannot be read as a NumPy array"),
    "empty": (lambda file: file.write_bytes(b""), "cannot be read as a NumPy array"),
    "pickled": (lambda file: np.save(file, np.array([{}], dtype=object)), "cannot be read as a NumPy array"),
    "width": (lambda file: np.save(file, np.zeros((40, 263), np.float32)), r"263\) where \(frames, 272\) is needed"),
    "no frames": (lambda file: np.save(file, np.zeros((0, 272), np.float32)), "holds no frames"),
    "NaN": (lambda file: np.save(file, np.full((40, 272), np.nan, np.float32)), "NaN or infinite"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_unfit_feature_files_are_named(small_folder, fault):
    damage, words = FAULTS[fault]
    clip_id = small_folder.ids("train")[2]
    file = small_folder.motion_file(clip_id)
    damage(file)
    with pytest.raises(InputError, match=words) as caught:
        small_folder.motion(clip_id)
    assert str(file) in str(caught.value)
    with pytest.raises(InputError, match=words) as caught:
        windows = WindowDataset(small_folder, "train", 32)
        for number in range(len(windows)):
            windows[number]
    assert str(file) in str(caught.value)


# --- Windows


def test_windows_have_the_asked_shape_and_hold_parts_of_their_clips(small_folder):
    windows = WindowDataset(small_folder, "train", 32)
    clips = [small_folder.motion(name) for name in small_folder.ids("train")]
    assert len(windows) == sum(len(clip) // 32 for clip in clips)
    starts = set()
    for number in range(len(windows)):
        _, features, valid = windows[number]
        assert features.shape == (32, 272) and features.dtype == torch.float32 and valid == 32
        found = [
            (index, start)
            for index, clip in enumerate(clips)
            for start in np.flatnonzero((clip[: len(clip) - 31] == features[0].numpy()).all(axis=1))
            if np.array_equal(clip[start : start + 32], features)
        ]
        assert found
        starts.update(found)
    assert len(starts) > 0.8 * len(windows)


def test_short_clips_are_padded_with_zeros(small_folder):
    windows = WindowDataset(small_folder, "train", 500)
    assert len(windows) == 7
    for number, clip_id in enumerate(small_folder.ids("train")):
        _, features, valid = windows[number]
        clip = small_folder.motion(clip_id)
        assert valid == len(clip) and features.shape == (500, 272)
        np.testing.assert_array_equal(features[:valid], clip)
        assert not features[valid:].any()


def test_an_item_number_decides_the_window(small_folder):
    one, other = (WindowDataset(small_folder, "train", 32) for _ in range(2))
    for number in (0, 3, len(one) + 3, 5 * len(one) + 3):
        assert one[number][0] == other[number][0] and torch.equal(one[number][1], other[number][1])
    assert len({one[3 + epoch * len(one)][1].numpy().tobytes() for epoch in range(6)}) > 2
