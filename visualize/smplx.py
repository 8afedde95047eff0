"""``smplx_85`` motion to pictures: the Motion-X layout, joints, and videos of the skeleton or of the body's mesh."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from motion.resample import FPS, check_fps
from motion.skeleton import forward_kinematics
from motion.smplx import SMPLX85, check_smplx85, smplx85_to_322, smplx85_to_motion, smplx322_to_85
from utils.errors import InputError
from visualize.body import Body, floor_height, iterate_vertices, load_body
from visualize.camera import SPACING, hold_last_frame, place_camera, side_by_side
from visualize.skeleton import render_skeleton
from visualize.video import check_size, write_png, write_video

MAX_POSES = 16  # people in one picture


def process_smplx_data(data: np.ndarray) -> np.ndarray:
    """(T, 322) to (T, 22, 3) joints in metres by forward kinematics of the rest skeleton.

    Nothing is normalised: the root keeps its orientation, the pelvis is at the translation, and the floor stays where
    it is.
    """
    rotations, pelvis = smplx85_to_motion(smplx322_to_85(data))
    return forward_kinematics(rotations, pelvis)


def visualize_smplx_85(
    data: np.ndarray | Sequence[np.ndarray],
    title: str | None = None,
    output_path: str | Path = "motion",
    fps: float = FPS,
    size: tuple[int, int] = (512, 512),
    floor: float | None = None,
    camera: str = "follow",
) -> list[Path]:
    """Draw the skeleton of a motion into a video.

    Args:
        data: (T, 85) or (1, T, 85), NumPy or torch; or a list of several motions, which are drawn side by side.
        title: text in the frame.
        output_path: ``name.mp4`` or ``name.gif`` writes that file; a name without suffix writes both.
        fps: frames per second of the motion and of the video.
        size: width and height of the frames in pixels.
        floor: height of the floor in metres; None takes it from the lowest joints of the clip.
        camera: ``follow`` goes along with the people, ``fixed`` stands where all of their way is seen.

    Returns:
        The files written.

    Raises:
        InputError: unusable motion, fps, size, or path.
    """
    joints = [process_smplx_data(smplx85_to_322(each)) for each in _people(data)]
    return _write(output_path, lambda: render_skeleton(joints, title, fps, size, floor, camera), fps)


def render_mesh_video(
    data: np.ndarray | Sequence[np.ndarray],
    title: str | None = None,
    output_path: str | Path = "motion",
    fps: float = FPS,
    size: tuple[int, int] = (512, 512),
    body: Body | None = None,
    floor: float | None = None,
    camera: str = "follow",
) -> list[Path]:
    """Draw a body moving on a floor into a video; arguments and errors as in ``visualize_smplx_85``, and

    Args:
        body: of ``load_body``; None is the mannequin.
        floor: height in metres at which the soles stand; None measures it on the body's own soles (``floor_height``).
    """
    body = body or load_body()
    return _write(output_path, lambda: render_body(data, title, fps, size, body, floor, camera), fps)


def render_body(
    data: np.ndarray | Sequence[np.ndarray],
    title: str | None = None,
    fps: float = FPS,
    size: tuple[int, int] = (512, 512),
    body: Body | None = None,
    floor: float | None = None,
    camera: str = "follow",
    spacing: float = SPACING,
) -> Iterator[np.ndarray]:
    """The (H, W, 3) uint8 frames of ``render_mesh_video`` one by one; same arguments and errors, and

    Args:
        spacing: metres between people side by side.
    """
    from visualize.mesh import render_mesh  # compiles when first used

    check_fps(fps)
    check_size(size)
    body = body or load_body()
    people = [check_smplx85(each) for each in _people(data)]
    lowest = [floor_height(body, each) if floor is None else floor for each in people]
    steps = side_by_side([body.joints(each[:1])[0] for each in people], spacing)
    steps -= np.multiply.outer(lowest, (0, 1, 0))  # (P, 3)
    longest = max(map(len, people))
    for person, step in enumerate(steps):
        people[person] = hold_last_frame(people[person], longest)
        people[person][:, SMPLX85["translation"]] += step
    joints = np.stack([body.joints(each) for each in people], axis=1)  # (T, P, 22, 3)
    vertices = map(np.concatenate, zip(*(iterate_vertices(body, each) for each in people), strict=True))
    faces = np.concatenate([body.faces + person * len(body.colors) for person in range(len(people))])
    colors = np.tile(body.colors, (len(people), 1))
    return render_mesh(vertices, faces, colors, place_camera(joints, *size, fps=fps, camera=camera), title=title)


def draw_strip(
    data: np.ndarray,
    title: str | None = None,
    output_path: str | Path = "motion.png",
    poses: int = 6,
    height: int = 512,
    body: Body | None = None,
) -> Path:
    """Draw moments of a motion, evenly spread in time, side by side into one picture (PNG), as papers show motion.

    Raises:
        InputError: unusable motion, number of poses, height, or path.
    """
    data = check_smplx85(data)
    if not 1 <= poses <= MAX_POSES:
        raise InputError(f"{poses} poses are asked for; give 1 to {MAX_POSES}")
    if Path(output_path).suffix.lower() != ".png":
        raise InputError(f"{output_path} does not end in .png; a strip of poses is a PNG picture")
    moments = np.linspace(0, len(data) - 1, poses).round().astype(int)
    size = (min(4096, round(height * (0.45 + 0.36 * poses))), height)
    picture = next(render_body([data[[moment]] for moment in moments], title, size=size, body=body, spacing=0.85))
    return write_png(output_path, picture)


def _people(data: np.ndarray | Sequence[np.ndarray]) -> Sequence[np.ndarray]:
    """One motion or a list of motions as a list."""
    if not isinstance(data, list | tuple):
        return [data]
    if not 1 <= len(data) <= MAX_POSES:
        raise InputError(f"{len(data)} motions are to be drawn side by side; give 1 to {MAX_POSES}")
    return data


def _write(output_path: str | Path, render: Callable[[], Iterator[np.ndarray]], fps: float) -> list[Path]:
    path = Path(output_path)
    paths = [path] if path.suffix else [path.with_name(f"{path.name}.mp4"), path.with_name(f"{path.name}.gif")]
    return [write_video(each, render(), fps) for each in paths]  # drawn anew for each: frames are never all in memory
