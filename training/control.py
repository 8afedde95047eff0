"""Control in the training of the generator: random tracks, drawn from the decoded tokens of a part of the rows."""

import torch
from torch import Tensor

from control.random_tracks import Frames, random_tracks
from control.signal import ControlSignal
from control.track import Track
from models.llama import LLaMAConfig
from models.motion_vqvae import HumanVQVAE


class RandomControl:
    """Control signals of training rows.

    Args:
        share: Share of the rows that get a track.
        tokenizer: Decodes the rows; on the device of the training.
        config: Of the generator. If it takes no control, there are no signals.
    """

    def __init__(self, share: float, tokenizer: HumanVQVAE, config: LLaMAConfig):
        self.share, self.tokenizer, self.config = share, tokenizer, config

    @torch.no_grad()
    def __call__(self, tokens: Tensor, generator: torch.Generator | None = None) -> Tensor | None:
        """Draw tracks for motion tokens.

        Args:
            tokens: (B, N), padded with pad_id.
            generator: CPU generator; by default PyTorch's own.

        Returns:
            (B, N + 1, SIGNAL_WIDTH) signals, zeros in rows without a track; None if the generator takes no control.
        """
        if not self.config.control:
            return None
        signals = torch.zeros(len(tokens), tokens.shape[1] + 1, self.config.control, device=tokens.device)
        chosen = (torch.rand(len(tokens), generator=generator) < self.share).nonzero()[:, 0].to(tokens.device)
        if len(chosen) and tokens.shape[1]:
            motion = decoded_frames(self.tokenizer, tokens[chosen], self.config.pad_id)
            track = random_tracks(motion, generator)
            signals[chosen] = token_signals(track, motion, self.tokenizer.config.stride)
        return signals


def decoded_frames(tokenizer: HumanVQVAE, tokens: Tensor, pad_id: int) -> Frames:
    """Decode motion tokens (B, N), padded with ``pad_id``."""
    is_motion = tokens != pad_id
    lengths = is_motion.sum(1)
    features = tokenizer.denormalize(tokenizer.decode(tokens.masked_fill(~is_motion, 0), lengths))
    return Frames.of(features, lengths * tokenizer.config.stride)


def token_signals(track: Track, motion: Frames, stride: int) -> Tensor:
    """Return the signals (B, N + 1, SIGNAL_WIDTH) of the tokens of motions, and of the end after them."""
    frame = torch.arange(0, motion.heading.shape[1] + 1, stride, device=motion.heading.device)  # (N + 1,)
    last = (frame - 1).clamp(min=0)
    return ControlSignal(track)(frame.expand(len(motion.heading), -1), motion.root[:, last], motion.heading[:, last])
