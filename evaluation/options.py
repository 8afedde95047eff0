"""Options of evaluate.py."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from jsonargparse.typing import NonNegativeFloat, NonNegativeInt, PositiveInt

from models.sampling_options import DEFAULT_SAMPLING, Sampling
from models.sources import check_checkpoint
from utils.config import bounded
from utils.errors import InputError

REPEATS = 20  # of published tables
if TYPE_CHECKING:
    Probability = float
    Seed = int
    Repeats = int
else:
    Probability = bounded("Probability", float, (">", 0), ("<=", 1))
    Seed = bounded("Seed", int, (">=", 0), ("<", 2**31))
    Repeats = bounded("Repeats", int, (">=", 1), ("<=", 1000))


@dataclass(kw_only=True)
class GenerationOptions:
    """Options of the generation of motions."""

    checkpoint: str = "checkpoints/demo"
    """Text-to-motion model: a folder, as train_t2m.py writes it, or a Hugging Face id, user/name or
    user/name@revision."""
    temperature: NonNegativeFloat = DEFAULT_SAMPLING.temperature
    """Temperature of sampling; 0 selects the most likely token (greedy)."""
    top_p: Probability = DEFAULT_SAMPLING.top_p
    """Sample from the smallest set of most likely tokens whose total probability reaches this value (nucleus sampling);
    1 disables it."""
    guidance: NonNegativeFloat | None = DEFAULT_SAMPLING.guidance
    """Scale of classifier-free guidance; larger values follow the text more closely, 1 disables it. Default: 2, or 1 if
    the model was trained without text dropout."""
    batch_size: PositiveInt = 32
    """Number of motions generated at the same time."""
    dtype: Literal["auto", "float32", "bf16", "float16"] = "auto"
    """Precision of the generator; auto is float32 on a CPU and bf16 on a GPU (float16 if the GPU lacks bf16)."""
    quantize: Literal["none", "int8", "int4"] = "none"
    """Quantization of the generator's weights; int8 and int4 (CUDA only) need bf16, which --dtype auto then selects."""
    text_encoder_path: Path | None = None
    """Folder of the text encoder's weights. By default, checkpoints/<name>, the Hugging Face cache and the Hugging Face
    hub are searched, in this order."""
    device: str = "auto"
    """Device of the models: auto, cpu, cuda, cuda:1, ..."""

    def __post_init__(self) -> None:
        check_checkpoint(self.checkpoint)

    @property
    def sampling(self) -> Sampling:
        """Settings of sampling."""
        return Sampling(temperature=self.temperature, top_p=self.top_p, guidance=self.guidance)


@dataclass(kw_only=True)
class ProtocolOptions:
    """Options of the protocol of text-to-motion metrics."""

    repeats: Repeats = REPEATS
    """Number of repeats, each with new captions, cuts of the clips and motions; published tables have 20."""
    seed: Seed = 0
    """Seed of captions, cuts and pools, and of the first motion."""
    protocol: Literal["t2m", "motiongpt", "tmr", "motius"] = "t2m"
    """Published protocol of the metrics; docs/evaluation.md compares them."""
    group_captions: bool | None = None
    """Count all clips that share a caption with a clip as correct answers to it. Default: true for evaluators of
    train_evaluator.py, false for public ones."""
    multimodality: NonNegativeInt = 100
    """Number of captions for MultiModality, each of which is generated 30 times; 0 leaves it out."""


@dataclass(kw_only=True)
class PromptOptions(GenerationOptions):
    """Measure prompt following: generate prompts with many seeds and judge the motions by geometric conditions."""

    prompts: Path = Path("configs/prompts/demo.yaml")
    """YAML file of prompts with conditions, or a prompt file without conditions (.txt, .json, .jsonl, .csv, .tsv), for
    which physical measures are reported."""
    seeds: PositiveInt = 16
    """Number of motions per prompt, with the seeds 0, 1, 2 and so on."""
    out_dir: Path = Path("outputs/evaluation/prompts")
    """Folder for evaluation.json and evaluation.md; created if missing."""
    list_conditions: bool = False
    """Print the phrases of conditions and exit."""

    def __post_init__(self) -> None:
        if not self.list_conditions:
            super().__post_init__()


@dataclass(kw_only=True)
class TokenizerOptions:
    """Measure a tokenizer: compare every clip of a split with its reconstruction."""

    checkpoint: str = "checkpoints/demo"
    """Tokenizer: a run folder of train_vq.py, a text-to-motion model, or the Hugging Face id of one of them."""
    data: Path
    """Data folder, in any layout that the trainings read (docs/data.md)."""
    split: str = "test"
    """Split of the data to measure on."""
    evaluator: Path | None = None
    """Folder of an evaluator, for FID: of train_evaluator.py, or public (docs/evaluation.md)."""
    out_dir: Path = Path("outputs/evaluation/tokenizer")
    """Folder for evaluation.json, evaluation.md and evaluation.html; created if missing."""
    device: str = "auto"
    """Device of the models: auto, cpu, cuda, cuda:1, ..."""


@dataclass(kw_only=True)
class T2MOptions(ProtocolOptions, GenerationOptions):
    """Measure a text-to-motion model: generate motions for the captions of a split and compare with the recorded."""

    data: Path
    """Data folder, in any layout that the trainings read (docs/data.md)."""
    split: str = "test"
    """Split of the data to measure on."""
    evaluator: Path = Path("checkpoints/evaluator")
    """Folder of the evaluator: of train_evaluator.py, or public (docs/evaluation.md)."""
    out_dir: Path = Path("outputs/evaluation/t2m")
    """Folder for evaluation.json, evaluation.md, evaluation.html and the generated motions, which are not generated
    again by the next run; created if missing."""


@dataclass(kw_only=True)
class FilesOptions:
    """Measure motions of any system: files in a folder, with the prompts that they were made for."""

    motions: Path
    """Folder of motion files: .npz, .bvh and .npy as `python -m visualize.export` reads them. It may
    follow the command directly: evaluate.py files FOLDER."""
    prompts: Path | None = None
    """Prompts of the files: a prompt file, or a suite with conditions (.yaml). A file is matched to its prompt by name
    or by order (docs/evaluation.md). By default, prompts are taken from results.json of the folder or from the .npz
    files."""
    data: Path | None = None
    """Data folder with the recorded clips, for the row of real motions and FID."""
    split: str = "test"
    """Split of the data to compare with."""
    evaluator: Path | None = None
    """Folder of an evaluator: of train_evaluator.py, or public (docs/evaluation.md)."""
    protocol: Literal["t2m", "motiongpt", "tmr", "motius"] = "t2m"
    """Published protocol of the metrics; docs/evaluation.md compares them."""
    repeats: Repeats = REPEATS
    """Number of repeats, each with other cuts of the recorded clips and other pools."""
    seed: Seed = 0
    """Seed of cuts and pools."""
    group_captions: bool | None = None
    """Count all motions that share a caption or prompt as correct answers to it. Default: true for evaluators of
    train_evaluator.py, false for public ones."""
    out_dir: Path = Path("outputs/evaluation/files")
    """Folder for evaluation.json, evaluation.md and evaluation.html; created if missing."""
    device: str = "auto"
    """Device of the evaluator: auto, cpu, cuda, cuda:1, ..."""

    def __post_init__(self) -> None:
        if not self.motions.is_dir():
            raise InputError(f"{self.motions} is no folder; give the folder of the motion files first")
