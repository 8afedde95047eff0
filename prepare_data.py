"""Turn motion files into the canonical folder that both trainings read (see dataset/motion_folder.py).

    python prepare_data.py bvh --source mocap/ --out data/mine --skeleton skeleton.yaml --captions captions.yaml
    python prepare_data.py synthetic --out data/synthetic --count 200

Features are at 30 frames per second. The split goes by the hash of the clip's name, so it is the same everywhere.
"""

import json
import os
from collections import Counter
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from jsonargparse.typing import PositiveInt
from tqdm import tqdm

from dataset.captions import CaptionRules, swap_left_right
from dataset.motion_folder import MIRRORED, SPLITS, STATISTICS, VECTORS, Statistics, read_lines, split_of
from dataset.synthetic import synthetic_clips
from formats.bvh import SkeletonMap, read_bvh
from motion.features272 import check_features, features_from_motion
from motion.resample import FPS
from motion.skeleton import mirror
from utils.config import run_command
from utils.errors import InputError, exit_on_input_error

CORES = os.cpu_count() or 1


@dataclass
class ClipReport:
    """What one clip left in the folder: its name, or the reason why it was rejected, and the sums for mean and std."""

    clip_id: str
    frames: int = 0
    sums: tuple[np.ndarray, np.ndarray] | None = None
    rejected: str = ""


def bvh(
    source: Path,
    out: Path,
    skeleton: Path = Path("configs/data/bandai_skeleton.yaml"),
    captions: Path | None = None,
    mirrored: bool = True,
    captions_per_clip: PositiveInt = 8,
    min_frames: PositiveInt = 16,
    workers: PositiveInt = CORES,
) -> None:
    """Convert a folder of BVH files.

    Args:
        source: Folder that is searched for .bvh files, with its subfolders.
        out: Data folder to write.
        skeleton: YAML file that maps the files' joints to ours.
        captions: YAML file with captions; without it, a text file beside each BVH file (walk.txt for walk.bvh).
        mirrored: Also write a left-right mirrored copy of every training clip, left and right swapped in its captions.
        captions_per_clip: At most so many captions a clip from the captions file.
        min_frames: Clips shorter than this (at 30 fps) are rejected.
        workers: Processes.
    """
    files = sorted(source.rglob("*.bvh"))
    if not files:
        raise InputError(f"{source} holds no .bvh file; check --source")
    taken = [file for file in files if mirrored and file.stem.endswith(MIRRORED)]
    if taken:
        raise InputError(f"{taken[0]} ends in {MIRRORED}, the name of a mirrored copy; rename it, or --mirrored false")
    twins = [name for name, count in Counter(file.stem for file in files).items() if count > 1]
    if twins:
        raise InputError(f"{source} holds {twins[0]}.bvh more than once; the file name is the clip's id, so rename one")
    convert = partial(
        convert_bvh,
        out=out,
        skeleton=SkeletonMap.from_yaml(skeleton),
        rules=CaptionRules.from_yaml(captions) if captions else None,
        mirrored=mirrored,
        captions_per_clip=captions_per_clip,
        min_frames=min_frames,
    )
    make_folder(out)
    with ProcessPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        jobs = [pool.submit(convert, file) for file in files]
        results = [
            written for job in tqdm(as_completed(jobs), total=len(jobs), unit="file") for written in job.result()
        ]
    finish_folder(out, results)


def synthetic(out: Path, count: PositiveInt = 200, seed: int = 0) -> None:
    """Write procedural motion (walk, run, turn, jump, squat, wave, ...): for tests and for a first try without data.

    Args:
        out: Data folder to write.
        count: Number of clips.
        seed: The same seed gives the same clips.
    """
    make_folder(out)
    clips = tqdm(synthetic_clips(count, seed), total=count, unit="clip")
    finish_folder(
        out, [write_clip(out, name, rotations, pelvis, captions) for name, rotations, pelvis, captions in clips]
    )


