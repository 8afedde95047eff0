"""Draw ``smplx_85`` motion: videos of the skeleton or of the body, and strips of poses."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from motion.clip import AnyMotion, rights_of, smplx85_of
from motion.resample import FPS, check_fps
from motion.skeleton import forward_kinematics
from motion.smplx import smplx85_to_322, smplx85_to_motion, smplx322_to_85
from utils.config import bounded
from utils.errors import InputError
from visualize.actors import Actor, body_actor
from visualize.body import CHUNK, Body, load_body
from visualize.camera import SPACING, hold_last_frame, place_camera, side_by_side
from visualize.skeleton import skeleton_frames
from visualize.video import MAX_SIDE, check_size, write_png, write_video

__all__ = [
    "draw_strip",
    "render_actors",
    "process_smplx_data",
    "render_body",
    "render_mesh_video",
    "smplx85_to_322",
    "visualize_smplx_85",
    "write_strip",
]

MAX_POSES = 16  # people in one picture
STRIP_SPACING = 0.85  # metres between the poses of a strip
if TYPE_CHECKING:
    Poses = int
else:
    Poses = bounded("Poses", int, (">=", 1), ("<=", MAX_POSES))


def process_smplx_data(data: np.ndarray) -> np.ndarray:
    """Convert (T, 322) to (T, 22, 3) joints in metres by forward kinematics of the rest skeleton.

    Nothing is normalised: the root keeps its orientation, the pelvis is at the translation, and the floor is not moved.

    Raises:
        InputError: unusable motion, as in ``smplx322_to_85``.
    """
    return forward_kinematics(*smplx85_to_motion(smplx322_to_85(data)))


def visualize_smplx_85(
    data: AnyMotion | Sequence[AnyMotion],
    title: str | None = None,
    output_path: str | Path = "motion",
    fps: float = FPS,
    size: tuple[int, int] = (512, 512),
    floor: float | None = None,
    camera: str = "follow",
) -> list[Path]:
    """Draw the skeleton of a motion into a video.

    Args:
        data: A clip, or a (T, 85) or (1, T, 85) array, NumPy or torch; or a list of several motions, which are drawn
            side by side.
        title: Text at the top of the frame.
        output_path: ``name.mp4`` or ``name.gif`` writes that file; a name without suffix writes both.
        fps: Frames per second of the motion and of the video.
        size: Width and height of the frames in pixels.
        floor: Height of the floor in metres; None estimates it from the lowest joints of the clip.
        camera: ``follow`` moves with the people, ``fixed`` shows all of their path.

    Returns:
        The files written.

    Raises:
        InputError: unusable motion, fps, size, camera or path.
    """
    check_size(size)
    joints = [forward_kinematics(*smplx85_to_motion(motion)) for motion in _validated(data)]
    return _write(output_path, lambda: skeleton_frames(joints, title, fps, size, floor, camera), fps, rights_of(data))


def render_mesh_video(
    data: AnyMotion | Sequence[AnyMotion],
    title: str | None = None,
    output_path: str | Path = "motion",
    fps: float = FPS,
    size: tuple[int, int] = (512, 512),
    body: Body | None = None,
    floor: float | None = None,
    camera: str = "follow",
) -> list[Path]:
    """Draw a moving body on a floor into a video; other arguments and errors as in ``visualize_smplx_85``.

    Args:
        body: Body from ``load_body``; None is the mannequin.
        floor: Height in metres at which the soles stand; None measures it on the soles of the body (``floor_height``).
    """
    check_size(size)
    motions, body = _validated(data), body or load_body()
    return _write(
        output_path,
        lambda: render_actors(_actors(motions, body, floor), title, fps, size, camera),
        fps,
        rights_of(data),
    )


def render_body(
    data: AnyMotion | Sequence[AnyMotion],
    title: str | None = None,
    fps: float = FPS,
    size: tuple[int, int] = (512, 512),
    body: Body | None = None,
    floor: float | None = None,
    camera: str = "follow",
    spacing: float = SPACING,
) -> Iterator[np.ndarray]:
    """Return an iterator of the (H, W, 3) uint8 frames of ``render_mesh_video``; same arguments and errors.

    Args:
        spacing: Distance in metres between people who stand side by side.
    """
    check_fps(fps)
    check_size(size)
    return render_actors(_actors(_validated(data), body or load_body(), floor), title, fps, size, camera, spacing)


def _actors(motions: Sequence[np.ndarray], body: Body, floor: float | None = None) -> list[Actor]:
    return [body_actor(body, motion, floor) for motion in motions]


def draw_strip(
    data: AnyMotion,
    title: str | None = None,
    output_path: str | Path = "motion.png",
    poses: int = 6,
    height: int = 512,
    body: Body | None = None,
) -> Path:
    """Draw poses of a motion, evenly spaced in time, side by side into one PNG, as in papers.

    Args:
        data: A clip, or a (T, 85) array.
        title: Text at the top of the picture.
        output_path: PNG to write.
        poses: Number of poses, at most MAX_POSES.
        height: Height of the picture in pixels; its width follows from the number of poses.
        body: Body from ``load_body``; None is the mannequin.

    Returns:
        The file written.

    Raises:
        InputError: unusable motion, number of poses, height or path.
    """
    smplx85 = smplx85_of(data)
    moments = strip_moments(len(smplx85), poses)
    actors = _actors([smplx85[[moment]] for moment in moments], body or load_body())
    return write_strip(actors, title, output_path, height)


def strip_moments(frames: int, poses: int) -> np.ndarray:
    """Return the frame numbers of evenly spaced poses."""
    if not 1 <= poses <= MAX_POSES:
        raise InputError(f"the number of poses is {poses}; give 1 to {MAX_POSES}")
    return np.linspace(0, frames - 1, poses).round().astype(int)


def write_strip(actors: Sequence[Actor], title: str | None, output_path: str | Path, height: int = 512) -> Path:
    """Draw people side by side into one PNG; see ``draw_strip``."""
    if Path(output_path).suffix.lower() != ".png":
        raise InputError(f"{output_path} does not end in .png; a strip of poses is a PNG picture")
    size = (min(MAX_SIDE, round(height * (0.45 + 0.36 * len(actors)))), height)
    check_size(size)
    return write_png(output_path, next(render_actors(actors, title, FPS, size, spacing=STRIP_SPACING)))


def _validated(data: AnyMotion | Sequence[AnyMotion]) -> list[np.ndarray]:
    """Return one motion or a list of motions as a list of validated (T, 85) float64 arrays."""
    motions = data if isinstance(data, list | tuple) else [data]
    if not 1 <= len(motions) <= MAX_POSES:
        raise InputError(f"{len(motions)} motions are to be drawn side by side; give 1 to {MAX_POSES}")
    return [smplx85_of(motion) for motion in motions]


def render_actors(
    actors: Sequence[Actor],
    title: str | None = None,
    fps: float = FPS,
    size: tuple[int, int] = (512, 512),
    camera: str = "follow",
    spacing: float = SPACING,
) -> Iterator[np.ndarray]:
    """Yield the (H, W, 3) uint8 frames of people who stand side by side; nothing is computed before the first frame.

    Args:
        actors: The people; those who finish before others hold their last pose.
        spacing: Distance in metres between people.
    """
    from visualize.mesh import render_mesh  # compiles when first used

    steps = side_by_side([actor.joints[0] for actor in actors], spacing)  # (P, 3)
    longest = max(len(actor.joints) for actor in actors)
    joints = np.stack([hold_last_frame(actor.joints, longest) for actor in actors], axis=1) + steps[:, None]
    starts = np.cumsum([0, *(actor.size for actor in actors)])
    faces = np.concatenate([actor.faces + start for actor, start in zip(actors, starts, strict=False)])
    colors = np.concatenate([actor.colors for actor in actors])
    place = place_camera(joints, *size, fps=fps, camera=camera)
    two_sided = any(actor.two_sided for actor in actors)
    yield from render_mesh(_vertices(actors, steps, longest), faces, colors, place, title=title, two_sided=two_sided)


def _vertices(actors: Sequence[Actor], steps: np.ndarray, frames: int) -> Iterator[np.ndarray]:
    """Yield the (V, 3) vertices of all people in each frame, posing ``CHUNK`` frames at once."""
    for start in range(0, frames, CHUNK):
        numbers = np.arange(start, min(start + CHUNK, frames))
        parts = [
            actor.vertices(np.minimum(numbers, len(actor.joints) - 1)) + step.astype(np.float32)
            for actor, step in zip(actors, steps, strict=True)
        ]
        yield from np.concatenate(parts, axis=1)


def _write(output_path: str | Path, render: Callable[[], Iterator[np.ndarray]], fps: float, comment: str) -> list[Path]:
    """Write one video, or an MP4 and a GIF; each is rendered separately, so that frames are never all in memory."""
    path = Path(output_path)
    paths = [path] if path.suffix else [path.with_name(f"{path.name}.mp4"), path.with_name(f"{path.name}.gif")]
    return [write_video(each, render(), fps, comment) for each in paths]
