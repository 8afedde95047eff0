"""HumanVQVAE: the motion tokenizer. A 1-D convolutional encoder, finite scalar quantization, and a decoder.

    motion (B, T, 272) -> encoder -> (B, n, code_dim) -> FSQ -> tokens (B, n) -> decoder -> motion (B, n * stride, 272)

with stride = patch_size * 2**down_t frames a token and n = T // stride. Architecture: T2M-GPT (Zhang et al., CVPR 2023)
with the causal option, the Haar patches and the FSQ of ScaMo / MotionMillion-Codes (ICCV 2025); other quantizers can
take the place of FSQ (models/quantizers.py). Rows of a batch may be padded: with ``lengths`` given, every row gives
what it gives alone.
"""

import math
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import nn

from models.quantizers import QUANTIZERS, build_quantizer
from motion.features272 import FEATURES
from utils.checkpoint import PretrainedModel
from utils.errors import InputError

ACTIVATIONS = {"relu": nn.ReLU, "gelu": nn.GELU, "silu": nn.SiLU}
State = dict["Conv", torch.Tensor]  # the last inputs of each causal convolution, while decoding chunk by chunk


@dataclass
class VQVAEConfig:
    """Shape of the tokenizer.

    Attributes:
        quantizer: fsq, vq_ema, lfq or rfsq (models/quantizers.py).
        levels: Levels a dimension; their product is the codebook size. All are 2 for lfq.
        residuals: Quantizers of rfsq, one after the other: its codebook size is the product to this power.
        code_dim: Width of the latent before and after quantization.
        width: Channels of the convolutions.
        down_t: Halvings of the frame rate by strided convolutions.
        patch_size: Frames that a Haar wavelet transform packs into one before the first convolution: 1 (none), 2 or 4.
        depth: Residual blocks after each halving (and before each doubling).
        dilation_growth: Dilation of the residual blocks, growth**(depth - 1) first, down to 1.
        activation: relu, gelu or silu, in the residual blocks; between them it is always relu.
        norm: LayerNorm over channels ("layer") or none, in the residual blocks.
        causal: Token j sees no frame after its own; frames of token j depend on no later token. Needed for streaming.
    """

    quantizer: str = "fsq"
    levels: list[int] = field(default_factory=lambda: [8, 5, 5, 5])
    residuals: int = 2
    code_dim: int = 256
    width: int = 256
    down_t: int = 2
    patch_size: int = 1
    depth: int = 3
    dilation_growth: int = 3
    activation: str = "relu"
    norm: str = "none"
    causal: bool = True

    def __post_init__(self):
        if self.quantizer not in QUANTIZERS:
            raise InputError(f"quantizer {self.quantizer} is unknown; use one of {', '.join(QUANTIZERS)}")
        if self.activation not in ACTIVATIONS:
            raise InputError(f"activation {self.activation} is unknown; use one of {', '.join(ACTIVATIONS)}")
        if self.norm not in ("none", "layer"):
            raise InputError(f"norm {self.norm} is unknown; use none or layer")
        if self.patch_size not in (1, 2, 4):
            raise InputError(f"patch_size is {self.patch_size}; use 1, 2 or 4")
        for name in ("residuals", "code_dim", "width", "down_t", "depth", "dilation_growth"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} is {getattr(self, name)}; it must be at least 1")

    @property
    def stride(self) -> int:
        """Frames a token."""
        return self.patch_size * 2**self.down_t

    def flops_per_frame(self) -> float:
        """FLOPs of encoding and decoding one frame; a training step takes three times as many."""
        from torch.utils.flop_counter import FlopCounterMode  # slow to import, and large

        frames = 16 * self.stride
        with torch.device("meta"), FlopCounterMode(display=False) as counter:
            latent = Encoder(self)(torch.empty(1, FEATURES, frames), None)
            Decoder(self)(latent, None)
        return counter.get_total_flops() / frames


def haar_patch(x: torch.Tensor, lengths: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor | None]:
    """One level of the Haar wavelet transform over time: x (B, C, T) to (B, 2 C, ceil(T / 2)), low then high half.

    A clip of odd length is continued by one frame, the mirror image of its last but one. ``lengths (B,)`` are the
    valid frames of each row; those after the transform come back with it.
    """
    ends = torch.full((len(x),), x.shape[-1], device=x.device) if lengths is None else lengths
    if x.shape[-1] % 2:
        x = F.pad(x, (0, 1))
    odd = (ends % 2 == 1).nonzero()[:, 0]
    if len(odd):
        x = x.clone()
        x[odd, :, ends[odd]] = x[odd, :, (ends[odd] - 2).clamp(min=0)]
    first, second = rearrange(x, "b c (t two) -> two b c t", two=2)
    x = torch.cat((first + second, first - second), dim=1) / math.sqrt(8)
    return x, None if lengths is None else (lengths + 1) // 2


