"""The training engines: Accelerate's DDP, FSDP2 and DeepSpeed ZeRO-2, or a single process."""

import os
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, cast

import torch
from accelerate import Accelerator, DeepSpeedPlugin, FullyShardedDataParallelPlugin, PartialState
from accelerate.state import AcceleratorState
from accelerate.utils import (
    DistributedDataParallelKwargs,
    DistributedType,
    GradientAccumulationPlugin,
    ProjectConfiguration,
    broadcast_object_list,
)
from safetensors.torch import load_file, save_file
from torch import nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_state_dict,
    set_state_dict,
)
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard, register_fsdp_forward_method
from torch.utils.checkpoint import checkpoint

from training.optimizer import EMA
from training.state import load_tensors, save_tensors
from utils.checkpoint import PretrainedModel, without_tied_duplicates

FLATTENED = StateDictOptions(flatten_optimizer_state_dict=True)
SHARDED = (DistributedType.FSDP, DistributedType.DEEPSPEED)  # engines that shard weights or optimizer states
LONGEST_WAIT = timedelta(hours=6)  # of processes for one that downloads weights, renders or writes
UNSHARDED_ON_CPU = StateDictOptions(full_state_dict=True, cpu_offload=True)


def connect_processes(device: torch.device, dtype: torch.dtype) -> torch.dtype:
    """Connect the processes that ``accelerate launch`` or ``torchrun`` started.

    Returns:
        The precision of the main process, for all: with "auto", each process chose by its own measurement.
    """
    if device.index is not None:
        os.environ["ACCELERATE_TORCH_DEVICE"] = str(device)
    PartialState(cpu=device.type == "cpu", timeout=LONGEST_WAIT)
    return broadcast_object_list([dtype])[0]


def make_accelerator(
    device: torch.device, dtype: torch.dtype, accumulate: int, clip_norm: float, trackers: list[str], out: Path
) -> Accelerator:
    """Create the Accelerator for the processes that ``connect_processes`` connected, or for this one."""
    bf16 = dtype == torch.bfloat16
    plugins: dict[str, Any] = {}
    if os.environ.get("ACCELERATE_USE_FSDP") == "true":
        plugins["fsdp_plugin"] = FullyShardedDataParallelPlugin(fsdp_version=2)
    elif os.environ.get("ACCELERATE_USE_DEEPSPEED") == "true":
        plugins["deepspeed_plugin"] = DeepSpeedPlugin(
            gradient_accumulation_steps=accumulate, gradient_clipping=clip_norm
        )
        plugins["deepspeed_plugin"].deepspeed_config |= {
            "train_micro_batch_size_per_gpu": 1,  # used only for DeepSpeed's own count of samples
            "zero_allow_untested_optimizer": True,
            "torch_autocast": {"enabled": bf16, "dtype": "bfloat16"},  # keeps float32 weights; "bf16" does not
        }
    accelerator = Accelerator(
        cpu=device.type == "cpu",
        mixed_precision="bf16" if bf16 and "deepspeed_plugin" not in plugins else "no",
        gradient_accumulation_plugin=GradientAccumulationPlugin(accumulate, sync_with_dataloader=False),
        kwargs_handlers=[DistributedDataParallelKwargs(gradient_as_bucket_view=True)],
        log_with=trackers,
        project_config=ProjectConfiguration(out, logging_dir=str(out / "tensorboard")),
        **plugins,
    )
    if plugins and accelerator.distributed_type == DistributedType.MULTI_CPU:
        # Accelerate selects these engines on GPUs only, but its code for them also runs on CPUs, where it is tested.
        engine = DistributedType.FSDP if "fsdp_plugin" in plugins else DistributedType.DEEPSPEED
        for state in (PartialState._shared_state, AcceleratorState._shared_state):
            state |= {"distributed_type": engine, "deepspeed_plugins": plugins.get("deepspeed_plugin")} | plugins
    return accelerator


def configure_blocks(model: PretrainedModel, recompute: bool, compiled: bool) -> None:
    """Set up activation checkpointing and torch.compile for each block of a model, in place."""
    for module in model.modules():
        if type(module).__name__ in model._no_split_modules:
            if recompute:
                module.forward = partial(checkpoint, module.forward, use_reentrant=False)
            if compiled:
                module.compile(dynamic=True)


def shard(model: PretrainedModel, dtype: torch.dtype) -> None:
    """Shard a model over all processes with FSDP2, in place; the arithmetic is that of the other engines.

    The layers inside the blocks are gathered in ``dtype``, the precision that autocast would convert their matrices to,
    and each is freed after use. Norms and everything outside the blocks are gathered in float32, and so is the sum of
    the gradients. Inputs are not cast: that is left to autocast.
    """
    in_dtype = MixedPrecisionPolicy(param_dtype=dtype, reduce_dtype=torch.float32, cast_forward_inputs=False)
    in_float32 = MixedPrecisionPolicy(cast_forward_inputs=False)
    for block in (module for module in model.modules() if type(module).__name__ in model._no_split_modules):
        for layer in block.children():
            if any(parameter.ndim > 1 for parameter in layer.parameters()):
                fully_shard(layer, mp_policy=in_dtype)
    fully_shard(model, mp_policy=in_float32)
    if dtype != torch.float32:
        device = next(model.parameters()).device.type
        for name in ("forward", *model.forward_methods):
            setattr(model, name, torch.autocast(device, dtype)(getattr(model, name)))
    for name in model.forward_methods:
        register_fsdp_forward_method(model, name)


