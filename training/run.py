"""A training run: its processes and devices, its run folder, and its states for resuming.

The engine is Hugging Face Accelerate: a single process, or several with DDP, FSDP2 or DeepSpeed ZeRO-2, selected by a
file of configs/accelerate. A step is the same under every engine: ``batch_size`` counts the items of the whole step,
and every loss is divided by the number of tokens or frames in the whole step.
"""

from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple, TypeVar, cast

import numpy as np
import torch
from accelerate.utils import DistributedType, gather_object
from torch.utils.data import Dataset, default_collate
from tqdm import tqdm

from dataset.batches import EndlessBatches, FixedSizeBatches, StepDivision, TokenBudgetBatches, endless_loader
from dataset.derived import derived_folder
from models.text_encoder import TextEncoder
from models.text_features import CaptionFeatures
from motion.features272 import recover_joints_fk
from training.engine import SHARDED, Engine, configure_blocks, connect_processes, make_accelerator, shard
from training.optimizer import make_optimizer
from training.options import TrainingOptions
from training.state import newest_state, prune_states, read_description, save_state, states
from utils.checkpoint import CONFIG, PretrainedModel, copy_model, save_model
from utils.device import can_compile, check_gpus, choose_device
from utils.errors import InputError
from utils.files import atomic_write
from utils.locks import FolderInUse, exclusive_folder

Item = TypeVar("Item")


class Comparison(NamedTuple):
    """A recorded motion and the model's version of it."""

    name: str  # of the video file, without suffix
    title: str
    recorded: np.ndarray  # (T, 272) features, not normalized
    generated: np.ndarray | torch.Tensor  # (T, 272) features, not normalized


