"""What both training scripts share: options, device, data order, and all that surrounds the forward pass."""

import copy
import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import torch
from jsonargparse.typing import ClosedUnitInterval, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt
from torch import nn
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from dataset.batches import EndlessBatches
from utils.checkpoint import PretrainedModel, load_state, save_model, save_state
from utils.errors import InputError
from utils.files import written_whole

PRECISIONS = {"float32": torch.float32, "bf16": torch.bfloat16, "float16": torch.float16}


def choose_device(device: str, precision: str, training: bool = True) -> tuple[torch.device, torch.dtype, str]:
    """Resolve "auto" for device and precision; also a sentence that gives the reason.

    Args:
        device: auto, cpu, cuda, cuda:1, ... precision: auto or one of ``PRECISIONS``; float16 is not for training.
        training: bf16 wherever the device has it; otherwise float32 on a CPU, where it makes motions independent of
            each other, and float16 where a GPU lacks bf16.

    Raises:
        InputError: there is no such device or precision.
    """
    choices = [name for name in ("auto", *PRECISIONS) if not (training and name == "float16")]
    if precision not in choices:
        raise InputError(f"precision {precision} is unknown; use {', '.join(choices[:-1])} or {choices[-1]}")
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise InputError(
            f"device {device} cannot be used here ({str(error).splitlines()[0]}); use auto or cpu"
        ) from error
    on_cuda = device.startswith("cuda")
    has_bf16 = (
        torch.cuda.is_bf16_supported(including_emulation=False) if on_cuda else torch.cpu._is_avx512_bf16_supported()
    )
    reason = "asked for"
    if precision == "auto" and (training or on_cuda):
        reason = f"the device {'has' if has_bf16 else 'lacks'} bf16 arithmetic"
        precision = "bf16" if has_bf16 else "float32" if training else "float16"
    elif precision == "auto":
        precision, reason = "float32", "on a CPU, motions are then the same in any batch"
    name = torch.cuda.get_device_name(device) if on_cuda else f"{torch.get_num_threads()} CPU threads"
    return torch.device(device), PRECISIONS[precision], f"running on {device} ({name}) in {precision}: {reason}"


def warmup_cosine(step: int, steps: int, warmup: int, floor: float = 0.02) -> float:
    """Share of the peak learning rate at a step: linear warm-up, then a cosine down to ``floor``."""
    if step < warmup:
        return (step + 1) / warmup
    progress = min(1.0, (step - warmup) / max(1, steps - warmup))
    return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * progress))


class Ema:
    """Exponential moving average of a model's weights; ``ema.model`` is the averaged copy."""

    def __init__(self, model: nn.Module, decay: float):
        self.model, self.decay = copy.deepcopy(model).eval().requires_grad_(False), decay

    @torch.no_grad()
    def update(self, model: nn.Module, step: int) -> None:
        """Move toward ``model``; the decay grows with the first steps, so that the start is forgotten."""
        decay = min(self.decay, (1 + step) / (10 + step))
        ours, theirs = list(self.model.parameters()), list(model.parameters())
        torch._foreach_lerp_(ours, theirs, 1 - decay)


