"""Train the generator: an autoregressive transformer (LLaMAHF) that generates motion tokens from a caption.

    python train_t2m.py --config configs/t2m/demo.yaml --data data/bandai --tokenizer runs/vq --out runs/t2m
    python train_t2m.py --init checkpoints/demo --data data/mine --out runs/mine    (fine-tuning)
    python train_t2m.py ... --plan
    python train_t2m.py ... --resume
    accelerate launch --config_file configs/accelerate/fsdp2.yaml train_t2m.py ...    (several GPUs)

Add --plan to print the cost of the training and exit; add --resume to continue from the newest state.

Clips that have not been tokenized with this tokenizer are tokenized first. The run folder is a complete text-to-motion
model (the generator, and the tokenizer in tokenizer/), and so is the best one so far (best/): use either with
`python inference_batch.py --checkpoint runs/t2m`. Both list captions and actions of their training (known.safetensors,
see models/known.py). The run folder also holds the options (train.yaml), states/ for --resume, motions/ rendered at
validations, and TensorBoard logs.
"""

import utils.interrupt  # noqa: F401

# isort: split

from training.options import GeneratorOptions, GeneratorShape
from utils.config import parse_options
from utils.errors import InputError, exit_on_input_error

if __name__ == "__main__":  # --help and invalid options end here, before the slow imports
    with exit_on_input_error():
        OPTIONS, OPTIONS_YAML = parse_options(GeneratorOptions, __doc__)

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

from control.signal import SIGNAL_WIDTH
from dataset.clips import Clips
from dataset.conversion_report import ACTIONS
from dataset.motion_folder import MotionFolder
from dataset.token_rows import TokenDataset, collate
from dataset.tokenizing import tokenize
from models.checkpoints import KNOWN, TOKENIZER, check_tokenizer, find_checkpoint
from models.known import SAMPLE, Known, read_actions
from models.llama import LLaMAHF
from models.llama_config import SIZES, LLaMAConfig
from models.motion_vqvae import HumanVQVAE
from models.pipeline import TextToMotion
from models.text_dropout import drop_states, drop_text
from models.text_encoder import EncoderShape, TextEncoder, encoder_shape, load_text_encoder
from training.control import RandomControl, Rows
from training.costs import MicroBatch, count_flops
from training.engine import Engine
from training.init import (
    freeze_all_but_control,
    generator_shape,
    initial_generator,
    initial_source,
    refuse_conflict,
    with_control,
)
from training.loop import Loop
from training.meter import Meter
from training.next_token import inputs_and_targets, validate
from training.plan import GPUS, PlannedRun, count_data, describe_plan
from training.run import Comparison, Run
from training.scores import GeneratedScores
from utils.checkpoint import MODEL_FILES, copy_model, fingerprint
from utils.hub import find_folder

LARGEST_VOCABULARY = 2**20  # each code has a row of the embedding and one of the head


class Sources(NamedTuple):
    """Folders of the models that a training starts from."""

    tokenizer: Path
    init: Path | None  # of the text-to-motion model to fine-tune
    shape: LLaMAConfig | None  # of its generator


def find_sources(options: GeneratorOptions) -> tuple[GeneratorOptions, Sources]:
    """Find the models that a training starts from; returns the options in agreement with them.

    Raises:
        InputError: a model cannot be found or downloaded, or the options conflict with the model to fine-tune.
    """
    if options.init is None:
        return options, Sources(find_folder(str(options.tokenizer), MODEL_FILES, "tokenizer"), None, None)
    folder = find_checkpoint(initial_source(options))[1]
    shape = generator_shape(folder)
    check_tokenizer(folder, shape)
    if options.tokenizer is not None:
        given = find_folder(options.tokenizer, MODEL_FILES, "tokenizer")
        if fingerprint(given) != fingerprint(folder / TOKENIZER):
            raise InputError(
                f"--tokenizer {options.tokenizer} is not the tokenizer of the model of --init; leave --tokenizer out"
            )
    for name in ("max_tokens", "tie_weights"):
        refuse_conflict(f"model.{name}", options.model, GeneratorShape, getattr(shape, name))
    size = next((name for name, size in SIZES.items() if size.items() <= vars(shape).items()), "another size")
    refuse_conflict("model.size", options.model, GeneratorShape, size)
    refuse_conflict("text_encoder", options, GeneratorOptions, shape.text_encoder)
    model = replace(options.model, max_tokens=shape.max_tokens, tie_weights=shape.tie_weights)
    return replace(options, model=model, text_encoder=shape.text_encoder), Sources(folder / TOKENIZER, folder, shape)


