"""Evaluation of a tokenizer: every clip of a split is compared with its reconstruction.

Errors are in millimetres. MPJPE, PA-MPJPE, acceleration and global errors are those of evaluation/reconstruction.py.
Root-aligned errors are without the pelvis' ground position and the heading of every frame. In global errors, the errors
of the root's steps and turns add up over the clip.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from tqdm import tqdm

from dataset.motion_folder import MotionFolder
from evaluation.evaluators.interface import Evaluator
from evaluation.fid import fid, unit_fid
from evaluation.physical.quality import MotionQuality
from evaluation.physical_table import mean_quality, physical_table, quality_of
from evaluation.reconstruction import FrameError, acceleration_error, global_error, mpjpe, pa_mpjpe
from evaluation.recorded import SHORTEST, convert_any_length, is_taken, joints_of
from evaluation.report import Column, Example, Report, Table, worst_and_median
from models.fsq import codebook_usage
from models.motion_vqvae import HumanVQVAE
from models.reconstruction import reconstruction_error
from utils.errors import InputError

TURNING = 45  # degrees: clips that turn by more count for the turn error
EXAMPLES = 4  # worst, and as many median, reconstructions on the page, each beside its clip
ERRORS: dict[str, FrameError] = {  # row of the table -> error per frame
    "MPJPE, mm": mpjpe,
    "PA-MPJPE, mm": pa_mpjpe,
    "acceleration error, mm/frame²": acceleration_error,
    "global error, mm": global_error,
}
ALIGNED = {  # row of the table -> mean of a clip
    "root-aligned, joints from rotations, mm": "local_mm",
    "root-aligned, position block, mm": "local_positions_mm",
}
STATISTICS = (
    Column("frame mean", 1),
    Column("clip mean", 1),
    Column("median", 1),
    Column("90th percentile", 1),
    Column("largest", 1),
)


@dataclass
class ClipResult:
    """Comparison of a clip with its reconstruction."""

    errors: dict[str, float]
    """Mean over the frames, by the names of ``ERRORS`` and ``ALIGNED``."""
    turn: float
    """Turn of the clip in degrees."""
    turn_error: float
    """Turn of the reconstruction minus that of the clip, degrees."""
    tokens: np.ndarray
    """(n,)"""
    frames: int
    real: MotionQuality | None
    decoded: MotionQuality | None
    """Physical measures; None for clips of fewer than 4 frames."""


def measure_clip(tokenizer: HumanVQVAE, features: np.ndarray) -> tuple[ClipResult, np.ndarray]:
    """Reconstruct a clip (T, 272) of at least 3 frames and at least a token, and compare both.

    Returns:
        The comparison, and the reconstruction (T', 272), whose length is whole tokens.
    """
    result = reconstruction_error(tokenizer, features)
    decoded = result.features
    features = features[: len(decoded)]
    joints = joints_of(features), joints_of(decoded)
    errors = {name: 1000 * float(error(*joints).mean()) for name, error in ERRORS.items()}
    errors |= {name: getattr(result, field) for name, field in ALIGNED.items()}
    qualities = quality_of(features), quality_of(decoded)
    return ClipResult(errors, result.turn, result.turn_error, result.tokens, len(decoded), *qualities), decoded


def measure_tokenizer(
    tokenizer: HumanVQVAE, folder: MotionFolder, split: str, evaluator: Evaluator | None, report: Report
) -> None:
    """Reconstruct the clips of a split, and add the results to a report.

    Raises:
        InputError: the split is missing, or no clip of it is long enough.
    """
    clips = folder.motions(split)
    shortest = max(SHORTEST, tokenizer.config.stride)
    chosen = [clips[int(row)] for row in np.flatnonzero(clips.frames >= shortest)]
    if len(chosen) < len(clips):
        report.notes.append(f"{len(clips) - len(chosen)} clips of fewer than {shortest} frames are left out.")
    if not chosen:
        raise InputError(f"the split {split} has no clip of at least {shortest} frames; use another split")
    if evaluator is not None and sum(is_taken(evaluator, clip.frames) for clip in chosen) < 2:
        raise InputError(
            f"the evaluator {evaluator.name} takes no two clips of the split {split}, which FID needs; use another "
            "split, or leave out --evaluator"
        )
    results: list[ClipResult] = []
    embedded: list[np.ndarray] = []  # (2, D) of clip and reconstruction
    for clip in tqdm(chosen, desc="reconstruct", unit="clip", mininterval=2):
        features = clips.features(clip)
        result, decoded = measure_clip(tokenizer, features)
        results.append(result)
        if evaluator is not None and is_taken(evaluator, clip.frames):
            pair = [convert_any_length(evaluator, motion) for motion in (features, decoded)]
            embedded.append(evaluator.embed_motions(pair))
    report.tables += [error_table(results), codebook_table(tokenizer, results)]
    if evaluator is not None:
        report.tables.append(fid_table(evaluator, *np.stack(embedded, axis=1)))
    report.tables.append(
        physical_table(
            {
                "real": mean_quality(result.real for result in results),
                "reconstruction": mean_quality(result.decoded for result in results),
            }
        )
    )
    report.details["clips"] = {clip.name: result.errors for clip, result in zip(chosen, results, strict=True)}
    for kind, number in worst_and_median(np.array([result.errors["MPJPE, mm"] for result in results]), EXAMPLES):
        name, features = chosen[number].name, clips.features(chosen[number])
        note = f"{kind}, MPJPE {results[number].errors['MPJPE, mm']:.1f} mm"
        report.examples += [
            Example(f"{name}: recorded", note, features),
            Example(f"{name}: reconstruction", note, measure_clip(tokenizer, features)[1]),
        ]


def error_table(results: Sequence[ClipResult]) -> Table:
    """Return the errors as means over frames and over clips, and as quantiles of the clips."""
    table = Table("Reconstruction errors", STATISTICS)
    frames = np.array([result.frames for result in results])
    for name in (*ERRORS, *ALIGNED):
        values = np.array([result.errors[name] for result in results])
        weights = frames - 2 * (ERRORS.get(name) is acceleration_error)  # frames with an error
        table.rows[name] = (float(np.average(values, weights=weights)), *clip_statistics(values))
    errors = np.array([abs(result.turn_error) for result in results if abs(result.turn) > TURNING])
    if len(errors):
        name = f"error of the turn, degrees, of {len(errors)} clips that turn by more than {TURNING}"
        table.rows[name] = (None, *clip_statistics(errors))
    return table


def clip_statistics(values: np.ndarray) -> tuple[float, float, float, float]:
    """Return mean, median, 90th percentile and maximum of values (N,)."""
    return float(values.mean()), float(np.median(values)), float(np.quantile(values, 0.9)), float(values.max())


def codebook_table(tokenizer: HumanVQVAE, results: Sequence[ClipResult]) -> Table:
    """Return the number of codes that the clips use, and their perplexity."""
    tokens = torch.from_numpy(np.concatenate([result.tokens for result in results]))
    perplexity, active = (float(value) for value in codebook_usage(tokens, tokenizer.codebook_size))
    table = Table("Codebook", (Column("tokens", 0), Column("codes", 0), Column("used", 0), Column("perplexity", 0)))
    used = round(active * tokenizer.codebook_size)
    table.rows["reconstruction"] = (len(tokens), tokenizer.codebook_size, used, perplexity)
    return table


def fid_table(evaluator: Evaluator, real: np.ndarray, decoded: np.ndarray) -> Table:
    """Return FID between embeddings (N, D) of clips and of their reconstructions."""
    table = Table(f"FID, {evaluator.name}, {len(real)} clips", (Column("raw"), Column("normalized", 5)))
    table.rows["reconstruction"] = (fid(real, decoded), unit_fid(real, decoded))
    return table
