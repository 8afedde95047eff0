"""Train a small generator in bf16 under several engines, and compare the weights; on every process of a run over gloo.

python -m torch.distributed.run --standalone --nproc_per_node 2 -m tests.engines
"""

import os
import sys
from pathlib import Path

import torch
from accelerate.state import AcceleratorState, GradientState

from models.llama import LLaMAHF
from models.llama_config import SIZES, LLaMAConfig
from training.engine import Engine, configure_blocks, connect_processes, make_accelerator, shard
from training.optimizer import make_optimizer

STEPS, ROWS, TOKENS = 20, 8, 12


def weights_after(engine_name: str, accumulate: int = 1, recompute: bool = False) -> dict[str, torch.Tensor]:
    """Return the unsharded weights of the main process after training, with the rows of a step in micro-batches."""
    os.environ["ACCELERATE_USE_FSDP"] = str(engine_name == "fsdp2").lower()
    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()
    cpu, bf16 = torch.device("cpu"), torch.bfloat16
    accelerator = make_accelerator(cpu, connect_processes(cpu, bf16), accumulate, 1.0, [], Path())
    torch.manual_seed(0)
    model = LLaMAHF(LLaMAConfig(50, 24, "", 8, TOKENS, **SIZES["debug"], control=6))
    configure_blocks(model, recompute, compiled=False)
    if engine_name == "fsdp2":
        shard(model, bf16)
    engine = Engine(accelerator, model, make_optimizer(model, "adamw", 1e-3, 0.01), 0.9)
    generator = torch.Generator().manual_seed(1)
    parts = accelerator.num_processes * accumulate
    for step in range(STEPS):
        text = torch.randn(ROWS, 5, 24, generator=generator)
        control = torch.randn(ROWS, TOKENS + 1, 6, generator=generator)
        tokens = torch.randint(50, (ROWS, TOKENS), generator=generator)
        rows = torch.arange(ROWS).view(accumulate, -1, ROWS // parts)[:, accelerator.process_index]
        for own in rows:
            with accelerator.accumulate(engine.wrapped):
                targets = model.next_tokens(tokens[own])
                mask = torch.ones(len(own), 5, dtype=torch.bool)
                count = torch.tensor(ROWS * (TOKENS + 1))
                loss = engine.wrapped(text[own], mask, tokens[own], targets, count, 1e-4, control[own])
                accelerator.backward(loss * parts)
        accelerator.clip_grad_norm_(engine.wrapped.parameters(), 1.0)
        engine.optimizer.step()
        engine.optimizer.zero_grad()
        engine.ema.update(step)
    return engine.full_weights()


def difference(weights: dict[str, torch.Tensor], others: dict[str, torch.Tensor]) -> float:
    """Return the largest absolute difference of a weight; 0 on processes that hold none."""
    return max(((weights[name] - others[name]).abs().max().item() for name in weights), default=0.0)


def main() -> None:
    ddp = weights_after("ddp")
    spread = difference(ddp, weights_after("ddp", accumulate=2))
    for recompute in (False, True):
        fsdp2 = difference(ddp, weights_after("fsdp2", recompute=recompute))
        if ddp and os.environ["RANK"] == "0":
            print(f"difference {fsdp2:.3g}, spread of two summation orders {spread:.3g}")
            assert fsdp2 <= spread


if __name__ == "__main__":
    main()
    sys.stdout.flush()
    os._exit(0)  # threads of PyTorch's process groups sometimes abort the usual end of Python