def main(options: GeneratorOptions, options_yaml: str) -> None:
    options, sources = find_sources(options)
    if options.plan:
        print(make_plan(options, sources))
        return
    with Run(options, options_yaml, options.batch_tokens) as run:
        train(run, options, sources)


def train(run: Run, options: GeneratorOptions, sources: Sources) -> None:
    """Train a generator and save it, with its tokenizer, to the run folder."""
    tokenizer = HumanVQVAE.from_pretrained(sources.tokenizer).to(run.device)
    folder = MotionFolder(options.data)
    clips = {split: folder.clips(split, required=split == "train") for split in ("train", "val")}
    for note in [note for split in clips for note in clips[split].notes(split)]:
        run.report(note)
    data = {
        split: token_rows(run, options, folder, tokenizer, sources.tokenizer, split)
        for split in clips
        if len(clips[split])
    }
    batch_order = run.batches(len(data["train"]), data["train"].lengths)
    if "val" not in data:
        run.report("no validation clips: only the training loss is reported")
    with run.accelerator.main_process_first():  # which downloads the weights, if need be
        encoder = load_text_encoder(options.text_encoder, run.device, options.text_encoder_path)
    cached = (caption for rows in data.values() for caption in rows.captions())
    encode = run.caption_features(encoder, cached if options.cache_text_features else None)

    generated = None
    if options.evaluator or options.prompt_suite:
        generated = GeneratedScores(run, folder, options.evaluator, options.prompt_suite, options.generate_clips)
    model = initial_model(options, sources, tokenizer, encode.encoder)
    engine = run.prepare(model)
    if run.accelerator.is_main_process:
        write_other_parts(options, sources.tokenizer, data["train"], encode.encoder)
    mean_row = MicroBatch(1, 0, data["train"].lengths.mean())  # FLOPs due to the text are not counted
    control = RandomControl(options.control, tokenizer, model.config, vary=True)
    meter = Meter(run, "tokens", count_flops(model.config, mean_row) / mean_row.targets)
    loader = run.loader(data["train"], batch_order, partial(collate, pad_id=model.config.pad_id))
    with Loop(run, engine, meter, loader) as loop:
        for step in loop.steps():
            batches = []  # captions: list of B; tokens (B, N), targets (B, N + 1), signals (B, N + 1, W) or None
            for captions, *tokens in loop.next_batches():
                rows, signals = control(Rows(*tokens))
                batches.append((captions, *inputs_and_targets(model, rows), signals))
            count = loop.total((targets != model.config.pad_id).sum() for _, _, targets, _ in batches)
            for captions, tokens, targets, signals in loop.micro_batches(batches):
                text, mask = drop_text(*encode(captions), model.config.text_dropout)  # (B, L, D), (B, L)
                mask = drop_states(mask, options.state_dropout)
                loss = engine.wrapped(text, mask, tokens, targets, count, options.z_loss, signals)
                loop.backward(loss)
            scalars = loop.update(step, count)

            if meter.is_log_step(step):
                meter.log(step, scalars)
            if run.is_validation_step(step):
                with engine.ema.applied():
                    scores = validate(run, model, data.get("val"), encode, control)
                    pipeline = TextToMotion(model, tokenizer, encode.encoder, "")
                    if generated is not None and not engine.is_sharded:
                        scores |= generated.measure(pipeline)
                    if "val" in data:
                        draw(run, step, engine, pipeline, data["val"], clips["val"])
                loop.save(step, scores)
    run.report(f"text-to-motion model saved to {options.out}")


def initial_model(options: GeneratorOptions, sources: Sources, tokenizer: HumanVQVAE, encoder: TextEncoder) -> LLaMAHF:
    """Return the generator of --init, or a new one."""
    if sources.init is None or sources.shape is None:
        return LLaMAHF(new_config(options, tokenizer, fingerprint(sources.tokenizer), encoder))
    if (sources.shape.codebook_size, sources.shape.text_dim) != (tokenizer.codebook_size, encoder.dim):
        raise InputError(
            f"the generator of --init has {sources.shape.codebook_size} codes and text features of width "
            f"{sources.shape.text_dim}, and its tokenizer has {tokenizer.codebook_size} codes and its text encoder "
            f"{encoder.dim}; copy or download the model again"
        )
    model = initial_generator(sources.init, options.model.dropout, options.model.text_dropout)
    model = with_control(model, SIGNAL_WIDTH if options.control else 0)
    if options.only_control:
        freeze_all_but_control(model)
    return model


