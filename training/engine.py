"""The training engines: Accelerate's DDP, FSDP2 and DeepSpeed ZeRO-2, or a single process."""

import os
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
)
from safetensors.torch import load_file, save_file
from torch import nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_state_dict,
    set_state_dict,
)
from torch.distributed.fsdp import MixedPrecisionPolicy, register_fsdp_forward_method
from torch.utils.checkpoint import checkpoint

from training.optimizer import EMA
from training.state import load_tensors, save_tensors
from utils.checkpoint import PretrainedModel, without_tied_duplicates

FLATTENED = StateDictOptions(flatten_optimizer_state_dict=True)
SHARDED = (DistributedType.FSDP, DistributedType.DEEPSPEED)  # engines that shard weights or optimizer states
UNSHARDED_ON_CPU = StateDictOptions(full_state_dict=True, cpu_offload=True)


def make_accelerator(
    device: torch.device, dtype: torch.dtype, accumulate: int, clip_norm: float, trackers: list[str], out: Path
) -> Accelerator:
    """Create the Accelerator for the processes that ``accelerate launch`` or ``torchrun`` started, or for this one."""
    if device.index is not None:
        os.environ["ACCELERATE_TORCH_DEVICE"] = str(device)
    bf16 = dtype == torch.bfloat16
    plugins: dict[str, Any] = {}
    if os.environ.get("ACCELERATE_USE_FSDP") == "true":
        policy = MixedPrecisionPolicy(param_dtype=dtype, reduce_dtype=torch.float32)
        plugins["fsdp_plugin"] = FullyShardedDataParallelPlugin(fsdp_version=2, mixed_precision_policy=policy)
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


class StateDicts(NamedTuple):
    """State dicts of a run on this process."""

    tensors: dict[str, torch.Tensor]  # all tensors of the state by name, sharing memory with the model and optimizer
    model: dict[str, Any]  # PyTorch's state dict of the model
    optimizer: dict[str, Any]  # PyTorch's flattened state dict of the optimizer


class Engine:
    """A model with its optimizer and EMA, distributed over the processes of a run.

    Attributes:
        model: The model itself.
        wrapped: Wrapped model to call for the forward pass.
        optimizer: Wrapped optimizer, which takes the same step in all processes.
        ema: EMA of the weights.
        is_sharded: Whether each process holds only a shard of the weights, so that all must call the model together.
    """

    def __init__(self, accelerator: Accelerator, model: PretrainedModel, optimizer: torch.optim.Optimizer, ema: float):
        self.accelerator, self.model = accelerator, model
        prepared: tuple[nn.Module, Any] = accelerator.prepare(model, optimizer)
        self.wrapped, self.optimizer = prepared
        self.ema = EMA(model, ema)
        self.is_sharded = accelerator.distributed_type == DistributedType.FSDP
        if self.is_sharded:
            for name in model.forward_methods:
                register_fsdp_forward_method(model, name)

    def write_state(self, folder: Path) -> None:
        """Write this process's part of the state of the run; all processes must call it."""
        if self.accelerator.distributed_type == DistributedType.DEEPSPEED:
            cast(Any, self.wrapped).save_checkpoint(str(folder), tag="engine")
            save_tensors(self._averages(), folder)
        else:
            save_tensors(self._state_dicts().tensors, folder)
        random_state = {"cpu": torch.get_rng_state()}
        if self.accelerator.device.type == "cuda":
            random_state["cuda"] = torch.cuda.get_rng_state(self.accelerator.device)
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
            if self.accelerator.device.type == "cuda" and "cuda" in random_state:
                torch.cuda.set_rng_state(random_state["cuda"], self.accelerator.device)

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
