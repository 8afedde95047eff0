"""LLaMAHF: a LLaMA decoder that reads text features and writes motion tokens.

One row of a sequence is ``[text features, motion tokens, end]``. Attention is full inside the text and causal after it;
rotary positions run from 0 at the first text feature through the last token without a gap. In a batch, texts of any
length stand directly before the tokens (padding on the left, never attended): all rows write their tokens in the same
columns, and each gets what it would get alone.

Architecture and parameter names are those of MotionMillion-Codes' LLaMAHF (after lit-llama), so that its weights load
directly: pre-norm blocks, RMSNorm, rotary embedding on interleaved pairs (Su et al., 2021), SwiGLU (Shazeer, 2020).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.head_loss import head_loss
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
    """Keys and values of all layers, allocated once; row i has filled the columns ``starts[i] .. lengths[i] - 1``.

    Rows fill independently of each other, so that a row can be replaced by another one at any step.

    Args:
        config: of the model. rows: how many there can be. columns: longest sequence, text and tokens together.
    """

    GRAIN = 8  # attention looks at a multiple of so many columns: few different shapes

    def __init__(self, config: LLaMAConfig, rows: int, columns: int, device: torch.device, dtype: torch.dtype) -> None:
        shape = (config.n_layer, rows, config.n_head, columns, config.head_dim)
        self.keys = torch.zeros(shape, device=device, dtype=dtype)
        self.values = torch.zeros(shape, device=device, dtype=dtype)
        self.starts = torch.zeros(rows, dtype=torch.long, device=device)  # padding to the left of the text
        self.lengths = torch.zeros(rows, dtype=torch.long, device=device)
        self.columns = torch.arange(columns, device=device)

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return len(self.lengths), len(self.columns)

    def fill(self, first: int) -> "Store":
        """Where a prefill of (B, S) columns goes: rows ``first .. first + B - 1``, from column 0; it sees itself."""

        def store(layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
            rows, end = slice(first, first + len(keys)), keys.shape[2]
            self.keys[layer, rows, :, :end] = keys
            self.values[layer, rows, :, :end] = values
            return keys, values

        return store

    def append(self, rows: int, extent: int) -> "Store":
        """Where one new column of each of the first ``rows`` rows goes; it sees the first ``extent`` columns."""
        index, lengths = torch.arange(rows, device=self.lengths.device), self.lengths[:rows]

        def store(layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
            all_keys, all_values = self.keys[layer, :rows], self.values[layer, :rows]
            all_keys[index, :, lengths] = keys[:, :, 0]
            all_values[index, :, lengths] = values[:, :, 0]
            return all_keys[:, :, :extent], all_values[:, :, :extent]

        return store

    def extent(self, rows: int) -> int:
        """Columns that the next step of the first ``rows`` rows has to look at."""
        needed = int(self.lengths[:rows].max()) + 1
        return min(-(-needed // self.GRAIN) * self.GRAIN, len(self.columns))

    def select(self, rows: list[int]) -> None:
        """Move ``rows`` to the front, in that order; rows that stand where they belong are not copied."""
        moved = [(slot, row) for slot, row in enumerate(rows) if slot != row]
        if moved:
            slots, sources = torch.tensor(moved, device=self.lengths.device).unbind(dim=1)
            end = int(self.lengths[sources].max())
            for store in (self.keys, self.values):
                store[:, slots, :, :end] = store[:, sources, :, :end]
            self.starts[slots], self.lengths[slots] = self.starts[sources], self.lengths[sources]


Store = Callable[[int, Tensor, Tensor], tuple[Tensor, Tensor]]
"""Keeps a layer's new keys and values (B, H, S, head_dim); gives back those that attention looks at."""


def rope_table(positions: Tensor, head_dim: int) -> tuple[Tensor, Tensor]:
    """Cosine and sine (B, S, 1, 1, head_dim), each angle twice, of the rotary angles at ``positions`` (B, S)."""
    pairs = torch.arange(head_dim, device=positions.device) // 2 * 2  # 0, 0, 2, 2, ...
    angles = positions[:, :, None, None, None].float() * ROPE_BASE ** (-pairs.float() / head_dim)
    return angles.cos(), angles.sin()


def rotate(x: Tensor, rope: tuple[Tensor, Tensor]) -> Tensor:
    """Turn each interleaved pair (2i, 2i + 1) of the last axis of x (B, S, ..., head_dim) by its rotary angle.

    Computed and given back in float32.
    """
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


def attend_one_on_cpu(q: Tensor, k: Tensor, v: Tensor, attend: Tensor) -> Tensor:
    """Attention of one query (B, H, 1, D) over k and v (B, H, S, D).

    PyTorch's own is slow at it in bfloat16: with few rows float32 is faster, with many two batched products are.
    """
    if q.dtype == torch.float32 or len(q) < 4:
        y = F.scaled_dot_product_attention(q.float(), k.float(), v.float(), attn_mask=attend)
        return y.to(q.dtype)
    scores = torch.bmm(k.flatten(0, 1), q.flatten(0, 1).transpose(1, 2)).view(*k.shape[:3])  # (B, H, S)
    scores = scores.float().mul_(q.shape[-1] ** -0.5).masked_fill_(~attend[:, 0], -math.inf)
    weights = scores.softmax(dim=-1).to(v.dtype)
    return torch.bmm(weights.flatten(0, 1)[:, None], v.flatten(0, 1)).view(q.shape)


