"""Cross entropy of a large output layer without storing its logits.

With 64,000 codes the logits take most of the memory of a training step, and most of its time besides the matrix
products. Here the logits of ``ROWS`` positions at a time are computed in the precision of the products, turned into the
gradient, and discarded. PyTorch's ``linear_cross_entropy`` does the same on GPUs, but lacks bf16 products on CPUs and
the z-loss.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

ROWS = 1024  # positions per chunk
IGNORED = -1  # target of a position without one


class HeadLoss(torch.autograd.Function):
    """Sum of cross entropy and z-loss of the logits ``hidden @ weight.T``; see ``head_loss``."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, targets: Tensor, z_loss: float) -> Tensor:
        rows, outputs = max(1, min(ROWS, len(hidden))), len(weight)
        cast = weight.to(hidden.dtype)
        hidden_grad = torch.empty_like(hidden)
        weight_grad = torch.zeros_like(weight) if ctx.needs_input_grad[1] else None
        buffers = hidden.new_empty(2, rows, outputs)
        product = torch.empty_like(cast)
        loss = torch.zeros((), device=hidden.device)
        for first in range(0, len(hidden), rows):
            chunk, target = hidden[first : first + rows], targets[first : first + rows]
            logits, probs = (buffer[: len(chunk)] for buffer in buffers)
            counted = target != IGNORED
            at_target = torch.arange(len(chunk), device=hidden.device), target.clamp(min=0)
            torch.mm(chunk, cast.T, out=logits)
            torch.softmax(logits, dim=1, out=probs)
            prob_target = probs[at_target].float()  # (rows,)
            probs[at_target] = 0
            prob_others = probs.sum(dim=1).float()  # keeps the distance from 1, which bf16 rounds away
            prob_target = torch.where(prob_target < 0.5, prob_target, 1 - prob_others)
            log_prob = prob_target.clamp(min=torch.finfo(torch.float32).tiny).log()
            loss -= (log_prob * counted).sum()
            if z_loss:
                log_sum_exp = logits[at_target].float() - log_prob
                loss += z_loss * (log_sum_exp.square() * counted).sum()
                probs *= (1 + 2 * z_loss * log_sum_exp)[:, None]
                prob_others -= 2 * z_loss * log_sum_exp * prob_target
            probs[at_target] = -prob_others.to(probs.dtype)  # the gradient with respect to the logits
            torch.mm(probs, cast, out=hidden_grad[first : first + rows])
            hidden_grad[first : first + rows] *= counted[:, None]
            if weight_grad is not None:
                weight_grad.add_(torch.mm(probs.T, chunk * counted[:, None], out=product))
        ctx.save_for_backward(hidden_grad, weight_grad)
        return loss

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor | None, None, None]:
        hidden_grad, weight_grad = ctx.saved_tensors
        return hidden_grad.mul_(grad), None if weight_grad is None else weight_grad.mul_(grad), None, None


def head_loss(hidden: Tensor, weight: Tensor, targets: Tensor, z_loss: float = 0.0) -> Tensor:
    """Return the sum over positions of the cross entropy of the logits ``hidden @ weight.T``, and of their z-loss.

    The forward pass computes the gradients too, so the loss can be differentiated only once. Under autocast the
    products are in its precision.

    Args:
        hidden: (P, C).
        weight: (V, C).
        targets: (P,) int64 below V, or ``IGNORED``.
        z_loss: Weight of the squared log of the softmax's denominator, which keeps logits small (Chowdhery et al.,
            "PaLM", 2022).

    Returns:
        () float32.
    """
    if not torch.is_grad_enabled():
        logits = F.linear(hidden, weight).float()
        squares = logits.logsumexp(dim=1).square() * (targets != IGNORED)
        return F.cross_entropy(logits, targets, ignore_index=IGNORED, reduction="sum") + z_loss * squares.sum()
    device = hidden.device.type
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else weight.dtype
    return HeadLoss.apply(hidden.to(dtype), weight, targets, z_loss)
