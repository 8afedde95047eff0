"""Options of the training scripts; this module imports no PyTorch."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from jsonargparse.typing import ClosedUnitInterval, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

from evaluation.evaluators.config import EvaluatorConfig
from models.encoder_names import encoder_width
from models.llama_config import SIZES
from models.sources import check_checkpoint
from models.vqvae_config import MotionLossConfig, VQVAEConfig
from utils.config import bounded
from utils.errors import InputError
from utils.hub import check_source

if TYPE_CHECKING:
    DropoutRate = float
    Utilisation = float
    Seed = int
    Size = str
else:
    DropoutRate = bounded("DropoutRate", float, (">=", 0), ("<", 1))
    Utilisation = bounded("Utilisation", float, (">", 0), ("<=", 1))
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
    auto (bf16 if the device computes it faster)."""
    save_precision: Literal["float32", "float16"] = "float32"
    """Precision of the saved weights; float16 halves the size of the checkpoint."""
    workers: NonNegativeInt = 0
    """Number of data loading processes; 0 loads data in the training process."""
    seed: Seed = 0
    """Seed of the weights, dropout and data order."""


@dataclass(kw_only=True)
class TokenizerOptions(TrainingOptions):
    """Options of the tokenizer training."""

    model: VQVAEConfig = field(default_factory=VQVAEConfig)
    """Shape of the tokenizer."""
    loss: MotionLossConfig = field(default_factory=MotionLossConfig)
    """Terms of the loss and their weights."""
    window: PositiveInt = 64
    """Frames per training window; a multiple of the frames per token."""
    beginnings: ClosedUnitInterval = 0.0
    """Fraction of windows that begin with their clip. The first tokens of a motion are decoded without context;
    windows from the middle of clips do not train this for the poses that clips begin with."""
    only_decoder: bool = False
    """Train only the decoder. The tokens of every motion stay those of --init."""
    validate_clips: PositiveInt = 64
    """Maximum number of whole clips to validate on."""

    def __post_init__(self):
        if self.only_decoder and self.init is None:
            raise InputError("--only-decoder needs a trained tokenizer; give one as --init")
        if self.init is None:
            self.check_window(self.model)
        elif not self.resume:
            check_source(self.init, "tokenizer")

    def check_window(self, model: VQVAEConfig) -> None:
        """Raise InputError unless the window is whole tokens of the model."""
        if self.window % model.stride:
            raise InputError(
                f"--window {self.window} is not a multiple of the {model.stride} frames per token; "
                "change --window or --model.down-t"
            )


@dataclass(kw_only=True)
class PlanOptions:
    """Options of the plan."""

    plan: bool = False
    """Print the cost of the training (parameters, FLOPs, memory per GPU, days) and exit without training."""
    plan_tflops: PositiveFloat = 989.0
    """Assumed peak speed of a GPU in 10^12 FLOPs per second; 989 is an H100 SXM in dense bf16 (data sheet)."""
    plan_utilisation: Utilisation = 0.4
    """Assumed model FLOPs utilization (MFU), as a fraction of the peak speed."""
    plan_text: NonNegativeInt | None = None
    """Assumed number of text features per caption; by default the maximum of the text encoder."""


@dataclass
class GeneratorShape:
    """Options of LLaMAConfig that are free to choose; the tokenizer and the text encoder determine the others."""

    size: Size = "demo"
    """Size of the model, from the size table of models/llama_config.py."""
    max_tokens: PositiveInt = 160
    """Maximum length of a motion in tokens."""
    dropout: DropoutRate = 0.1
    """Dropout rate of the embeddings and the block outputs."""
    text_dropout: DropoutRate = 0.1
    """Fraction of captions replaced by the null text, for classifier-free guidance."""
    tie_weights: bool = False
    """Use the token embedding as the output matrix (weight tying)."""


