"""Sentences that a checkpoint knows: the actions of its training data, and captions that represent the others.

known.safetensors beside the weights of a generator holds up to ``MOST`` training captions, their MiniLM sentence
vectors, and the actions. The cosine similarity of a sentence and the closest of these captions shows whether the
generator can know its meaning. MiniLM is used with every text encoder: its sentence vectors were trained for this
comparison, and it is part of the installation.
"""

import json
import random
import warnings
from collections.abc import Iterable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import safetensors.torch
import torch
from torch import Tensor

from models.checkpoints import KNOWN, find_checkpoint
from models.text_encoder import WIDTHS, TextEncoder, load_text_encoder
from utils.errors import InputError, shown
from utils.files import atomic_write
from utils.reading.files import MB, open_regular, refusing
from utils.reading.tensors import safetensors_header
from utils.reading.texts import parse_json, read_json

FAR = 0.5
"""Cosine similarity below which a sentence is far from all captions. In ``benchmarks.known``, 84 % of the sentences of
unknown actions are below it, and 84 % of those of known actions are not."""
MOST, LONGEST = 768, 300  # captions, and characters of each: MiniLM reads about as many
SAMPLE = 20_000  # captions of large data sets that are compared
LISTED = 20  # captions that are listed for a checkpoint without actions
ENCODED = 512  # captions whose features are in memory at a time
LARGEST = 4 * MB


class Action(NamedTuple):
    """An action of the training data."""

    name: str
    caption: str  # an example


