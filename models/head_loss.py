"""Cross entropy of a large output layer without keeping its logits.

With 64,000 codes the logits are most of the memory of a training step, and reading and writing them most of the time
beside the matrix products. Here they are made for ``ROWS`` positions at a time in the precision of the products,
turned into the gradient at once, and forgotten. PyTorch's ``linear_cross_entropy`` does the same on GPUs, but has no
bf16 products on CPUs and no z-loss.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

ROWS = 1024


class HeadLoss(torch.autograd.Function):
    """Sum of the cross entropy of ``hidden @ weight.T`` and of its z-loss; ``head_loss`` calls it."""

    @staticmethod
    def forward(ctx, hidden: Tensor, weight: Tensor, targets: Tensor, z_loss: float) -> Tensor:
        rows, outputs = max(1, min(ROWS, len(hidden))), len(weight)
        cast = weight.to(hidden.dtype)
        hidden_grad, weight_grad = torch.empty_like(hidden), torch.zeros_like(weight)
        buffers = hidden.new_empty(2, rows, outputs)
        product = torch.empty_like(cast)
        loss = torch.zeros((), device=hidden.device)
        for first in range(0, len(hidden), rows):
            part, target = hidden[first : first + rows], targets[first : first + rows]
            logits, shares = (buffer[: len(part)] for buffer in buffers)
            at_target = torch.arange(len(part), device=hidden.device), target
            torch.mm(part, cast.T, out=logits)
            torch.softmax(logits, dim=1, out=shares)
            likelihood = shares[at_target].float()  # (rows,)
            shares[at_target] = 0
            others = shares.sum(dim=1).float()  # tells what bf16 rounds away from a likelihood near 1
            likelihood = torch.where(likelihood < 0.5, likelihood, 1 - others)
            logs = likelihood.clamp(min=torch.finfo(torch.float32).tiny).log()
            loss -= logs.sum()
            if z_loss:
                log_sums = logits[at_target].float() - logs
                loss += z_loss * log_sums.square().sum()
                shares *= (1 + 2 * z_loss * log_sums)[:, None]
                others -= 2 * z_loss * log_sums * likelihood
            shares[at_target] = -others.to(shares.dtype)  # now the gradient by the logits
            torch.mm(shares, cast, out=hidden_grad[first : first + rows])
            torch.mm(shares.T, part, out=product)
            weight_grad.add_(product)
        ctx.save_for_backward(hidden_grad, weight_grad)
        return loss

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor, Tensor, None, None]:
        hidden_grad, weight_grad = ctx.saved_tensors
        return hidden_grad.mul_(grad), weight_grad.mul_(grad), None, None


def head_loss(hidden: Tensor, weight: Tensor, targets: Tensor, z_loss: float = 0.0) -> Tensor:
    """Sum over positions of the cross entropy of ``hidden @ weight.T``, and of the z-loss.

    Gradients are made along with it, so it can be differentiated once. Under autocast the products are in its
    precision.

    Args:
        hidden: (P, C). weight: (V, C). targets: (P,) int64 below V.
        z_loss: Weight of the squared log of the softmax's denominator, which keeps logits small (Chowdhery et al.,
            "PaLM", 2022).

    Returns:
        () float32.
    """
    if not torch.is_grad_enabled():
        logits = F.linear(hidden, weight).float()
        return F.cross_entropy(logits, targets, reduction="sum") + z_loss * logits.logsumexp(dim=1).square().sum()
    kind = hidden.device.type
    dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else weight.dtype
    return HeadLoss.apply(hidden.to(dtype), weight, targets, z_loss)
