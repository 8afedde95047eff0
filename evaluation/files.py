"""Motion files of any system, and the prompts that they were made for.

The prompt of a file is found by the first of these rules that applies to the folder:

1. With a prompt file: the name of the file is that of a prompt, as inference_batch.py makes names from prompts
   (walk-forward.npz, walk-forward_seed3.npz).
2. With a prompt file, if no file is: there are as many files as prompts, which belong to them in the order of their
   names (2 before 10).
3. Without a prompt file: results.json of the folder lists the file.
4. With a data folder but no prompt file: the name of the file is that of a clip; its prompt is the first caption.
5. Without a prompt file: the file is an .npz with a prompt.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from formats.clip import read_clip
from motion.features272 import FEATURES, check_features
from utils.errors import InputError, shown
from utils.prompts import Prompt, safe_name
from utils.reading.arrays import read_npy, read_npy_header, read_npz
from visualize.results import read_results

SUFFIXES = (".npz", ".npy", ".bvh")
LARGEST = 1000  # of a feature of a motion; all are metres, metres per frame, or elements of rotations


class MotionFile(NamedTuple):
    """A motion of another system."""

    name: str  # of the file, without suffix
    prompt: str
    features: np.ndarray  # (T, 272)


class MotionFiles(NamedTuple):
    """Motions of a folder."""

    motions: list[MotionFile]
    failures: dict[str, str]  # name of each file that is left out -> reason


def read_motion_files(
    folder: Path, prompts: Sequence[str] | None, captions: Mapping[str, str] | None = None
) -> MotionFiles:
    """Read the motion files of a folder; a file that cannot be read or has no prompt is left out with the reason.

    Args:
        folder: Folder of the files; its subfolders are not read.
        prompts: Prompts of the files; None if the folder or the files state them.
        captions: Caption of each clip of a data folder, by its name.

    Raises:
        InputError: there are no files, none of them can be used, or they do not match the prompts.
    """
    paths = list_motions(folder)
    if not paths:
        raise InputError(f"{shown(folder, 200)} holds no motion files ({', '.join(SUFFIXES)}); give another folder")
    known = find_prompts(folder, paths, prompts, captions or {})
    motions, failures = [], {}
    for path in tqdm(paths, desc="read", unit="motion", mininterval=2):
        try:
            prompt = known.get(path.name) or (stored_prompt(path) if prompts is None else None)
            if not prompt:
                raise InputError("it has no prompt; name it after a prompt of --prompts, or list it in results.json")
            motions.append(MotionFile(shown(path.stem, 255), str(Prompt.parse(prompt)), read_features(path)))
        except InputError as error:
            failures[shown(path.name, 255)] = str(error)
    if not motions:
        name, reason = next(iter(failures.items()))
        raise InputError(f"no file of {shown(folder, 200)} can be used; {shown(name, 80)}: {reason}")
    return MotionFiles(motions, failures)


def list_motions(folder: Path) -> list[Path]:
    """Return the motion files of a folder in the order of their names; of those with the same stem, the first."""
    names: dict[str, Path] = {}
    for suffix in SUFFIXES:
        for path in folder.iterdir():
            if path.suffix.lower() == suffix and not path.name.startswith("."):
                names.setdefault(path.stem, path)
    return sorted(names.values(), key=_by_numbers)


def find_prompts(
    folder: Path, paths: Sequence[Path], prompts: Sequence[str] | None, captions: Mapping[str, str]
) -> dict[str, str]:
    """Return the prompts of files by the names of the files, by the rules above; not those in .npz files.

    Raises:
        InputError: no file is named after a prompt, and there are not as many files as prompts.
    """
    if prompts is not None:
        by_name = {safe_name(prompt): prompt for prompt in prompts}
        stems = {path.name: re.sub(r"_seed\d+$", "", path.stem) for path in paths}
        named = {name: by_name[stem] for name, stem in stems.items() if stem in by_name}
        if named:
            return named
        if len(paths) != len(prompts):
            raise InputError(
                f"no file of {shown(folder, 200)} is named after a prompt, and there are {len(paths)} files for "
                f"{len(prompts)} prompts; give one file per prompt, or name the files after their prompts"
            )
        return {path.name: prompt for path, prompt in zip(paths, prompts, strict=True)}
    listed = {entry["name"]: entry["prompt"] for entry in read_results(folder)}
    return {path.name: known[path.stem] for known in (captions, listed) for path in paths if path.stem in known}


def read_features(path: Path) -> np.ndarray:
    """Read a motion as features (T, 272) float32: those of the file, or converted from any other form.

    Raises:
        InputError: the file is no motion, or its values are no metres.
    """
    features = _read_any(path)
    if np.abs(features).max() > LARGEST:
        raise InputError(f"{shown(path, 200)} holds values above {LARGEST}; convert it with positions in metres")
    return features


def _read_any(path: Path) -> np.ndarray:
    stored = None
    if path.suffix.lower() == ".npy" and read_npy_header(path).shape[1:] == (FEATURES,):
        stored = read_npy(path)
    elif path.suffix.lower() == ".npz":
        stored = read_npz(path, {"features"}).get("features")
    if stored is None or stored.dtype.kind != "f":
        return read_clip(path).features()
    check_features(stored, str(path))
    return stored.astype(np.float32)


def stored_prompt(path: Path) -> str | None:
    """Return the prompt in an .npz file, or None."""
    if path.suffix.lower() != ".npz":
        return None
    prompt = read_npz(path, {"prompt"}).get("prompt")
    return str(prompt) if prompt is not None and prompt.dtype.kind == "U" and prompt.ndim == 0 else None


def _by_numbers(path: Path) -> list:
    """Sort names by the numbers in them: 2 before 10."""
    return [int(part) if place % 2 else part for place, part in enumerate(re.split(r"(\d+)", path.name))]
