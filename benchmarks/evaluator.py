"""Measure an evaluator of our own on a split: R-precision, retrieval, and FID of corrupted motions.

    python -m benchmarks.evaluator --evaluator checkpoints/evaluator --data data/bandai

An evaluator is of use if captions find their motions, and if the FID of motions that are wrong is far above that of two
halves of the recorded motions. FJD, the Frechet joint distance (DeVries et al., 2019), is the FID of captions and
motions together; it also rises if plausible motions belong to other captions. Clips of the data
folder that share a caption, directly or through other clips, are correct answers to each other's captions.
"""

import utils.interrupt  # noqa: F401

# isort: split

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jsonargparse.typing import PositiveInt

from dataset.caption_groups import caption_groups, named_sides
from dataset.captioned_clips import described_features, long_enough
from dataset.clips import Clip
from dataset.corruptions import change_speed, freeze, reflect, reverse, swap_limbs
from dataset.motion_folder import MotionFolder
from dataset.splits import SPLITS
from evaluation.evaluators.contrastive import MotionTextEvaluator
from evaluation.evaluators.interface import Caption
from evaluation.fid import fid
from evaluation.ranks import top_k
from evaluation.retrieval import TOP, ranks_of_best
from evaluation.text_motion import POOL, match
from utils.config import parse_options
from utils.errors import InputError, exit_on_input_error

CORRUPTIONS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "played backward": reverse,
    "frozen at the first frame": freeze,
    "frozen from the middle on": partial(freeze, start=0.5),
    "half speed": partial(change_speed, speed=0.5),
    "double speed": partial(change_speed, speed=2.0),
    "left and right limbs swapped": swap_limbs,
    "reflected": reflect,
}


@dataclass
class Options:
    """Options of the measurement."""

    data: Path
    """Data folder."""
    evaluator: Path = Path("checkpoints/evaluator")
    """Folder of the evaluator."""
    split: str = "test"
    """Split of the data to measure on."""
    repeats: PositiveInt = 20
    """Number of random pools, captions and halves."""


class Pairs(NamedTuple):
    """Embeddings of the captions and the recorded motions of a split."""

    texts: list[np.ndarray]  # (N, D) each, of one random caption per clip
    orders: list[np.ndarray]  # (N,) each, of random pools
    real: np.ndarray  # (N, D)
    groups: np.ndarray  # (N,) equal for equivalent captions


def main(options: Options) -> None:
    evaluator, folder = MotionTextEvaluator.from_pretrained(options.evaluator), MotionFolder(options.data)
    clips = folder.clips(options.split)
    others = [folder.clips(split, required=False) for split in SPLITS if split != options.split]
    rows = long_enough(clips, evaluator.min_frames)
    if len(rows) < POOL:
        raise InputError(f"the split {options.split} has {len(rows)} clips with captions; at least {POOL} are needed")
    groups = caption_groups([texts for each in (clips, *others) for texts in each.table["captions"].to_pylist()])[rows]
    measured = [clips[row] for row in rows]
    motions = [described_features(clips, clip)[: evaluator.max_frames] for clip in measured]
    pairs = embed(evaluator, measured, motions, groups, options.repeats)
    print(f"{len(measured)} clips of the split {options.split} in {len(set(groups))} groups of equivalent captions")
    report_retrieval(pairs)
    report_corruptions(evaluator, motions, pairs)
    report_sides(evaluator, measured, motions, pairs)


def embed(
    evaluator: MotionTextEvaluator,
    clips: list[Clip],
    motions: list[np.ndarray],
    groups: np.ndarray,
    repeats: int,
) -> Pairs:
    """Embed the motions, and one random caption of each clip in each repeat."""
    texts, orders = [], []
    for repeat in range(repeats):
        random = np.random.RandomState(repeat)
        orders.append(random.permutation(len(clips)))
        texts.append(evaluator.embed_texts([Caption(random.choice(clip.captions)) for clip in clips]))
    return Pairs(texts, orders, evaluator.embed_motions(motions), groups)


def report_retrieval(pairs: Pairs) -> None:
    """Print the recall among all clips of the split, in both directions."""
    positives = pairs.groups[:, None] == pairs.groups
    print(f"\n{'retrieval among all clips':34}" + "".join(f"{f'R@{k}':>8}" for k in TOP) + f"{'MedR':>8}")
    distances = np.stack([-text @ pairs.real.T for text in pairs.texts])  # (repeats, N, N)
    for name, each in (("motions by caption", distances), ("captions by motion", distances.swapaxes(1, 2))):
        ranks = ranks_of_best(each, positives)
        values = [100 * top_k(ranks, k) for k in TOP] + [float(np.median(ranks, axis=1).mean()) + 1]
        print(f"{name:34}" + "".join(f"{value:8.1f}" for value in values))


