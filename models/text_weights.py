"""Finding and loading the weights of CLIP and Flan-T5.

They are searched in this order: the given path, checkpoints/<name>, the cache of the Hugging Face hub, the hub. The
network is used only if all others fail, and never with HF_HUB_OFFLINE=1.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from huggingface_hub import snapshot_download
from torch import nn

from utils.errors import InputError, shown
from utils.paths import find_shipped
from utils.reading.files import check_regular, refusal, refusing
from utils.reading.tensors import check_shapes, open_safetensors, read_safetensors_header
from utils.reading.texts import read_json
from utils.reading.torch_files import read_torch

if TYPE_CHECKING:  # a heavy library, imported on use
    from transformers import PreTrainedTokenizerBase, T5EncoderModel

MAX_LAYERS, MAX_SIZE = 64, 2**18  # of a T5: flan-t5-xxl has 24 layers, and 32,128 word pieces
CLIP_LENGTH = 77  # word pieces
CHECKPOINTS = Path("checkpoints")
CLIP_HUB, CLIP_FILE, CLIP_SIZE = "timm/vit_base_patch32_clip_224.openai", "open_clip_model.safetensors", "0.6 GB"
T5_FILES = ("config.json", "spiece.model", "*.safetensors")
T5_SIZES = {
    "flan-t5-small": "0.3 GB",
    "flan-t5-base": "1.0 GB",
    "flan-t5-large": "3.1 GB",
    "flan-t5-xl": "11.4 GB",
    "flan-t5-xxl": "45 GB",
}


def find_clip(path: Path | None) -> Path:
    """Find the file of CLIP's weights.

    Raises:
        InputError: if it is not found; the message names a source.
    """
    if path is not None and path.is_file():
        return path
    return find_folder("clip", path, CLIP_HUB, (CLIP_FILE,), CLIP_SIZE) / CLIP_FILE


def find_t5(size: str, path: Path | None) -> Path:
    """Find the folder of a Flan-T5, with config, SentencePiece model and weights.

    Raises:
        InputError: if it is not found; the message names a source.
    """
    return find_folder(size, path, f"google/{size}", T5_FILES, T5_SIZES[size])


def find_folder(name: str, path: Path | None, hub_id: str, files: tuple[str, ...], size: str) -> Path:
    """Find the first folder that holds all ``files``, which are glob patterns.

    Args:
        name: Name of the text encoder.
        path: Folder given by the user, which must be complete; None searches the default places.
        hub_id: Repository on the Hugging Face hub.
        size: Size of the download, for the error message.

    Raises:
        InputError: if no folder is complete.
    """

    def complete(folder: Path) -> bool:
        return all(any(folder.glob(pattern)) for pattern in files)

    if path is not None:
        if not complete(path):
            raise InputError(f"{path} does not hold {', '.join(files)} of {name}; give the folder that holds them")
        return path
    if complete(own := find_shipped(CHECKPOINTS / name)):
        return own
    patterns = [*files, "*.index.json", "tokenizer*.json"]
    for only_cached in (True, False):
        try:
            folder = Path(snapshot_download(hub_id, allow_patterns=patterns, local_files_only=only_cached))
        except Exception:  # not cached, no network, unknown host, ...: the remedy is the same
            continue
        if complete(folder):
            return folder
    raise InputError(
        f"the weights of the text encoder {name} are neither in {CHECKPOINTS / name} nor in the Hugging Face cache, "
        f"and the hub cannot be reached; with a network, download {hub_id} ({size}) by "
        f"hf download {hub_id} --local-dir {CHECKPOINTS / name}"
    )


def load_t5(folder: Path, width: int, dtype: torch.dtype) -> tuple["T5EncoderModel", "PreTrainedTokenizerBase"]:
    """Load the encoder of a T5 and its tokenizer.

    Raises:
        InputError: if the folder holds another model, or is damaged.
    """
    from transformers import T5Config, T5EncoderModel, T5Tokenizer
    from transformers.utils import logging

    show_bars, verbosity = logging.is_progress_bar_enabled(), logging.get_verbosity()
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    check_regular(folder, "a text encoder")
    _check_t5(folder, width)
    safely: Any = {"local_files_only": True, "trust_remote_code": False}
    try:
        with refusing(folder, "a text encoder", "copy or download it again"):
            config = T5Config.from_pretrained(folder, **safely)
            if config.dense_act_fn == "gelu_new":
                config.dense_act_fn = "gelu_pytorch_tanh"  # the same function as one kernel
            tokenizer = T5Tokenizer.from_pretrained(folder, **safely)
            loaded: Any = T5EncoderModel.from_pretrained(
                folder, config=config, dtype=dtype, use_safetensors=True, output_loading_info=True, **safely
            )
            model, report = loaded
            missing = sorted(report["missing_keys"])
            if missing:
                raise InputError(f"{folder} holds no weights for {missing[0]}; copy or download it again")
            return model, tokenizer
    finally:
        logging.set_verbosity(verbosity)
        if show_bars:
            logging.enable_progress_bar()


def _check_t5(folder: Path, width: int) -> None:
    """Raise InputError unless a folder's config is that of a T5 of this width and its weights are whole."""
    config = read_json(folder / "config.json")
    kind, found = (config.get("model_type"), config.get("d_model")) if isinstance(config, dict) else (None, None)
    if kind != "t5" or found != width:
        raise InputError(
            f"{folder} holds a {shown(kind, 40)} of width {shown(found, 40)} where a t5 of width {width} is needed; "
            "give the weights of the selected encoder"
        )
    for name, value in config.items():
        most = MAX_LAYERS if "layers" in name else MAX_SIZE
        if isinstance(value, (int, float)) and abs(value) > most:
            raise refusal(
                folder / "config.json", f"{shown(name, 40)} is {value}, more than {most}", "download it again"
            )
    for path in folder.glob("*.safetensors"):
        read_safetensors_header(path)


