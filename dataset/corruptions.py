"""Corrupted copies of a motion, which a text-motion evaluator should tell from recorded motion.

The poses and the encoding of a corrupted motion are right; the order of the poses, their tempo or their sides are wrong.
"""

import math

import torch
from torch import Tensor

from motion.features272 import features_from_motion, recover_rotations
from motion.rotation import slerp
from motion.skeleton import mirror


def replay(features: Tensor, times: Tensor) -> Tensor:
    """Return the features (T', 272) of a motion (T, 272) that takes the poses of the frames ``times`` (T',), in order.

    Between frames, rotations are interpolated by slerp and positions linearly.
    """
    rotations, pelvis = recover_rotations(features)
    before, after = times.floor().long(), times.ceil().long()
    if bool((before == after).all()):
        return features_from_motion(rotations[before], pelvis[before])
    share = (times - before)[:, None]
    return features_from_motion(
        slerp(rotations[before], rotations[after], share.expand(-1, rotations.shape[1])),
        torch.lerp(pelvis[before], pelvis[after], share),
    )


def reverse(features: Tensor) -> Tensor:
    """Play a motion (T, 272) backward."""
    return replay(features, torch.arange(len(features) - 1, -1, -1.0))


def change_speed(features: Tensor, speed: float) -> Tensor:
    """Play a motion (T, 272) at another speed: 0.5 doubles its length."""
    frames = math.floor((len(features) - 1) / speed + 1e-6) + 1
    return replay(features, (torch.arange(frames) * speed).clamp(max=len(features) - 1))


def freeze(features: Tensor, start: float = 0.0) -> Tensor:
    """Hold a pose of a motion (T, 272) to its end: that of the first frame, or at the share ``start`` of the motion."""
    return replay(features, torch.arange(float(len(features))).clamp(max=math.floor(start * (len(features) - 1))))


def exchange_sides(features: Tensor) -> Tensor:
    """Reflect a motion (T, 272): left and right are exchanged, and a turn to the left becomes one to the right."""
    return features_from_motion(*mirror(*recover_rotations(features)))
