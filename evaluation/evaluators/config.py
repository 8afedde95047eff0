"""Configuration of our own evaluator; this module imports no PyTorch."""

from dataclasses import dataclass

from jsonargparse.typing import ClosedUnitInterval, PositiveInt

from models.encoder_names import encoder_width
from utils.errors import InputError

PATCH = 4  # frames per step of the motion transformer


@dataclass
class EvaluatorConfig:
    """Shape of the evaluator."""

    text_encoder: str = "minilm"
    """Frozen text encoder, as in train_t2m.py."""
    embedding: PositiveInt = 256
    """Width of the embeddings."""
    width: PositiveInt = 256
    """Width of the transformers."""
    heads: PositiveInt = 4
    """Attention heads per layer."""
    motion_layers: PositiveInt = 4
    """Layers of the motion transformer."""
    text_layers: PositiveInt = 1
    """Layers of the text transformer."""
    dropout: ClosedUnitInterval = 0.1
    """Dropout rate of the layers."""
    min_frames: PositiveInt = 20
    """Length of the shortest motion in frames."""
    max_frames: PositiveInt = 600
    """Length of the longest motion in frames."""

    def __post_init__(self):
        encoder_width(self.text_encoder)  # rejects unknown names
        if self.width % (2 * self.heads):
            raise InputError(f"width {self.width} is not a multiple of {2 * self.heads}, twice the heads; change one")
        if not PATCH <= self.min_frames <= self.max_frames:
            raise InputError(
                f"min_frames is {self.min_frames} and max_frames {self.max_frames}; min_frames must be at least "
                f"{PATCH} and at most max_frames"
            )