def load_clip(file: Path, width: int) -> nn.Module:
    """Load the text tower of a CLIP in float32, which maps ids (B, 77) to vectors (B, width).

    Depth and inner width are read from the tensors.

    Raises:
        InputError: if the file holds another model, or is damaged.
    """
    from open_clip.transformer import QuickGELU, TextTransformer

    path = Path(file)
    weights = {name.removeprefix("module."): value for name, value in _clip_tensors(path).items()}
    advice = f"give {CLIP_FILE} of {CLIP_HUB}"
    with refusing(path, "a CLIP text encoder in open_clip's layout", advice):
        embedding, projection = weights["token_embedding.weight"], weights["text_projection"]
        context = len(weights["positional_embedding"])
        if projection.shape[1] != width or context != CLIP_LENGTH:
            raise InputError(
                f"{file} holds a CLIP of width {projection.shape[1]} for {context} word pieces where {width} and "
                f"{CLIP_LENGTH} are needed; {advice}"
            )
        layers = {name.split(".")[2] for name in weights if name.startswith("transformer.resblocks.")}

        def build() -> nn.Module:
            return TextTransformer(
                context_length=context,
                vocab_size=len(embedding),
                width=embedding.shape[1],
                heads=embedding.shape[1] // 64,
                layers=len(layers),
                output_dim=width,
                act_layer=QuickGELU,
            )

        with torch.device("meta"):
            names = build().state_dict().keys()
            check_shapes(build(), {name: tuple(weights[name].shape) for name in names}, path)
        model = build()
        model.load_state_dict({name: weights[name] for name in names})
        return model


def _clip_tensors(file: Path) -> dict[str, torch.Tensor]:
    """Read the tensors of a safetensors or torch file, which may have them under the key state_dict."""
    if file.suffix == ".safetensors":
        with open_safetensors(file) as opened:
            return {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118 (not a dict)
    content = read_torch(file, f"give {CLIP_FILE} of {CLIP_HUB}")  # OpenAI's own ViT-B-32.pt is a TorchScript program
    tensors = content.get("state_dict", content) if isinstance(content, dict) else None
    if not isinstance(tensors, dict):
        raise refusal(file, "it holds no named tensors", f"give {CLIP_FILE} of {CLIP_HUB}")
    return {str(name): value for name, value in tensors.items() if isinstance(value, torch.Tensor)}
