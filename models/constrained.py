"""Motions and streams under constraints: from constraints to a track, and from final tokens to corrected frames."""

from collections.abc import Iterator

import numpy as np

from control.checks import check_constraints
from control.constraints import Constraints
from models.controlled import Goal, NewFrames
from models.motion import Motion, MotionChunk, RootTracker
from motion.resample import FPS
from utils.errors import InputError


def goal_of(constraints: Constraints, frames: int, seconds: float | None) -> Goal:
    """Return the values that the sampling of a motion keeps.

    Args:
        constraints: Of the motion.
        frames: Number of frames of the motion, or the largest number if its length is open.
        seconds: Requested length of the motion; None for an open length.

    Raises:
        InputError: the constraints contradict each other, cannot be reached, or exceed the motion.
    """
    check_constraints(constraints, seconds)
    if seconds is None and constraints.needed_length * FPS > frames:
        raise InputError(
            f"the constraints last until {constraints.needed_length:g} s and the checkpoint generates at most "
            f"{frames / FPS:.1f} s; give earlier times"
        )
    ends_with_path = seconds is None and constraints.path is not None and constraints.path.times is None
    return Goal(constraints.track(frames), constraints.placement, ends_with_path)


def constrained_motion(
    prompt: str, seed: int, constraints: Constraints, goal: Goal, new: Iterator[NewFrames]
) -> Motion:
    """Return the motion of final tokens."""
    steps = list(new)
    features = np.concatenate([step.features.cpu().numpy() for step in steps])
    tokens = np.array([step.token for step in steps])
    return Motion(prompt, seed, tokens, features, goal.start, constraints)


def constrained_chunks(goal: Goal, new: Iterator[NewFrames]) -> Iterator[MotionChunk]:
    """Yield the frames of a stream."""
    root = RootTracker(goal.start)
    for step in new:
        features = step.features.cpu().numpy()
        yield MotionChunk.of(step.part, [step.token], features, *root.place(features))
