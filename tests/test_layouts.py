"""Published folders of 272-dim features, read in place: their clips, both trainings on them, and faults."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from dataset import derived
from dataset.captioned_clips import CaptionedClips
from dataset.layouts import LAYOUTS, OURS, find_layout
from dataset.motion_folder import MotionFolder
from dataset.token_rows import TokenDataset
from dataset.tokenizing import tokenize
from dataset.windows import WindowDataset
from models.motion_vqvae import HumanVQVAE, VQVAEConfig
from tests.conftest import ROOT, golden_eval
from tests.prepare_helpers import prepare
from utils.errors import InputError

EXPECTED = json.loads(golden_eval("layouts/expected.json").read_text())
STREAM = EXPECTED["babel_272_stream"]
FOLDERS = {"humanml3d_272": "humanml3d_272", "MotionMillion": "dataset/MotionMillion"}  # by their name in EXPECTED
SPLITS = [(name, split) for name in FOLDERS for split in EXPECTED[name]]
DEBUG = ("--precision", "float32", "--steps", 2, "--validate-every", 2)


@pytest.fixture
def published(tmp_path):
    """Copies a published tree, because an index is written into it; returns the copy."""

    def copy(name: str) -> Path:
        return shutil.copytree(golden_eval("layouts") / name, tmp_path / Path(name).name)

    return copy


@pytest.fixture
def tokenizer_folder(tmp_path) -> tuple[Path, HumanVQVAE]:
    """A saved tokenizer of debug size."""
    torch.manual_seed(0)
    tokenizer = HumanVQVAE(VQVAEConfig(levels=[8, 5, 5, 5], code_dim=8, width=8, down_t=2, depth=1)).eval()
    tokenizer.save_pretrained(tmp_path / "tokenizer")
    return tmp_path / "tokenizer", tokenizer


def kept(folder: MotionFolder, split: str) -> list[dict]:
    """The clips of a split in the form and order of expected.json."""
    clips = folder.clips(split)
    described = [
        {
            "name": clip.id,
            "part": clip.is_part,
            "length": clip.frames,
            "captions": clip.captions,
            "first": clips.features(clip)[0, :4].astype(float).tolist(),
        }
        for clip in clips
    ]
    assert [len(clips.features(clip)) for clip in clips] == [clip["length"] for clip in described]
    return in_order(described)


def in_order(clips: list[dict]) -> list[dict]:
    return sorted(clips, key=lambda clip: (clip["name"], clip["part"], clip["captions"], clip["length"], clip["first"]))


def listed(file: Path) -> list[str]:
    return file.read_text().splitlines()


# --- Clips


@pytest.mark.parametrize("name, split", SPLITS)
def test_clips_are_those_of_the_public_readers(published, name, split):
    folder = MotionFolder(published(FOLDERS[name]))
    assert kept(folder, split) == in_order(EXPECTED[name][split])
    [lists] = [path for path in folder.path.rglob(f"{split}.txt") if "tokenizer" not in path.parent.name]
    clips = folder.clips(split)
    motions = {clip.id for clip in clips}
    left_out = sum(count for reason, count in clips.left_out.items() if "part" not in reason)
    assert len(set(listed(lists)) - motions) <= left_out <= len(set(listed(lists)))


def test_training_clips_are_not_limited_in_length(published):
    folder = MotionFolder(published(FOLDERS["humanml3d_272"]))
    frames = {"long": 500, "short": 20}
    for name, length in frames.items():
        np.save(folder.motion_file(name), np.resize(folder.motion(folder.ids("train")[0]), (length, 272)))
        folder.caption_file(name).write_text("walks#walk/VERB#0.0#0.0")
    every = [*listed(folder.path / "split" / "test.txt"), *frames]
    for split in ("train", "test"):
        (folder.path / "split" / f"{split}.txt").write_text("\n".join(every))
    assert not frames.keys() & set(folder.clips("test").ids)
    assert {clip.id: clip.frames for clip in folder.clips("train") if not clip.is_part} == {
        name: len(folder.motion(name)) for name in every if folder.captions(name)
    }


def test_blank_captions_count_in_the_public_evaluation_of_motionmillion_only(published):
    folder = MotionFolder(published(FOLDERS["MotionMillion"]))
    blank = any("" in clip["captions"] for clip in EXPECTED["MotionMillion"]["val"])
    assert any("" in clip.captions for clip in folder.clips("val")) == blank
    assert not any("" in clip.captions for clip in folder.clips("train"))


def test_tokenizer_and_generator_have_splits_of_their_own(published):
    folder = MotionFolder(published(FOLDERS["MotionMillion"]))
    lists = folder.path / "split" / "version1"
    assert folder.motions("train").ids == listed(lists / "tokenizer_96" / "train.txt")
    assert folder.clips("train").ids == listed(lists / "t2m_60_300" / "train.txt")


def test_babel_is_read_whatever_the_length_of_its_clips(published):
    folder = MotionFolder(published("babel_272"))
    for split in ("train", "val"):
        names = listed(folder.path / "split" / f"{split}.txt")
        assert folder.clips(split).ids == folder.motions(split).ids == names
    for values, name in zip(folder.mean_std(), ("Mean", "Std"), strict=True):
        saved = np.load(folder.path / "t2m_babel_mean_std" / f"{name}.npy")
        assert values.dtype == np.float32 and saved.dtype == np.float64
        np.testing.assert_allclose(values, saved, rtol=1e-6)


def test_two_actions_in_a_row_become_a_clip_with_context_and_the_first_action(published):
    published("babel_272")
    folder = MotionFolder(published("babel_272_stream"))
    folder.mean_std()  # of babel_272 beside it
    for expected in STREAM:
        clips = [clip for clip in folder.clips(expected["split"]) if clip.id == expected["name"]]
        assert (clips[0].captions, clips[0].context) == ([expected["second"]], expected["first_frames"])
        assert (clips[0].frames, clips[0].is_part) == (expected["total"], False)
        first = [(clip.captions, clip.start, clip.frames) for clip in clips[1:]]
        assert first == ([([expected["first"]], 0, expected["first_frames"])] if expected["first"] else [])
    assert sorted(folder.motions("train").ids) == sorted(clip["name"] for clip in STREAM if clip["split"] == "train")


def test_every_layout_is_recognized_and_other_data_is_not(published):
    names = {"humanml3d_272", "babel_272", "babel_272_stream", "dataset/MotionMillion", "motionmillion_hub_data"}
    found = {find_layout(golden_eval("layouts") / name) for name in names}
    assert found == set(LAYOUTS) - {OURS}
    for other in golden_eval("layouts").iterdir():
        assert other.name in {Path(name).name for name in names} or find_layout(other) is None


# --- Training


def converted_amass(monkeypatch, source: Path, out: Path) -> Path:
    """Convert the tree of AMASS with a caption per file, and with clips for validation."""
    files = [file.relative_to(source) for file in source.rglob("*_*.npz") if not file.name.endswith("_stagei.npz")]
    table = source / "captions.csv"
    table.write_text("file,text\n" + "".join(f'"{file}",a person moves\n' for file in files))
    prepare(monkeypatch, "amass", source, out, captions=table, min_frames=2, val_share=0.5)
    return out


@pytest.mark.parametrize("name", [*FOLDERS.values(), "amass"])
def test_both_trainings_run_on_published_folders(run_here, published, tmp_path, monkeypatch, name):
    data, draw = published(name), int("/" in name)  # names of MotionMillion are paths
    if name == "amass":
        data = converted_amass(monkeypatch, data, tmp_path / "converted")
    printed = run_here("train_vq.py", "--config", ROOT / "configs/vq/debug.yaml", *DEBUG, "--data", data,
                       "--out", tmp_path / "vq", "--draw", 0)  # fmt: skip
    printed += run_here("train_t2m.py", "--config", ROOT / "configs/t2m/debug.yaml", *DEBUG, "--data", data,
                        "--tokenizer", tmp_path / "vq", "--out", tmp_path / "t2m", "--draw", draw)  # fmt: skip
    folder = MotionFolder(data)
    assert (tmp_path / "t2m" / "model.safetensors").exists()
    assert f"warning: the validation split has {len(folder.motions('val'))} clips" in printed
    for split in ("train", "val"):
        assert all(note in printed for note in folder.clips(split).notes(split))
    assert len(list((tmp_path / "t2m" / "motions").rglob("*.mp4"))) == draw


def test_context_of_two_actions_is_no_target(published, tokenizer_folder):
    path = tokenize(MotionFolder(published("babel_272_stream")), *tokenizer_folder, "train", joined=2)
    rows = TokenDataset(path, tokenizer_folder[0], 500).table.to_pylist()
    for expected in (clip for clip in STREAM if clip["split"] == "train"):
        first, total = expected["first_frames"], expected["total"]
        of_both = [row for row in rows if row["id"] == expected["name"]]
        assert {tuple(row["captions"]) for row in of_both} == {(expected["second"],)}
        assert [(row["context"], row["length"]) for row in of_both] == [
            ((first - shift) // 4, (total - shift) // 4) for shift in range(4)
        ]
    first = [clip["first"] for clip in STREAM if clip["split"] == "train" and clip["first"]]
    assert not first or any(row["context"] for row in rows if row["captions"] == first[:1])


# --- Faults


def test_incomplete_data_is_reported_or_refused_in_one_sentence(published):
    path = published(FOLDERS["humanml3d_272"])
    names = [file.stem for file in (path / "motion_data").iterdir()]
    (path / "split" / "train.txt").write_text("\n".join(names))
    (path / "motion_data" / f"{names[0]}.npy").unlink()
    (path / "texts" / f"{names[1]}.txt").unlink()
    (path / "motion_data" / f"{names[2]}.npy").write_bytes(b"nonsense")
    [note] = MotionFolder(path).clips("train").notes("train")
    for words in (" without a motion file", " without a caption file", " that cannot be read", f"{names[2]}.npy"):
        assert words in note
    (path / "texts").rename(path / "elsewhere")
    (path / "texts.zip").touch()
    with pytest.raises(InputError, match=r"texts holds the captions of none of the .*; unzip texts\.zip there"):
        MotionFolder(path).clips("train")
    (path / "elsewhere").rename(path / "texts")
    (path / "split" / "train.txt").write_text("nowhere\nnothing\n")
    with pytest.raises(InputError, match=r"train\.txt lists 2 motions, and none of them is in .*motion_data"):
        MotionFolder(path).motions("train")
    (path / "split" / "train.txt").write_text(f"../split\n/etc/x\n{names[1]}\n")
    [note] = MotionFolder(path).motions("train").notes("train")
    assert "2 that cannot be read" in note and "../split cannot be the name of a motion" in note
    shutil.rmtree(path / "motion_data")
    with pytest.raises(InputError, match="only half of a data set"):
        MotionFolder(path)
    (path / "motion_data.zip").touch()
    with pytest.raises(InputError, match=r"holds motion_data\.zip as downloaded; unzip the"):
        MotionFolder(path)


@pytest.mark.parametrize(
    "line, words", [("walk", "instead of first"), ("walk*sit#soon", "has soon instead of a number")]
)
def test_invalid_lines_of_two_actions_are_left_out(published, line, words):
    path = published("babel_272_stream")
    name = next(clip["name"] for clip in STREAM if clip["split"] == "train")
    (path / "train_stream_text" / f"{name}.txt").write_text(line)
    [note] = MotionFolder(path).clips("train", required=False).notes("train")
    assert "1 that cannot be read" in note and words in note and f"{name}.txt" in note


def test_damaged_values_of_published_data_cost_a_warning(small_folder, tokenizer_folder, capsys):
    path, (damaged, *others) = small_folder.path, small_folder.ids("train")
    for purpose in ("tokenizer_96", "t2m_60_300"):  # the layout of MotionMillion
        shutil.copytree(path / "split", path / f"version1/{purpose}")
    (path / "version1").rename(path / "split/version1")
    features = np.load(small_folder.motion_file(damaged))
    np.save(small_folder.motion_file(damaged), np.where(np.arange(272) == 3, np.nan, features).astype(np.float32))
    folder = MotionFolder(path)
    windows = WindowDataset(folder.motions("train"), 32)
    assert {windows[number][0] for number in range(len(windows))} == set(others)
    assert capsys.readouterr().out.count("warning: left out") == 1
    rows = TokenDataset(tokenize(folder, *tokenizer_folder, "train"), tokenizer_folder[0], 200)
    assert set(rows.table["id"].to_pylist()) == set(others) and rows.left_out["clips"] == 1
    items = CaptionedClips(folder.clips("train"), 20, 600)
    assert {items[number].id for number in range(len(items))} <= set(others)


def test_tokens_of_a_folder_that_cannot_be_written_are_in_the_cache(published, tokenizer_folder, tmp_path, monkeypatch):
    folder, writable = MotionFolder(published("humanml3d_272")), derived.is_writable
    made = tokenize(folder, *tokenizer_folder, "train")
    assert made.is_relative_to(folder.path)
    monkeypatch.setattr(derived, "cache_folder", lambda: tmp_path / "cache")
    monkeypatch.setattr(derived, "is_writable", lambda path: not path.is_relative_to(folder.path) and writable(path))
    assert tokenize(folder, *tokenizer_folder, "train") == made  # nothing is to be written
    shutil.rmtree(made)
    made = tokenize(folder, *tokenizer_folder, "train")
    assert made.is_relative_to(tmp_path / "cache") and len(TokenDataset(made, tokenizer_folder[0], 500))
