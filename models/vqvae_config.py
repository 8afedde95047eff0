"""Configuration of the motion tokenizer and of its training loss; this module imports no PyTorch."""

from dataclasses import dataclass, field
from typing import Literal, get_args

from jsonargparse.typing import NonNegativeFloat, PositiveInt

from utils.errors import InputError

QuantizerName = Literal["fsq", "vq_ema", "lfq", "rfsq"]
Activation = Literal["relu", "gelu", "silu"]
Norm = Literal["none", "layer"]
PatchSize = Literal[1, 2, 4]
LossKind = Literal["l1", "l2", "smooth_l1"]
MAX_DILATION = 10_000  # frames, more than a motion has


@dataclass
class VQVAEConfig:
    """Shape of the tokenizer."""

    quantizer: QuantizerName = "fsq"
    """Quantizer of the latent vectors (models/quantizers.py)."""
    levels: list[int] = field(default_factory=lambda: [8, 5, 5, 5])
    """Number of levels in each dimension; the codebook size is their product. For lfq, all levels must be 2."""
    residuals: PositiveInt = 2
    """Number of residual quantizers of rfsq. The codebook size is (product of levels)^residuals."""
    code_dim: PositiveInt = 256
    """Width of the latent before and after quantization."""
    width: PositiveInt = 256
    """Channels of the convolutions."""
    down_t: PositiveInt = 2
    """Number of strided convolutions, each of which halves the frame rate."""
    patch_size: PatchSize = 1
    """Frames packed into one by a Haar wavelet transform before the first convolution; 1 disables it."""
    depth: PositiveInt = 3
    """Residual blocks after each halving (and before each doubling) of the frame rate."""
    dilation_growth: PositiveInt = 3
    """Ratio of the dilations of successive residual blocks. The first block has dilation growth^(depth-1), the last \
has 1."""
    activation: Activation = "relu"
    """Activation inside the residual blocks; outside them it is always relu."""
    norm: Norm = "none"
    """Normalization inside the residual blocks: LayerNorm over the channels (layer) or none."""
    causal: bool = True
    """Use causal convolutions, which streaming requires: tokens do not depend on later frames, nor frames on later \
tokens."""

    def __post_init__(self):
        for name, choices in (("quantizer", QuantizerName), ("activation", Activation), ("norm", Norm)):
            if getattr(self, name) not in get_args(choices):
                raise InputError(f"{name} {getattr(self, name)} is unknown; use one of {', '.join(get_args(choices))}")
        if self.patch_size not in get_args(PatchSize):
            raise InputError(f"patch_size is {self.patch_size}; use 1, 2 or 4")
        for name in ("residuals", "code_dim", "width", "down_t", "depth", "dilation_growth"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} is {getattr(self, name)}; it must be at least 1")
        if self.dilation_growth ** min(self.depth - 1, 64) > MAX_DILATION:
            raise InputError(
                f"depth {self.depth} and dilation_growth {self.dilation_growth} make dilations of more than "
                f"{MAX_DILATION} frames; lower one of them"
            )

    @property
    def stride(self) -> int:
        """Frames per token."""
        return self.patch_size * 2**self.down_t


@dataclass
class MotionLossConfig:
    """Kind of error and weights of the terms; a weight of zero disables a term."""

    kind: LossKind = "smooth_l1"
    """Pointwise error of all terms."""
    features: NonNegativeFloat = 1.0
    """Weight of the error of all 272 normalized features."""
    root: NonNegativeFloat = 0.5
    """Additional weight of the 8 normalized root features, because their errors accumulate over a clip."""
    joints: NonNegativeFloat = 1.0
    """Weight of the joint position error, in decimetres and relative to the root's heading. Applied to the stored \
positions and to the positions computed from the rotations."""
    velocity: NonNegativeFloat = 1.0
    """Weight of the joint velocity error (difference between consecutive frames)."""
    acceleration: NonNegativeFloat = 0.0
    """Weight of the joint acceleration error."""
    path: NonNegativeFloat = 0.5
    """Weight of the error of the root path (ground position and heading), integrated over the window."""

    def __post_init__(self):
        if self.kind not in get_args(LossKind):
            raise InputError(f"loss kind {self.kind} is unknown; use one of {', '.join(get_args(LossKind))}")
