"""One part of the body from one motion, and the rest from another."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from control.joints import joints_named
from editing.spans import span_frames
from motion.clip import Clip
from motion.resample import FPS
from motion.rotation import slerp
from motion.skeleton import JOINT_INDEX, JOINT_NAMES
from motion.spread import smoothstep
from utils.errors import InputError

FADE = 0.3  # seconds in which a part that starts or ends within the motion fades in and out


def combine(part: Clip, rest: Clip, joints: Sequence[str], start: float = 0.0, end: float | None = None) -> Clip:
    """Take the rotations of some joints from one motion and everything else from another.

    Args:
        part: Gives the joints; its first frame is at ``start``.
        rest: Gives the other joints.
        joints: Joints and groups (``control.joints.GROUPS``). The motion that gives the pelvis gives the path, the
            length and the body.
        start: Time in seconds in the result from which the part is used.
        end: Time until which it is used; None is its end.

    Returns:
        The combined motion. Within the span, the rotations of the joints are those of the part, except for ``FADE`` at
        an end of the span that is not an end of the motion.

    Raises:
        InputError: the span is outside the motion, the joints are none or all, or the path is to change within it.
    """
    names = joints_named(joints)
    if len(names) == len(JOINT_NAMES):
        raise InputError(f"{', '.join(joints)} are all joints, which leaves nothing to the other motion; give fewer")
    if "pelvis" in names:
        if (start, end) != (0.0, None):
            raise InputError(
                "the pelvis is among the joints, and its path cannot change within a motion; exchange the "
                "two motions, and give the other joints"
            )
        return replace(
            combine(rest, part, [name for name in JOINT_NAMES if name not in names]), title=_title(part, rest)
        )
    first, last = span_frames(rest, start, end)
    last = min(last, first + len(part.smplx85))
    chosen = [JOINT_INDEX[name] for name in names]
    rotations, pelvis = rest.motion()
    given = part.motion()[0][: last - first, chosen]  # (N, J, 3, 3)
    number = np.arange(last - first)
    share = np.ones(len(number))
    if first > 0:
        share = np.minimum(share, (number + 1) / (FADE * FPS))
    if last < len(pelvis):
        share = np.minimum(share, number[::-1] / (FADE * FPS))
    share = smoothstep(share)
    own = rotations[first:last, chosen]
    blended = slerp(own, given, np.tile(share[:, None], len(chosen)))
    rotations[first:last, chosen] = np.where(share[:, None, None, None] == 1, given, blended)
    return replace(rest.with_motion(rotations, pelvis), title=_title(part, rest))


def _title(part: Clip, rest: Clip) -> str:
    return " + ".join(dict.fromkeys(clip.title for clip in (part, rest) if clip.title))
