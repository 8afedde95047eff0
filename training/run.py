"""What both training scripts share: options, processes and devices, and all that surrounds the forward pass.

The engine is Hugging Face Accelerate: one process, or many with DDP, FSDP2 or DeepSpeed ZeRO-2 by a file of
configs/accelerate. Whatever the engine, a step is the same: ``batch_size`` counts the items of the whole step, and
every loss is divided by what the whole step holds.
"""

import signal
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from accelerate.utils import gather_object
from jsonargparse.typing import (
    ClosedUnitInterval,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    restricted_number_type,
)
from torch import nn
from torch.distributed.tensor import DTensor
from torch.utils.checkpoint import checkpoint
from torch.utils.data import Dataset, default_collate
from tqdm import tqdm

from dataset.batches import EndlessBatches, FixedSizeBatches, StepDivision, TokenBudgetBatches, endless_loader
from motion.features272 import recover_joints_fk
from training.engine import Engine, make_accelerator
from training.optimizer import adamw, rate
from training.state import about_state, newest_state, remove_other_states, save_state, states
from utils.checkpoint import CONFIG, PretrainedModel, copy_model, save_model
from utils.device import can_compile, choose_device, gemm_rate
from utils.errors import InputError
from utils.files import atomic_write

LOG_EVERY = 20  # steps
Seed = restricted_number_type("Seed", int, [(">=", 0), ("<", 2**31)])


