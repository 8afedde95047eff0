"""Measure a text-to-motion model.

    python evaluate.py prompts --checkpoint checkpoints/demo --prompts configs/prompts/demo.yaml --seeds 16

Results are printed, and written to evaluation.json and evaluation.md in --out-dir.
"""

import utils.interrupt  # noqa: F401

# isort: split

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from jsonargparse.typing import NonNegativeFloat, PositiveInt

from evaluation.conditions import describe_phrases
from evaluation.prompt_report import following_table, physical_table, summary, to_json
from evaluation.prompts import follow, read_suite
from models.pipeline import DEFAULT_SAMPLING, TextToMotion
from models.sampling import resolve_guidance
from utils.config import bounded, parse_command
from utils.device import choose_device
from utils.errors import InputError, exit_on_input_error
from utils.files import atomic_write

if TYPE_CHECKING:
    Probability = float
else:
    Probability = bounded("Probability", float, (">", 0), ("<=", 1))


@dataclass
class PromptOptions:
    """Measure prompt following: generate prompts with many seeds and judge the motions by geometric conditions."""

    checkpoint: Path = Path("checkpoints/demo")
    """Folder of a text-to-motion model, as train_t2m.py writes it."""
    prompts: Path = Path("configs/prompts/demo.yaml")
    """YAML file of prompts with conditions, or a prompt file without conditions (.txt, .json, .jsonl, .csv, .tsv), for
    which physical measures are reported."""
    seeds: PositiveInt = 16
    """Number of motions per prompt, with the seeds 0, 1, 2 and so on."""
    out_dir: Path = Path("outputs/evaluation")
    """Folder for evaluation.json and evaluation.md; created if missing."""
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
    list_conditions: bool = False
    """Print the phrases of conditions and exit."""


def prompts(options: PromptOptions) -> None:
    """Measure prompt following.

    Raises:
        InputError: the prompts or the checkpoint cannot be used, or the results cannot be written.
    """
    if options.list_conditions:
        print(describe_phrases())
        return
    if not options.checkpoint.is_dir():
        raise InputError(f"there is no checkpoint folder {options.checkpoint}; give one made by train_t2m.py")
    cases = read_suite(options.prompts)
    device, dtype, reason = choose_device(
        options.device, options.dtype, training=False, quantized=options.quantize != "none"
    )
    print(reason)
    model = TextToMotion.from_pretrained(
        options.checkpoint, device, dtype, options.quantize, text_encoder_path=options.text_encoder_path
    )
    sampling = replace(
        DEFAULT_SAMPLING, temperature=options.temperature, top_p=options.top_p, guidance=options.guidance
    )
    sampling = resolve_guidance(model.generator, sampling)
    results = follow(model, cases, options.seeds, sampling, options.batch_size)
    precision = str(dtype).removeprefix("torch.")
    heading = (
        f"{model.checkpoint_id}, {precision}, {options.seeds} seeds per prompt, temperature {sampling.temperature}, "
        f"top-p {sampling.top_p}, guidance {sampling.guidance}"
    )
    settings = {
        "checkpoint": model.checkpoint_id,
        "file": options.prompts.name,
        "seeds": options.seeds,
        "dtype": precision,
        "quantize": options.quantize,
        "sampling": asdict(sampling),
    }
    table = following_table(results)
    print("\n\n".join(filter(None, (heading, table, summary(results)))))
    page = "\n\n".join(filter(None, ("# Prompt following", heading, table, summary(results), physical_table(results))))
    write_results(options.out_dir, {"prompts": settings | to_json(results)}, page)


def write_results(folder: Path, numbers: dict[str, Any], page: str) -> None:
    """Write evaluation.json and evaluation.md.

    Raises:
        InputError: a file cannot be written.
    """
    for name, text in (("evaluation.json", json.dumps(numbers, indent=1)), ("evaluation.md", page)):
        with atomic_write(folder / name) as temporary:
            temporary.write_text(text + "\n", encoding="utf-8")
    print(f"\nresults in {folder / 'evaluation.md'} and {folder / 'evaluation.json'}")


def main() -> None:
    prompts(parse_command({"prompts": PromptOptions}, __doc__ or ""))


if __name__ == "__main__":
    with exit_on_input_error():
        main()
