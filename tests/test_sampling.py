"""Sampling: distributions of temperature, top-k and top-p, the edges of random numbers, and invalid settings."""

import math

import pytest
import torch
from torch import Tensor

from models.sampling import BELOW_ONE, Sampler, Sampling, sample_tokens, uniform_numbers
from utils.errors import InputError

GRID = 20_000


def shares(logits: Tensor, sampling: Sampling) -> Tensor:
    """Sampled distribution (V,), exact to 1 / GRID: the share of an even grid of uniforms per token."""
    uniforms = (torch.arange(GRID) + 0.5) / GRID
    sampler = Sampler.of(sampling, "cpu")
    return sample_tokens(logits.expand(GRID, -1), uniforms, sampler).bincount(minlength=len(logits)) / GRID


LOGITS = torch.tensor([0.3, -1.0, 2.0, 1.2, -math.inf, 0.9])


@pytest.mark.parametrize("temperature", [1.0, 0.5, 3.0])
def test_temperature_scales_the_logits(temperature):
    expected = (LOGITS / temperature).softmax(-1)
    torch.testing.assert_close(shares(LOGITS, Sampling(temperature=temperature)), expected, atol=2e-4, rtol=0)


def test_greedy_and_tiny_temperature_select_the_most_likely_token():
    for sampling in (Sampling(temperature=0), Sampling(temperature=1e-9), Sampling(top_k=1), Sampling(top_p=1e-6)):
        assert shares(LOGITS, sampling).tolist() == [0, 0, 1, 0, 0, 0]


def test_top_k_keeps_the_k_most_likely_tokens():
    kept = torch.tensor([False, False, True, True, False, True])
    expected = LOGITS.masked_fill(~kept, -math.inf).softmax(-1)
    torch.testing.assert_close(shares(LOGITS, Sampling(top_k=3)), expected, atol=2e-4, rtol=0)
    assert shares(LOGITS, Sampling(top_k=100)).equal(shares(LOGITS, Sampling()))


def test_top_p_keeps_the_smallest_set_that_reaches_p():
    probabilities = torch.tensor([0.15, 0.5, 0.05, 0.3])
    for top_p, kept in ((0.4, [1]), (0.6, [1, 3]), (0.79, [1, 3]), (0.81, [0, 1, 3]), (0.96, [0, 1, 2, 3])):
        expected = torch.zeros(4)
        expected[kept] = probabilities[kept] / probabilities[kept].sum()
        torch.testing.assert_close(shares(probabilities.log(), Sampling(top_p=top_p)), expected, atol=2e-4, rtol=0)


def test_top_p_applies_after_top_k():
    probabilities = torch.tensor([0.4, 0.3, 0.2, 0.1])  # of the first three: 0.44, 0.33, 0.22
    assert shares(probabilities.log(), Sampling(top_k=3, top_p=0.75)).gt(0).tolist() == [True, True, False, False]


def test_extreme_uniforms_never_sample_an_impossible_token():
    logits = torch.tensor([-math.inf, 0.0, -math.inf, 0.5, -math.inf]).expand(2, -1)
    uniforms = torch.tensor([0.0, BELOW_ONE])
    for sampling in (Sampling(), Sampling(top_k=2, top_p=0.99)):
        assert sample_tokens(logits, uniforms, Sampler.of(sampling, "cpu")).tolist() == [1, 3]
    totals = torch.tensor([1.0, 1 + 2.0**-23, 1.5, 2 - 2.0**-23])
    assert (totals * BELOW_ONE < totals).all() and uniform_numbers(0, 1000).max() <= BELOW_ONE


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"temperature": -0.1}, "temperature is -0.1"),
        ({"temperature": math.nan}, "temperature is nan"),
        ({"temperature": 1e-300}, "temperature is 1e-300"),
        ({"temperature": 1e308}, "temperature is 1e[+]308"),
        ({"temperature": math.inf}, "temperature is inf"),
        ({"top_k": -1}, "top_k is -1"),
        ({"top_p": 0.0}, "top_p is 0.0"),
        ({"top_p": 1.1}, "top_p is 1.1"),
        ({"top_p": 5e-324}, "top_p is 5e-324"),
        ({"guidance": math.inf}, "guidance is inf"),
        ({"guidance": 1e308}, "guidance is 1e[+]308"),
        ({"min_tokens": 0}, "min_tokens is 0"),
        ({"min_tokens": 5, "max_tokens": 4}, "max_tokens is 4, below min_tokens"),
    ],
)
def test_invalid_sampling_raises(settings, message):
    with pytest.raises(InputError, match=message):
        Sampling(**settings)
