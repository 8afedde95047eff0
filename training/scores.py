"""Validation scores that are measured on motions: reconstructed by the tokenizer, or generated for captions."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from dataset.motion_folder import MotionFolder
from evaluation.evaluators.any import groups_captions, load_any_evaluator
from evaluation.evaluators.interface import Evaluator
from evaluation.fid import fid
from evaluation.measure_tokenizer import TURNING, ClipResult
from evaluation.physical_table import mean_quality
from evaluation.prompts import PromptCase, follow, read_suite
from evaluation.recorded import Recorded, check_pool, check_representation, convert, convert_any_length
from evaluation.text_motion import TOP, match
from models.pipeline import DEFAULT_SAMPLING, TextToMotion
from models.sampling import resolve_guidance
from training.run import Run
from utils.errors import InputError

PERMUTATIONS = 10  # of the clips among the pools of R-precision
ERRORS = {  # score -> error of evaluation/measure_tokenizer.py
    "local_mm": "root-aligned, joints from rotations, mm",
    "local_positions_mm": "root-aligned, position block, mm",
    "global_mm": "global error, mm",
    "mpjpe_mm": "MPJPE, mm",
}
SEEDS = 4  # motions per prompt of the suite


def reconstruction_scores(results: Sequence[ClipResult], codes: int) -> dict[str, float]:
    """Return the mean errors of reconstructed clips, their physical measures, and the share of the codebook used.

    The first score is the one by which the best tokenizer is chosen.

    Args:
        results: Clips and their reconstructions.
        codes: Size of the codebook.
    """
    scores = {score: float(np.mean([result.errors[name] for result in results])) for score, name in ERRORS.items()}
    turn_errors = [abs(result.turn_error) for result in results if abs(result.turn) > TURNING]
    scores["turn_error_degrees"] = float(np.mean(turn_errors)) if turn_errors else 0.0
    scores["codes_used"] = len(np.unique(np.concatenate([result.tokens for result in results]))) / codes
    real, decoded = (mean_quality(getattr(result, side) for result in results) for side in ("real", "decoded"))
    if real is None or decoded is None:
        return scores
    return scores | decoded._asdict() | {"jerk_ratio": decoded.jerk / max(real.jerk, 1e-9)}


class GeneratedScores:
    """Scores of motions that a generator in training makes for the captions of the validation split and for a suite.

    Args:
        run: Run of the training.
        folder: Data folder.
        evaluator: Folder of an evaluator, for FID and R-precision; None leaves them out.
        suite: Suite of prompts with conditions, for prompt following; None leaves it out.
        clips: Maximum number of validation clips to generate.

    Raises:
        InputError: the evaluator or the suite cannot be used, or the validation split has fewer clips than a pool.
    """

    def __init__(self, run: Run, folder: MotionFolder, evaluator: Path | None, suite: Path | None, clips: int):
        self.run = run
        self.evaluator: Evaluator | None = None
        self.cases = [] if suite is None else check_suite(suite)
        if evaluator is None:
            return
        self.evaluator = load_any_evaluator(evaluator, run.device)
        check_representation(self.evaluator)
        recorded = Recorded(folder, "val", self.evaluator)
        count = min(len(recorded), clips)
        check_pool(count)
        random = np.random.RandomState(0)
        self.captions = [captions[0] for captions in recorded.captions[:count]]
        self.groups = recorded.groups()[:count] if groups_captions(self.evaluator, None) else None
        self.texts = self.evaluator.embed_texts(self.captions)
        self.real = self.evaluator.embed_motions([convert(self.evaluator, recorded.features(n)) for n in range(count)])
        self.orders = [random.permutation(count) for _ in range(PERMUTATIONS)]

    def measure(self, pipeline: TextToMotion) -> dict[str, float]:
        """Generate and measure; all processes call it, and each generates its share.

        Returns:
            FID and R-precision, and the share of motions of the suite that miss a condition (in the main process).
        """
        scores = {} if self.evaluator is None else self._metrics(pipeline, self.evaluator)
        if self.cases and self.run.accelerator.is_main_process:
            sampling = resolve_guidance(pipeline.generator, DEFAULT_SAMPLING)
            results = follow(pipeline, self.cases, SEEDS, sampling)
            shares = [result.share for result in results if result.share is not None]
            scores["prompts_missed"] = 1 - float(np.mean(shares))
        return scores

    def _metrics(self, pipeline: TextToMotion, evaluator: Evaluator) -> dict[str, float]:
        own = [number for number, counts in self.run.shard(list(range(len(self.captions)))) if counts]
        motions = pipeline.generate([self.captions[number].text for number in own], own) if own else []
        features = [convert_any_length(evaluator, motion.features) for motion in motions]
        embedded = list(evaluator.embed_motions(features)) if own else []
        rows = dict(self.run.gather(list(zip(own, embedded, strict=True))))
        generated = np.stack([rows[number] for number in range(len(rows))])
        matches = [match(self.texts, generated, order, self.groups)[0] for order in self.orders]
        precision = np.mean(matches, axis=0)  # (3,)
        return {"fid": fid(self.real, generated)} | {f"r_precision_{k + 1}": float(precision[k]) for k in range(TOP)}


def check_suite(path: Path) -> list[PromptCase]:
    """Read the prompts of a suite that have conditions.

    Raises:
        InputError: the suite cannot be read, or has no conditions.
    """
    cases = [case for case in read_suite(path) if case.conditions]
    if not cases:
        raise InputError(f"no prompt of {path} has conditions; give a suite such as configs/prompts/demo.yaml")
    return cases
