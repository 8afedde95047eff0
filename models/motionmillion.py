r"""Make a checkpoint folder from tokenizer and generator of the public MotionMillion-Codes (Fan et al., ICCV 2025).

    python -m models.motionmillion --tokenizer vq/net_6000000.pth --generator 3B/net_240000.pth \
        --mean mean.npy --std std.npy --out checkpoints/motionmillion-3b
    python inference_batch.py --checkpoint checkpoints/motionmillion-3b --prompt "a person walks"

The shapes are read from the tensors. What tensors do not show is that of the released models unless an option says
otherwise. The files are memory-mapped and written part by part: a model larger than the memory can be converted.
"""

import hashlib
import json
import math
import os
import re
import shutil
import zipfile
from dataclasses import asdict, dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Literal
from uuid import uuid4

import numpy as np
import torch
from huggingface_hub import split_torch_state_dict_into_shards
from safetensors.torch import save_file

from models.llama import SIZES, LLaMAConfig, LLaMAHF
from models.motion_vqvae import HumanVQVAE, VQVAEConfig
from models.text_encoder import encoder_width
from motion.features272 import FEATURES
from utils.checkpoint import CONFIG, INDEX, fingerprint
from utils.config import parse_options
from utils.errors import InputError, exit_on_input_error, reason_of

# FSQ levels of the reference by codebook size. Its own names for them, in the comment, are not the sizes.
LEVELS = {
    math.prod(levels): levels
    for levels in (
        [8, 6, 5],  # "256"
        [8, 8, 8],  # "512"
        [8, 5, 5, 5],  # "1024"
        [8, 8, 6, 5],  # "2048"
        [7, 5, 5, 5, 5],  # "4096"
        [8, 8, 8, 6, 5],  # "16384"
        [8, 8, 8, 5, 5, 5],  # "65536", released
    )
}
TEXT_LENGTH = 150  # the reference cuts the text here ...
MAX_TOKENS = 150  # ... and trains on sequences of 301: text, motion, end
SHARD_SIZE = 10**9  # bytes a file
DTYPES = {"float32": torch.float32, "bf16": torch.bfloat16}
REFERENCE_ENCODERS = ("clip", "flan-t5-xl", "flan-t5-xxl")  # of different widths
Tensors = dict[str, torch.Tensor]


@dataclass
class Options:
    """Options of the conversion.

    Attributes:
        tokenizer: Checkpoint of the reference's motion tokenizer, with the key "net".
        mean: Mean of the 272 features (.npy) that the tokenizer was trained with.
        std: Standard deviation of the 272 features (.npy).
        out: Folder to write; it must not be there yet.
        generator: Checkpoint of the reference's generator, with the key "trans"; without it only the tokenizer is made.
        dtype: Of the generator's weights: as in the file, float32 or bf16.
        text_encoder: The generator's text encoder; by default the one of the width that its weights have.
        n_head: Attention heads, where the generator's size is not in the table of models/llama.py.
        levels: FSQ levels, where they do not follow from the codebook size.
        activation: Of the tokenizer: relu, gelu or silu.
        dilation_growth: Of the tokenizer.
    """

    tokenizer: Path
    mean: Path
    std: Path
    out: Path
    generator: Path | None = None
    dtype: Literal["keep", "float32", "bf16"] = "keep"
    text_encoder: str | None = None
    n_head: int | None = None
    levels: list[int] | None = None
    activation: str = "relu"
    dilation_growth: int = 3

    def __post_init__(self):
        if self.out.exists():
            raise InputError(f"--out {self.out} is there already; give the name of a new folder")


def main(options: Options) -> None:
    convert(options)
    print(f"saved to {options.out}")


