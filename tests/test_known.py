"""Sentences that a checkpoint knows: their selection, their file, and sentences that are far from them."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from models.checkpoints import KNOWN, find_checkpoint
from models.known import LONGEST, MOST, Action, Known, find_known, read_actions, spread_out
from models.text_encoder import load_text_encoder
from tests.conftest import ROOT
from utils.errors import InputError

DEMO = ROOT / "checkpoints/demo"
ACTIONS = [Action("walk", "a person walks"), Action("bow", "a person bows")]
CAPTIONS = ["someone walks forward", "a man runs", "a woman is running fast", "the figure bows deeply", "x" * 500]


@pytest.fixture(scope="module")
def minilm():
    return load_text_encoder("minilm")


@pytest.fixture
def known(minilm):
    return Known.of_training(CAPTIONS, ACTIONS, minilm)


def test_selection_covers_every_group_of_vectors_and_has_no_duplicates():
    torch.manual_seed(0)
    centres = torch.nn.functional.normalize(torch.randn(30, 64), dim=-1)
    vectors = torch.nn.functional.normalize(centres.repeat(20, 1) + 0.02 * torch.randn(600, 64), dim=-1)
    chosen = spread_out(vectors, 2, 30)
    assert chosen[:2] == [0, 1] and {number % 30 for number in chosen} == set(range(30))
    same = spread_out(vectors[:1].expand(5, -1), 0, 9)
    assert sorted(same) == list(range(5))


def test_captions_of_actions_are_always_selected_and_the_file_is_small(known, minilm, tmp_path):
    assert known.captions[:2] == [action.caption for action in ACTIONS] and len(known.captions) == 7
    assert max(map(len, known.captions)) == LONGEST
    again = Known.of_training(reversed(CAPTIONS), ACTIONS, minilm)
    assert again.captions == known.captions
    captions = [f"a caption with the number {number}, {'x' * 300}" for number in range(MOST)]
    Known(captions, torch.randn(MOST, 384), ACTIONS).save(tmp_path)
    assert (tmp_path / KNOWN).stat().st_size < 1e6


def test_file_comes_back_and_old_checkpoints_have_none(known, minilm, tmp_path):
    assert Known.load(tmp_path) is None
    known.save(tmp_path)
    loaded = Known.load(tmp_path)
    assert (loaded.captions, loaded.actions) == (known.captions, ACTIONS)
    [closest] = loaded.closest(["a person is bowing"], minilm)
    assert closest.caption == "a person bows" and closest.similarity > 0.8 and not closest.is_far
    assert loaded.closest([], minilm) == []


def test_sentences_are_compared_by_minilm_with_every_text_encoder(known, minilm, monkeypatch):
    class Other:
        name, device = "clip", torch.device("cpu")

    monkeypatch.setattr("models.known.load_text_encoder", lambda name, device: {"minilm": minilm}[name])
    assert known.closest(["a man runs"], Other())[0].similarity == pytest.approx(1, abs=1e-5)


def damaged(vectors: torch.Tensor, captions: object, actions: object, folder) -> str:
    metadata = {"captions": json.dumps(captions), "actions": json.dumps(actions)}
    save_file({"vectors": vectors}, folder / KNOWN, metadata)
    with pytest.raises(InputError) as caught:
        Known.load(folder)
    assert "\n" not in str(caught.value) and KNOWN in str(caught.value)
    return str(caught.value)


def test_damaged_files_are_refused(tmp_path):
    one = torch.ones(1, 384)
    assert "do not belong together" in damaged(one, ["a", "b"], [], tmp_path)
    assert "do not belong together" in damaged(torch.ones(1, 5), ["a"], [], tmp_path)
    assert "not finite" in damaged(one * torch.nan, ["a"], [], tmp_path)
    assert "not finite" in damaged(torch.ones(0, 384), [], [], tmp_path)
    for captions, actions in (([1], []), ("a", []), ([" "], []), (["a"], [["walk"]]), (["a"], ["walk"]), (["a"], 5)):
        damaged(one, captions, actions, tmp_path)
    (tmp_path / KNOWN).write_bytes(b"\xff" * 100)
    with pytest.raises(InputError, match="header"):
        Known.load(tmp_path)


def test_actions_of_a_data_folder(tmp_path):
    file = tmp_path / "actions.json"
    assert read_actions(file) == []
    file.write_text(json.dumps([{"name": "walk", "caption": "a person walks", "clips": 3}]))
    assert read_actions(file) == ACTIONS[:1]
    for content in ("{}x", '{"walk": 1}', '[{"name": "walk"}]', '[{"name": "walk", "caption": 5}]', '["walk"]'):
        file.write_text(content)
        with pytest.raises(InputError, match="actions.json"):
            read_actions(file)


def test_the_shipped_checkpoint_knows_its_actions_and_no_share_prices(minilm):
    known = find_known(DEMO)
    assert (DEMO / KNOWN).stat().st_size < 1e6 and load_file(DEMO / KNOWN)["vectors"].dtype == torch.float16
    captions = [action.caption for action in known.actions]
    assert captions and min(each.similarity for each in known.closest(captions, minilm)) > 0.99
    near, *far = known.closest(["somebody strolls along", "the share price fell", "12345"], minilm)
    assert not near.is_far and all(each.is_far for each in far)
    assert str(far[0]).startswith("warning: 'the share price fell' is far from all captions of the training; closest")


def test_lists_show_actions_or_captions_as_printable_text(known, tmp_path):
    assert str(known).split("\n")[1:] == ["walk  a person walks", "bow   a person bows"]
    known.actions, known.captions = [], ["a person walks", "\x1b[31m red"]
    assert str(known).split("\n")[1:] == ["a person walks", "\\x1b[31m red"]
    (tmp_path / "tokenizer").mkdir()
    assert find_checkpoint(tmp_path)
    with pytest.raises(InputError, match="has no known.safetensors"):
        find_known(tmp_path)
