"""The loop over the steps of a training run: data, gradients over processes and micro-batches, updates, stopping."""

import signal
import threading
from collections.abc import Generator, Iterable, Iterator
from typing import Any, NamedTuple

import torch
from torch.distributed.tensor import DTensor

from training.engine import Engine
from training.meter import Meter
from training.optimizer import schedule_factor
from training.run import Run
from utils.device import to_device
from utils.errors import InputError, reason_of


class Stop(NamedTuple):
    """Meaning of a signal that stops a run."""

    name: str
    status: int  # exit status of the program


STOPS = {signal.SIGTERM: Stop("SIGTERM", 0), signal.SIGINT: Stop("Ctrl-C", 130)}


class Loop:
    """The steps of a run; a context manager around them.

    On SIGTERM or Ctrl-C, the current step is finished, the state is saved, and the program exits with status 0 or 130;
    a second Ctrl-C ends it at once. An InputError in a step is raised again with the step, its clips and the newest
    state.

    Args:
        run: The run.
        engine: Model, optimizer and EMA, from ``run.prepare``.
        meter: Log of the run.
        loader: Micro-batches of this process, from ``run.loader``: tuples that begin with the list of clip ids.

    Attributes:
        step: Step that is being computed, or None between steps.
        clips: Ids of the clips in it.
    """

    def __init__(self, run: Run, engine: Engine, meter: Meter, loader: Generator[tuple, None, None]):
        self.run, self.engine, self.meter, self.loader = run, engine, meter, loader
        self.accelerator, self.options = run.accelerator, run.options
        self.step: int | None = None
        self.clips: list[str] = []
        self.loss = torch.zeros((), device=run.device)  # of the step so far, on this process
        self.received: int | None = None  # signal of this process
        self.stop: Stop | None = None  # agreed on by all processes in ``update``
        self.handlers: dict[signal.Signals, Any] = {}  # replaced signal handlers, restored at the end
        self.excepthook = threading.excepthook

    def __enter__(self) -> "Loop":
        self.handlers = {number: signal.signal(number, self._receive) for number in STOPS if not _is_ignored(number)}
        threading.excepthook = self._report_thread
        self.meter.restart()
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, _) -> None:
        for number, handler in self.handlers.items():
            signal.signal(number, handler)
        self.loader.close()
        try:
            self.meter.close()
        except OSError as closing:
            error = error or closing
        threading.excepthook = self.excepthook
        if isinstance(error, OSError):  # of the log
            if self.run.folder is not None:
                self.run.folder.check()
            raise InputError(
                f"cannot write into the run folder {self.options.out} ({reason_of(error)}); free some space, then "
                "continue with --resume if a state is left"
            ) from error
        if isinstance(error, InputError) and self.step is not None:
            clips = f" with {', '.join(self.clips)}" if self.clips else ""
            last = f"the newest state is {self.run.state}" if self.run.state else "no state has been saved yet"
            raise InputError(f"{error}; this was step {self.step + 1}{clips}; {last}") from error

    def _receive(self, number: int, _) -> None:
        self.received = number
        if number == signal.SIGINT and self.accelerator.num_processes == 1:
            # A second Ctrl-C ends at once. Launchers of several processes repeat the first one, and kill them.
            signal.signal(signal.SIGINT, signal.default_int_handler)

    def _report_thread(self, failure: threading.ExceptHookArgs) -> None:
        if not issubclass(failure.exc_type, OSError):  # TensorBoard's thread fails, then its next call in this thread
            self.excepthook(failure)

    def steps(self) -> Iterator[int]:
        """Yield the numbers of the steps to take; after SIGTERM or Ctrl-C, save the state and exit."""
        for step in range(self.run.first_step, self.options.steps):
            self.step = step
            factor = schedule_factor(self.options.schedule, step, self.options.steps, self.options.warmup)
            for group in self.engine.optimizer.param_groups:
                group["lr"] = factor * self.options.learning_rate
            yield step
            self.step = None
            if self.stop:
                self.loader.close()  # its workers may have received SIGTERM, too
                if self.run.saved_step != step + 1:
                    self.save(step, {})
                self.run.report(f"stopped after step {step + 1} on {self.stop.name}; continue with --resume")
                raise SystemExit(self.stop.status)

    def next_batches(self) -> list[tuple]:
        """Load this process's micro-batches of the next step: tensors on the device, without the leading clip ids."""
        self.clips = []
        with self.meter.waiting_for_data():
            batches = [next(self.loader) for _ in range(self.options.accumulate)]
        self.clips = [clip for batch in batches for clip in batch[0]]
        return [
            tuple(to_device(part, self.run.device) if isinstance(part, torch.Tensor) else part for part in batch[1:])
            for batch in batches
        ]

    def total(self, counts: Iterable[torch.Tensor]) -> torch.Tensor:
        """Sum counts over micro-batches and processes; the losses of the step are divided by this sum."""
        return self.accelerator.reduce(sum(counts), "sum")

    def micro_batches(self, batches: list[tuple]) -> Iterator[tuple]:
        """Yield the micro-batches of a step; gradients are exchanged between processes at the last one only."""
        self.loss = torch.zeros((), device=self.run.device)
        for batch in batches:
            with self.accelerator.accumulate(self.engine.wrapped):
                yield batch

    def backward(self, loss: torch.Tensor) -> None:
        """Add the gradients of a micro-batch.

        Args:
            loss: () share of this micro-batch in the loss of the step.
        """
        # The engines average over processes and micro-batches, but the shares must be summed.
        self.accelerator.backward(loss * (self.accelerator.num_processes * self.options.accumulate))
        self.loss += loss.detach()

    def update(self, step: int, count: torch.Tensor) -> dict[str, float | torch.Tensor]:
        """Clip the gradients, step the optimizer and update the EMA.

        Args:
            count: () tokens or frames of the step, over all processes.

        Returns:
            Loss, learning rate and gradient norm, for the log.

        Raises:
            InputError: the loss or the gradient norm is not finite; weights and saved files are unchanged.
        """
        optimizer = self.engine.optimizer
        gradient_norm = self.accelerator.clip_grad_norm_(self.engine.wrapped.parameters(), self.options.clip_norm)
        if isinstance(gradient_norm, DTensor):
            gradient_norm = gradient_norm.full_tensor()
        own = [torch.full((), float(self.received == number), device=self.run.device) for number in STOPS]
        total_loss, *received = self.accelerator.reduce(torch.stack((self.loss.float(), *own)), "sum")
        values = total_loss, torch.as_tensor(gradient_norm).to(total_loss), count, *received
        loss, norm, units, *stopping = torch.stack(values).tolist()  # one transfer from the device
        if not abs(loss) + abs(norm) < float("inf"):
            raise InputError(
                f"the loss is {loss} and the gradient norm {norm}; check these clips, or lower --learning-rate and "
                "continue with --resume"
            )
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        self.engine.ema.update(step)
        self.meter.count_step(units)
        self.stop = next((stop for stop, processes in zip(STOPS.values(), stopping, strict=True) if processes), None)
        self.clips = []
        return {"loss/total": loss, "learning_rate": optimizer.param_groups[0]["lr"], "gradient_norm": norm}

    def save(self, step: int, scores: dict[str, float]) -> None:
        """Report validation scores, and save the state of the run and the EMA model.

        Args:
            scores: Validation scores, of which the first decides on the best model; empty without validation.

        Raises:
            InputError: a file cannot be written; earlier states are kept.
        """
        if scores:
            self.run.report(f"step {step + 1}: " + ", ".join(f"{name} {value:.4g}" for name, value in scores.items()))
            self.meter.log_scores(step, scores)
        self.run.save(self.engine, step, next(iter(scores.values()), float("inf")))
        self.meter.restart()


def _is_ignored(number: int) -> bool:
    return signal.getsignal(number) == signal.SIG_IGN
