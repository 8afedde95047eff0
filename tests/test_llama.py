"""LLaMAHF: equivalence with the reference, of batches and single rows, and of cached and uncached logits."""

import json

import numpy as np
import pytest
import torch
from torch import Tensor

from models.llama import LLaMAHF
from models.llama_config import SIZES, LLaMAConfig
from models.text_dropout import drop_states, drop_text, null_text
from tests.conftest import golden
from utils.errors import InputError


def small_config(**changes) -> LLaMAConfig:
    settings = {"codebook_size": 30, "text_dim": 12, "text_encoder": "fake", "text_length": 10, "max_tokens": 20}
    return LLaMAConfig(**{**settings, **SIZES["debug"], **changes})


@pytest.fixture
def model() -> LLaMAHF:
    """Debug model with weights large enough that every input matters."""
    torch.manual_seed(0)
    model = LLaMAHF(small_config()).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return model


def random_batch(config: LLaMAConfig, text_lengths: list[int], tokens: int) -> tuple[Tensor, Tensor, Tensor]:
    """Random text (B, L, D), right padded with random numbers; its mask (B, L); tokens (B, N)."""
    lengths = torch.tensor(text_lengths)
    text = torch.randn(len(lengths), int(lengths.max()), config.text_dim)
    mask = torch.arange(text.shape[1]) < lengths[:, None]
    return text, mask, torch.randint(config.codebook_size, (len(lengths), tokens))


# --- the reference's fixtures


class Golden:
    """The reference's model, its arrays, and its training batch in the form of our ``forward``."""

    def __init__(self, model: LLaMAHF) -> None:
        self.model, self.sizes = model, json.loads(golden("llama_ckpt.json").read_text())
        self.io = {name: torch.from_numpy(array) for name, array in np.load(golden("llama_io.npz")).items()}
        self.block_size = self.sizes["block_size"]
        self.text, self.mask = self.io["text_feat"], self.io["text_mask"].bool()
        self.text_lengths = self.io["text_lens"].tolist()

    def tokens(self, end: bool) -> Tensor:
        """Motion tokens (B, N), each row from column 0; with ``end`` all ids after the text, else motion ids only."""
        pad = self.model.config.pad_id
        counts = [
            self.block_size - text if end else int(motion)
            for text, motion in zip(self.text_lengths, self.io["motion_lens"], strict=True)
        ]
        tokens = torch.full((len(counts), max(counts)), pad)
        for row, (start, count) in enumerate(zip(self.text_lengths, counts, strict=True)):
            tokens[row, :count] = self.io["ids"][row, start : start + count]
        return tokens


@pytest.fixture(scope="module")
def reference(golden_generator) -> Golden:
    return Golden(golden_generator)


def test_golden_sizes_and_names(reference):
    config, sizes = reference.model.config, reference.sizes
    assert (config.end_id, config.pad_id, config.vocab_size) == (sizes["end_id"], sizes["pad_id"], sizes["vocab_size"])
    assert config.mlp_hidden == sizes["mlp_hidden"] and reference.model.lm_head.out_features == sizes["lm_head_out"]
    assert config.n_layer == sizes["n_layer"] and config.tie_weights == sizes["tie_weights"]


def test_golden_logits_at_text_and_motion_positions(reference):
    tokens = reference.tokens(end=True)
    with torch.no_grad():
        logits = reference.model.lm_head(reference.model.hidden_states(reference.text, reference.mask, tokens))
        predictions = reference.model(reference.text, reference.mask, tokens)
    width = reference.text.shape[1]
    for row, length in enumerate(reference.text_lengths):
        expected = reference.io["logits"][row]  # (block_size, V)
        ours = logits[row, width - length :][: reference.block_size]
        torch.testing.assert_close(ours, expected, atol=1e-4, rtol=0)
        ours = predictions[row, : reference.block_size - length + 1]
        torch.testing.assert_close(ours, expected[length - 1 :], atol=1e-4, rtol=0)


