"""Draw ``smplx_85`` motion: videos of the skeleton or of the body, and strips of poses."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from motion.clip import AnyMotion, rights_of, smplx85_of
from motion.resample import FPS, check_fps
from motion.skeleton import forward_kinematics
from motion.smplx import smplx85_to_322, smplx85_to_motion, smplx322_to_85
from utils.errors import InputError
from visualize.actors import Actor, body_actor, render_actors
from visualize.body import Body, load_body
from visualize.options import MAX_PEOPLE
from visualize.skeleton import skeleton_frames
from visualize.strips import write_strip
from visualize.video import check_size, write_video

__all__ = [
    "draw_strip",
    "process_smplx_data",
    "render_body",
    "render_mesh_video",
    "smplx85_to_322",
    "visualize_smplx_85",
]


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
) -> Iterator[np.ndarray]:
    """Return an iterator of the (H, W, 3) uint8 frames of ``render_mesh_video``; same arguments and errors."""
    check_fps(fps)
    check_size(size)
    return render_actors(_actors(_validated(data), body or load_body(), floor), title, fps, size, camera)


def _actors(motions: Sequence[np.ndarray], body: Body, floor: float | None = None) -> list[Actor]:
    return [body_actor(body, motion, floor) for motion in motions]


def draw_strip(
    data: AnyMotion,
    title: str | None = None,
    output_path: str | Path = "motion.png",
    poses: int = 6,
    height: int = 512,
    body: Body | None = None,
    width: int | None = None,
) -> Path:
    """Draw poses of a motion, evenly spaced in time, side by side into one PNG, as in papers.

    Args:
        data: A clip, or a (T, 85) array.
        title: Text at the top of the picture.
        output_path: PNG to write.
        poses: Number of poses, at most 16.
        height: Height of the picture in pixels.
        body: Body from ``load_body``; None is the mannequin.
        width: Width of the picture in pixels; None follows from the poses.

    Returns:
        The file written.

    Raises:
        InputError: unusable motion, number of poses, size or path.
    """
    return write_strip(body_actor(body or load_body(), data), title, output_path, poses, height, width)


def _validated(data: AnyMotion | Sequence[AnyMotion]) -> list[np.ndarray]:
    """Return one motion or a list of motions as a list of validated (T, 85) float64 arrays."""
    motions = data if isinstance(data, list | tuple) else [data]
    if not 1 <= len(motions) <= MAX_PEOPLE:
        raise InputError(f"{len(motions)} motions are to be drawn side by side; give 1 to {MAX_PEOPLE}")
    return [smplx85_of(motion) for motion in motions]


def _write(output_path: str | Path, render: Callable[[], Iterator[np.ndarray]], fps: float, comment: str) -> list[Path]:
    """Write one video, or an MP4 and a GIF; each is rendered separately, so that frames are never all in memory."""
    path = Path(output_path)
    paths = [path] if path.suffix else [path.with_name(f"{path.name}.mp4"), path.with_name(f"{path.name}.gif")]
    return [write_video(each, render(), fps, comment) for each in paths]
