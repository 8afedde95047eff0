"""Device and precision of a run."""

from types import SimpleNamespace

import psutil
import pytest
import torch

from tests.pretended.patches import pretended
from utils import device
from utils.device import PRECISIONS, OtherPrograms, check_gpus, choose_device, free_cores
from utils.errors import InputError


def test_device_and_precision_are_chosen_with_a_reason():
    place, dtype, reason = choose_device("cpu", "bf16")
    assert place.type == "cpu" and dtype == torch.bfloat16 and "cpu" in reason and "bf16" in reason
    assert choose_device("auto", "float32")[1] == torch.float32
    for arguments, words in ((("toaster", "auto"), "device toaster"), (("cpu", "float8"), "precision float8")):
        with pytest.raises(InputError, match=words):
            choose_device(*arguments)


@pytest.mark.parametrize(("rates", "precision"), [((9.0, 3.0), "bf16"), ((1.0, 3.0), "float32")])
def test_auto_selects_the_precision_with_the_faster_products_on_a_cpu(monkeypatch, rates, precision):
    measured = {torch.bfloat16: iter((rates[0], 0.1, 0.1)), torch.float32: iter((0.1, rates[1], 0.1))}
    monkeypatch.setattr(device, "gemm_rate", lambda place, dtype: next(measured[dtype]))  # three each, once per process
    monkeypatch.setattr(device, "has_bf16", lambda place: True)
    device.bf16_speedup.cache_clear()
    for _ in range(2):
        place, dtype, reason = choose_device("cpu", "auto")
        assert dtype == PRECISIONS[precision] and "3.0 times as" in reason
    device.bf16_speedup.cache_clear()
    monkeypatch.setattr(device, "has_bf16", lambda place: False)
    assert choose_device("cpu", "auto")[1] == torch.float32


def test_auto_takes_a_gpu_of_apple_in_a_precision_that_it_supports(monkeypatch):
    for training, precision in ((True, torch.float32), (False, torch.float16)):
        with pretended("mps"):
            monkeypatch.setattr("torch.backends.mps.is_macos_or_newer", lambda major, minor: False)
            assert choose_device("auto", "auto", training)[1] == precision
            with pytest.raises(InputError, match="has bf16 from macOS 14 on; use float32"):
                choose_device("mps", "bf16", training)
            monkeypatch.setattr("torch.backends.mps.is_macos_or_newer", lambda major, minor: True)
            place, dtype, reason = choose_device("auto", "auto", training)
            assert place.type == "mps" and dtype == torch.bfloat16 and "mps (Apple GPU)" in reason


def test_cuda_computes_convolutions_in_float32_and_attention_without_cudnn():
    torch.backends.cuda.enable_cudnn_sdp(True)
    torch.backends.cudnn.allow_tf32 = True
    with pretended("cuda"):
        choose_device("auto", "float32")
    assert not torch.backends.cuda.cudnn_sdp_enabled() and not torch.backends.cudnn.allow_tf32
    assert torch.backends.cudnn.conv.fp32_precision != "tf32" != torch.backends.cuda.matmul.fp32_precision


def test_time_of_other_programs_is_neither_idle_nor_our_own(monkeypatch):
    now, idle, own = [0.0], [0.0], [0.0]
    monkeypatch.setattr(device.time, "perf_counter", lambda: now[0])
    monkeypatch.setattr(device.time, "process_time", lambda: own[0])
    monkeypatch.setattr(device.psutil, "cpu_times", lambda percpu: [SimpleNamespace(idle=idle[0] / 2)] * 2)
    monkeypatch.setattr(device, "_allowed_cores", lambda count: [0, 1])
    others = OtherPrograms()
    now[0], idle[0], own[0] = 1.0, 0.9, 0.5  # of two seconds of two cores
    assert others.share() == pytest.approx(0.3)
    own[0] = 1.2  # times are rounded
    assert others.share() == 0


def test_processes_that_would_share_a_gpu_are_refused(monkeypatch):
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    for name in ("cpu", "auto"):
        check_gpus(name)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(InputError, match="cuda:1 is one GPU for 2 processes"):
        check_gpus("cuda:1")
    for name in ("cuda", "auto"):
        with pytest.raises(InputError, match="2 processes were started and the machine has 1 GPU"):
            check_gpus(name)


def test_cores_that_other_programs_use_are_not_free(monkeypatch):
    """Two cores are watched for 0.2 s: the first is idle, the second is busy or idle."""
    before = psutil.cpu_times()
    for busy, expected in ((0.18, 1), (0.02, 2)):
        after = [before._replace(idle=before.idle + 0.2 - used, user=before.user + used) for used in (0.0, busy)]
        snapshots = iter(([before, before], after))
        monkeypatch.setattr("psutil.cpu_times", lambda percpu, snapshots=snapshots: next(snapshots))
        monkeypatch.setattr("os.sched_getaffinity", lambda process: {0, 1}, raising=False)
        assert free_cores(0.001) == expected
