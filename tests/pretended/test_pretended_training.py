"""Training on a pretended GPU: both scripts in bf16 with validation, saving and resuming; waits of a step."""

import os
import sys
from collections import Counter
from pathlib import Path
from unittest import mock

import pytest
import torch
from accelerate.state import AcceleratorState, GradientState

import prepare_data
import training.loop
from models.motion_vqvae import HumanVQVAE, VQVAEConfig
from models.vq_loss import MotionLoss, MotionLossConfig
from tests.conftest import run_in_this_process
from tests.pretended.device import DeviceTensor, Pretended
from tests.pretended.patches import pretended
from training.optimizer import make_optimizer
from training.state import states
from utils.checkpoint import WEIGHTS

WAITS_PER_STEP = 1  # to read loss, gradient norm and signals


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("prepared") / "data"
    prepare_data.synthetic(prepare_data.SyntheticOptions(folder, count=20))
    clips = (folder / "split" / "train.txt").read_text().split()
    (folder / "split" / "val.txt").write_text("\n".join(clips[:2]))
    return folder


def train(script: str, out: Path, *options: object, kind: str = "cuda") -> list[Counter[str]]:
    """Run a training script on the pretended device; returns the waits and uploads of each step but the first."""
    at_updates: list[Counter[str]] = []
    update = training.loop.Loop.update

    def counted(loop, *arguments):
        values = update(loop, *arguments)
        at_updates.append(Pretended.current.waits + Pretended.current.uploads)
        return values

    words = ["--draw", 0, "--precision", "bf16", *options, "--out", out]
    with pytest.MonkeyPatch.context() as patch, mock.patch.dict(os.environ), pretended(kind):
        patch.setattr(sys, "argv", [script, *map(str, words)])
        patch.setattr(training.loop.Loop, "update", counted)
        patch.setattr("visualize.skeleton.plot_3d_motion", lambda arguments: None)
        patch.setattr("training.meter.gemm_rate", lambda device, dtype: 1e12)  # a GPU's product takes minutes here
        run_in_this_process(script)
    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()
    return [after - before for before, after in zip(at_updates, at_updates[1:], strict=False)]


@pytest.fixture(scope="module")
def tokenizer_run(tmp_path_factory, data) -> tuple[Path, list[Counter[str]]]:
    out = tmp_path_factory.mktemp("tokenizer") / "run"
    words = ("--config", "configs/vq/debug.yaml", "--data", data, "--validate-every", 4)
    return out, train("train_vq.py", out, *words, "--steps", 4)


def test_training_of_the_tokenizer(tokenizer_run, data):
    out, waits = tokenizer_run
    assert (out / WEIGHTS).exists() and max(sum(step.values()) for step in waits) <= WAITS_PER_STEP, waits
    train("train_vq.py", out, "--config", out / "train.yaml", "--steps", 5, "--resume", "true")
    assert states(out / "states")[0].name == "step-00000005"


def test_training_on_a_gpu_of_apple(data, tmp_path):
    words = ("--config", "configs/vq/debug.yaml", "--data", data, "--device", "mps:0", "--validate-every", 2)
    train("train_vq.py", tmp_path, *words, "--steps", 2, kind="mps")
    train("train_vq.py", tmp_path, "--config", tmp_path / "train.yaml", "--steps", 3, "--resume", "true", kind="mps")
    assert states(tmp_path / "states")[0].name == "step-00000003"


def test_training_of_the_generator(tokenizer_run, data, tmp_path):
    words = ("--config", "configs/t2m/debug.yaml", "--data", data, "--tokenizer", tokenizer_run[0], "--z-loss", 1e-4)
    waits = train("train_t2m.py", tmp_path, *words, "--steps", 4, "--validate-every", 4, "--draw", 1)
    assert max(sum(step.values()) for step in waits) <= WAITS_PER_STEP, waits
    train("train_t2m.py", tmp_path, "--config", tmp_path / "train.yaml", "--steps", 5, "--resume", "true", "--draw", 0)
    assert (tmp_path / WEIGHTS).exists() and states(tmp_path / "states")[0].name == "step-00000005"


@pytest.mark.parametrize(("quantizer", "levels"), [("vq_ema", [16]), ("lfq", [2] * 4), ("rfsq", [4, 4])])
def test_a_training_step_with_each_quantizer(quantizer, levels):
    with pretended("cuda"):
        config = VQVAEConfig(quantizer=quantizer, levels=levels, code_dim=16, width=16, depth=1, patch_size=2, down_t=1)
        model = HumanVQVAE(config).to("cuda").train()
        motion, lengths = torch.randn(3, 17, 272, device="cuda"), torch.tensor([17, 12, 5], device="cuda")
        with torch.autocast("cuda", torch.bfloat16):
            output = model(motion, lengths)
        valid = lengths // 4 * 4
        target = motion[:, : output.reconstruction.shape[1]]
        loss = MotionLoss(MotionLossConfig())(output.reconstruction, target, model.mean, model.std, valid)[0]
        (loss + output.loss).backward()
        make_optimizer(model, "adamw", 1e-3, 0.01).step()
        assert isinstance(model.eval().decode(model.encode(motion)), DeviceTensor)
