"""Sources: HumanML3D and KIT-ML as they are published, features of joint positions without rotations of a body.

The joints are recovered from the features (motion/features263.py), rotations of our skeleton are fitted to them
(motion/inverse_kinematics.py) and interpolated to 30 fps. The mean distance between the joints of the fit and the
given ones, at the bone lengths of our skeleton, is stated in report.json.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import numpy as np

from dataset.converting import Converted, Cut, Plan, Task, check_frames, prepared_clip
from dataset.options import HumanMl3dOptions, KitOptions
from dataset.sources import humanml3d_texts
from dataset.sources.humanml3d_index import find_texts, read_splits
from dataset.sources.humanml3d_texts import Limits, kept_lines
from dataset.splits import SPLITS
from motion.features263 import HUMANML3D, KIT, FeatureSkeleton, joints_from_features
from motion.inverse_kinematics import FittedMotion, fit_joints, fit_kit_joints
from motion.resample import FPS, resample_positions, resample_rotations
from utils.errors import InputError, shown
from utils.reading.arrays import read_npy
from utils.reading.texts import read_lines

FEATURES = "new_joint_vecs"


class DataSet(NamedTuple):
    """A data set in this form."""

    skeleton: FeatureSkeleton
    limits: Limits
    fit: Callable[[np.ndarray], FittedMotion]


DATA_SETS = {
    HumanMl3dOptions: DataSet(HUMANML3D, humanml3d_texts.HUMANML3D, fit_joints),
    KitOptions: DataSet(KIT, humanml3d_texts.KIT, fit_kit_joints),
}


def plan(options: HumanMl3dOptions | KitOptions) -> Plan:
    """Return a task per clip of the splits.

    Raises:
        InputError: features or captions are missing, or a split file cannot be read.
    """
    vectors = options.source / FEATURES
    if not vectors.is_dir():
        raise InputError(f"{options.source} holds no {FEATURES}; give the folder with {FEATURES}, texts and train.txt")
    texts = find_texts(options.source)
    names = sorted(file.stem for file in vectors.glob("*.npy"))
    if not names:
        raise InputError(f"{vectors} holds no .npy file; compute the features with the code of HumanML3D")
    splits = read_splits(options.source)
    left_out: dict[str, str] = {}
    if splits is None:
        splits = {split: [] for split in SPLITS}
        for name in names:
            splits[options.split_of(name.removeprefix("M"))].append(name)
    listed = {name for of_split in splits.values() for name in of_split}
    for name in sorted(listed - set(names)):
        left_out[name] = f"{options.source}: a split lists {shown(name)}, and {FEATURES} has no such file"
    for name in sorted({file.stem for file in texts.glob("*.txt")} - listed - set(names)):
        left_out[name] = f"{texts / name}.txt: {FEATURES} has no motion of this name"
    for name in sorted(set(names) - listed):
        left_out[name] = f"{vectors / name}.npy: no split lists it"
    tasks = [
        Task(name, vectors / f"{name}.npy", (Cut(name, text=texts / f"{name}.txt"),))
        for name in names
        if name in listed
    ]
    return Plan(tasks, partial(convert, options=options), splits, left_out)


def convert(task: Task, options: HumanMl3dOptions | KitOptions) -> Converted:
    """Convert the features of a clip.

    Raises:
        InputError: features or captions are unusable, or the public reader leaves the clip out.
    """
    (cut,) = task.cuts
    skeleton, limits, fit = DATA_SETS[type(options)]
    joints = joints_from_features(read_npy(task.file), skeleton)
    assert cut.text is not None
    lines, left_out = kept_lines(read_lines(cut.text, "captions"), len(joints), limits, cut.text)
    motion = fit(joints)
    rotations = resample_rotations(motion.rotations, skeleton.fps, FPS)
    check_frames(len(rotations), options, task.file)
    pelvis = resample_positions(motion.pelvis, skeleton.fps, FPS)
    return Converted([prepared_clip(cut.clip_id, rotations, pelvis, lines, motion.error)], left_out)
