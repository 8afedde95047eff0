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

from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from jsonargparse.typing import ClosedUnitInterval, NonNegativeFloat, NonNegativeInt, PositiveInt

from control.signal import SIGNAL_WIDTH
from dataset.clips import Clips
from dataset.conversion_report import ACTIONS
from dataset.motion_folder import MotionFolder
from dataset.token_rows import TokenDataset, collate
from dataset.tokenizing import tokenize
from models.checkpoints import KNOWN, TOKENIZER, check_tokenizer, find_checkpoint
from models.known import SAMPLE, Known, read_actions
from models.llama import SIZES, LLaMAConfig, LLaMAHF
from models.motion_vqvae import HumanVQVAE
from models.pipeline import TextToMotion
from models.sources import check_checkpoint
from models.text_dropout import drop_states, drop_text
from models.text_encoder import EncoderShape, TextEncoder, encoder_shape, encoder_width, load_text_encoder
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
from training.options import Size, TrainingOptions
from training.plan import GPUS, PlannedRun, PlanOptions, count_data, describe_plan
from training.run import Comparison, Run
from training.scores import GeneratedScores
from utils.checkpoint import MODEL_FILES, copy_model, fingerprint
from utils.config import bounded, parse_options
from utils.errors import InputError, exit_on_input_error
from utils.hub import check_source, find_folder

LARGEST_VOCABULARY = 2**20  # each code has a row of the embedding and one of the head

if TYPE_CHECKING:
    DropoutRate = float
else:
    DropoutRate = bounded("DropoutRate", float, (">=", 0), ("<", 1))


@dataclass
class GeneratorShape:
    """Options of LLaMAConfig that are free to choose; the tokenizer and the text encoder determine the others."""

    size: Size = "demo"
    """Size of the model, from the size table of models/llama.py."""
    max_tokens: PositiveInt = 160
    """Maximum length of a motion in tokens."""
    dropout: DropoutRate = 0.1
    """Dropout rate of the embeddings and the block outputs."""
    text_dropout: DropoutRate = 0.1
    """Fraction of captions replaced by the null text, for classifier-free guidance."""
    tie_weights: bool = False
    """Use the token embedding as the output matrix (weight tying)."""

    def config(self, tokenizer: HumanVQVAE, tokenizer_id: str, encoder: TextEncoder | EncoderShape) -> LLaMAConfig:
        """Return the configuration of a generator for a tokenizer and a text encoder."""
        if tokenizer.codebook_size > LARGEST_VOCABULARY:
            raise InputError(
                f"the tokenizer has {tokenizer.codebook_size} codes and a generator can have {LARGEST_VOCABULARY}; "
                "train a tokenizer with fewer levels or residuals"
            )
        return LLaMAConfig(
            codebook_size=tokenizer.codebook_size,
            tokenizer=tokenizer_id,
            text_dim=encoder.dim,
            text_encoder=encoder.name,
            text_length=encoder.max_length,
            max_tokens=self.max_tokens,
            dropout=self.dropout,
            text_dropout=self.text_dropout,
            tie_weights=self.tie_weights,
            **SIZES[self.size],
        )


@dataclass(kw_only=True)
class Options(PlanOptions, TrainingOptions):
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

    def new_shape(self, tokenizer: HumanVQVAE, tokenizer_id: str, encoder: TextEncoder | EncoderShape) -> LLaMAConfig:
        """Return the configuration of a new generator."""
        shape = self.model.config(tokenizer, tokenizer_id, encoder)
        return replace(shape, control=SIGNAL_WIDTH if self.control else 0)


class Sources(NamedTuple):
    """Folders of the models that a training starts from."""

    tokenizer: Path
    init: Path | None  # of the text-to-motion model to fine-tune
    shape: LLaMAConfig | None  # of its generator


def find_sources(options: Options) -> tuple[Options, Sources]:
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
    refuse_conflict("text_encoder", options, Options, shape.text_encoder)
    model = replace(options.model, max_tokens=shape.max_tokens, tie_weights=shape.tie_weights)
    return replace(options, model=model, text_encoder=shape.text_encoder), Sources(folder / TOKENIZER, folder, shape)


def main(options: Options, options_yaml: str) -> None:
    options, sources = find_sources(options)
    if options.plan:
        print(make_plan(options, sources))
        return
    with Run(options, options_yaml, options.batch_tokens) as run:
        train(run, options, sources)


def train(run: Run, options: Options, sources: Sources) -> None:
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


def initial_model(options: Options, sources: Sources, tokenizer: HumanVQVAE, encoder: TextEncoder) -> LLaMAHF:
    """Return the generator of --init, or a new one."""
    if sources.init is None or sources.shape is None:
        return LLaMAHF(options.new_shape(tokenizer, fingerprint(sources.tokenizer), encoder))
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


def token_rows(
    run: Run, options: Options, folder: MotionFolder, tokenizer: HumanVQVAE, tokenizer_folder: Path, split: str
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


def write_other_parts(options: Options, tokenizer: Path, rows: TokenDataset, encoder: TextEncoder) -> None:
    """Write the tokenizer and the known sentences into the run folder and into best/; a resumed run has the latter."""
    folders = (options.out, options.out / "best")
    for out in folders:
        copy_model(tokenizer, out / TOKENIZER)
    if not all((out / KNOWN).exists() for out in folders):
        known = Known.of_training(rows.some_captions(SAMPLE), read_actions(options.data / ACTIONS), encoder)
        for out in folders:
            known.save(out)


def make_plan(options: Options, sources: Sources) -> str:
    """Describe the cost of the training, without loading the weights of the tokenizer or the text encoder."""
    tokenizer = HumanVQVAE.from_pretrained(sources.tokenizer, load_weights=lambda model, folder: None)  # its shape only
    config = sources.shape or options.new_shape(tokenizer, "", encoder_shape(options.text_encoder))
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
        main(*parse_options(Options, __doc__))
