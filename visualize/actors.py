"""People in a picture: each has joints, a mesh that moves, and colours. Bodies and characters are drawn alike."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from motion.clip import AnyMotion, smplx85_of
from motion.smplx import SMPLX85
from visualize.body import Body, face_colors, floor_height


@dataclass
class Actor:
    """A person in T frames, in metres, y up, with the soles at y = 0 where they stand."""

    joints: np.ndarray  # (T, 22, 3)
    vertices: Callable[[np.ndarray], np.ndarray]  # frame numbers (N) -> (N, V, 3) float32
    size: int  # V
    faces: np.ndarray  # (F, 3) int32, counter-clockwise seen from outside
    colors: np.ndarray  # (F, 3, 3) float32 sRGB in 0..1 of the corners of the faces
    two_sided: bool = False  # draw faces that are turned away as well

    def at(self, moment: int) -> "Actor":
        """Return the person in one frame."""
        return replace(
            self, joints=self.joints[[moment]], vertices=lambda frames: self.vertices(np.full_like(frames, moment))
        )


def body_actor(body: Body, motion: AnyMotion, floor: float | None = None) -> Actor:
    """Return a body that performs a motion.

    Args:
        floor: Height in metres at which the soles stand; None measures it on the soles of the body.
    """
    smplx85 = smplx85_of(motion)
    smplx85[:, SMPLX85["translation"]] -= (0, floor_height(body, smplx85) if floor is None else floor, 0)
    return Actor(
        body.joints(smplx85),
        lambda frames: body.vertices(smplx85[frames]),
        len(body.colors),
        body.faces,
        face_colors(body),
    )
