"""FSQ: parity with the golden fixtures and vector-quantize-pytorch, round trips, layouts, precision, memory, errors."""

import json
from itertools import accumulate

import numpy as np
import pytest
import torch
import vector_quantize_pytorch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.profiler import ProfilerActivity, profile

from models.fsq import FSQ
from tests.conftest import golden
from utils.errors import InputError

FIXTURES = sorted(path.name for path in golden("").glob("fsq_*.npz"))
MEGABYTE = 2**20


def load(name: str) -> tuple[FSQ, dict[str, torch.Tensor]]:
    """Build the quantizer of a fixture, with its projections if it has them; return it and the fixture's arrays."""
    arrays = {key: torch.from_numpy(value) for key, value in np.load(golden(name)).items()}
    quantizer = FSQ(arrays["levels"].tolist(), dim=arrays["z"].shape[1], channel_first=True)
    names = ("project_in.weight", "project_in.bias", "project_out.weight", "project_out.bias")
    stored = {key: arrays[key.replace(".", "_")] for key in names if "project_in_weight" in arrays}
    quantizer.load_state_dict(stored)  # strict: projections only where the fixture has them
    return quantizer, arrays


def close(actual: torch.Tensor, expected: torch.Tensor, tolerance: float = 1e-4) -> None:
    torch.testing.assert_close(actual, expected, rtol=0, atol=tolerance)


# ---- golden fixtures


def test_fixtures_exist():
    assert FIXTURES


@pytest.mark.parametrize("name", FIXTURES)
def test_forward_equals_the_fixture(name):
    quantizer, arrays = load(name)
    result = quantizer(arrays["z"])
    close(result.out, arrays["out"])
    assert torch.equal(result.indices, arrays["indices"]) and torch.equal(result.tokens, arrays["indices"])
    assert result.loss.shape == () and result.loss == 0 == arrays["loss"]
    close(result.perplexity, arrays["perplexity"], 1e-3)
    close(result.active_fraction, arrays["activate"], 1e-6)


def test_the_result_unpacks_as_six_values():
    out, indices, loss, perplexity, active_fraction, tokens = result = FSQ([4, 4])(torch.randn(2, 3, 2))
    assert result == (out, indices, loss, perplexity, active_fraction, tokens) and tokens is indices


@pytest.mark.parametrize("name", FIXTURES)
def test_each_step_equals_the_fixture(name):
    quantizer, arrays = load(name)
    latent = quantizer.project_in(arrays["z"].transpose(1, 2))  # (B, N, K)
    close(quantizer.bound(latent), arrays["bounded"])
    codes = quantizer.quantize(latent)
    close(codes, arrays["codes"])
    indices = quantizer.codes_to_indices(codes)
    assert indices.dtype == torch.int64 and torch.equal(indices, arrays["indices"])
    assert torch.equal(quantizer.indices_to_level_indices(indices), arrays["level_indices"])
    close(quantizer.dequantize(indices), arrays["dequantize"])
    close(quantizer.indices_to_codes(indices), arrays["indices_to_codes"])
    close(quantizer.indices_to_codes(indices[:, :, None]), arrays["indices_to_codes_img"])
    close(quantizer.implicit_codebook[indices], arrays["codes"])
    if "codebook" in arrays:
        close(quantizer.implicit_codebook, arrays["codebook"])


@pytest.mark.parametrize("name", FIXTURES)
def test_gradients_equal_the_fixture(name):
    quantizer, arrays = load(name)
    z = arrays["z"].requires_grad_()
    (quantizer(z)[0] * arrays["w"]).sum().backward()
    close(z.grad, arrays["grad_z"])
    for key, parameter in quantizer.named_parameters():
        close(parameter.grad, arrays["grad_" + key.replace(".", "_")])


