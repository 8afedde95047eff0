"""Train the generator: captions and motion tokens become a LLaMAHF that writes the tokens of a sentence.

    python train_t2m.py --config configs/t2m/demo.yaml --data data/bandai --tokenizer runs/vq --out runs/t2m
    ... the same with --resume true goes on from the last save
    ... the same with --plan prints what the training would take, and ends
    accelerate launch --config_file configs/accelerate/fsdp2.yaml train_t2m.py ...    on many GPUs

The clips are tokenized first where that has not been done with this tokenizer. The run folder is a whole text-to-motion
model (the generator, and the tokenizer in tokenizer/), and so is the best one so far (best/):
`python inference_batch.py --checkpoint runs/t2m` uses it as it is. The folder also holds the options (train.yaml),
states/ for --resume, motions/ drawn at validations, and TensorBoard logs.
"""

from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import torch
from jsonargparse.typing import ClosedUnitInterval, NonNegativeFloat, NonNegativeInt, PositiveInt

from dataset.motion_folder import MotionFolder
from dataset.token_rows import TokenDataset, collate
from dataset.tokenizing import tokenize
from models.llama import SIZES, LLaMAConfig, LLaMAHF, drop_text
from models.motion_vqvae import HumanVQVAE
from models.pipeline import TextToMotion
from models.text_encoder import EncoderShape, TextEncoder, encoder_shape, encoder_width, load_text_encoder
from models.text_features import CaptionFeatures
from training.costs import MicroBatch, flops
from training.plan import PlanOptions, count_data, plan
from training.run import Training, TrainingOptions
from utils.checkpoint import copy_model, fingerprint
from utils.config import parse_options
from utils.errors import InputError, exit_on_input_error

LARGEST_VOCABULARY = 2**20  # each code has a row of the embedding and one of the head


