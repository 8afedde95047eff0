"""Control in the training of the generator: random tracks of a part of the rows, drawn from their decoded tokens."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from control.random_tracks import Frames, random_tracks
from control.signal import ControlSignal
from control.track import Track
from control.variations import varied
from models.llama_config import LLaMAConfig
from models.motion_vqvae import HumanVQVAE


class Rows(NamedTuple):
    """Rows of motion tokens, as in ``dataset.token_rows.TokenBatch``."""

    tokens: Tensor  # (B, N) padded on the right
    is_whole: Tensor  # (B,)
    context: Tensor  # (B,)


class RandomControl:
    """Control of training rows.

    Args:
        share: Share of the rows that get a track; rows of a single token get none.
        tokenizer: Decodes the rows; on the device of the training.
        config: Of the generator. If it takes no control, the rows stay as they are, without signals.
        vary: Whether the motions that get a track are varied (``control.variations``), and encoded again.
    """

    def __init__(self, share: float, tokenizer: HumanVQVAE, config: LLaMAConfig, vary: bool):
        self.share, self.tokenizer, self.config, self.vary = share, tokenizer, config, vary

    @torch.no_grad()
    def __call__(self, rows: Rows, generator: torch.Generator | None = None) -> tuple[Rows, Tensor | None]:
        """Draw tracks for rows, with a CPU generator or PyTorch's own.

        Returns:
            The rows, varied if they have a track, and signals (B, N + 1, SIGNAL_WIDTH), zeros where there is no track;
            None if the generator takes no control.
        """
        if not self.config.control:
            return rows, None
        chosen = (torch.rand(len(rows.tokens), generator=generator) < self.share).to(rows.tokens.device)
        chosen &= (rows.tokens != self.config.pad_id).sum(1) > 1
        if not chosen.any():
            return rows, self._no_signals(rows)
        stride = self.tokenizer.config.stride
        features, lengths = decoded_features(self.tokenizer, rows.tokens[chosen], self.config.pad_id)
        if self.vary:
            features, lengths = varied(features, lengths, generator)
            rows = self._replaced(rows, chosen, features, lengths // stride)
        frames = rows.tokens.shape[1] * stride
        features = F.pad(features, (0, 0, 0, max(0, frames - features.shape[1])))[:, :frames]
        motion = Frames.of(features, (lengths // stride * stride).clamp(max=frames))
        signals = self._no_signals(rows)
        signals[chosen] = token_signals(random_tracks(motion, generator), motion, stride)
        return rows, signals

    def _no_signals(self, rows: Rows) -> Tensor:
        count, columns = rows.tokens.shape
        return torch.zeros(count, columns + 1, self.config.control, device=rows.tokens.device)

    def _replaced(self, rows: Rows, chosen: Tensor, features: Tensor, after: Tensor) -> Rows:
        """Replace the motion of the chosen rows by features (C, T, 272) of ``after`` (C,) tokens, cut at their end."""
        tokenizer, pad_id, limit = self.tokenizer, self.config.pad_id, self.config.max_tokens
        stride, longest = tokenizer.config.stride, int(after.max())
        new = tokenizer.encode(tokenizer.normalize(features[:, : longest * stride]), after * stride)
        new = new.masked_fill(torch.arange(longest, device=new.device) >= after[:, None], pad_id)

        width = min(max(longest, rows.tokens.shape[1]), limit)
        before = (rows.tokens[chosen] != pad_id).sum(1)
        tokens = F.pad(rows.tokens, (0, width - rows.tokens.shape[1]), value=pad_id)
        tokens[chosen] = F.pad(new, (0, max(0, width - longest)), value=pad_id)[:, :width]
        is_whole, context = rows.is_whole.clone(), rows.context.clone()
        is_whole[chosen] &= after <= limit
        context[chosen] = -(-context[chosen] * after // before)  # rounded up
        return Rows(tokens, is_whole, context.clamp(max=limit))


def decoded_features(tokenizer: HumanVQVAE, tokens: Tensor, pad_id: int) -> tuple[Tensor, Tensor]:
    """Decode motion tokens (B, N), padded with ``pad_id``, to features (B, T, 272) and their lengths (B,) in frames."""
    is_motion = tokens != pad_id
    lengths = is_motion.sum(1)
    features = tokenizer.denormalize(tokenizer.decode(tokens.masked_fill(~is_motion, 0), lengths))
    return features, lengths * tokenizer.config.stride


def token_signals(track: Track, motion: Frames, stride: int) -> Tensor:
    """Return the signals (B, N + 1, SIGNAL_WIDTH) of the tokens of motions, and of the end after them."""
    frame = torch.arange(0, motion.heading.shape[1] + 1, stride, device=motion.heading.device)  # (N + 1,)
    last = (frame - 1).clamp(min=0)
    return ControlSignal(track)(frame.expand(len(motion.heading), -1), motion.root[:, last], motion.heading[:, last])