class Run:
    """Processes, run folder and states of a training run; a context manager that locks the run folder.

    The run folder holds train.yaml (the options), the EMA model (config.json, model.safetensors), the model of the best
    validation score (best/), states/ for resuming, motions/ rendered at validations, and TensorBoard logs.

    Args:
        options: Options of the training.
        options_yaml: The same options as YAML, for train.yaml.
        batch_tokens: Motion tokens per step, padding included, if steps are sized by tokens instead of ``batch_size``.

    Attributes:
        accelerator: Accelerate's handle of the processes.
        device: Device of this process.
        dtype: Data type of the arithmetic.
        first_step: First step to take: 0, or the number of steps done if the run is resumed.
        saved_step: Number of steps done when the newest state was saved.
        state: Newest state, or None if none has been saved.
        best: Lowest validation score so far.

    Raises:
        InputError: the device, precision, compiler or tracker is not available, processes share a GPU, a step cannot be
            divided among the processes, ``out`` holds a run and --resume is not set, or it holds none and --resume is
            set.
    """

    def __init__(self, options: TrainingOptions, options_yaml: str, batch_tokens: int | None = None):
        self.options, self.options_yaml, self.batch_tokens = options, options_yaml, batch_tokens
        if not options.resume and (states(options.out / "states") or (options.out / CONFIG).exists()):
            raise InputError(f"{options.out} already holds a run; continue it with --resume, or choose another --out")
        if options.wandb and find_spec("wandb") is None:
            raise InputError("wandb is not installed; pip install wandb, or leave out --wandb")
        check_gpus(options.device)
        device, dtype, reason = choose_device(options.device, options.precision)
        if options.compiled and not can_compile(device):
            raise InputError(
                "--compiled needs a C++ compiler on a CPU and none is found; install g++, or leave out --compiled"
            )
        self.dtype = connect_processes(device, dtype)
        trackers = ["tensorboard", "wandb"] if options.wandb else ["tensorboard"]
        self.accelerator = make_accelerator(
            device, self.dtype, options.accumulate, options.clip_norm, trackers, options.out
        )
        self.device = self.accelerator.device
        if options.optimizer == "muon" and self.accelerator.distributed_type in SHARDED:
            raise InputError("--optimizer muon needs whole weight matrices; use DDP, or --optimizer adamw")
        count, kind = self.accelerator.num_processes, self.accelerator.distributed_type.value
        self.report(f"{reason}; {'1 process' if count == 1 else f'{count} processes ({kind})'}")
        self.first_step = self.saved_step = 0
        self.best = float("inf")
        self.state: Path | None = None
        if not batch_tokens:
            self.batches(options.batch_size)  # raises before any work if the processes cannot share a step
        if options.resume:
            self.state = newest_state(self.accelerator, options.out / "states")
            description = read_description(self.state)
            self.first_step = self.saved_step = description["step"]
            self.best = description["best"]
        self.lock, self.folder = ExitStack(), cast(FolderInUse | None, None)  # of the main process
        torch.manual_seed(options.seed)

    def __enter__(self) -> "Run":
        """Lock the run folder; leftovers of a killed run are removed.

        Raises:
            InputError: another training has the folder, or it cannot be written.
        """
        reasons: list[str] = []
        try:
            if self.accelerator.is_main_process:
                lock = exclusive_folder(self.options.out, "training", "--out", subfolders=True)
                self.folder = self.lock.enter_context(lock)
        except InputError as error:
            reasons = [str(error)]
        reasons = gather_object(reasons)
        if reasons:
            raise InputError(reasons[0])
        return self

    def __exit__(self, *error) -> None:
        self.lock.close()

    def report(self, message: str) -> None:
        """Print a message from the main process, above the progress bar."""
        if self.accelerator.is_main_process:
            tqdm.write(message)

    def batches(self, count: int, lengths: np.ndarray | None = None) -> EndlessBatches:
        """Return the order in which the processes of the run go through ``count`` items.

        Args:
            lengths: (count,) lengths, to put items of similar length together.
        """
        division = StepDivision(self.accelerator.process_index, self.accelerator.num_processes, self.options.accumulate)
        batches: EndlessBatches
        if self.batch_tokens and lengths is not None:
            batches = TokenBudgetBatches(lengths, self.batch_tokens, self.options.seed, division=division)
        else:
            size = self.options.batch_size
            batches = FixedSizeBatches(count, size, self.options.seed, lengths=lengths, division=division)
        batches.first_step = self.first_step
        return batches

    def loader(
        self, dataset: Dataset, batches: EndlessBatches, collate: Callable[[list], tuple] = default_collate
    ) -> Generator[tuple, None, None]:
        """Return an endless loader of this process's micro-batches, starting at the first step of the run."""
        loader = endless_loader(dataset, batches, self.options.workers, self.device, collate)
        return cast(Generator[tuple, None, None], loader)

    def caption_features(self, encoder: TextEncoder, cached: Iterable[str] | None = None) -> CaptionFeatures:
        """Return the features of captions.

        Args:
            encoder: Encoder of the captions.
            cached: Captions whose features are stored on disk; all processes together encode those that are missing.
        """
        if cached is None:
            return CaptionFeatures(encoder)
        index, processes = self.accelerator.process_index, self.accelerator.num_processes
        folder = derived_folder(self.options.data, "text_features")
        return CaptionFeatures(encoder, folder, cached, index, processes, self.accelerator.wait_for_everyone)

    def prepare(self, model: PretrainedModel) -> Engine:
        """Set up a model for training (restoring the newest state if resuming), and write train.yaml.

        Returns:
            The model with its optimizer and EMA.

        Raises:
            InputError: the state does not fit the model, or ``out`` cannot be written.
        """
        options = self.options
        model.to(self.device)
        configure_blocks(model, options.recompute, options.compiled)
        if self.accelerator.distributed_type == DistributedType.FSDP:
            shard(model, self.dtype)
        optimizer = make_optimizer(model, options.optimizer, options.learning_rate, options.weight_decay)
        engine = Engine(self.accelerator, model, optimizer, options.ema)
        torch.manual_seed(options.seed + 1_000_003 * self.accelerator.process_index)
        if self.state:
            self._restore(engine, self.state)
        model.train()
        if self.accelerator.is_main_process:
            with atomic_write(options.out / "train.yaml") as file:
                file.write_text(self.options_yaml, encoding="utf-8")
        parameters = sum(parameter.numel() for parameter in model.parameters())
        self.report(f"{parameters / 1e6:.1f} M parameters, steps {self.first_step} to {options.steps}")
        return engine

    def is_validation_step(self, step: int) -> bool:
        """Whether to validate and save after this step."""
        return (step + 1) % self.options.validate_every == 0 or step + 1 == self.options.steps

    def shard(self, items: list[Item]) -> Iterator[tuple[Item, bool]]:
        """Yield this process's items and whether each counts.

        All processes get the same number of items, as sharded models need; repeated ones do not count.
        """
        index, processes = self.accelerator.process_index, self.accelerator.num_processes
        for place in range(index, -(-len(items) // processes) * processes, processes):
            yield items[place % len(items)], place < len(items)

    def gather(self, items: list[Item]) -> list[Item]:
        """Return the items of all processes."""
        return gather_object(items)

    def draw(self, step: int, comparisons: list[Comparison]) -> None:
        """Render generated motions beside the recorded ones into the run folder's motions/, by the main process."""
        from visualize.skeleton import plot_3d_motion

        for name, title, *pair in comparisons if self.accelerator.is_main_process else ():
            path = self.options.out / "motions" / f"step-{step + 1:08d}" / f"{name}.mp4"
            joints = [recover_joints_fk(torch.as_tensor(features)) for features in pair]
            plot_3d_motion([joints, path, f"{title} (left: recorded, right: generated)"])

    def save(self, engine: Engine, step: int, score: float) -> None:
        """Save the state of the run and the EMA model, which is also copied to best/ if its score is the lowest so far.

        Args:
            score: Validation score; inf without validation.

        Raises:
            InputError: a file cannot be written (earlier states are kept), or the run folder was removed.
        """
        if self.folder is not None:
            self.folder.check()
        is_best, self.best = score < self.best, min(score, self.best)
        description = self._description(engine.model) | {"step": step + 1, "best": self.best, "is_best": is_best}
        self.state = save_state(self.accelerator, self.options.out / "states", description, engine.write_state)
        self.saved_step = step + 1
        self._write_model(engine, is_best)
        if self.accelerator.is_main_process:
            prune_states(self.state, self.options.keep)
        self.accelerator.wait_for_everyone()

    def _write_model(self, engine: Engine, is_best: bool) -> None:
        """Save the EMA model, gathered from all processes."""
        with engine.ema.applied():
            weights = engine.full_weights()
            if self.accelerator.is_main_process:
                save_model(engine.model, self.options.out, self.options.save_precision, weights)
        if is_best and self.accelerator.is_main_process:
            copy_model(self.options.out, self.options.out / "best")

    def _description(self, model: PretrainedModel) -> dict[str, Any]:
        """Describe the model ("config"), which must be the same when resuming, and the data order, which should be."""
        size = {"batch_size": self.options.batch_size, "batch_tokens": self.batch_tokens}
        config = asdict(cast(Any, model.config)) | {"averaged": self.options.ema > 0}
        return {"config": config, "order": size | {"seed": self.options.seed}}

    def _restore(self, engine: Engine, state: Path) -> None:
        """Load the state that the run is resumed from."""
        saved, current = read_description(state), self._description(engine.model)
        try:
            for name, value in current["config"].items():
                if value != saved["config"].get(name):
                    raise ValueError(f"{name} was {saved['config'].get(name)} and is {value}")
            engine.read_state(state)
        except ValueError as error:
            raise InputError(
                f"{state} is of another model configuration ({error}); resume with the configuration in train.yaml"
            ) from error
        for name, value in current["order"].items():
            before = saved["order"].get(name)
            if value != before:
                self.report(f"{name} was {before} and is {value}: the data continues at another place in its order")
        self._write_model(engine, saved["is_best"])  # the run may have been killed between the state and the model
