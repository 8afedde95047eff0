"""Motion tokens for training: tokenizing in shards, rows and items, and loading by worker processes."""

import itertools
import json
import multiprocessing
import os
import pickle
import re
import shutil
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch

import dataset.token_rows
import dataset.tokenizing
from dataset import derived
from dataset.batches import FixedSizeBatches, endless_loader
from dataset.clip_rules import NO_CAPTION, NO_FRAMES
from dataset.motion_folder import MotionFolder
from dataset.token_rows import ABOUT, TokenDataset, TokenItem, collate, read_about, shard_files
from dataset.tokenizing import encode_all, tokenize
from dataset.windows import WindowDataset
from models.motion_vqvae import HumanVQVAE, VQVAEConfig
from tests.conftest import ROOT
from utils.errors import InputError

T2M = ("train_t2m.py", "--config", ROOT / "configs" / "t2m" / "debug.yaml", "--precision", "float32")


def read_shard(file: Path) -> pa.Table:
    """Rows of one shard, through Arrow alone."""
    return pa.ipc.open_stream(pa.memory_map(str(file))).read_all()


@pytest.fixture
def tokenizers(tmp_path):
    """Two saved tokenizers with different weights: [(folder, model), ...]."""
    pairs = []
    for seed in range(2):
        torch.manual_seed(seed)
        model = HumanVQVAE(VQVAEConfig(levels=[8, 5, 5, 5], code_dim=8, width=8, down_t=2, depth=1)).eval()
        model.save_pretrained(tmp_path / f"tokenizer{seed}")
        pairs.append((tmp_path / f"tokenizer{seed}", model))
    return pairs


@pytest.fixture
def small_shards(monkeypatch):
    monkeypatch.setattr(dataset.tokenizing, "MIN_CLIPS", 2)


def write_captions(folder, clip_id, *lines):
    folder.caption_file(clip_id).write_text("\n".join(lines) + "\n")


def opened(path, **settings):
    """The rows of a token folder made by the first tokenizer."""
    tokenizer = path.parents[3] / "tokenizer0"
    return TokenDataset(path, tokenizer, **({"max_tokens": 500} | settings))


# --- Tokenizing


def test_rows_are_the_tokens_from_every_start_frame(small_folder, tokenizers):
    folder, model = tokenizers[0]
    ids = small_folder.ids("train")
    write_captions(small_folder, ids[1], "")
    path = tokenize(small_folder, folder, model, "train")
    data = TokenDataset(path, folder, max_tokens=500)
    assert data.table["id"].to_pylist() == [name for name in ids if name != ids[1] for _ in range(4)]
    for number, row in enumerate(data.table.to_pylist()):
        motion = torch.from_numpy(small_folder.motion(row["id"]))[None, number % 4 :]
        assert row["tokens"] == model.encode(model.normalize(motion))[0].tolist()
        assert row["captions"] == small_folder.captions(row["id"]) and row["context"] == 0
        assert row["length"] == len(row["tokens"]) == data.lengths[number]
    assert data.table.schema.field("tokens").type.value_type == "uint16" and not data.left_out
    assert small_folder.clips("train").left_out == {NO_CAPTION: 1}


def test_batched_encoding_equals_encoding_alone(tokenizers, monkeypatch):
    model = tokenizers[0][1]
    monkeypatch.setattr(dataset.tokenizing, "FRAMES_PER_BATCH", 300)
    rng = np.random.default_rng(0)
    motions = [rng.normal(size=(length, 272)).astype(np.float32) for length in (40, 4, 500, 7, 120, 121, 39)]
    for motion, tokens in zip(motions, encode_all(model, motions), strict=True):
        assert tokens.tolist() == model.encode(model.normalize(torch.from_numpy(motion)[None]))[0].tolist()


def test_joined_rows_begin_with_another_clip(small_folder, tokenizers):
    data = opened(tokenize(small_folder, *tokenizers[0], "train", joined=3))
    joined = [row for row in data.table.to_pylist() if row["context"]]
    assert len(joined) == 7 * 3 and all(row["length"] > row["context"] for row in joined)
    assert [row["id"] for row in joined] == [name for name in small_folder.ids("train") for _ in range(3)]


