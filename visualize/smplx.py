"""Draw ``smplx_85`` motion: videos of the skeleton or of the body, and strips of poses."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from motion.clip import AnyMotion, smplx85_of
from motion.resample import FPS, check_fps
from motion.skeleton import forward_kinematics
from motion.smplx import SMPLX85, smplx85_to_322, smplx85_to_motion, smplx322_to_85
from utils.config import bounded
from utils.errors import InputError
from visualize.body import Body, floor_height, iterate_vertices, load_body
from visualize.camera import SPACING, hold_last_frame, place_camera, side_by_side
from visualize.skeleton import skeleton_frames
from visualize.video import MAX_SIDE, check_size, write_png, write_video

__all__ = [
    "draw_strip",
    "process_smplx_data",
    "render_body",
    "render_mesh_video",
    "smplx85_to_322",
    "visualize_smplx_85",
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
    return _write(output_path, lambda: skeleton_frames(joints, title, fps, size, floor, camera), fps)


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
    return _write(output_path, lambda: _body_frames(motions, title, fps, size, body, floor, camera), fps)


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
    return _body_frames(_validated(data), title, fps, size, body or load_body(), floor, camera, spacing)


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
    if not 1 <= poses <= MAX_POSES:
        raise InputError(f"the number of poses is {poses}; give 1 to {MAX_POSES}")
    if Path(output_path).suffix.lower() != ".png":
        raise InputError(f"{output_path} does not end in .png; a strip of poses is a PNG picture")
    size = (min(MAX_SIDE, round(height * (0.45 + 0.36 * poses))), height)
    check_size(size)
    moments = np.linspace(0, len(smplx85) - 1, poses).round().astype(int)
    people = [smplx85[[moment]] for moment in moments]
    frames = _body_frames(people, title, FPS, size, body or load_body(), spacing=STRIP_SPACING)
    return write_png(output_path, next(frames))


def _validated(data: AnyMotion | Sequence[AnyMotion]) -> list[np.ndarray]:
    """Return one motion or a list of motions as a list of validated (T, 85) float64 arrays."""
    motions = data if isinstance(data, list | tuple) else [data]
    if not 1 <= len(motions) <= MAX_POSES:
        raise InputError(f"{len(motions)} motions are to be drawn side by side; give 1 to {MAX_POSES}")
    return [smplx85_of(motion) for motion in motions]


def _body_frames(
    people: list[np.ndarray],
    title: str | None,
    fps: float,
    size: tuple[int, int],
    body: Body,
    floor: float | None = None,
    camera: str = "follow",
    spacing: float = SPACING,
) -> Iterator[np.ndarray]:
    """Yield the frames of ``render_body`` for validated motions; nothing is computed before the first frame."""
    from visualize.mesh import render_mesh  # compiles when first used

    lowest = [floor_height(body, each) if floor is None else floor for each in people]
    steps = side_by_side([body.joints(each[:1])[0] for each in people], spacing)
    steps -= np.multiply.outer(lowest, (0, 1, 0))  # (P, 3)
    longest, placed = max(map(len, people)), []
    for person, step in zip(people, steps, strict=True):
        moved = hold_last_frame(person, longest)
        moved[:, SMPLX85["translation"]] += step
        placed.append(moved)
    joints = np.stack([body.joints(each) for each in placed], axis=1)  # (T, P, 22, 3)
    vertices = map(np.concatenate, zip(*(iterate_vertices(body, each) for each in placed), strict=True))
    faces = np.concatenate([body.faces + person * len(body.colors) for person in range(len(placed))])
    colors = np.tile(body.colors, (len(placed), 1))
    yield from render_mesh(vertices, faces, colors, place_camera(joints, *size, fps=fps, camera=camera), title=title)


def _write(output_path: str | Path, render: Callable[[], Iterator[np.ndarray]], fps: float) -> list[Path]:
    """Write one video, or an MP4 and a GIF; each is rendered separately, so that frames are never all in memory."""
    path = Path(output_path)
    paths = [path] if path.suffix else [path.with_name(f"{path.name}.mp4"), path.with_name(f"{path.name}.gif")]
    return [write_video(each, render(), fps) for each in paths]
