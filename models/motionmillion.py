r"""Convert a released model of the public MotionMillion-Codes (Fan et al., ICCV 2025).

    python -m models.motionmillion --source ZeyuLing/hftrainer-gotozero-3b-train-humanml272 \
        --out checkpoints/motionmillion-3b
    python -m models.motionmillion --source pretrained/motionmillion_3B_all.pth --mean mean.npy --std std.npy \
        --out checkpoints/motionmillion-3b
    python inference_batch.py --checkpoint checkpoints/motionmillion-3b --prompt "a person walks"

Shapes are read from the tensors; all other settings default to those of the released models. The files are
memory-mapped and written shard by shard, so that a model larger than the memory can be converted.
"""

import utils.interrupt  # noqa: F401

# isort: split

import hashlib
import json
import math
import os
import re
import shutil
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal, cast
from uuid import uuid4

import torch
from huggingface_hub import split_torch_state_dict_into_shards
from jsonargparse.typing import PositiveInt
from safetensors.torch import save_file

from models.encoder_names import encoder_width
from models.llama import LLaMAHF
from models.llama_config import SIZES, LLaMAConfig
from models.motion_vqvae import HumanVQVAE
from models.motionmillion_release import GENERATOR, TOKENIZER, Tensors, find_release, read_tensors
from models.vqvae_config import Activation, PatchSize, VQVAEConfig
from motion.features272 import FEATURES
from utils.checkpoint import CONFIG, INDEX, fingerprint
from utils.config import parse_options
from utils.errors import InputError, exit_on_input_error, shown
from utils.reading.arrays import read_vector

LEVELS = {  # FSQ levels of the reference by the nominal size of the codebook, from which the true one may differ
    256: [8, 6, 5],
    512: [8, 8, 8],
    1024: [8, 5, 5, 5],
    2048: [8, 8, 6, 5],
    4096: [7, 5, 5, 5, 5],
    16384: [8, 8, 8, 6, 5],
    65536: [8, 8, 8, 5, 5, 5],  # released
}
TEXT_LENGTH = 150  # the reference truncates the text to this length ...
MAX_TOKENS = 150  # ... and trains on sequences of 301: text, motion, end token
SHARD_SIZE = 10**9  # bytes per file
DTYPES = {"float32": torch.float32, "bf16": torch.bfloat16}
REFERENCE_ENCODERS = ("clip", "flan-t5-xl", "flan-t5-xxl")  # of different widths
# Settings that the tensors do not determine: key in mm_config.json, and value of the released models.
TOKENIZER_SETTINGS: dict[str, tuple[str, Any]] = {
    "activation": ("activation", "relu"),
    "dilation_growth": ("dilation_growth_rate", 3),
}


@dataclass(kw_only=True)
class Options:
    """Options of the conversion."""

    source: str | None = None
    """Released model: its folder, the file of its generator, or its Hugging Face id; or the file of a tokenizer, which
    is then converted alone. The other files are searched in the same folder; the options below replace those found."""
    out: Path
    """New folder to write."""
    tokenizer: Path | None = None
    """Checkpoint of the reference's motion tokenizer: .safetensors, or a torch file with the key "net"."""
    generator: Path | None = None
    """Checkpoint of the reference's generator: .safetensors, or a torch file with the key "trans". Without a generator,
    only the tokenizer is converted."""
    mean: Path | None = None
    """Mean (.npy) of the 272 features that the tokenizer was trained with."""
    std: Path | None = None
    """Standard deviation (.npy) of the 272 features."""
    dtype: Literal["keep", "float32", "bf16"] = "keep"
    """Precision of the generator's weights; keep: precision of the file."""
    text_encoder: str | None = None
    """Text encoder that the generator was trained with. Default: the encoder that MotionMillion-Codes uses for this
    width."""
    n_head: PositiveInt | None = None
    """Number of attention heads of the generator; needed if its size is not in the table of models/llama_config.py."""
    levels: list[int] | None = None
    """Number of FSQ levels in each dimension; needed if neither mm_config.json nor the codebook size determines
    them."""
    activation: Activation | None = None
    """Activation inside the tokenizer's residual blocks (default: as in mm_config.json of the release, else relu)"""
    dilation_growth: PositiveInt | None = None
    """Ratio of the dilations of the tokenizer's successive residual blocks. The first block has dilation
    growth^(depth-1), the last has 1. (default: as in mm_config.json of the release, else 3)"""

    def __post_init__(self):
        if self.out.exists():
            raise InputError(f"--out {self.out} exists already; give the name of a new folder")

    def completed(self) -> "Options":
        """Return the options with the files and settings of ``source`` in place of those that are not given.

        Raises:
            InputError: if a file is not found.
        """
        found = {} if self.source is None else find_release(self.source)._asdict()
        settings = found.pop("settings", {})
        for name, (key, default) in TOKENIZER_SETTINGS.items():
            found[name] = settings[key] if type(settings.get(key)) is type(default) else default
        nominal_size = settings.get("nb_code")
        found["levels"] = LEVELS.get(nominal_size) if isinstance(nominal_size, int) else None
        complete = replace(self, **{name: value for name, value in found.items() if getattr(self, name) is None})
        for name in ("tokenizer", "mean", "std"):
            if getattr(complete, name) is None:
                place = "is not given" if self.source is None else f"is not found beside {shown(self.source, 120)}"
                raise InputError(f"the file of the {name} {place}; give it as --{name} FILE")
        return complete


