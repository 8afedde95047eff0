"""Configuration of the generator and its sizes; this module imports no PyTorch."""

import math
from dataclasses import dataclass

from utils.errors import InputError

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
    """Configuration of a LLaMAHF; invalid values raise InputError."""

    codebook_size: int
    """Number of motion tokens, the ids 0 .. codebook_size - 1."""
    text_dim: int
    """Width of the text features."""
    text_encoder: str
    """Name of the text encoder."""
    text_length: int
    """Largest number of text features per row."""
    max_tokens: int
    """Largest number of motion tokens per row, end not counted."""
    n_layer: int
    """Number of transformer blocks."""
    n_head: int
    """Number of attention heads per block."""
    n_embd: int
    """Width of the model, a multiple of 2 * n_head."""
    dropout: float = 0.0
    """Dropout of the embeddings and of the residual branches, in training."""
    text_dropout: float = 0.0
    """Probability that a training row gets the null text; above 0, classifier-free guidance is possible."""
    tokenizer: str = ""
    """Fingerprint (``utils.checkpoint.fingerprint``) of the tokenizer of the training data."""
    tie_weights: bool = False
    """Use the token embedding as the output matrix; its output for the pad id is unused."""
    control: int = 0
    """Width of the control signal (``control.signal.SIGNAL_WIDTH``); 0 for a model that takes none."""

    def __post_init__(self) -> None:
        for name in ("codebook_size", "text_dim", "text_length", "max_tokens", "n_layer", "n_head", "n_embd"):
            if getattr(self, name) < 1:
                raise InputError(f"LLaMAConfig.{name} is {getattr(self, name)}; give a number of at least 1")
        if self.control < 0:
            raise InputError(f"LLaMAConfig.control is {self.control}; give the width of a control signal, or 0")
        for name in ("dropout", "text_dropout"):
            if not 0 <= getattr(self, name) < 1:
                raise InputError(f"LLaMAConfig.{name} is {getattr(self, name)}; give at least 0 and less than 1")
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
        """Token id that pads rows on the right; never predicted."""
        return self.codebook_size + 1

    @property
    def vocab_size(self) -> int:
        """Rows of the token embedding: motion ids, end, pad."""
        return self.codebook_size + 2

    @property
    def block_size(self) -> int:
        """Length of the longest sequence: text and motion tokens."""
        return self.text_length + self.max_tokens

    @property
    def head_dim(self) -> int:
        """Width of one attention head."""
        return self.n_embd // self.n_head

    @property
    def mlp_hidden(self) -> int:
        """Hidden width of the SwiGLU: 8/3 of n_embd, rounded up to a multiple of 256."""
        return 256 * math.ceil((8 * self.n_embd // 3) / 256)
