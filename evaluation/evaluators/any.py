"""Loading of any evaluator: one of train_evaluator.py, or a public one."""

from pathlib import Path

import torch

from evaluation.evaluators.contrastive import MotionTextEvaluator
from evaluation.evaluators.interface import Evaluator
from evaluation.evaluators.load import load_evaluator
from utils.checkpoint import CONFIG
from utils.paths import find_shipped


def load_any_evaluator(folder: str | Path, device: str | torch.device = "cpu") -> Evaluator:
    """Load an evaluator: a run folder of train_evaluator.py, or a folder of a public evaluator.

    Raises:
        InputError: a file is missing or damaged, or the folder holds no evaluator.
    """
    folder = find_shipped(folder)
    if (folder / CONFIG).is_file():  # public evaluators have no such file
        return MotionTextEvaluator.from_pretrained(folder).to(device).eval()
    return load_evaluator(folder, device)


def groups_captions(evaluator: Evaluator, given: bool | None) -> bool:
    """Return whether clips that share a caption are correct answers to each other's captions.

    Args:
        evaluator: Evaluator. By default, this holds for those of train_evaluator.py, which are trained with such
            groups; public protocols have one answer per caption.
        given: Value of --group-captions; None for the default.
    """
    return isinstance(evaluator, MotionTextEvaluator) if given is None else given
