"""The tokenizer: parity with the reference's networks, padding, causality, streaming, losses, checkpoints."""

import json
import time

import numpy as np
import pytest
import torch

from models.frames import FrameStream, compiled_weights
from models.fsq import FSQ
from models.motion_vqvae import Conv, HumanVQVAE, VQVAEConfig, haar_patch, haar_unpatch
from models.vq_loss import MotionLoss, MotionLossConfig
from tests.conftest import GOLDEN_DIR, converted
from utils.errors import InputError

TINY = {"levels": [5, 4, 3], "code_dim": 8, "width": 8, "depth": 2}
REFERENCE = [path.name.removesuffix("_ckpt.json") for path in sorted(GOLDEN_DIR.glob("tokenizer*_ckpt.json"))]


def tokenizer(seed: int = 0, **changes) -> HumanVQVAE:
    torch.manual_seed(seed)
    return HumanVQVAE(VQVAEConfig(**(TINY | changes))).eval()


def motion(batch: int, frames: int) -> torch.Tensor:
    return torch.randn(batch, frames, 272, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("name", REFERENCE)
@torch.no_grad()
def test_equals_the_reference(name, tmp_path):
    model = HumanVQVAE.from_pretrained(converted(tmp_path / name, name))
    io = {key: torch.from_numpy(value) for key, value in np.load(GOLDEN_DIR / f"{name}_io.npz").items()}

    latent = model.encoder(io["motion"].transpose(1, 2), None)
    torch.testing.assert_close(latent, io["encoder_out"], atol=1e-4, rtol=0)
    torch.testing.assert_close(model.encode(io["motion"]), io["indices"])
    result = model(io["motion"])
    torch.testing.assert_close(result.reconstruction, io["recon"], atol=1e-4, rtol=0)
    torch.testing.assert_close(result.tokens, io["indices"])
    assert result.loss == io["loss"]
    torch.testing.assert_close(result.perplexity, io["perplexity"], atol=1e-3, rtol=0, check_dtype=False)
    torch.testing.assert_close(result.active_fraction, io["activate"], atol=1e-6, rtol=0, check_dtype=False)
    torch.testing.assert_close(model.decode(io["indices"][:1]), io["decoded_0"], atol=1e-4, rtol=0)


def test_haar_patches_equal_the_reference():
    arrays = {key: torch.from_numpy(value) for key, value in np.load(GOLDEN_DIR / "haar_patcher.npz").items()}
    once, _ = haar_patch(arrays["x"], None)
    twice, _ = haar_patch(once, None)
    x = arrays["x_odd"].repeat(2, 1, 1)[:2]  # (2, C, T), also for fixtures of one row
    frames = x.shape[-1]
    short = frames // 2 - (frames // 2 + 1) % 2  # odd
    odd, lengths = haar_patch(x, torch.tensor([frames, short]))
    for patched, stored in ((once, "patched_2"), (twice, "patched_4"), (haar_unpatch(once), "recon_2"),
                         (haar_unpatch(haar_unpatch(twice)), "recon_4"), (odd[:1], "patched_2_odd"),
                         (haar_unpatch(odd)[:1], "recon_2_odd")):  # fmt: skip
        torch.testing.assert_close(patched, arrays[stored][: len(patched)], atol=1e-5, rtol=0)
    assert lengths.tolist() == [(frames + 1) // 2, (short + 1) // 2]
    alone, _ = haar_patch(x[1:, :, :short], None)  # a shorter row is extended at its own end
    torch.testing.assert_close(odd[1:, :, : (short + 1) // 2], alone, atol=0, rtol=0)


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("norm", ["none", "layer"])
@pytest.mark.parametrize(("down_t", "patch_size"), [(1, 1), (2, 1), (3, 1), (1, 2), (1, 4)])
@torch.no_grad()
def test_padded_batch_equals_single_rows(causal, norm, down_t, patch_size):
    model = tokenizer(causal=causal, norm=norm, down_t=down_t, patch_size=patch_size, activation="gelu")
    lengths = torch.tensor([40, 17, 8, 31])
    batch = motion(4, 40)
    padded = batch.clone()
    for row, length in enumerate(lengths):
        padded[row, length:] = 1e3
    tokens = model.encode(padded, lengths)
    token_lengths = lengths // model.config.stride
    decoded = model.decode(tokens, token_lengths)
    reconstruction = model(padded, lengths)[0]
    for row, length in enumerate(lengths):
        alone = model.encode(batch[row : row + 1, :length])
        count = alone.shape[1]
        assert count == token_lengths[row]
        torch.testing.assert_close(tokens[row, :count], alone[0])
        frames = model.decode(alone)[0]
        torch.testing.assert_close(decoded[row, : len(frames)], frames, atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(reconstruction[row, : len(frames)], frames, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("patch_size", [1, 2])
def test_gradients_of_causal_models_reach_no_later_frames(patch_size):
    model = tokenizer(causal=True, patch_size=patch_size)
    stride = model.config.stride
    frames = motion(1, 8 * stride).requires_grad_()
    latent = model.encoder(frames.transpose(1, 2), None)  # (1, C, 8)
    seen = torch.autograd.grad(latent[..., 3].sum(), frames)[0].abs().sum(-1)[0]
    assert seen[: 4 * stride].any() and not seen[4 * stride :].any()
    codes = torch.randn(1, model.config.code_dim, 8, requires_grad=True)
    decoded = model.decoder(codes, None)
    used = torch.autograd.grad(decoded[..., 4 * stride - 1].sum(), codes)[0].abs().sum(1)[0]
    assert used[:4].any() and not used[4:].any()


@pytest.mark.parametrize("chunks", [[1] * 12, [5, 1, 6], [12]])
@pytest.mark.parametrize("patch_size", [1, 4])
@torch.no_grad()
def test_decoding_in_chunks_equals_decoding_at_once(chunks, patch_size):
    model = tokenizer(causal=True, norm="layer", patch_size=patch_size)
    tokens = model.encode(motion(2, 48 * patch_size))
    state, parts = None, []
    for part in tokens.split(chunks, dim=1):
        before = state
        frames, state = model.decode_chunk(part, state)
        parts.append(frames)
        again, _ = model.decode_chunk(part, before)  # the given state is not modified
        torch.testing.assert_close(again, frames)
    torch.testing.assert_close(torch.cat(parts, dim=1), model.decode(tokens), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(("down_t", "depth"), [(1, 2), (2, 1)])
def test_a_compiled_stream_equals_decoding_at_once(down_t, depth):
    model = tokenizer(causal=True, down_t=down_t, depth=depth, dilation_growth=2)
    tokens = torch.arange(14)
    weights = compiled_weights(model)
    assert weights is not None
    stream = FrameStream(model, weights)
    frames = [stream.next(part.tolist()) for part in tokens.split([1] * 10 + [4])]
    expected = model.denormalize(model.decode(tokens[None]))[0].detach()
    torch.testing.assert_close(torch.from_numpy(np.concatenate(frames)), expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("other", [{"norm": "layer"}, {"activation": "gelu"}, {"patch_size": 2}, {"causal": False}])
def test_tokenizers_of_other_layers_stream_by_pytorch(other):
    model = tokenizer(**({"causal": True} | other))
    assert compiled_weights(model) is None
    if model.config.causal:
        assert FrameStream(model, None).next([0, 1]).shape == (2 * model.config.stride, 272)


def test_non_causal_models_refuse_to_stream():
    with pytest.raises(InputError, match="causal"):
        tokenizer(causal=False).decode_chunk(torch.zeros(1, 2, dtype=torch.long))


@pytest.mark.parametrize("frames", [4, 5, 7, 9])
def test_frames_beyond_the_last_whole_token_are_dropped(frames):
    model = tokenizer()
    assert model.encode(motion(1, frames)).shape == (1, frames // 4)
    assert model(motion(1, frames))[0].shape == (1, frames // 4 * 4, 272)


@pytest.mark.parametrize("frames", [8, 9, 13, 15])
def test_frames_beyond_the_last_whole_haar_patch_are_dropped(frames):
    model = tokenizer(down_t=1, patch_size=4)
    assert model.config.stride == 8
    assert model.encode(motion(1, frames)).shape == (1, 1)
    assert model(motion(1, frames))[0].shape == (1, 8, 272)


@pytest.mark.parametrize("shape", [(1, 3, 272), (1, 8, 263), (8, 272)])
def test_motion_of_the_wrong_shape_is_refused(shape):
    with pytest.raises(InputError):
        tokenizer().encode(torch.zeros(shape))


@pytest.mark.parametrize(
    ("name", "value"), [("activation", "tanh"), ("norm", "batch"), ("width", 0), ("patch_size", 3), ("levels", [1])]
)
def test_invalid_configurations_are_refused(name, value):
    with pytest.raises(InputError):
        tokenizer(**{name: value})


def test_checkpoint_holds_the_statistics(tmp_path):
    model = tokenizer()
    model.mean.copy_(torch.randn(272))
    model.std.copy_(torch.rand(272) + 0.5)
    model.save_pretrained(tmp_path / "vq")
    loaded = HumanVQVAE.from_pretrained(tmp_path / "vq")
    features = motion(1, 16)
    torch.testing.assert_close(loaded.denormalize(loaded.normalize(features)), features)
    torch.testing.assert_close(loaded.encode(loaded.normalize(features)), model.encode(model.normalize(features)))
    assert loaded.config == model.config


def test_damaged_checkpoints_are_refused(tmp_path):
    model = tokenizer()
    with pytest.raises(InputError, match="missing"):
        HumanVQVAE.from_pretrained(tmp_path / "nothing")
    model.save_pretrained(tmp_path / "half")
    weights = tmp_path / "half" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(InputError, match="model.safetensors: its .*; copy or download it again"):
        HumanVQVAE.from_pretrained(tmp_path / "half")
    model.save_pretrained(tmp_path / "other")
    config = tmp_path / "other" / "config.json"
    config.write_text(config.read_text().replace('"width": 8', '"width": 16'))
    with pytest.raises(InputError, match=r"bias is \(8,\) and should be \(16,\); .*config.json"):
        HumanVQVAE.from_pretrained(tmp_path / "other")


@pytest.mark.parametrize(
    "change",
    [{"depth": 10**7}, {"down_t": 60}, {"width": 10**6}, {"code_dim": 2**60}, {"levels": [10**6] * 3}, {"depth": -1},
     {"residuals": 10**9}, {"dilation_growth": 10**6}, {"width": "8"}, {"norm": 5}, {"causal": None}, {"more": 1}],
)  # fmt: skip
def test_configs_larger_than_the_weights_are_refused_at_once(tmp_path, change):
    tokenizer().save_pretrained(tmp_path)
    config = tmp_path / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | change))
    started = time.perf_counter()
    with pytest.raises(InputError, match=f"{tmp_path}.*") as caught:
        HumanVQVAE.from_pretrained(tmp_path)
    assert time.perf_counter() - started < 5 and len(str(caught.value)) < 500


@pytest.mark.parametrize("kind", ["l1", "l2", "smooth_l1"])
def test_loss_is_zero_for_equal_motion_and_has_every_term(kind):
    weights = {"root": 1.0, "velocity": 1.0, "acceleration": 1.0, "path": 1.0, "joints": 1.0}
    loss = MotionLoss(MotionLossConfig(kind=kind, **weights))
    from motion.features272 import features_from_motion
    from tests.test_features272 import random_motion

    target = torch.tensor(np.stack([features_from_motion(*random_motion(12, seed)) for seed in (0, 1)])).float()
    mean, std, lengths = torch.zeros(272), torch.ones(272), torch.tensor([12, 7])
    total, terms = loss(target, target, mean, std, lengths)
    assert total < 1e-6 and set(terms) == {"features", *weights}
    padded = target.clone()
    padded[1, 7:] = 100.0
    torch.testing.assert_close(loss(padded, target, mean, std, lengths)[0], total)
    noisy = (target + 0.1 * torch.randn_like(target)).requires_grad_()
    total, terms = loss(noisy, target, mean, std, lengths)
    assert all(term > 0 for term in terms.values())
    gradient = torch.autograd.grad(total, noisy)[0]
    assert torch.isfinite(gradient).all() and not gradient[1, 8:].any()


def test_training_lowers_the_error():
    model = tokenizer().train()
    target = motion(4, 32) * 0.1 + torch.linspace(-1, 1, 272)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    errors = []
    for _ in range(30):
        error = torch.nn.functional.l1_loss(model(target)[0], target)
        optimizer.zero_grad()
        error.backward()
        optimizer.step()
        errors.append(error.item())
    assert errors[-1] < 0.6 * errors[0]
    assert isinstance(model.quantizer, FSQ)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("kernel, stride, dilation", [(3, 1, 1), (3, 1, 9), (4, 2, 1), (1, 1, 1)])
def test_bf16_convolutions_on_a_cpu_equal_float32(causal, kernel, stride, dilation):
    torch.manual_seed(0)
    conv, x = Conv(6, 10, kernel, causal, stride, dilation), torch.randn(2, 6, 14, requires_grad=True)
    exact = conv(x)
    expected = torch.autograd.grad(exact.square().sum(), (x, *conv.parameters()))
    with torch.autocast("cpu", torch.bfloat16):
        rounded = conv(x)
    assert rounded.dtype == torch.bfloat16
    gradients = torch.autograd.grad(rounded.float().square().sum(), (x, *conv.parameters()))
    for actual, wanted in zip((rounded, *gradients), (exact, *expected), strict=True):
        assert (actual - wanted).norm() < 0.02 * wanted.norm()