def test_tokens_are_remade_only_for_another_tokenizer_or_other_clips(small_folder, tokenizers):
    def made_at(pair):
        return (tokenize(small_folder, *pair, "train") / ABOUT).stat().st_mtime_ns

    first = made_at(tokenizers[0])
    assert made_at(tokenizers[0]) == first
    paths = [tokenize(small_folder, *pair, "train") for pair in tokenizers]
    assert paths[0] != paths[1] and made_at(tokenizers[0]) == first
    clip_id = small_folder.ids("train")[0]
    file = small_folder.motion_file(clip_id)
    np.save(file, small_folder.motion(clip_id)[:40])
    second = made_at(tokenizers[0])
    assert second > first and max(opened(paths[0]).lengths[:4]) == 10
    write_captions(small_folder, clip_id, "a new caption")
    third = made_at(tokenizers[0])
    assert third > second and opened(paths[0])[0].caption == "a new caption"
    split = small_folder.path / "split" / "train.txt"
    split.write_text("\n".join(small_folder.ids("train")[:3]))
    assert made_at(tokenizers[0]) > third and len(opened(paths[0])) == 12
    assert len(list(paths[0].iterdir())) == 2  # about.json and one shard; files of other clips were removed


def test_shards_do_not_depend_on_the_number_of_processes(small_folder, tokenizers, small_shards):
    path = tokenize(small_folder, *tokenizers[0], "train", joined=1)
    files = shard_files(path, read_about(path))
    alone = [file.read_bytes() for file in files]
    assert len(files) == 4 and len(opened(path)) == 7 * 5
    shutil.rmtree(path)
    tokenize(small_folder, *tokenizers[0], "train", joined=1, process=1, processes=2)
    assert [file.exists() for file in files] == [False, True, False, True]
    with pytest.raises(InputError, match="2 of the 4 files of .* are missing"):
        opened(path)
    tokenize(small_folder, *tokenizers[0], "train", joined=1, process=0, processes=2)
    assert [file.read_bytes() for file in files] == alone
    assert all(read_shard(file).num_rows for file in files)


KILLED_IN_THE_THIRD_SHARD = """
import os, signal, sys
from contextlib import contextmanager
from pathlib import Path
from dataset import token_rows, tokenizing
from dataset.motion_folder import MotionFolder
from models.motion_vqvae import HumanVQVAE

@contextmanager
def killed(path, atomic_write=token_rows.atomic_write):
    with atomic_write(path) as temporary:
        yield temporary
        if path.name.endswith("2.arrow"):
            os.kill(os.getpid(), signal.SIGKILL)  # written but not yet renamed

tokenizing.MIN_CLIPS, token_rows.atomic_write = 2, killed
tokenizing.tokenize(MotionFolder(sys.argv[1]), Path(sys.argv[2]), HumanVQVAE.from_pretrained(sys.argv[2]), "train")
"""


def test_killed_tokenizing_resumes_with_the_missing_shards(small_folder, tokenizers, small_shards):
    whole = tokenize(small_folder, *tokenizers[0], "train")
    expected = {file.name: file.read_bytes() for file in whole.iterdir()}
    shutil.rmtree(whole)
    command = [sys.executable, "-c", KILLED_IN_THE_THIRD_SHARD, small_folder.path, tokenizers[0][0]]
    process = subprocess.run(command, cwd=ROOT, env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True)
    assert process.returncode == -signal.SIGKILL, process.stderr.decode()
    finished = {file: file.stat().st_mtime_ns for file in whole.glob("[!.]*.arrow")}
    [unfinished] = whole.glob(".*.arrow")
    assert len(finished) == 2
    for process in range(3):  # another number of processes than before
        tokenize(small_folder, *tokenizers[0], "train", process=process, processes=3)
    assert unfinished.exists()  # it may belong to a running process
    os.utime(unfinished, (time.time() - 4000,) * 2)
    tokenize(small_folder, *tokenizers[0], "train")
    assert {file.name: file.read_bytes() for file in whole.iterdir()} == expected
    assert all(file.stat().st_mtime_ns == made for file, made in finished.items())


