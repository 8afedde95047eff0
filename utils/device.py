"""Device and precision of a run, and the speed of matrix products on the device."""

import os
import shutil
import time

import psutil
import torch

from utils.errors import InputError

PRECISIONS = {"float32": torch.float32, "bf16": torch.bfloat16, "float16": torch.float16}


def choose_device(
    device: str, precision: str, training: bool = True, quantized: bool = False
) -> tuple[torch.device, torch.dtype, str]:
    """Resolve the device and the precision of a run.

    Args:
        device: auto, cpu, cuda, cuda:1, ...
        precision: auto or one of ``PRECISIONS``; float16 is for inference only.
        training: Selects the meaning of "auto". In training it is bf16 if the device has it, else float32. In inference
            it is float32 on a CPU, where motions are then independent of their batch, and bf16 on a GPU, or float16 if
            the GPU lacks bf16.
        quantized: Whether the weights will be quantized, which needs bf16.

    Returns:
        The device, the dtype, and a sentence that names both with the reason.

    Raises:
        InputError: if the device or the precision does not exist.
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
    reason = "as requested"
    if precision == "auto" and quantized:
        precision, reason = "bf16", "quantized weights need it"
    elif precision == "auto" and (training or on_cuda):
        reason = f"the device {'has' if has_bf16 else 'lacks'} bf16 arithmetic"
        precision = "bf16" if has_bf16 else "float32" if training else "float16"
    elif precision == "auto":
        precision, reason = "float32", "on a CPU, motions are then independent of their batch"
    if not training and device == "cpu" and "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(min(torch.get_num_threads(), free_cores()))
    threads = torch.get_num_threads()
    name = torch.cuda.get_device_name(device) if on_cuda else f"{threads} CPU thread{'s' * (threads > 1)}"
    return torch.device(device), PRECISIONS[precision], f"running on {device} ({name}) in {precision}: {reason}"


def free_cores(seconds: float = 0.2) -> int:
    """Return the number of cores, at least one, that other programs leave to this one.

    Args:
        seconds: Time to watch them for.
    """
    used = psutil.cpu_times_percent(seconds, percpu=True)
    allowed = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(len(used))
    idle = [used[core].idle / 100 for core in allowed if core < len(used)]
    return max(1, round(sum(idle)))


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
