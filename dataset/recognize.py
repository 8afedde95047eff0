"""Recognition of a folder: its data set, its contents, and the commands that convert it or train on it."""

import os
import shlex
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from dataset.layouts import LAYOUTS, find_layout
from dataset.sources import babel, motionx
from dataset.sources.amass import NO_MOTION
from dataset.sources.humanml3d import FEATURES
from dataset.sources.humanml3d_index import find_index
from dataset.splits import SPLITS
from formats.motion_import import SUFFIXES
from models.sources import refuse_release
from motion.features263 import SKELETONS
from utils.errors import InputError, shown
from utils.reading.arrays import read_npy_header
from utils.reading.texts import read_lines

MOST_SUBFOLDERS = 50  # subfolders that are examined
ARCHIVES = (".zip", ".tar.bz2", ".tar.gz", ".tar.xz", ".tgz", ".rar", ".7z")


@dataclass
class Recognized:
    """A data set in a folder."""

    title: str
    contents: dict[str, int]
    """Number of files or names of each kind."""
    commands: list[str]
    """Commands that use or convert the folder."""

    def __str__(self) -> str:
        contents = ", ".join(f"{count} {name}" for name, count in self.contents.items())
        return "\n".join([f"{self.title}: {contents}", *(f"    {command}" for command in self.commands)])


def recognize(folder: Path) -> Recognized:
    """Return the data set in a folder.

    Raises:
        InputError: it is no folder, or none of the known data sets; the message describes what it is instead.
    """
    if not folder.is_dir():
        raise InputError(f"{shown(folder, 200)} is no folder; give the folder of a data set")
    for look in LOOKS:
        if found := look(folder):
            return found
    refuse_release(folder)
    if archive := next((name for name in sorted(os.listdir(folder)) if name.lower().endswith(ARCHIVES)), None):
        raise InputError(f"{shown(folder, 120)} holds {shown(archive, 120)} as downloaded; extract the archives there")
    if (folder / "texts").is_dir():
        raise InputError(f"{shown(folder, 120)} holds only half of a data set (texts); add its motions")
    inside = sorted(entry for entry in folder.iterdir() if entry.is_dir())[:MOST_SUBFOLDERS]
    known = ", ".join(dict.fromkeys(["HumanML3D", "KIT-ML", "AMASS", "BABEL", "Motion-X", "BVH files",
                                     *(one.title.partition(" as ")[0] for one in LAYOUTS)]))  # fmt: skip
    others = ((entry, other) for entry in inside for look in LOOKS if (other := look(entry)))
    hint = next(
        (f"its subfolder {entry.name} is {other.title}" for entry, other in others), "give the folder of one of them"
    )
    raise InputError(f"{shown(folder, 120)} holds none of {known}; {shown(hint, 120)}")


def _layout(folder: Path) -> Recognized | None:
    layout = find_layout(folder)
    if layout is None:
        return None
    splits = {
        split: file
        for split in SPLITS
        for place in layout.generator_splits
        if (file := folder / place / f"{split}.txt").is_file()
    }
    contents = {f"names in {split}": len(_names(file)) for split, file in splits.items()}
    motions = [folder / layout.motion_folder(split) for split in (SPLITS if layout.lists_all else ["train"])]
    contents["motion files"] = sum(1 for place in motions for _ in place.rglob("*.npy"))
    contents["archives of motions"] = sum(1 for place in motions for _ in place.glob("*.tar"))
    has_captions = any((folder / layout.text_folder(split)).is_dir() for split in SPLITS)
    data = shlex.quote(str(folder))
    commands = [f"python train_vq.py --config configs/vq/demo.yaml --data {data} --out runs/vq"]
    if has_captions:
        commands.append(
            f"python train_t2m.py --config configs/t2m/demo.yaml --data {data} --tokenizer runs/vq --out runs/t2m"
        )
    title = f"{layout.title} (read in place{'' if has_captions else '; without captions, for the tokenizer alone'})"
    return Recognized(title, {k: v for k, v in contents.items() if v}, commands)


