"""HumanVQVAE: the motion tokenizer. A 1-D convolutional encoder, a quantizer, and a decoder.

    motion (B, T, 272) -> encoder -> (B, n, code_dim) -> FSQ -> tokens (B, n) -> decoder -> motion (B, n * stride, 272)

with stride = patch_size * 2**down_t frames per token and n = T // stride. Architecture: T2M-GPT (Zhang et al., CVPR
2023) with the causal option, the Haar patches and the FSQ of ScaMo / MotionMillion-Codes (ICCV 2025); FSQ can be
replaced by other quantizers (models/quantizers.py). Rows of a batch may be padded: with ``lengths``, the result of each
row equals that of the row alone.
"""

import math
from typing import NamedTuple, cast

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from models.fsq import FSQ
from models.quantizers import LibraryQuantizer, build_quantizer
from models.vqvae_config import VQVAEConfig
from motion.features272 import FEATURES
from utils.checkpoint import PretrainedModel
from utils.errors import InputError

ACTIVATIONS: dict[str, type[nn.Module]] = {"relu": nn.ReLU, "gelu": nn.GELU, "silu": nn.SiLU}
State = dict["Conv", Tensor]  # the last inputs of each causal convolution, while decoding in chunks


def haar_patch(x: Tensor, lengths: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """Apply one level of the Haar wavelet transform over time.

    Args:
        x: (B, C, T). A row of odd length is extended by one frame by reflection (a copy of its last but one frame).
        lengths: Valid frames of each row, (B,); None means all.

    Returns:
        (B, 2 C, ceil(T / 2)), the low then the high half, and the lengths after the transform.
    """
    if x.shape[-1] % 2:
        x = torch.cat((x, x[..., x.shape[-1] - 2 :][..., :1]), dim=-1)
    if lengths is not None:
        rows, is_odd = torch.arange(len(x), device=x.device), lengths % 2 == 1
        end, last_but_one = (torch.where(is_odd, frame, 0) for frame in (lengths, (lengths - 2).clamp(min=0)))
        x = x.clone()
        x[rows, :, end] = x[rows, :, last_but_one]
    first, second = rearrange(x, "b c (t two) -> two b c t", two=2)
    x = torch.cat((first + second, first - second), dim=1) / math.sqrt(8)
    return x, None if lengths is None else (lengths + 1) // 2


def haar_unpatch(x: Tensor) -> Tensor:
    """Invert ``haar_patch``: (B, 2 C, T) to (B, C, 2 T)."""
    low, high = x.chunk(2, dim=1)
    return rearrange([low + high, low - high], "two b c t -> b c (t two)") * math.sqrt(2)


class Conv(nn.Conv1d):
    """Convolution over (B, C, T) with zero padding on both sides, or on the left only if causal."""

    def __init__(
        self, channels_in: int, channels_out: int, kernel: int, causal: bool, stride: int = 1, dilation: int = 1
    ):
        super().__init__(channels_in, channels_out, kernel, stride=stride, dilation=dilation)
        total = (kernel - 1) * dilation + 1 - stride
        self.pad = (total, 0) if causal else (total // 2, total - total // 2)

    def forward(self, x: Tensor, mask: Tensor | None = None, state: State | None = None) -> Tensor:
        """(B, C, T) -> (B, C', T // stride); ``mask (B, 1, T)`` zeroes padding, ``state`` holds the previous inputs."""
        if mask is not None:
            x = x * mask
        if state is None:
            on_cpu_in_bf16 = x.device.type == "cpu" and torch.is_autocast_enabled("cpu")
            return self._as_product(x) if on_cpu_in_bf16 else super().forward(F.pad(x, self.pad))
        previous = state.get(self)
        x = F.pad(x, self.pad) if previous is None else torch.cat((previous, x), dim=-1)
        state[self] = x[..., x.shape[-1] - self.pad[0] :]
        # The convolution as one matrix product: PyTorch's kernel is several times slower for a few dilated frames.
        frames, (kernel,), (dilation,) = x.shape[-1] - self.pad[0], self.kernel_size, self.dilation
        taps = torch.stack([x[..., i * dilation : i * dilation + frames] for i in range(kernel)], dim=-1)
        rows = taps.transpose(1, 2).flatten(2)  # (B, T, C * kernel)
        return F.linear(rows, self.weight.flatten(1), self.bias).transpose(1, 2)

    def _as_product(self, x: Tensor) -> Tensor:
        """Convolve x (B, C, T) as one matrix product, whose bf16 gradients are faster on a CPU.

        The result is stored channel last, as are all tensors computed from it, so that the transposes are free.
        """
        (kernel,), (dilation,), (stride,) = self.kernel_size, self.dilation, self.stride
        x = F.pad(x.transpose(1, 2).to(torch.get_autocast_dtype("cpu")), (0, 0, *self.pad))  # (B, T, C)
        last = x.shape[1] - (kernel - 1) * dilation  # the first frames of all windows lie before this one
        taps = [x[:, i * dilation : i * dilation + last : stride] for i in range(kernel)]
        rows = torch.cat(taps, dim=-1) if kernel > 1 else x
        weight = torch.cat(self.weight.unbind(dim=-1), dim=1)  # (C', kernel * C)
        return F.linear(rows, weight, self.bias).transpose(1, 2)


class ChannelNorm(nn.LayerNorm):
    """LayerNorm over the channels of (B, C, T)."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.transpose(1, 2)).transpose(1, 2)


class ResidualBlock(nn.Module):
    """x + conv1(act(norm(conv3_dilated(act(norm(x))))))."""

    def __init__(self, config: VQVAEConfig, dilation: int):
        super().__init__()
        norm = ChannelNorm if config.norm == "layer" else nn.Identity
        self.norm1, self.norm2 = norm(config.width), norm(config.width)
        self.activation = ACTIVATIONS[config.activation]()
        self.conv1 = Conv(config.width, config.width, 3, config.causal, dilation=dilation)
        self.conv2 = Conv(config.width, config.width, 1, config.causal)

    def forward(self, x: Tensor, mask: Tensor | None, state: State | None = None) -> Tensor:
        hidden = self.conv1(self.activation(self.norm1(x)), mask, state)
        return x + self.conv2(self.activation(self.norm2(hidden)))


def residual_stack(config: VQVAEConfig) -> nn.ModuleList:
    """Return the residual blocks of one stage, the largest dilation first."""
    dilations = [config.dilation_growth**i for i in reversed(range(config.depth))]
    return nn.ModuleList(ResidualBlock(config, dilation) for dilation in dilations)


class Encoder(nn.Module):
    """Motion to latent vectors."""

    def __init__(self, config: VQVAEConfig):
        super().__init__()
        width, causal = config.width, config.causal
        self.patch_size, self.stride = config.patch_size, config.stride
        self.conv_in = Conv(FEATURES * config.patch_size, width, 3, causal)
        self.stages = nn.ModuleList(
            nn.ModuleDict({"down": Conv(width, width, 4, causal, stride=2), "blocks": residual_stack(config)})
            for _ in range(config.down_t)
        )
        self.conv_out = Conv(width, config.code_dim, 3, causal)

    def forward(self, x: Tensor, lengths: Tensor | None) -> Tensor:
        """(B, 272, T) -> (B, code_dim, T // stride)."""
        tokens = x.shape[-1] // self.stride
        for _ in range(self.patch_size // 2):
            x, lengths = haar_patch(x, lengths)  # (B, 272 * patch_size, ceil(T / patch_size))
        x = F.relu(self.conv_in(x, frame_mask(x, lengths)))
        for module in self.stages:
            stage = cast(nn.ModuleDict, module)
            x = stage["down"](x, frame_mask(x, lengths))
            lengths = None if lengths is None else lengths // 2
            mask = frame_mask(x, lengths)
            for block in cast(nn.ModuleList, stage["blocks"]):
                x = block(x, mask)
        return self.conv_out(x, frame_mask(x, lengths))[..., :tokens]


class Decoder(nn.Module):
    """Latent vectors to motion."""

    def __init__(self, config: VQVAEConfig):
        super().__init__()
        width, causal = config.width, config.causal
        self.conv_in = Conv(config.code_dim, width, 3, causal)
        self.stages = nn.ModuleList(
            nn.ModuleDict({"blocks": residual_stack(config), "up": Conv(width, width, 3, causal)})
            for _ in range(config.down_t)
        )
        self.conv_mid = Conv(width, width, 3, causal)
        self.conv_out = Conv(width, FEATURES * config.patch_size, 3, causal)
        self.patch_size = config.patch_size

    def forward(self, x: Tensor, lengths: Tensor | None, state: State | None = None) -> Tensor:
        """(B, code_dim, n) -> (B, 272, n * stride)."""
        x = F.relu(self.conv_in(x, frame_mask(x, lengths), state))
        for module in self.stages:
            stage = cast(nn.ModuleDict, module)
            mask = frame_mask(x, lengths)
            for block in cast(nn.ModuleList, stage["blocks"]):
                x = block(x, mask, state)
            x = x.repeat_interleave(2, dim=-1)
            lengths = None if lengths is None else lengths * 2
            x = stage["up"](x, frame_mask(x, lengths), state)
        mask = frame_mask(x, lengths)
        x = F.relu(self.conv_mid(x, mask, state))
        x = self.conv_out(x, mask, state)
        for _ in range(self.patch_size // 2):
            x = haar_unpatch(x)
        return x  # (B, 272, n * stride)


def frame_mask(x: Tensor, lengths: Tensor | None) -> Tensor | None:
    """Return (B, 1, T) with ones at the valid frames of x (B, C, T); None without lengths."""
    if lengths is None:
        return None
    return (torch.arange(x.shape[-1], device=x.device) < lengths[:, None])[:, None].to(x.dtype)


class TokenizerOutput(NamedTuple):
    """Result of ``HumanVQVAE.forward``."""

    reconstruction: Tensor  # (B, T // stride * stride, 272), normalized; unspecified beyond a row's length
    loss: Tensor  # (), auxiliary loss of the quantizer; zero for FSQ and outside training
    perplexity: Tensor  # (), see ``models.fsq.codebook_usage``
    active_fraction: Tensor  # (), fraction of the codebook in use
    tokens: Tensor  # (B, T // stride) int64


class HumanVQVAE(PretrainedModel):
    """Motion tokenizer. Its checkpoint holds the mean and std of the features; motion may have any length."""

    _no_split_modules = ("ResidualBlock",)
    config_bounds = {"levels": 2**16, "code_dim": 2**14, "width": 2**14, "dilation_growth": 2**10}
    config_repeats = ("down_t", "depth", "residuals")
    forward_methods = ("encode", "decode")
    mean: Tensor
    std: Tensor
    quantizer: FSQ | LibraryQuantizer

    def __init__(self, config: VQVAEConfig):
        super().__init__()
        self.config = config
        self.encoder = Encoder(config)
        self.quantizer = build_quantizer(config.quantizer, config.levels, config.code_dim, config.residuals)
        self.decoder = Decoder(config)
        self.register_buffer("mean", torch.zeros(FEATURES))
        self.register_buffer("std", torch.ones(FEATURES))

    @property
    def codebook_size(self) -> int:
        """Number of codes."""
        return self.quantizer.codebook_size

    def flops_per_frame(self) -> float:
        """Return the FLOPs to encode and decode one frame; a training step takes three times as many."""
        from torch.utils.flop_counter import FlopCounterMode  # slow to import, and large

        frames = 16 * self.config.stride
        with torch.device("meta"), FlopCounterMode(display=False) as counter:
            latent = Encoder(self.config)(torch.empty(1, FEATURES, frames), None)
            Decoder(self.config)(latent, None)
        return counter.get_total_flops() / frames

    def normalize(self, features: Tensor) -> Tensor:
        """Normalize features (..., 272) as the network takes them."""
        return (features - self.mean) / self.std

    def denormalize(self, motion: Tensor) -> Tensor:
        """Invert ``normalize``, in float32."""
        return motion.float() * self.std + self.mean

    def forward(self, motion: Tensor, lengths: Tensor | None = None) -> TokenizerOutput:
        """Reconstruct normalized motion.

        Args:
            motion: (B, T, 272) normalized features.
            lengths: Valid frames of each row, (B,); None means all.
        """
        latent = self._latent(motion, lengths)
        token_lengths = valid = None
        if lengths is not None:
            token_lengths = lengths // self.config.stride
            valid = torch.arange(latent.shape[1], device=latent.device) < token_lengths[:, None]  # (B, n)
        codes = self.quantizer(latent, valid)
        reconstruction = self.decoder(codes.out.transpose(1, 2), token_lengths).transpose(1, 2)
        return TokenizerOutput(reconstruction, codes.loss, codes.perplexity, codes.active_fraction, codes.indices)

    def encode(self, motion: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Encode motion to tokens.

        Args:
            motion: (B, T, 272) normalized features.
            lengths: Valid frames of each row, (B,); None means all.

        Returns:
            (B, T // stride) int64; row i has lengths[i] // stride valid tokens.

        Raises:
            InputError: if the width is wrong, or a row is shorter than one token.
        """
        if motion.ndim != 3 or motion.shape[-1] != FEATURES:
            raise InputError(f"motion has shape {tuple(motion.shape)}; give (batch, frames, {FEATURES})")
        shortest = motion.shape[1] if lengths is None else int(lengths.min())
        if shortest < self.config.stride:
            raise InputError(
                f"motion has {shortest} frames, fewer than the {self.config.stride} of one token; give a longer clip"
            )
        return self.quantizer.encode(self._latent(motion, lengths))

    def decode(self, tokens: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Decode tokens (B, n) to normalized motion (B, n * stride, 272).

        ``lengths`` (B,) holds the valid tokens of each row; None means all.
        """
        codes = self.quantizer.dequantize(tokens)  # (B, n, code_dim)
        return self.decoder(codes.transpose(1, 2), lengths).transpose(1, 2)

    def decode_chunk(self, tokens: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """Decode the next chunk of a stream.

        The concatenated chunks, of any sizes, equal ``decode`` of all tokens at once.

        Args:
            tokens: The next tokens, (B, n).
            state: State returned with the previous chunk, which is not modified; None starts a stream.

        Returns:
            Normalized motion (B, n * stride, 272), and the state for the next chunk.

        Raises:
            InputError: if the tokenizer is not causal.
        """
        if not self.config.causal:
            raise InputError("this tokenizer is not causal and cannot decode in chunks; train one with --model.causal")
        state = {} if state is None else dict(state)
        codes = self.quantizer.dequantize(tokens)
        return self.decoder(codes.transpose(1, 2), None, state).transpose(1, 2), state

    def _latent(self, motion: Tensor, lengths: Tensor | None) -> Tensor:
        return self.encoder(motion.transpose(1, 2), lengths).transpose(1, 2)  # (B, n, code_dim)
