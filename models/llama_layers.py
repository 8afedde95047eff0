"""Layers of LLaMAHF: RMSNorm, attention with rotary positions, SwiGLU."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.kv_cache import KVWriter

NORM_EPS = 1e-5
ROPE_BASE = 10000.0
SIGNAL_DROPOUT = 0.25  # share of the positions that are trained without their control signal
CONTROL_GUIDANCE = 1.0


def rope_table(positions: Tensor, head_dim: int) -> Tensor:
    """Return the rotary factors (..., 2, 3, 1, head_dim / 2, 2) of queries, keys and values at ``positions`` (...).

    A pair (2i, 2i + 1) becomes its first number times ``[0]`` plus its second number times ``[1]``, both of width 2:
    (cos, sin) and (-sin, cos) for queries and keys; (1, 0) and (0, 1) for values, which are not rotated. As complex
    numbers, the pair is multiplied by ``[0]``.
    """
    pairs = torch.arange(0, head_dim, 2, device=positions.device)
    angles = positions[..., None].float() * ROPE_BASE ** (-pairs.float() / head_dim)  # (..., D / 2)
    angles = torch.stack((angles, angles, torch.zeros_like(angles)), dim=-2)[..., None, :]  # (..., 3, 1, D / 2)
    cos, sin = angles.cos(), angles.sin()
    return torch.stack((torch.stack((cos, sin), dim=-1), torch.stack((-sin, cos), dim=-1)), dim=-5)


def rotate(qkv: Tensor, rope: Tensor) -> Tensor:
    """Rotate queries, keys and values (B, S, 3, H, D) by rotary factors (B, S, 2, 3, 1, D / 2, 2), in float32.

    On a CPU, one product of complex numbers is fastest. Elsewhere two real products save the conversions from and to
    half precision, each of which would be a kernel.
    """
    pairs, (first, second) = qkv.unflatten(-1, (-1, 2)), rope.unbind(2)
    if qkv.device.type == "cpu" and not torch.compiler.is_compiling():
        product = torch.view_as_complex(pairs.float()) * torch.view_as_complex(first)
        return torch.view_as_real(product).flatten(-2).to(qkv.dtype)
    even, odd = pairs.split(1, dim=-1)
    rotated = None if torch.is_grad_enabled() else torch.empty_like(pairs)  # autograd takes no ``out``
    return torch.addcmul(even * first, odd, second, out=rotated).flatten(-2).to(qkv.dtype)


def stored_width(head_dim: int, dtype: torch.dtype, device: str) -> int:
    """Return the width of a head in attention and cache on a device ("cpu", "cuda", ...).

    In half precision, the fused kernels of GPUs take multiples of 8; other heads are padded with zeros.
    """
    return head_dim if device == "cpu" or dtype == torch.float32 else -(-head_dim // 8) * 8


class RMSNorm(nn.Module):
    """Root-mean-square norm over the last axis with a learned scale (Zhang & Sennrich, 2019)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        return F.rms_norm(x, self.scale.shape, self.scale, NORM_EPS)


def single_query_attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
    """Compute attention of one query (B, H, 1, D) over k and v (B, H, S, D) on a CPU, with an additive mask.

    PyTorch's kernel is slow for it in bfloat16: float32 is faster with few rows, two batched products with many.
    """
    if q.dtype == torch.float32 or len(q) < 4:
        y = F.scaled_dot_product_attention(q.float(), k.float(), v.float(), attn_mask=mask.float())
        return y.to(q.dtype)
    scores = torch.bmm(k.flatten(0, 1), q.flatten(0, 1).transpose(1, 2)).view(*k.shape[:3])  # (B, H, S)
    weights = scores.float().mul_(q.shape[-1] ** -0.5).add_(mask[:, 0]).softmax(dim=-1).to(v.dtype)
    return torch.bmm(weights.flatten(0, 1)[:, None], v.flatten(0, 1)).view(q.shape)


def add_projection(residual: Tensor, projection: nn.Module, y: Tensor, dropout: nn.Dropout) -> Tensor:
    """Return the residual stream (B, S, C) plus the projection of y, with dropout.

    Projections of ``models.optimize``, for inference, do both in one operator.
    """
    add = getattr(projection, "add", None)
    return residual + dropout(projection(y)) if add is None else add(residual, y)


