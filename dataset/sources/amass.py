"""Source: AMASS (Mahmood et al., ICCV 2019), SMPL+H (``*_poses.npz``) and SMPL-X (``*_stageii.npz``).

Motion of any frame rate is interpolated to 30 fps. The public code for the 272 features takes every int(fps / 30)-th
frame instead: the same where fps / 30 is whole, while its 100 fps becomes 33.3 and its 59.94 fps stays.
"""

from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from dataset.conversion_report import ClipReport
from dataset.converting import (
    Converted,
    Cut,
    Plan,
    PreparedClip,
    Task,
    check_frames,
    cut_clip,
    reason_for,
)
from dataset.options import AmassOptions
from dataset.sources import babel, humanml3d_index
from dataset.sources.humanml3d_texts import HUMANML3D, kept_lines
from dataset.sources.whole_files import plan_whole_files
from dataset.splits import MIRRORED
from formats.amass import amass_to_smplx85, body_poses
from formats.import_options import MAX_FRAMES
from motion.body_shape import leg_scale
from motion.humanml3d import frame_step
from motion.resample import FPS, check_fps, resample_times
from motion.rotation import slerp
from motion.skeleton import JOINTS
from motion.smplx import SMPLX85, smplx85_to_motion
from utils.errors import InputError, shown
from utils.reading.arrays import read_npz
from utils.reading.texts import read_lines

KEYS = ("poses", "trans", "betas", "surface_model_type", "mocap_framerate", "mocap_frame_rate")  # none is a pickle
RATES = ("mocap_framerate", "mocap_frame_rate")  # of SMPL+H and SMPL-X files
NO_MOTION = ("shape.npz", "_stagei.npz")  # ends of the names of files that hold body shapes


def plan(options: AmassOptions) -> Plan:
    """Return a task per file of AMASS from which clips are taken.

    Raises:
        InputError: there are no files, or the captions cannot be read.
    """
    files = find_files(options.source)
    step = partial(convert, options=options)
    if options.humanml3d:
        return humanml3d_index.plan(options.humanml3d, files, step, options.split_of)
    names = {file.relative_to(options.source).with_suffix("").as_posix(): file for file in files}
    if options.babel:
        return babel.plan(options.babel, names, step, options.mirrored)
    return plan_whole_files(names, options.source, step, options)


def find_files(source: Path) -> list[Path]:
    """Return the files with motion of a folder and its subfolders.

    Raises:
        InputError: there are none.
    """
    files = sorted(file for file in source.rglob("*.npz") if not file.name.endswith(NO_MOTION))
    if not files:
        archives = next(source.glob("*.tar.bz2"), None) if source.is_dir() else None
        advice = f"extract {archives.name} and the other archives" if archives else "check --source"
        raise InputError(f"{source} holds no motion of AMASS (*_poses.npz or *_stageii.npz); {advice}")
    return files


class _Part(NamedTuple):
    """A clip at 30 fps, each of whose frames is interpolated between the frames ``lower`` and ``upper`` of the file."""

    cut: Cut
    lower: np.ndarray  # (T,)
    upper: np.ndarray  # (T,)
    fraction: np.ndarray  # (T,)
    public: int  # number of frames in the data set that defines the cut
    stretch: float  # seconds of the motion per second of the captions


