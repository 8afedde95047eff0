"""Device and precision of a run, and the speed of matrix products on the device."""

import os
import shutil
import time
from functools import cache

import psutil
import torch

from utils.errors import InputError, counted

PRECISIONS = {"float32": torch.float32, "bf16": torch.bfloat16, "float16": torch.float16}


def choose_device(
    device: str, precision: str, training: bool = True, quantized: bool = False
) -> tuple[torch.device, torch.dtype, str]:
    """Resolve the device and the precision of a run.

    Args:
        device: auto (a GPU of CUDA, ROCm or MPS if there is one), cpu, cuda (also for ROCm), cuda:1, mps, ...
        precision: auto or one of ``PRECISIONS``; float16 is for inference only.
        training: Selects the meaning of "auto". In training it is bf16 if the device has it, else float32; on a CPU,
            bf16 products must also be the faster ones in a short measurement. In inference it is float32 on a CPU,
            where motions are then independent of their batch, and bf16 on a GPU, or float16 if the GPU lacks bf16.
        quantized: Whether the weights will be quantized, which needs bf16.

    Returns:
        The device, the dtype, and a sentence that names both with the reason.

    Raises:
        InputError: if the device or the precision does not exist, or the device lacks the precision.
    """
    choices = [name for name in ("auto", *PRECISIONS) if not (training and name == "float16")]
    if precision not in choices:
        raise InputError(f"precision {precision} is unknown; use {', '.join(choices[:-1])} or {choices[-1]}")
    device = _resolved(device)
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise InputError(
            f"device {device} cannot be used here ({str(error).splitlines()[0]}); use auto or cpu"
        ) from error
    place = torch.device(device)
    if place.type == "cuda":
        _set_up_cuda()
    reason = "as requested"
    if precision == "auto" and quantized:
        precision, reason = "bf16", "quantized weights need it"
    elif precision == "auto" and place.type == "cpu":
        precision, reason = _precision_on_cpu(training)
    elif precision == "auto":
        is_fast = has_bf16(place)
        reason = f"the device {'has' if is_fast else 'lacks'} bf16 arithmetic"
        precision = "bf16" if is_fast else "float32" if training else "float16"
    if precision == "bf16" and place.type == "mps" and not has_bf16(place):
        raise InputError("an Apple GPU has bf16 from macOS 14 on; use float32, or update macOS")
    if not training and place.type == "cpu" and "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(min(torch.get_num_threads(), free_cores()))
    return place, PRECISIONS[precision], f"running on {device} ({_name(place)}) in {precision}: {reason}"


def _set_up_cuda() -> None:
    """Turn off kernels of CUDA that are slow for changing shapes or inexact in float32."""
    torch.backends.cuda.enable_cudnn_sdp(False)  # makes a plan for every new shape, which takes longer than attention
    torch.backends.cudnn.allow_tf32 = False  # convolutions in TF32 make a stream differ from the whole motion by 1e-3


def check_gpus(device: str) -> None:
    """Check that each process of this machine, as started by ``accelerate launch`` or ``torchrun``, has its own GPU.

    Args:
        device: auto, cpu, cuda, cuda:1, ...

    Raises:
        InputError: ``device`` is one GPU for several processes, or there are fewer GPUs than processes.
    """
    processes, device = int(os.environ.get("LOCAL_WORLD_SIZE", 1)), _resolved(device)
    if processes > 1 and device.startswith("cuda:"):
        raise InputError(f"device {device} is one GPU for {processes} processes; use cuda, or start one process")
    gpus = {"cuda": torch.cuda.device_count(), "mps": 1}
    if processes > gpus.get(device, processes):
        count = counted(gpus[device], "GPU")
        raise InputError(f"{processes} processes were started and the machine has {count}; start fewer")


def _resolved(device: str) -> str:
    if device != "auto":
        return device
    return "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"


def has_bf16(device: torch.device) -> bool:
    """Return whether a device has bf16 arithmetic."""
    if device.type == "cuda":  # also ROCm
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type == "mps":
        return torch.backends.mps.is_macos_or_newer(14, 0)
    return torch.cpu._is_avx512_bf16_supported()


def _precision_on_cpu(training: bool) -> tuple[str, str]:
    """Return the precision that "auto" selects on a CPU, and the reason."""
    if not training:
        return "float32", "on a CPU, motions are then independent of their batch"
    if not has_bf16(torch.device("cpu")):
        return "float32", "the device lacks bf16 arithmetic"
    speedup = bf16_speedup()
    if speedup < 1:
        return "float32", f"products in bf16 take {1 / speedup:.1f} times as long here"
    return "bf16", f"its products are {speedup:.1f} times as fast as those of float32 here"


@cache
def bf16_speedup() -> float:
    """Return the speed of matrix products in bf16 relative to those in float32, measured on this CPU."""
    cpu = torch.device("cpu")
    rounds = [[gemm_rate(cpu, dtype) for dtype in (torch.bfloat16, torch.float32)] for _ in range(3)]
    bf16, float32 = map(max, zip(*rounds, strict=True))  # the fastest of three: other programs may be busy meanwhile
    return bf16 / float32


def _name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return "Apple GPU" if device.type == "mps" else counted(torch.get_num_threads(), "CPU thread")


def to_device(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Copy a tensor to a device, without waiting for the device if it is CUDA's.

    On MPS, the memory of a temporary tensor could be freed before it has been copied.
    """
    return tensor.to(device, non_blocking=device.type == "cuda")


def free_cores(seconds: float = 0.2) -> int:
    """Return the number of cores, at least one, that other programs leave to this one.

    Args:
        seconds: Time to watch them for.
    """
    busy = psutil.cpu_percent(seconds, percpu=True)  # cpu_times_percent is wrong for less than a second
    return max(1, round(sum(1 - busy[core] / 100 for core in _allowed_cores(len(busy)))))


def _allowed_cores(count: int) -> list[int]:
    """Return the numbers of the cores, out of ``count``, that this process may use."""
    allowed = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(count)
    return [core for core in allowed if core < count]


class OtherPrograms:
    """Measures the time of the allowed cores that other programs and virtual machines use, from its creation on."""

    def __init__(self) -> None:
        self.before = self._seconds()

    def share(self) -> float:
        """Return the share of that time, from 0 to 1."""
        (total, idle, own), now = self.before, self._seconds()
        return max(0.0, 1 - (now[1] - idle + now[2] - own) / (now[0] - total))

    def _seconds(self) -> tuple[float, float, float]:
        """Return the total seconds of the allowed cores, their idle seconds, and the CPU seconds of this process."""
        times = psutil.cpu_times(percpu=True)
        allowed = [times[core] for core in _allowed_cores(len(times))]
        idle = sum(core.idle + getattr(core, "iowait", 0.0) for core in allowed)
        return time.perf_counter() * len(allowed), idle, time.process_time()


def can_compile(device: torch.device) -> bool:
    """Return whether ``torch.compile`` can run: on a CPU it needs a C++ compiler."""
    return device.type != "cpu" or bool(shutil.which("c++") or shutil.which("g++"))


def gemm_rate(device: torch.device, dtype: torch.dtype) -> float:
    """Measure the FLOPS of a product of two large square matrices in ``dtype`` (best of five runs)."""
    size = 1024 if device.type == "cpu" else 8192
    a, b = torch.ones(2, size, size, device=device, dtype=dtype)
    best = float("inf")
    for _ in range(5):
        started = time.perf_counter()
        (a @ b)[0, 0].item()  # waits for the device
        best = min(best, time.perf_counter() - started)
    return 2 * size**3 / best
