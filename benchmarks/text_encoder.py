"""Speed of encoding captions with a T5 of the size of Flan-T5-base and random weights, in batches and one at a time.

    python -m benchmarks.text_encoder

The captions are encoded one at a time by the tokenizer and T5EncoderModel of transformers. Prints both times, their
ratio, the largest difference of the features, and the time of reading cached features from disk.
"""

import utils.interrupt  # noqa: F401

# isort: split

import random
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jsonargparse.typing import PositiveInt

from models.text_encoder import load_text_encoder
from models.text_features import CaptionFeatures
from utils.config import parse_options
from utils.errors import exit_on_input_error

PARTS = {
    "who": ["a person", "someone", "the man", "a woman", "an elderly person", "a dancer", "the figure"],
    "does": ["walks forward", "runs in a circle", "jumps twice", "bows", "waves the left hand", "sits down on a chair"],
    "how": ["", "", "slowly", "with big steps", "as if exhausted", "energetically", "while looking to the right"],
    "then": ["", "", "then turns left", "before stopping", "and raises both arms", "and kicks with the right leg"],
    "last": ["", "", "", "and finally returns to the starting place, facing the other way", "in the end"],
}


@dataclass
class Options:
    """Options of the benchmark."""

    captions: PositiveInt = 1000
    """Number of captions, all different."""
    seed: int = 0
    """Seed of captions and weights."""


def main(options: Options) -> None:
    captions = make_captions(options.captions, options.seed)
    with tempfile.TemporaryDirectory() as folder:
        make_t5_base(Path(folder) / "t5", captions, options.seed)
        alone = plain_encoder(Path(folder) / "t5")
        encoder = load_text_encoder("flan-t5-base", path=Path(folder) / "t5")
        for caption in captions[:8]:  # the first calls of a process are slow
            alone(caption)
        encoder.encode(captions[:64])
        one_by_one, seconds = timed(lambda: [alone(caption) for caption in captions])
        (features, mask), together = timed(lambda: encoder.encode(captions))
        difference = max(
            float((row[valid] - states).abs().max())
            for row, valid, states in zip(features, mask, one_by_one, strict=True)
        )
        words = sum(len(caption.split()) for caption in captions) / len(captions)
        print(f"{len(captions)} different captions of {words:.1f} words, {mask.sum() / len(captions):.1f} states each")
        print(f"one at a time {seconds:.1f} s, in batches {together:.1f} s: {seconds / together:.1f} times faster")
        print(f"largest difference of the features: {difference:.1e} (standard deviation {features[mask].std():.2f})")
        cached, making = timed(lambda: CaptionFeatures(encoder, Path(folder) / "features", captions))
        _, reading = timed(lambda: [cached(captions[first : first + 32]) for first in range(0, len(captions), 32)])
        size = sum(file.stat().st_size for file in (Path(folder) / "features").rglob("*.safetensors"))
        print(f"on disk: {size / 1e6:.0f} MB, written in {making:.1f} s, read in batches of 32 in {reading:.2f} s")


def make_captions(count: int, seed: int) -> list[str]:
    chooser, captions = random.Random(seed), {}
    while len(captions) < count:
        captions[" ".join(word for words in PARTS.values() if (word := chooser.choice(words)))] = None
    return list(captions)


def make_t5_base(folder: Path, captions: list[str], seed: int) -> None:
    import sentencepiece
    from transformers import T5Config, T5EncoderModel

    folder.mkdir()
    words = sorted({word for caption in captions for word in caption.split()})
    sentences = captions + 50 * words  # so that most words are one piece, as in Flan-T5's vocabulary
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(sentences), model_prefix=str(folder / "spiece"), vocab_size=400, hard_vocab_limit=False,
        pad_id=0, eos_id=1, unk_id=2, bos_id=-1, minloglevel=2,
    )  # fmt: skip
    torch.manual_seed(seed)
    shape = {"d_model": 768, "d_kv": 64, "d_ff": 2048, "num_layers": 12, "num_heads": 12, "vocab_size": 32128}
    T5EncoderModel(T5Config(**shape, feed_forward_proj="gated-gelu")).save_pretrained(folder)


def plain_encoder(folder: Path) -> Callable[[str], torch.Tensor]:
    """Return a function from a caption to its states (L, 768)."""
    from transformers import T5EncoderModel, T5Tokenizer

    model, tokenizer = T5EncoderModel.from_pretrained(folder).eval(), T5Tokenizer.from_pretrained(folder)

    @torch.no_grad()
    def encode(caption: str) -> torch.Tensor:
        return model(**tokenizer(caption, return_tensors="pt")).last_hidden_state[0]

    return encode


def timed(work: Callable[[], Any]) -> tuple[Any, float]:
    started = time.perf_counter()
    return work(), time.perf_counter() - started


if __name__ == "__main__":
    with exit_on_input_error():
        main(parse_options(Options, __doc__)[0])