class Attention(nn.Module):
    """Multi-head self-attention with rotary positions, whose result is added to the residual stream.

    ``layer`` is its index in the KV cache.
    """

    def __init__(self, width: int, heads: int, layer: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.head_dim, self.layer = heads, width // heads, layer
        self.c_attn = nn.Linear(width, 3 * width, bias=False)
        self.c_proj = nn.Linear(width, width, bias=False)
        self.dropout = nn.Dropout(dropout)

    def forward(self, residual: Tensor, x: Tensor, rope: Tensor, mask: Tensor, write: KVWriter | None) -> Tensor:
        qkv = rotate(self.c_attn(x).unflatten(-1, (3, self.heads, self.head_dim)), rope)  # (B, S, 3, H, D)
        padding = stored_width(self.head_dim, qkv.dtype, qkv.device.type) - self.head_dim
        if padding:
            qkv = F.pad(qkv, (0, padding))
        q, k, v = qkv.transpose(1, 3).unbind(2)  # (B, H, S, D) each
        if write is not None:
            k, v = write(self.layer, qkv[:, :, 1:])
        if write is not None and q.shape[2] == 1 and q.device.type == "cpu":
            y = single_query_attention(q, k, v, mask)
        else:
            y = F.scaled_dot_product_attention(q, k, v, mask, scale=self.head_dim**-0.5)
        y = y[..., : self.head_dim].transpose(1, 2).flatten(2)  # (B, S, C)
        return add_projection(residual, self.c_proj, y, self.dropout)


class MLP(nn.Module):
    """SwiGLU feed-forward network (Shazeer, 2020), whose result is added to the residual stream."""

    def __init__(self, width: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.c_fc1 = nn.Linear(width, hidden, bias=False)
        self.c_fc2 = nn.Linear(width, hidden, bias=False)
        self.c_proj = nn.Linear(hidden, width, bias=False)
        self.dropout = nn.Dropout(dropout)

    def forward(self, residual: Tensor, x: Tensor) -> Tensor:
        return add_projection(residual, self.c_proj, F.silu(self.c_fc1(x)) * self.c_fc2(x), self.dropout)


class ControlMLP(nn.Module):
    """Change hidden states (..., C) by control signals (..., W).

    It is trained on motions that were varied on purpose (``control.variations``), with the signal and without it, as
    for classifier-free guidance (Ho & Salimans, 2022). The difference of the two predictions is due to the signal: in
    evaluation, ``guidance`` times this difference is added. A signal of zeros thus changes nothing.

    At first nothing is changed at all: the last layer starts at zero, so that a trained model can be fine-tuned with
    control (as in ControlNet; Zhang et al., ICCV 2023).
    """

    def __init__(self, signal: int, width: int, dropout: float) -> None:
        super().__init__()
        self.c_fc1 = nn.Linear(width + signal, 2 * width)
        self.c_fc2 = nn.Linear(2 * width, 2 * width)
        self.c_proj = nn.Linear(2 * width, width, bias=False)
        self.dropout = nn.Dropout(dropout)
        self.guidance = CONTROL_GUIDANCE

    def reset_parameters(self) -> None:
        for layer in (self.c_fc1, self.c_fc2):
            layer.reset_parameters()
        nn.init.zeros_(self.c_proj.weight)

    def forward(self, hidden: Tensor, signal: Tensor) -> Tensor:
        signal = signal.to(hidden.dtype)
        if not self.training:
            difference = self._features(hidden, signal) - self._features(hidden, torch.zeros_like(signal))
            return hidden + self.guidance * self.c_proj(difference)
        asked = (signal != 0).any(-1, keepdim=True)  # the other rows are not varied
        kept = torch.rand(asked.shape, device=asked.device) >= SIGNAL_DROPOUT
        return hidden + self.c_proj(self._features(hidden, signal * kept)) * asked

    def _features(self, hidden: Tensor, signal: Tensor) -> Tensor:
        x = F.silu(self.c_fc1(torch.cat((hidden, signal), dim=-1)))
        return self.dropout(F.silu(self.c_fc2(self.dropout(x))))
