"""Source: a folder of BVH, glTF or FBX files with captions."""

from collections import Counter
from functools import partial
from pathlib import Path

from dataset.caption_table import is_rules
from dataset.captions import CaptionRules
from dataset.converting import Converted, Plan, Task, check_frames, cut_clip
from dataset.options import BvhOptions
from dataset.sources.labelled import convert_takes, plan_labelled
from dataset.sources.whole_files import plan_whole_files
from dataset.splits import MIRRORED
from dataset.staging import check_clip_id
from formats.bvh import bvh_length
from formats.fbx import find_blender
from formats.import_options import ImportOptions
from formats.motion_import import SUFFIXES, import_motion
from formats.skeleton_map import SkeletonMap
from motion.resample import FPS
from utils.errors import InputError
from utils.reading.texts import read_lines


def plan(options: BvhOptions) -> Plan:
    """Return a task per file of the source and its subfolders.

    Raises:
        InputError: there are no files, two share a name, one has the name of a mirrored copy, or a YAML file or table
            is invalid.
    """
    skeleton = SkeletonMap.from_yaml(options.skeleton) if options.skeleton else None
    step = partial(convert, options=options, skeleton=skeleton)
    files = find_bvh(options.source, options.mirrored)
    if options.captions and is_rules(options.captions):
        rules = CaptionRules.from_yaml(options.captions)
        by_path = {file.relative_to(options.source).with_suffix("").as_posix(): file for file in files}
        return plan_labelled(by_path, rules, step, partial(seconds_of, options=options), options)
    twins = [name for name, count in Counter(file.stem for file in files).items() if count > 1]
    if twins:
        name = next(file.name for file in files if file.stem == twins[0])
        raise InputError(
            f"{options.source} holds {name} more than once; the file name is the id of the clip, so rename one"
        )
    return plan_whole_files({file.stem: file for file in files}, options.source, step, options, _text_beside)


def find_bvh(source: Path, mirrored: bool) -> list[Path]:
    """Return the BVH, glTF and FBX files of a folder and its subfolders.

    Args:
        mirrored: Whether mirrored copies will be written, whose names must be free.

    Raises:
        InputError: there are no files, one has the name of a mirrored copy, or there is no Blender for FBX files.
    """
    files = sorted(file for file in source.rglob("*") if file.suffix.lower() in SUFFIXES)
    if not files:
        raise InputError(f"{source} holds no .bvh file (or .glb, .gltf, .vrma, .fbx); check --source")
    if any(file.suffix.lower() == ".fbx" for file in files):
        find_blender()
    taken = [file for file in files if mirrored and file.stem.endswith(MIRRORED)]
    if taken:
        raise InputError(
            f"{taken[0]} ends in {MIRRORED}, the name of a mirrored copy; rename it, or give --mirrored false"
        )
    return files


def seconds_of(file: Path, options: ImportOptions) -> float:
    """Return the length of a file in seconds.

    Raises:
        InputError: the file cannot be read.
    """
    if file.suffix.lower() == ".bvh":
        frames, fps = bvh_length(file)
        return frames / (options.fps or fps)
    return len(import_motion(file, FPS, options=options).rotations) / FPS


def convert(task: Task, options: BvhOptions, skeleton: SkeletonMap | None) -> Converted:
    """Convert one file into its clips, and mirrored copies of training clips.

    Raises:
        InputError: the file or its captions are missing or unusable.
    """
    check_clip_id(task.name)
    motion = import_motion(task.file, FPS, skeleton, options)
    notes = [f"{task.file}: {note}" for note in motion.notes]
    if task.cuts[0].part is not None:
        return Converted(convert_takes(task, motion.rotations, motion.pelvis, options), notes)
    check_frames(len(motion.rotations), options, task.file)
    lines = captions_beside(task) if task.lines is None else list(task.lines)
    clips = [cut_clip(cut, motion.rotations, motion.pelvis, lines) for cut in task.cuts]
    return Converted(clips, notes)


def _text_beside(file: Path) -> Path:
    return next((path for path in map(file.with_suffix, (".txt", ".TXT")) if path.is_file()), file.with_suffix(".txt"))


def captions_beside(task: Task) -> list[str]:
    """Return the caption lines of the text file beside a motion file.

    Raises:
        InputError: the text file is missing or has no captions.
    """
    text = _text_beside(task.file)
    lines = read_lines(text, "captions") if text.is_file() else []
    captions = [line.strip() for line in lines if line.strip()]
    if not captions:
        raise InputError(
            f"{task.file} has no caption; write {text.name} beside it, one caption per line, or give --captions"
        )
    return captions