def test_invalid_clip_costs_no_finished_shard(small_folder, tokenizers, small_shards):
    last = small_folder.ids("train")[-1]
    good = small_folder.motion(last)
    np.save(small_folder.motion_file(last), np.full((40, 272), np.nan, np.float32))
    with pytest.raises(InputError, match="NaN"):
        tokenize(small_folder, *tokenizers[0], "train")
    assert len(list(small_folder.path.glob("tokens/*/train/*.arrow"))) == 3
    np.save(small_folder.motion_file(last), good)
    assert len(opened(tokenize(small_folder, *tokenizers[0], "train"))) == 28


def test_described_parts_become_separate_rows(small_folder, tokenizers):
    first, second, third = small_folder.ids("train")[:3]
    write_captions(small_folder, first, "all of it#x#0.0#0.0", "a part#x#0.4#1.2", "also all",
                   "the same part#x#0.4#1.2", "to beyond the end#x#1.0#99.0",
                   "outside#x#90.0#91.0", "too short#x#1.0#1.05", "turned#x#1.2#0.4")  # fmt: skip
    write_captions(small_folder, second, "nothing but a part#x#0.0#1.0")
    write_captions(small_folder, third, "outside#x#90.0#91.0")
    folder, model = tokenizers[0]
    data = opened(tokenize(small_folder, folder, model, "train", joined=2))
    clips = [clip for clip in small_folder.clips("train") if clip.id in (first, second, third)]
    motion = small_folder.motion(first)
    assert small_folder.clips("train").left_out == {NO_FRAMES: 3} and data.left_out == {"clips": 1}  # 1: too short
    assert [(clip.start, clip.frames, clip.captions) for clip in clips if clip.id == first] == [
        (0, len(motion), ["all of it", "also all"]),
        (12, 24, ["a part", "the same part"]),
        (30, len(motion) - 30, ["to beyond the end"]),
        (30, 1, ["too short"]),
    ]
    for clip in clips:
        rows = [row for row in data.table.to_pylist() if row["id"] == clip.name]
        alone = [row for row in rows if not row["context"]]
        assert all(row["captions"] == clip.captions for row in rows)
        assert len(alone) == min(4, max(0, clip.frames - 3)) and len(rows) - len(alone) <= 2
        features = small_folder.motion(clip.id)[clip.start : clip.start + clip.frames]  # a clip of its own
        for shift, row in enumerate(alone):
            part = torch.from_numpy(features[shift:])[None]
            assert row["tokens"] == model.encode(model.normalize(part))[0].tolist()
    assert all(data[number].is_whole for number in range(len(data)))


def test_captions_of_all_rows_are_listed(small_folder, tokenizers):
    data = opened(tokenize(small_folder, *tokenizers[0], "train"))
    assert data.captions() == {caption for name in small_folder.ids("train") for caption in small_folder.captions(name)}


@pytest.mark.parametrize(
    "codes, name", [(240, "uint8"), (256, "uint8"), (1000, "uint16"), (65536, "uint16"), (65537, "uint32")]
)
def test_tokens_have_the_smallest_type_that_holds_the_codebook(tmp_path, codes, name):
    row = dataset.token_rows.TokenRow("a", np.array([0, codes - 1]), ["b"])
    dataset.token_rows.write_shard(tmp_path / "shard.arrow", [row], codes, {})
    read = read_shard(tmp_path / "shard.arrow")
    assert read.schema.field("tokens").type.value_type == name and read["tokens"].to_pylist() == [[0, codes - 1]]


def test_error_names_the_tokens_that_cannot_be_written(small_folder, tokenizers, monkeypatch):
    (small_folder.path / "tokens").write_text("")
    monkeypatch.setattr(derived, "cache_folder", lambda: small_folder.path / "tokens")
    with pytest.raises(InputError, match="cannot write .*tokens.*about.json"):
        tokenize(small_folder, *tokenizers[0], "train")


