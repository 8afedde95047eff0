"""Training on a GPU: both scripts in bf16, and resumed; skipped without one."""

import pytest
import torch
from safetensors.torch import load_file

from tests.conftest import ROOT
from training.state import states
from utils.checkpoint import WEIGHTS

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device is found"),
]


def test_both_trainings_in_bf16_are_resumed(data_folder, tmp_path, run_here):
    tokenizer = tmp_path / "vq"
    for script, kind, more in (("train_vq.py", "vq", ()), ("train_t2m.py", "t2m", ("--tokenizer", tokenizer))):
        config, out = ROOT / "configs" / kind / "debug.yaml", tmp_path / kind
        words = ("--data", data_folder, *more, "--precision", "bf16", "--draw", 0, "--validate-every", 4)
        printed = run_here(script, "--config", config, *words, "--steps", 4, "--out", out)
        assert "running on cuda" in printed and states(out / "states")[0].name == "step-00000004"
        before = load_file(out / WEIGHTS)
        run_here(script, "--config", out / "train.yaml", "--steps", 6, "--resume", "true")
        assert states(out / "states")[0].name == "step-00000006"
        after = load_file(out / WEIGHTS)
        assert all(weights.isfinite().all() for weights in after.values())
        assert any(not torch.equal(weights, before[name]) for name, weights in after.items())