def _humanml3d(folder: Path) -> Recognized | None:
    vectors = sorted((folder / FEATURES).glob("*.npy"))
    widths = {skeleton.width: skeleton for skeleton in SKELETONS}
    skeleton = next((widths[width] for width in map(_width, vectors[:5]) if width in widths), None)
    if skeleton is None:
        return None
    contents = {"motions": len(vectors), "caption files": _count(folder / "texts", "*.txt")}
    contents |= {f"names in {split}": len(_names(folder / f"{split}.txt")) for split in SPLITS
                 if (folder / f"{split}.txt").is_file()}  # fmt: skip
    command = {"HumanML3D": "humanml3d", "KIT-ML": "kit"}[skeleton.name]
    commands = [_prepare(command, folder)]
    if find_index(folder).is_file():
        commands.append(_prepare("amass", Path("AMASS"), f"--humanml3d {shlex.quote(str(folder))}"))
    return Recognized(f"{skeleton.name}, {skeleton.width} features", contents, commands)


def _humanml3d_index(folder: Path) -> Recognized | None:
    index = folder / "index.csv"
    if not index.is_file() or not read_lines(index, "a table")[0].startswith("source_path,"):
        return None
    contents = {"clips in index.csv": len(_names(index)) - 1, "caption files": _count(folder, "**/texts/*.txt")}
    command = _prepare("amass", Path("AMASS"), f"--humanml3d {shlex.quote(str(folder))}")
    return Recognized("HumanML3D without motions, cuts of AMASS", contents, [command])


def _motionx(folder: Path) -> Recognized | None:
    count = _count(folder / motionx.MOTIONS, "**/*.npy")
    contents = {"motions": count, "caption files": _count(folder / motionx.TEXTS, "**/*.txt")}
    return Recognized("Motion-X", contents, [_prepare("motionx", folder)]) if count else None


def _babel(folder: Path) -> Recognized | None:
    contents = {}
    for name in babel.FILES:
        file = folder / f"{name}.json"
        try:
            sequences = babel.read_sequences(file) if file.is_file() else {}
        except InputError:
            sequences = {}
        if any("feat_p" in sequence for sequence in sequences.values()):
            contents[f"sequences in {file.name}"] = len(sequences)
    command = _prepare("amass", Path("AMASS"), f"--babel {shlex.quote(str(folder))}")
    return Recognized("BABEL, labels of AMASS", contents, [command]) if contents else None


def _amass(folder: Path) -> Recognized | None:
    files = [file.name for file in folder.rglob("*.npz") if not file.name.endswith(NO_MOTION)]
    contents = {
        "files of SMPL+H": sum(name.endswith("_poses.npz") for name in files),
        "files of SMPL-X": sum(name.endswith("_stageii.npz") for name in files),
    }
    contents = {name: count for name, count in contents.items() if count}
    captions = ("--humanml3d HumanML3D", "--babel babel_v1.0_release", "--captions captions.csv", "")
    commands = [_prepare("amass", folder, more) for more in captions]
    return Recognized("AMASS", contents, commands) if contents else None


def _bvh(folder: Path) -> Recognized | None:
    files = [file for file in folder.rglob("*") if file.suffix.lower() in SUFFIXES]
    texts = sum(file.with_suffix(".txt").is_file() for file in files)
    bvh = sum(file.suffix.lower() == ".bvh" for file in files)
    counts = {"BVH files": bvh, "glTF and FBX files": len(files) - bvh}
    contents = {name: count for name, count in counts.items() if count} | {"caption files beside them": texts}
    more = "" if texts else "--captions captions.csv"
    return Recognized("motion capture", contents, [_prepare("bvh", folder, more)]) if files else None


LOOKS: tuple[Callable[[Path], Recognized | None], ...] = (
    _layout, _humanml3d, _humanml3d_index, _motionx, _babel, _amass, _bvh)  # fmt: skip


def _prepare(command: str, source: Path, more: str = "") -> str:
    return " ".join(
        filter(
            None, (f"python prepare_data.py {command} --source {shlex.quote(str(source))} --out data/{command}", more)
        )
    )


def _names(file: Path) -> list[str]:
    return [line for line in read_lines(file, "a list") if line.strip()]


def _count(folder: Path, pattern: str) -> int:
    return sum(1 for _ in folder.glob(pattern)) if folder.is_dir() else 0


def _width(file: Path) -> int | None:
    """Return the number of columns of an array; None if it cannot be read."""
    try:
        shape = read_npy_header(file).shape
        return shape[1] if len(shape) == 2 else None
    except InputError:
        return None
