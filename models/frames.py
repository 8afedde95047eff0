"""Frames of one streamed motion, token by token: by a compiled function on a CPU, else by ``decode_chunk``."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from models.few_rows import IN_USE, kernels
from models.motion_vqvae import Conv, HumanVQVAE, State
from motion.features272 import FEATURES

THREADS = 2  # a token takes too little time for more


def compiled_weights(tokenizer: HumanVQVAE) -> Any:
    """Return a copy of the decoder's weights for ``FrameStream``, and compile the function.

    Returns:
        None for a tokenizer on a GPU, one whose decoder has other layers than the compiled function, or without numba.
    """
    config, kind = tokenizer.config, (tokenizer.mean.device.type, tokenizer.decoder.conv_in.weight.dtype)
    plain = config.causal and config.norm == "none" and config.activation == "relu" and config.patch_size == 1
    if not plain or kind != ("cpu", torch.float32) or kernels() is None:
        return None
    from models import frame_kernels

    decoder: Any = tokenizer.decoder
    stages = [[*stage["blocks"]] for stage in decoder.stages]
    up, up_bias = _stacked([[_layer(stage["up"])] for stage in decoder.stages])
    weights = frame_kernels.Weights(
        *_layer(decoder.conv_in),
        *_stacked([[_layer(block.conv1) for block in stage] for stage in stages]),
        *_stacked([[_layer(block.conv2) for block in stage] for stage in stages]),
        up[:, 0],
        up_bias[:, 0],
        *_layer(decoder.conv_mid),
        *_layer(decoder.conv_out),
        np.array([block.conv1.dilation[0] for block in stages[0]]),
        np.ones(max(config.width, FEATURES), dtype=np.float32),
    )
    FrameStream(tokenizer, weights).next([0])
    return weights


def _layer(conv: Conv) -> tuple[np.ndarray, np.ndarray]:
    """Return weight (C', kernel * C), the oldest input first, and bias (C',)."""
    assert conv.bias is not None
    return conv.weight.detach().transpose(1, 2).flatten(1).contiguous().numpy(), conv.bias.detach().numpy()


def _stacked(layers: list[list[tuple[np.ndarray, np.ndarray]]]) -> tuple[np.ndarray, np.ndarray]:
    """Return weights and biases of layers of one shape, stage by stage, as two arrays."""
    weights, biases = (np.array([[layer[part] for layer in stage] for stage in layers]) for part in (0, 1))
    return weights, biases


class FrameStream:
    """The frames of one motion, from its first token on.

    Args:
        tokenizer: Causal.
        weights: Its ``compiled_weights``.
    """

    def __init__(self, tokenizer: HumanVQVAE, weights: Any) -> None:
        self.tokenizer = tokenizer
        self.state: State | None = None
        self.decode = self._by_pytorch
        if weights is not None and kernels() is not None:
            self.decode = self._compiled
            self._allocate(weights)

    @torch.inference_mode()
    def next(self, tokens: list[int]) -> np.ndarray:
        """Return the features (n * stride, 272), not normalized, of the next n tokens."""
        ids = torch.tensor([tokens], device=self.tokenizer.mean.device)
        return self.tokenizer.denormalize(self.decode(ids))[0].cpu().numpy()

    def _by_pytorch(self, tokens: Tensor) -> Tensor:
        motion, self.state = self.tokenizer.decode_chunk(tokens, self.state)
        return motion

    def _compiled(self, tokens: Tensor) -> Tensor:
        from models.frame_kernels import decode_token

        codes = self.tokenizer.quantizer.dequantize(tokens).numpy()  # (1, n, code_dim)
        frames = torch.empty(1, tokens.shape[1], self.tokenizer.config.stride, FEATURES)
        threads = min(THREADS, torch.get_num_threads(), kernels().most_threads())
        with IN_USE:
            kernels().set_num_threads(threads)
            for index, code in enumerate(codes.swapaxes(0, 1)):  # (1, code_dim)
                number, result = self.number + index, frames[0, index].numpy()
                decode_token(code, number, self.weights, self.rings, self.scratch, result)
        self.number += tokens.shape[1]
        return frames.flatten(1, 2)

    def _allocate(self, weights: Any) -> None:
        from models.frame_kernels import Rings, Scratch

        self.weights, self.number = weights, 0
        stages, blocks, width, _ = weights.dilated.shape
        code_dim = weights.first.shape[1] // 3
        frames, longest = 2**stages, int(weights.dilations.max())
        length = 2 * longest + frames

        def zeros(*shape: int) -> np.ndarray:
            return np.zeros(shape, dtype=np.float32)

        self.rings = Rings(
            zeros(3, code_dim),
            zeros(stages, blocks, length, width),
            zeros(stages, frames + 2, width),
            zeros(frames + 2, width),
            zeros(frames + 2, width),
        )
        self.scratch = Scratch(zeros(frames, width), zeros(frames, width), zeros(frames, 3 * max(width, code_dim)))