def main(options: Options) -> None:
    convert(options)
    print(f"saved to {options.out}")


def convert(options: Options) -> None:
    """Convert the files and write the folder atomically.

    Raises:
        InputError: if a file is missing, damaged or of another kind, or tokenizer and generator do not match.
    """
    options = options.completed()
    temporary = options.out.with_name(f".{options.out.name}-{uuid4().hex}")
    try:
        temporary.mkdir(parents=True)
        if options.generator is None:
            convert_tokenizer(options, None).save_pretrained(temporary)
        else:
            embedding = read_tensors(options.generator, GENERATOR).get("transformer.wte.weight")
            codebook_size = None if embedding is None else len(embedding) - 2  # end and pad
            convert_tokenizer(options, codebook_size).save_pretrained(temporary / "tokenizer")
            convert_generator(options, options.generator, fingerprint(temporary / "tokenizer"), temporary)
        os.replace(temporary, options.out)
    except OSError as error:
        raise InputError(
            f"cannot write {options.out}: {error.strerror or error}; choose a writable place with free space"
        ) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


# --- Tokenizer


def convert_tokenizer(options: Options, codebook_size: int | None) -> HumanVQVAE:
    """Convert the reference's tokenizer with the statistics of its features.

    Args:
        codebook_size: Codebook size of the generator, if there is one, which determines the levels of the tokenizer.

    Raises:
        InputError: see ``convert``.
    """
    mean, std = (torch.from_numpy(read_vector(cast(Path, path), FEATURES)) for path in (options.mean, options.std))
    if not (std > 0).all():
        raise InputError(
            f"{options.std} holds a standard deviation that is not positive; give the file that came with the tokenizer"
        )
    reference = read_tensors(cast(Path, options.tokenizer), TOKENIZER)
    config = tokenizer_config(reference, options, codebook_size)
    names = tokenizer_names(config, has_patcher(reference))
    weights = {"mean": mean, "std": std}
    with torch.device("meta"):
        shapes = {name: value.shape for name, value in HumanVQVAE(config).state_dict().items() if name not in weights}
    for name, shape in shapes.items():
        layer, _, kind = name.rpartition(".")
        value = reference.pop(f"{names.get(layer, f'vqvae.{layer}')}.{kind}", None)  # same names in the quantizer
        if value is None or value.shape != shape:
            raise InputError(
                f"{options.tokenizer} does not hold the reference's tokenizer: {name} of shape {tuple(shape)} "
                f"{'is missing' if value is None else f'has shape {tuple(value.shape)}'}; give a released file"
            )
        weights[name] = value.float()
    unknown = [name for name in reference if not name.endswith((".wavelets", "._arange"))]  # the patcher's constants
    if unknown:
        raise InputError(
            f"{options.tokenizer} holds unsupported layers such as {unknown[0]}; give a tokenizer without them"
        )
    model = HumanVQVAE(config).eval()
    model.load_state_dict(weights)
    if codebook_size not in (None, model.codebook_size):
        raise InputError(
            f"the generator has {codebook_size} codes and the tokenizer {model.codebook_size}; "
            "give the tokenizer of this generator, and the right --levels"
        )
    return model