class Closest(NamedTuple):
    """The known caption that is most similar to a sentence."""

    sentence: str
    caption: str
    similarity: float

    @property
    def is_far(self) -> bool:
        return self.similarity < FAR

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON for results and answers."""
        return {"sentence": self.sentence, "closest": self.caption, "similarity": round(self.similarity, 3)}

    def __str__(self) -> str:
        return (
            f"warning: '{shown(self.sentence, 100)}' is far from all captions of the training; "
            f"closest known: {shown(self.caption, 100)} ({self.similarity:.2f})"
        )


class Known:
    """The known captions and actions of a checkpoint.

    Args:
        captions: Captions, each different from those before it as far as possible.
        vectors: Their sentence vectors (n, D).
        actions: Actions; none if the training data do not list any.
    """

    def __init__(self, captions: list[str], vectors: Tensor, actions: list[Action]):
        self.captions, self.actions = captions, actions
        self.vectors = torch.nn.functional.normalize(vectors.float(), dim=-1)

    @classmethod
    def of_training(cls, captions: Iterable[str], actions: Sequence[Action], encoder: TextEncoder) -> "Known":
        """Select the captions that represent those of a training; the same ones in every run.

        Args:
            captions: All training captions.
            actions: Actions of the training data; their captions are always selected.
            encoder: Text encoder of the generator.
        """
        actions = list(actions[:MOST])
        examples = list(dict.fromkeys(action.caption for action in actions))
        others = sorted({caption[:LONGEST] for caption in captions} - set(examples))
        texts = examples + random.Random(0).sample(others, min(len(others), SAMPLE))
        vectors = sentence_vectors(texts, encoder)
        chosen = spread_out(vectors, len(examples), MOST)
        return cls([texts[number] for number in chosen], vectors[chosen], actions)

    @classmethod
    def load(cls, folder: Path) -> "Known | None":
        """Read the file of a checkpoint folder; None if it has none.

        Raises:
            InputError: The file is damaged.
        """
        path = folder / KNOWN
        if not path.exists():
            return None
        with open_regular(path, "known sentences", LARGEST, "copy it again, or remove it") as file:
            header = safetensors_header(file)
            captions, actions = (parse_json(header.metadata[name]) for name in ("captions", "actions"))
            if not (_are_texts(captions) and all(_are_texts(action) and len(action) == 2 for action in actions)):
                raise InputError("its captions and actions are not texts")
            if header.tensors["vectors"].shape != (len(captions), WIDTHS["minilm"]):
                raise InputError("its captions and vectors do not belong together")
            file.seek(0)
            vectors = safetensors.torch.load(file.read())["vectors"]
            if not (len(vectors) and vectors.isfinite().all()):
                raise InputError("its vectors are empty or not finite")
            return cls(captions, vectors, [Action(*action) for action in actions])

    def save(self, folder: Path) -> None:
        """Write the file into a checkpoint folder."""
        metadata = {"captions": json.dumps(self.captions), "actions": json.dumps(self.actions)}
        with atomic_write(folder / KNOWN) as file:
            safetensors.torch.save_file({"vectors": self.vectors.half()}, file, metadata)

    def closest(self, sentences: Sequence[str], encoder: TextEncoder) -> list[Closest]:
        """Return the most similar known caption of each sentence; ``encoder`` is that of the generator."""
        if not sentences:
            return []
        similarity, number = (sentence_vectors(sentences, encoder) @ self.vectors.T).max(dim=1)  # (B,)
        return [
            Closest(sentence, self.captions[index], value)
            for sentence, index, value in zip(sentences, number.tolist(), similarity.tolist(), strict=True)
        ]

    def __str__(self) -> str:
        """List the actions, or some captions if there are no actions, one a line."""
        if not self.actions:
            lines = [shown(caption, 100) for caption in self.captions[:LISTED]]
            return "\n".join([f"{len(lines)} captions of the training; the checkpoint lists no actions:", *lines])
        width = min(30, max(len(action.name) for action in self.actions))
        lines = [f"{shown(action.name, 30):{width}}  {shown(action.caption, 100)}" for action in self.actions]
        return "\n".join([f"{len(lines)} actions, each with an example sentence:", *lines])


def find_known(checkpoint: str | Path) -> Known:
    """Return the known sentences of a checkpoint, a folder or a hub id.

    Raises:
        InputError: it cannot be found, its file is damaged, or it has none.
    """
    known = Known.load(find_checkpoint(checkpoint)[1])
    if known is None:
        raise InputError(f"{shown(checkpoint, 120)} has no {KNOWN}, which lists its actions; read its model card")
    return known


def sentence_vectors(sentences: Sequence[str], encoder: TextEncoder) -> Tensor:
    """Return the normalized MiniLM vectors (B, 384) of sentences, on the CPU.

    Args:
        sentences: B sentences.
        encoder: Text encoder of the generator; used if it is MiniLM, which is loaded otherwise.
    """
    minilm = encoder if encoder.name == "minilm" else _minilm(encoder.device)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about long sentences; the generator's encoder warns of them
        batches = [
            minilm.encode(sentences[start : start + ENCODED])[0][:, 0].cpu()
            for start in range(0, len(sentences), ENCODED)
        ]
    return torch.nn.functional.normalize(torch.cat(batches), dim=-1)


@lru_cache(maxsize=1)
def _minilm(device: torch.device) -> TextEncoder:
    return load_text_encoder("minilm", device)


def spread_out(vectors: Tensor, first: int, most: int) -> list[int]:
    """Select vectors that cover all others: each is the one farthest from those before it (Gonzalez, 1985).

    Args:
        vectors: (n, D) of length 1.
        first: Number of vectors at the start that are selected in any case; without any, the most central one is.
        most: Largest number to select.

    Returns:
        Their numbers, in the order of selection.
    """
    chosen = list(range(first)) or [int((vectors @ vectors.mean(dim=0)).argmax())]
    nearness = (vectors @ vectors[chosen].T).amax(dim=1)  # (n,) similarity to the closest selected one
    nearness[chosen] = torch.inf
    while len(chosen) < min(most, len(vectors)):
        chosen.append(int(nearness.argmin()))
        nearness = torch.maximum(nearness, vectors @ vectors[chosen[-1]])
        nearness[chosen[-1]] = torch.inf
    return chosen


def read_actions(path: Path) -> list[Action]:
    """Read the actions of a data folder, a list of {"name", "caption", ...}; none if the file does not exist.

    Raises:
        InputError: the file is no list of actions.
    """
    if not path.exists():
        return []
    content = read_json(path)
    with refusing(path, "a list of actions", "correct or remove it"):
        actions = [Action(entry["name"], entry["caption"]) for entry in content]
        if not all(_are_texts(action) for action in actions):
            raise InputError("a name or a caption is not a text")
        return actions


def _are_texts(values: object) -> bool:
    return isinstance(values, (list, tuple)) and all(isinstance(value, str) and value.strip() for value in values)