def convert(options: Options) -> None:
    """Write the folder, whole or not at all.

    Raises:
        InputError: a file is missing, damaged or holds something else, or the parts do not fit together.
    """
    temporary = options.out.with_name(f".{options.out.name}-{uuid4().hex}")
    try:
        temporary.mkdir(parents=True)
        if options.generator is None:
            read_tokenizer(options, None).save_pretrained(temporary)
        else:
            embedding = read_tensors(options.generator, "trans").get("transformer.wte.weight")
            codebook_size = None if embedding is None else len(embedding) - 2  # end and pad
            read_tokenizer(options, codebook_size).save_pretrained(temporary / "tokenizer")
            write_generator(options, fingerprint(temporary / "tokenizer"), temporary)
        os.replace(temporary, options.out)
    except OSError as error:
        raise InputError(
            f"cannot write {options.out}: {error.strerror or error}; choose a writable place with free space"
        ) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def read_tensors(path: Path, key: str) -> Tensors:
    """The state dict under ``key`` of a torch file, memory-mapped, without prefixes "module." of its names.

    Raises:
        InputError: the file is missing, damaged, would run code, or holds no such state dict.
    """
    try:
        # Files of the old format (before torch 1.6) are no zip archives and cannot be mapped.
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}; check the path") from error
    except UnpicklingError as error:
        raise InputError(
            f"{path} holds more than tensors, or is no torch file, and is not loaded; give the file as it was released"
        ) from error
    except Exception as error:  # torch raises many kinds on a damaged file
        raise InputError(
            f"{path} is damaged or half-written ({reason_of(error)}); copy or download it again"
        ) from error
    tensors = content.get(key) if isinstance(content, dict) else None
    if not isinstance(tensors, dict) or not all(isinstance(value, torch.Tensor) for value in tensors.values()):
        what = {"net": "tokenizer", "trans": "generator"}[key]
        keys = ", ".join(map(str, content)) if isinstance(content, dict) else ""
        raise InputError(f"{path} holds no weights under {key!r} (but {keys[:80]}); give the reference's {what} file")
    return {name.replace("module.", ""): value for name, value in tensors.items()}


# --- Tokenizer


def read_tokenizer(options: Options, codebook_size: int | None) -> HumanVQVAE:
    """The reference's tokenizer with its statistics.

    Args:
        codebook_size: of the generator that goes with it, if there is one: says which levels the tokenizer has.
    Raises:
        InputError: see ``convert``.
    """
    mean, std = (read_statistic(path) for path in (options.mean, options.std))
    if not (std > 0).all():
        raise InputError(f"{options.std} holds a standard deviation that is not positive; give the file of the data")
    theirs = read_tensors(options.tokenizer, "net")
    model = HumanVQVAE(tokenizer_config(theirs, options, codebook_size)).eval()
    names = tokenizer_names(model.config, has_patcher(theirs))
    weights = {"mean": mean, "std": std}
    for ours, shape in ((name, value.shape) for name, value in model.state_dict().items() if name not in weights):
        layer, _, kind = ours.rpartition(".")
        value = theirs.pop(f"{names.get(layer, f'vqvae.{layer}')}.{kind}", None)  # quantizer: as ours
        if value is None or value.shape != shape:
            raise InputError(
                f"{options.tokenizer} does not hold the reference's tokenizer: {ours} of shape {tuple(shape)} "
                f"{'is missing' if value is None else f'is {tuple(value.shape)} there'}; give a file as it was released"
            )
        weights[ours] = value.float()
    more = [name for name in theirs if not name.endswith((".wavelets", "._arange"))]  # the patcher's constants
    if more:
        raise InputError(f"{options.tokenizer} holds layers that are not supported, as {more[0]}; nothing is converted")
    model.load_state_dict(weights)
    if codebook_size not in (None, model.codebook_size):
        raise InputError(
            f"the generator writes {codebook_size} codes and the tokenizer has {model.codebook_size}; "
            "give two that belong together, and the right --levels"
        )
    return model


def read_statistic(path: Path) -> torch.Tensor:
    """(272,) float32."""
    try:
        values = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise InputError(
            f"{path} cannot be read as a NumPy array ({reason_of(error)}); give mean.npy and std.npy"
        ) from error
    if not isinstance(values, np.ndarray) or values.shape != (FEATURES,) or not np.isfinite(values).all():
        raise InputError(f"{path} is no array of {FEATURES} finite numbers; give the statistics of the 272 features")
    return torch.from_numpy(values.astype(np.float32))


def has_patcher(theirs: Tensors) -> bool:
    return "vqvae.encoder.model.0.wavelets" in theirs


