"""Fine-tuning: the model that a training starts from (--init), and its options."""

from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import torch

from models.checkpoints import find_tokenizer
from models.llama import LLaMAHF
from models.llama_config import LLaMAConfig
from models.motion_vqvae import HumanVQVAE
from models.vqvae_config import VQVAEConfig
from training.options import TrainingOptions
from utils.checkpoint import WEIGHTS
from utils.config import spelled
from utils.errors import InputError, shown


def initial_source(options: TrainingOptions) -> str | Path:
    """Return the source of the model that a training starts from: --init, or a resumed run's own model."""
    return options.out if options.resume and (options.out / WEIGHTS).exists() else str(options.init)


def initial_tokenizer(source: str | Path, options: VQVAEConfig) -> HumanVQVAE:
    """Load a tokenizer, with the statistics that it was trained with.

    Args:
        source: Folder or hub id of a tokenizer, or of a text-to-motion model, whose tokenizer is taken.
        options: Shape that was asked for.

    Raises:
        InputError: the tokenizer cannot be loaded, or ``options`` conflict with its shape.
    """
    model = HumanVQVAE.from_pretrained(find_tokenizer(source))
    for field in fields(VQVAEConfig):
        refuse_conflict(f"model.{field.name}", options, VQVAEConfig(), getattr(model.config, field.name))
    return model


def generator_shape(folder: Path) -> LLaMAConfig:
    """Return the configuration of the generator in a folder; raises InputError if there is none."""
    return LLaMAHF.from_pretrained(folder, load_weights=lambda model, folder: None).config


def initial_generator(folder: Path, dropout: float, text_dropout: float) -> LLaMAHF:
    """Load a generator in float32, to be trained with these dropout rates; raises InputError if it is damaged."""
    model = LLaMAHF.from_pretrained(folder).float()
    model.config = replace(model.config, dropout=dropout, text_dropout=text_dropout)
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = dropout
    return model


def with_control(model: LLaMAHF, width: int) -> LLaMAHF:
    """Return a generator that takes control signals of ``width``, with the same output as long as it gets none.

    Raises:
        InputError: the generator takes control signals of another width.
    """
    if width in (0, model.config.control):
        return model
    if model.config.control:
        raise InputError(
            f"the generator of --init takes control signals of width {model.config.control} and this version computes "
            f"{width}; leave --control out, or train without --init"
        )
    controlled = LLaMAHF(replace(model.config, control=width))
    controlled.load_state_dict(model.state_dict(), strict=False)  # the new weights are those of control_proj
    return controlled


def freeze_all_but_control(model: LLaMAHF) -> None:
    """Train only the projection of control signals: without a signal, the generator stays exactly as it is."""
    for name, module in model.named_children():
        if name != "control_proj":
            module.requires_grad_(False)
            for part in module.modules():
                if isinstance(part, torch.nn.Dropout):
                    part.p = 0.0


def refuse_conflict(name: str, options: Any, defaults: Any, value: Any) -> None:
    """Raise InputError if an option was given that differs from the value of the model of --init.

    Args:
        name: Name of the option; its last part is the name of the attribute.
        options: Options of the training.
        defaults: Default values as attributes, which do not count as given.
        value: Value of the model.
    """
    attribute = name.rpartition(".")[2]
    given = getattr(options, attribute)
    if given not in (getattr(defaults, attribute), value):
        raise InputError(
            f"{spelled(name)} is {shown(given, 60)}, and the model of --init has {shown(value, 60)}; leave "
            f"{spelled(name)} out, or train without --init"
        )
