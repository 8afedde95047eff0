"""LLaMAHF: a LLaMA decoder from text features to motion tokens.

The sequence of a row is ``[text features, motion tokens, end]``. Attention is full inside the text and causal after it.
Rotary positions count from 0 at the first text feature through the last token without a gap. In a batch, texts are
padded on the left and padding is never attended to: the tokens of all rows are in the same columns, and the result of a
row does not depend on the other rows.

Architecture and parameter names are those of MotionMillion-Codes' LLaMAHF (after lit-llama), so that its weights load
directly: pre-norm blocks, RMSNorm, rotary embedding on interleaved pairs (Su et al., 2021), SwiGLU (Shazeer, 2020).
"""

import math
from collections.abc import Iterable
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.head_loss import IGNORED, head_loss
from models.kv_cache import CacheShape, KVCache, KVWriter, rounded_columns
from models.llama_config import LLaMAConfig
from models.llama_layers import MLP, Attention, ControlMLP, RMSNorm, rope_table, stored_width
from utils.checkpoint import PretrainedModel
from utils.errors import InputError


class Block(nn.Module):
    """Pre-norm transformer block."""

    def __init__(self, config: LLaMAConfig, layer: int) -> None:
        super().__init__()
        self.rms_1 = RMSNorm(config.n_embd)
        self.attn = Attention(config.n_embd, config.n_head, layer, config.dropout)
        self.rms_2 = RMSNorm(config.n_embd)
        self.mlp: nn.Module = MLP(config.n_embd, config.mlp_hidden, config.dropout)

    def forward(self, x: Tensor, rope: Tensor, mask: Tensor, write: KVWriter | None) -> Tensor:
        x = self.attn(x, self.rms_1(x), rope, mask, write)
        return self.mlp(x, self.rms_2(x))


class Transformer(nn.ModuleDict):
    """Token embedding, blocks and last norm, under the names of the reference."""

    wte: nn.Embedding
    h: nn.ModuleList
    ln_f: RMSNorm