def test_state_dict_has_the_names_and_shapes_of_the_released_tokenizer():
    released = json.loads(golden("state_dict_keys.json").read_text())["HumanVQVAE"]
    config, prefix = released["config"], "vqvae.quantizer."
    quantizer = FSQ(config["levels"], dim=config["code_dim"])
    shapes = {key: list(value.shape) for key, value in quantizer.state_dict().items()}
    assert shapes == {key.removeprefix(prefix): shape for key, shape, _ in released["keys"] if key.startswith(prefix)}
    assert quantizer.codebook_size == config["codebook_size"]


# ---- vector-quantize-pytorch in its default mode, which requires levels of at least 3


@settings(max_examples=80, deadline=None)
@given(
    levels=st.lists(st.integers(3, 9), min_size=1, max_size=5),
    codebooks=st.integers(1, 3),
    keep=st.sampled_from([None, True]),
    dim=st.sampled_from([None, 7]),
    shape=st.sampled_from([(2, 5), (1, 1), (2, 3, 4), (1, 2, 3, 2)]),
    channel_first=st.booleans(),
    spread=st.sampled_from([0.3, 2.0, 20.0]),
    seed=st.integers(0, 2**31),
)
def test_equals_vector_quantize_pytorch(levels, codebooks, keep, dim, shape, channel_first, spread, seed):
    channel_first = channel_first or len(shape) > 2  # in the library, images are always channel first
    options = {"dim": dim, "num_codebooks": codebooks, "keep_num_codebooks_dim": keep, "channel_first": channel_first}
    torch.manual_seed(seed)
    library = vector_quantize_pytorch.FSQ(levels, **options)
    quantizer = FSQ(levels, **options)
    quantizer.load_state_dict(library.state_dict())
    batch, *positions = shape
    z = torch.randn((batch, quantizer.dim, *positions) if channel_first else (*shape, quantizer.dim)) * spread
    z_quantizer, z_library = z.clone().requires_grad_(), z.clone().requires_grad_()

    out, indices, *_ = quantizer(z_quantizer)
    library_out, library_indices = library(z_library)
    close(out, library_out, 1e-6)
    assert torch.equal(indices, library_indices.long())
    weight = torch.randn_like(out)
    for result in (out, library_out):
        (result * weight).sum().backward()
    close(z_quantizer.grad, z_library.grad, 1e-6)

    assert quantizer.codebook_size == library.codebook_size
    close(quantizer.implicit_codebook, library.implicit_codebook, 1e-6)
    # The library's flag also moves the channels of sequences; our result depends on the shape alone.
    library.channel_first = False
    close(quantizer.indices_to_codes(indices), library.indices_to_codes(library_indices), 1e-6)


# ---- round trips and layouts


@pytest.mark.parametrize("levels", [[2], [2, 3], [8, 5, 5, 5], [7, 4, 2, 9], [8, 8, 8, 5, 5, 5]])
def test_every_index_survives_the_round_trip(levels):
    quantizer = FSQ(levels)
    every = torch.arange(quantizer.codebook_size)
    codebook = quantizer.implicit_codebook
    assert codebook.abs().max() <= 1
    assert torch.equal(quantizer.codes_to_indices(codebook), every)
    assert torch.equal(quantizer.dequantize(every), codebook)
    assert torch.equal(quantizer.indices_to_level_indices(every)[:, 0], every % levels[0])  # the first varies fastest


@pytest.mark.parametrize("levels", [[2, 3], [8, 5, 5, 5]])
def test_every_code_can_be_reached(levels):
    """The inverse of ``bound`` yields a latent for each code, and quantizing it restores the code."""
    quantizer = FSQ(levels)
    level_counts = quantizer.levels.double()
    half = (level_counts - 1) * 1.001 / 2
    offset = torch.where(quantizer.levels % 2 == 0, 0.5, 0.0).double()
    levels_of_all = quantizer.indices_to_level_indices(torch.arange(quantizer.codebook_size))
    rounded = levels_of_all - quantizer.levels // 2
    latent = torch.atanh((rounded + offset) / half) - torch.atanh(offset / half)
    assert torch.equal(quantizer.codes_to_indices(quantizer.quantize(latent.float())), torch.arange(len(latent)))