class Attention(nn.Module):
    """Multi-head self-attention with rotary positions."""

    def __init__(self, config: LLaMAConfig, layer: int) -> None:
        super().__init__()
        self.n_head, self.layer = config.n_head, layer
        self.c_attn = nn.Linear(config.n_embd, 3 * config.n_embd, bias=False)
        self.c_proj = nn.Linear(config.n_embd, config.n_embd, bias=False)

    def forward(self, x: Tensor, rope: tuple[Tensor, Tensor], attend: Tensor, store: Store | None) -> Tensor:
        qkv = self.c_attn(x).unflatten(-1, (3, self.n_head, -1))  # (B, S, 3, H, D)
        qk, v = qkv.split((2, 1), dim=2)
        q, k = rotate(qk, rope).to(x.dtype).transpose(1, 3).unbind(2)  # (B, H, S, D) each
        v = v.squeeze(2).transpose(1, 2)  # (B, H, S, D)
        if store is not None:
            k, v = store(self.layer, k, v)
        attention = attend_one_on_cpu if q.shape[2] == 1 and q.device.type == "cpu" else F.scaled_dot_product_attention
        y = attention(q, k, v, attend)
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

    def forward(self, x: Tensor, rope: tuple[Tensor, Tensor], attend: Tensor, store: Store | None) -> Tensor:
        x = x + self.dropout(self.attn(self.rms_1(x), rope, attend, store))
        return x + self.dropout(self.mlp(self.rms_2(x)))


class LLaMAHF(PretrainedModel):
    """Text features and the motion tokens so far in, logits of the next motion token out.

    Attributes:
        fixed_step: Whether ``step`` is compiled for one shape of cache (``models.optimize``).
    """

    fixed_step = False
    _no_split_modules = ("Block",)

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

    def forward(
        self,
        text: Tensor,
        text_mask: Tensor,
        tokens: Tensor,
        targets: Tensor | None = None,
        count: Tensor | None = None,
        z_loss: float = 0.0,
    ) -> Tensor:
        """Logits of each motion token given the text and the tokens before it, or the training loss.

        Args:
            text: (B, L, text_dim) features; which side is padded does not matter, and padding is never looked at.
            text_mask: (B, L) bool, true for features; at least one a row (see ``null_text``).
            tokens: (B, N) int64 motion tokens, filled up with pad_id on the right; N may be 0.
            targets: (B, N + 1) int64, pad_id where nothing is to be predicted (see ``next_tokens``).
            count: () how many targets the mean goes over, where this is a part of a batch: the losses of the parts then
                add up to that of the whole. None means the targets given.
            z_loss: Its weight; see ``models.head_loss``.
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
        loss = head_loss(hidden[kept], self.lm_head.weight, targets[kept], z_loss)
        return loss / (kept.sum() if count is None else count).clamp(min=1)  # rows may be all context

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

    def new_cache(self, rows: int, columns: int) -> KVCache:
        """A cache for ``rows`` rows of at most ``columns`` text and token columns.

        The one given back last is used again if it is of this size: memory that was never touched is slow at first.
        """
        weight, idle = self.transformer.wte.weight, vars(self).pop("idle_cache", None)
        if idle is not None and idle.shape == (rows, columns) and idle.keys.dtype == weight.dtype:
            return idle
        return KVCache(self.config, rows, columns, weight.device, weight.dtype)

    def give_back(self, cache: KVCache) -> None:
        """Keep a cache that is no longer in use for the next ``new_cache``."""
        vars(self)["idle_cache"] = cache

    def prefill(self, text: Tensor, text_mask: Tensor, tokens: Tensor, cache: KVCache, first: int = 0) -> Tensor:
        """Read texts, and the motion tokens that are there already, into the cache's rows from ``first`` on.

        Args:
            text, text_mask, tokens: as in ``forward``; (B, 0) tokens where a motion starts.
        Returns:
            logits (B, outputs) of each row's next motion token.
        """
        x, positions, attend = self._embed(text, text_mask, tokens)
        counts = (tokens != self.config.pad_id).sum(dim=1)
        rows = slice(first, first + len(text))
        cache.starts[rows] = text.shape[1] - text_mask.sum(dim=1)
        cache.lengths[rows] = text.shape[1] + counts
        hidden = self._transform(x, positions, attend, cache.fill(first))
        last = text.shape[1] - 1 + counts
        return self.lm_head(hidden[torch.arange(len(text), device=text.device), last])

    def step(self, tokens: Tensor, cache: KVCache, extent: int) -> Tensor:
        """Append one token to each of the cache's first B rows, (B,); logits (B, outputs) of the next.

        ``extent`` is ``cache.extent(B)``, or more.
        """
        starts, lengths = cache.starts[: len(tokens), None], cache.lengths[: len(tokens), None]
        columns = cache.columns[:extent]
        attend = (columns >= starts) & (columns <= lengths)  # (B, extent)
        x = self.transformer.wte(tokens)[:, None]  # (B, 1, C)
        hidden = self._transform(x, lengths - starts, attend[:, None, None], cache.append(len(tokens), extent))
        cache.lengths[: len(tokens)] += 1
        return self.lm_head(hidden[:, 0])

    def _embed(self, text: Tensor, text_mask: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Embeddings (B, S, C) of text, moved right, and tokens; positions (B, S); who sees whom (B, 1, S, S)."""
        self._check_sizes(text, tokens)
        order = text_mask.to(torch.uint8).argsort(dim=1, stable=True)  # padding first, features in their order
        is_text = text_mask.gather(1, order)  # (B, L)
        text = text.masked_fill(~text_mask[:, :, None], 0).gather(1, order[:, :, None].expand_as(text))
        text = self.llama_proj(text.to(self.transformer.wte.weight.dtype))
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

    def _transform(self, x: Tensor, positions: Tensor, attend: Tensor, store: Store | None = None) -> Tensor:
        """All blocks and the last norm on x (B, S, C) at ``positions`` (B, S)."""
        rope = rope_table(positions, self.config.head_dim)
        for block in self.transformer.h:
            x = block(x, rope, attend, store)
        return self.transformer.ln_f(x)
