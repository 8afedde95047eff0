"""Loss of a large output layer, compared with PyTorch's cross entropy in float64."""

import pytest
import torch
import torch.nn.functional as F

from models import head_loss
from models.llama import LLaMAHF
from models.llama_config import SIZES, LLaMAConfig


def expected(hidden, weight, targets, z_loss):
    """Loss and gradients in float64."""
    hidden, weight = hidden.detach().double().requires_grad_(), weight.detach().double().requires_grad_()
    logits = hidden @ weight.T
    loss = F.cross_entropy(logits, targets, reduction="sum") + z_loss * logits.logsumexp(dim=1).square().sum()
    return loss.detach(), *torch.autograd.grad(loss / len(hidden), (hidden, weight))


def errors(loss, hidden, weight, exact):
    """Relative errors of loss and gradients, after the backward pass."""
    pairs = zip((loss, hidden.grad, weight.grad), exact, strict=True)
    return [float((ours.detach() - right).norm() / right.norm()) for ours, right in pairs]


@pytest.mark.parametrize("z_loss", [0.0, 0.01])
@pytest.mark.parametrize("scale", [1.0, 8.0], ids=["uniform", "peaked"])
@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16], ids=["float32", "bf16"])
def test_head_loss_is_as_exact_as_cross_entropy_of_all_logits(monkeypatch, precision, scale, z_loss):
    monkeypatch.setattr(head_loss, "ROWS", 16)
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(300, 24, generator=generator).bfloat16().float().requires_grad_()
    targets = torch.randint(0, 300, (50,), generator=generator)
    hidden = (scale * weight.detach()[targets] / 5 + 0.1 * torch.randn(50, 24, generator=generator)).bfloat16().float()
    hidden.requires_grad_()
    exact = expected(hidden, weight, targets, z_loss)
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == torch.bfloat16):
        logits = F.linear(hidden, weight).float()
        plain = F.cross_entropy(logits, targets, reduction="sum") + z_loss * logits.logsumexp(dim=1).square().sum()
        (plain / 50).backward()
        bounds = errors(plain, hidden, weight, exact)
        hidden.grad = weight.grad = None
        loss = head_loss.head_loss(hidden, weight, targets, z_loss)
    (loss / 50).backward()
    assert loss.dtype == hidden.grad.dtype == weight.grad.dtype == torch.float32
    for ours, bound in zip(errors(loss, hidden, weight, exact), bounds, strict=True):
        assert ours < 1.3 * bound + (2e-6 if precision == torch.float32 else 2e-3)
    with torch.no_grad():
        assert head_loss.head_loss(hidden, weight, targets, z_loss).item() == pytest.approx(exact[0].item(), rel=1e-5)


def test_positions_without_a_target_are_ignored(monkeypatch):
    monkeypatch.setattr(head_loss, "ROWS", 4)
    torch.manual_seed(0)
    hidden, weight, targets = torch.randn(9, 5, requires_grad=True), torch.randn(7, 5), torch.randint(7, (9,))
    targets[[0, 5, 6]] = head_loss.IGNORED
    weight.requires_grad_()
    kept = targets != head_loss.IGNORED
    results = []
    for own, own_targets in ((hidden, targets), (hidden[kept], targets[kept])):
        loss = head_loss.head_loss(own, weight, own_targets, 0.01)
        with torch.no_grad():
            torch.testing.assert_close(head_loss.head_loss(own, weight, own_targets, 0.01), loss)
        results.append((loss, *torch.autograd.grad(loss, (hidden, weight))))
    torch.testing.assert_close(*results)


def test_head_loss_without_targets_is_zero():
    hidden, weight = torch.randn(0, 4, requires_grad=True), torch.randn(9, 4, requires_grad=True)
    loss = head_loss.head_loss(hidden, weight, torch.zeros(0, dtype=torch.long))
    loss.backward()
    assert loss == 0 and not weight.grad.any() and hidden.grad.shape == (0, 4)


@pytest.mark.parametrize("tie_weights", [False, True])
def test_training_loss_equals_cross_entropy_of_the_logits(tie_weights):
    torch.manual_seed(0)
    config = LLaMAConfig(50, 6, "none", 4, 9, **SIZES["debug"], tie_weights=tie_weights)
    model = LLaMAHF(config)
    text, mask = torch.randn(3, 4, 6), torch.ones(3, 4, dtype=torch.bool)
    tokens = torch.randint(0, 50, (3, 9))
    tokens[1, 5:] = config.pad_id
    targets = model.next_tokens(tokens)
    kept = targets != config.pad_id
    loss = F.cross_entropy(model(text, mask, tokens)[kept], targets[kept])
    expected = torch.autograd.grad(loss, list(model.parameters()))
    ours = model(text, mask, tokens, targets)
    torch.testing.assert_close(ours, loss)
    for gradient, exact in zip(torch.autograd.grad(ours, list(model.parameters())), expected, strict=True):
        torch.testing.assert_close(gradient, exact, atol=1e-6, rtol=1e-4)
    halves = [
        model(text[rows], mask[rows], tokens[rows], targets[rows], kept.sum()) for rows in (slice(1), slice(1, 3))
    ]
    torch.testing.assert_close(sum(halves), loss)
    large = model(text, mask, tokens, targets, z_loss=0.1)
    extra = 0.1 * model(text, mask, tokens)[kept].logsumexp(dim=-1).square().mean()
    torch.testing.assert_close(large, loss + extra)