def test_damaged_and_foreign_token_folders_are_refused(small_folder, tokenizers):
    path = tokenize(small_folder, *tokenizers[0], "train")
    with pytest.raises(InputError, match="was made with tokenizer .*, not with "):
        TokenDataset(path, tokenizers[1][0], 48)
    [file] = shard_files(path, read_about(path))
    file.write_bytes(file.read_bytes()[:200])
    with pytest.raises(InputError, match=f"{file.name}: .* it is damaged: remove it"):
        opened(path)
    (path / ABOUT).write_text("{")
    for use in (lambda: opened(path), lambda: tokenize(small_folder, *tokenizers[0], "train")):
        with pytest.raises(InputError, match=r"about\.json: not JSON .*; remove train in "):
            use()


# --- Items


def test_items_are_cut_by_their_number_and_report_whether_they_are_whole(small_folder, tokenizers):
    data = opened(tokenize(small_folder, *tokenizers[0], "train"), max_tokens=12, cut_longer=True)
    seen = set()
    for number in range(6 * len(data)):
        row = data.table.slice(number % len(data), 1).to_pylist()[0]
        clip_id, caption, tokens, is_whole, context = data[number]
        assert clip_id == row["id"] and context == 0
        assert caption in row["captions"] and tokens.dtype == torch.int64 and len(tokens) == min(12, len(row["tokens"]))
        assert any(row["tokens"][start:][: len(tokens)] == tokens.tolist() for start in range(len(row["tokens"])))
        assert not is_whole or row["tokens"][-len(tokens) :] == tokens.tolist()
        assert torch.equal(data[number].tokens, tokens)
        seen.add(is_whole)
    assert seen == {True, False} and max(data.lengths) == 12


def test_token_drop_removes_the_first_or_last_token_and_keeps_the_motion_whole(small_folder, tokenizers):
    clip_id = small_folder.ids("train")[0]
    np.save(small_folder.motion_file(clip_id), small_folder.motion(clip_id)[:7])  # one token
    data = opened(tokenize(small_folder, *tokenizers[0], "train", joined=2), token_drop=1 / 3)
    counts = {"all": 0, "without first": 0, "without last": 0}
    for number in range(60 * len(data)):
        row = data.table.slice(number % len(data), 1).to_pylist()[0]
        _, _, tokens, is_whole, context = data[number]
        full = row["tokens"]
        kept = {"all": full, "without first": full[1:], "without last": full[:-1]}
        ways = [way for way, expected in kept.items() if tokens.tolist() == expected]
        assert ways and is_whole and context == row["context"]
        if context or len(full) == 1:
            assert ways == ["all"]
        else:
            counts[ways[0]] += 1
    total = sum(counts.values())
    assert [counts[way] / total for way in counts] == pytest.approx([2 / 3, 1 / 6, 1 / 6], abs=0.04)


def test_rows_longer_than_max_tokens_are_refused(small_folder, tokenizers):
    path = tokenize(small_folder, *tokenizers[0], "train")
    longest = max(small_folder.ids("train"), key=lambda name: len(small_folder.motion(name)))
    tokens = len(small_folder.motion(longest)) // 4
    words = (f"clip {longest} of the split train has {tokens} tokens and --model.max-tokens is {tokens - 1}; "
             f"set --model.max-tokens to {tokens} or more, or give --cut-longer")  # fmt: skip
    with pytest.raises(InputError, match=re.escape(words)):
        opened(path, max_tokens=tokens - 1)
    assert max(opened(path, max_tokens=tokens).lengths) == tokens
    assert max(opened(path, max_tokens=tokens - 1, cut_longer=True).lengths) == tokens - 1


def test_collate_pads_on_the_right():
    items = [
        TokenItem("x", "a", torch.tensor([1, 2, 3]), is_whole=True, context=2),
        TokenItem("y", "b", torch.tensor([4]), is_whole=False, context=0),
    ]
    batch = collate(items, pad_id=9)
    assert (batch.ids, batch.captions, batch.tokens.tolist()) == (["x", "y"], ["a", "b"], [[1, 2, 3], [4, 9, 9]])
    assert batch.is_whole.tolist() == [True, False] and batch.context.tolist() == [2, 0]