def haar_unpatch(x: torch.Tensor) -> torch.Tensor:
    """The inverse of ``haar_patch``: (B, 2 C, T) to (B, C, 2 T)."""
    low, high = x.chunk(2, dim=1)
    return rearrange([low + high, low - high], "two b c t -> b c (t two)") * math.sqrt(2)


class Conv(nn.Conv1d):
    """Convolution over (B, C, T) with zero padding on both sides, or on the left only when causal."""

    def __init__(
        self, channels_in: int, channels_out: int, kernel: int, causal: bool, stride: int = 1, dilation: int = 1
    ):
        super().__init__(channels_in, channels_out, kernel, stride=stride, dilation=dilation)
        total = (kernel - 1) * dilation + 1 - stride
        self.pad = (total, 0) if causal else (total // 2, total - total // 2)

    def forward(self, x: torch.Tensor, mask: torch.Tensor | None = None, state: State | None = None) -> torch.Tensor:
        """(B, C, T) -> (B, C', T // stride); ``mask (B, 1, T)`` zeroes padding, ``state`` is what came before."""
        if mask is not None:
            x = x * mask
        if state is None:
            on_cpu_in_bf16 = x.device.type == "cpu" and torch.is_autocast_enabled("cpu")
            return self._as_product(x) if on_cpu_in_bf16 else super().forward(F.pad(x, self.pad))
        before = state.get(self)
        x = F.pad(x, self.pad) if before is None else torch.cat((before, x), dim=-1)
        state[self] = x[..., x.shape[-1] - self.pad[0] :]
        # The same convolution as one matrix product: PyTorch's is several times slower for a few dilated frames.
        frames, (kernel,), (dilation,) = x.shape[-1] - self.pad[0], self.kernel_size, self.dilation
        taps = torch.stack([x[..., i * dilation : i * dilation + frames] for i in range(kernel)], dim=-1)
        rows = taps.transpose(1, 2).flatten(2)  # (B, T, C * kernel)
        return F.linear(rows, self.weight.flatten(1), self.bias).transpose(1, 2)

    def _as_product(self, x: torch.Tensor) -> torch.Tensor:
        """The convolution of x (B, C, T) as one matrix product, whose bf16 gradients are faster on a CPU.

        In memory, what it gives has the channels last, and so has all that is made of it: transposing costs nothing.
        """
        (kernel,), (dilation,), (stride,) = self.kernel_size, self.dilation, self.stride
        x = F.pad(x.transpose(1, 2).to(torch.get_autocast_dtype("cpu")), (0, 0, *self.pad))  # (B, T, C)
        last = x.shape[1] - (kernel - 1) * dilation  # the first frames of all windows lie before it
        taps = [x[:, i * dilation : i * dilation + last : stride] for i in range(kernel)]
        rows = torch.cat(taps, dim=-1) if kernel > 1 else x
        weight = torch.cat(self.weight.unbind(dim=-1), dim=1)  # (C', kernel * C)
        return F.linear(rows, weight, self.bias).transpose(1, 2)


class ChannelNorm(nn.LayerNorm):
    """LayerNorm over the channels of (B, C, T)."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x.transpose(1, 2)).transpose(1, 2)


class ResidualBlock(nn.Module):
    def __init__(self, config: VQVAEConfig, dilation: int):
        super().__init__()
        norm = ChannelNorm if config.norm == "layer" else nn.Identity
        self.norm1, self.norm2 = norm(config.width), norm(config.width)
        self.activation = ACTIVATIONS[config.activation]()
        self.conv1 = Conv(config.width, config.width, 3, config.causal, dilation=dilation)
        self.conv2 = Conv(config.width, config.width, 1, config.causal)

    def forward(self, x: torch.Tensor, mask: torch.Tensor | None, state: State | None = None) -> torch.Tensor:
        hidden = self.conv1(self.activation(self.norm1(x)), mask, state)
        return x + self.conv2(self.activation(self.norm2(hidden)))


def residual_stack(config: VQVAEConfig) -> nn.ModuleList:
    """Blocks with the largest dilation first."""
    dilations = [config.dilation_growth**i for i in reversed(range(config.depth))]
    return nn.ModuleList(ResidualBlock(config, dilation) for dilation in dilations)


class Encoder(nn.Module):
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

    def forward(self, x: torch.Tensor, lengths: torch.Tensor | None) -> torch.Tensor:
        """(B, 272, T) -> (B, code_dim, T // stride)."""
        whole = x.shape[-1] // self.stride
        for _ in range(self.patch_size // 2):
            x, lengths = haar_patch(x, lengths)  # (B, 272 * patch_size, ceil(T / patch_size))
        x = F.relu(self.conv_in(x, frame_mask(x, lengths)))
        for stage in self.stages:
            x = stage["down"](x, frame_mask(x, lengths))
            lengths = None if lengths is None else lengths // 2
            mask = frame_mask(x, lengths)
            for block in stage["blocks"]:
                x = block(x, mask)
        return self.conv_out(x, frame_mask(x, lengths))[..., :whole]


class Decoder(nn.Module):
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

    def forward(self, x: torch.Tensor, lengths: torch.Tensor | None, state: State | None = None) -> torch.Tensor:
        """(B, code_dim, n) -> (B, 272, n * stride)."""
        x = F.relu(self.conv_in(x, frame_mask(x, lengths), state))
        for stage in self.stages:
            mask = frame_mask(x, lengths)
            for block in stage["blocks"]:
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


def frame_mask(x: torch.Tensor, lengths: torch.Tensor | None) -> torch.Tensor | None:
    """(B, 1, T) of ones at valid frames for x (B, C, T); None without lengths."""
    if lengths is None:
        return None
    return (torch.arange(x.shape[-1], device=x.device) < lengths[:, None])[:, None].to(x.dtype)


class HumanVQVAE(PretrainedModel):
    """The tokenizer with the mean and std of its features: loads alone and works on motion of any length."""

    _no_split_modules = ("ResidualBlock",)
    forward_methods = ("encode", "decode")

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
        return self.quantizer.codebook_size

    def normalize(self, features: torch.Tensor) -> torch.Tensor:
        """(..., 272) features in metres to what the network sees."""
        return (features - self.mean) / self.std

    def denormalize(self, motion: torch.Tensor) -> torch.Tensor:
        """The inverse of ``normalize``, in float32."""
        return motion.float() * self.std + self.mean

    def forward(self, motion: torch.Tensor, lengths: torch.Tensor | None = None) -> tuple[torch.Tensor, ...]:
        """Reconstruct.

        Args:
            motion: (B, T, 272) normalised features. lengths: (B,) valid frames of each row; None means all.

        Returns:
            reconstruction (B, T // stride * stride, 272), auxiliary loss of the quantizer (zero for FSQ, and outside
            training), perplexity, active fraction of the codebook, tokens (B, T // stride). With ``lengths``, what lies
            beyond a row's length is unspecified.
        """
        latent = self._latent(motion, lengths)
        token_lengths = valid = None
        if lengths is not None:
            token_lengths = lengths // self.config.stride
            valid = torch.arange(latent.shape[1], device=latent.device) < token_lengths[:, None]  # (B, n)
        codes, tokens, loss, perplexity, active, _ = self.quantizer(latent, valid)
        reconstruction = self.decoder(codes.transpose(1, 2), token_lengths).transpose(1, 2)
        return reconstruction, loss, perplexity, active, tokens

    def encode(self, motion: torch.Tensor, lengths: torch.Tensor | None = None) -> torch.Tensor:
        """Tokens (B, T // stride) int64 of normalised motion (B, T, 272); row i has lengths[i] // stride valid ones.

        Raises:
            InputError: the width is wrong, or the motion is shorter than one token.
        """
        if motion.ndim != 3 or motion.shape[-1] != FEATURES:
            raise InputError(f"motion has shape {tuple(motion.shape)} where (batch, frames, {FEATURES}) is needed")
        shortest = motion.shape[1] if lengths is None else int(lengths.min())
        if shortest < self.config.stride:
            raise InputError(
                f"motion has {shortest} frames and a token stands for {self.config.stride}; give a longer clip"
            )
        return self.quantizer.tokens_of(self._latent(motion, lengths))

    def decode(self, tokens: torch.Tensor, lengths: torch.Tensor | None = None) -> torch.Tensor:
        """Normalised motion (B, n * stride, 272) of tokens (B, n); lengths (B,) counts the valid tokens of each row."""
        codes = self.quantizer.dequantize(tokens)  # (B, n, code_dim)
        return self.decoder(codes.transpose(1, 2), lengths).transpose(1, 2)

    def decode_chunk(self, tokens: torch.Tensor, state: State | None = None) -> tuple[torch.Tensor, State]:
        """Decode the next tokens (B, n) of a stream: frames (B, n * stride, 272) and the state for the next chunk.

        Chunks of any sizes joined together equal ``decode`` of all tokens at once.

        Raises:
            InputError: the tokenizer is not causal.
        """
        if not self.config.causal:
            raise InputError("this tokenizer is not causal and cannot decode in chunks; train one with causal: true")
        state = {} if state is None else dict(state)
        codes = self.quantizer.dequantize(tokens)
        return self.decoder(codes.transpose(1, 2), None, state).transpose(1, 2), state

    def _latent(self, motion: torch.Tensor, lengths: torch.Tensor | None) -> torch.Tensor:
        return self.encoder(motion.transpose(1, 2), lengths).transpose(1, 2)  # (B, n, code_dim)
