"""T2M's evaluators of HumanML3D (263 features, 20 fps) and KIT-ML (251 features, 12.5 fps).

They are the networks of Guo et al. (CVPR 2022), trained to match captions and motions, with which most published FID
and R-precision are measured: text_mot_match/model/finest.tar of the text-to-motion repository. All sizes are read from
the shapes of the tensors.

A motion is normalized, padded with zeros to the 196 frames of the longest motion in whole units of 4 frames, and only
then convolved, so the padding takes part in its last unit. The statistics are those of the evaluator, not those of a
generator.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence

from evaluation.evaluators.interface import (
    Caption,
    check_captions,
    check_motions,
    embed_in_batches,
)
from evaluation.evaluators.word_tokens import TAGS, Vocabulary
from utils.errors import InputError

UNIT = 4  # frames per movement code
FOOT_CONTACTS = 4  # last columns of the features, which the networks do not see
Shapes = Mapping[str, tuple[int, ...]]


class Data(NamedTuple):
    """Frame rate and lengths in the protocol of a data set."""

    name: str
    fps: float
    frames: tuple[int, int]  # shortest and longest motion


DATA = {263: Data("T2M HumanML3D", 20.0, (40, 199)), 251: Data("T2M KIT-ML", 12.5, (24, 199))}  # by features per frame


class MovementEncoder(nn.Module):
    """Convolutions that make one movement code of 4 frames."""

    def __init__(self, shapes: Shapes):
        super().__init__()
        hidden, width, kernel = shapes["main.0.weight"]
        self.features = width + FOOT_CONTACTS
        latent = shapes["main.3.weight"][0]
        self.main = nn.Sequential(  # the checkpoint counts the dropout of its training
            nn.Conv1d(width, hidden, kernel, 2, 1), nn.Identity(), nn.LeakyReLU(0.2),
            nn.Conv1d(hidden, latent, kernel, 2, 1), nn.Identity(), nn.LeakyReLU(0.2),
        )  # fmt: skip
        self.out_net = nn.Linear(latent, shapes["out_net.weight"][0])

    def forward(self, motion: Tensor) -> Tensor:
        """Map normalized features (B, T, features) to codes (B, T // 4, latent)."""
        return self.out_net(self.main(motion[..., :-FOOT_CONTACTS].mT).mT)


class BiGRU(nn.Module):
    """A bidirectional GRU over the valid steps and a head: the motion encoder, and the core of the text encoder."""

    def __init__(self, shapes: Shapes):
        super().__init__()
        hidden, width = shapes["input_emb.weight"]
        middle, embedding = shapes["output_net.0.weight"][0], shapes["output_net.3.weight"][0]
        self.input_emb = nn.Linear(width, hidden)
        self.gru = nn.GRU(hidden, hidden, batch_first=True, bidirectional=True)
        self.output_net = nn.Sequential(
            nn.Linear(2 * hidden, middle), nn.LayerNorm(middle), nn.LeakyReLU(0.2), nn.Linear(middle, embedding)
        )
        self.hidden = nn.Parameter(torch.zeros(2, 1, hidden))

    def forward(self, sequence: Tensor, lengths: Tensor) -> Tensor:
        """Map (B, L, width) with (B,) valid steps to embeddings (B, D)."""
        packed = pack_padded_sequence(self.input_emb(sequence), lengths.cpu(), batch_first=True, enforce_sorted=False)
        _, last = self.gru(packed, self.hidden.repeat(1, len(sequence), 1))  # (2, B, hidden)
        return self.output_net(torch.cat([last[0], last[1]], dim=-1))


class TextEncoder(BiGRU):
    """The same over word vectors, to which an embedding of the parts of speech is added."""

    def __init__(self, shapes: Shapes):
        super().__init__(shapes)
        width, tags = shapes["pos_emb.weight"]
        self.pos_emb = nn.Linear(tags, width)

    def embed(self, words: Tensor, tags: Tensor, lengths: Tensor) -> Tensor:
        """Map word vectors (B, L, 300), parts of speech (B, L, 15) one-hot and (B,) tokens to embeddings (B, D)."""
        return self(words + self.pos_emb(tags), lengths)


class T2MEvaluator:
    """An ``Evaluator`` of the 263 or 251 features; see evaluation/evaluators/load.py for the files.

    Args:
        movement: Encoder of units of 4 frames, in evaluation mode like the others.
        text: Encoder of captions.
        motion: Encoder of movement codes.
        vocabulary: Word vectors.
        mean: (features,) statistics of the evaluator.
        std: (features,) statistics of the evaluator.
        frames: Shortest and longest motion; None takes the protocol of the data set.

    Raises:
        InputError: Networks, word vectors and statistics do not fit together.
    """

    def __init__(
        self,
        movement: MovementEncoder,
        text: TextEncoder,
        motion: BiGRU,
        vocabulary: Vocabulary,
        mean: np.ndarray,
        std: np.ndarray,
        frames: tuple[int, int] | None = None,
    ):
        self.movement, self.text, self.motion = movement, text, motion
        self.vocabulary, self.mean, self.std = vocabulary, mean, std
        self.features = movement.features
        if self.features not in DATA or mean.shape != (self.features,):
            raise InputError(
                f"the evaluator takes {self.features} features and its statistics have {len(mean)}; give the files of "
                "one evaluator, of HumanML3D (263) or KIT-ML (251)"
            )
        self.name, self.fps, usual = DATA[self.features]
        self.min_frames, self.max_frames = frames or usual
        if self.text.pos_emb.weight.shape != (vocabulary.vectors.shape[1], len(TAGS)):
            raise InputError(
                f"the evaluator takes word vectors of width {len(self.text.pos_emb.weight)} with "
                f"{self.text.pos_emb.in_features} parts of speech, not {vocabulary.vectors.shape[1]} with {len(TAGS)}; "
                "give the glove folder of text-to-motion"
            )

    @torch.inference_mode()
    def embed_motions(self, motions: Sequence[np.ndarray]) -> np.ndarray:
        """Embed motions (T, features), as in ``Evaluator``."""
        check_motions(self, motions)

        def embed(positions: list[int]) -> Tensor:
            longest = self.max_frames // UNIT * UNIT
            padded = np.zeros((len(positions), longest, self.features), np.float32)
            for row, position in zip(padded, positions, strict=True):
                row[: len(motions[position])] = ((motions[position] - self.mean) / self.std)[:longest]
            codes = self.movement(self._tensor(padded))  # (b, longest // 4, latent)
            return self.motion(codes, torch.tensor([len(motions[position]) // UNIT for position in positions]))

        return embed_in_batches([len(motion) for motion in motions], embed)

    @torch.inference_mode()
    def embed_texts(self, captions: Sequence[Caption]) -> np.ndarray:
        """Embed captions, as in ``Evaluator``."""
        check_captions(captions)
        distinct = {caption: self.vocabulary.row(caption) for caption in captions}
        tokens = list(distinct.values())

        def embed(positions: list[int]) -> Tensor:
            batch = [tokens[position] for position in positions]
            words = self.vocabulary.vectors[np.stack([row.rows for row in batch])]  # (b, 22, 300)
            tags = np.eye(len(TAGS), dtype=np.float32)[np.stack([row.tags for row in batch])]  # (b, 22, 15)
            lengths = torch.tensor([row.length for row in batch])
            return self.text.embed(self._tensor(words), self._tensor(tags), lengths)

        embeddings = embed_in_batches([row.length for row in tokens], embed)
        row_of = {caption: row for row, caption in enumerate(distinct)}
        return embeddings[[row_of[caption] for caption in captions]]

    def _tensor(self, values: np.ndarray) -> Tensor:
        return torch.from_numpy(values).to(self.motion.hidden.device)
