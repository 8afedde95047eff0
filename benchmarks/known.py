"""Threshold below which a sentence is far from all known captions: rates on sentences of known and unknown actions.

    python -m benchmarks.known

The known captions are selected, as in a training, from those that configs/data/bandai_captions.yaml gives to three
clips of each content and style.
"""

import utils.interrupt  # noqa: F401

# isort: split

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dataset.captions import CaptionRules
from models.known import FAR, Action, Known
from models.text_encoder import load_text_encoder
from utils.config import parse_options
from utils.errors import exit_on_input_error
from utils.reading.texts import read_yaml

CAPTIONS = 8  # per clip


@dataclass
class Options:
    """Options of the benchmark."""

    captions: Path = Path("configs/data/bandai_captions.yaml")
    """Rules of the known captions."""
    sentences: Path = Path("configs/prompts/known.yaml")
    """Sentences of known and of unknown actions."""


def main(options: Options) -> None:
    rules, encoder = CaptionRules.from_yaml(options.captions), load_text_encoder("minilm")
    clips = [
        f"dataset-1_{content}_{style}_{number:03}"
        for content in rules.contents
        for style in rules.styles
        for number in range(3)
    ]
    captions = [caption for clip in clips for caption in rules.captions(clip, CAPTIONS)]
    actions = [Action(content, f"a person {phrases[0]}") for content, phrases in rules.contents.items()]
    known = Known.of_training(captions, actions, encoder)
    print(f"{len(known.captions)} of {len(set(captions))} captions are selected")
    similarity = {
        kind: np.array([closest.similarity for closest in known.closest(sentences, encoder)])
        for kind, sentences in read_yaml(options.sentences).items()
    }
    print(f"| threshold | known, not far (of {len(similarity['known'])}) | unknown, far", end="")
    print(f" (of {len(similarity['unknown'])}) | mean |\n|---|---|---|---|")
    for threshold in (0.4, 0.45, 0.48, 0.5, 0.52, 0.55, 0.6):
        near, far = np.mean(similarity["known"] >= threshold), np.mean(similarity["unknown"] < threshold)
        mark = " (used)" if threshold == FAR else ""
        print(f"| {threshold}{mark} | {near:.0%} | {far:.0%} | {(near + far) / 2:.1%} |")


if __name__ == "__main__":
    with exit_on_input_error():
        main(parse_options(Options, __doc__)[0])
