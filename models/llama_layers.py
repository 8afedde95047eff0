"""Layers of LLaMAHF: RMSNorm, attention with rotary positions, SwiGLU."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.kv_cache import KVWriter

NORM_EPS = 1e-5
ROPE_BASE = 10000.0


def rope_table(positions: Tensor, head_dim: int) -> tuple[Tensor, Tensor]:
    """Return cosine and sine (B, S, 1, 1, head_dim), each twice, of the rotary angles at ``positions`` (B, S)."""
    pairs = torch.arange(head_dim, device=positions.device) // 2 * 2  # 0, 0, 2, 2, ...
    angles = positions[:, :, None, None, None].float() * ROPE_BASE ** (-pairs.float() / head_dim)
    return angles.cos(), angles.sin()


def apply_rope(x: Tensor, rope: tuple[Tensor, Tensor]) -> Tensor:
    """Rotate each interleaved pair (2i, 2i + 1) of the last axis of x (B, S, ..., head_dim); returns float32."""
    cos, sin = rope
    x = x.float()
    even, odd = x.unflatten(-1, (-1, 2)).unbind(-1)
    return torch.addcmul(x * cos, torch.stack((-odd, even), dim=-1).flatten(-2), sin)


class RMSNorm(nn.Module):
    """Root-mean-square norm over the last axis with a learned scale (Zhang & Sennrich, 2019)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        return F.rms_norm(x, self.scale.shape, self.scale, NORM_EPS)


def single_query_attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
    """Compute attention of one query (B, H, 1, D) over k and v (B, H, S, D) on a CPU.

    PyTorch's kernel is slow for it in bfloat16: float32 is faster with few rows, two batched products with many.
    """
    if q.dtype == torch.float32 or len(q) < 4:
        y = F.scaled_dot_product_attention(q.float(), k.float(), v.float(), attn_mask=mask)
        return y.to(q.dtype)
    scores = torch.bmm(k.flatten(0, 1), q.flatten(0, 1).transpose(1, 2)).view(*k.shape[:3])  # (B, H, S)
    scores = scores.float().mul_(q.shape[-1] ** -0.5).masked_fill_(~mask[:, 0], -math.inf)
    weights = scores.softmax(dim=-1).to(v.dtype)
    return torch.bmm(weights.flatten(0, 1)[:, None], v.flatten(0, 1)).view(q.shape)


class Attention(nn.Module):
    """Multi-head self-attention with rotary positions; ``layer`` is its index in the KV cache."""

    def __init__(self, width: int, heads: int, layer: int) -> None:
        super().__init__()
        self.heads, self.layer = heads, layer
        self.c_attn = nn.Linear(width, 3 * width, bias=False)
        self.c_proj = nn.Linear(width, width, bias=False)

    def forward(self, x: Tensor, rope: tuple[Tensor, Tensor], mask: Tensor, write: KVWriter | None) -> Tensor:
        qkv = self.c_attn(x).unflatten(-1, (3, self.heads, -1))  # (B, S, 3, H, D)
        qk, v = qkv.split((2, 1), dim=2)
        q, k = apply_rope(qk, rope).to(x.dtype).transpose(1, 3).unbind(2)  # (B, H, S, D) each
        v = v.squeeze(2).transpose(1, 2)  # (B, H, S, D)
        if write is not None:
            k, v = write(self.layer, k, v)
        single = q.shape[2] == 1 and q.device.type == "cpu"
        y = (single_query_attention if single else F.scaled_dot_product_attention)(q, k, v, mask)
        return self.c_proj(y.transpose(1, 2).flatten(2))  # (B, S, C)


class MLP(nn.Module):
    """SwiGLU feed-forward network (Shazeer, 2020)."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.c_fc1 = nn.Linear(width, hidden, bias=False)
        self.c_fc2 = nn.Linear(width, hidden, bias=False)
        self.c_proj = nn.Linear(hidden, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.c_proj(F.silu(self.c_fc1(x)) * self.c_fc2(x))


class ControlMLP(nn.Module):
    """Change hidden states (..., C) by control signals (..., W), where the signals are not zero.

    At first nothing is changed: the last layer starts at zero, so that a trained model can be fine-tuned with control
    (as in ControlNet; Zhang et al., ICCV 2023).
    """

    def __init__(self, signal: int, width: int, dropout: float) -> None:
        super().__init__()
        self.c_fc1 = nn.Linear(width + signal, 2 * width)
        self.c_fc2 = nn.Linear(2 * width, 2 * width)
        self.c_proj = nn.Linear(2 * width, width, bias=False)
        self.dropout = nn.Dropout(dropout)

    def reset_parameters(self) -> None:
        for layer in (self.c_fc1, self.c_fc2):
            layer.reset_parameters()
        nn.init.zeros_(self.c_proj.weight)

    def forward(self, hidden: Tensor, signal: Tensor) -> Tensor:
        asked = (signal != 0).any(-1, keepdim=True)
        x = F.silu(self.c_fc1(torch.cat((hidden, signal.to(hidden.dtype)), dim=-1)))
        x = F.silu(self.c_fc2(self.dropout(x)))
        return hidden + self.c_proj(self.dropout(x)) * asked
