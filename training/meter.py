"""The log of a training run: training values, speed, utilisation, and time spent waiting for data."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from tqdm import tqdm

from training.run import Run
from utils.device import gemm_rate

LOG_EVERY = 20  # steps


class Meter:
    """Measure the speed of a run since its last log entry, and write the log and the progress bar.

    Args:
        run: Run to log, prepared.
        unit: Unit of the speed: "tokens" or "frames".
        flops_per_unit: FLOPs of the model per unit, forward and backward.
    """

    def __init__(self, run: Run, unit: str, flops_per_unit: float):
        self.accelerator, self.steps = run.accelerator, run.options.steps
        self.unit, self.flops_per_unit = unit, flops_per_unit
        self.accelerator.init_trackers(run.options.out.name)
        self.peak_flops = gemm_rate(run.device, run.dtype) * self.accelerator.num_processes
        self.progress = tqdm(
            initial=run.first_step,
            total=self.steps,
            unit="step",
            mininterval=1,
            disable=not self.accelerator.is_main_process,
        )
        self.started, self.units, self.waited = time.perf_counter(), 0.0, 0.0  # since the last log entry

    def restart(self) -> None:
        """Start a new measurement."""
        self.started, self.units, self.waited = time.perf_counter(), 0.0, 0.0

    @contextmanager
    def waiting_for_data(self) -> Iterator[None]:
        """Count the time inside the context as time spent waiting for data."""
        started = time.perf_counter()
        yield
        self.waited += time.perf_counter() - started

    def count_step(self, units: float) -> None:
        """Count a finished step of ``units`` tokens or frames, over all processes."""
        self.units += units
        self.progress.update()

    def is_log_step(self, step: int) -> bool:
        """Whether the values of this step are logged."""
        return (step + 1) % LOG_EVERY == 0 or step + 1 == self.steps

    def log(self, step: int, values: dict[str, float | torch.Tensor]) -> None:
        """Log values with the speed, model FLOPs utilisation and share of waiting time since the last log entry."""
        seconds = time.perf_counter() - self.started
        speed = self.units / seconds
        values = values | {
            f"speed/{self.unit}_per_second": speed,
            "speed/model_flops_utilisation": speed * self.flops_per_unit / self.peak_flops,
            "speed/waiting_for_data": self.waited / seconds,
        }
        self.accelerator.log({name: float(torch.as_tensor(value).detach()) for name, value in values.items()}, step)
        self.progress.set_postfix_str(f"loss {values['loss/total']:.4f}, {speed:.0f} {self.unit}/s")
        self.restart()

    def log_scores(self, step: int, scores: dict[str, float]) -> None:
        """Log validation scores."""
        self.accelerator.log({f"validation/{name}": value for name, value in scores.items()}, step)

    def close(self) -> None:
        """Close the progress bar and the log."""
        self.progress.close()
        self.accelerator.end_training()