def convert_bvh(
    file: Path,
    out: Path,
    skeleton: SkeletonMap,
    rules: CaptionRules | None,
    mirrored: bool,
    captions_per_clip: int,
    min_frames: int,
) -> list[ClipReport]:
    """One BVH file to one clip, or two with its mirrored copy; a file that cannot be used gives the reason."""
    try:
        rotations, pelvis = skeleton.retarget(read_bvh(file), FPS)
        if len(rotations) < min_frames:
            raise InputError(f"{file} has {len(rotations)} frames at {FPS} fps, fewer than --min_frames {min_frames}")
        captions = rules.captions(file.stem, captions_per_clip) if rules else beside(file)
        clips = [write_clip(out, file.stem, rotations, pelvis, captions)]
        if mirrored and split_of(file.stem) == "train":
            swapped = [swap_left_right(caption) for caption in captions]
            clips.append(write_clip(out, file.stem + MIRRORED, *mirror(rotations, pelvis), swapped))
        return clips
    except InputError as error:
        return [ClipReport(file.stem, rejected=str(error))]


def beside(file: Path) -> list[str]:
    """The captions in the text file beside a motion file."""
    text = file.with_suffix(".txt")
    captions = [line.strip() for line in read_lines(text) if line.strip()] if text.is_file() else []
    if not captions:
        raise InputError(f"{file} has no caption; write {text.name} beside it, a caption a line, or give --captions")
    return captions


def write_clip(out: Path, clip_id: str, rotations: np.ndarray, pelvis: np.ndarray, captions: list[str]) -> ClipReport:
    """Write features and captions of rotations (T, 22, 3, 3) and pelvis (T, 3)."""
    features = features_from_motion(rotations.astype(np.float64), pelvis.astype(np.float64)).astype(np.float32)
    check_features(features, clip_id)
    np.save(out / VECTORS / f"{clip_id}.npy", features)
    (out / "texts" / f"{clip_id}.txt").write_text("\n".join(captions) + "\n", encoding="utf-8")
    exact = features.astype(np.float64)
    return ClipReport(clip_id, len(features), (exact.sum(axis=0), (exact**2).sum(axis=0)))


def make_folder(out: Path) -> None:
    """Create the folders.

    Raises:
        InputError: the folder cannot be written.
    """
    try:
        for folder in (VECTORS, Path("texts"), Path("split"), STATISTICS):
            (out / folder).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot write to {out}: {error.strerror}; choose another --out") from error


def finish_folder(out: Path, results: list[ClipReport]) -> None:
    """Write splits, statistics and report.json (rejected files with their reasons), and print a summary."""
    results = sorted(results, key=lambda written: written.clip_id)
    rejected = {written.clip_id: written.rejected for written in results if written.rejected}
    for reason in rejected.values():
        print(f"rejected: {reason}")
    kept = [written for written in results if not written.rejected]
    splits = {split: [written for written in kept if split_of(written.clip_id) == split] for split in SPLITS}
    if not splits["train"]:
        raise InputError(f"no usable training clip came out of {len(results)} files; the reasons are above")
    statistics = Statistics()
    for split, clips in splits.items():
        (out / "split" / f"{split}.txt").write_text("".join(f"{written.clip_id}\n" for written in clips))
        for written in clips if split == "train" else ():
            statistics.add(written.frames, *written.sums)
    for name, values in zip(("mean", "std"), statistics.mean_std(), strict=True):
        np.save(out / STATISTICS / f"{name}.npy", values)
    report = {
        "fps": FPS,
        "clips": {split: len(clips) for split, clips in splits.items()},
        "frames": {split: sum(written.frames for written in clips) for split, clips in splits.items()},
        "rejected": rejected,
    }
    (out / "report.json").write_text(json.dumps(report, indent=1))
    print(f"{out}: clips {report['clips']}, frames {report['frames']}, {len(rejected)} files rejected")


if __name__ == "__main__":
    with exit_on_input_error():
        run_command([bvh, synthetic], __doc__)
