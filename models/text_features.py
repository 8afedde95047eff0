"""Text features of captions during training: encoded batch by batch, or once and for all into files beside the data."""

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor
from tqdm import tqdm

from models.text_encoder import TextEncoder
from utils.errors import InputError
from utils.files import atomic_write


class CaptionFeatures:
    """Features of captions. What a batch gets depends on the batch and the files alone, as resuming a run needs.

    Args:
        encoder: of captions that are in no file; those of a batch go through it together.
        folder: with files of features in half precision, by caption; they are made for the encoder alone and lie in a
            folder of its name and weights. None keeps nothing.
        captions: that are encoded into files first, unless they are there. Interrupted, this goes on where it was.

    Raises:
        InputError: a file is damaged, or the folder cannot be written.
    """

    FILE = 512  # captions a file

    def __init__(self, encoder: TextEncoder, folder: Path | None = None, captions: Iterable[str] = ()):
        self.encoder = encoder
        self.places = {}  # caption -> (file, first row, row after the last)
        if folder is None:
            return
        folder = folder / f"{encoder.name.replace(':', '-')}-{weights_digest(encoder)}"
        for path in sorted(folder.glob("*.safetensors")):
            self._open(path)
        # Of like length together; the same captions make the same files wherever an earlier run stopped.
        missing = sorted(set(captions) - self.places.keys(), key=lambda caption: (len(caption), caption))
        for first in tqdm(range(0, len(missing), self.FILE), desc="encoding captions", disable=not missing):
            self._open(self._write(folder, missing[first : first + self.FILE]))

    def __call__(self, captions: list[str]) -> tuple[Tensor, Tensor]:
        """Features (B, L, D) float32 and mask (B, L) bool."""
        new = [caption for caption in captions if caption not in self.places]
        encoded = iter(zip(*self.encoder.encode(new), strict=True) if new else ())
        rows = []  # (length, D) each
        for caption in captions:
            if caption in self.places:
                file, start, stop = self.places[caption]
                rows.append(file.get_slice("features")[start:stop].to(self.encoder.device).float())
            else:
                features, mask = next(encoded)
                rows.append(features[mask])
        lengths = torch.tensor([len(row) for row in rows], device=self.encoder.device)
        features = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
        return features, torch.arange(features.shape[1], device=self.encoder.device) < lengths[:, None]

    def _write(self, folder: Path, captions: list[str]) -> Path:
        features, mask = self.encoder.encode(captions)
        path = folder / f"{hashlib.sha256(json.dumps(captions).encode()).hexdigest()[:16]}.safetensors"
        tensors = {"features": features[mask].half().cpu(), "lengths": mask.sum(dim=1).cpu()}
        with atomic_write(path) as file:
            save_file(tensors, file, {"captions": json.dumps(captions)})
        return path

    def _open(self, path: Path) -> None:
        try:
            file = safe_open(path, framework="pt")
            captions, stops = json.loads(file.metadata()["captions"]), file.get_tensor("lengths").cumsum(0).tolist()
        except (SafetensorError, OSError, TypeError, KeyError, ValueError) as error:
            raise InputError(f"the text features in {path} are damaged; remove that file") from error
        self.places |= zip(captions, zip([file] * len(stops), [0, *stops], stops, strict=False), strict=True)


def weights_digest(encoder: TextEncoder) -> str:
    """Ten hexadecimal digits that tell an encoder's weights and their precision from others: of some of each layer."""
    digest = hashlib.sha256()
    for name, module in encoder.model.named_modules():
        weight = getattr(module, "weight", None)
        if isinstance(weight, Tensor):
            digest.update(f"{name} {tuple(weight.shape)} {weight.dtype}".encode())
            weight = weight.to_dense() if weight.is_mkldnn else weight
            digest.update(weight.flatten()[:64].float().cpu().numpy().tobytes())
    return digest.hexdigest()[:10]