def tokenizer_config(theirs: Tensors, options: Options, codebook_size: int | None) -> VQVAEConfig:
    """What the tensors tell, and ``options`` for the rest."""
    first = f"vqvae.encoder.model.{int(has_patcher(theirs))}"
    causal = f"{first}.conv.weight" in theirs
    conv_in = theirs.get(f"{first}.conv.weight" if causal else f"{first}.weight")  # (width, 272 * patch_size, 3)
    decoder_in = theirs.get("vqvae.decoder.model.0.conv.weight" if causal else "vqvae.decoder.model.0.weight")
    if conv_in is None or decoder_in is None or conv_in.ndim != 3 or conv_in.shape[1] % FEATURES:
        raise InputError(f"{options.tokenizer} does not hold the reference's tokenizer; give a file as it was released")
    project_in = theirs.get("vqvae.quantizer.project_in.weight")
    encoder = r"vqvae\.encoder\.model\."
    return VQVAEConfig(
        levels=options.levels
        or find_levels(decoder_in.shape[1] if project_in is None else len(project_in), codebook_size),
        code_dim=decoder_in.shape[1],
        width=len(conv_in),
        down_t=count(theirs, encoder + r"(\d+)\.0\."),
        patch_size=conv_in.shape[1] // FEATURES,
        depth=count(theirs, encoder + r"\d+\.1\.model\.(\d+)\."),
        dilation_growth=options.dilation_growth,
        activation=options.activation,
        norm="layer" if any(".norm1." in name for name in theirs) else "none",
        causal=causal,
    )


def count(tensors: Tensors, pattern: str) -> int:
    """How many different values the group of ``pattern`` has among the names."""
    return len({matched[1] for name in tensors if (matched := re.match(pattern, name))})


def find_levels(dimensions: int, codebook_size: int | None) -> list[int]:
    """The reference's levels of so many dimensions, and of this product if it is known."""
    fitting = [levels for levels in LEVELS.values() if len(levels) == dimensions]
    if codebook_size is not None:
        fitting = [levels for levels in fitting if math.prod(levels) == codebook_size]
    if len(fitting) != 1:
        codes = "" if codebook_size is None else f" and {codebook_size} codes"
        raise InputError(
            f"{len(fitting)} of the reference's quantizers have {dimensions} dimensions{codes}; give the --levels, or "
            "tokenizer and generator that belong together"
        )
    return fitting[0]


def tokenizer_names(config: VQVAEConfig, patcher: bool) -> dict[str, str]:
    """Our name of each layer of encoder and decoder -> the reference's.

    There, both are numbered sequences. Encoder: [patcher], convolution, relu, stages, convolution. Decoder:
    convolution, relu, stages, convolution, relu, convolution, [un-patcher]. Convolutions outside residual blocks are
    wrapped where they are causal.
    """
    encoder, decoder = "vqvae.encoder.model", "vqvae.decoder.model"
    first, last, wrapped = int(patcher), 2 + config.down_t, ".conv" if config.causal else ""
    names = {
        "encoder.conv_in": f"{encoder}.{first}{wrapped}",
        "encoder.conv_out": f"{encoder}.{first + last}{wrapped}",
        "decoder.conv_in": f"{decoder}.0{wrapped}",
        "decoder.conv_mid": f"{decoder}.{last}{wrapped}",
        "decoder.conv_out": f"{decoder}.{last + 2}{wrapped}",
    }
    for stage in range(config.down_t):
        ours, theirs = f"stages.{stage}", (f"{encoder}.{first + 2 + stage}", f"{decoder}.{2 + stage}")
        names[f"encoder.{ours}.down"] = f"{theirs[0]}.0{wrapped}"  # down, blocks
        names[f"decoder.{ours}.up"] = f"{theirs[1]}.2{wrapped}"  # blocks, upsampling, up
        for block in range(config.depth):
            for layer in ("norm1", "norm2", "conv1", "conv2"):
                names[f"encoder.{ours}.blocks.{block}.{layer}"] = f"{theirs[0]}.1.model.{block}.{layer}"
                names[f"decoder.{ours}.blocks.{block}.{layer}"] = f"{theirs[1]}.0.model.{block}.{layer}"
    return names