def test_golden_loss_and_gradients(reference):
    model = reference.model
    loss = model.loss(reference.text, reference.mask, reference.tokens(end=False))
    weights = (model.llama_proj.weight, model.lm_head.weight, model.transformer.wte.weight)
    projection, head, embedding = torch.autograd.grad(loss, weights)
    torch.testing.assert_close(loss, reference.io["train_loss"], atol=1e-4, rtol=0)
    torch.testing.assert_close(projection, reference.io["grad_llama_proj_weight"], atol=1e-4, rtol=0)
    torch.testing.assert_close(head.abs().mean(), reference.io["grad_lm_head_absmean"], atol=1e-6, rtol=1e-3)
    torch.testing.assert_close(embedding.abs().mean(), reference.io["grad_wte_absmean"], atol=1e-6, rtol=1e-3)


# --- batches, padding, causality


def test_padded_batch_equals_single_rows(model):
    lengths = [5, 1, 10, 7]
    text, mask, tokens = random_batch(model.config, lengths, tokens=13)
    batched = model(text, mask, tokens)
    for row, length in enumerate(lengths):
        alone = model(text[row : row + 1, :length], mask[row : row + 1, :length], tokens[row : row + 1])
        torch.testing.assert_close(batched[row : row + 1], alone, atol=1e-5, rtol=1e-5)


def test_left_padded_text_equals_right_padded_text(model):
    text, mask, tokens = random_batch(model.config, [4, 6], tokens=3)
    left = torch.stack([row.roll(6 - n, dims=0) for row, n in zip(text, [4, 6], strict=True)])
    torch.testing.assert_close(model(left, mask.flip(1), tokens), model(text, mask, tokens))


def test_text_padding_is_ignored(model):
    text, mask, tokens = random_batch(model.config, [3, 8], tokens=4)
    poisoned = text.masked_fill(~mask[:, :, None], torch.nan).requires_grad_()
    logits = model(poisoned, mask, tokens)
    torch.testing.assert_close(logits, model(text, mask, tokens), atol=0, rtol=0)
    logits.square().sum().backward()
    assert poisoned.grad[~mask].eq(0).all() and poisoned.grad[mask].ne(0).any(dim=-1).all()
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())


