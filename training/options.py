"""Options shared by the training scripts."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from jsonargparse.typing import ClosedUnitInterval, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

from models.llama import SIZES
from utils.config import bounded

if TYPE_CHECKING:
    Seed = int
    Size = str
else:
    Seed = bounded("Seed", int, (">=", 0), ("<", 2**31))
    Size = Literal[tuple(SIZES)]  # of the generator


@dataclass(kw_only=True)
class TrainingOptions:
    """Options shared by the training scripts."""

    data: Path
    """Data folder: one written by prepare_data.py, or one in the layout of HumanML3D-272, BABEL-272 or MotionMillion
    (docs/data.md)."""
    out: Path
    """Run folder to write."""
    init: str | None = None
    """Model to fine-tune: its folder, or its Hugging Face id, user/name or user/name@revision. The training starts from
    its weights, and the options of --model are taken from it, except dropout rates."""
    resume: bool = False
    """Resume the run in --out from its newest undamaged state (checkpoint for resuming)."""
    batch_size: PositiveInt = 64
    """Training items per step (windows of train_vq.py, motions of train_t2m.py and train_evaluator.py), over all
    processes and micro-batches."""
    accumulate: PositiveInt = 1
    """Micro-batches per process and step (gradient accumulation)."""
    steps: PositiveInt = 5000
    """Number of training steps."""
    optimizer: Literal["adamw", "muon"] = "adamw"
    """Optimizer: adamw, or muon, which trains hidden weight matrices and convolutions with Muon, and embeddings, the
    output layer, norms and biases with AdamW. Muon usually needs fewer steps and a larger learning rate, such as 1e-3.
    It does not support FSDP2 and DeepSpeed."""
    learning_rate: PositiveFloat = 5e-4
    """Peak learning rate."""
    schedule: Literal["cosine", "constant"] = "cosine"
    """Learning rate after the warm-up: cosine decay, or constant."""
    warmup: NonNegativeInt = 200
    """Steps of linear learning rate warm-up."""
    weight_decay: NonNegativeFloat = 0.01
    """Weight decay; biases, norms and embeddings are not decayed."""
    clip_norm: PositiveFloat = 1.0
    """Maximum gradient norm; larger gradients are scaled down to it."""
    ema: ClosedUnitInterval = 0.99
    """Decay of the exponential moving average (EMA) of the weights, which is validated and saved; 0 disables it."""
    recompute: bool = False
    """Activation checkpointing: recompute the activations of each block in the backward pass to save memory."""
    compiled: bool = False
    """Compile the blocks with torch.compile."""
    validate_every: PositiveInt = 500
    """Steps between validations on the val split; each validation also saves the run."""
    keep: PositiveInt = 2
    """Number of states (checkpoints for resuming) to keep, newest first."""
    draw: NonNegativeInt = 2
    """Number of validation motions to render beside their targets at each validation."""
    wandb: bool = False
    """Log to Weights & Biases in addition to TensorBoard."""
    device: str = "auto"
    """Device to train on: auto, cpu, cuda, cuda:1, ..."""
    precision: Literal["auto", "float32", "bf16"] = "auto"
    """Precision of the arithmetic (--dtype in inference_batch.py): float32, bf16 (autocast over float32 weights), or
    auto (bf16 if the device supports it)."""
    save_precision: Literal["float32", "float16"] = "float32"
    """Precision of the saved weights; float16 halves the size of the checkpoint."""
    workers: NonNegativeInt = 0
    """Number of data loading processes; 0 loads data in the training process."""
    seed: Seed = 0
    """Seed of the weights, dropout and data order."""
