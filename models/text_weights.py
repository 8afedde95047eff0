"""Finding and loading the weights of CLIP and Flan-T5.

They are searched in this order: the given path, checkpoints/<name>, the cache of the Hugging Face hub, the hub. The
network is used only if all others fail, and never with HF_HUB_OFFLINE=1.
"""

from pathlib import Path
from pickle import UnpicklingError
from typing import TYPE_CHECKING, Any

import torch
from huggingface_hub import snapshot_download
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from utils.errors import InputError

if TYPE_CHECKING:  # a heavy library, imported on use
    from transformers import PreTrainedTokenizerBase, T5EncoderModel

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
    if complete(CHECKPOINTS / name):
        return CHECKPOINTS / name
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
    from transformers import AutoConfig, T5EncoderModel, T5Tokenizer
    from transformers.utils import logging

    show_bars, verbosity = logging.is_progress_bar_enabled(), logging.get_verbosity()
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True)
        if config.model_type != "t5" or config.d_model != width:
            raise InputError(
                f"{folder} holds a {config.model_type} of width {getattr(config, 'd_model', 'unknown')} where a t5 of "
                f"width {width} is needed; give the weights of the selected encoder"
            )
        if config.dense_act_fn == "gelu_new":
            config.dense_act_fn = "gelu_pytorch_tanh"  # the same function as one kernel
        tokenizer = T5Tokenizer.from_pretrained(folder, local_files_only=True)
        loaded: Any = T5EncoderModel.from_pretrained(
            folder, config=config, local_files_only=True, dtype=dtype, use_safetensors=True, output_loading_info=True
        )
        model, report = loaded
        missing = sorted(report["missing_keys"])
        if missing:
            raise InputError(f"{folder} holds no weights for {missing[0]}; copy or download it again")
        return model, tokenizer
    except InputError:
        raise
    except Exception as error:  # the libraries raise many kinds on damaged files
        raise InputError(
            f"the text encoder in {folder} cannot be read ({' '.join(str(error).split())[:200]}); "
            "copy or download it again"
        ) from error
    finally:
        logging.set_verbosity(verbosity)
        if show_bars:
            logging.enable_progress_bar()


def load_clip(file: Path, width: int) -> nn.Module:
    """Load the text tower of a CLIP in float32, which maps ids (B, 77) to vectors (B, width).

    Depth and inner width are read from the tensors.

    Raises:
        InputError: if the file holds another model, or is damaged.
    """
    from open_clip.transformer import QuickGELU, TextTransformer

    try:
        content: Any = load_file(file) if file.suffix == ".safetensors" else torch.load(file, "cpu", weights_only=True)
        weights = {name.removeprefix("module."): value for name, value in content.get("state_dict", content).items()}
    except OSError as error:
        raise InputError(f"{file} cannot be read ({error.strerror or error}); check its permissions") from error
    except (SafetensorError, RuntimeError, UnpicklingError, EOFError, AttributeError) as error:
        raise InputError(
            f"{file} cannot be read as weights ({' '.join(str(error).split())[:120]}); give {CLIP_FILE} of {CLIP_HUB} "
            "(OpenAI's own ViT-B-32.pt is a TorchScript program, which is not run)"
        ) from error
    try:
        embedding, projection = weights["token_embedding.weight"], weights["text_projection"]
        layers = {name.split(".")[2] for name in weights if name.startswith("transformer.resblocks.")}
        model = TextTransformer(
            context_length=len(weights["positional_embedding"]),
            vocab_size=len(embedding),
            width=embedding.shape[1],
            heads=embedding.shape[1] // 64,
            layers=len(layers),
            output_dim=projection.shape[1],
            act_layer=QuickGELU,
        )
        model.load_state_dict({name: weights[name] for name in model.state_dict()})
    except (KeyError, RuntimeError, IndexError, TypeError, ZeroDivisionError) as error:
        raise InputError(
            f"{file} holds no CLIP text encoder in open_clip's layout ({' '.join(str(error).split())[:120]}); "
            f"give {CLIP_FILE} of {CLIP_HUB}"
        ) from error
    if projection.shape[1] != width or model.context_length != 77:
        raise InputError(
            f"{file} holds a CLIP of width {projection.shape[1]} for {model.context_length} word pieces where {width} "
            f"and 77 are needed; give {CLIP_FILE} of {CLIP_HUB}"
        )
    return model
