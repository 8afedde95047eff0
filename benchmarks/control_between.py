"""In-betweening of recorded clips: gaps that are filled, their joint error, and FID, against interpolation."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch

from editing.generate import between
from evaluation.evaluators.interface import Evaluator
from evaluation.fid import fid
from evaluation.recorded import Recorded
from models.pipeline import TextToMotion
from motion.clip import Clip
from motion.features272 import recover_rotations
from motion.resample import FPS
from motion.rotation import slerp
from motion.skeleton import forward_kinematics
from motion.smplx import motion_to_smplx85, smplx85_to_motion

BEFORE, AFTER = 30, 15  # given frames before and after a gap


class Poses(NamedTuple):
    """A motion: local rotations, the root's in the world frame, and the position of the pelvis in metres."""

    rotations: np.ndarray  # (T, 22, 3, 3) float64
    pelvis: np.ndarray  # (T, 3)

    @property
    def joints(self) -> np.ndarray:
        """(T, 22, 3) positions in metres."""
        return forward_kinematics(self.rotations, self.pelvis)

    def __getitem__(self, frames) -> "Poses":
        return Poses(self.rotations[frames], self.pelvis[frames])

    @property
    def clip(self) -> Clip:
        return Clip(motion_to_smplx85(*self))


class Gap(NamedTuple):
    """A part of a recorded clip with a gap of ``frames`` frames after ``BEFORE`` and before ``AFTER`` given frames."""

    caption: str
    motion: Poses
    frames: int


def gaps(recorded: Recorded, frames: int) -> list[Gap]:
    """Return the successive parts of each clip that leave room for a gap; their gaps do not overlap."""
    found = []
    length = BEFORE + frames + AFTER
    for number in range(len(recorded)):
        motion = Poses(*recover_rotations(recorded.features(number).astype(np.float64)))
        for start in range(0, len(motion.pelvis) - length + 1, frames):
            found.append(Gap(recorded.captions[number][0].text, motion[start : start + length], frames))
    return found


def interpolate(gap: Gap) -> Poses:
    """Fill a gap by interpolation: rotations by slerp, the pelvis on a straight line at constant speed."""
    first, last = gap.motion[BEFORE - 1], gap.motion[BEFORE + gap.frames]
    share = np.arange(1, gap.frames + 1) / (gap.frames + 1)
    start, end = (torch.from_numpy(pose.rotations).expand(gap.frames, -1, -1, -1) for pose in (first, last))
    rotations = slerp(start, end, torch.from_numpy(share)[:, None].expand(-1, start.shape[1])).numpy()
    return Poses(rotations, first.pelvis + share[:, None] * (last.pelvis - first.pelvis))


def fill(model: TextToMotion, gap: Gap, seed: int) -> Poses:
    """Fill a gap with a motion of a model, under the caption of the clip."""
    end = BEFORE + gap.frames
    first, second = gap.motion[:BEFORE].clip, gap.motion[end:].clip
    whole = between(model, first, second, gap.caption, gap.frames / FPS, seed, place="file")
    return Poses(*smplx85_to_motion(whole.smplx85[BEFORE:end]))


def joint_error(gap: Gap, filled: Poses) -> float:
    """Return the mean distance in metres of the joints in the gap from the recorded ones, in the world."""
    real = gap.motion[BEFORE : BEFORE + gap.frames].joints
    return float(np.linalg.norm(filled.joints - real, axis=-1).mean())


def between_fid(evaluator: Evaluator, gaps: Sequence[Gap], filled: Sequence[Poses]) -> float:
    """Return the FID of filled gaps, with ``AFTER`` given frames on both sides, against the recorded frames."""
    real, made = [], []
    for gap, fill in zip(gaps, filled, strict=True):
        inside = slice(BEFORE, BEFORE + gap.frames)
        whole = Poses(gap.motion.rotations.copy(), gap.motion.pelvis.copy())
        whole.rotations[inside], whole.pelvis[inside] = fill
        part = slice(BEFORE - AFTER, BEFORE + gap.frames + AFTER)
        for motion, rows in ((gap.motion, real), (whole, made)):
            rows.append(motion[part].clip.features())
    return fid(evaluator.embed_motions(real), evaluator.embed_motions(made))
