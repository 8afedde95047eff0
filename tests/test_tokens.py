"""Motion tokens for training: tokenizing in shards, rows and items, the order of batches, and the loader."""

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

import datasets
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import dataset.token_rows
import dataset.tokenizing
from dataset.batches import EndlessBatches, endless_loader
from dataset.motion_folder import MotionFolder
from dataset.token_rows import ABOUT, TokenDataset, collate, read_about, shard_files
from dataset.tokenizing import encode_all, tokenize
from dataset.windows import WindowDataset
from models.motion_vqvae import HumanVQVAE, VQVAEConfig
from tests.conftest import ROOT
from utils.errors import InputError

T2M = ("train_t2m.py", "--config", ROOT / "configs" / "t2m" / "debug.yaml", "--precision", "float32")


@pytest.fixture
def tokenizers(tmp_path):
    """Two tokenizers of other weights, saved: [(folder, model), ...]."""
    pairs = []
    for seed in range(2):
        torch.manual_seed(seed)
        model = HumanVQVAE(VQVAEConfig(levels=[8, 5, 5, 5], code_dim=8, width=8, down_t=2, depth=1)).eval()
        model.save_pretrained(tmp_path / f"tokenizer{seed}")
        pairs.append((tmp_path / f"tokenizer{seed}", model))
    return pairs


@pytest.fixture
def small_shards(monkeypatch):
    monkeypatch.setattr(dataset.tokenizing, "CLIPS", 2)


def write_captions(folder, clip_id, *lines):
    folder.caption_file(clip_id).write_text("\n".join(lines) + "\n")


def opened(path, **settings):
    """The rows of a token folder, whatever tokenizer made it."""
    tokenizer = path.parents[3] / "tokenizer0"
    return TokenDataset(path, tokenizer, **({"max_tokens": 500} | settings))


# --- Tokenizing


def test_rows_are_the_tokens_of_every_start_frame(small_folder, tokenizers):
    folder, model = tokenizers[0]
    ids = small_folder.ids("train")
    write_captions(small_folder, ids[1], "")
    path = tokenize(small_folder, folder, model, "train")
    data = TokenDataset(path, folder, max_tokens=500)
    assert data.rows["id"] == [name for name in ids if name != ids[1] for _ in range(4)]
    for number, row in enumerate(data.rows):
        motion = torch.from_numpy(small_folder.motion(row["id"]))[None, number % 4 :]
        assert row["tokens"] == model.encode(model.normalize(motion))[0].tolist()
        assert row["captions"] == small_folder.captions(row["id"]) and row["context"] == 0
        assert row["length"] == len(row["tokens"]) == data.lengths[number]
    assert data.rows.features["tokens"].feature.dtype == "uint16" and data.left_out == {"clips": 1}


def test_motions_of_all_lengths_are_encoded_as_alone(tokenizers, monkeypatch):
    model = tokenizers[0][1]
    monkeypatch.setattr(dataset.tokenizing, "FRAMES", 300)
    rng = np.random.default_rng(0)
    motions = [rng.normal(size=(length, 272)).astype(np.float32) for length in (40, 4, 500, 7, 120, 121, 39)]
    for motion, tokens in zip(motions, encode_all(model, motions), strict=True):
        assert tokens.tolist() == model.encode(model.normalize(torch.from_numpy(motion)[None]))[0].tolist()


def test_joined_rows_begin_with_another_clip(small_folder, tokenizers):
    data = opened(tokenize(small_folder, *tokenizers[0], "train", joined=3))
    joined = [row for row in data.rows if row["context"]]
    assert len(joined) == 7 * 3 and all(row["length"] > row["context"] for row in joined)
    assert [row["id"] for row in joined] == [name for name in small_folder.ids("train") for _ in range(3)]


def test_tokens_are_made_again_only_for_another_tokenizer_or_other_clips(small_folder, tokenizers):
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
    assert third > second and opened(paths[0])[0][1] == "a new caption"
    split = small_folder.path / "split" / "train.txt"
    split.write_text("\n".join(small_folder.ids("train")[:3]))
    assert made_at(tokenizers[0]) > third and len(opened(paths[0])) == 12
    assert len(list(paths[0].iterdir())) == 2  # about.json and one shard: what was of other clips is gone