@dataclass(kw_only=True)
class TrainingOptions:
    """Options that both trainings have.

    Attributes:
        data: Data folder made by prepare_data.py, or one in MotionMillion's or HumanML3D-272's layout.
        out: Run folder to write.
        resume: Continue the run in ``out`` from its newest state.
        batch_size: Windows or clips a step, over all processes and micro-batches.
        accumulate: Micro-batches, one after the other, that a process makes its share of a step from.
        steps: Training steps.
        learning_rate: Peak learning rate of AdamW.
        schedule: cosine or constant, after the warm-up.
        warmup: Steps of linear warm-up.
        weight_decay: Of AdamW, not on biases, norms and embeddings.
        clip_norm: Largest gradient norm.
        ema: Decay of the weight average that is validated and saved; 0 for none.
        recompute: Compute the activations of each block again in the backward pass instead of keeping them.
        compiled: Compile the blocks with torch.compile.
        validate_every: Steps between validations on the val split, each with a save.
        keep: States of the run that are kept, the newest ones.
        draw: Validation motions that are rendered next to their targets at each validation.
        wandb: Log to Weights & Biases as well as to TensorBoard.
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
    accumulate: PositiveInt = 1
    steps: PositiveInt = 5000
    learning_rate: PositiveFloat = 5e-4
    schedule: Literal["cosine", "constant"] = "cosine"
    warmup: NonNegativeInt = 200
    weight_decay: NonNegativeFloat = 0.01
    clip_norm: PositiveFloat = 1.0
    ema: ClosedUnitInterval = 0.99
    recompute: bool = False
    compiled: bool = False
    validate_every: PositiveInt = 500
    keep: PositiveInt = 2
    draw: NonNegativeInt = 2
    wandb: bool = False
    device: str = "auto"
    precision: Literal["auto", "float32", "bf16"] = "auto"
    save_precision: Literal["float32", "float16"] = "float32"
    workers: NonNegativeInt = 0
    seed: Seed = 0


class Training:
    """What surrounds the forward pass of a run; a context manager around its loop.

    The run folder gets train.yaml (the options), the averaged model (config.json, model.safetensors), the best one by
    the validation score (best/), states/ for resuming, motions/ drawn at validations, and TensorBoard logs.

    Attributes:
        accelerator: The processes. device: Of this process. first_step: 0, or where the resumed run goes on.

    Raises:
        InputError: device, precision, compiler or tracker cannot be had, the processes cannot share a step, or ``out``
            holds a run that is not to be resumed or nothing to resume.
    """

    def __init__(self, options: TrainingOptions, options_yaml: str):
        self.options, self.options_yaml = options, options_yaml
        if not options.resume and (states(options.out / "states") or (options.out / CONFIG).exists()):
            raise InputError(f"{options.out} holds a run already; go on with --resume true, or choose another --out")
        if options.wandb and find_spec("wandb") is None:
            raise InputError("wandb is not installed; pip install wandb, or leave out --wandb")
        device, self.dtype, reason = choose_device(options.device, options.precision)
        if options.compiled and not can_compile(device):
            raise InputError(
                "compiled needs a C++ compiler on a CPU and none is found; install g++, or set it to false"
            )
        trackers = ["tensorboard", "wandb"] if options.wandb else ["tensorboard"]
        self.accelerator = make_accelerator(
            device, self.dtype, options.accumulate, options.clip_norm, trackers, options.out
        )
        self.device = self.accelerator.device
        self.say(f"{reason}; {self.accelerator.num_processes} process(es), {self.accelerator.distributed_type.value}")
        self.batch_tokens = getattr(options, "batch_tokens", None)  # an option of one of the trainings
        if not self.batch_tokens:
            self.batches(options.batch_size)  # refuses before any work what the processes cannot share
        self.state = newest_state(self.accelerator, options.out / "states") if options.resume else None
        torch.manual_seed(options.seed)
        self.first_step, self.step, self.best = 0, None, float("inf")
        self.ids: list[str] = []  # of the clips that are being worked on
        self.asked_to_stop = False  # this process, by SIGTERM; all agree on ``stopping`` in ``update``
        self.stopping = False

    def say(self, words: str) -> None:
        """Print from one process, beside the progress bar."""
        if self.accelerator.is_main_process:
            tqdm.write(words)

    def prepare(self, model: PretrainedModel, unit: str, flops: float) -> nn.Module:
        """Take a model into the run, resumed if asked for, and give back what its forward pass is called through.

        Args:
            unit: What the speed is counted in, tokens or frames. flops: Of the model, forward and backward, for one.

        Raises:
            InputError: the state does not fit the model, or ``out`` cannot be written.
        """
        options = self.options
        self.model, self.unit, self.flops = model.to(self.device), unit, flops
        for part in model.modules():
            if type(part).__name__ in model._no_split_modules:
                if options.recompute:
                    part.forward = partial(checkpoint, part.forward, use_reentrant=False)
                if options.compiled:
                    part.compile(dynamic=True)
        optimizer = adamw(model, options.learning_rate, options.weight_decay)
        self.engine = Engine(self.accelerator, model, optimizer, options.ema)
        self.wrapped, self.optimizer, self.average = self.engine.wrapped, self.engine.optimizer, self.engine.average
        torch.manual_seed(options.seed + 1_000_003 * self.accelerator.process_index)
        if options.resume:
            self._restore()
        model.train()
        signal.signal(signal.SIGTERM, lambda *_: setattr(self, "asked_to_stop", True))
        if self.accelerator.is_main_process:
            with atomic_write(options.out / "train.yaml") as file:
                file.write_text(self.options_yaml)
        self.accelerator.init_trackers(options.out.name)
        self.peak = gemm_rate(self.device, self.dtype) * self.accelerator.num_processes
        bar = {"initial": self.first_step, "total": options.steps, "unit": "step", "mininterval": 1}
        self.progress = tqdm(**bar, disable=not self.accelerator.is_main_process)
        parameters = sum(parameter.numel() for parameter in model.parameters())
        self.say(f"{parameters / 1e6:.1f} M parameters, steps {self.first_step} to {options.steps}")
        return self.wrapped

    def __enter__(self) -> "Training":
        self._start_counting()
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, _) -> None:
        """Close everything; what went wrong with the input inside a step is told with the step and its clips."""
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        self.batches_ahead.close()
        self.progress.close()
        self.accelerator.end_training()
        if isinstance(error, InputError) and self.step is not None:
            clips = f" with {', '.join(self.ids)}" if self.ids else ""
            last = f"the last good state is {self.state}" if self.state else "no state has been saved yet"
            raise InputError(f"{error}; this was step {self.step + 1}{clips}; {last}") from error

    def steps(self) -> Iterator[int]:
        """The numbers of the steps to do. After SIGTERM the state is saved and the program ends."""
        for step in range(self.first_step, self.options.steps):
            self.step = step
            share = rate(self.options.schedule, step, self.options.steps, self.options.warmup)
            for group in self.optimizer.param_groups:
                group["lr"] = share * self.options.learning_rate
            yield step
            self.step = None
            if self.stopping:
                self.batches_ahead.close()  # its workers were asked to end, too
                if self.state is None or about_state(self.state)["step"] != step + 1:
                    self.save(step, {})
                self.say(f"stopped after step {step + 1}, as SIGTERM asked; go on with --resume true")
                raise SystemExit(0)

    def batches(self, count: int, lengths: np.ndarray | None = None) -> EndlessBatches:
        """The order in which the processes of the run go through ``count`` items.

        Args:
            lengths: (count,) where items of like length are to come together.
        """
        division = StepDivision(self.accelerator.process_index, self.accelerator.num_processes, self.options.accumulate)
        if self.batch_tokens and lengths is not None:
            return TokenBudgetBatches(lengths, self.batch_tokens, self.options.seed, division=division)
        return FixedSizeBatches(count, self.options.batch_size, self.options.seed, lengths=lengths, division=division)

    def loader(
        self, dataset: Dataset, order: EndlessBatches, collate: Callable[[list], tuple] = default_collate
    ) -> Iterator[tuple]:
        """This process's micro-batches of a dataset from the run's first step on, without end."""
        order.first_step = self.first_step
        self.batches_ahead = endless_loader(dataset, order, self.options.workers, self.device, collate)
        return self.batches_ahead

    def take(self, loader: Iterator[tuple]) -> list[tuple]:
        """The micro-batches of this process for one step, tensors on the device, without the ids they begin with."""
        started, self.ids = time.perf_counter(), []
        batches = [next(loader) for _ in range(self.options.accumulate)]
        self.waited += time.perf_counter() - started
        self.ids = [name for batch in batches for name in batch[0]]
        return [tuple(self._move(part) for part in batch[1:]) for batch in batches]

    def _move(self, part: object) -> object:
        return part.to(self.device, non_blocking=True) if isinstance(part, torch.Tensor) else part

    def total(self, counts: Iterable[torch.Tensor]) -> torch.Tensor:
        """The sum of the micro-batches' counts over all processes: what the losses of the step are divided by."""
        return self.accelerator.reduce(sum(counts), "sum")

    def micro_batches(self, batches: list) -> Iterator:
        """The batches one after the other, gradients being exchanged between processes at the last one alone."""
        self.loss = torch.zeros((), device=self.device)
        for batch in batches:
            with self.accelerator.accumulate(self.wrapped):
                yield batch

    def backward(self, loss: torch.Tensor) -> None:
        """Add the gradient of a micro-batch's loss (), which is its share of the step's."""
        # The engines average over processes and micro-batches, and the shares are to be summed.
        self.accelerator.backward(loss * (self.accelerator.num_processes * self.options.accumulate))
        self.loss += loss.detach()

    def update(self, step: int, count: torch.Tensor) -> dict[str, float]:
        """One step of the optimizer; gives what it did, for the log.

        Args:
            count: () tokens or frames of the step.

        Raises:
            InputError: loss or gradient are not finite; weights and what was saved before stay.
        """
        norm = self.accelerator.clip_grad_norm_(self.wrapped.parameters(), self.options.clip_norm)
        stopping = torch.tensor(float(self.asked_to_stop), device=self.device)
        loss, stopping = self.accelerator.reduce(torch.stack((self.loss.float(), stopping)), "sum")
        norm = norm.full_tensor() if isinstance(norm, DTensor) else torch.as_tensor(norm)
        loss, norm, stopping, count = torch.stack((loss, norm.to(loss), stopping, count)).tolist()
        if not abs(loss) + abs(norm) < float("inf"):
            raise InputError(
                f"the loss is {loss} and the gradient norm {norm}; look at these clips, or lower --learning_rate and "
                "go on with --resume true"
            )
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.average.update(step)
        self.progress.update()
        self.stopping, self.counted, self.ids = stopping > 0, self.counted + count, []
        learning_rate = self.optimizer.param_groups[0]["lr"]
        return {"loss/total": loss, "learning_rate": learning_rate, "gradient_norm": norm}

    def is_logged(self, step: int) -> bool:
        """Whether this step's values go into the log."""
        return (step + 1) % LOG_EVERY == 0 or step + 1 == self.options.steps

    def log(self, step: int, values: dict[str, float | torch.Tensor]) -> None:
        """Write values, speed, utilisation and the share of time spent on waiting for data, since the last log."""
        seconds = time.perf_counter() - self.started
        speed = self.counted / seconds
        values = values | {
            f"speed/{self.unit}_per_second": speed,
            "speed/model_flops_utilisation": speed * self.flops / self.peak,
            "speed/waiting_for_data": self.waited / seconds,
        }
        self.accelerator.log({name: float(torch.as_tensor(value).detach()) for name, value in values.items()}, step)
        self.progress.set_postfix_str(f"loss {values['loss/total']:.4f}, {speed:.0f} {self.unit}/s")
        self._start_counting()

    def _start_counting(self) -> None:
        self.started, self.counted, self.waited = time.perf_counter(), 0, 0.0

    def is_due(self, step: int) -> bool:
        """Whether to validate and save after this step."""
        return (step + 1) % self.options.validate_every == 0 or step + 1 == self.options.steps

    def share(self, items: list) -> Iterator[tuple[object, bool]]:
        """This process's share of items, and whether each counts: all processes get equally many, as sharding needs."""
        index, processes = self.accelerator.process_index, self.accelerator.num_processes
        for place in range(index, -(-len(items) // processes) * processes, processes):
            yield items[place % len(items)], place < len(items)

    def gather(self, items: list) -> list:
        """The items of all processes."""
        return gather_object(items)

    def draw(self, step: int, motions: list[tuple[str, str, np.ndarray, np.ndarray]]) -> None:
        """Render motions beside their targets into the run folder's motions/.

        Args:
            motions: (name of the file, title, target and own features (T, 272), not normalised) each.
        """
        from visualize.skeleton import plot_3d_motion

        for name, title, *pair in motions if self.accelerator.is_main_process else ():
            path = self.options.out / "motions" / f"step-{step + 1:08d}" / f"{name}.mp4"
            joints = [recover_joints_fk(torch.as_tensor(features)) for features in pair]
            plot_3d_motion([joints, path, f"{title} (left: recorded, right: made)"])

    def save(self, step: int, scores: dict[str, float]) -> None:
        """Report validation scores, and save the state of the run and the averaged model.

        The model is also kept in best/ if the first of the scores is lower than ever before.

        Raises:
            InputError: something cannot be written; what was saved before stays.
        """
        if scores:
            self.say(f"step {step + 1}: " + ", ".join(f"{name} {value:.4g}" for name, value in scores.items()))
            self.accelerator.log({f"validation/{name}": value for name, value in scores.items()}, step)
        score = next(iter(scores.values()), float("inf"))
        is_best, self.best = score < self.best, min(score, self.best)
        about = self._about() | {"step": step + 1, "best": self.best, "is_best": is_best}
        folder = self.options.out / "states"
        self.state = save_state(self.accelerator, folder, about, self.engine.write_state)
        self._write_model(is_best)
        if self.accelerator.is_main_process:
            remove_other_states(self.state, self.options.keep)
        self.accelerator.wait_for_everyone()
        self._start_counting()

    def _write_model(self, is_best: bool) -> None:
        """Save the averaged model, put together from all processes, for use."""
        with self.average.in_use():
            weights = self.engine.whole_weights()
            if self.accelerator.is_main_process:
                save_model(self.model, self.options.out, self.options.save_precision, weights)
        if is_best and self.accelerator.is_main_process:
            copy_model(self.options.out, self.options.out / "best")

    def _about(self) -> dict:
        """What a state is told besides its step: what must be the same on resuming, and what should."""
        size = {"batch_size": self.options.batch_size, "batch_tokens": self.batch_tokens}
        config = asdict(self.model.config) | {"averaged": self.options.ema > 0}
        return {"config": config, "order": size | {"seed": self.options.seed}}

    def _restore(self) -> None:
        """Go back to the state that the run was found with."""
        about, now = about_state(self.state), self._about()
        self.first_step, self.best = about["step"], about["best"]
        ours = now["config"]
        try:
            other = [name for name in ours if ours[name] != about["config"].get(name)]
            if other:
                raise ValueError(f"{other[0]} was {about['config'].get(other[0])} and is {ours[other[0]]}")
            self.engine.read_state(self.state)
        except ValueError as error:
            raise InputError(
                f"{self.state} is of another model configuration ({error}); resume with the one in train.yaml"
            ) from error
        for name, value in now["order"].items():
            before = about["order"].get(name)
            if value != before:
                self.say(f"{name} was {before} and is {value}: the data goes on at another place of its order")
        self._write_model(about["is_best"])  # the run may have ended between the state and the model