# --- The loader


def same(one, other):
    return all(torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize("start, workers", [("fork", 2), ("spawn", 1)])
def test_batches_do_not_depend_on_the_number_of_workers(small_folder, tokenizers, start, workers):
    data = opened(tokenize(small_folder, *tokenizers[0], "train"), token_drop=0.3)
    windows = WindowDataset(small_folder.motions("train"), 32)
    assert len(pickle.dumps(data)) < 20_000

    def batches(data, workers, count, **settings):
        order = FixedSizeBatches(len(data), 8, seed=0)
        order.first_step = 5
        return list(itertools.islice(endless_loader(data, order, workers, torch.device("cpu"), **settings), count))

    before, usual = torch.get_rng_state(), multiprocessing.get_start_method(allow_none=True)
    multiprocessing.set_start_method(start, force=True)
    try:
        for rows, settings in ((data, {"collate": partial(collate, pad_id=1001)}), (windows, {})):
            expected = batches(rows, 0, 20, **settings)
            assert all(map(same, batches(rows, workers, 20, **settings), expected))
            if start == "spawn":
                break
    finally:
        multiprocessing.set_start_method(usual, force=True)
    assert torch.equal(torch.get_rng_state(), before)  # a resumed run has the same dropout


@pytest.mark.parametrize("workers", [0, 2])
def test_error_names_the_invalid_item_after_the_batches_before_it(small_folder, workers):
    windows = WindowDataset(small_folder.motions("train"), 32)
    file = small_folder.motion_file(small_folder.ids("train")[-1])
    np.save(file, np.full((40, 272), np.nan, np.float32))
    loader = endless_loader(windows, [[0, 1], [1, 2], [len(windows) - 1]], workers, torch.device("cpu"))
    assert [len(next(loader)[0]) for _ in range(2)] == [2, 2]
    with pytest.raises(InputError) as caught:
        next(loader)
    assert str(caught.value).startswith(f"{file} holds NaN") and "\n" not in str(caught.value)


# --- Invalid input on the command line


def test_faulty_data_is_refused_before_training(refused, data_folder, tokenizer_run, tmp_path):
    data, out = tmp_path / "data", tmp_path / "run"
    shutil.copytree(data_folder, data, ignore=shutil.ignore_patterns("tokens"))
    command = (*T2M, "--data", data, "--tokenizer", tokenizer_run, "--out", out)
    split = data / "split" / "train.txt"

    error = refused(*command, "--model.max_tokens", 9, "--cut_longer", "false")
    assert "of the split train has" in error and "--model.max-tokens is 9; set --model.max-tokens to" in error
    assert "set --batch-tokens to" in refused(*command, "--batch_tokens", 20)
    assert not out.exists()
    [path] = (data / "tokens").glob("*/train")
    about = read_about(path)
    for name, other in (("tokenizer", "0123456789abcdef"), ("codebook_size", 512)):
        (path / ABOUT).write_text(json.dumps(about | {name: other}))
        assert f"was made with {name} {other}, not with {about[name]}; remove that folder" in refused(*command)
    (path / ABOUT).write_text(json.dumps(about))

    clip_id = MotionFolder(data).ids("train")[2]
    captions = (data / "texts" / f"{clip_id}.txt").rename(tmp_path / "captions.txt")
    error = refused(*command)
    assert f"clip {clip_id} has no captions: {data / 'texts' / clip_id}.txt is missing" in error
    captions.rename(data / "texts" / f"{clip_id}.txt")
    for clip_id in MotionFolder(data).ids("train"):
        (data / "texts" / f"{clip_id}.txt").write_text("\n")
    assert f"no clip of {split} can be used: {len(MotionFolder(data).ids('train'))} without a caption" in refused(
        *command
    )
    split.write_text("")
    assert f"{split} is empty" in refused(*command)
    split.unlink()
    assert f"{split} is missing" in refused(*command)
    assert not out.exists()
