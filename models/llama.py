"""LLaMAHF: a LLaMA decoder that reads text features and writes motion tokens.

One row of a sequence is ``[text features, motion tokens, end]``. Attention is full inside the text and causal after it;
rotary positions run from 0 at the first text feature through the last token without a gap. In a batch, texts of any
length stand directly before the tokens (padding on the left, never attended): all rows write their tokens in the same
columns, and each gets what it would get alone.

Architecture and parameter names are those of MotionMillion-Codes' LLaMAHF (after lit-llama), so that its weights load
directly: pre-norm blocks, RMSNorm, rotary embedding on interleaved pairs (Su et al., 2021), SwiGLU (Shazeer, 2020).
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from utils.checkpoint import PretrainedModel
from utils.errors import InputError

NORM_EPS = 1e-5
ROPE_BASE = 10000.0

# Keyword arguments of LLaMAConfig by size. 44M to 7B are the public table of MotionMillion-Codes.
SIZES = {
    name: {"n_layer": n_layer, "n_head": n_head, "n_embd": n_embd}
    for name, n_layer, n_head, n_embd in (
        ("debug", 2, 2, 32),
        ("demo", 6, 8, 256),
        ("44M", 8, 8, 512),
        ("111M", 12, 12, 768),
        ("343M", 24, 16, 1024),
        ("775M", 36, 20, 1280),
        ("1B", 48, 24, 1536),
        ("3B", 24, 32, 3200),
        ("5B", 24, 32, 4096),
        ("7B", 36, 32, 4096),
    )
}


@dataclass
class LLaMAConfig:
    """Everything that defines a LLaMAHF; contradictions raise InputError."""

    codebook_size: int
    """Motion token ids are 0 .. codebook_size - 1: the product of the tokenizer's FSQ levels."""
    text_dim: int
    """Width of the text features."""
    text_encoder: str
    """Name of the text encoder that the model is trained with."""
    text_length: int
    """Most text features a row may have."""
    max_tokens: int
    """Most motion tokens a row may have, end not counted."""
    n_layer: int
    """Number of transformer blocks."""
    n_head: int
    """Attention heads a block."""
    n_embd: int
    """Width of the model: n_head times an even head width."""
    dropout: float = 0.0
    """Dropout of the embeddings and of what each block adds, in training."""
    text_dropout: float = 0.0
    """Share of training rows whose text becomes the null text; above 0, classifier-free guidance is possible."""
    tokenizer: str = ""
    """Fingerprint of the tokenizer whose tokens the model was trained on (``utils.checkpoint.fingerprint``)."""
    tie_weights: bool = False
    """Use the token embedding as output matrix (which then has an unused output for the pad id)."""

    def __post_init__(self) -> None:
        for name in ("codebook_size", "text_dim", "text_length", "max_tokens", "n_layer", "n_head", "n_embd"):
            if getattr(self, name) < 1:
                raise InputError(f"LLaMAConfig.{name} is {getattr(self, name)}; give a number of at least 1")
        for name in ("dropout", "text_dropout"):
            if not 0 <= getattr(self, name) < 1:
                raise InputError(f"LLaMAConfig.{name} is {getattr(self, name)}; give a share of at least 0 and below 1")
        if self.n_embd % (2 * self.n_head):
            raise InputError(
                f"LLaMAConfig.n_embd is {self.n_embd}, which does not split into {self.n_head} heads of "
                "even width; make it a multiple of twice n_head"
            )

    @property
    def end_id(self) -> int:
        """Token id that ends a motion."""
        return self.codebook_size

    @property
    def pad_id(self) -> int:
        """Token id that fills rows up on the right; never predicted."""
        return self.codebook_size + 1

    @property
    def vocab_size(self) -> int:
        """Rows of the token embedding: motion ids, end, pad."""
        return self.codebook_size + 2

    @property
    def block_size(self) -> int:
        """Longest sequence: text and motion tokens together."""
        return self.text_length + self.max_tokens

    @property
    def head_dim(self) -> int:
        """Width of one attention head."""
        return self.n_embd // self.n_head

    @property
    def mlp_hidden(self) -> int:
        """Hidden width of the SwiGLU: 8/3 of the model's, rounded up to a multiple of 256."""
        return 256 * math.ceil((8 * self.n_embd // 3) / 256)


def null_text(text: Tensor) -> tuple[Tensor, Tensor]:
    """The text of no text, one zero feature (so that the bias of ``llama_proj`` is learned as its embedding).

    Args:
        text: (B, L, D) features, of which only shape, dtype and device matter.
    Returns:
        text (B, L, D) of zeros and its mask (B, L), true in the first column.
    """
    mask = torch.zeros(text.shape[:2], dtype=torch.bool, device=text.device)
    mask[:, 0] = True
    return torch.zeros_like(text), mask


def drop_text(
    text: Tensor, text_mask: Tensor, p: float, generator: torch.Generator | None = None
) -> tuple[Tensor, Tensor]:
    """Replace each row's text by the null text with probability ``p`` (for guidance; Ho & Salimans, 2022).

    Args:
        text: (B, L, D). text_mask: (B, L) bool. generator: on the CPU, for reproducible drops.
    Returns:
        new text and text_mask.
    """
    drop = (torch.rand(len(text), generator=generator) < p).to(text.device)
    null, null_mask = null_text(text)
    return torch.where(drop[:, None, None], null, text), torch.where(drop[:, None], null_mask, text_mask)


class KVCache:
    """Keys and values of all layers, allocated once; columns ``0 .. length - 1`` are filled.

    Args:
        config: of the model. batch: rows. columns: longest sequence, text and tokens together.
    """

    def __init__(self, config: LLaMAConfig, batch: int, columns: int, device: torch.device, dtype: torch.dtype) -> None:
        shape = (config.n_layer, batch, config.n_head, columns, config.head_dim)
        self.keys = torch.zeros(shape, device=device, dtype=dtype)
        self.values = torch.zeros(shape, device=device, dtype=dtype)
        self.visible = torch.ones(batch, columns, dtype=torch.bool, device=device)  # false where a row has left padding
        self.positions = torch.zeros(batch, dtype=torch.long, device=device)  # rotary position of each row's next token
        self.length = 0

    def append(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Write (B, H, S, head_dim) behind the filled columns; give back views of that layer, new columns included."""
        end = self.length + keys.shape[2]
        self.keys[layer, :, :, self.length : end] = keys
        self.values[layer, :, :, self.length : end] = values
        return self.keys[layer, :, :, :end], self.values[layer, :, :, :end]

    def select(self, rows: Tensor) -> None:
        """Keep only ``rows`` (n,), in that order and in place; rows that stand where they belong are not copied."""
        slots = torch.arange(len(rows), device=rows.device)
        moved = rows != slots
        slots, sources = slots[moved], rows[moved]
        for store in (self.keys, self.values):
            store[:, slots, :, : self.length] = store[:, sources, :, : self.length]
        self.keys, self.values = self.keys[:, : len(rows)], self.values[:, : len(rows)]
        self.visible, self.positions = self.visible[rows], self.positions[rows]


def rope_table(positions: Tensor, head_dim: int) -> tuple[Tensor, Tensor]:
    """Cosine and sine (B, S, 1, 1, head_dim / 2) of the rotary angles at ``positions`` (B, S), in float32."""
    even = torch.arange(0, head_dim, 2, dtype=torch.float32, device=positions.device)
    angles = positions[:, :, None, None, None].float() * ROPE_BASE ** (-even / head_dim)
    return angles.cos(), angles.sin()


def rotate(x: Tensor, rope: tuple[Tensor, Tensor]) -> Tensor:
    """Turn each interleaved pair (2i, 2i + 1) of the last axis of x (B, S, ..., head_dim) by its rotary angle."""
    cos, sin = rope
    even, odd = x.float().unflatten(-1, (-1, 2)).unbind(-1)
    return torch.stack((even * cos - odd * sin, even * sin + odd * cos), dim=-1).flatten(-2).to(x.dtype)


class RMSNorm(nn.Module):
    """Root-mean-square norm over the last axis with a learned scale (Zhang & Sennrich, 2019)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        return F.rms_norm(x, self.scale.shape, self.scale, NORM_EPS)


class Attention(nn.Module):
    """Multi-head self-attention with rotary positions."""

    def __init__(self, config: LLaMAConfig, layer: int) -> None:
        super().__init__()
        self.n_head, self.layer = config.n_head, layer
        self.c_attn = nn.Linear(config.n_embd, 3 * config.n_embd, bias=False)
        self.c_proj = nn.Linear(config.n_embd, config.n_embd, bias=False)

    def forward(self, x: Tensor, rope: tuple[Tensor, Tensor], attend: Tensor, cache: KVCache | None) -> Tensor:
        qkv = self.c_attn(x).unflatten(-1, (3, self.n_head, -1))  # (B, S, 3, H, D)
        qk, v = qkv.split((2, 1), dim=2)
        q, k = rotate(qk, rope).transpose(1, 3).unbind(2)  # (B, H, S, D) each
        v = v.squeeze(2).transpose(1, 2)  # (B, H, S, D)
        if cache is not None:
            k, v = cache.append(self.layer, k, v)
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=attend)
        return self.c_proj(y.transpose(1, 2).flatten(2))  # (B, S, C)


class MLP(nn.Module):
    """SwiGLU."""

    def __init__(self, config: LLaMAConfig) -> None:
        super().__init__()
        self.c_fc1 = nn.Linear(config.n_embd, config.mlp_hidden, bias=False)
        self.c_fc2 = nn.Linear(config.n_embd, config.mlp_hidden, bias=False)
        self.c_proj = nn.Linear(config.mlp_hidden, config.n_embd, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.c_proj(F.silu(self.c_fc1(x)) * self.c_fc2(x))


class Block(nn.Module):
    """Pre-norm transformer block."""

    def __init__(self, config: LLaMAConfig, layer: int) -> None:
        super().__init__()
        self.rms_1 = RMSNorm(config.n_embd)
        self.attn = Attention(config, layer)
        self.rms_2 = RMSNorm(config.n_embd)
        self.mlp = MLP(config)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor, rope: tuple[Tensor, Tensor], attend: Tensor, cache: KVCache | None) -> Tensor:
        x = x + self.dropout(self.attn(self.rms_1(x), rope, attend, cache))
        return x + self.dropout(self.mlp(self.rms_2(x)))


class LLaMAHF(PretrainedModel):
    """Text features and the motion tokens so far in, logits of the next motion token out."""

    def __init__(self, config: LLaMAConfig) -> None:
        super().__init__()
        self.config = config
        outputs = config.vocab_size if config.tie_weights else config.vocab_size - 1  # pad is never predicted
        self.lm_head = nn.Linear(config.n_embd, outputs, bias=False)
        self.transformer = nn.ModuleDict(
            {
                "wte": nn.Embedding(config.vocab_size, config.n_embd),
                "h": nn.ModuleList(Block(config, layer) for layer in range(config.n_layer)),
                "ln_f": RMSNorm(config.n_embd),
            }
        )
        self.llama_proj = nn.Linear(config.text_dim, config.n_embd)
        self.dropout = nn.Dropout(config.dropout)
        self.apply(self._init_weights)
        if config.tie_weights:
            self.lm_head.weight = self.transformer.wte.weight

    def _init_weights(self, module: nn.Module) -> None:
        """Normal weights, the two projections into the residual stream scaled down with depth (GPT-2)."""
        if isinstance(module, nn.Linear | nn.Embedding):
            nn.init.normal_(module.weight, std=0.02)
        if isinstance(module, nn.Linear) and module.bias is not None:
            nn.init.zeros_(module.bias)
        if isinstance(module, Attention | MLP):  # apply() comes to a module after its children
            nn.init.normal_(module.c_proj.weight, std=0.02 / math.sqrt(2 * self.config.n_layer))

    def forward(self, text: Tensor, text_mask: Tensor, tokens: Tensor, targets: Tensor | None = None) -> Tensor:
        """Logits of each motion token given the text and the tokens before it, or the training loss.

        Args:
            text: (B, L, text_dim) features; which side is padded does not matter, and padding is never looked at.
            text_mask: (B, L) bool, true for features; at least one a row (see ``null_text``).
            tokens: (B, N) int64 motion tokens, filled up with pad_id on the right; N may be 0.
            targets: (B, N + 1) int64, pad_id where nothing is to be predicted (see ``next_tokens``).
        Returns:
            logits (B, N + 1, vocab_size - 1), or vocab_size with tied weights: column i predicts motion token i, the
            first from the text alone. With targets: their mean cross entropy, (), with the head computed only where
            there is one.
        Raises:
            InputError: text or tokens are too long for the model, or the text has another width.
        """
        hidden = self.hidden(text, text_mask, tokens)[:, text.shape[1] - 1 :]  # (B, N + 1, C)
        if targets is None:
            return self.lm_head(hidden)
        kept = targets != self.config.pad_id
        return F.cross_entropy(self.lm_head(hidden[kept]).float(), targets[kept])

    def next_tokens(self, tokens: Tensor) -> Tensor:
        """Targets (B, N + 1) of tokens (B, N): the tokens themselves, end_id after each row's last one, then pad_id."""
        targets = F.pad(tokens, (0, 1), value=self.config.pad_id)
        lengths = (tokens != self.config.pad_id).sum(dim=1, keepdim=True)
        return targets.scatter(1, lengths, self.config.end_id)

    def loss(self, text: Tensor, text_mask: Tensor, tokens: Tensor) -> Tensor:
        """Mean cross entropy () of predicting ``tokens`` and the end after them; arguments as in ``forward``."""
        return self(text, text_mask, tokens, self.next_tokens(tokens))

    def hidden(self, text: Tensor, text_mask: Tensor, tokens: Tensor) -> Tensor:
        """Final states (B, L + N, n_embd) of all columns: text aligned right, tokens; arguments as in ``forward``."""
        return self._transform(*self._embed(text, text_mask, tokens))

    def new_cache(self, batch: int, columns: int) -> KVCache:
        """An empty cache for ``batch`` rows of at most ``columns`` text and token columns."""
        weight = self.lm_head.weight
        return KVCache(self.config, batch, columns, weight.device, weight.dtype)

    def prefill(self, text: Tensor, text_mask: Tensor, cache: KVCache) -> Tensor:
        """Read the text into ``cache`` (from column 0); logits (B, outputs) of the first motion token."""
        no_tokens = torch.empty(len(text), 0, dtype=torch.long, device=text.device)
        x, positions, attend = self._embed(text, text_mask, no_tokens)
        cache.length = 0
        cache.visible.fill_(True)
        cache.visible[:, : text.shape[1]] = attend[:, 0, -1]  # the last text feature sees the whole text
        cache.positions = positions[:, -1] + 1
        return self.lm_head(self._transform(x, positions, attend, cache)[:, -1])

    def step(self, tokens: Tensor, cache: KVCache) -> Tensor:
        """Append one token a row, (B,), to ``cache``; logits (B, outputs) of the next."""
        attend = cache.visible[:, None, None, : cache.length + 1]
        x = self.transformer.wte(tokens)[:, None]  # (B, 1, C)
        hidden = self._transform(x, cache.positions[:, None], attend, cache)
        cache.positions = cache.positions + 1
        return self.lm_head(hidden[:, 0])

    def _embed(self, text: Tensor, text_mask: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Embeddings (B, S, C) of text, moved right, and tokens; positions (B, S); who sees whom (B, 1, S, S)."""
        self._check_sizes(text, tokens)
        order = text_mask.to(torch.uint8).argsort(dim=1, stable=True)  # padding first, features in their order
        is_text = text_mask.gather(1, order)  # (B, L)
        text = text.masked_fill(~text_mask[:, :, None], 0).gather(1, order[:, :, None].expand_as(text))
        text = self.llama_proj(text.to(self.llama_proj.weight.dtype))
        x = torch.cat((text, self.transformer.wte(tokens)), dim=1)  # (B, S, C), S = L + N

        visible = F.pad(is_text, (0, tokens.shape[1]), value=True)  # (B, S)
        is_text = F.pad(is_text, (0, tokens.shape[1]), value=False)
        positions = (visible.cumsum(dim=1) - 1).clamp(min=0)
        itself = torch.eye(x.shape[1], dtype=torch.bool, device=x.device)  # so that padding has a defined softmax
        causal = torch.ones_like(itself).tril()
        attend = (causal | (is_text[:, :, None] & is_text[:, None, :])) & visible[:, None, :] | itself  # (B, S, S)
        return self.dropout(x), positions, attend[:, None]

    def _check_sizes(self, text: Tensor, tokens: Tensor) -> None:
        config = self.config
        if text.shape[2] != config.text_dim:
            raise InputError(
                f"text features are {text.shape[2]} wide but the model takes {config.text_dim}; "
                f"encode the text with {config.text_encoder}"
            )
        for what, count, most in (
            ("text features", text.shape[1], config.text_length),
            ("motion tokens", tokens.shape[1], config.max_tokens),
        ):
            if count > most:
                raise InputError(f"a row has {count} {what} but the model takes at most {most}; shorten it")

    def _transform(self, x: Tensor, positions: Tensor, attend: Tensor, cache: KVCache | None = None) -> Tensor:
        """All blocks and the last norm on x (B, S, C) at ``positions`` (B, S)."""
        rope = rope_table(positions, self.config.head_dim)
        for block in self.transformer.h:
            x = block(x, rope, attend, cache)
        if cache is not None:
            cache.length += x.shape[1]
        return self.transformer.ln_f(x)