def test_token_padding_does_not_change_earlier_logits(model):
    text, mask, tokens = random_batch(model.config, [3, 8], tokens=9)
    padded = tokens.clone()
    padded[0, 5:] = model.config.pad_id
    torch.testing.assert_close(model(text, mask, padded)[0, :6], model(text, mask, tokens)[0, :6], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(
        model(text, mask, padded)[:1, :6], model(text[:1], mask[:1], tokens[:1, :5]), atol=1e-5, rtol=1e-5
    )


def influences(model: LLaMAHF, text: Tensor, mask: Tensor, tokens: Tensor, column: int) -> tuple[Tensor, Tensor]:
    """Whether the state of ``column`` depends on each text feature (L,) and on each motion token (N,) of one row."""
    text = text.clone().requires_grad_()
    embedded = []
    hook = model.transformer.wte.register_forward_hook(lambda _module, _inputs, output: embedded.append(output))
    state = model.hidden_states(text, mask, tokens)[0, column]
    hook.remove()
    from_text, from_tokens = torch.autograd.grad(state.square().sum(), (text, embedded[0]))
    return from_text[0].ne(0).any(dim=-1), from_tokens[0].ne(0).any(dim=-1)


def test_tokens_are_causal_and_text_is_bidirectional(model):
    text, mask, tokens = random_batch(model.config, [6], tokens=8)
    for column in range(6 + 8):
        from_text, from_tokens = influences(model, text, mask, tokens, column)
        assert from_text.all(), "every position sees the whole text"
        assert from_tokens.tolist() == [6 + token <= column for token in range(8)]


def test_positions_matter_and_have_no_gap(model):
    text, mask, tokens = random_batch(model.config, [6], tokens=8)
    swapped = text[:, [1, 0, 2, 3, 4, 5]]
    assert not torch.allclose(model(swapped, mask, tokens), model(text, mask, tokens), atol=1e-3)
    _, positions, mask = model._embed(*random_batch(model.config, [2, 5], tokens=3))
    assert mask.any(dim=-1).all(), "padding attends to something, so that no softmax is empty"
    assert positions.tolist() == [[0, 0, 0, 0, 1, 2, 3, 4], [0, 1, 2, 3, 4, 5, 6, 7]]


# --- KV cache


def cached_logits(model: LLaMAHF, text: Tensor, mask: Tensor, tokens: Tensor, poison: float = 0.0) -> Tensor:
    """Logits of ``forward``, computed token by token with a cache whose unused columns contain ``poison``."""
    cache = model.new_cache(len(text), text.shape[1] + tokens.shape[1])
    cache.keys.fill_(poison)
    cache.values.fill_(poison)
    logits = [model.prefill(text, mask, tokens[:, :0], cache)]
    logits += [model.step(column, cache, cache.extend(len(column))) for column in tokens.T]
    return torch.stack(logits, dim=1)


@pytest.fixture
def controlled_model() -> LLaMAHF:
    """The model with weights of its control signals that are large enough to matter."""
    torch.manual_seed(1)
    model = LLaMAHF(small_config(control=7)).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return model


@torch.no_grad()
def test_cached_logits_with_control_equal_uncached(controlled_model):
    text, mask, tokens = random_batch(controlled_model.config, [3, 5, 8], tokens=6)
    control = torch.randn(3, 7, 7)
    expected = controlled_model(text, mask, tokens, control=control)
    cache = controlled_model.new_cache(3, 14)
    logits = [controlled_model.prefill(text, mask, tokens[:, :2], cache, control=control[:, :3])]
    for column in range(2, 6):
        logits.append(controlled_model.step(tokens[:, column], cache, cache.extend(3), control=control[:, column + 1]))
    torch.testing.assert_close(torch.stack(logits, dim=1), expected[:, 2:], atol=1e-5, rtol=1e-5)
    changed = controlled_model(text, mask, tokens, control=control * torch.tensor([1.0, 1, 1, 1, 0, 1, 1])[:, None])
    assert torch.equal(changed[:, :4], expected[:, :4]) and not torch.allclose(changed[:, 4], expected[:, 4])


@torch.no_grad()
def test_control_of_zeros_equals_none(controlled_model):
    text, mask, tokens = random_batch(controlled_model.config, [3, 5], tokens=6)
    zeros = torch.zeros(2, 7, 7)
    assert torch.equal(controlled_model(text, mask, tokens, control=zeros), controlled_model(text, mask, tokens))


def test_a_new_model_ignores_its_control_at_first():
    """So that a trained model can be fine-tuned with control; its gradient is not zero."""
    model = LLaMAHF(small_config(control=7))
    text, mask, tokens = random_batch(model.config, [3, 5], tokens=6)
    control = torch.randn(2, 7, 7)
    logits = model(text, mask, tokens, control=control)
    assert torch.equal(logits, model(text, mask, tokens))
    logits.square().sum().backward()
    assert model.control_proj.c_proj.weight.grad.any()


@torch.no_grad()
def test_cached_logits_equal_uncached(model):
    batch = random_batch(model.config, [5, 1, 10, 7], tokens=20)
    expected = model(*batch)
    torch.testing.assert_close(cached_logits(model, *batch), expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(cached_logits(model, *batch, poison=1e4), expected, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_cache_select_moves_rows_in_place(model):
    text, mask, tokens = random_batch(model.config, [5, 1, 10, 7], tokens=12)
    cache = model.new_cache(4, 10 + 12)
    storage = cache.keys.data_ptr()
    model.prefill(text, mask, tokens[:, :0], cache)
    for column in tokens[:, :6].T:
        model.step(column, cache, cache.extend(4))
    rows = [3, 1]  # rows 0 and 2 are finished
    cache.select(rows)
    for column in tokens[rows, 6:].T:
        logits = model.step(column, cache, cache.extend(2))
    torch.testing.assert_close(logits, model(text, mask, tokens)[rows, -1], atol=1e-5, rtol=1e-5)
    assert cache.keys.data_ptr() == storage


@torch.no_grad()
def test_new_rows_join_a_running_batch(model):
    text, mask, tokens = random_batch(model.config, [5, 1, 10], tokens=12)
    text2, mask2, tokens2 = random_batch(model.config, [2, 9], tokens=6)
    cache = model.new_cache(5, 30)
    model.prefill(text, mask, tokens[:, :4], cache)  # with a context
    for column in tokens[:, 4:9].T:
        model.step(column, cache, cache.extend(3))
    cache.select([0, 2])  # row 1 is replaced by two rows
    first = model.prefill(text2, mask2, tokens2[:, :0], cache, first=2)
    torch.testing.assert_close(first, model(text2, mask2, tokens2)[:, 0], atol=1e-5, rtol=1e-5)
    both = torch.cat((tokens[[0, 2], 9:12], tokens2[:, :3]))
    for column in both.T:
        logits = model.step(column, cache, cache.extend(4))
    torch.testing.assert_close(logits[:2], model(text, mask, tokens)[[0, 2], 12], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(logits[2:], model(text2, mask2, tokens2)[:, 3], atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_prefill_with_contexts_of_different_length(model):
    text, mask, tokens = random_batch(model.config, [5, 1, 10], tokens=7)
    tokens[0, 3:], tokens[2, :] = model.config.pad_id, model.config.pad_id
    cache = model.new_cache(3, 30)
    logits = model.prefill(text, mask, tokens, cache)
    expected = model(text, mask, tokens)
    torch.testing.assert_close(logits, expected[[0, 1, 2], [3, 7, 0]], atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_bfloat16_is_close_to_float32(model):
    batch = random_batch(model.config, [5, 10], tokens=20)
    expected = model(*batch)
    model.bfloat16()
    for logits in (model(*batch), cached_logits(model, *batch)):
        assert logits.dtype == torch.bfloat16
        assert (logits.float() - expected).norm() < 0.05 * expected.norm()


# --- training


def test_targets_put_end_after_each_rows_last_token():
    config = small_config()
    pad, end = config.pad_id, config.end_id
    targets = LLaMAHF(config).next_tokens(torch.tensor([[3, 4, 5], [6, pad, pad], [pad, pad, pad]]))
    assert targets.tolist() == [[3, 4, 5, end], [6, end, pad, pad], [end, pad, pad, pad]]


def test_loss_equals_cross_entropy_without_padding(model):
    text, mask, tokens = random_batch(model.config, [3, 8], tokens=9)
    tokens[0, 5:] = model.config.pad_id
    targets = model.next_tokens(tokens)
    logits = model(text, mask, tokens).flatten(0, 1)
    expected = torch.nn.functional.cross_entropy(logits, targets.flatten(), ignore_index=model.config.pad_id)
    torch.testing.assert_close(model.loss(text, mask, tokens), expected)


def test_loss_falls_under_training_with_dropout():
    torch.manual_seed(0)
    model = LLaMAHF(small_config(dropout=0.1))
    batch = random_batch(model.config, [3, 8, 5, 1], tokens=9)
    assert abs(model.loss(*batch).item() - np.log(model.config.vocab_size - 1)) < 0.2, (
        "the initial prediction is uniform"
    )
    assert model.loss(*batch) != model.loss(*batch), "dropout is on"
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for _ in range(60):
        optimizer.zero_grad()
        loss = model.loss(*batch)
        loss.backward()
        optimizer.step()
    assert loss < 0.5
    assert model.eval().loss(*batch) == model.loss(*batch)


def test_text_dropout_replaces_rows_by_the_null_text(model):
    text, mask, tokens = random_batch(model.config, [4] * 200, tokens=2)
    generator = torch.Generator().manual_seed(1)
    dropped_text, dropped_mask = drop_text(text, mask, 0.25, generator)
    dropped = dropped_mask.sum(dim=1) == 1
    assert 30 <= int(dropped.sum()) <= 70
    torch.testing.assert_close(dropped_text[~dropped], text[~dropped])
    assert (dropped_mask[~dropped] == mask[~dropped]).all() and dropped_text[dropped].eq(0).all()
    row = int(dropped.int().argmax())
    alone = model(torch.zeros(1, 1, model.config.text_dim), torch.ones(1, 1, dtype=torch.bool), tokens[row : row + 1])
    torch.testing.assert_close(model(dropped_text, dropped_mask, tokens)[row], alone[0], atol=1e-5, rtol=1e-5)

    assert drop_text(text, mask, 0.0)[1].equal(mask)
    everything = drop_text(text, mask, 1.0)
    assert all(torch.equal(*pair) for pair in zip(everything, null_text(text), strict=True))


def test_state_dropout_keeps_the_first_feature_of_each_row():
    mask = torch.tensor([[True, True, True, False], [False, True, True, True]] * 100)
    dropped = drop_states(mask, 0.3, torch.Generator().manual_seed(0))
    assert 35 <= int((dropped.sum(1) == 1).sum()) <= 85
    first = torch.tensor([[True, False, False, False], [False, True, False, False]] * 100)
    assert all(row.equal(whole) or row.equal(only) for row, whole, only in zip(dropped, mask, first, strict=True))
    assert drop_states(mask, 0.0).equal(mask) and drop_states(mask, 1.0).equal(first)


def test_null_text_trains_only_the_bias(model):
    text, mask = null_text(torch.randn(2, 5, model.config.text_dim))
    model.loss(text, mask, torch.zeros(2, 3, dtype=torch.long)).backward()
    assert model.llama_proj.weight.grad.eq(0).all() and model.llama_proj.bias.grad.ne(0).any()


# --- checkpoints and faults


@pytest.mark.parametrize("tie_weights", [False, True])
def test_save_and_load(tmp_path, tie_weights):
    model = LLaMAHF(small_config(tie_weights=tie_weights, text_dropout=0.1)).eval()
    assert model.lm_head.out_features == model.config.vocab_size - (not tie_weights)
    model.save_pretrained(tmp_path / "model")
    loaded = LLaMAHF.from_pretrained(tmp_path / "model")
    assert loaded.config == model.config and not loaded.training
    assert (loaded.lm_head.weight is loaded.transformer.wte.weight) == tie_weights
    batch = random_batch(model.config, [3, 8], tokens=4)
    torch.testing.assert_close(loaded(*batch), model(*batch), atol=0, rtol=0)


@pytest.mark.parametrize("size", SIZES)
def test_every_size_makes_a_valid_config(size):
    config = small_config(**SIZES[size])
    assert config.mlp_hidden % 256 == 0 and 0 <= config.mlp_hidden - 8 * config.n_embd // 3 < 256


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"codebook_size": 0}, "codebook_size is 0"),
        ({"n_layer": -1}, "n_layer is -1"),
        ({"dropout": 1.0}, "dropout is 1.0"),
        ({"text_dropout": -0.1}, "text_dropout is -0.1"),
        ({"n_embd": 33}, "n_embd is 33"),
        ({"n_embd": 30, "n_head": 2}, "even width"),
    ],
)
def test_invalid_config_raises(changes, message):
    with pytest.raises(InputError, match=message):
        small_config(**changes)


def test_invalid_input_raises(model):
    text, mask, tokens = random_batch(model.config, [4], tokens=2)
    with pytest.raises(InputError, match="5 wide but the model takes 12"):
        model(text[:, :, :5], mask, tokens)
    with pytest.raises(InputError, match="11 text features but the model takes at most 10"):
        model(*random_batch(model.config, [11], tokens=2))
    with pytest.raises(InputError, match="21 motion tokens but the model takes at most 20"):
        model(*random_batch(model.config, [4], tokens=21))