@pytest.mark.parametrize("positions", [(6,), (3, 4), (2, 3, 4)], ids=["sequence", "image", "video"])
@pytest.mark.parametrize("dim", [None, 11], ids=["plain", "projected"])
@pytest.mark.parametrize("codebooks", [1, 2])
def test_channel_first_equals_channel_last_and_indices_decode_to_the_output(positions, dim, codebooks):
    torch.manual_seed(0)
    last = FSQ([8, 5, 4], dim=dim, num_codebooks=codebooks)
    first = FSQ([8, 5, 4], dim=dim, num_codebooks=codebooks, channel_first=True)
    first.load_state_dict(last.state_dict())
    z = torch.randn(2, *positions, last.dim)
    out, indices, *_ = last(z)
    out_first, indices_first, *_ = first(z.movedim(-1, 1))
    assert out.shape == z.shape and indices.shape == (2, *positions, *([codebooks] if codebooks > 1 else []))
    assert torch.equal(indices, indices_first)
    close(out_first, out.movedim(-1, 1), 1e-6)
    close(last.dequantize(indices), out, 1e-6)
    close(last.indices_to_codes(indices), out if len(positions) == 1 else out.movedim(-1, 1), 1e-6)


def test_codebook_axis_is_kept_if_requested():
    z = torch.randn(2, 6, 2)
    kept, dropped = FSQ([8, 5], keep_num_codebooks_dim=True), FSQ([8, 5])
    out, indices, *_ = kept(z)
    assert indices.shape == (2, 6, 1) and torch.equal(indices[..., 0], dropped(z)[1])
    assert torch.equal(kept.indices_to_codes(indices), out)  # (B, N, C) is a sequence, not an image


def test_statistics_count_distinct_codes():
    quantizer = FSQ([4, 4])
    perplexity, active = quantizer.compute_perplexity(torch.tensor([[0, 1], [2, 3]]))
    close(perplexity, torch.tensor(4.0), 1e-3)
    close(active, torch.tensor(4 / 16))
    perplexity, active = quantizer.compute_perplexity(torch.full((3, 5, 2), 7))
    close(perplexity, torch.tensor(1.0), 1e-3)
    close(active, torch.tensor(1 / 16))


def test_statistics_leave_out_padding():
    quantizer, mask = FSQ([4, 4]), torch.tensor([[True, True, False], [True, False, False]])
    indices = torch.tensor([[3, 3, 9], [5, 0, 15]])
    for ours, expected in zip(
        quantizer.compute_perplexity(indices, mask), quantizer.compute_perplexity(indices[mask]), strict=True
    ):
        close(ours, expected)


def test_statistics_can_be_disabled():
    result = FSQ([4, 4], statistics=False)(torch.randn(2, 3, 2))
    assert result.loss == 0 and result.perplexity is None and result.active_fraction is None


# ---- precision


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_quantization_is_float32_under_autocast(dtype):
    """The levels are too fine for half precision."""
    quantizer = FSQ([4001, 3000])
    z = torch.randn(2, 500, 2)
    _, expected, *_ = quantizer(z)
    with torch.autocast("cpu", dtype=dtype):
        out, indices, *_ = quantizer(z)
        assert quantizer.quantize(z.to(dtype)).dtype == torch.float32
        projected = FSQ([8, 5], dim=9)(torch.randn(2, 3, 9))[0]
    assert torch.equal(indices, expected)
    assert out.dtype == projected.dtype == torch.float32


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
@pytest.mark.parametrize("dim", [None, 9])
def test_models_and_inputs_in_other_dtypes(dtype, dim):
    torch.manual_seed(0)
    quantizer = FSQ([8, 8, 8, 5, 5, 5], dim=dim).to(dtype)
    z = torch.randn(2, 40, quantizer.dim, dtype=dtype, requires_grad=True)
    out, indices, *_ = quantizer(z)
    out.float().sum().backward()
    assert out.dtype == z.grad.dtype == dtype
    latent = quantizer.project_in(z).float()
    expected = FSQ([8, 8, 8, 5, 5, 5])(latent)[1]
    assert torch.equal(indices, expected)  # the buffer of levels is not rounded with the weights
    decoded = quantizer.dequantize(indices)
    close(decoded.to(dtype), out, 1e-2 if dtype != torch.float64 else 1e-6)