@dataclass(kw_only=True)
class GeneratorOptions(PlanOptions, TrainingOptions):
    """Options of the generator training."""

    tokenizer: str | None = None
    """Trained tokenizer: a folder, such as the run folder of train_vq.py, or a Hugging Face id, user/name or
    user/name@revision. With --init, it is taken from that model."""
    model: GeneratorShape = field(default_factory=GeneratorShape)
    """Shape of the generator."""
    text_encoder: str = "minilm"
    """Frozen text encoder: minilm, clip, flan-t5-small, -base, -large, -xl or -xxl; a suffix :mean, :sum or :cls
    (flan-t5-xl:mean) pools the features to a single vector."""
    text_encoder_path: Path | None = None
    """Folder of the text encoder's weights. By default, checkpoints/<name>, the Hugging Face cache and the Hugging Face
    hub are searched, in this order."""
    cache_text_features: bool = False
    """Store the text features of all captions on disk, in text_features/ of the data folder, or in the cache folder if
    the data folder cannot be written."""
    z_loss: NonNegativeFloat = 0.0
    """Weight of the z-loss, which penalizes large logits; 0 disables it."""
    joined: NonNegativeInt = 0
    """Number of additional training rows per clip in which the clip follows part of another clip. Needed for prompts of
    several sentences and for --init-motion."""
    cut_longer: bool = False
    """Cut motions longer than --model.max-tokens at random places instead of raising an error."""
    token_drop: ClosedUnitInterval = 0.0
    """Fraction of motions that lose their first or last token in training; T2M-GPT uses 1/3."""
    state_dropout: ClosedUnitInterval = 0.0
    """Fraction of captions that lose all text features but the first one in training: minilm then gives the sentence
    vector alone, which makes the generator less sensitive to wording; 0 disables it."""
    control: ClosedUnitInterval = 0.0
    """Fraction of motions that are trained with random constraints (keyframes, paths, pinned joints and so on). Needed
    for constraints at generation."""
    only_control: bool = False
    """Train only the part of the generator that control adds. Without constraints, it stays exactly as --init."""
    evaluator: Path | None = None
    """Folder of an evaluator (of train_evaluator.py, or public), with which motions that are generated for validation
    captions are measured: FID and R-precision. Validation takes longer. Not measured with sharded weights."""
    prompt_suite: Path | None = None
    """YAML file of prompts with conditions, such as configs/prompts/demo.yaml, that are generated at validation:
    prompts_missed is the share of motions that miss a condition."""
    generate_clips: PositiveInt = 128
    """Maximum number of validation captions to generate with --evaluator."""
    batch_tokens: PositiveInt | None = None
    """Maximum number of motion tokens per step, including padding. Replaces --batch-size."""

    def __post_init__(self):
        encoder_width(self.text_encoder)  # rejects unknown names before any work is done
        if self.tokenizer is None and self.init is None:
            raise InputError("--tokenizer is missing; give a run folder of train_vq.py, or a model as --init")
        if self.tokenizer is not None:
            check_source(self.tokenizer, "tokenizer")
        if self.init is not None and not self.resume:
            check_checkpoint(self.init)
        if self.only_control and not (self.init and self.control):
            raise InputError(
                "--only-control needs --init and --control; give a trained model and a fraction of motions"
            )
        for name, source in (("tokenizer", self.tokenizer), ("init", self.init)):
            if source is not None and self.out.resolve() == Path(source).resolve():
                raise InputError(f"--out and --{name} are both {self.out}; choose another --out")


@dataclass(kw_only=True)
class EvaluatorOptions(TrainingOptions):
    """Options of the evaluator training."""

    model: EvaluatorConfig = field(default_factory=EvaluatorConfig)
    """Shape of the evaluator."""
    temperature: PositiveFloat = 0.07
    """Temperature of the contrastive loss: the similarities of captions and motions are divided by it."""
    same_meaning: ClosedUnitInterval = 0.95
    """Similarity of two captions, cosine / 2 + 0.5 of their sentence vectors, above which they are equivalent.
    Motions of equivalent captions are not negatives of each other, and neither are those of clips that share a
    caption."""
    text_encoder_path: Path | None = None
    """Folder of the text encoder's weights. By default, checkpoints/<name>, the Hugging Face cache and the Hugging Face
    hub are searched, in this order."""
    cache_text_features: bool = False
    """Store the text features of all captions on disk, in text_features/ of the data folder, or in the cache folder if
    that cannot be written."""
    draw: NonNegativeInt = 0
    """No effect: an evaluator generates no motions."""

    def __post_init__(self):
        if self.batch_size // self.accumulate < 2:
            raise InputError(
                f"--batch-size {self.batch_size} with --accumulate {self.accumulate} leaves no other motion as a "
                "negative; raise --batch-size"
            )