def report_corruptions(evaluator: MotionTextEvaluator, motions: list[np.ndarray], pairs: Pairs) -> None:
    """Print R-precision, MM-Dist and FID of the recorded motions and of corrupted ones with the same captions."""
    repeats, joint = len(pairs.orders), np.hstack((pairs.texts[0], pairs.real))  # (N, 2 D)
    halves, joint_halves = fid_of_halves(pairs.real, repeats), fid_of_halves(joint, repeats)
    print(
        f"\n{'motions':34}{'R@1':>8}{'R@2':>8}{'R@3':>8}{'MM-Dist':>9}"
        f"{'FID':>9}{'/ halves':>9}{'FJD':>9}{'/ halves':>9}"
    )
    everything = np.arange(len(motions))
    print_row("recorded (FID, FJD: random halves)", pairs, everything, pairs.real, (halves, 1, joint_halves, 1))
    for name, corrupt in CORRUPTIONS.items():
        kept, embeddings = embed_corrupted(evaluator, motions, corrupt)
        distance = fid(pairs.real[kept], embeddings)
        joint_distance = fid(joint[kept], np.hstack((pairs.texts[0][kept], embeddings)))
        distances = (distance, distance / halves, joint_distance, joint_distance / joint_halves)
        print_row(name, pairs, kept, embeddings, distances)


def report_sides(evaluator: MotionTextEvaluator, clips: list[Clip], motions: list[np.ndarray], pairs: Pairs) -> None:
    """Print the FID of reflected motions of the clips whose captions all name one side.

    A split with as many motions to the left as to the right has nearly the same distribution when it is reflected.
    """
    print(f"\n{'reflected clips by side':34}{'clips':>8}{'halves':>9}{'FID':>9}{'FID / halves':>14}")
    kept, reflected = embed_corrupted(evaluator, motions, reflect)
    for side in ("left", "right"):
        sides = [set(sum(map(named_sides, clip.captions), [])) for clip in clips]
        rows = [row for row, number in enumerate(kept) if sides[number] == {side}]
        if len(rows) < 8:
            continue
        real = pairs.real[kept[rows]]
        halves, distance = fid_of_halves(real, len(pairs.orders)), fid(real, reflected[rows])
        print(f"{side:34}{len(rows):8}{halves:9.4f}{distance:9.4f}{distance / halves:14.1f}")


def embed_corrupted(
    evaluator: MotionTextEvaluator, motions: list[np.ndarray], corrupt: Callable[[torch.Tensor], torch.Tensor]
) -> tuple[np.ndarray, np.ndarray]:
    """Embed corrupted motions; returns the numbers (M,) of those that are long enough, and their embeddings (M, D)."""
    corrupted = [corrupt(torch.from_numpy(motion)).numpy()[: evaluator.max_frames] for motion in motions]
    kept = [number for number, motion in enumerate(corrupted) if len(motion) >= evaluator.min_frames]
    return np.array(kept), evaluator.embed_motions([corrupted[number] for number in kept])


def fid_of_halves(embeddings: np.ndarray, repeats: int) -> float:
    """Return the mean FID of two random halves of embeddings (N, D)."""
    orders = [np.random.RandomState(repeat).permutation(len(embeddings)) for repeat in range(repeats)]
    half = len(embeddings) // 2
    return float(np.mean([fid(embeddings[order[:half]], embeddings[order[half:]]) for order in orders]))


def print_row(
    name: str, pairs: Pairs, kept: np.ndarray, embeddings: np.ndarray, distances: tuple[float, float, float, float]
) -> None:
    """Print one row of the table of motions: R-precision and MM-Dist averaged over the repeats, and the distances."""
    position = np.full(len(pairs.real), -1)
    position[kept] = np.arange(len(kept))
    values = []
    for text, order in zip(pairs.texts, pairs.orders, strict=True):
        order = position[order]
        values.append(np.append(*match(text[kept], embeddings, order[order >= 0], pairs.groups[kept])))
    *precision, mm_dist = np.mean(values, axis=0)
    cells = [f"{value:8.3f}" for value in precision] + [f"{mm_dist:9.3f}"]
    cells += [f"{value:9.4f}{ratio:9.1f}" for value, ratio in (distances[:2], distances[2:])]
    print(f"{name:34}" + "".join(cells))


if __name__ == "__main__":
    with exit_on_input_error():
        main(parse_options(Options, __doc__)[0])
