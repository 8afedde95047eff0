"""People in a picture: each has joints, a mesh that moves, and colours. Bodies and characters are drawn alike."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from motion.clip import AnyMotion, smplx85_of
from motion.resample import FPS
from motion.smplx import SMPLX85
from visualize.body import CHUNK, Body, face_colors, floor_height
from visualize.camera import Camera, hold_last_frame, place_camera, side_by_side


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


def render_actors(
    actors: Sequence[Actor],
    title: str | None = None,
    fps: float = FPS,
    size: tuple[int, int] = (512, 512),
    camera: str = "follow",
) -> Iterator[np.ndarray]:
    """Yield the (H, W, 3) uint8 frames of people who stand side by side; nothing is computed before the first frame.

    Args:
        actors: The people; those who finish before others hold their last pose.
    """
    steps = side_by_side([actor.joints[0] for actor in actors])  # (P, 3)
    longest = max(len(actor.joints) for actor in actors)
    joints = np.stack([hold_last_frame(actor.joints, longest) for actor in actors], axis=1) + steps[:, None]
    yield from render_placed(actors, steps, place_camera(joints, *size, fps=fps, camera=camera), title)


def render_placed(
    actors: Sequence[Actor], steps: np.ndarray, camera: Camera, title: str | None = None
) -> Iterator[np.ndarray]:
    """Yield the (H, W, 3) uint8 frames of people as a camera sees them, one for each frame of its path.

    Args:
        steps: (P, 3) translation of each of the people in metres.
    """
    from visualize.mesh import render_mesh  # compiles when first used

    starts = np.cumsum([0, *(actor.size for actor in actors)])
    faces = np.concatenate([actor.faces + start for actor, start in zip(actors, starts, strict=False)])
    colors = np.concatenate([actor.colors for actor in actors])
    two_sided = any(actor.two_sided for actor in actors)
    vertices = _vertices(actors, steps, len(camera.eye))
    yield from render_mesh(vertices, faces, colors, camera, title=title, two_sided=two_sided)


def _vertices(actors: Sequence[Actor], steps: np.ndarray, frames: int) -> Iterator[np.ndarray]:
    """Yield the (V, 3) vertices of all people in each frame, posing ``CHUNK`` frames at once."""
    for start in range(0, frames, CHUNK):
        numbers = np.arange(start, min(start + CHUNK, frames))
        parts = [
            actor.vertices(np.minimum(numbers, len(actor.joints) - 1)) + step.astype(np.float32)
            for actor, step in zip(actors, steps, strict=True)
        ]
        yield from np.concatenate(parts, axis=1)
