"""The evaluators of the 272 features at 30 fps: those of MotionStreamer and MotionMillion, after TMR.

Both are the TMR of Petrovich et al. (ICCV 2023) as MotionStreamer (Xiao et al., ICCV 2025) published it: two ACTOR
encoders, one over frames and one over the states of DistilBERT, each with two more tokens for mean and variance. The
embedding is the mean. All sizes are read from the shapes of the tensors, except for the number of heads.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from evaluation.evaluators.interface import (
    Caption,
    check_captions,
    check_motions,
    embed_in_batches,
)
from utils.errors import InputError, shown
from utils.reading.files import check_regular, refusal, refusing
from utils.reading.texts import read_json

if TYPE_CHECKING:  # a heavy library, imported on use
    from transformers import DistilBertModel, PreTrainedTokenizerBase

HEADS = 4  # the published config names 6 under a name that is not read
FPS = 30.0
DISTILBERT = "distilbert-base-uncased"
Shapes = Mapping[str, tuple[int, ...]]


class Data(NamedTuple):
    """Lengths in the protocol of a data set."""

    name: str
    frames: tuple[int, int]  # shortest and longest motion


MOTIONSTREAMER = Data("MotionStreamer TMR-272", (60, 299))
MOTIONMILLION = Data("MotionMillion TMR-272", (60, 200))
DATA = {256: MOTIONSTREAMER, 512: MOTIONMILLION}  # by width of the embeddings


class Distribution(NamedTuple):
    """A normal distribution per item; its mean is the embedding."""

    loc: Tensor  # (B, D)
    scale: Tensor  # (B, D)


class PositionalEncoding(nn.Module):
    """Sinusoidal positions, stored in the checkpoint."""

    pe: Tensor  # (positions, 1, D)

    def __init__(self, shape: tuple[int, ...]):
        super().__init__()
        self.register_buffer("pe", torch.zeros(shape))


class ActorEncoder(nn.Module):
    """Transformer over a sequence behind two tokens, whose outputs are mean and log variance."""

    def __init__(self, shapes: Shapes, heads: int):
        super().__init__()
        width = shapes["mu_token"][0]
        _check_heads(width, heads)
        self.mu_token, self.logvar_token = nn.Parameter(torch.zeros(width)), nn.Parameter(torch.zeros(width))
        self.sequence_pos_encoding = PositionalEncoding(shapes["sequence_pos_encoding.pe"])
        hidden = shapes["seqTransEncoder.layers.0.linear1.weight"][0]
        layers = {name.split(".")[2] for name in shapes if name.startswith("seqTransEncoder.layers.")}
        layer = nn.TransformerEncoderLayer(width, heads, hidden, activation="gelu", batch_first=True)
        self.seqTransEncoder = nn.TransformerEncoder(layer, len(layers), enable_nested_tensor=False)

    def forward(self, sequence: Tensor, mask: Tensor) -> Distribution:
        """Map a sequence (B, L, D), valid where the mask (B, L) is true, to its distribution."""
        tokens = torch.stack([self.mu_token, self.logvar_token]).expand(len(sequence), 2, -1)
        states = torch.cat([tokens, sequence], dim=1)  # (B, 2 + L, D)
        states = states + self.sequence_pos_encoding.pe[: states.shape[1], 0]
        padding = ~torch.cat([mask.new_ones(len(mask), 2), mask], dim=1)
        states = self.seqTransEncoder(states, src_key_padding_mask=padding)
        return Distribution(states[:, 0], torch.exp(states[:, 1] / 2))


class MotionEncoder(ActorEncoder):
    """Encoder of normalized features."""

    def __init__(self, shapes: Shapes, heads: int):
        super().__init__(shapes, heads)
        width, features = shapes["skel_embedding.weight"]
        self.skel_embedding = nn.Linear(features, width)

    def encode(self, motions: Tensor, lengths: Tensor) -> Distribution:
        """Map normalized features (B, T, features) with (B,) valid frames to their distribution."""
        mask = torch.arange(motions.shape[1], device=motions.device) < lengths[:, None]
        return self(self.skel_embedding(motions), mask)


class TextEncoder(ActorEncoder):
    """Encoder of the word pieces of DistilBERT, whose weights are part of the checkpoint."""

    def __init__(self, shapes: Shapes, heads: int, model: "TextModel"):
        super().__init__(shapes, heads)
        width, states = shapes["projection.1.weight"]
        self.projection = nn.Sequential(nn.ReLU(), nn.Linear(states, width))
        prefix = "text_model."
        inner = {name.removeprefix(prefix): shape for name, shape in shapes.items() if name.startswith(prefix)}
        self.text_model = build_distilbert(inner, model)

    def encode(self, ids: Tensor, mask: Tensor) -> Distribution:
        """Map word pieces (B, L), valid where the mask (B, L) is 1, to their distribution."""
        states = self.text_model(input_ids=ids, attention_mask=mask).last_hidden_state
        return self(self.projection(states), mask.bool())


class TMR272Evaluator:
    """An ``Evaluator`` of the 272 features; see evaluation/evaluators/load.py for the files.

    Args:
        motion: Encoder of motions, in evaluation mode.
        text: Encoder of texts, in evaluation mode.
        tokenizer: Tokenizer of DistilBERT.
        mean: (272,) statistics of the evaluator's training data.
        std: (272,) statistics of the evaluator's training data.
        frames: Shortest and longest motion; None takes the protocol of the data set.
    """

    fps = FPS

    def __init__(
        self,
        motion: MotionEncoder,
        text: TextEncoder,
        tokenizer: "PreTrainedTokenizerBase",
        mean: np.ndarray,
        std: np.ndarray,
        frames: tuple[int, int] | None = None,
    ):
        self.motion, self.text, self.tokenizer, self.mean, self.std = motion, text, tokenizer, mean, std
        self.features = motion.skel_embedding.in_features
        self.name, usual = DATA.get(len(motion.mu_token), MOTIONSTREAMER)
        self.min_frames, self.max_frames = frames or usual
        self.max_pieces = text.text_model.config.max_position_embeddings

    @torch.inference_mode()
    def embed_motions(self, motions: Sequence[np.ndarray]) -> np.ndarray:
        """Embed motions (T, 272), as in ``Evaluator``."""
        check_motions(self, motions)

        def embed(positions: list[int]) -> Tensor:
            rows = [torch.from_numpy((motions[i] - self.mean) / self.std).float() for i in positions]
            lengths = torch.tensor([len(row) for row in rows]).to(self.device)
            return self.motion.encode(nn.utils.rnn.pad_sequence(rows, batch_first=True).to(self.device), lengths).loc

        return embed_in_batches([len(motion) for motion in motions], embed)

    @torch.inference_mode()
    def embed_texts(self, captions: Sequence[Caption]) -> np.ndarray:
        """Embed captions, as in ``Evaluator``; word tokens are not used."""
        check_captions(captions)

        def embed(positions: list[int]) -> Tensor:
            return self.text.encode(*self.word_pieces([texts[i] for i in positions])).loc

        texts = list(dict.fromkeys(caption.text for caption in captions))
        embeddings = embed_in_batches([len(text) for text in texts], embed)
        row_of = {text: row for row, text in enumerate(texts)}
        return embeddings[[row_of[caption.text] for caption in captions]]

    def word_pieces(self, texts: list[str]) -> tuple[Tensor, Tensor]:
        """Return the ids of word pieces (B, L) of texts, padded, and their mask (B, L)."""
        pieces = self.tokenizer(
            texts, return_tensors="pt", padding=True, truncation=True, max_length=self.max_pieces
        ).to(self.device)
        return pieces["input_ids"], pieces["attention_mask"]

    @property
    def device(self) -> torch.device:
        """Device of the networks."""
        return self.motion.mu_token.device


class TextModel(NamedTuple):
    """Settings of a DistilBERT that its tensors do not show."""

    heads: int
    activation: str


def read_text_model(folder: Path) -> TextModel:
    """Read config.json of a DistilBERT.

    Raises:
        InputError: It is missing, or the configuration of another model.
    """
    path = folder / "config.json"
    config: Any = read_json(path)
    advice = f"give the folder of {DISTILBERT}"
    kind = config.get("model_type") if isinstance(config, dict) else None
    if kind != "distilbert":
        raise refusal(path, f"it describes the model {shown(kind, 40)}, not distilbert", advice)
    heads, activation = config.get("n_heads"), config.get("activation", "gelu")
    if type(heads) is not int or heads < 1 or activation not in ("gelu", "relu"):
        raise refusal(path, f"it has {shown(heads, 20)} heads and the activation {shown(activation, 20)}", advice)
    return TextModel(heads, activation)


def build_distilbert(shapes: Shapes, model: TextModel) -> "DistilBertModel":
    """Return a DistilBERT without its weights; its sizes are those of the shapes.

    Raises:
        InputError: The width is no multiple of the number of heads.
    """
    from transformers import DistilBertConfig, DistilBertModel

    vocabulary, width = shapes["embeddings.word_embeddings.weight"]
    _check_heads(width, model.heads)
    return DistilBertModel(
        DistilBertConfig(
            vocab_size=vocabulary,
            max_position_embeddings=shapes["embeddings.position_embeddings.weight"][0],
            n_layers=len({name.split(".")[2] for name in shapes if name.startswith("transformer.layer.")}),
            n_heads=model.heads,
            dim=width,
            hidden_dim=shapes["transformer.layer.0.ffn.lin1.weight"][0],
            activation=model.activation,
        )
    )


def _check_heads(width: int, heads: int) -> None:
    if width % heads:
        raise InputError(f"a width of {width} cannot have {heads} attention heads")


def load_tokenizer(folder: Path) -> "PreTrainedTokenizerBase":
    """Load the tokenizer of DistilBERT from a folder; the network is not used.

    Raises:
        InputError: The folder lacks it, or is damaged.
    """
    from transformers import AutoTokenizer

    check_regular(folder, "a tokenizer")
    with refusing(folder, "the tokenizer of DistilBERT", f"give the folder of {DISTILBERT}"):
        return AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
