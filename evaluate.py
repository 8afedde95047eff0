"""Measure tokenizers, text-to-motion models, and motions of any system.

    python evaluate.py tokenizer --checkpoint runs/vq --data data/bandai
    python evaluate.py t2m --checkpoint runs/t2m --data data/bandai --evaluator checkpoints/evaluator
    python evaluate.py prompts --checkpoint runs/t2m --prompts configs/prompts/demo.yaml
    python evaluate.py files MOTIONS --prompts prompts.txt --evaluator checkpoints/evaluator --data data/bandai

Results are printed, and written to --out-dir: evaluation.json, evaluation.md, and evaluation.html with the worst and
the median motions. An interrupted t2m resumes: motions that are in the folder are not generated again.
docs/evaluation.md describes the metrics.
"""

import utils.interrupt  # noqa: F401

# isort: split

import sys
from dataclasses import asdict
from pathlib import Path

import torch

from dataset.motion_folder import MotionFolder
from evaluation.conditions import describe_phrases
from evaluation.evaluators.any import load_any_evaluator
from evaluation.evaluators.interface import Evaluator
from evaluation.files import read_motion_files
from evaluation.generation import GeneratedMotions
from evaluation.measure_files import judge_files, measure_files
from evaluation.measure_t2m import T2MEvaluation
from evaluation.measure_tokenizer import measure_tokenizer
from evaluation.options import FilesOptions, GenerationOptions, PromptOptions, T2MOptions, TokenizerOptions
from evaluation.prompt_report import following_table, physical_table, summary, to_json
from evaluation.prompts import follow, read_prompt_list, read_suite
from evaluation.recorded import Recorded, check_pool, check_representation
from evaluation.report import Report, write_results
from models.checkpoints import find_tokenizer
from models.motion_vqvae import HumanVQVAE
from models.pipeline import TextToMotion
from models.sampling import Sampling, resolve_guidance
from utils.checkpoint import fingerprint
from utils.config import parse_command
from utils.device import choose_device
from utils.errors import exit_on_input_error, shown
from utils.locks import exclusive_folder

COMMANDS = {"tokenizer": TokenizerOptions, "t2m": T2MOptions, "prompts": PromptOptions, "files": FilesOptions}


def tokenizer(options: TokenizerOptions) -> None:
    """Measure the reconstructions of a tokenizer.

    Raises:
        InputError: the tokenizer, the data or the evaluator cannot be used, or the results cannot be written.
    """
    folder, data = find_tokenizer(options.checkpoint), MotionFolder(options.data)
    device = choose_device(options.device, "auto", training=False)[0]
    evaluator = read_evaluator(options.evaluator, device)
    model = HumanVQVAE.from_pretrained(folder).to(device).eval()
    settings = settings_of(options) | {"tokenizer": fingerprint(folder)}
    report = Report("tokenizer", f"Tokenizer {shown(options.checkpoint, 200)}, split {options.split}", settings)
    measure_tokenizer(model, data, options.split, evaluator, report)
    report.write(options.out_dir)


def t2m(options: T2MOptions) -> None:
    """Measure a text-to-motion model on the captions of a split.

    Raises:
        InputError: the model, the data or the evaluator cannot be used, or the results cannot be written.
    """
    evaluator = load_any_evaluator(options.evaluator, choose_device(options.device, "auto", training=False)[0])
    check_representation(evaluator)
    recorded = Recorded(MotionFolder(options.data), options.split, evaluator)
    check_pool(len(recorded))
    model, sampling, settings = load_model(options)
    report = Report(
        "t2m", f"Text-to-motion model {model.checkpoint_id}, split {options.split}", settings_of(options) | settings
    )
    precision = {name: settings[name] for name in ("dtype", "quantize")}
    generated = GeneratedMotions(model, options.out_dir, sampling, precision, options.batch_size)
    if generated.stored:
        print(f"{generated.stored} motions are in {generated.path} already")
    T2MEvaluation(generated, recorded, evaluator, options).run(report)
    report.write(options.out_dir)