class LLaMAHF(PretrainedModel):
    """Predicts the next motion token from text features and the motion tokens before it.

    Attributes:
        static_shapes: Whether ``step`` is compiled for one cache shape (``models.optimize``).
    """

    _no_split_modules = ("Block",)
    config_bounds = {
        "codebook_size": 2**24, "text_dim": 2**16, "text_length": 2**16, "max_tokens": 2**20, "n_head": 2**12,
        "n_embd": 2**16, "control": 2**16,
    }  # fmt: skip
    config_repeats = ("n_layer",)

    def __init__(self, config: LLaMAConfig) -> None:
        super().__init__()
        self.config = config
        self.static_shapes = False
        self.idle_cache: KVCache | None = None
        outputs = config.vocab_size if config.tie_weights else config.vocab_size - 1  # pad is never predicted
        self.lm_head = nn.Linear(config.n_embd, outputs, bias=False)
        self.transformer = Transformer(
            {
                "wte": nn.Embedding(config.vocab_size, config.n_embd),
                "h": nn.ModuleList(Block(config, layer) for layer in range(config.n_layer)),
                "ln_f": RMSNorm(config.n_embd),
            }
        )
        self.llama_proj = nn.Linear(config.text_dim, config.n_embd)
        if config.control:
            self.control_proj = ControlMLP(config.control, config.n_embd, config.dropout)
        self.dropout = nn.Dropout(config.dropout)
        self.apply(self._init_weights)
        if config.tie_weights:
            self.lm_head.weight = self.transformer.wte.weight

    @property
    def blocks(self) -> Iterable[Block]:
        return cast(Iterable[Block], self.transformer.h)

    def _init_weights(self, module: nn.Module) -> None:
        """Initialize with normal weights; projections into the residual stream are scaled down with depth (GPT-2)."""
        if isinstance(module, nn.Linear | nn.Embedding):
            nn.init.normal_(module.weight, std=0.02)
        if isinstance(module, nn.Linear) and module.bias is not None:
            nn.init.zeros_(module.bias)
        if isinstance(module, Attention | MLP):  # apply() visits a module after its children
            nn.init.normal_(module.c_proj.weight, std=0.02 / math.sqrt(2 * self.config.n_layer))
        if isinstance(module, ControlMLP):
            module.reset_parameters()

    def forward(
        self,
        text: Tensor,
        text_mask: Tensor,
        tokens: Tensor,
        targets: Tensor | None = None,
        count: Tensor | None = None,
        z_loss: float = 0.0,
        control: Tensor | None = None,
    ) -> Tensor:
        """Return the logits of each motion token given the text and the tokens before it, or the training loss.

        Args:
            text: (B, L, text_dim) features, padded on either side; padding is never attended to.
            text_mask: (B, L) bool, true for features; at least one per row (see models/text_dropout.py).
            tokens: (B, N) int64 motion tokens, padded with pad_id on the right; N may be 0.
            targets: (B, N + 1) int64, pad_id where nothing is to be predicted (see ``next_tokens``).
            count: () number of targets to average over; by default that of ``targets``. With the number of a whole
                batch, the losses of its micro-batches add up to the loss of the batch.
            z_loss: Weight of the z-loss; see ``models.head_loss``.
            control: (B, N + 1, config.control) control signals: column i is that of motion token i. Zeros, and None,
                ask for nothing.

        Returns:
            logits (B, N + 1, vocab_size - 1), or vocab_size with tied weights: column i predicts motion token i, the
            first one from the text alone. With targets: their mean cross entropy, (); on a CPU, the head is computed
            only at positions with a target.

        Raises:
            InputError: text or tokens are too long for the model, or the text features have another width.
        """
        hidden = self.hidden_states(text, text_mask, tokens)[:, text.shape[1] - 1 :]  # (B, N + 1, C)
        if control is not None:
            hidden = self.control_proj(hidden, control)
        if targets is None:
            return self.lm_head(hidden)
        kept = targets != self.config.pad_id
        targets = targets.masked_fill(~kept, IGNORED)
        if hidden.device.type == "cpu":  # elsewhere, the selection would wait for the device
            hidden, targets = hidden[kept], targets[kept]
        loss = head_loss(hidden.flatten(0, -2), self.lm_head.weight, targets.flatten(), z_loss)
        return loss / (kept.sum() if count is None else count).clamp(min=1)  # a batch may have no targets

    def next_tokens(self, tokens: Tensor) -> Tensor:
        """Return the targets (B, N + 1) of tokens (B, N): the tokens, end_id after the last of each row, pad_id."""
        targets = F.pad(tokens, (0, 1), value=self.config.pad_id)
        lengths = (tokens != self.config.pad_id).sum(dim=1, keepdim=True)
        return targets.scatter(1, lengths, self.config.end_id)

    def loss(self, text: Tensor, text_mask: Tensor, tokens: Tensor) -> Tensor:
        """Return the mean cross entropy () of ``tokens`` and the end after them; arguments as in ``forward``."""
        return self(text, text_mask, tokens, self.next_tokens(tokens))

    def hidden_states(self, text: Tensor, text_mask: Tensor, tokens: Tensor) -> Tensor:
        """Return the last hidden states (B, L + N, n_embd) of right-aligned text and tokens, as in ``forward``."""
        x, positions, mask = self._embed(text, text_mask, tokens)
        return self._run_blocks(x, rope_table(positions, self.config.head_dim), mask)

    def new_cache(self, rows: int, columns: int) -> KVCache:
        """Return a cache for ``rows`` rows of at most ``columns`` text and token columns.

        The cache released last is reused if it has this shape, because the first write to new memory is slow.
        """
        weight, idle, self.idle_cache = self.transformer.wte.weight, self.idle_cache, None
        config, device, dtype = self.config, weight.device, weight.dtype
        width = stored_width(config.head_dim, dtype, device.type)
        shape = CacheShape(config.n_layer, rows, config.n_head, rounded_columns(columns), width)
        if idle is not None and idle.shape == shape and idle.keys.dtype == dtype:
            return idle
        del idle  # its memory is free for the new one
        rope = rope_table(torch.arange(shape.columns, device=device), config.head_dim)
        cache = KVCache(shape, device, dtype, rope)
        if self.static_shapes:
            cache.keep_addresses()
        return cache

    def release_cache(self, cache: KVCache) -> None:
        """Keep a cache that is no longer used for the next ``new_cache``."""
        self.idle_cache = cache

    def prefill(
        self,
        text: Tensor,
        text_mask: Tensor,
        tokens: Tensor,
        cache: KVCache,
        first: int = 0,
        control: Tensor | None = None,
    ) -> Tensor:
        """Write texts, and motion tokens that precede the new ones, into the cache's rows from ``first`` on.

        Args:
            text, text_mask, tokens, control: See ``forward``; tokens are (B, 0) at the beginning of a motion.

        Returns:
            logits (B, outputs) of the next motion token of each row.
        """
        x, positions, mask = self._embed(text, text_mask, tokens)
        counts = (tokens != self.config.pad_id).sum(dim=1)
        cache.begin(first, text.shape[1] - text_mask.sum(dim=1), text.shape[1] + counts, x.shape[1])
        mask = torch.zeros_like(mask, dtype=x.dtype).masked_fill_(~mask, -math.inf)  # once for all layers
        hidden = self._run_blocks(x, cache.rope[positions], mask, cache.prefill_writer(first))
        batch, last = torch.arange(len(text), device=text.device), text.shape[1] - 1 + counts
        hidden = hidden[batch, last]
        if control is not None:
            hidden = self.control_proj(hidden, control[batch, counts])
        return self.lm_head(hidden)

    def step(self, tokens: Tensor, cache: KVCache, extent: int, control: Tensor | None = None) -> Tensor:
        """Append one token to each of the first B rows of the cache and predict the next ones.

        Args:
            tokens: (B,).
            extent: ``cache.extend(B)`` or more.
            control: (B, config.control) control signals of the next tokens.

        Returns:
            logits (B, outputs).
        """
        starts, lengths = cache.starts[: len(tokens)], cache.lengths[: len(tokens)]
        rope = cache.rope[lengths - starts][:, None]  # (B, 1, ...)
        mask = cache.mask[: len(tokens)].scatter_(1, lengths[:, None], 0)  # the new column is visible
        x = self.transformer.wte(tokens)[:, None]  # (B, 1, C)
        mask = mask[:, None, None, :extent]
        hidden = self._run_blocks(x, rope, mask, cache.step_writer(len(tokens), extent))
        lengths += 1
        hidden = hidden[:, 0]
        if control is not None:
            hidden = self.control_proj(hidden, control)
        return self.lm_head(hidden)

    def _embed(self, text: Tensor, text_mask: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return embeddings (B, S, C) of right-aligned text and tokens, positions (B, S), mask (B, 1, S, S)."""
        self._check_sizes(text, tokens)
        order = text_mask.to(torch.uint8).argsort(dim=1, stable=True)  # padding first
        is_text = text_mask.gather(1, order)  # (B, L)
        text = text.masked_fill(~text_mask[:, :, None], 0).gather(1, order[:, :, None].expand_as(text))
        text = self.llama_proj(text.to(self.transformer.wte.weight.dtype))
        x = torch.cat((text, self.transformer.wte(tokens)), dim=1)  # (B, S, C), S = L + N

        visible = F.pad(is_text, (0, tokens.shape[1]), value=True)  # (B, S)
        is_text = F.pad(is_text, (0, tokens.shape[1]), value=False)
        positions = (visible.cumsum(dim=1) - 1).clamp(min=0)
        itself = torch.eye(x.shape[1], dtype=torch.bool, device=x.device)  # so that the softmax of padding is defined
        causal = torch.ones_like(itself).tril()
        mask = (causal | (is_text[:, :, None] & is_text[:, None, :])) & visible[:, None, :] | itself  # (B, S, S)
        return self.dropout(x), positions, mask[:, None]

    def _check_sizes(self, text: Tensor, tokens: Tensor) -> None:
        config = self.config
        if text.shape[2] != config.text_dim:
            raise InputError(
                f"text features are {text.shape[2]} wide but the model takes {config.text_dim}; "
                f"encode the text with {config.text_encoder}"
            )
        for name, length, limit in (
            ("text features", text.shape[1], config.text_length),
            ("motion tokens", tokens.shape[1], config.max_tokens),
        ):
            if length > limit:
                raise InputError(f"a row has {length} {name} but the model takes at most {limit}; shorten it")

    def _run_blocks(self, x: Tensor, rope: Tensor, mask: Tensor, write: KVWriter | None = None) -> Tensor:
        """Apply all blocks and the last norm to x (B, S, C) with rotary factors (B, S, ...)."""
        for block in self.blocks:
            x = block(x, rope, mask, write)
        return self.transformer.ln_f(x)
