"""The model card of a checkpoint: README.md with YAML front matter, as the Hugging Face hub shows it.

It states facts from the files and ``train.yaml`` of the checkpoint and those given by its author; nothing else.
"""

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from models.checkpoints import TOKENIZER
from models.known import Known
from models.llama import LLaMAHF
from models.llama_config import LLaMAConfig
from models.motion_vqvae import HumanVQVAE, VQVAEConfig
from motion.resample import FPS
from utils.checkpoint import stored_weights
from utils.errors import InputError, counted, shown
from utils.hub import parse_hub_id
from utils.reading.texts import read_json, read_text, read_yaml

CARD = "README.md"
TRAINING = ("steps", "batch_size", "batch_tokens", "learning_rate", "seed")  # options of train.yaml that are listed
MAX_MEASURES = 100
CREATIVE_COMMONS = {
    "by": "name the source",
    "nc": "no commercial use",
    "sa": "share under the same license",
    "nd": "no changes",
}
GENERATOR_SNIPPET = """from models.pipeline import TextToMotion

model = TextToMotion.from_pretrained("{name}")
motion = model.generate(["a person walks forward"], seeds=[0])[0]
motion.smplx85  # (T, 85) SMPL-X body parameters at 30 frames per second"""
TOKENIZER_SNIPPET = """from models.motion_vqvae import HumanVQVAE

tokenizer = HumanVQVAE.from_pretrained("{name}")"""


@dataclass
class CardOptions:
    """Facts for the model card that the files do not hold."""

    license: str | None = None
    """License of the weights, as an id of the Hugging Face hub: cc-by-nc-4.0, apache-2.0 ... Weights usually carry the
    license of their training data."""
    datasets: list[str] = field(default_factory=list)
    """Training data: names, or ids of data sets on the Hugging Face hub."""
    measures: Path | None = None
    """JSON file of measured values, in nested tables; every number becomes a row of the model card."""


def model_card(folder: Path, name: str, options: CardOptions) -> str:
    """Return the text of the model card of a checkpoint folder.

    Args:
        folder: Folder of a text-to-motion model (with its tokenizer), or of a tokenizer.
        name: Folder or hub id that the model is loaded by.
        options: Facts from its author.

    Raises:
        InputError: a file of the folder or the measures cannot be read.
    """
    training = _training(folder)
    measures = list(_measures(folder, training, options.measures))
    is_generator = (folder / TOKENIZER).is_dir()
    base = str(training.get("init") or "")
    header: dict[str, Any] = {
        "license": options.license,
        "library_name": "pytorch",
        "pipeline_tag": "text-to-3d" if is_generator else None,
        "tags": ["text-to-motion", "motion-generation"] if is_generator else ["motion-tokenizer"],
        "datasets": options.datasets,
        "base_model": base.partition("@")[0] if parse_hub_id(base) else None,
        "metrics": sorted({measure.rpartition(" / ")[2] for measure, _ in measures}),
    }
    header = {key: value for key, value in header.items() if value}
    snippet = (GENERATOR_SNIPPET if is_generator else TOKENIZER_SNIPPET).format(name=name)
    rows = [f"| {measure} | {value:.6g} |" for measure, value in measures]
    data = f"Data: {', '.join(options.datasets)}." if options.datasets else "The training data is not named."
    rights = f"License of the weights: {options.license}." if options.license else "No license is stated."
    return "\n".join(
        [
            "---",
            yaml.safe_dump(header, sort_keys=False).rstrip(),
            "---",
            "",
            f"# {Path(name.partition('@')[0]).name}",
            "",
            _describe_generator(folder) if is_generator else _describe_tokenizer(folder),
            "",
            *_describe_known(folder),
            f"```python\n{snippet}\n```",
            "",
            "## Training",
            "",
            *_describe_training(training, base),
            "",
            "## Measures",
            "",
            *(["| measure | value |", "|---|---|", *rows] if rows else ["No measures are given."]),
            "",
            "## Data and license",
            "",
            f"{data} {rights}",
            "",
        ]
    )


