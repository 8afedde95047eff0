"""The engines under a training: processes as Accelerate has started them, and what each engine keeps where."""

import os
from pathlib import Path

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
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_state_dict,
    set_state_dict,
)
from torch.distributed.fsdp import MixedPrecisionPolicy, register_fsdp_forward_method

from training.optimizer import Average
from training.state import load_tensors, save_tensors
from utils.checkpoint import PretrainedModel, without_tied_duplicates

FLAT = StateDictOptions(flatten_optimizer_state_dict=True)
WHOLE = StateDictOptions(full_state_dict=True, cpu_offload=True)


def make_accelerator(
    device: torch.device, dtype: torch.dtype, accumulate: int, clip_norm: float, trackers: list[str], out: Path
) -> Accelerator:
    """The processes of a run, as ``accelerate launch`` or ``torchrun`` has started them, or this one alone."""
    if device.index is not None:
        os.environ["ACCELERATE_TORCH_DEVICE"] = str(device)
    bf16, plugins = dtype == torch.bfloat16, {}
    if os.environ.get("ACCELERATE_USE_FSDP") == "true":
        policy = MixedPrecisionPolicy(param_dtype=dtype, reduce_dtype=torch.float32)
        plugins["fsdp_plugin"] = FullyShardedDataParallelPlugin(fsdp_version=2, mixed_precision_policy=policy)
    elif os.environ.get("ACCELERATE_USE_DEEPSPEED") == "true":
        plugins["deepspeed_plugin"] = DeepSpeedPlugin(
            gradient_accumulation_steps=accumulate, gradient_clipping=clip_norm
        )
        plugins["deepspeed_plugin"].deepspeed_config |= {
            "train_micro_batch_size_per_gpu": 1,  # only for its own count of samples
            "zero_allow_untested_optimizer": True,
            "torch_autocast": {"enabled": bf16, "dtype": "bfloat16"},  # keeps float32 weights, which "bf16" does not
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
        # Accelerate shards on GPUs alone, though its code for it runs on CPUs as well: which is how it is tested here.
        engine = DistributedType.FSDP if "fsdp_plugin" in plugins else DistributedType.DEEPSPEED
        for state in (PartialState._shared_state, AcceleratorState._shared_state):
            state |= {"distributed_type": engine, "deepspeed_plugins": plugins.get("deepspeed_plugin")} | plugins
    return accelerator


class Engine:
    """A model with its optimizer and average in the hands of an engine.

    Attributes:
        wrapped: What the forward pass is called through. optimizer: Steps on all processes alike.
        is_sharded: Whether a process alone has not all weights, so that all must use the model together.
    """

    def __init__(self, accelerator: Accelerator, model: PretrainedModel, optimizer: torch.optim.Optimizer, ema: float):
        self.accelerator, self.model = accelerator, model
        self.wrapped, self.optimizer = accelerator.prepare(model, optimizer)
        self.average = Average(model, ema)
        self.is_sharded = accelerator.distributed_type == DistributedType.FSDP
        if self.is_sharded:
            for name in model.forward_methods:
                register_fsdp_forward_method(model, name)

    def write_state(self, folder: Path) -> None:
        """Write this process's part of the state of the run; all processes call it."""
        if self.accelerator.distributed_type == DistributedType.DEEPSPEED:
            self.wrapped.save_checkpoint(str(folder), tag="engine")
            save_tensors(self._averages(), folder)
        else:
            save_tensors(self._tensors()[0], folder)
        random_state = {"cpu": torch.get_rng_state()}
        if self.accelerator.device.type == "cuda":
            random_state["cuda"] = torch.cuda.get_rng_state(self.accelerator.device)
        save_file(random_state, folder / self._random_file())

    def read_state(self, folder: Path) -> None:
        """Read what ``write_state`` wrote, with as many processes or with others.

        Random numbers go on where they were, but in a process that the run did not have.

        Raises:
            ValueError: it is of another model.
        """
        if self.accelerator.distributed_type == DistributedType.DEEPSPEED:
            self.wrapped.load_checkpoint(str(folder), tag="engine")
            load_tensors(self._averages(), folder)
        else:
            tensors, (model, optimizer) = self._tensors()
            load_tensors(tensors, folder)
            inner = self.optimizer.optimizer
            set_state_dict(self.model, inner, model_state_dict=model, optim_state_dict=optimizer, options=FLAT)
        if (folder / self._random_file()).is_file():
            random_state = load_file(folder / self._random_file())
            torch.set_rng_state(random_state["cpu"])
            if self.accelerator.device.type == "cuda" and "cuda" in random_state:
                torch.cuda.set_rng_state(random_state["cuda"], self.accelerator.device)

    def whole_weights(self) -> dict[str, torch.Tensor]:
        """The model's weights on the CPU of the main process, put together from all; they may share its memory."""
        return {  # one put together from unequal shards lies in a larger storage, which safetensors refuses
            name: weight if weight.untyped_storage().nbytes() == weight.nbytes else weight.clone()
            for name, weight in get_model_state_dict(self.model, options=WHOLE).items()
        }

    def _tensors(self) -> tuple[dict[str, torch.Tensor], tuple[dict, dict]]:
        """All tensors that make the state of the run, by name, and PyTorch's two state dicts that they are from."""
        model, optimizer = get_state_dict(self.model, self.optimizer.optimizer, options=FLAT)
        tensors = {f"model.{name}": value for name, value in without_tied_duplicates(self.model, model).items()}
        tensors |= {f"optimizer.{name}": value for name, value in optimizer.items() if torch.is_tensor(value)}
        return tensors | self._averages(), (model, optimizer)

    def _averages(self) -> dict[str, torch.Tensor]:
        return {f"average.{name}": value for name, value in self.average.values.items()}

    def _random_file(self) -> str:
        return f"random-{self.accelerator.process_index:05d}.safetensors"