# ---- memory


def peak_bytes(function) -> int:
    """Return the peak of the bytes allocated on the CPU while ``function`` runs."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        kept = function()  # noqa: F841  the outputs live until the measurement ends
    events = sorted(profiler.profiler.kineto_results.events(), key=lambda event: event.start_ns())
    return max(accumulate(event.nbytes() for event in events if event.name() == "[memory]"), default=0)


def test_peak_bytes_measures_a_dense_one_hot():
    indices = torch.randint(0, 1000, (8192,))
    dense = peak_bytes(lambda: torch.nn.functional.one_hot(indices, 1000))
    assert dense == pytest.approx(8192 * 1000 * 8, rel=0.05)


@pytest.mark.parametrize("dim", [None, 512], ids=["plain", "projected"])
def test_memory_is_small_for_64000_codes_and_8192_tokens(dim):
    quantizer = FSQ([8, 8, 8, 5, 5, 5], dim=dim)
    z = torch.randn(256, 32, quantizer.dim, requires_grad=True)

    def step():
        results = quantizer(z)
        results[0].sum().backward()
        return results

    out, indices, *_ = step()
    outputs = [out, indices, z.grad, *(parameter.grad for parameter in quantizer.parameters())]
    outputs_size = sum(tensor.nbytes for tensor in outputs)
    z.grad = None
    quantizer.zero_grad()
    extra = peak_bytes(step) - outputs_size
    assert 0 < extra < 50 * MEGABYTE, f"{extra / MEGABYTE:.1f} MB"
    assert sum(buffer.nbytes for buffer in quantizer.buffers()) < 1024  # no stored codebook


# ---- invalid input


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"levels": []}, "at least 2"),
        ({"levels": [8, 1]}, "at least 2"),
        ({"levels": [8, 5.5]}, "whole numbers"),
        ({"levels": 8}, "whole numbers"),
        ({"levels": [16] * 16}, "below"),
        ({"levels": [8], "dim": 0}, "dim is 0"),
        ({"levels": [8], "num_codebooks": 0}, "num_codebooks is 0"),
        ({"levels": [8], "num_codebooks": 2, "keep_num_codebooks_dim": False}, "num_codebooks is 2"),
    ],
)
def test_invalid_quantizers_are_refused(arguments, message):
    with pytest.raises(InputError, match=message):
        FSQ(**arguments)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda q: q(torch.zeros(2, 5, 3)), "width 2"),
        (lambda q: q(torch.zeros(2)), "width 2"),
        (lambda q: q(torch.full((1, 3, 2), torch.nan)), "NaN"),
        (lambda q: q.quantize(torch.tensor([0.0, torch.nan])), "NaN"),
        (lambda q: q(torch.zeros(2, 0, 2)), "no indices"),
        (lambda q: q.codes_to_indices(torch.zeros(2, 3)), "width 3"),
        (lambda q: q.dequantize(torch.tensor([[0, 40]])), "index 40"),
        (lambda q: q.indices_to_codes(torch.tensor([[-1, 3]])), "index -1"),
        (lambda q: q.dequantize(torch.zeros(2, 3)), "integers"),
        (lambda q: FSQ([8, 5], num_codebooks=2).dequantize(torch.zeros(2, 3, dtype=torch.long)), "last axis"),
    ],
)
def test_invalid_input_is_refused(call, message):
    with pytest.raises(InputError, match=message):
        call(FSQ([8, 5]))


def test_infinite_latents_saturate():
    codes = FSQ([8, 5]).quantize(torch.tensor([[torch.inf, torch.inf], [-torch.inf, -torch.inf]]))
    close(codes, torch.tensor([[0.75, 1.0], [-1.0, -1.0]]))
