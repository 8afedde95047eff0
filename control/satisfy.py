"""Exact corrections: a motion that comes near a track is made to keep it.

    rotations, pelvis = satisfy(rotations, pelvis, track)

The corrections follow one another from the whole to the parts: place and heading of the pelvis, pose, trunk, feet,
hands. Each is exact at the frames that ask for it and fades around them, so that no frame jumps.
"""

import numpy as np

from control.calm import calm
from control.feet import plant
from control.pins import lean, reach
from control.pose_offsets import pose
from control.root_offsets import place
from control.targets import Targets
from control.track import Track
from motion.skeleton import forward_kinematics
from utils.errors import InputError


def satisfy(
    rotations: np.ndarray, pelvis: np.ndarray, track: Track, unbent: tuple[np.ndarray, np.ndarray] | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Correct a motion so that it keeps a track.

    Args:
        rotations: (T, 22, 3, 3) local rotations, the root's in the world frame.
        pelvis: (T, 3) metres, y up.
        track: What is asked of the T frames, without batch dimensions.
        unbent: Rotations and pelvis of the motion before its root was turned (``control.steering``), whose feet slide
            less; by default the motion itself.

    Returns:
        Rotations and pelvis of the same shapes, float64. What a body cannot reach is approached; ``control.report``
        measures what remains.

    Raises:
        InputError: the track has another number of frames.
    """
    if len(track.root_known) != len(pelvis):
        raise InputError(
            f"the track has {len(track.root_known)} frames and the motion {len(pelvis)}; make the track with "
            "Constraints.track(frames) of the motion"
        )
    targets = Targets(track)
    before = rotations.astype(np.float64), pelvis.astype(np.float64)
    if targets.empty:
        return before
    before = calm(*before)
    placed = place(*before, targets)
    posed = pose(*placed, targets)
    lifted = (forward_kinematics(*posed) - forward_kinematics(*placed))[..., 1]
    rotations, pelvis = lean(*posed, targets)
    rotations, pelvis = plant(unbent or before, rotations, pelvis, lifted, targets)
    return reach(rotations, pelvis, targets), pelvis