def new_config(
    options: GeneratorOptions, tokenizer: HumanVQVAE, tokenizer_id: str, encoder: TextEncoder | EncoderShape
) -> LLaMAConfig:
    """Return the configuration of a new generator for a tokenizer and a text encoder."""
    if tokenizer.codebook_size > LARGEST_VOCABULARY:
        raise InputError(
            f"the tokenizer has {tokenizer.codebook_size} codes and a generator can have {LARGEST_VOCABULARY}; "
            "train a tokenizer with fewer levels or residuals"
        )
    shape = options.model
    return LLaMAConfig(
        codebook_size=tokenizer.codebook_size,
        tokenizer=tokenizer_id,
        text_dim=encoder.dim,
        text_encoder=encoder.name,
        text_length=encoder.max_length,
        max_tokens=shape.max_tokens,
        dropout=shape.dropout,
        text_dropout=shape.text_dropout,
        tie_weights=shape.tie_weights,
        control=SIGNAL_WIDTH if options.control else 0,
        **SIZES[shape.size],
    )


def token_rows(
    run: Run, options: GeneratorOptions, folder: MotionFolder, tokenizer: HumanVQVAE, tokenizer_folder: Path, split: str
) -> TokenDataset:
    """Return the rows of a split; all processes together tokenize it if that has not been done."""
    is_training = split == "train"
    path = tokenize(
        folder,
        tokenizer_folder,
        tokenizer,
        split,
        options.joined if is_training else 0,
        run.accelerator.process_index,
        run.accelerator.num_processes,
    )
    run.accelerator.wait_for_everyone()
    drop = options.token_drop if is_training else 0.0
    rows = TokenDataset(path, tokenizer_folder, options.model.max_tokens, options.cut_longer, drop)
    for name, count in rows.left_out.items():
        if count:
            run.report(f"{split}: {count} {name} left out: shorter than a token, damaged, or with an empty caption")
    return rows


def write_other_parts(options: GeneratorOptions, tokenizer: Path, rows: TokenDataset, encoder: TextEncoder) -> None:
    """Write the tokenizer and the known sentences into the run folder and into best/; a resumed run has the latter."""
    folders = (options.out, options.out / "best")
    for out in folders:
        copy_model(tokenizer, out / TOKENIZER)
    if not all((out / KNOWN).exists() for out in folders):
        known = Known.of_training(rows.some_captions(SAMPLE), read_actions(options.data / ACTIONS), encoder)
        for out in folders:
            known.save(out)


def make_plan(options: GeneratorOptions, sources: Sources) -> str:
    """Describe the cost of the training, without loading the weights of the tokenizer or the text encoder."""
    tokenizer = HumanVQVAE.from_pretrained(sources.tokenizer, load_weights=lambda model, folder: None)  # its shape only
    config = sources.shape or new_config(options, tokenizer, "", encoder_shape(options.text_encoder))
    data = count_data(MotionFolder(options.data), tokenizer.config.stride, config.max_tokens, options.joined)
    batch_size = options.batch_size
    if options.batch_tokens:  # rows of mean length, in a number that all numbers of GPUs divide
        rows, shares = int(options.batch_tokens * data.rows / data.tokens), max(GPUS) * options.accumulate
        batch_size = max(1, rows // shares * shares if rows >= shares else rows)
    run = PlannedRun(
        batch_size=batch_size,
        steps=options.steps,
        accumulate=options.accumulate,
        ema=options.ema > 0,
        precision="float32" if options.precision == "float32" else "bf16",
        optimizer=options.optimizer,
    )
    return describe_plan(options, config, data, run)


def draw(run: Run, step: int, engine: Engine, pipeline: TextToMotion, rows: TokenDataset, clips: Clips) -> None:
    """Generate motions for the first validation captions and render them beside the recorded ones."""
    count = min(run.options.draw, len(rows))
    if engine.is_sharded and count:
        run.report("validation motions are not drawn with sharded weights; use inference_batch.py with the saved model")
    if engine.is_sharded or not count or not run.accelerator.is_main_process:
        return
    chosen = [rows[number] for number in range(count)]  # (id, caption, ...)
    captions = [caption for _, caption, *_ in chosen]
    try:
        motions = pipeline.generate(captions, list(range(count)))
    except InputError as error:  # a caption that is not a valid prompt must not end the training
        run.report(f"validation motions are not drawn: {error}")
        return
    recorded = clips.named([name for name, *_ in chosen])
    comparisons = [
        Comparison(name, caption, clips.features(recorded[name]), motion.features)
        for (name, caption, *_), motion in zip(chosen, motions, strict=True)
    ]
    run.draw(step, comparisons)


if __name__ == "__main__":
    with exit_on_input_error():
        main(OPTIONS, OPTIONS_YAML)
