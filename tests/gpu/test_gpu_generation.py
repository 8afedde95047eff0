"""Generation on a GPU, skipped without one: tokens of the CPU, precisions, CUDA graphs, quantized weights, memory."""

import gc
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch._dynamo.utils import counters

from models.generate import Part, Request, generate
from models.llama import LLaMAHF
from models.optimize import optimize
from models.pipeline import TextToMotion
from models.sampling import Sampling
from tests.conftest import run_script
from tests.inference.helpers import save_tiny_checkpoint, tiny_generator, tiny_tokenizer

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device is found"),
]

SAMPLINGS = [Sampling(temperature=0, guidance=1.0), Sampling(guidance=2.0, top_p=0.9), Sampling(top_k=5, guidance=1.0)]


def generator() -> LLaMAHF:
    """An untrained generator whose widths suit all kernels."""
    return tiny_generator(tiny_tokenizer([5, 5, 5]), n_embd=256, n_head=4)


def requests() -> list[Request]:
    texts = torch.Generator().manual_seed(5)
    return [Request([Part(torch.randn(1 + 3 * n, 384, generator=texts), 2, 16)], seed=n) for n in range(6)]


def motions(model: LLaMAHF, sampling: Sampling, slots: int = 4) -> list[tuple[int, list[int]]]:
    return sorted(generate(model, requests(), sampling, slots))


def logits(model: LLaMAHF, device: str) -> torch.Tensor:
    """Logits along three motions."""
    values = torch.Generator().manual_seed(6)
    text, tokens = torch.randn(3, 7, 384, generator=values), torch.randint(125, (3, 9), generator=values)
    with torch.inference_mode():
        output = model(text.to(device), torch.ones(3, 7, dtype=torch.bool, device=device), tokens.to(device))
    return output.float().cpu()


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Path:
    return save_tiny_checkpoint(tmp_path_factory.mktemp("run") / "tiny")


@pytest.mark.parametrize("sampling", SAMPLINGS)
def test_tokens_in_float32_are_those_of_the_cpu(sampling):
    expected = motions(generator(), sampling)
    assert motions(generator().to("cuda"), sampling) == expected
    optimized = optimize(generator().to("cuda"), torch.float32)
    for slots in (1, 6):
        assert motions(optimized, sampling, slots) == expected


@pytest.mark.parametrize("sampling", SAMPLINGS[:2])
def test_tokens_of_the_compiled_step_are_those_of_the_eager_one(sampling):
    expected = motions(optimize(generator().to("cuda"), torch.float32), sampling)
    torch.compiler.reset()
    counters.clear()
    compiled = optimize(generator().to("cuda"), torch.float32, compiled=True)
    for _ in range(3):  # the first calls record CUDA graphs, the last one replays them
        assert motions(compiled, sampling) == expected
    assert not counters["inductor"]["cudagraph_skips"]
    with torch.compiler.set_stance("fail_on_recompile"):
        assert motions(compiled, sampling) == expected
        if sampling.temperature > 0:  # its numbers are inputs of the graph
            other = replace(sampling, temperature=0.7, guidance=3.0, top_p=0.8)
            assert motions(compiled, other) == motions(optimize(generator().to("cuda"), torch.float32), other)


@pytest.mark.parametrize(("quantize", "most"), [("none", 0.02), ("int8", 0.05), ("int4", 0.3)])
def test_lower_precision_is_close_to_float32(quantize, most):
    expected = logits(generator(), "cpu")
    model = optimize(generator().to("cuda", torch.bfloat16), torch.bfloat16, quantize)
    assert (logits(model, "cuda") - expected).norm() < most * expected.norm()
    made = motions(model, Sampling(guidance=1.0))
    assert [number for number, _ in made] == list(range(6)) and all(2 <= len(tokens) <= 16 for _, tokens in made)


@pytest.mark.parametrize("quantize", ["int8", "int4"])
def test_compiled_steps_with_quantized_weights(quantize):
    torch.compiler.reset()
    model = optimize(generator().to("cuda", torch.bfloat16), torch.bfloat16, quantize, compiled=True)
    made = motions(model, Sampling(guidance=1.0))
    assert [number for number, _ in made] == list(range(6)) and made == motions(model, Sampling(guidance=1.0))


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16, torch.float16])
def test_streams_are_the_motions(checkpoint, precision):
    model = TextToMotion.from_pretrained(checkpoint, "cuda", precision)
    motion = model.generate("a person walks", seconds=1.0)
    chunks = list(model.stream("a person walks", seconds=1.0))
    np.testing.assert_array_equal(np.concatenate([chunk.tokens for chunk in chunks]), motion.tokens)
    joints = np.concatenate([chunk.joints for chunk in chunks])
    np.testing.assert_allclose(joints, motion.joints, atol=0.01)  # metres
    if precision == torch.float32:
        expected = TextToMotion.from_pretrained(checkpoint, "cpu").generate("a person walks", seconds=1.0)
        np.testing.assert_array_equal(motion.tokens, expected.tokens)
        np.testing.assert_allclose(motion.joints, expected.joints, atol=0.01)


def test_memory_is_returned():
    def held(times: int) -> int:
        model = optimize(generator().to("cuda", torch.bfloat16), torch.bfloat16)
        for _ in range(times):
            motions(model, Sampling(guidance=1.0))
        del model
        gc.collect()
        return torch.cuda.memory_allocated()

    workspaces = held(1)  # of the libraries, which keep them
    assert held(3) == workspaces


def test_the_script_of_batch_inference(checkpoint, tmp_path):
    words = ["--prompt", "a person walks | a person waves", "--samples", 2, "--seconds", 0.5, "--save", "npz,html"]
    printed = run_script("inference_batch.py", *words, "--checkpoint", checkpoint, "--out-dir", tmp_path / "out")
    assert "running on cuda" in printed and len(list(tmp_path.glob("out/*.npz"))) == 2
    results = json.loads((tmp_path / "out" / "results.json").read_text(encoding="utf-8"))
    assert len(results) == 2 and all(np.isfinite(np.load(file)["joints"]).all() for file in tmp_path.glob("out/*.npz"))