def adamw(model: nn.Module, learning_rate: float, weight_decay: float) -> torch.optim.AdamW:
    """AdamW (fused) without decay on biases, norms and embeddings."""
    decayed, plain = [], []
    embeddings = {id(module.weight) for module in model.modules() if isinstance(module, nn.Embedding)}
    for parameter in model.parameters():
        (plain if parameter.ndim < 2 or id(parameter) in embeddings else decayed).append(parameter)
    groups = [{"params": decayed, "weight_decay": weight_decay}, {"params": plain, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=learning_rate, betas=(0.9, 0.99), fused=True)


@dataclass(kw_only=True)
class TrainingOptions:
    """Options that both trainings have.

    Attributes:
        data: Data folder made by prepare_data.py, or one in MotionMillion's or HumanML3D-272's layout.
        out: Run folder to write.
        resume: Continue the run in ``out`` from its last saved state.
        batch_size: Windows or clips a step.
        steps: Training steps.
        learning_rate: Peak learning rate of AdamW.
        warmup: Steps of linear warm-up; then a cosine.
        weight_decay: Of AdamW, not on biases, norms and embeddings.
        clip_norm: Largest gradient norm.
        ema: Decay of the weight average that is validated and saved.
        validate_every: Steps between validations on the val split, each with a save.
        device: auto, cpu, cuda, cuda:1, ...
        precision: auto, float32 or bf16 (autocast over float32 weights).
        save_precision: float32, or float16 for a checkpoint of half the size.
        workers: Processes that load data; 0 loads in the training process.
        seed: Of weights, dropout and data order.
    """

    data: Path
    out: Path
    resume: bool = False
    batch_size: PositiveInt = 64
    steps: PositiveInt = 5000
    learning_rate: PositiveFloat = 5e-4
    warmup: NonNegativeInt = 200
    weight_decay: NonNegativeFloat = 0.01
    clip_norm: PositiveFloat = 1.0
    ema: ClosedUnitInterval = 0.99
    validate_every: PositiveInt = 500
    device: str = "auto"
    precision: Literal["auto", "float32", "bf16"] = "auto"
    save_precision: Literal["float32", "float16"] = "float32"
    workers: NonNegativeInt = 0
    seed: NonNegativeInt = 0


class Training:
    """What surrounds the forward pass of a run: optimizer, schedule, weight average, progress, logs, saving, resuming.

    The run folder gets train.yaml (the options), the averaged model (config.json, model.safetensors), state.pt and
    TensorBoard logs.

    Raises:
        InputError: ``resume`` is asked for and there is no state to resume from, or it does not fit the model.
    """

    def __init__(self, options: TrainingOptions, options_yaml: str, model: PretrainedModel):
        self.options, self.model = options, model
        if not options.resume and (options.out / "state.pt").exists():
            raise InputError(f"{options.out} holds a run already; go on with --resume true, or choose another --out")
        self.optimizer = adamw(model, options.learning_rate, options.weight_decay)
        self.ema = Ema(model, options.ema)
        self.first_step = self._restore() if options.resume else 0
        with written_whole(options.out / "train.yaml") as file:
            file.write_text(options_yaml)
        self.board = SummaryWriter(options.out / "tensorboard")
        self.progress = tqdm(initial=self.first_step, total=options.steps, unit="step", mininterval=1)
        parameters = sum(parameter.numel() for parameter in model.parameters())
        print(f"{parameters / 1e6:.1f} M parameters, steps {self.first_step} to {options.steps}")

    def batches(self, count: int) -> EndlessBatches:
        """The order in which this run sees ``count`` items, from its first step."""
        return EndlessBatches(count, self.options.batch_size, self.options.seed, first_step=self.first_step)

    def steps(self) -> Iterator[int]:
        """The numbers of the steps to do; the progress bar and the logs are closed however the loop over them ends."""
        try:
            yield from range(self.first_step, self.options.steps)
        finally:
            self.progress.close()
            self.board.close()

    def update(self, step: int, loss: torch.Tensor) -> dict[str, float | torch.Tensor]:
        """One step of the optimizer down the gradient of ``loss`` (); gives what it did, for the log.

        Raises:
            InputError: the loss is not finite; what was saved before stays.
        """
        learning_rate = self.options.learning_rate * warmup_cosine(step, self.options.steps, self.options.warmup)
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.options.clip_norm)
        if not (torch.isfinite(loss) and torch.isfinite(norm)):
            raise InputError(
                f"at step {step} the loss is {loss.item()} and the gradient norm {norm.item()}; "
                "lower --learning_rate and go on from the last save with --resume true"
            )
        self.optimizer.step()
        self.ema.update(self.model, step)
        self.progress.update()
        return {"loss/total": loss.detach(), "learning_rate": learning_rate, "gradient_norm": norm}

    def log(self, step: int, values: dict[str, float | torch.Tensor], speed: float, unit: str) -> None:
        """Write values to TensorBoard, and loss and speed to the progress bar."""
        for name, value in {**values, f"{unit}_per_second": speed}.items():
            self.board.add_scalar(name, value, step)
        self.progress.set_postfix_str(f"loss {float(values['loss/total']):.4f}, {speed:.0f} {unit}/s")

    def is_due(self, step: int) -> bool:
        """Whether to validate and save after this step."""
        return (step + 1) % self.options.validate_every == 0 or step + 1 == self.options.steps

    def save(self, step: int, scores: dict[str, float]) -> None:
        """Report validation scores, then save the averaged model for use and everything that resuming needs."""
        if scores:
            self.progress.write(
                f"step {step + 1}: " + ", ".join(f"{name} {value:.4g}" for name, value in scores.items())
            )
        for name, value in scores.items():
            self.board.add_scalar(f"validation/{name}", value, step)
        save_model(self.ema.model, self.options.out, self.options.save_precision)
        state = {
            "step": step + 1,
            "config": asdict(self.model.config),
            "model": self.model.state_dict(),
            "ema": self.ema.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "rng": torch.get_rng_state(),
            "cuda_rng": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        }
        save_state(self.options.out / "state.pt", state)

    def _restore(self) -> int:
        """Load what ``save`` wrote; returns the step to go on from."""
        path = self.options.out / "state.pt"
        state = load_state(path)
        try:
            ours = asdict(self.model.config)
            other = [name for name in ours if ours[name] != state["config"].get(name)]
            if other:
                raise ValueError(f"{other[0]} was {state['config'].get(other[0])} and is {ours[other[0]]}")
            self.model.load_state_dict(state["model"])
            self.ema.model.load_state_dict(state["ema"])
            self.optimizer.load_state_dict(state["optimizer"])
            torch.set_rng_state(state["rng"])
            if len(state["cuda_rng"]) == torch.cuda.device_count():
                torch.cuda.set_rng_state_all(state["cuda_rng"])
            return state["step"]
        except (RuntimeError, KeyError, TypeError, ValueError) as error:
            reason = str(error).splitlines()[0]
            raise InputError(
                f"{path} is of another model configuration ({reason}); resume with the one in train.yaml"
            ) from error
