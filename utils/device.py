"""Where and in which precision things run, and how fast the device multiplies."""

import shutil
import time

import torch

from utils.errors import InputError

PRECISIONS = {"float32": torch.float32, "bf16": torch.bfloat16, "float16": torch.float16}


def choose_device(
    device: str, precision: str, training: bool = True, quantized: bool = False
) -> tuple[torch.device, torch.dtype, str]:
    """Resolve "auto" for device and precision; also a sentence that gives the reason.

    Args:
        device: auto, cpu, cuda, cuda:1, ... precision: auto or one of ``PRECISIONS``; float16 is not for training.
        training: bf16 wherever the device has it; otherwise float32 on a CPU, where it makes motions independent of
            each other, and float16 where a GPU lacks bf16.
        quantized: the weights will be: bf16 is what goes with it.

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
    if precision == "auto" and quantized:
        precision, reason = "bf16", "quantized weights go with it"
    elif precision == "auto" and (training or on_cuda):
        reason = f"the device {'has' if has_bf16 else 'lacks'} bf16 arithmetic"
        precision = "bf16" if has_bf16 else "float32" if training else "float16"
    elif precision == "auto":
        precision, reason = "float32", "on a CPU, motions are then the same in any batch"
    name = torch.cuda.get_device_name(device) if on_cuda else f"{torch.get_num_threads()} CPU threads"
    return torch.device(device), PRECISIONS[precision], f"running on {device} ({name}) in {precision}: {reason}"


def can_compile(device: torch.device) -> bool:
    """Whether ``torch.compile`` has what it needs: a C++ compiler on a CPU."""
    return device.type != "cpu" or bool(shutil.which("c++") or shutil.which("g++"))


def gemm_rate(device: torch.device, dtype: torch.dtype) -> float:
    """FLOPS of the device's product of two large square matrices in ``dtype``: the best of five."""
    size = 1024 if device.type == "cpu" else 8192
    a, b = torch.ones(2, size, size, device=device, dtype=dtype)
    best = float("inf")
    for _ in range(5):
        started = time.perf_counter()
        (a @ b)[0, 0].item()  # waits for the device
        best = min(best, time.perf_counter() - started)
    return 2 * size**3 / best
