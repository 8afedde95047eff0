"""Precision, packed and quantized weights, compiled steps: equal or similar results, and errors."""

import gc
import os
import shutil
import warnings
from collections.abc import Callable
from functools import partial
from itertools import accumulate

import pytest
import torch
from torch import nn
from torch._inductor.output_code import CompiledFxGraph

from models import few_rows
from models.compiled_step import unused_rows
from models.few_rows import Choice, FewRowsStep
from models.generate import Part, Request, generate
from models.llama import LLaMAHF
from models.llama_config import LLaMAConfig
from models.optimize import PackedLinear, check_support, load_optimized, optimize
from models.quantize import Int8Linear
from models.sampling import Sampler, Sampling, sampled_step
from utils.checkpoint import WEIGHTS
from utils.device import OtherPrograms
from utils.errors import InputError


def make_model(**changes) -> LLaMAHF:
    torch.manual_seed(0)
    shape = {"codebook_size": 50, "text_dim": 24, "text_encoder": "fake", "text_length": 8, "max_tokens": 20}
    size = {"text_dropout": 0.1, "n_layer": 2, "n_head": 4, "n_embd": 64}
    model = LLaMAHF(LLaMAConfig(**shape | size | changes)).eval()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.15)
    return model


def requests(count: int = 9) -> list[Request]:
    generator = torch.Generator().manual_seed(5)
    return [Request([Part(torch.randn(1 + n % 8, 24, generator=generator), 3, 20)], seed=n) for n in range(count)]


def logits_of(model: LLaMAHF) -> torch.Tensor:
    """Logits of four rows after a text and eight tokens."""
    generator = torch.Generator().manual_seed(6)
    text = torch.randn(4, 5, 24, generator=generator)
    tokens = torch.randint(50, (4, 8), generator=generator)
    cache = model.new_cache(4, 28)
    with torch.inference_mode():
        model.prefill(text, torch.ones(4, 5, dtype=torch.bool), tokens[:, :7], cache)
        return model.step(tokens[:, 7], cache, cache.extend(4)).float()


def generate_all(model: LLaMAHF, sampling: Sampling, slots: int) -> list[list[int]]:
    return [motion for _, motion in sorted(generate(model, requests(), sampling, slots))]


def test_packed_weights_generate_the_same_motions():
    plain, packed = make_model(), optimize(make_model(), torch.float32)
    assert isinstance(packed.lm_head, PackedLinear) and isinstance(packed.step, FewRowsStep)
    packed.step.choice = Choice(threads=1, rows=4)  # 5 rows and more are computed by PyTorch
    torch.testing.assert_close(logits_of(packed), logits_of(plain), atol=1e-4, rtol=1e-4)
    for sampling in (Sampling(), Sampling(guidance=2.0, top_p=0.9), Sampling(temperature=0)):
        expected = generate_all(plain, sampling, 4)
        for slots in (1, 3, 9):
            assert generate_all(packed, sampling, slots) == expected


@pytest.mark.parametrize("quantize", ["none", "int8"])
def test_lower_precision_is_close_to_float32(quantize):
    plain, fast = make_model(), optimize(make_model(), torch.bfloat16, quantize)
    assert isinstance(fast.lm_head, Int8Linear if quantize == "int8" else PackedLinear)
    assert isinstance(fast.llama_proj, PackedLinear), "the int8 kernel needs an input width that is a multiple of 32"
    for rows in (0, 4):  # computed by the compiled function
        fast.step.choice = Choice(threads=1, rows=rows)
        expected, logits = logits_of(plain), logits_of(fast)
        assert (logits - expected).norm() < 0.05 * expected.norm()
    motions = generate_all(fast, Sampling(), 4)
    assert motions == generate_all(fast, Sampling(), 4), "the same call gives the same motions"
    assert all(3 <= len(motion) <= 20 and set(motion) <= set(range(50)) for motion in motions)


def test_without_numba_steps_are_computed_by_pytorch(monkeypatch):
    monkeypatch.setattr(few_rows, "kernels", lambda: None)
    model = optimize(make_model(), torch.float32)
    assert not isinstance(model.step, FewRowsStep)
    assert generate_all(model, Sampling(), 2) == generate_all(make_model(), Sampling(), 2)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="only POSIX has fork")
def test_a_forked_process_does_not_use_the_threads_of_numba():
    assert few_rows.kernels() is not None
    child = os.fork()
    if child == 0:
        os._exit(0 if few_rows.kernels() is None else 1)
    assert os.waitpid(child, 0)[1] == 0


def test_the_fastest_step_is_measured_until_other_programs_leave_the_machine_alone(monkeypatch, tmp_path):
    monkeypatch.setattr(few_rows, "cache_folder", lambda: tmp_path)
    (tmp_path / "steps.json").write_text("damaged")
    measured = []
    monkeypatch.setattr(FewRowsStep, "_measure", lambda *arguments: measured.append(1) or Choice(1, 2))
    for share, count in ((0.5, 1), (0.2, 2), (0.01, 3), (0.01, 3), (0.5, 3)):
        monkeypatch.setattr(OtherPrograms, "share", lambda self, share=share: share)
        assert optimize(make_model(), torch.float32).step.choice == Choice(1, 2)
        assert len(measured) == count


