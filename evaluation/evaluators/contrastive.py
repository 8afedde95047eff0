"""MotionTextEvaluator: our own evaluator, which train_evaluator.py trains on any data folder.

    motion (T, 272) at 30 fps -> patches of 4 frames -> transformer -> unit vector
    caption -> token states of a frozen text encoder -> transformer -> unit vector

A caption and a motion that it describes have similar vectors. After TMR (Petrovich et al., ICCV 2023), without its
decoder and its variational part: both sides are trained with the contrastive loss alone. Each transformer reads a
learned token before its sequence, whose output is the embedding, as in ACTOR (Petrovich et al., ICCV 2021).
"""

import math
from collections.abc import Sequence
from functools import cached_property

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from evaluation.evaluators.config import PATCH, EvaluatorConfig
from evaluation.evaluators.interface import Caption, check_captions, check_motions, embed_in_batches
from models.encoder_names import encoder_width
from models.text_encoder import TextEncoder, load_text_encoder
from motion.features272 import FEATURES
from motion.resample import FPS
from utils.checkpoint import PretrainedModel

BATCH = 64


class Layer(nn.Module):
    """Pre-norm transformer layer."""

    def __init__(self, width: int, heads: int, dropout: float):
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """(B, L, width) -> (B, L, width); steps that ``mask (B, L)`` marks false are not attended to."""
        q, k, v = self.qkv(self.norm1(x)).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)  # (B, H, L, D)
        attended = F.scaled_dot_product_attention(q, k, v, attn_mask=mask[:, None, None])
        x = x + self.dropout(self.proj(attended.transpose(1, 2).flatten(2)))
        return x + self.dropout(self.mlp(self.norm2(x)))


class SequenceEncoder(nn.Module):
    """Transformer that maps a sequence of vectors to one unit vector."""

    def __init__(self, channels: int, layers: int, config: EvaluatorConfig):
        super().__init__()
        self.input = nn.Linear(channels, config.width)
        self.token = nn.Parameter(0.02 * torch.randn(1, 1, config.width))
        self.layers = nn.ModuleList(Layer(config.width, config.heads, config.dropout) for _ in range(layers))
        self.norm = nn.LayerNorm(config.width)
        self.output = nn.Linear(config.width, config.embedding)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Map x (B, L, channels) with ``mask (B, L)``, false at padding, to (B, embedding) float32 of norm 1."""
        x = self.input(x) + positions(x.shape[1], self.token.shape[-1], x.device)
        x = torch.cat((self.token.expand(len(x), -1, -1), x), dim=1)  # (B, 1 + L, width)
        mask = F.pad(mask, (1, 0), value=True)
        for layer in self.layers:
            x = layer(x, mask)
        return F.normalize(self.output(self.norm(x[:, 0])).float(), dim=-1)


class MotionTextEvaluator(PretrainedModel):
    """An ``Evaluator`` of 272-dim features; its embeddings have norm 1, so raw FID and unit FID are the same."""

    _no_split_modules = ("Layer",)
    forward_methods = ("encode_text", "encode_motion")
    config_bounds = {"embedding": 2**14, "width": 2**14, "heads": 2**10, "min_frames": 2**20, "max_frames": 2**20}
    config_repeats = ("motion_layers", "text_layers")
    name = "ours"
    fps = float(FPS)
    features = FEATURES

    def __init__(self, config: EvaluatorConfig):
        super().__init__()
        self.config = config
        self.min_frames, self.max_frames = config.min_frames, config.max_frames
        self.motion = SequenceEncoder(PATCH * FEATURES, config.motion_layers, config)
        self.text = SequenceEncoder(encoder_width(config.text_encoder), config.text_layers, config)
        self.mean: Tensor
        self.std: Tensor
        self.register_buffer("mean", torch.zeros(FEATURES))
        self.register_buffer("std", torch.ones(FEATURES))

    def forward(self, text: Tensor, text_mask: Tensor, *motions: Tensor) -> tuple[Tensor, ...]:
        """Embed captions and several batches of motions.

        Args:
            text: (B, L, D) features of the frozen text encoder.
            text_mask: (B, L) bool, false at padding.
            motions: Pairs of features (B, T, 272), not normalized, and their lengths (B,) in frames.

        Returns:
            (B, embedding) of the captions and of each batch of motions.
        """
        pairs = zip(motions[::2], motions[1::2], strict=True)
        return self.encode_text(text, text_mask), *(self.encode_motion(*pair) for pair in pairs)

    def encode_text(self, text: Tensor, mask: Tensor) -> Tensor:
        """Embed features (B, L, D) of the frozen text encoder with ``mask (B, L)``; returns (B, embedding)."""
        return self.text(text, mask)

    def encode_motion(self, features: Tensor, lengths: Tensor) -> Tensor:
        """Embed features (B, T, 272), not normalized, with lengths (B,) in frames; returns (B, embedding).

        An incomplete last patch of a motion is dropped, and the padding has no influence.
        """
        steps = features.shape[1] // PATCH
        normalized = (features[:, : steps * PATCH] - self.mean) / self.std
        mask = torch.arange(steps, device=features.device) < lengths[:, None] // PATCH  # (B, steps)
        return self.motion(normalized.unflatten(1, (steps, PATCH)).flatten(2), mask)

    @cached_property
    def text_encoder(self) -> TextEncoder:
        """The frozen text encoder, loaded at its first use."""
        return load_text_encoder(self.config.text_encoder, self.mean.device)

    @torch.inference_mode()
    def embed_motions(self, motions: Sequence[np.ndarray]) -> np.ndarray:
        """Embed motions (T, 272), as in ``Evaluator``."""
        check_motions(self, motions)

        def embed(rows: list[int]) -> Tensor:
            features = [torch.from_numpy(np.asarray(motions[row], np.float32)) for row in rows]
            lengths = torch.tensor([len(motion) for motion in features]).to(self.mean.device)
            padded = nn.utils.rnn.pad_sequence(features, batch_first=True).to(self.mean.device)
            return self.encode_motion(padded, lengths)

        return embed_in_batches([len(motion) for motion in motions], embed, BATCH)

    @torch.inference_mode()
    def embed_texts(self, captions: Sequence[Caption]) -> np.ndarray:
        """Embed captions, as in ``Evaluator``; word tokens are not used."""
        check_captions(captions)

        def embed(rows: list[int]) -> Tensor:
            return self.encode_text(*self.text_encoder.encode([texts[row] for row in rows]))

        texts = list(dict.fromkeys(caption.text for caption in captions))
        embeddings = embed_in_batches([len(text) for text in texts], embed, BATCH)
        row_of = {text: row for row, text in enumerate(texts)}
        return embeddings[[row_of[caption.text] for caption in captions]]


def positions(steps: int, width: int, device: torch.device) -> Tensor:
    """Return sinusoidal positions (steps, width) (Vaswani et al., 2017)."""
    rates = torch.exp(torch.arange(0, width, 2, device=device) * (-math.log(10000.0) / width))
    angles = torch.arange(steps, device=device)[:, None] * rates
    return torch.stack((angles.sin(), angles.cos()), dim=-1).flatten(-2)
