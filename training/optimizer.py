"""AdamW and Muon, the learning rate schedule, and the EMA of the weights."""

import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor

MOMENTUM = 0.95  # of Muon


class Muon(torch.optim.AdamW):
    """Muon for the groups of parameters with ``muon``: True, AdamW for the others, with one learning rate.

    The momentum of a weight matrix is replaced by a nearly orthogonal matrix, so that all its directions take steps of
    equal length (Jordan et al., "Muon", 2024). A step is scaled to the usual size of an AdamW step (Liu et al., "Muon
    is scalable for LLM training", 2025). The kernel of a convolution counts as a matrix with a row per output channel.
    ``torch.optim.Muon`` takes neither convolutions nor AdamW groups, and computes in bf16, which is slow on many CPUs.
    """

    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Take a step."""
        groups = self.param_groups
        self.param_groups = [group for group in groups if not group["muon"]]
        super().step()
        self.param_groups = groups
        for group in groups:
            if group["muon"]:
                self._muon_step(group)

    @torch.no_grad()
    def _muon_step(self, group: dict) -> None:
        for parameter in group["params"]:
            if parameter.grad is None:
                continue
            state = self.state[parameter]
            if not state:
                state["step"] = torch.zeros(())  # unused, but AdamW expects it in a state that it loads
                state["momentum"] = torch.zeros_like(parameter)
            state["momentum"].lerp_(parameter.grad, 1 - MOMENTUM)
            direction = orthogonal(parameter.grad.lerp(state["momentum"], MOMENTUM).flatten(1))
            parameter.mul_(1 - group["lr"] * group["weight_decay"])
            parameter.add_(direction.view_as(parameter), alpha=-group["lr"] * 0.2 * max(direction.shape) ** 0.5)


def orthogonal(matrix: Tensor) -> Tensor:
    """Return a matrix (N, M) with the singular vectors of ``matrix`` and singular values between 0.7 and 1.2.

    Small singular values, below a thousandth of the norm, may stay smaller. Five steps of the Newton-Schulz iteration
    with the coefficients of Jordan et al.
    """
    matrix = matrix / (torch.linalg.norm(matrix) + 1e-7)
    wide = matrix.T if matrix.shape[0] > matrix.shape[1] else matrix
    for _ in range(5):
        square = wide @ wide.T
        wide = 3.4445 * wide + (2.0315 * square @ square - 4.7750 * square) @ wide
    return wide.T if matrix.shape[0] > matrix.shape[1] else wide


def make_optimizer(model: nn.Module, name: str, learning_rate: float, weight_decay: float) -> torch.optim.AdamW:
    """Build the optimizer of the parameters that are trained.

    Biases, norms and embeddings are not decayed. Muon trains the other weights but those of the output layer
    ``lm_head``, whose rows, like those of embeddings, each belong to one token.

    Args:
        name: "adamw" or "muon".
    """
    embeddings = {id(module.weight) for module in model.modules() if isinstance(module, nn.Embedding)}
    kinds: dict[str, list[nn.Parameter]] = {"matrices": [], "output": [], "others": []}
    for parameter_name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        is_matrix = parameter.ndim > 1 and id(parameter) not in embeddings
        kind = "others" if not is_matrix else "output" if parameter_name.startswith("lm_head.") else "matrices"
        kinds[kind].append(parameter)
    groups = [
        {"params": parameters, "weight_decay": 0.0 if kind == "others" else weight_decay, "muon": kind == "matrices"}
        for kind, parameters in kinds.items()
        if parameters
    ]
    return (Muon if name == "muon" else torch.optim.AdamW)(groups, lr=learning_rate, betas=(0.9, 0.99), fused=True)


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