@pytest.mark.parametrize("quantize", ["none", "int8"])
@pytest.mark.parametrize("changes", [{}, {"tie_weights": True, "control": 3}])
def test_a_loaded_model_is_the_optimized_one(tmp_path, monkeypatch, quantize, changes):
    monkeypatch.setattr(FewRowsStep, "_measure", lambda *arguments: Choice(1, 0))
    model = make_model(**changes)
    model.save_pretrained(tmp_path)
    loaded = load_optimized(tmp_path, torch.device("cpu"), torch.bfloat16, quantize)
    assert not loaded.training and not any(parameter.requires_grad for parameter in loaded.parameters())
    assert torch.equal(logits_of(loaded), logits_of(optimize(model, torch.bfloat16, quantize)))


def test_an_int8_model_is_loaded_in_less_memory_than_its_bf16_weights_take(tmp_path, monkeypatch):
    monkeypatch.setattr(FewRowsStep, "_measure", lambda *arguments: Choice(1, 0))
    model, place, bf16 = make_model(n_layer=8, n_embd=256), torch.device("cpu"), torch.bfloat16
    model.save_pretrained(tmp_path)
    size, stored = (2 * sum(each.numel() for each in model.parameters()), (tmp_path / WEIGHTS).stat().st_size)
    assert peak_memory(lambda: load_optimized(tmp_path, place, bf16, "int8"), stored) < size
    assert peak_memory(lambda: optimize(LLaMAHF.from_pretrained(tmp_path), bf16, "int8"), stored) > 2 * size


def peak_memory(make: Callable[[], object], mapped: int) -> int:
    """Return the most bytes that tensors on the CPU took at a time, without mapped files of ``mapped`` bytes."""
    gc.collect()  # models of other tests are not freed meanwhile
    with torch.profiler.profile(profile_memory=True) as seen:
        made = make()
    del made
    events = sorted(seen.profiler.kineto_results.events(), key=lambda event: event.start_ns())
    changes = [event.nbytes() for event in events if event.name() == "[memory]"]
    return max(accumulate(change for change in changes if abs(change) != mapped))


@pytest.mark.skipif(not shutil.which("g++"), reason="torch.compile needs a C++ compiler")
def test_compiled_step_generates_the_same_motions_without_recompiling():
    plain, compiled = make_model(), optimize(make_model(), torch.float32, compiled=True)
    torch.compiler.reset()
    sampling = Sampling(top_p=0.9, guidance=2.0)
    assert generate_all(compiled, sampling, 2) == generate_all(plain, sampling, 2)
    with torch.compiler.set_stance("fail_on_recompile"):
        for other in (sampling, Sampling(temperature=0.7, top_p=0.8, guidance=3.0)):
            assert generate_all(compiled, other, 2) == generate_all(plain, other, 2)


def test_a_compiled_step_computes_few_numbers_of_rows():
    cache = make_model().new_cache(24, 8)
    assert [rows + unused_rows(rows, cache) for rows in (1, 2, 4, 5, 16, 17, 24)] == [1, 4, 4, 16, 16, 24, 24]


@pytest.mark.skipif(not shutil.which("g++"), reason="torch.compile needs a C++ compiler")
@torch.inference_mode()
def test_a_compiled_step_changes_only_tensors_of_constant_address(monkeypatch):
    """A CUDA graph needs this; the compiler's frontend decides it, which is the same on every device."""
    changed = []  # inputs that a compiled graph changes in place, and those of a constant address
    post_compile = CompiledFxGraph.post_compile

    def seen(self, inputs, constants, settings, *rest):
        changed.append((set(self.mutated_input_idxs), set(settings.get("static_input_idxs") or ())))
        return post_compile(self, inputs, constants, settings, *rest)

    monkeypatch.setattr(CompiledFxGraph, "post_compile", seen)
    monkeypatch.setattr(torch._inductor.config, "force_disable_caches", True)  # of graphs of other tests and runs
    torch.compiler.reset()
    model = make_model()
    model.static_shapes = True
    cache, sampler = model.new_cache(2, 28), Sampler.of(Sampling(top_p=0.9, guidance=1.0), "cpu")
    step = torch.compile(partial(sampled_step, model.step), dynamic=False)
    step(torch.tensor([1, 2]), cache, 28, torch.zeros(2, 2), sampler, model.config.end_id)
    assert changed and all(mutated and mutated <= constant for mutated, constant in changed)


def test_without_a_compiler_the_step_is_not_compiled(monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.warns(UserWarning, match="no C\\+\\+ compiler is found"):
        model = optimize(make_model(), torch.float32, compiled=True)
    assert not model.static_shapes and isinstance(model.lm_head, PackedLinear)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert generate_all(model, Sampling(), 4) == generate_all(make_model(), Sampling(), 4)


@pytest.mark.parametrize(
    ("device", "dtype", "quantize", "message"),
    [
        ("cpu", "bf16", "none", "dtype is 'bf16'; give torch.float32"),
        ("cpu", torch.bfloat16, "int4", "int4 weights need a CUDA device and this is cpu"),
        ("cpu", torch.float32, "int8", "int8 weights go with bf16 and float32 is requested"),
        ("cuda", torch.float16, "int8", "float16 is requested"),
        ("cpu", torch.float16, "none", "float16 is slow on a CPU"),
        ("cpu", torch.float32, "int2", "quantize int2 is unknown; use one of none, int8, int4"),
    ],
)
def test_unsupported_settings_raise(device, dtype, quantize, message):
    with pytest.raises(InputError, match=message):
        check_support(device, dtype, quantize)