def prompts(options: PromptOptions) -> None:
    """Measure prompt following.

    Raises:
        InputError: the prompts or the checkpoint cannot be used, or the results cannot be written.
    """
    cases = read_suite(options.prompts)
    model, sampling, settings = load_model(options)
    results = follow(model, cases, options.seeds, sampling, options.batch_size)
    heading = (
        f"{model.checkpoint_id}, {settings['dtype']}, {options.seeds} seeds per prompt, temperature "
        f"{sampling.temperature}, top-p {sampling.top_p}, guidance {sampling.guidance}"
    )
    settings |= {"file": options.prompts.name, "seeds": options.seeds}
    table = following_table(results)
    print("\n\n".join(filter(None, (heading, table, summary(results)))))
    page = "\n\n".join(filter(None, ("# Prompt following", heading, table, summary(results), physical_table(results))))
    write_results(options.out_dir, {"prompts": settings | to_json(results)}, page)


def files(options: FilesOptions) -> None:
    """Measure motion files of any system.

    Raises:
        InputError: no file can be used, or the prompts, the data or the evaluator cannot be used.
    """
    cases = read_suite(options.prompts) if options.prompts else None
    listed = read_prompt_list(options.prompts) if options.prompts else None
    evaluator = read_evaluator(options.evaluator, choose_device(options.device, "auto", training=False)[0])
    recorded = Recorded(MotionFolder(options.data), options.split, evaluator) if options.data else None
    captions = (
        {} if recorded is None else dict(zip(recorded.names, (c[0].text for c in recorded.captions), strict=True))
    )
    motions, failures = read_motion_files(options.motions, listed, captions)
    if failures:
        name, reason = next(iter(failures.items()))
        print(f"{len(failures)} files are left out; the first is {name}: {reason}")
    report = Report("files", f"{len(motions)} motions in {shown(options.motions, 200)}", settings_of(options))
    measure_files(motions, evaluator, recorded, options, report)
    if cases is not None and any(case.conditions for case in cases):
        results, missing = judge_files(motions, cases)
        report.sections = [following_table(results), summary(results)]
        report.details = to_json(results)
        if missing:
            report.notes.append(f"{len(missing)} prompts have no motions: {', '.join(missing[:3])} ...")
    report.notes += [f"Left out: {name}: {reason}." for name, reason in failures.items()]
    report.details["left_out"] = failures
    report.write(options.out_dir)


def load_model(options: GenerationOptions) -> tuple[TextToMotion, Sampling, dict]:
    """Load a model; returns it with its sampling and with the settings that motions depend on."""
    device, dtype, reason = choose_device(
        options.device, options.dtype, training=False, quantized=options.quantize != "none"
    )
    print(reason)
    model = TextToMotion.from_pretrained(
        options.checkpoint, device, dtype, options.quantize, text_encoder_path=options.text_encoder_path
    )
    sampling = resolve_guidance(model.generator, options.sampling)
    settings = {
        "checkpoint": model.checkpoint_id,
        "dtype": str(dtype).removeprefix("torch."),
        "quantize": options.quantize,
        "sampling": asdict(sampling),
    }
    return model, sampling, settings


def read_evaluator(folder: Path | None, device: torch.device) -> Evaluator | None:
    """Load the evaluator of a folder, if one is given, for motions of this project."""
    if folder is None:
        return None
    evaluator = load_any_evaluator(folder, device)
    check_representation(evaluator)
    return evaluator


def settings_of(options: TokenizerOptions | T2MOptions | FilesOptions) -> dict:
    """Return the options that the numbers may depend on, as values of JSON."""
    values = {name: str(value) if isinstance(value, Path) else value for name, value in vars(options).items()}
    return {name: value for name, value in values.items() if name not in ("out_dir", "batch_size")}


def main() -> None:
    arguments = sys.argv[1:]
    if arguments[:1] == ["files"] and len(arguments) > 1 and not arguments[1].startswith("-"):
        arguments.insert(1, "--motions")  # the folder follows the command
    options = parse_command(COMMANDS, __doc__ or "", arguments)
    if isinstance(options, PromptOptions) and options.list_conditions:
        print(describe_phrases())
        return
    with exclusive_folder(options.out_dir, "evaluation", "--out-dir"):  # an unusable folder is found before any work
        {"tokenizer": tokenizer, "t2m": t2m, "prompts": prompts, "files": files}[arguments[0]](options)


def command() -> None:
    with exit_on_input_error():
        main()


if __name__ == "__main__":
    command()
