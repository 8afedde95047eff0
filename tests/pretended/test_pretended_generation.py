"""Generation on a pretended GPU: no mixed devices, the tokens of the CPU, waits and kernels of a token."""

import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch

from models.generate import Part, Request, decode_steps, generate
from models.llama import LLaMAHF
from models.llama_config import SIZES, LLaMAConfig
from models.optimize import optimize
from models.pipeline import TextToMotion
from models.sampling import Sampling
from models.sampling_options import DEFAULT_SAMPLING
from models.text_encoder import load_text_encoder
from tests.conftest import run_in_this_process
from tests.encoders import CAPTIONS, make_clip, make_t5
from tests.inference.helpers import save_tiny_checkpoint
from tests.pretended.device import DeviceMismatch, DeviceTensor
from tests.pretended.patches import pretended

KERNELS_PER_TOKEN = 120  # of the 44M generator, at most, without CUDA graphs


def small_generator(**changes) -> LLaMAHF:
    torch.manual_seed(0)
    shape = {"codebook_size": 200, "text_dim": 24, "text_encoder": "fake", "text_length": 8, "max_tokens": 20}
    return LLaMAHF(LLaMAConfig(**shape | {"text_dropout": 0.1} | SIZES["debug"] | changes)).eval()


def requests() -> list[Request]:
    generator = torch.Generator().manual_seed(5)
    texts = [torch.randn(1 + 2 * number, 24, generator=generator) for number in range(4)]
    return [
        Request([Part(text, 2, 5)] * (1 + number % 2), number, [1, 2][: number % 3])
        for number, text in enumerate(texts)
    ]


@pytest.fixture(scope="module", autouse=True)
def load_text_encoders_once() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("models.pipeline.load_text_encoder", cache(load_text_encoder))
        yield


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Path:
    return save_tiny_checkpoint(tmp_path_factory.mktemp("run") / "tiny")


def test_the_pretended_gpu_refuses_what_a_gpu_refuses():
    with pretended("cuda"):
        x = torch.ones(2, 3, device="cuda")
        assert isinstance(x, DeviceTensor) and x.device == torch.device("cuda", 0) and (x + 1).sum().item() == 12
        for mix in (
            lambda: x + torch.ones(3),
            lambda: torch.cat((x, torch.ones(2, 3))),
            lambda: torch.ones(3)[x.long()],
            lambda: torch.rand(3, device="cuda", generator=torch.Generator()),
        ):
            with pytest.raises(DeviceMismatch):
                mix()
        with pytest.raises(TypeError, match="can't convert cuda"):
            x.numpy()


def test_the_pretended_gpu_counts_waits_uploads_and_kernels():
    with pretended("cuda") as device:
        x = torch.ones(2, 3, device="cuda")
        device.reset()
        y = (x[x > 0] + 1).view(3, 2).tolist()
        x[[0, 1]].add_(torch.tensor(1.0, device="cuda"))
    assert y == [[2, 2]] * 3 and sum(device.waits.values()) == 2 and sum(device.uploads.values()) == 2
    assert device.kernels == {"gt": 1, "index": 2, "add": 1, "add_": 1}


@pytest.mark.parametrize(
    ("sampling", "tied"), [(Sampling(guidance=2.0, top_p=0.9), True), (Sampling(top_k=5, guidance=1.0), False)]
)
def test_tokens_are_those_of_the_cpu(sampling, tied):
    expected = sorted(generate(small_generator(tie_weights=tied), requests(), sampling, 2))
    with pretended("cuda"):
        model = small_generator(tie_weights=tied).to("cuda")
        assert (model.lm_head.weight is model.transformer.wte.weight) == tied
        assert sorted(generate(model, requests(), sampling, 2)) == expected


@pytest.mark.parametrize("read_every", [1, 10])
@pytest.mark.parametrize("sampling", [Sampling(), DEFAULT_SAMPLING, Sampling(temperature=0, guidance=2.0)])
def test_waits_uploads_and_kernels_of_a_token(sampling, read_every):
    with pretended("cuda") as device:
        model = small_generator(n_layer=SIZES["44M"]["n_layer"], max_tokens=30).to("cuda", torch.bfloat16)
        text = Part(torch.randn(5, 24, device="cuda"), 30, 30)
        steps = decode_steps(optimize(model, torch.bfloat16), [Request([text])], sampling, 1, read_every)
        for _ in range(10):
            next(steps)
        device.reset()
        for _ in range(10):
            next(steps)
        steps.close()
    assert sum(device.waits.values()) == 10 // read_every and not device.uploads, device.waits + device.uploads
    assert sum(device.kernels.values()) <= 10 * KERNELS_PER_TOKEN, device.kernels


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_heads_are_padded_for_the_fused_kernels_of_a_gpu(dtype, monkeypatch):
    shape = {"n_head": 2, "n_embd": 40}
    text, mask, tokens = torch.randn(2, 5, 24), torch.ones(2, 5, dtype=torch.bool), torch.tensor([[1, 2], [3, 4]])
    expected = small_generator(**shape)(text, mask, tokens)[:, -1]
    attention, widths = torch.nn.functional.scaled_dot_product_attention, set()

    def watched(q, k, v, *rest, **more):
        widths.add((q.shape[-1], k.shape[-1], v.shape[-1]))
        return attention(q, k, v, *rest, **more)

    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", watched)
    with pretended("cuda"), torch.inference_mode():
        model = optimize(small_generator(**shape).to("cuda"), dtype)
        text, mask, tokens = text.to("cuda"), mask.to("cuda"), tokens.to("cuda")
        cache = model.new_cache(2, 7)
        model.prefill(text, mask, tokens[:, :1], cache)
        logits = model.step(tokens[:, 1], cache, cache.extend(2)).float().cpu()
    assert widths == {(24, 24, 24)} and cache.shape.head_dim == 24
    assert (logits - expected).norm() < 0.02 * expected.norm()