@dataclass
class GeneratorShape:
    """What of LLaMAConfig is a choice; the rest follows from the tokenizer and the text encoder.

    Attributes:
        size: Name in the size table of models/llama.py: debug, demo, 44M, ... 7B.
        max_tokens: Longest motion in tokens.
        dropout: Of embeddings and block outputs.
        text_dropout: Share of captions replaced by the null text, for classifier-free guidance.
        tie_weights: Use the token embedding as output matrix.
    """

    size: str = "demo"
    max_tokens: int = 160
    dropout: float = 0.1
    text_dropout: float = 0.1
    tie_weights: bool = False

    def __post_init__(self):
        if self.size not in SIZES:
            raise InputError(f"size {self.size} is unknown; use one of {', '.join(SIZES)}")

    def config(self, tokenizer: HumanVQVAE, tokenizer_id: str, encoder: TextEncoder | EncoderShape) -> LLaMAConfig:
        if tokenizer.codebook_size > LARGEST_VOCABULARY:
            raise InputError(
                f"the tokenizer has {tokenizer.codebook_size} codes and a generator can have {LARGEST_VOCABULARY}; "
                "train one with fewer levels or residuals"
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
    """Options of the generator training.

    Attributes:
        tokenizer: Run folder of train_vq.py.
        model: Shape of the generator.
        text_encoder: Frozen text encoder: minilm, clip, flan-t5-small, -base, -large, -xl or -xxl; pooled to one vector
            as flan-t5-xl:mean, :sum or :cls.
        text_encoder_path: Its weights, if neither in checkpoints/<name> nor in the Hugging Face cache.
        cache_text_features: Keep the features of all captions on disk, in text_features of the data folder.
        z_loss: Weight of the z-loss (see ``LLaMAHF.forward``).
        joined: Rows a clip in which it follows a part of another clip: for sequences of sentences and for going on
            from a given motion.
        cut_longer: Cut motions longer than model.max_tokens at random places, instead of refusing them.
        token_drop: Share of motions that lose their first or their last token, as T2M-GPT has it with 1/3.
        batch_tokens: Most motion tokens a step, padding counted; sets the size of a step instead of batch_size.
    """

    tokenizer: Path
    model: GeneratorShape = field(default_factory=GeneratorShape)
    text_encoder: str = "minilm"
    text_encoder_path: Path | None = None
    cache_text_features: bool = False
    z_loss: NonNegativeFloat = 0.0
    joined: NonNegativeInt = 0
    cut_longer: bool = False
    token_drop: ClosedUnitInterval = 0.0
    batch_tokens: PositiveInt | None = None

    def __post_init__(self):
        encoder_width(self.text_encoder)  # refuses unknown names before any work is done
        if not self.tokenizer.is_dir():
            raise InputError(f"there is no tokenizer folder {self.tokenizer}; give a run folder of train_vq.py")
        if self.out.resolve() == self.tokenizer.resolve():
            raise InputError(f"--out and --tokenizer are both {self.out}; choose another --out")


def main(options: Options, options_yaml: str) -> None:
    if options.plan:
        print(planned(options))
        return
    training = Training(options, options_yaml)
    tokenizer = HumanVQVAE.from_pretrained(options.tokenizer).to(training.device)
    folder = MotionFolder(options.data)
    splits = [split for split in ("train", "val") if folder.ids(split, required=split == "train")]
    data = {split: token_rows(training, folder, tokenizer, split) for split in splits}
    order = training.batches(len(data["train"]), data["train"].lengths)
    if "val" not in data:
        training.say("no validation clips: only the training loss will be reported")
    with training.accelerator.main_process_first():
        encode = CaptionFeatures(
            load_text_encoder(options.text_encoder, training.device, options.text_encoder_path),
            options.data / "text_features" if options.cache_text_features else None,
            [caption for rows in data.values() for caption in rows.captions()] if options.cache_text_features else (),
        )

    model = LLaMAHF(options.model.config(tokenizer, fingerprint(options.tokenizer), encode.encoder))
    usual = MicroBatch(1, 0, data["train"].lengths.mean())  # what the text costs is not counted
    forward = training.prepare(model, "tokens", flops(model.config, usual) / usual.targets)
    if training.accelerator.is_main_process:
        for out in (options.out, options.out / "best"):
            copy_model(options.tokenizer, out / "tokenizer")
    fill_up = partial(collate, pad_id=model.config.pad_id)
    loader = training.loader(data["train"], order, fill_up)
    with training:
        for step in training.steps():
            batches = [  # captions: list of B; tokens (B, N), targets (B, N + 1)
                (captions, *inputs_and_targets(model, *tokens)) for captions, *tokens in training.take(loader)
            ]
            count = training.total((targets != model.config.pad_id).sum() for _, _, targets in batches)
            for captions, tokens, targets in training.micro_batches(batches):
                text, mask = drop_text(*encode(captions), model.config.text_dropout)  # (B, L, D), (B, L)
                training.backward(forward(text, mask, tokens, targets, count, options.z_loss))
            scalars = training.update(step, count)

            if training.is_logged(step):
                training.log(step, scalars)
            if training.is_due(step):
                with training.average.in_use():
                    scores = validate(training, model, data.get("val"), encode)
                    draw(training, step, model, data.get("val"), encode, tokenizer, folder)
                training.save(step, scores)
    training.say(f"text-to-motion model saved to {options.out}")


def token_rows(training: Training, folder: MotionFolder, tokenizer: HumanVQVAE, split: str) -> TokenDataset:
    """The rows of a split, tokenized by all processes together where that has not been done."""
    options, accelerator = training.options, training.accelerator
    is_training = split == "train"
    path = tokenize(
        folder,
        options.tokenizer,
        tokenizer,
        split,
        options.joined if is_training else 0,
        accelerator.process_index,
        accelerator.num_processes,
    )
    accelerator.wait_for_everyone()
    drop = options.token_drop if is_training else 0.0
    rows = TokenDataset(path, options.tokenizer, options.model.max_tokens, options.cut_longer, drop)
    for name, count in rows.left_out.items():
        training.say(f"{split}: {count} {name} left out: no caption, shorter than a token, or a part outside its clip")
    return rows


def planned(options: Options) -> str:
    """What the training would take; neither tokenizer nor text encoder is loaded for it."""
    tokenizer = HumanVQVAE.from_pretrained(
        options.tokenizer, load_weights=lambda model, folder: None
    )  # its shape alone
    config, stride = options.model.config(tokenizer, "", encoder_shape(options.text_encoder)), tokenizer.config.stride
    data = count_data(MotionFolder(options.data), stride, config.max_tokens, options.joined)
    batch_size = options.batch_size
    if options.batch_tokens:  # as many rows of the usual length, in a number that many GPUs can share
        rows, shares = int(options.batch_tokens * data.rows / data.tokens), 64 * options.accumulate
        batch_size = max(1, rows // shares * shares if rows >= shares else rows)
    return plan(
        options,
        config,
        data,
        stride,
        batch_size=batch_size,
        steps=options.steps,
        accumulate=options.accumulate,
        average=options.ema > 0,
        precision="float32" if options.precision == "float32" else "bf16",
    )


def inputs_and_targets(
    model: LLaMAHF, tokens: torch.Tensor, whole: torch.Tensor, context: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Tokens (B, N) and what each position is to predict (B, N + 1): no context, and no end where a clip was cut."""
    targets = model.next_tokens(tokens)
    cut_end = (targets == model.config.end_id) & ~whole[:, None]
    given = torch.arange(targets.shape[1], device=targets.device) < context[:, None]
    return tokens, targets.masked_fill(cut_end | given, model.config.pad_id)


@torch.no_grad()
def validate(
    training: Training, model: LLaMAHF, rows: TokenDataset | None, encode: CaptionFeatures
) -> dict[str, float]:
    """Mean cross entropy and accuracy over the tokens of a split."""
    if rows is None:
        return {}
    size, pad_id = training.options.batch_size, model.config.pad_id
    sums = torch.zeros(3, device=training.device)  # loss, right, count
    chunks = [range(first, min(first + size, len(rows))) for first in range(0, len(rows), size)]
    for chunk, counts in training.share(chunks):
        _, captions, *tokens = collate([rows[number] for number in chunk], pad_id)
        tokens, targets = inputs_and_targets(model, *(part.to(training.device) for part in tokens))
        logits = model(*encode(captions), tokens).float()
        kept = targets != pad_id
        loss = torch.nn.functional.cross_entropy(logits[kept], targets[kept], reduction="sum")
        sums += counts * torch.stack((loss, (logits[kept].argmax(-1) == targets[kept]).sum(), kept.sum()))
    loss, right, count = training.accelerator.reduce(sums, "sum").tolist()
    return {"loss": loss / count, "accuracy": right / count}


def draw(
    training: Training,
    step: int,
    model: LLaMAHF,
    rows: TokenDataset | None,
    encode: CaptionFeatures,
    tokenizer: HumanVQVAE,
    folder: MotionFolder,
) -> None:
    """Motions of the first validation captions, rendered beside the recorded ones, by the main process."""
    count = min(training.options.draw, len(rows or ()))
    if training.engine.is_sharded and count:
        training.say("validation motions are not drawn with sharded weights; inference_batch.py makes them from --out")
    if training.engine.is_sharded or not count or not training.accelerator.is_main_process:
        return
    chosen = [rows[number] for number in range(count)]  # (id, caption, ...)
    captions = [caption for _, caption, *_ in chosen]
    try:
        motions = TextToMotion(model, tokenizer, encode.encoder, "").generate(captions, list(range(count)))
    except InputError as error:  # a caption that is no prompt costs the run nothing
        training.say(f"validation motions are not drawn: {error}")
        return
    training.draw(
        step,
        [
            (name, caption, folder.motion(name), motion.features)
            for (name, caption, *_), motion in zip(chosen, motions, strict=True)
        ],
    )


if __name__ == "__main__":
    with exit_on_input_error():
        main(*parse_options(Options, __doc__))
