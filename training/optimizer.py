"""AdamW, the learning rate schedule, and the EMA of the weights."""

import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import nn
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor


def adamw(model: nn.Module, learning_rate: float, weight_decay: float) -> torch.optim.AdamW:
    """Build a fused AdamW for the parameters that are trained; it does not decay biases, norms and embeddings."""
    decayed: list[nn.Parameter] = []
    not_decayed: list[nn.Parameter] = []
    embeddings = {id(module.weight) for module in model.modules() if isinstance(module, nn.Embedding)}
    for parameter in filter(lambda parameter: parameter.requires_grad, model.parameters()):
        (not_decayed if parameter.ndim < 2 or id(parameter) in embeddings else decayed).append(parameter)
    groups = [{"params": decayed, "weight_decay": weight_decay}, {"params": not_decayed, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=learning_rate, betas=(0.9, 0.99), fused=True)


def schedule_factor(schedule: str, step: int, steps: int, warmup: int, floor: float = 0.02) -> float:
    """Return the learning rate of a step as a fraction of the peak.

    Args:
        schedule: "constant", or "cosine" for a decay to ``floor``, after ``warmup`` steps of linear warm-up.
    """
    if step < warmup:
        return (step + 1) / warmup
    if schedule == "constant":
        return 1.0
    progress = min(1.0, (step - warmup) / max(1, steps - warmup))
    return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * progress))


class EMA:
    """Exponential moving average of a model's parameters, sharded like them; a decay of 0 disables it.

    Attributes:
        values: Averages by parameter name.
    """

    def __init__(self, model: nn.Module, decay: float):
        self.model, self.decay = model, decay
        parameters = model.named_parameters() if decay else ()
        self.values = {name: parameter.detach().clone() for name, parameter in parameters}

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Move the averages toward the parameters; the decay starts low, so that the initial weights are forgotten."""
        decay = min(self.decay, (1 + step) / (10 + step))
        if self.values:
            averages, parameters = map(_local, self.values.values()), map(_local, self.model.parameters())
            torch._foreach_lerp_(list(averages), list(parameters), 1 - decay)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Replace the model's parameters by the averages, in evaluation mode, inside the context."""
        originals = [parameter.detach().clone() for parameter in self.model.parameters() if self.values]
        was_training = self.model.training
        try:
            self._copy_to_model(self.values.values())
            self.model.eval()
            yield
        finally:
            self._copy_to_model(originals)
            self.model.train(was_training)

    @torch.no_grad()
    def _copy_to_model(self, values: Iterable[torch.Tensor]) -> None:
        for module in self.model.modules():
            if isinstance(module, FSDPModule):
                module.reshard()  # a forward pass without a backward pass leaves unsharded parameters behind
        for parameter, value in zip(self.model.parameters(), values, strict=False):
            parameter.copy_(value)


def _local(tensor: torch.Tensor) -> torch.Tensor:
    """Return this process's shard of a tensor."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor.detach()