# --- Generator: the names of its tensors are ours


def generator_config(theirs: Tensors, options: Options, tokenizer_id: str) -> LLaMAConfig:
    """What the tensors tell, and ``options`` for the rest.

    Raises:
        InputError: they are not a LLaMAHF's, or the number of heads or the text encoder does not follow from them.
    """
    try:
        vocab_size, n_embd = theirs["transformer.wte.weight"].shape
        text_dim = theirs["llama_proj.weight"].shape[1]
        tie_weights = len(theirs["lm_head.weight"]) == vocab_size
    except (KeyError, ValueError) as error:
        raise InputError(
            f"{options.generator} does not hold the reference's generator; give a file as it was released"
        ) from error
    n_layer = count(theirs, r"transformer\.h\.(\d+)\.")
    heads = {size["n_head"] for size in SIZES.values() if (size["n_layer"], size["n_embd"]) == (n_layer, n_embd)}
    if options.n_head is None and not heads:
        raise InputError(f"no size of the table has {n_layer} layers of width {n_embd}; say how many heads by --n-head")
    return LLaMAConfig(
        codebook_size=vocab_size - 2,
        text_dim=text_dim,
        text_encoder=fitting_encoder(text_dim, options.text_encoder),
        text_length=TEXT_LENGTH,
        max_tokens=MAX_TOKENS,
        n_layer=n_layer,
        n_head=options.n_head or heads.pop(),
        n_embd=n_embd,
        tokenizer=tokenizer_id,
        tie_weights=tie_weights,
    )


def fitting_encoder(text_dim: int, name: str | None) -> str:
    """The encoder ``name``, or the one that the reference has, of this width."""
    for encoder in REFERENCE_ENCODERS if name is None else (name,):
        if encoder_width(encoder) == text_dim:
            return encoder
    raise InputError(
        f"the generator takes text features of width {text_dim}, which {name or 'no encoder of the reference'} does "
        "not give; say with which it was trained by --text-encoder"
    )


def check_fits(theirs: Tensors, config: LLaMAConfig, path: Path) -> None:
    """Raise InputError unless the tensors are those of a LLaMAHF of this configuration."""
    with torch.device("meta"):
        ours = {name: value.shape for name, value in LLaMAHF(config).state_dict().items()}
    for name in [*ours, *theirs]:
        if name not in ours or name not in theirs or ours[name] != theirs[name].shape:
            there = f"is {tuple(theirs[name].shape)}" if name in theirs else "is missing"
            here = f"should be {tuple(ours[name])}" if name in ours else "is not known"
            raise InputError(f"{path} does not hold the reference's generator: {name} {there} and {here}")


def write_generator(options: Options, tokenizer_id: str, folder: Path) -> None:
    """Convert the generator's file into ``folder``: config, files of ``SHARD_SIZE``, and their index.

    The file is mapped anew for each part written, so that what was read before takes no memory.
    """
    theirs = read_tensors(options.generator, "trans")
    config = generator_config(theirs, options, tokenizer_id)
    check_fits(theirs, config, options.generator)
    if config.tie_weights:
        del theirs["lm_head.weight"]  # the token embedding
    dtype = DTYPES.get(options.dtype)
    planned = {name: value.to(device="meta", dtype=dtype) for name, value in theirs.items()}
    plan = split_torch_state_dict_into_shards(planned, max_shard_size=SHARD_SIZE)
    del theirs
    hashes = {}
    for file, names in plan.filename_to_tensors.items():
        theirs = read_tensors(options.generator, "trans")
        save_file({name: theirs[name].to(dtype=dtype).contiguous() for name in names}, folder / file, {"format": "pt"})
        del theirs
        with open(folder / file, "rb") as written:
            hashes[file] = hashlib.file_digest(written, "sha256").hexdigest()
    index = {"metadata": {**plan.metadata, "sha256": hashes}, "weight_map": plan.tensor_to_filename}
    (folder / INDEX).write_text(json.dumps(index, indent=1))
    (folder / CONFIG).write_text(json.dumps(asdict(config), indent=2, sort_keys=True))


if __name__ == "__main__":
    with exit_on_input_error():
        main(parse_options(Options, __doc__)[0])