def rights_of_motions(folder: Path) -> str:
    """Return the license of motions made with the weights of a folder, in one line; empty if its card names none."""
    card = folder / CARD
    text = read_text(card, "a model card") if card.is_file() else ""
    found = re.search(r"\A---\n(?:(?!---\n).*\n)*?license:[ \t]*['\"]?([\w.-]{1,40})", text)
    if not found:
        return ""
    first, *terms = found[1].lower().split("-")
    if first != "cc" or not terms:
        return f"made with weights under {found[1]}"
    *terms, version = terms
    rules = [CREATIVE_COMMONS[term] for term in terms if term in CREATIVE_COMMONS]
    return f"made with weights under CC {'-'.join(terms).upper()} {version}: {', '.join(rules)}".removesuffix(": ")


def _describe_generator(folder: Path) -> str:
    config: LLaMAConfig = LLaMAHF.from_pretrained(folder, load_weights=lambda model, folder: None).config
    tokenizer: VQVAEConfig = HumanVQVAE.from_pretrained(folder / TOKENIZER, load_weights=lambda model, _: None).config
    seconds = config.max_tokens * tokenizer.stride / FPS
    return (
        f"A text-to-motion model: a generator ({_millions(folder)} parameters, {config.n_layer} layers of width "
        f"{config.n_embd}, text features of {config.text_encoder}) and its motion tokenizer "
        f"({_millions(folder / TOKENIZER)} parameters, {config.codebook_size:,} codes, {tokenizer.stride} frames per "
        f"token). It generates at most {seconds:.1f} s of motion at {FPS} frames per second."
    )


def _describe_known(folder: Path) -> list[str]:
    """Return the lines that name the actions of a generator; none if it lists none."""
    known = Known.load(folder)
    if known is None or not known.actions:
        return []
    count = counted(len(known.actions), "action")
    return [f"It knows {count}: {', '.join(shown(action.name, 40) for action in known.actions)}.", ""]


def _describe_tokenizer(folder: Path) -> str:
    model = HumanVQVAE.from_pretrained(folder, load_weights=lambda model, folder: None)
    return (
        f"A motion tokenizer ({_millions(folder)} parameters, {model.codebook_size:,} codes, {model.config.stride} "
        f"frames per token): it encodes 272-dim motion features at {FPS} frames per second as tokens and decodes them."
    )


def _millions(folder: Path) -> str:
    return f"{sum(tensor.numel() for _, tensor in stored_weights(folder).values()) / 1e6:,.1f} M"


def _run_folder(folder: Path) -> Path:
    return folder.parent if folder.resolve().name == "best" else folder


def _training(folder: Path) -> dict[str, Any]:
    """Return the options of the training; empty if the folder has none."""
    file = _run_folder(folder) / "train.yaml"
    content = read_yaml(file) if file.exists() else {}
    return content if isinstance(content, dict) else {}


def _describe_training(training: dict[str, Any], base: str) -> list[str]:
    """Return the lines about the training; paths are shortened to their last part."""
    lines = [f"- fine-tuned from {shown(base if parse_hub_id(base) else Path(base).name, 120)}"] if base else []
    if training.get("data"):
        lines.append(f"- data folder: {shown(Path(str(training['data'])).name)}")
    lines += [f"- {name}: {shown(training[name])}" for name in TRAINING if training.get(name) is not None]
    return lines or ["The training is not described."]


def _measures(folder: Path, training: dict[str, Any], file: Path | None) -> Iterator[tuple[str, float]]:
    """Yield names and values of the measures: the best validation score of the run, and those of a JSON file."""
    states = sorted(_run_folder(folder).glob("states/step-*/run.json"))
    if states and training:
        best = read_json(states[-1], finite=False)
        score = best.get("best") if isinstance(best, dict) else None
        if isinstance(score, (int, float)) and math.isfinite(score):
            yield "best validation loss" if "tokenizer" in training else "best validation joint error (mm)", score
    if file is not None:
        numbers = [(name, value) for name, value in _numbers(read_json(file), "") if math.isfinite(value)]
        if not 0 < len(numbers) <= MAX_MEASURES:
            raise InputError(f"{file} holds {len(numbers)} numbers; give a JSON file with 1 to {MAX_MEASURES} measures")
        yield from numbers


def _numbers(value: Any, name: str) -> Iterator[tuple[str, float]]:
    """Yield the numbers in nested tables with the names that lead to them."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _numbers(inner, f"{name} / {shown(key, 60)}" if name else shown(key, 60))
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        yield name.replace("|", "/"), value
