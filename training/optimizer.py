"""The optimizer of the trainings, its schedule, and the average of the weights."""

import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import nn
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor


def adamw(model: nn.Module, learning_rate: float, weight_decay: float) -> torch.optim.AdamW:
    """AdamW (fused) without decay on biases, norms and embeddings."""
    decayed, plain = [], []
    embeddings = {id(module.weight) for module in model.modules() if isinstance(module, nn.Embedding)}
    for parameter in model.parameters():
        (plain if parameter.ndim < 2 or id(parameter) in embeddings else decayed).append(parameter)
    groups = [{"params": decayed, "weight_decay": weight_decay}, {"params": plain, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=learning_rate, betas=(0.9, 0.99), fused=True)


def rate(schedule: str, step: int, steps: int, warmup: int, floor: float = 0.02) -> float:
    """Share of the peak learning rate at a step: linear warm-up, then "constant" or a "cosine" down to ``floor``."""
    if step < warmup:
        return (step + 1) / warmup
    if schedule == "constant":
        return 1.0
    progress = min(1.0, (step - warmup) / max(1, steps - warmup))
    return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * progress))


class Average:
    """Exponential moving average of a model's parameters, sharded as they are; with a decay of 0 there is none.

    Attributes:
        values: The averages by the parameters' names.
    """

    def __init__(self, model: nn.Module, decay: float):
        self.model, self.decay = model, decay
        parameters = model.named_parameters() if decay else ()
        self.values = {name: parameter.detach().clone() for name, parameter in parameters}

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Move toward the parameters; the decay grows with the first steps, so that the start is forgotten."""
        decay = min(self.decay, (1 + step) / (10 + step))
        if self.values:
            ours, theirs = map(_local, self.values.values()), map(_local, self.model.parameters())
            torch._foreach_lerp_(list(ours), list(theirs), 1 - decay)

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """The model has the averages for parameters, and is in evaluation mode, inside."""
        kept = [parameter.detach().clone() for parameter in self.model.parameters() if self.values]
        training = self.model.training
        try:
            self._put(self.values.values())
            self.model.eval()
            yield
        finally:
            self._put(kept)
            self.model.train(training)

    @torch.no_grad()
    def _put(self, values: Iterable[torch.Tensor]) -> None:
        for module in self.model.modules():
            if isinstance(module, FSDPModule):
                module.reshard()  # a forward pass without a backward pass leaves whole parameters behind
        for parameter, value in zip(self.model.parameters(), values, strict=False):
            parameter.copy_(value)


def _local(tensor: torch.Tensor) -> torch.Tensor:
    """This process's part of a tensor."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor.detach()
