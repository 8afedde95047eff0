"""Clips one after the other, as one motion of one body."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import groupby

import numpy as np

from editing.spans import check_count, check_moving
from motion.body_shape import leg_scale, rest_offsets
from motion.clip import Clip
from motion.features272 import encode, heading_angle, local_rotations, recover_root
from motion.joined import join as join_features
from motion.rotation import y_rotation
from motion.skeleton import forward_kinematics
from motion.smplx import SMPLX85
from utils.errors import InputError


def join(clips: Sequence[Clip]) -> Clip:
    """Join clips into one motion; each is placed where the one before ends.

    At a seam, pose, height and velocity continue those of the earlier clip, and the difference decays within half a
    second (``motion.joined``). The heights above the floor are kept.

    Args:
        clips: At least two, each of at least 2 frames.

    Returns:
        All frames of all clips, with the body of the first; those of the first clip are unchanged.

    Raises:
        InputError: there are too few clips, or one is too short.
    """
    if len(clips) < 2:
        raise InputError(f"{len(clips)} motion is given; give at least two to join")
    for clip in clips:
        check_moving(clip, "be joined")
    check_count(sum(len(clip.smplx85) for clip in clips))
    joined = clips[0]
    for clip in clips[1:]:
        joined = _followed(joined, on_body(clip, joined.betas))
    return replace(joined, title=titles(*(clip.title for clip in clips)))


def titles(*parts: str) -> str:
    """Return the title of a motion whose parts follow one another, as in a prompt of several sentences."""
    return " | ".join(part for part, _ in groupby(parts) if part)


def on_body(clip: Clip, betas: np.ndarray) -> Clip:
    """Return a clip on the body of a shape (10,): the same rotations, and a path scaled by the length of the legs."""
    rotations, pelvis = clip.motion()
    smplx85 = clip.with_motion(rotations, pelvis * leg_scale(clip.betas) / leg_scale(betas)).smplx85
    smplx85[:, SMPLX85["betas"]] = betas
    return replace(clip, smplx85=smplx85)


def _followed(first: Clip, second: Clip) -> Clip:
    """Return the first clip followed by the second; both have the same body."""
    rotations, pelvis = first.motion()
    joined = join_features(_features(replace(first, smplx85=first.smplx85[-2:])), _features(second))[2:]
    heading, path = recover_root(joined, y_rotation(heading_angle(rotations[-1, 0])), pelvis[-1])
    local = local_rotations(joined)
    local[:, 0] = heading @ local[:, 0]
    after = second.with_motion(local, path).smplx85
    return replace(first, smplx85=np.concatenate((first.smplx85, after.astype(first.smplx85.dtype))))


def _features(clip: Clip) -> np.ndarray:
    """Return (T, 272) features of a clip in float64, with its own heights and body."""
    rotations, pelvis = clip.motion()
    return encode(rotations, forward_kinematics(rotations, pelvis, rest_offsets(clip.betas)))
