"""Edits that the text-to-motion model makes: spans between given frames, and the rest of the body.

The frames before a span are the initial motion, those after it and given joints are constraints of the generation. What
is given stays exact; the generated frames are corrected at the seams (``editing.seams``).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from control.constraints import Constraints
from control.joints import joints_named
from control.poses import Keep, MotionFrames
from editing.combine import combine
from editing.join import on_body, titles
from editing.options import Place
from editing.places import Motion, Move, frames
from editing.seams import SPREAD, fade
from editing.spans import check_moving, span_frames
from models.pipeline import TextToMotion
from motion.body_shape import leg_scale
from motion.clip import Clip
from motion.features272 import encode
from motion.resample import FPS
from motion.rotation import axis_angle_to_matrix, matrix_to_axis_angle, rotation_between
from motion.skeleton import forward_kinematics
from motion.smplx import SMPLX85, smplx85_to_motion
from utils.errors import InputError
from utils.prompts import Prompt

CONTEXT = 60  # frames before the span that the model reads
AHEAD = 12  # frames after the span that the model is led to


def between(
    model: TextToMotion, first: Clip, second: Clip, prompt: str, seconds: float, seed: int = 0, place: Place = "free"
) -> Clip:
    """Generate the motion from the end of one clip to the start of another.

    Args:
        model: Text-to-motion model.
        first: At least as many frames as a token of the model.
        second: At least 2 frames.
        prompt: Sentence for the frames between.
        seconds: Length of the generated part.
        seed: Seed of the sampling.
        place: ``file`` keeps the second clip where it is; ``free`` moves it to where the generated part leads.

    Returns:
        The first clip, the generated part and the second clip, on the body of the first. The frames of the clips are
        unchanged, apart from the place of the second.

    Raises:
        InputError: a clip is too short, the length is too small or too large for the model, or the second clip cannot
            be reached in this time.
    """
    check_moving(second, "follow a generated part")
    second = second if np.array_equal(first.betas, second.betas) else on_body(second, first.betas)
    count = _frames_of(seconds)
    return replace(
        _filled(model, first, second, prompt, count, seed, place), title=titles(first.title, prompt, second.title)
    )


def redo(
    model: TextToMotion,
    clip: Clip,
    prompt: str,
    start: float = 0.0,
    end: float | None = None,
    seconds: float | None = None,
    seed: int = 0,
    place: Place = "file",
) -> Clip:
    """Generate a span of a clip again, with another sentence.

    Args:
        model: Text-to-motion model.
        clip: T frames.
        prompt: Sentence for the span.
        start, end: Times of the span in seconds; None is the end of the clip.
        seconds: Length of the new span; None keeps it.
        seed: Seed of the sampling.
        place: ``file`` keeps the frames after the span where they are; ``free`` moves them to where the span leads.

    Returns:
        The clip with the new span; all other frames are unchanged, apart from the place of those after it.

    Raises:
        InputError: the span is outside the clip, or as in ``between``.
    """
    first, last = span_to_redo(clip, start, end)
    parts = np.split(clip.smplx85, (first, last))
    before, after = (replace(clip, smplx85=part) if len(part) else None for part in parts[::2])
    count = last - first if seconds is None else _frames_of(seconds)
    return replace(_filled(model, before, after, prompt, count, seed, place), title=titles(clip.title, prompt))


def span_to_redo(clip: Clip, start: float, end: float | None) -> tuple[int, int]:
    """Return the frames of a span as ``span_frames``; the span may not be the whole clip."""
    first, last = span_frames(clip, start, end)
    if last - first == len(clip.smplx85):
        raise InputError(
            "the span is the whole motion, of which nothing remains; use inference_batch.py for a new motion"
        )
    return first, last


def complete(model: TextToMotion, part: Clip, joints: Sequence[str], prompt: str, seed: int = 0) -> Clip:
    """Keep some joints of a clip and generate the rest of the body from a sentence.

    Args:
        model: Text-to-motion model.
        part: Gives the joints.
        joints: Joints and groups (``control.joints.GROUPS``); with the pelvis, the path of the clip is kept too.
        prompt: Sentence for the other joints.
        seed: Seed of the sampling.

    Returns:
        A motion of the same length, whose rotations of the joints are those of the clip.

    Raises:
        InputError: the joints are none or all, or the clip is too long for the model.
    """
    names = joints_named(joints)
    count, space = len(part.smplx85), _Space.of(part, 0)
    place: Place = "file" if "pelvis" in names else "free"
    kept = Keep(0.0, (count - 1) / FPS, MotionFrames(*space.enter(part)), names, place)
    motion = _generated(model, None, kept, prompt, count, seed)
    made = part.with_motion(*frames(space.leave(*motion), slice(count)))
    return combine(part, replace(made, title=prompt), names)


@dataclass(frozen=True)
class _Space:
    """The world of the model: a body of mean shape, the floor at height 0, a frame of a clip at the origin."""

    scale: float
    floor: float
    move: Move

    @classmethod
    def of(cls, clip: Clip, number: int) -> "_Space":
        """Return the world in which frame ``number`` of a clip is over the origin."""
        rotations, pelvis = clip.motion()
        scale, origin = leg_scale(clip.betas), (np.eye(3)[None], np.zeros(3))
        floor = forward_kinematics(rotations, pelvis * scale)[..., 1].min()
        return cls(scale, float(floor), Move.between((rotations[number], pelvis[number] * scale), origin))

    def enter(self, clip: Clip) -> Motion:
        """Return the motion of a clip in this world."""
        rotations, pelvis = clip.motion()
        return self.move.apply(rotations, pelvis * self.scale - np.array([0, self.floor, 0]))

    def leave(self, rotations: np.ndarray, pelvis: np.ndarray) -> Motion:
        """Return a motion of this world in the world of the clip."""
        rotations, pelvis = self.move.inverse().apply(rotations, pelvis)
        return rotations, (pelvis + np.array([0, self.floor, 0])) / self.scale


def _frames_of(seconds: float) -> int:
    count = round(seconds * FPS)
    if count < 1:
        raise InputError(
            f"the length of the generated part is {seconds:g} s; give at least one frame ({1 / FPS:.3f} s)"
        )
    return count


def _filled(
    model: TextToMotion, before: Clip | None, after: Clip | None, prompt: str, count: int, seed: int, place: Place
) -> Clip:
    """Return the clip before, ``count`` generated frames and the clip after; one of the clips may be missing."""
    stride = model.frames_per_token
    context = 0 if before is None else min(CONTEXT, len(before.smplx85)) // stride * stride
    if before is not None and context == 0:
        raise InputError(
            f"{len(before.smplx85)} frames are before the generated part, and the model reads at least {stride}; start "
            "the part later, or at the start of the motion"
        )
    if after is not None and len(after.smplx85) < 2:
        raise InputError("1 frame is after the generated part; leave none or at least 2")
    init, kept = None, None
    if before is not None:
        space = _Space.of(before, -context)
        rotations, pelvis = frames(space.enter(before), slice(-context, None))
        init = encode(rotations, forward_kinematics(rotations, pelvis)).astype(np.float32)
    if after is not None:
        space = space if before is not None else _Space.of(after, 0)
        at, ahead = context + count, min(AHEAD, len(after.smplx85))
        given = MotionFrames(*frames(space.enter(after), slice(ahead)))
        kept = Keep(at / FPS, (at + ahead - 1) / FPS, given, place="free" if before is None else place)
    made = space.leave(*_generated(model, init, kept, prompt, count, seed))
    if before is not None:
        made = Move.between(frames(made, context - 1), frames(before.motion(), -1)).apply(*made)
        if after is not None and place == "free":
            after = _moved(after, Move.between(frames(after.motion(), 0), frames(made, context + count)))
    elif after is not None:
        made = Move.between(frames(made, count), frames(after.motion(), 0)).apply(*made)
    return _bridged(made, before, after, context, count)


def _generated(
    model: TextToMotion, init: np.ndarray | None, kept: Keep | None, prompt: str, count: int, seed: int
) -> Motion:
    """Generate at least ``count`` frames after those of ``init`` (T, 272), and at least up to the frames to keep."""
    sentences = len(Prompt.parse(prompt).sentences)
    if kept is not None:
        count = round(kept.end * FPS) + 1 - (0 if init is None else len(init))
    tokens = -(-count // (model.frames_per_token * sentences))  # of each sentence
    seconds = tokens * model.frames_per_token / FPS
    constraints = None if kept is None else [Constraints(keep=(kept,))]
    [motion] = model.generate([prompt], [seed], seconds=[seconds], init=init, constraints=constraints)
    return smplx85_to_motion(motion.smplx85.astype(np.float64))


def _moved(clip: Clip, move: Move) -> Clip:
    """Return a clip in another place; the rotations of all joints but the root are unchanged."""
    smplx85 = clip.smplx85.copy()
    rotations, pelvis = move.apply(*clip.motion())
    smplx85[:, :3] = matrix_to_axis_angle(rotations[:, 0])
    smplx85[:, SMPLX85["translation"]] = pelvis
    return replace(clip, smplx85=smplx85)


def _bridged(made: Motion, before: Clip | None, after: Clip | None, first: int, count: int) -> Clip:
    """Return the clip before, frames ``first .. first + count - 1`` of a generated motion, and the clip after.

    The generated frames are corrected so that their pose, place and velocity at the seams are those of the clips.
    """
    rotations, pelvis = frames(made, slice(first, first + count))
    number, end = np.arange(count), first + count
    if before is not None:
        gap = _Gap.of(
            frames(frames(made, slice(first - 2, first)), slice(None, None, -1)),
            frames(before.motion(), slice(None, -3, -1)),
        )
        rotations, pelvis = gap.close(rotations, pelvis, number + 1)
    if after is not None:
        gap = _Gap.of(frames(made, slice(end, end + 2)), frames(after.motion(), slice(2)))
        rotations, pelvis = gap.close(rotations, pelvis, count - number)
    body = before if before is not None else after
    assert body is not None  # one of them is given
    parts = [clip.smplx85 for clip in (before, body.with_motion(rotations, pelvis), after) if clip is not None]
    return replace(body, smplx85=np.concatenate(parts).astype(body.smplx85.dtype))


@dataclass(frozen=True)
class _Gap:
    """Difference between a generated motion and given frames at a seam, and its change per frame toward the motion."""

    turn: np.ndarray  # (22, 3)
    turning: np.ndarray
    shift: np.ndarray  # (3,) metres
    shifting: np.ndarray

    @classmethod
    def of(cls, made: Motion, given: Motion) -> "_Gap":
        """Return the gap between two frames of each: that at the seam first, then the one beyond it."""
        return cls(
            rotation_between(made[0][0], given[0][0]),
            rotation_between(*given[0][::-1]) - rotation_between(*made[0][::-1]),
            given[1][0] - made[1][0],
            given[1][0] - given[1][1] - made[1][0] + made[1][1],
        )

    def close(self, rotations: np.ndarray, pelvis: np.ndarray, distance: np.ndarray) -> Motion:
        """Return T frames that continue the given ones; ``distance`` (T,) counts the frames from the seam.

        The shift is spread over all frames, everything else over those near the seam.
        """
        width = min(SPREAD, len(distance) + 1)
        turns = axis_angle_to_matrix(fade(distance, self.turn, self.turning, width))
        shifts = fade(distance, self.shift, 0.0, len(distance) + 1)
        return turns @ rotations, pelvis + shifts + fade(distance, 0 * self.shift, self.shifting, width)
