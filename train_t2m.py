"""Train the generator: captions and motion tokens become a LLaMAHF that writes the tokens of a sentence.

    python train_t2m.py --config configs/t2m/demo.yaml --data data/bandai --tokenizer runs/vq --out runs/t2m
    ... the same with --resume true goes on from the last save

The clips are tokenized first where that has not been done with this tokenizer. The run folder is a whole text-to-motion
model (the generator, and the tokenizer in tokenizer/): `python inference_batch.py --checkpoint runs/t2m` uses it as it
is. It also holds train.yaml, state.pt for --resume, and TensorBoard logs.
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import torch
from jsonargparse.typing import NonNegativeInt
from torch.utils.data import DataLoader

from dataset.motion_folder import MotionFolder
from dataset.tokens import TokenDataset, collate, tokenize
from models.llama import SIZES, LLaMAConfig, LLaMAHF, drop_text
from models.motion_vqvae import HumanVQVAE
from models.text_encoder import TextEncoder, encoder_width, load_text_encoder
from models.text_features import CaptionFeatures
from utils.checkpoint import copy_model, fingerprint
from utils.config import parse_options
from utils.errors import InputError, exit_on_input_error
from utils.training import Training, TrainingOptions, choose_device

LARGEST_VOCABULARY = 2**20  # each code has a row of the embedding and one of the head


@dataclass
class GeneratorShape:
    """What of LLaMAConfig is a choice; the rest follows from the tokenizer and the text encoder.

    Attributes:
        size: Name in the size table of models/llama.py: debug, demo, 44M, ... 7B.
        max_tokens: Longest motion in tokens; longer clips are cut at random places.
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

    def config(self, tokenizer: HumanVQVAE, tokenizer_id: str, encoder: TextEncoder) -> LLaMAConfig:
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
class Options(TrainingOptions):
    """Options of the generator training.

    Attributes:
        tokenizer: Run folder of train_vq.py.
        model: Shape of the generator.
        text_encoder: Frozen text encoder: minilm, clip, flan-t5-small, -base, -large, -xl or -xxl; pooled to one vector
            as flan-t5-xl:mean, :sum or :cls.
        text_encoder_path: Its weights, if neither in checkpoints/<name> nor in the Hugging Face cache.
        cache_text_features: Keep the features of all captions on disk, in text_features of the data folder.
        joined: Rows a clip in which it follows a part of another clip: for sequences of sentences and for going on
            from a given motion.
    """

    tokenizer: Path
    model: GeneratorShape = field(default_factory=GeneratorShape)
    text_encoder: str = "minilm"
    text_encoder_path: Path | None = None
    cache_text_features: bool = False
    joined: NonNegativeInt = 0

    def __post_init__(self):
        encoder_width(self.text_encoder)  # refuses unknown names before any work is done
        if not self.tokenizer.is_dir():
            raise InputError(f"there is no tokenizer folder {self.tokenizer}; give a run folder of train_vq.py")
        if self.out.resolve() == self.tokenizer.resolve():
            raise InputError(f"--out and --tokenizer are both {self.out}; choose another --out")


def main(options: Options, options_yaml: str) -> None:
    device, dtype, reason = choose_device(options.device, options.precision)
    print(reason)
    torch.manual_seed(options.seed)
    tokenizer = HumanVQVAE.from_pretrained(options.tokenizer).to(device)
    folder = MotionFolder(options.data)
    data = {
        split: TokenDataset(
            tokenize(folder, options.tokenizer, tokenizer, split, options.joined if split == "train" else 0),
            options.tokenizer,
            options.model.max_tokens,
        )
        for split in ("train", "val")
        if folder.ids(split, required=split == "train")
    }
    if "val" not in data:
        print("no validation clips: only the training loss will be reported")
    encode = CaptionFeatures(
        load_text_encoder(options.text_encoder, device, options.text_encoder_path),
        options.data / "text_features" if options.cache_text_features else None,
        [caption for rows in data.values() for caption in rows.captions()] if options.cache_text_features else (),
    )

    model = LLaMAHF(options.model.config(tokenizer, fingerprint(options.tokenizer), encode.encoder)).to(device)
    training = Training(options, options_yaml, model)
    copy_model(options.tokenizer, options.out / "tokenizer")
    order = training.batches(len(data["train"]), data["train"].lengths)
    loader = iter(token_loader(data["train"], model.config.pad_id, batch_sampler=order, num_workers=options.workers))
    model.train()
    seen, started = 0, time.perf_counter()
    for step in training.steps():
        captions, tokens, whole, context = next(loader)  # list of B, (B, N), (B,), (B,)
        text, mask = drop_text(*encode(captions), model.config.text_dropout)  # (B, L, D), (B, L)
        tokens, targets = inputs_and_targets(model, tokens.to(device), whole.to(device), context.to(device))
        with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
            loss = model(text, mask, tokens, targets)
        scalars = training.update(step, loss)

        seen += int((targets != model.config.pad_id).sum())
        if (step + 1) % 20 == 0:
            training.log(step, scalars, seen / (time.perf_counter() - started), "tokens")
            seen, started = 0, time.perf_counter()
        if training.is_due(step):
            scores = validate(training.ema.model, data["val"], encode, options.batch_size) if "val" in data else {}
            training.save(step, scores)
    print(f"text-to-motion model saved to {options.out}")


def token_loader(rows: TokenDataset, pad_id: int, **settings) -> Iterator:
    own_generator = torch.Generator()  # or each new loader draws from the global one, and resuming would change dropout
    return DataLoader(rows, collate_fn=partial(collate, pad_id=pad_id), generator=own_generator, **settings)


def inputs_and_targets(
    model: LLaMAHF, tokens: torch.Tensor, whole: torch.Tensor, context: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Tokens (B, N) and what each position is to predict (B, N + 1): no context, and no end where a clip was cut."""
    targets = model.next_tokens(tokens)
    cut_end = (targets == model.config.end_id) & ~whole[:, None]
    given = torch.arange(targets.shape[1], device=targets.device) < context[:, None]
    return tokens, targets.masked_fill(cut_end | given, model.config.pad_id)


@torch.no_grad()
def validate(model: LLaMAHF, rows: TokenDataset, encode: CaptionFeatures, batch_size: int) -> dict[str, float]:
    """Mean cross entropy and accuracy over the tokens of a split."""
    loss = right = count = 0
    device = model.lm_head.weight.device
    for captions, tokens, whole, context in token_loader(rows, model.config.pad_id, batch_size=batch_size):
        tokens, targets = inputs_and_targets(model, tokens.to(device), whole.to(device), context.to(device))
        logits = model(*encode(captions), tokens)
        kept = targets != model.config.pad_id
        loss += torch.nn.functional.cross_entropy(logits[kept].float(), targets[kept], reduction="sum").item()
        right += (logits[kept].argmax(-1) == targets[kept]).sum().item()
        count += int(kept.sum())
    return {"loss": loss / count, "accuracy": right / count}


if __name__ == "__main__":
    with exit_on_input_error():
        main(*parse_options(Options, __doc__))