@pytest.mark.parametrize("kind", ["cuda", "mps"])
def test_motions_and_streams_are_those_of_the_cpu(checkpoint, kind):
    def motions(device: str) -> list:
        model = TextToMotion.from_pretrained(checkpoint, device)
        made = model.generate(["a person walks", ["a person runs", "a person waves"]], [1, 2], seconds=[1.0, 0.5])
        return [*made, *model.stream("a person jumps", seed=1, seconds=0.4, init=made[0].features)]

    expected = motions("cpu")
    with pretended(kind):
        made = motions(f"{kind}:0")
    assert len(made) == len(expected) > 4
    for ours, theirs in zip(made, expected, strict=True):
        np.testing.assert_array_equal(ours.tokens, theirs.tokens)
        np.testing.assert_allclose(ours.joints, theirs.joints, atol=1e-4)


def test_motions_in_half_precision(checkpoint):
    for precision in (torch.bfloat16, torch.float16):
        with pretended("cuda"):
            model = TextToMotion.from_pretrained(checkpoint, "cuda", precision)
            motion = model.generate("a person walks", seconds=1.0)
        assert np.isfinite(motion.features).all() and len(motion.tokens) == 8


@pytest.mark.parametrize("name", ["minilm", "flan-t5-small", "clip"])
def test_features_of_text_encoders_are_those_of_the_cpu(name, tmp_path):
    makers = {"flan-t5-small": (make_t5, "t5"), "clip": (make_clip, "clip.safetensors")}
    path = makers[name][0](tmp_path / makers[name][1]) if name in makers else None
    expected, expected_mask = load_text_encoder(name, "cpu", path).encode(CAPTIONS)
    with pretended("cuda"):
        features, mask = load_text_encoder(name, "cuda", path).encode(CAPTIONS)
        assert isinstance(features, DeviceTensor) and isinstance(mask, DeviceTensor)
        features, mask = features.cpu(), mask.cpu()
    assert torch.equal(mask, expected_mask)
    assert torch.cosine_similarity(features[mask], expected[expected_mask]).min() > 0.999  # T5 is in bf16 on a GPU


def test_layers_in_host_memory_and_on_disk(checkpoint, monkeypatch):
    expected = TextToMotion.from_pretrained(checkpoint).generate("a person walks", seconds=0.5).tokens
    generator = LLaMAHF.from_pretrained(checkpoint)
    layer = sum(parameter.numel() for parameter in generator.transformer.h[0].parameters())
    others = sum(parameter.numel() for parameter in generator.parameters()) - 2 * layer
    for host_memory in (10**12, 0):
        monkeypatch.setattr("models.offload.get_max_memory", lambda free=host_memory: {"cpu": free})
        with pretended("cuda"):
            model = TextToMotion.from_pretrained(checkpoint, "cuda", device_memory=4 * (others + 1.5 * layer) / 1e9)
            np.testing.assert_array_equal(model.generate("a person walks", seconds=0.5).tokens, expected)


def test_int8_weights():
    with pretended("cuda"):
        model = optimize(small_generator(n_embd=64).to("cuda", torch.bfloat16), torch.bfloat16, "int8")
        motions = sorted(generate(model, requests(), Sampling(), 4))
    assert [number for number, _ in motions] == [0, 1, 2, 3] and all(tokens for _, tokens in motions)


def test_the_script_of_batch_inference(checkpoint, tmp_path, monkeypatch, capfd):
    out = tmp_path / "out"
    words = ["--prompt", "a person walks | a person waves", "--samples", "2", "--seconds", "0.5", "--save", "npz"]
    folders = ["--checkpoint", str(checkpoint), "--out-dir", str(out)]
    monkeypatch.setattr(sys, "argv", ["inference_batch.py", *words, *folders])
    with pretended("cuda"):
        run_in_this_process("inference_batch.py")
    assert "running on cuda" in capfd.readouterr().out and len(list(out.glob("*.npz"))) == 2