def convert(task: Task, options: AmassOptions) -> Converted:
    """Convert a file into the clips that are cut out of it.

    Raises:
        InputError: the file is unusable.
    """
    arrays = read_npz(task.file, KEYS)
    if not {"poses", "trans"} <= set(arrays):
        raise InputError(f"{task.file} has no poses and trans and is no motion of AMASS; remove it")
    fps, count = frame_rate(arrays), len(body_poses(arrays)[0])
    if count / fps * FPS > MAX_FRAMES:
        raise InputError(f"{count} frames at {fps:g} per second are too long for a motion; copy it again")
    every = frame_step(fps) if options.humanml3d else 1
    parts = [_part(cut, count, fps, every) for cut in task.cuts]
    frames = np.unique(np.concatenate([frame for part in parts for frame in (part.lower, part.upper)]))
    rotations, pelvis = _motion(arrays, frames)
    clips: list[PreparedClip | ClipReport] = []
    notes: list[str] = []
    for part in parts:
        try:
            lines = _lines(part, task, options, notes)
            check_frames(len(part.lower), options, task.file)
            lower, upper = (np.searchsorted(frames, of_part) for of_part in (part.lower, part.upper))
            clips.append(cut_clip(part.cut, *_between(rotations, pelvis, lower, upper, part.fraction), lines))
        except InputError as error:
            if not part.cut.clip_id.endswith(MIRRORED):  # of a copy, the reason is that of the clip
                clips.append(ClipReport(part.cut.clip_id, rejected=reason_for(part.cut.text or task.file, error)))
    return Converted(clips, notes)


def frame_rate(arrays: dict[str, np.ndarray]) -> float:
    """Return the frames per second of a file of AMASS.

    Raises:
        InputError: it has none, or another value than one positive number.
    """
    rate = next((arrays[key] for key in RATES if key in arrays), None)
    if rate is None:
        raise InputError(f"it has neither {RATES[0]} nor {RATES[1]}; copy it again from AMASS")
    if rate.size != 1 or rate.dtype.kind not in "fiu":
        raise InputError(f"its frame rate is {shown(rate, 40)}; give one number")
    check_fps(fps := float(rate.reshape(())))
    return fps


def _part(cut: Cut, count: int, fps: float, every: int) -> _Part:
    """Return the frames of a cut, which counts every ``every``-th of the ``count`` frames of a file."""
    first, last, _ = slice(cut.start, cut.end).indices(-(-count // every))
    if last - first < 2:
        lower = upper = np.arange(first, max(first, last)) * every
        fraction = np.zeros(len(lower))
    else:
        lower, upper, fraction = resample_times((last - first - 1) * every + 1, fps, FPS)
        nearest = np.where(fraction < 0.5, lower, upper)
        if np.abs(lower + fraction - nearest).max() < 1e-9:  # every n-th frame: nothing is interpolated
            lower, upper, fraction = nearest, nearest, np.zeros(len(nearest))
        lower, upper = lower + first * every, upper + first * every
    return _Part(cut, lower, upper, fraction, max(0, last - first), every * HUMANML3D.fps / fps)


def _motion(arrays: dict[str, np.ndarray], frames: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return rotations (N, 22, 3, 3) and pelvis (N, 3) of some frames, y up, scaled to the legs of the mean shape."""
    if not len(frames):
        return np.zeros((0, JOINTS, 3, 3)), np.zeros((0, 3))
    chosen = {**arrays, "poses": arrays["poses"][frames], "trans": arrays["trans"][frames]}
    smplx85 = amass_to_smplx85(chosen, up="z")
    rotations, pelvis = smplx85_to_motion(smplx85)
    return rotations, pelvis * leg_scale(smplx85[0, SMPLX85["betas"]])


def _between(
    rotations: np.ndarray, pelvis: np.ndarray, lower: np.ndarray, upper: np.ndarray, fraction: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Interpolate between the rows ``lower`` and ``upper`` of rotations (N, 22, 3, 3) and pelvis (N, 3)."""
    if not fraction.any():
        return rotations[lower], pelvis[lower]
    weight = np.repeat(fraction[:, None], rotations.shape[1], axis=1)
    path = pelvis[lower] + fraction[:, None] * (pelvis[upper] - pelvis[lower])
    return slerp(rotations[lower], rotations[upper], weight), path


def _lines(part: _Part, task: Task, options: AmassOptions, notes: list[str]) -> list[str]:
    """Return the caption lines of a clip; those that the public reader of HumanML3D leaves out are noted."""
    if part.cut.text is None:
        return list(task.lines or ())
    lines = read_lines(part.cut.text, "captions")
    # the features of HumanML3D have one frame less than its joints
    kept, left_out = kept_lines(lines, max(0, part.public - 1), HUMANML3D, part.cut.text, part.stretch)
    notes += left_out
    return kept