def test_shards_are_the_same_by_any_number_of_processes(small_folder, tokenizers, small_shards):
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
    assert all(datasets.Dataset.from_file(str(file)).num_rows for file in files)


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
            os.kill(os.getpid(), signal.SIGKILL)  # written, and not yet under its name

tokenizing.CLIPS, token_rows.atomic_write = 2, killed
tokenizing.tokenize(MotionFolder(sys.argv[1]), Path(sys.argv[2]), HumanVQVAE.from_pretrained(sys.argv[2]), "train")
"""


def test_a_killed_tokenizing_goes_on_with_the_missing_shards(small_folder, tokenizers, small_shards):
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
    assert unfinished.exists()  # it may be that of a running process
    os.utime(unfinished, (time.time() - 4000,) * 2)
    tokenize(small_folder, *tokenizers[0], "train")
    assert {file.name: file.read_bytes() for file in whole.iterdir()} == expected
    assert all(file.stat().st_mtime_ns == made for file, made in finished.items())


def test_an_unfit_clip_costs_no_finished_shard(small_folder, tokenizers, small_shards):
    last = small_folder.ids("train")[-1]
    good = small_folder.motion(last)
    np.save(small_folder.motion_file(last), np.full((40, 272), np.nan, np.float32))
    with pytest.raises(InputError, match="NaN"):
        tokenize(small_folder, *tokenizers[0], "train")
    assert len(list(small_folder.path.glob("tokens/*/train/*.arrow"))) == 3
    np.save(small_folder.motion_file(last), good)
    assert len(opened(tokenize(small_folder, *tokenizers[0], "train"))) == 28


def test_described_parts_are_rows_of_their_own(small_folder, tokenizers):
    first, second, third = small_folder.ids("train")[:3]
    frames = len(small_folder.motion(first))
    write_captions(small_folder, first, "all of it#x#0.0#0.0", "a part#x#0.4#1.2", "also all",
                   "the same part#x#0.4#1.2", "to beyond the end#x#1.0#99.0",
                   "outside#x#90.0#91.0", "too short#x#1.0#1.05", "turned#x#1.2#0.4")  # fmt: skip
    write_captions(small_folder, second, "nothing but a part#x#0.0#1.0")
    write_captions(small_folder, third, "outside#x#90.0#91.0")
    data = opened(tokenize(small_folder, *tokenizers[0], "train", joined=2))
    assert data.left_out == {"parts": 4, "clips": 1}
    rows = [row for row in data.rows if row["id"] == first]
    whole, part, rest = rows[:6], rows[6:10], rows[10:]
    assert len(rest) == 4 and [row["context"] > 0 for row in whole] == 4 * [False] + 2 * [True]
    for row, of_part, of_rest in zip(whole[:4], part, rest, strict=True):
        assert row["captions"] == ["all of it", "also all"] and len(row["tokens"]) >= (frames - 3) // 4
        assert of_part["captions"] == ["a part", "the same part"] and of_part["tokens"] == row["tokens"][3:9]
        assert of_rest["captions"] == ["to beyond the end"] and of_rest["tokens"] == row["tokens"][7:]
    rows = [row for row in data.rows if row["id"] == second]
    assert [row["length"] for row in rows] == [7] * 4 and not any(row["context"] for row in rows)
    assert {row[3] for row in map(data.__getitem__, range(len(data)))} == {True}  # each ends where its tokens end


def test_captions_are_of_all_rows(small_folder, tokenizers):
    data = opened(tokenize(small_folder, *tokenizers[0], "train"))
    assert data.captions() == {caption for name in small_folder.ids("train") for caption in small_folder.captions(name)}


@pytest.mark.parametrize(
    "codes, name", [(240, "uint8"), (256, "uint8"), (1000, "uint16"), (65536, "uint16"), (65537, "uint32")]
)
def test_tokens_take_the_smallest_type_that_holds_the_codebook(tmp_path, codes, name):
    row = dataset.token_rows.TokenRow("a", np.array([0, codes - 1]), ["b"])
    dataset.token_rows.write_shard(tmp_path / "shard.arrow", [row], codes, {})
    read = datasets.Dataset.from_file(str(tmp_path / "shard.arrow"))
    assert read.features["tokens"].feature.dtype == name and read[0]["tokens"] == [0, codes - 1]


def test_tokens_that_cannot_be_written_are_named(small_folder, tokenizers):
    (small_folder.path / "tokens").write_text("")
    with pytest.raises(InputError, match="cannot write .*tokens.*about.json"):
        tokenize(small_folder, *tokenizers[0], "train")


def test_damaged_and_foreign_token_folders_are_refused(small_folder, tokenizers):
    path = tokenize(small_folder, *tokenizers[0], "train")
    with pytest.raises(InputError, match="was made with tokenizer .* and not with "):
        TokenDataset(path, tokenizers[1][0], 48)
    [file] = shard_files(path, read_about(path))
    file.write_bytes(file.read_bytes()[:200])
    with pytest.raises(InputError, match=f"{file.name} is damaged; remove it"):
        opened(path)
    (path / ABOUT).write_text("{")
    for use in (lambda: opened(path), lambda: tokenize(small_folder, *tokenizers[0], "train")):
        with pytest.raises(InputError, match=r"about\.json is missing or damaged; remove .*train"):
            use()


# --- Items


def test_items_are_cut_by_their_number_and_say_whether_the_end_is_inside(small_folder, tokenizers):
    data = opened(tokenize(small_folder, *tokenizers[0], "train"), max_tokens=12, cut_longer=True)
    seen = set()
    for number in range(6 * len(data)):
        row = data.rows[number % len(data)]
        clip_id, caption, tokens, whole, context = data[number]
        assert clip_id == row["id"] and context == 0
        assert caption in row["captions"] and tokens.dtype == torch.int64 and len(tokens) == min(12, len(row["tokens"]))
        assert any(row["tokens"][start:][: len(tokens)] == tokens.tolist() for start in range(len(row["tokens"])))
        assert not whole or row["tokens"][-len(tokens) :] == tokens.tolist()
        assert torch.equal(data[number][2], tokens)
        seen.add(whole)
    assert seen == {True, False} and max(data.lengths) == 12


def test_dropped_tokens_are_the_first_or_the_last_and_the_motion_still_ends(small_folder, tokenizers):
    clip_id = small_folder.ids("train")[0]
    np.save(small_folder.motion_file(clip_id), small_folder.motion(clip_id)[:7])  # one token
    data = opened(tokenize(small_folder, *tokenizers[0], "train", joined=2), token_drop=1 / 3)
    counts = {"all": 0, "without first": 0, "without last": 0}
    for number in range(60 * len(data)):
        row = data.rows[number % len(data)]
        _, _, tokens, whole, context = data[number]
        full = row["tokens"]
        kept = {"all": full, "without first": full[1:], "without last": full[:-1]}
        ways = [way for way, expected in kept.items() if tokens.tolist() == expected]
        assert ways and whole and context == row["context"]
        if context or len(full) == 1:
            assert ways == ["all"]
        else:
            counts[ways[0]] += 1
    total = sum(counts.values())
    assert [counts[way] / total for way in counts] == pytest.approx([2 / 3, 1 / 6, 1 / 6], abs=0.04)


def test_rows_longer_than_the_model_takes_are_refused(small_folder, tokenizers):
    path = tokenize(small_folder, *tokenizers[0], "train")
    longest = max(small_folder.ids("train"), key=lambda name: len(small_folder.motion(name)))
    tokens = len(small_folder.motion(longest)) // 4
    words = (f"clip {longest} of the split train has {tokens} tokens and model.max_tokens is {tokens - 1}; "
             f"set model.max_tokens to {tokens} or more, or cut_longer: true")  # fmt: skip
    with pytest.raises(InputError, match=re.escape(words)):
        opened(path, max_tokens=tokens - 1)
    assert max(opened(path, max_tokens=tokens).lengths) == tokens
    assert max(opened(path, max_tokens=tokens - 1, cut_longer=True).lengths) == tokens - 1


def test_collate_pads_on_the_right():
    items = [("x", "a", torch.tensor([1, 2, 3]), True, 2), ("y", "b", torch.tensor([4]), False, 0)]
    ids, captions, tokens, whole, context = collate(items, pad_id=9)
    assert (ids, captions, tokens.tolist()) == (["x", "y"], ["a", "b"], [[1, 2, 3], [4, 9, 9]])
    assert whole.tolist() == [True, False] and context.tolist() == [2, 0]


# --- The order of batches

LENGTHS = np.array([7 * index % 13 + 1 for index in range(50)])
ORDERS = {
    "shuffled": {"batch_size": 8},
    "by length": {"batch_size": 8, "lengths": LENGTHS},
    "by tokens": {"batch_size": None, "lengths": LENGTHS, "batch_tokens": 96},
}


def micro_batches(count, batches=50, seed=3, **settings):
    """The first micro-batches of an order."""
    return list(itertools.islice(EndlessBatches(count, seed=seed, **settings), batches))


@pytest.mark.parametrize("order", ORDERS)
def test_batches_are_permutations_in_another_order_each_epoch(order):
    everything = micro_batches(50, 3 * EndlessBatches.POOL, **ORDERS[order])
    numbers = list(itertools.chain.from_iterable(everything))
    whole_epochs = len(numbers) // 50
    if order == "by tokens":
        assert sorted(numbers[: whole_epochs * 50]) == list(range(whole_epochs * 50))
    else:
        assert {len(batch) for batch in everything} == {8}
        pools = sorted(numbers)
        assert pools[: whole_epochs * 50] == list(range(whole_epochs * 50))
    assert micro_batches(50, seed=4, **ORDERS[order]) != everything[:50]
    epochs = [[number % 50 for number in numbers[first : first + 50]] for first in (0, 50)]
    assert epochs[0] != epochs[1]


def test_windows_are_seen_in_the_order_of_earlier_versions():
    order = torch.randperm(50, generator=torch.Generator().manual_seed(3 * 1_000_003)).tolist()
    assert list(itertools.chain.from_iterable(micro_batches(50, 6, batch_size=8))) == order[:48]


@settings(max_examples=40, deadline=None)
@given(
    order=st.sampled_from(list(ORDERS)),
    processes=st.sampled_from([1, 2, 4]),
    accumulate=st.sampled_from([1, 2]),
    first=st.integers(0, 200),
)
def test_processes_see_together_what_one_sees_and_resume_anywhere(order, processes, accumulate, first):
    parts, steps = processes * accumulate, 6
    if order == "by tokens":  # a process that accumulates does the same micro-batches one after the other
        alone = micro_batches(50, (first + steps) * parts, accumulate=parts, **ORDERS[order] | {"batch_tokens": 96 * 8})
    else:
        alone = micro_batches(50, first + steps, **ORDERS[order])
    changes = {"batch_tokens": 96 * 8} if order == "by tokens" else {}
    shares = [
        micro_batches(50, steps * accumulate, process=process, processes=processes, accumulate=accumulate,
                      first_step=first, **ORDERS[order] | changes)
        for process in range(processes)
    ]  # fmt: skip
    for step in range(steps):
        share = [part for own in shares for part in own[step * accumulate : (step + 1) * accumulate]]
        if order == "by tokens":
            expected = alone[(first + step) * parts : (first + step + 1) * parts]
            assert sorted(share) == sorted(expected)
        else:
            assert len({len(part) for part in share}) == 1
            assert sorted(itertools.chain(*share)) == sorted(alone[first + step])


@settings(max_examples=60, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 300), min_size=1, max_size=200),
    room=st.integers(0, 1000),
    parts=st.sampled_from([1, 2, 3]),
)
def test_no_micro_batch_exceeds_its_share_of_the_tokens(lengths, room, parts):
    lengths = np.array(lengths)
    budget = int(lengths.max()) + room
    seen = []
    for batch in EndlessBatches(len(lengths), None, 0, lengths=lengths, batch_tokens=budget * parts, accumulate=parts):
        rows = lengths[np.array(batch) % len(lengths)]
        assert len(rows) and len(rows) * rows.max() <= budget
        seen += batch
        if len(seen) >= 2 * len(lengths):
            break
    assert sorted(seen[: len(lengths)]) == list(range(len(lengths)))


def padding(order):
    """The share of padding in the first 2,000 batches of rows with lengths like those of real motion."""
    lengths = np.clip(np.random.default_rng(0).lognormal(3.5, 0.55, 30_000), 4, 160).astype(np.int32)
    order = {name: lengths if name == "lengths" else value for name, value in order.items()}
    batches = [lengths[np.array(batch) % len(lengths)] for batch in micro_batches(len(lengths), 2000, **order)]
    return 1 - sum(rows.sum() for rows in batches) / sum(len(rows) * rows.max() for rows in batches)


def test_less_than_a_tenth_is_padding():
    assert padding({"batch_size": 32}) > 0.4
    assert padding({"batch_size": 32, "lengths": ...}) < 0.1
    for tokens in (1280, 16384):
        assert padding({"batch_size": None, "lengths": ..., "batch_tokens": tokens}) < 0.06


@pytest.mark.parametrize(
    "given, words",
    [
        ({"batch_size": 10, "processes": 4}, "batch_size 10 cannot be divided among 4 processes x accumulate 1; "
         "make batch_size a multiple of 4, or change accumulate"),
        ({"batch_size": 8, "accumulate": 3}, "divided among 1 process x accumulate 3; make batch_size a multiple of 3"),
        ({"batch_size": None, "lengths": LENGTHS, "batch_tokens": 25, "processes": 2},
         "is 12 tokens, and the longest row has 13; set batch_tokens to 26 or more"),
        ({"batch_size": None}, "set one of the two"),
        ({"batch_size": 8, "batch_tokens": 96, "lengths": LENGTHS}, "set one of the two"),
        ({"batch_size": None, "batch_tokens": 96}, "set batch_size here"),
        ({"count": 0, "batch_size": 8}, "no items to train on"),
    ],
)  # fmt: skip
def test_steps_that_cannot_be_divided_are_refused(given, words):
    with pytest.raises(InputError, match=words):
        EndlessBatches(**({"count": 50, "seed": 0} | given))


# --- The loader


def same(one, other):
    return all(torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize("start, workers", [("fork", 2), ("spawn", 1)])
def test_workers_give_the_batches_of_none(small_folder, tokenizers, start, workers):
    data = opened(tokenize(small_folder, *tokenizers[0], "train"), token_drop=0.3)
    windows = WindowDataset(small_folder, "train", 32)
    assert len(pickle.dumps(data)) < 20_000

    def batches(data, workers, count, **settings):
        order = EndlessBatches(len(data), 8, 0, first_step=5)
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
    assert torch.equal(torch.get_rng_state(), before)  # or a resumed run would have other dropout


@pytest.mark.parametrize("workers", [0, 2])
def test_an_unfit_item_is_named_in_one_sentence_after_the_batches_before_it(small_folder, workers):
    windows = WindowDataset(small_folder, "train", 32)
    file = small_folder.motion_file(small_folder.ids("train")[-1])
    np.save(file, np.full((40, 272), np.nan, np.float32))
    loader = endless_loader(windows, [[0, 1], [1, 2], [len(windows) - 1]], workers, torch.device("cpu"))
    assert [len(next(loader)[0]) for _ in range(2)] == [2, 2]
    with pytest.raises(InputError) as caught:
        next(loader)
    assert str(caught.value).startswith(f"{file} holds NaN") and "\n" not in str(caught.value)


# --- Bad input, by command line


def test_faults_of_the_data_are_refused_before_training(refused, data_folder, tokenizer_run, tmp_path):
    data, out = tmp_path / "data", tmp_path / "run"
    shutil.copytree(data_folder, data, ignore=shutil.ignore_patterns("tokens"))
    command = (*T2M, "--data", data, "--tokenizer", tokenizer_run, "--out", out)
    split = data / "split" / "train.txt"

    error = refused(*command, "--model.max_tokens", 9, "--cut_longer", "false")
    assert "of the split train has" in error and "model.max_tokens is 9; set model.max_tokens to" in error
    assert "set batch_tokens to" in refused(*command, "--batch_tokens", 20)
    assert not out.exists()
    [path] = (data / "tokens").glob("*/train")
    about = read_about(path)
    for name, other in (("tokenizer", "0123456789abcdef"), ("codebook_size", 512)):
        (path / ABOUT).write_text(json.dumps(about | {name: other}))
        assert f"was made with {name} {other} and not with {about[name]}; remove that folder" in refused(*command)
    (path / ABOUT).write_text(json.dumps(about))

    clip_id = MotionFolder(data).ids("train")[2]
    captions = (data / "texts" / f"{clip_id}.txt").rename(tmp_path / "captions.txt")
    error = refused(*command)
    assert f"clip {clip_id} has no captions: {data / 'texts' / clip_id}.txt is missing" in error
    captions.rename(data / "texts" / f"{clip_id}.txt")
    for clip_id in MotionFolder(data).ids("train"):
        (data / "texts" / f"{clip_id}.txt").write_text("\n")
    assert f"no clip of the split train of {data} has a caption and 4 frames" in refused(*command)
    split.write_text("")
    assert f"{split} is empty" in refused(*command)
    split.unlink()
    assert f"{split} is missing" in refused(*command)
    assert not out.exists()
