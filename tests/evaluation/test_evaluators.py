"""Public evaluators equal their reference, whatever their sizes, and refuse files that are not theirs."""

import json
import pickle
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from evaluation.evaluators import t2m, tmr272, word_tokens
from evaluation.evaluators.interface import Caption
from evaluation.evaluators.load import load_evaluator
from evaluation.evaluators.word_tokens import TAGS, Vocabulary, padded_tokens, tag_words
from tests.conftest import golden_eval
from utils.errors import InputError

T2M = dict(np.load(golden_eval("t2m_evaluator_io.npz")))
T2M_SIZES = json.loads(golden_eval("t2m_evaluator.json").read_text())
TMR = dict(np.load(golden_eval("eval272_io.npz")))
TMR_SIZES = json.loads(golden_eval("eval272.json").read_text())
WORDS = json.loads(golden_eval("word_tokens.json").read_text())
T2M_MOTIONS = [motion[:length] for motion, length in zip(T2M["motions"], T2M["m_lens"], strict=True)]
TMR_MOTIONS = [motion[:length] for motion, length in zip(TMR["motions"], TMR["m_lens"], strict=True)]
T2M_CAPTIONS = [Caption("", WORDS["captions"][index]) for index in T2M["caption_index"]]
TMR_CAPTIONS = [Caption(text) for text in TMR_SIZES["texts"]]


def write_statistics(folder: Path, width: int) -> None:
    """Statistics that change nothing: the motions of the fixtures are normalized."""
    (folder / "stats").mkdir(parents=True)
    np.save(folder / "stats" / "mean.npy", np.zeros(width))
    np.save(folder / "stats" / "std.npy", np.ones(width))


@pytest.fixture
def t2m_folder(tmp_path) -> Path:
    folder = tmp_path / "t2m"
    write_statistics(folder, T2M_SIZES["dim_pose"])
    shutil.copy(golden_eval("t2m_evaluator.tar"), folder / "finest.tar")
    shutil.copytree(golden_eval("glove"), folder / "glove")
    return folder


@pytest.fixture
def tmr_folder(tmp_path) -> Path:
    folder = tmp_path / "tmr"
    write_statistics(folder, TMR_SIZES["nfeats"])
    shutil.copy(golden_eval("eval272.ckpt"), folder / "epoch=99.ckpt")
    shutil.copytree(golden_eval(TMR_SIZES["text_model"]), folder / "tokenizer")
    (folder / "config.json").write_text(json.dumps({"num_heads": TMR_SIZES["num_heads"]}))
    return folder


def load_t2m(folder: Path) -> t2m.T2MEvaluator:
    evaluator = load_evaluator(folder, frames=(int(T2M["m_lens"].min()), T2M_SIZES["max_motion_length"]))
    assert isinstance(evaluator, t2m.T2MEvaluator)
    return evaluator


def load_tmr(folder: Path) -> tmr272.TMR272Evaluator:
    evaluator = load_evaluator(folder, frames=(1, TMR_SIZES["max_len"]))
    assert isinstance(evaluator, tmr272.TMR272Evaluator)
    return evaluator


def close(value: object, expected: np.ndarray) -> None:
    np.testing.assert_allclose(value, expected, atol=1e-4)


# --- T2M


def test_t2m_equals_the_reference(t2m_folder):
    evaluator = load_t2m(t2m_folder)
    motions, texts = evaluator.embed_motions(T2M_MOTIONS), evaluator.embed_texts(T2M_CAPTIONS)
    close(motions, T2M["motion_embedding"])
    close(texts, T2M["text_embedding"])
    close(motions[T2M["align_idx"]], T2M["ref_motion_embedding"])
    close(texts[T2M["align_idx"]], T2M["ref_text_embedding"])
    with torch.no_grad():
        close(evaluator.movement(torch.from_numpy(T2M["motions"])), T2M["movements"])


def test_t2m_clips_alone_and_reversed_give_the_same(t2m_folder):
    evaluator = load_t2m(t2m_folder)
    close(evaluator.embed_motions(T2M_MOTIONS[::-1])[::-1], T2M["motion_embedding"])
    close(evaluator.embed_motions(T2M_MOTIONS[:1]), T2M["motion_embedding"][:1])
    twice = evaluator.embed_texts([*T2M_CAPTIONS, *T2M_CAPTIONS])
    close(twice, np.concatenate([T2M["text_embedding"]] * 2))


