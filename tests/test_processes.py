"""Training on several processes, as configured by the files in configs/accelerate; here on the CPU over gloo."""

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from accelerate.commands.launch import _validate_launch_command as complete_arguments
from accelerate.commands.launch import launch_command_parser
from accelerate.utils.launch import prepare_deepspeed_cmd_env, prepare_multi_gpu_env
from safetensors.torch import load_file

from tests.starting import ROOT, run_processes, run_script
from utils.checkpoint import WEIGHTS

CONFIGS = ROOT / "configs" / "accelerate"
VQ = ("train_vq.py", "--config", "configs/vq/debug.yaml", "--steps", 20)
T2M = ("train_t2m.py", "--config", "configs/t2m/debug.yaml", "--model.dropout", 0, "--model.text-dropout", 0)
SETTINGS = ("--precision", "float32", "--device", "cpu", "--draw", 0, "--schedule", "constant")


def environment(config: str) -> dict[str, str]:
    """Return the environment variables that ``accelerate launch --config_file`` sets for its processes."""
    arguments = launch_command_parser().parse_args(["--config_file", str(CONFIGS / f"{config}.yaml"), "script.py"])
    arguments, defaults, _ = complete_arguments(arguments)
    arguments.deepspeed_fields_from_accelerate_config = ",".join(defaults.deepspeed_config)
    variables = prepare_deepspeed_cmd_env(arguments)[1] if arguments.use_deepspeed else prepare_multi_gpu_env(arguments)
    return {name: value for name, value in variables.items() if name.startswith(("ACCELERATE_", "FSDP_"))}


def run_on(processes: int, config: str, out: Path, *command: object) -> str:
    """Run a training on several processes of one thread each, which must succeed; returns its output."""
    variables = environment(config) | {"DS_ACCELERATOR": "cpu"}
    return run_processes(processes, command[0], *SETTINGS, *command[1:], "--out", out, environment=variables)


def difference(run: Path, other: Path) -> float:
    """Return the largest absolute difference of a weight."""
    ours, theirs = load_file(run / WEIGHTS), load_file(other / WEIGHTS)
    assert ours.keys() == theirs.keys()
    return max((ours[name] - theirs[name]).abs().max().item() for name in ours)


@pytest.fixture(scope="module", params=[VQ, T2M], ids=["tokenizer", "generator"])
def command(request, data_folder, tokenizer_run) -> tuple:
    tokenizer = ("--tokenizer", tokenizer_run) if request.param is T2M else ()
    return (*request.param, "--data", data_folder, *tokenizer)


@pytest.fixture(scope="module")
def ddp_run(command, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("ddp") / "run"
    assert "2 processes (MULTI_CPU)" in run_on(2, "ddp", out, *command)
    return out


def test_two_processes_or_micro_batches_equal_one_process(command, ddp_run, tmp_path):
    run_script(*command, *SETTINGS, "--out", tmp_path / "one")
    assert difference(tmp_path / "one", ddp_run) < 1e-5
    run_script(*command, *SETTINGS, "--out", tmp_path / "parts", "--accumulate", 2)
    assert difference(tmp_path / "one", tmp_path / "parts") < 1e-5


def test_sharded_training_equals_ddp_and_resumes_on_one_process(command, ddp_run, tmp_path):
    run = tmp_path / "run"
    assert "2 processes (FSDP)" in run_on(2, "fsdp2", run, *command, "--recompute", "--steps", 10)
    shards = [path.stat().st_size for path in (run / "states" / "step-00000010").glob("shard-*")]
    assert len(shards) == 2 and max(shards) < 0.7 * sum(shards)
    assert "steps 10 to 20" in run_script(*command, *SETTINGS, "--out", run, "--resume")
    assert difference(run, ddp_run) < 1e-4


def test_bf16_is_the_same_arithmetic_under_ddp_and_fsdp2():
    launcher = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2")
    result = subprocess.run(
        [*launcher, "-m", "tests.engines"],
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert result.returncode == 0, result.stdout


def test_resumed_sharded_run_restores_the_random_numbers_of_every_process(data_folder, tokenizer_run, tmp_path):
    command = (
        "train_t2m.py",
        "--config",
        "configs/t2m/debug.yaml",
        "--data",
        data_folder,
        "--tokenizer",
        tokenizer_run,
    )
    printed = run_on(2, "fsdp2", tmp_path / "whole", *command, "--steps", 8, "--draw", 1)
    assert "validation motions are not drawn with sharded weights" in printed
    run_on(2, "fsdp2", tmp_path / "run", *command, "--steps", 4)
    states = [file.read_bytes() for file in sorted((tmp_path / "run" / "states").glob("*/random-*"))]
    assert len(states) == 2 and states[0] != states[1]
    run_on(2, "fsdp2", tmp_path / "run", *command, "--steps", 8, "--resume")
    assert difference(tmp_path / "whole", tmp_path / "run") == 0


@pytest.mark.skipif(find_spec("deepspeed") is None, reason="needs DeepSpeed: pip install deepspeed")
def test_deepspeed_equals_ddp(command, ddp_run, tmp_path):
    assert "2 processes (DEEPSPEED)" in run_on(2, "deepspeed_zero2", tmp_path, *command)
    assert difference(tmp_path, ddp_run) < 1e-4


def test_accelerate_launches_one_process(data_folder, tmp_path):
    launch = (sys.executable, "-m", "accelerate.commands.launch", "--config_file", CONFIGS / "single.yaml")
    words = [*launch, *VQ, *SETTINGS, "--data", data_folder, "--out", tmp_path, "--steps", 2]
    result = subprocess.run([str(word) for word in words], cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0 and "; 1 process\n" in result.stdout, result.stdout + result.stderr


@pytest.mark.parametrize("config", sorted(path.stem for path in CONFIGS.glob("*.yaml")))
def test_accelerate_reads_every_config_file(config):
    variables = environment(config)
    assert variables.get("ACCELERATE_USE_FSDP", "false") == ("true" if config == "fsdp2" else "false")
    assert variables.get("ACCELERATE_USE_DEEPSPEED", "false") == ("true" if config == "deepspeed_zero2" else "false")
    assert variables.get("ACCELERATE_MIXED_PRECISION") == "no"