def has_patcher(reference: Tensors) -> bool:
    """Return whether the reference's tokenizer has a Haar patcher (which does nothing at patch size 1)."""
    return "vqvae.encoder.model.0.wavelets" in reference


def tokenizer_config(reference: Tensors, options: Options, codebook_size: int | None) -> VQVAEConfig:
    """Derive the configuration from the tensors, and from ``options`` where they do not determine it."""
    first = f"vqvae.encoder.model.{int(has_patcher(reference))}"
    causal = f"{first}.conv.weight" in reference
    conv_in = reference.get(f"{first}.conv.weight" if causal else f"{first}.weight")  # (width, 272 * patch_size, 3)
    decoder_in = reference.get("vqvae.decoder.model.0.conv.weight" if causal else "vqvae.decoder.model.0.weight")
    if conv_in is None or decoder_in is None or conv_in.ndim != 3 or conv_in.shape[1] % FEATURES:
        raise InputError(f"{options.tokenizer} does not hold the reference's tokenizer; give a released file")
    project_in = reference.get("vqvae.quantizer.project_in.weight")
    encoder = r"vqvae\.encoder\.model\."
    return VQVAEConfig(
        levels=options.levels
        or find_levels(decoder_in.shape[1] if project_in is None else len(project_in), codebook_size),
        code_dim=decoder_in.shape[1],
        width=len(conv_in),
        down_t=count_distinct(reference, encoder + r"(\d+)\.0\."),
        patch_size=cast(PatchSize, conv_in.shape[1] // FEATURES),  # validated by VQVAEConfig
        depth=count_distinct(reference, encoder + r"\d+\.1\.model\.(\d+)\."),
        dilation_growth=cast(int, options.dilation_growth),
        activation=cast(Activation, options.activation),
        norm="layer" if any(".norm1." in name for name in reference) else "none",
        causal=causal,
    )


def count_distinct(tensors: Tensors, pattern: str) -> int:
    """Count the distinct values of the group of ``pattern`` in the names that match it."""
    return len({matched[1] for name in tensors if (matched := re.match(pattern, name))})


def find_levels(dimensions: int, codebook_size: int | None) -> list[int]:
    """Find the reference's levels with this number of dimensions, and with this product if it is known."""
    found = [levels for levels in LEVELS.values() if len(levels) == dimensions]
    if codebook_size is not None:
        found = [levels for levels in found if math.prod(levels) == codebook_size]
    if len(found) != 1:
        codes = "" if codebook_size is None else f" and {codebook_size} codes"
        raise InputError(
            f"{len(found)} of the reference's quantizers have {dimensions} dimensions{codes}; give --levels, or "
            "the tokenizer of this generator"
        )
    return found[0]


def tokenizer_names(config: VQVAEConfig, patcher: bool) -> dict[str, str]:
    """Map our name of each layer of encoder and decoder to the reference's.

    In the reference both are numbered sequences. Encoder: [patcher], convolution, relu, stages, convolution. Decoder:
    convolution, relu, stages, convolution, relu, convolution, [un-patcher]. Causal convolutions outside the residual
    blocks have a wrapper.
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
        encoder_stage, decoder_stage = f"{encoder}.{first + 2 + stage}", f"{decoder}.{2 + stage}"
        names[f"encoder.stages.{stage}.down"] = f"{encoder_stage}.0{wrapped}"  # down, blocks
        names[f"decoder.stages.{stage}.up"] = f"{decoder_stage}.2{wrapped}"  # blocks, upsampling, up
        for block in range(config.depth):
            for layer in ("norm1", "norm2", "conv1", "conv2"):
                names[f"encoder.stages.{stage}.blocks.{block}.{layer}"] = f"{encoder_stage}.1.model.{block}.{layer}"
                names[f"decoder.stages.{stage}.blocks.{block}.{layer}"] = f"{decoder_stage}.0.model.{block}.{layer}"
    return names


# --- Generator; its tensors have the same names in the reference


def generator_config(reference: Tensors, options: Options, tokenizer_id: str) -> LLaMAConfig:
    """Derive the configuration from the tensors, and from ``options`` where they do not determine it.

    Raises:
        InputError: if they are not those of a generator, or determine neither heads nor text encoder.
    """
    try:
        vocab_size, n_embd = reference["transformer.wte.weight"].shape
        text_dim = reference["llama_proj.weight"].shape[1]
        tie_weights = len(reference["lm_head.weight"]) == vocab_size
    except (KeyError, ValueError) as error:
        raise InputError(
            f"{options.generator} does not hold the reference's generator; give a released file"
        ) from error
    n_layer = count_distinct(reference, r"transformer\.h\.(\d+)\.")
    heads = {size["n_head"] for size in SIZES.values() if (size["n_layer"], size["n_embd"]) == (n_layer, n_embd)}
    if options.n_head is None and not heads:
        raise InputError(
            f"no known model size has {n_layer} layers of width {n_embd}; give the number of heads with --n-head"
        )
    return LLaMAConfig(
        codebook_size=vocab_size - 2,
        text_dim=text_dim,
        text_encoder=select_encoder(text_dim, options.text_encoder),
        text_length=TEXT_LENGTH,
        max_tokens=MAX_TOKENS,
        n_layer=n_layer,
        n_head=options.n_head or heads.pop(),
        n_embd=n_embd,
        tokenizer=tokenizer_id,
        tie_weights=tie_weights,
    )


def select_encoder(text_dim: int, name: str | None) -> str:
    """Return the encoder ``name``, or by default the encoder of the reference, with this feature width."""
    for encoder in REFERENCE_ENCODERS if name is None else (name,):
        if encoder_width(encoder) == text_dim:
            return encoder
    unfit = name or "any encoder of the reference"
    raise InputError(
        f"the generator takes text features of width {text_dim}, not those of {unfit}; give the encoder it was trained "
        "with as --text-encoder"
    )


def check_shapes(reference: Tensors, config: LLaMAConfig, path: Path) -> None:
    """Validate names and shapes of the tensors against the configuration; raises InputError."""
    with torch.device("meta"):
        shapes = {name: value.shape for name, value in LLaMAHF(config).state_dict().items()}
    for name in [*shapes, *reference]:
        if name not in shapes or name not in reference or shapes[name] != reference[name].shape:
            actual = f"has shape {tuple(reference[name].shape)}" if name in reference else "is missing"
            expected = f"should have {tuple(shapes[name])}" if name in shapes else "is unknown"
            raise InputError(
                f"{path} does not hold the reference's generator: {name} {actual} and {expected}; give a released file"
            )


def convert_generator(options: Options, file: Path, tokenizer_id: str, folder: Path) -> None:
    """Convert the generator's file into ``folder``: config, shards of ``SHARD_SIZE``, and their index.

    The file is mapped again for each shard, which releases the memory of the tensors read before.
    """
    reference = read_tensors(file, GENERATOR)
    config = generator_config(reference, options, tokenizer_id)
    check_shapes(reference, config, file)
    if config.tie_weights:
        del reference["lm_head.weight"]  # the token embedding
    dtype = DTYPES.get(options.dtype)
    planned = {name: value.to(device="meta", dtype=dtype) for name, value in reference.items()}
    plan = split_torch_state_dict_into_shards(planned, max_shard_size=SHARD_SIZE)
    del reference
    hashes = {}
    for shard, names in plan.filename_to_tensors.items():
        reference = read_tensors(file, GENERATOR)
        tensors = {name: reference[name].to(dtype=dtype).contiguous() for name in names}
        save_file(tensors, folder / shard, {"format": "pt"})
        del reference, tensors
        with open(folder / shard, "rb") as written:
            hashes[shard] = hashlib.file_digest(written, "sha256").hexdigest()
    index = {"metadata": {**plan.metadata, "sha256": hashes}, "weight_map": plan.tensor_to_filename}
    (folder / INDEX).write_text(json.dumps(index, indent=1))
    (folder / CONFIG).write_text(json.dumps(asdict(config), indent=2, sort_keys=True))


if __name__ == "__main__":
    with exit_on_input_error():
        main(parse_options(Options, __doc__)[0])