class StateDicts(NamedTuple):
    """State dicts of a run on this process."""

    tensors: dict[str, torch.Tensor]  # all tensors of the state by name, sharing memory with the model and optimizer
    model: dict[str, Any]  # PyTorch's state dict of the model
    optimizer: dict[str, Any]  # PyTorch's flattened state dict of the optimizer


class Engine:
    """A model with its optimizer and EMA, distributed over the processes of a run.

    Args:
        accelerator: From ``make_accelerator``.
        model: On the device; sharded by ``shard`` if the engine is FSDP2.
        optimizer: Optimizer of its parameters.
        ema: Decay of the EMA; 0 disables it.

    Attributes:
        model: The model itself.
        wrapped: Wrapped model to call for the forward pass.
        optimizer: Wrapped optimizer, which takes the same step in all processes.
        ema: EMA of the weights.
        is_sharded: Whether each process holds only a shard of the weights, so that all must call the model together.
    """

    def __init__(self, accelerator: Accelerator, model: PretrainedModel, optimizer: torch.optim.Optimizer, ema: float):
        self.accelerator, self.model = accelerator, model
        self.is_sharded = accelerator.distributed_type == DistributedType.FSDP
        prepared: tuple[nn.Module, Any] = (
            (model, accelerator.prepare_optimizer(optimizer))
            if self.is_sharded
            else accelerator.prepare(model, optimizer)
        )
        self.wrapped, self.optimizer = prepared
        self.ema = EMA(model, ema)

    def write_state(self, folder: Path) -> None:
        """Write this process's part of the state of the run; all processes must call it."""
        if self.accelerator.distributed_type == DistributedType.DEEPSPEED:
            cast(Any, self.wrapped).save_checkpoint(str(folder), tag="engine")
            save_tensors(self._averages(), folder)
        else:
            save_tensors(self._state_dicts().tensors, folder)
        random_state, kind = {"cpu": torch.get_rng_state()}, self.accelerator.device.type
        if kind != "cpu":
            random_state[kind] = torch.get_device_module(kind).get_rng_state()
        save_file(random_state, folder / self._random_file())

    def read_state(self, folder: Path) -> None:
        """Restore a state written by ``write_state``, with any number of processes.

        Random number generators are restored too, except in a process that the run did not have when it was saved.

        Raises:
            ValueError: the state belongs to another model.
        """
        if self.accelerator.distributed_type == DistributedType.DEEPSPEED:
            cast(Any, self.wrapped).load_checkpoint(str(folder), tag="engine")
            load_tensors(self._averages(), folder)
        else:
            state = self._state_dicts()
            load_tensors(state.tensors, folder)
            set_state_dict(
                self.model,
                self.optimizer.optimizer,
                model_state_dict=state.model,
                optim_state_dict=cast(Any, state.optimizer),
                options=FLATTENED,
            )
        if (folder / self._random_file()).is_file():
            random_state = load_file(folder / self._random_file())
            torch.set_rng_state(random_state["cpu"])
            kind = self.accelerator.device.type
            if kind != "cpu" and kind in random_state:
                torch.get_device_module(kind).set_rng_state(random_state[kind])

    def full_weights(self) -> dict[str, torch.Tensor]:
        """Gather the unsharded weights on the CPU of the main process; they may share memory with the model."""
        weights = cast(dict[str, torch.Tensor], get_model_state_dict(self.model, options=UNSHARDED_ON_CPU))
        return {  # a weight gathered from unequal shards lies in a larger storage, which safetensors rejects
            name: weight if weight.untyped_storage().nbytes() == weight.nbytes else weight.clone()
            for name, weight in weights.items()
        }

    def _state_dicts(self) -> StateDicts:
        model, optimizer_state = get_state_dict(self.model, self.optimizer.optimizer, options=FLATTENED)
        weights = without_tied_duplicates(self.model, cast(dict[str, torch.Tensor], model))
        optimizer = cast(dict[str, Any], optimizer_state)
        tensors = {f"model.{name}": value for name, value in weights.items()}
        tensors |= {f"optimizer.{name}": value for name, value in optimizer.items() if torch.is_tensor(value)}
        return StateDicts(tensors | self._averages(), model, optimizer)

    def _averages(self) -> dict[str, torch.Tensor]:
        return {f"average.{name}": value for name, value in self.ema.values.items()}

    def _random_file(self) -> str:
        return f"random-{self.accelerator.process_index:05d}.safetensors"
