"""Text features of captions during training: encoded per batch, or encoded once and cached in files."""

import hashlib
import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor
from tqdm import tqdm

from models.text_encoder import TextEncoder
from utils.device import to_device
from utils.errors import InputError
from utils.files import atomic_write
from utils.reading.files import open_regular
from utils.reading.tensors import safetensors_header
from utils.reading.texts import parse_json


class CaptionFeatures:
    """Features of captions. They depend on the batch and the cached files alone, as exact resuming requires.

    Args:
        encoder: Encoder of the captions that are not cached; those of a batch are encoded together.
        folder: Cache folder. Each encoder has its own subfolder, named by its name and weights, with files of features
            in half precision. None disables the cache.
        captions: Captions to encode into the cache now, unless present. Interrupted encoding can be resumed.
        process, processes: Number of this process and of all that encode the captions together.
        wait: Returns when all processes have called it; called once this one has encoded its share.

    Raises:
        InputError: if a file is damaged, or the folder cannot be written.
    """

    CAPTIONS_PER_FILE = 512

    def __init__(
        self,
        encoder: TextEncoder,
        folder: Path | None = None,
        captions: Iterable[str] = (),
        process: int = 0,
        processes: int = 1,
        wait: Callable[[], None] = lambda: None,
    ):
        self.encoder = encoder
        self.cached: dict[str, tuple[Any, int, int]] = {}  # caption -> (open file, first row, row after the last)
        self.files: set[Path] = set()  # that are open
        if folder is None:
            return
        folder = folder / f"{encoder.name.replace(':', '-')}-{weights_digest(encoder)}"
        self._open_files(folder)
        # Captions of similar length share a file; the files are the same if an earlier run was interrupted.
        own = sorted(set(captions), key=lambda caption: (len(caption), caption))[process::processes]
        missing = [caption for caption in own if caption not in self.cached]
        for first in tqdm(
            range(0, len(missing), self.CAPTIONS_PER_FILE), desc="encoding captions", disable=process > 0 or not missing
        ):
            self._write(folder, missing[first : first + self.CAPTIONS_PER_FILE])
        wait()
        self._open_files(folder)

    def __call__(self, captions: list[str]) -> tuple[Tensor, Tensor]:
        """Return the features (B, L, D) float32 and the mask (B, L) bool of captions."""
        uncached = [caption for caption in captions if caption not in self.cached]
        encoded = iter(zip(*self.encoder.encode(uncached), strict=True) if uncached else ())
        device = self.encoder.device
        rows = []  # (length, D) each
        for caption in captions:
            if caption in self.cached:
                file, start, stop = self.cached[caption]
                row = file.get_slice("features")[start:stop].float()
                rows.append(row.to(device) if uncached else row)
            else:
                features, mask = next(encoded)
                rows.append(features[mask])
        features = to_device(torch.nn.utils.rnn.pad_sequence(rows, batch_first=True), device)
        lengths = to_device(torch.tensor([len(row) for row in rows]), device)
        return features, torch.arange(features.shape[1], device=device) < lengths[:, None]

    def _write(self, folder: Path, captions: list[str]) -> None:
        """Encode captions into a new file of the cache."""
        features, mask = self.encoder.encode(captions)
        path = folder / f"{hashlib.sha256(json.dumps(captions).encode()).hexdigest()[:16]}.safetensors"
        tensors = {"features": features[mask].half().cpu(), "lengths": mask.sum(dim=1).cpu()}
        with atomic_write(path) as file:
            save_file(tensors, file, {"captions": json.dumps(captions)})

    def _open_files(self, folder: Path) -> None:
        """Add the captions of the files that have not been opened to the cache."""
        for path in sorted(set(folder.glob("*.safetensors")) - self.files):
            self._open(path)

    def _open(self, path: Path) -> None:
        """Add the captions of a file to the cache."""
        self.files.add(path)
        with open_regular(path, "text features", advice="remove that file") as checked:
            header = safetensors_header(checked)
            captions = parse_json(header.metadata["captions"])
            file = safe_open(path, framework="pt")  # stays open
            lengths = file.get_tensor("lengths")
            rows, width = header.tensors["features"].shape
            if width != self.encoder.dim or (lengths < 1).any() or lengths.sum() != rows:
                raise InputError("its features and captions do not belong together")
            stops = lengths.cumsum(0).tolist()
            self.cached |= zip(captions, zip([file] * len(stops), [0, *stops], stops, strict=False), strict=True)


def weights_digest(encoder: TextEncoder) -> str:
    """Return ten hexadecimal digits that identify an encoder's weights and precision, from a part of each layer."""
    digest = hashlib.sha256()
    for name, module in encoder.model.named_modules():
        weight = getattr(module, "weight", None)
        if isinstance(weight, Tensor):
            digest.update(f"{name} {tuple(weight.shape)} {weight.dtype}".encode())
            weight = weight.to_dense() if weight.is_mkldnn else weight
            digest.update(weight.flatten()[:64].float().cpu().numpy().tobytes())
    return digest.hexdigest()[:10]