def test_t2m_normalizes_before_it_pads(t2m_folder):
    mean, std = np.linspace(-1, 1, T2M_SIZES["dim_pose"]), np.linspace(0.5, 2, T2M_SIZES["dim_pose"])
    np.save(t2m_folder / "stats" / "mean.npy", mean)
    np.save(t2m_folder / "stats" / "std.npy", std)
    raw = [(motion * std + mean).astype(np.float32) for motion in T2M_MOTIONS]
    close(load_t2m(t2m_folder).embed_motions(raw), T2M["motion_embedding"])


def test_t2m_weights_of_motius(t2m_folder):
    networks = torch.load(t2m_folder / "finest.tar", weights_only=True)
    tensors = {
        f"{network}.{name}": value
        for network in ("movement_encoder", "text_encoder", "motion_encoder")
        for name, value in networks[network].items()
    }
    (t2m_folder / "finest.tar").unlink()
    save_file(tensors, t2m_folder / "model.safetensors")
    close(load_t2m(t2m_folder).embed_motions(T2M_MOTIONS), T2M["motion_embedding"])


def test_protocol_follows_the_width(t2m_folder):
    evaluator = load_evaluator(t2m_folder)
    name, fps, (shortest, longest) = t2m.DATA[T2M_SIZES["dim_pose"]]
    assert (evaluator.name, evaluator.fps, evaluator.features) == (name, fps, T2M_SIZES["dim_pose"])
    with pytest.raises(InputError, match=f"takes {shortest} to {longest} at {fps:g} fps"):
        evaluator.embed_motions([T2M_MOTIONS[0][: shortest - 1]])
    motion = np.resize(T2M_MOTIONS[0], (longest, evaluator.features))
    close(evaluator.embed_motions([motion]), evaluator.embed_motions([motion[: longest // 4 * 4]]))


def test_true_sizes_of_published_evaluators_are_built():
    keys = json.loads(golden_eval("evaluator_keys.json").read_text())

    def shapes(evaluator: str, network: str) -> dict[str, tuple[int, ...]]:
        return {name: tuple(shape) for name, shape, _ in keys[evaluator][network]["keys"]}

    makers = {"movement_encoder": t2m.MovementEncoder, "text_encoder": t2m.TextEncoder, "motion_encoder": t2m.BiGRU}
    with torch.device("meta"):
        for evaluator in ("t2m_263", "t2m_kit_251"):
            for network, make in makers.items():
                built = make(shapes(evaluator, network)).state_dict()
                assert {name: tuple(value.shape) for name, value in built.items()} == shapes(evaluator, network)
        for evaluator in ("motionstreamer_272", "motionmillion_272"):
            motion = shapes(evaluator, "motionencoder")
            built = tmr272.MotionEncoder(motion, tmr272.HEADS).state_dict()
            assert {name: tuple(value.shape) for name, value in built.items()} == motion


# --- Words


def test_tokens_of_captions_equal_the_reference():
    vocabulary = Vocabulary(golden_eval("glove"))
    assert tuple(WORDS["pos_order"]) == TAGS
    for index, tokens in enumerate(WORDS["captions"]):
        assert padded_tokens(tokens.split()) == WORDS["padded"][index]
        row = vocabulary.row(Caption("", tokens))
        assert row.length == WORDS["sent_len"][index]
        assert row.rows.tolist() == WORDS["rows"][index] and row.tags.tolist() == WORDS["pos"][index]
    for single in WORDS["single"]:
        assert vocabulary.token(single["token"]) == (single["row"], single["pos"])
    special = {word: tag for tag, words in WORDS["special_words"].items() for word in words}
    assert special == word_tokens.TAG_OF_WORD


def test_word_vectors_equal_those_of_the_reference():
    vocabulary = Vocabulary(golden_eval("glove"))
    for caption, vectors, tags in zip(T2M_CAPTIONS, T2M["word_embeddings"], T2M["pos_one_hots"], strict=True):
        row = vocabulary.row(caption)
        assert (vocabulary.vectors[row.rows] == vectors).all() and (row.tags == tags.argmax(axis=1)).all()


def test_new_captions_are_tagged_by_spacy(monkeypatch):
    sentences = []

    def nlp(text: str) -> list[SimpleNamespace]:
        sentences.append(text)
        rows = [("left", "leave", "VERB"), ("walks", "walk", "VERB"), ("2", "2", "NUM"), ("Quickly", "quickly", "ADV")]
        return [SimpleNamespace(text=word, lemma_=lemma, pos_=tag) for word, lemma, tag in rows]

    monkeypatch.setattr(word_tokens, "_english", lambda: nlp)
    assert tag_words("walks half-way") == "left/VERB walk/VERB Quickly/ADV"
    assert sentences == ["walks halfway"]


def test_captions_without_tokens_need_spacy(t2m_folder, monkeypatch):
    def missing(name: str) -> None:
        raise ImportError(name)

    monkeypatch.setattr(word_tokens.importlib, "import_module", missing)
    word_tokens._english.cache_clear()
    with pytest.raises(InputError, match="pip install spacy"):
        load_t2m(t2m_folder).embed_texts([Caption("a person walks")])


# --- TMR for the 272 features


def test_tmr272_equals_the_reference(tmr_folder):
    evaluator = load_tmr(tmr_folder)
    close(evaluator.embed_motions(TMR_MOTIONS), TMR["motion_loc"])
    close(evaluator.embed_texts(TMR_CAPTIONS), TMR["text_loc"])
    ids, mask = evaluator.word_pieces(TMR_SIZES["texts"])
    assert (ids.numpy() == TMR["input_ids"]).all() and (mask.numpy() == TMR["attention_mask"]).all()
    with torch.no_grad():
        close(evaluator.text.text_model(input_ids=ids, attention_mask=mask)[0][mask.bool()],
              TMR["text_hidden"][TMR["attention_mask"] > 0])  # fmt: skip
        close(evaluator.text.encode(ids, mask).scale, TMR["text_scale"])
        motions, lengths = torch.from_numpy(TMR["motions"]), torch.from_numpy(TMR["m_lens"])
        close(evaluator.motion.encode(motions, lengths).scale, TMR["motion_scale"])


def test_tmr272_clips_alone_give_the_same(tmr_folder):
    evaluator = load_tmr(tmr_folder)
    for motion, expected in zip(TMR_MOTIONS, TMR["motion_loc"], strict=True):
        close(evaluator.embed_motions([motion])[0], expected)
    close(evaluator.embed_texts(TMR_CAPTIONS[:1] * 3), TMR["text_loc"][[0, 0, 0]])


def test_tmr272_weights_of_motius_and_of_older_transformers(tmr_folder):
    state = torch.load(tmr_folder / "epoch=99.ckpt", weights_only=True)["state_dict"]
    tensors = {
        name.replace("encoder.", "_encoder.", 1): value.contiguous()
        for name, value in state.items()
        if name.startswith(("textencoder.", "motionencoder."))
    }
    tensors["text_encoder.text_model.embeddings.position_ids"] = torch.arange(4)[None]
    (tmr_folder / "epoch=99.ckpt").unlink()
    save_file(tensors, tmr_folder / "model.safetensors")
    close(load_tmr(tmr_folder).embed_texts(TMR_CAPTIONS), TMR["text_loc"])


class LightningCallback:
    """An object of a class that a reader does not have, as in a checkpoint of PyTorch Lightning."""


def test_checkpoints_with_objects_of_missing_classes_are_read(tmr_folder, monkeypatch):
    path = tmr_folder / "epoch=99.ckpt"
    checkpoint = torch.load(path, weights_only=True)
    torch.save(checkpoint | {"callbacks": {"best": LightningCallback()}}, path)
    monkeypatch.delattr(sys.modules[__name__], "LightningCallback")
    close(load_tmr(tmr_folder).embed_motions(TMR_MOTIONS), TMR["motion_loc"])


def test_captions_longer_than_distilbert_are_cut(tmr_folder):
    assert np.isfinite(load_tmr(tmr_folder).embed_texts([Caption("walks " * 3000)])).all()


# --- Bad input


def test_motions_that_an_evaluator_cannot_take_are_refused(tmr_folder):
    evaluator = load_tmr(tmr_folder)
    for motions, words in (
        ([TMR_MOTIONS[0], TMR_MOTIONS[0][:, 1:]], "motion 1 has the shape .* convert the motions"),
        ([np.resize(TMR_MOTIONS[0], (TMR_SIZES["max_len"] + 1, TMR_SIZES["nfeats"]))], "cut longer ones"),
        ([TMR_MOTIONS[0] * np.nan], "motion 0 holds NaN"),
        ([], "at least one"),
    ):
        with pytest.raises(InputError, match=words):
            evaluator.embed_motions(motions)
    with pytest.raises(InputError, match="caption 0 is blank"):
        evaluator.embed_texts([Caption(" ")])


def test_short_motions_are_refused_by_default(tmr_folder):
    evaluator = load_evaluator(tmr_folder)
    with pytest.raises(InputError, match="leave out or lengthen"):
        evaluator.embed_motions([TMR_MOTIONS[0][: evaluator.min_frames - 1]])


@pytest.mark.parametrize("name", word_tokens.FILES)
def test_missing_word_vectors_are_refused(t2m_folder, name):
    (t2m_folder / "glove" / name).unlink()
    with pytest.raises(InputError, match=f"{name} is missing; unpack glove.zip"):
        load_t2m(t2m_folder)


def test_word_vectors_that_do_not_fit_are_refused(t2m_folder):
    folder = t2m_folder / "glove"
    for name, content, words in (
        ("our_vab_idx.pkl", pickle.dumps({"sos": 0}), "a row of the vectors for each word"),
        ("our_vab_words.pkl", pickle.dumps({"sos": 0}), "no list of words"),
        ("our_vab_words.pkl", pickle.dumps([]), "the word eos is missing"),
        ("our_vab_words.pkl", pickle.dumps([Path("x")]), "no list of words"),
        ("our_vab_words.pkl", b"damaged", "cannot be read as a pickle of words"),
    ):
        good = (folder / name).read_bytes()
        (folder / name).write_bytes(content)
        with pytest.raises(InputError, match=words):
            load_t2m(t2m_folder)
        (folder / name).write_bytes(good)
    np.save(folder / "our_vab_data.npy", np.zeros((5000, 7), np.float32))
    with pytest.raises(InputError, match="not 7 with"):
        load_t2m(t2m_folder)


def test_tokens_of_another_form_are_refused(t2m_folder):
    with pytest.raises(InputError, match="word/POS"):
        load_t2m(t2m_folder).embed_texts([Caption("", "a person walks")])


def test_folders_of_no_evaluator_are_refused(tmp_path, tmr_folder):
    with pytest.raises(InputError, match="is no folder"):
        load_evaluator(tmp_path / "nothing")
    with pytest.raises(InputError, match="holds 0 files"):
        load_evaluator(tmr_folder / "stats")
    save_file({"weight": torch.zeros(3)}, tmp_path / "model.safetensors")
    with pytest.raises(InputError, match="no text encoder and motion encoder"):
        load_evaluator(tmp_path)
    shutil.copy(golden_eval("t2m_evaluator.tar"), tmr_folder)
    with pytest.raises(InputError, match="holds 2 files"):
        load_evaluator(tmr_folder)


def test_weights_that_do_not_fit_are_refused_before_memory_is_allocated(tmr_folder):
    path = tmr_folder / "epoch=99.ckpt"
    checkpoint = torch.load(path, weights_only=True)
    good = dict(checkpoint["state_dict"])
    for name, value, words in (
        ("motionencoder.mu_token", torch.zeros(2**20), "its tensor .* should be"),
        (
            "motionencoder.mu_token",
            torch.zeros(2 * TMR_SIZES["num_heads"] + 1),
            "its tensor .* should be|attention heads",
        ),
        ("motionencoder.extra", torch.zeros(3), "not one of the model's"),
        ("motionencoder.mu_token", None, "mu_token"),
    ):
        checkpoint["state_dict"] = {key: each for key, each in (good | {name: value}).items() if each is not None}
        torch.save(checkpoint, path)
        with pytest.raises(InputError, match=words):
            load_tmr(tmr_folder)


def test_statistics_of_another_width_are_refused(tmr_folder):
    np.save(tmr_folder / "stats" / "mean.npy", np.zeros(263))
    with pytest.raises(InputError, match="array of 272 finite numbers"):
        load_tmr(tmr_folder)


def test_impossible_numbers_of_heads_are_refused(tmr_folder):
    for heads in (0, "4", 10**9, 3.5):
        (tmr_folder / "config.json").write_text(json.dumps({"num_heads": heads}))
        with pytest.raises(InputError, match="num_heads is"):
            load_tmr(tmr_folder)


def test_another_text_model_is_refused(tmr_folder):
    (tmr_folder / "tokenizer" / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(InputError, match="not distilbert"):
        load_tmr(tmr_folder)
