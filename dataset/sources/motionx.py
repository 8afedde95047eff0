"""Source: Motion-X (Lin et al., NeurIPS 2023), SMPL-X parameters at 30 fps, y up.

motion_data/smplx_322/SUBSET/.../NAME.npy          (T, 322), see motion/smplx.py
texts/semantic_labels/SUBSET/.../NAME.txt          a caption per line, or lines of HumanML3D (subset humanml)
"""

from functools import partial
from pathlib import Path

from dataset.converting import Converted, Plan, Task, check_frames, cut_clip
from dataset.options import MotionXOptions
from dataset.sources.whole_files import plan_whole_files
from motion.body_shape import leg_scale, rest_joints
from motion.smplx import SMPLX85, smplx85_to_motion, smplx322_to_85
from utils.errors import InputError
from utils.reading.arrays import read_npy
from utils.reading.texts import read_lines

MOTIONS = Path("motion_data/smplx_322")
TEXTS = Path("texts/semantic_labels")


def plan(options: MotionXOptions) -> Plan:
    """Return a task per motion.

    Raises:
        InputError: there are no motions, or the captions cannot be read.
    """
    motions, texts = options.source / MOTIONS, options.source / TEXTS
    names = {file.relative_to(motions).with_suffix("").as_posix(): file for file in sorted(motions.rglob("*.npy"))}
    if not names:
        raise InputError(f"{options.source} holds no motion in {MOTIONS}; give the folder with {MOTIONS} and {TEXTS}")
    planned = plan_whole_files(
        names,
        motions,
        partial(convert, options=options),
        options,
        text_of=lambda file: texts / file.relative_to(motions).with_suffix(".txt"),
    )
    if not options.captions:
        for text in sorted(texts.rglob("*.txt")):
            if (name := text.relative_to(texts).with_suffix("").as_posix()) not in names:
                planned.left_out[name] = f"{text}: {MOTIONS} has no motion of this name"
    return planned


def convert(task: Task, options: MotionXOptions) -> Converted:
    """Convert a motion into a clip, and a mirrored copy of a training clip.

    Raises:
        InputError: the motion or its captions are missing or unusable.
    """
    smplx85 = smplx322_to_85(read_npy(task.file))
    check_frames(len(smplx85), options, task.file)
    text, betas = task.cuts[0].text, smplx85[0, SMPLX85["betas"]]
    lines = list(task.lines or ()) if text is None else [line.strip() for line in read_lines(text, "captions")]
    rotations, origin = smplx85_to_motion(smplx85)
    pelvis = (origin + rest_joints(betas)[0]) * leg_scale(betas)
    captions = [line for line in lines if line]
    if not captions:
        raise InputError(f"{text} has no caption; write one per line")
    return Converted([cut_clip(cut, rotations, pelvis, captions) for cut in task.cuts])
