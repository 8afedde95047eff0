"""Loading of any evaluator: one of train_evaluator.py, or a public one."""

from pathlib import Path

import torch

from evaluation.evaluators.contrastive import MotionTextEvaluator
from evaluation.evaluators.interface import Evaluator
from evaluation.evaluators.load import load_evaluator
from utils.checkpoint import CONFIG


def load_any_evaluator(folder: str | Path, device: str | torch.device = "cpu") -> Evaluator:
    """Load an evaluator: a run folder of train_evaluator.py, or a folder of a public evaluator.

    Raises:
        InputError: a file is missing or damaged, or the folder holds no evaluator.
    """
    if (Path(folder) / CONFIG).is_file():  # public evaluators have no such file
        return MotionTextEvaluator.from_pretrained(folder).to(device).eval()
    return load_evaluator(folder, device)


def is_ours(evaluator: Evaluator) -> bool:
    """Return whether an evaluator was trained by train_evaluator.py."""
    return isinstance(evaluator, MotionTextEvaluator)
