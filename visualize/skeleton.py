"""Skeleton renderer: coloured limbs and their shadow, floor grid and trajectory, drawn by matplotlib's Agg renderer.

Points are projected here, so a frame is a few dozen 2-D paths without figure, axes or artists. No state is shared:
several threads and processes can draw at the same time.
"""

from collections.abc import Iterator, Sequence

import numpy as np
from matplotlib.backend_bases import GraphicsContextBase
from matplotlib.backends.backend_agg import RendererAgg
from matplotlib.colors import to_rgb
from matplotlib.path import Path
from matplotlib.transforms import Affine2D

from motion.resample import FPS, check_fps
from motion.skeleton import JOINT_INDEX, JOINTS, LIMBS
from utils.errors import InputError
from visualize.camera import Camera, hold_last_frame, place_camera, side_by_side, standing_height
from visualize.video import Title, check_size, write_video

LIMB_COLORS = {
    "spine": "#3f4756",
    "left_leg": "#2f7fd6",
    "right_leg": "#e0523f",
    "left_arm": "#4fb3e8",
    "right_arm": "#f2904c",
}
BACKGROUND, GRID, SHADOW, TRAJECTORY = "#f4f6f8", "#d3d9e0", "#c3cad3", "#7f8ea3"
PAPER = np.uint8([*(255 * np.array(to_rgb(BACKGROUND))).round(), 255])  # RGBA
HEAD = JOINT_INDEX["head"]
# Joints (B, 2) and colours (B,) of the bones.
BONES = np.array([bone for chain in LIMBS.values() for bone in zip(chain[:-1], chain[1:], strict=True)])
BONE_COLORS = np.array([LIMB_COLORS[name] for name, chain in LIMBS.items() for _ in chain[1:]])
GRID_STEP = 0.5  # metres
GRID_RADIUS = 0.8  # share of the camera's distance: below 1, so that no line passes behind the camera
TRAIL = 10.0  # seconds: length of the trajectory
DPI = 100


def plot_3d_motion(
    args: Sequence,
    title: str | None = None,
    fps: float = FPS,
    size: tuple[int, int] = (512, 512),
    floor: float | None = None,
    camera: str = "follow",
) -> np.ndarray:
    """Draw a motion, with the calling convention of T2M-GPT and its successors.

    Args:
        args: ``[joints, path, title]``: (T, 22, 3) positions in metres, y up, or a list of several motions, which are
            drawn side by side; the ``.mp4`` or ``.gif`` to write, or None; the title, or None.
        title: Title if ``args`` has none.
        fps: Frames per second of the motion.
        size: Width and height of the frames in pixels.
        floor: Height of the floor in metres; None estimates it from the lowest joints (``standing_height``).
        camera: ``follow`` moves with the people, ``fixed`` shows all of their path.

    Returns:
        (T, H, W, 3) uint8 frames.

    Raises:
        InputError: unusable joints, fps, size, camera or path.
    """
    joints, path, own_title = (*args, None, None)[:3]
    frames = np.stack(list(render_skeleton(joints, own_title or title, fps, size, floor, camera)))
    if path is not None:
        write_video(path, frames, fps)
    return frames


def render_skeleton(
    joints: np.ndarray | Sequence[np.ndarray],
    title: str | None = None,
    fps: float = FPS,
    size: tuple[int, int] = (512, 512),
    floor: float | None = None,
    camera: str = "follow",
) -> Iterator[np.ndarray]:
    """Return an iterator of (H, W, 3) uint8 frames; arguments and errors as in ``plot_3d_motion``."""
    check_fps(fps)
    check_size(size)
    several = isinstance(joints, list | tuple) and np.ndim(joints[0] if joints else joints) >= 3
    people = [check_joints(each) for each in (joints if several else [joints])]
    return skeleton_frames(people, title, fps, size, floor, camera)


def skeleton_frames(
    people: Sequence[np.ndarray],
    title: str | None,
    fps: float,
    size: tuple[int, int],
    floor: float | None,
    camera: str,
) -> Iterator[np.ndarray]:
    """Yield the frames of ``render_skeleton`` for validated (T, 22, 3) joints, fps and size."""
    lowest = [standing_height(each[..., 1].min(axis=1)) if floor is None else floor for each in people]
    steps = side_by_side([each[0] for each in people]) - np.multiply.outer(lowest, (0, 1, 0))  # (P, 3)
    longest = max(map(len, people))
    placed = np.stack([hold_last_frame(each, longest) + step for each, step in zip(people, steps, strict=True)], axis=1)
    yield from _draw(placed, Title(title, *size), fps, place_camera(placed, *size, fps=fps, camera=camera))


def check_joints(joints) -> np.ndarray:
    """Validate (T, 22, 3) or (1, T, 22, 3) joints, NumPy or torch, and return them as a (T, 22, 3) float64 array."""
    joints = np.asarray(joints.detach().cpu() if hasattr(joints, "detach") else joints)
    joints = joints[0] if joints.ndim == 4 and len(joints) == 1 else joints
    if joints.shape[1:] != (JOINTS, 3) or len(joints) == 0:
        raise InputError(f"joints have shape {joints.shape}; give (frames, {JOINTS}, 3) with at least one frame")
    if joints.dtype.kind not in "fiu" or not np.isfinite(joints).all():
        raise InputError("joints hold NaN, infinite or non-numeric values; repair or remove these frames")
    return joints.astype(np.float64)


def _draw(joints: np.ndarray, title: Title, fps: float, camera: Camera) -> Iterator[np.ndarray]:
    """Yield frames of (T, P, 22, 3) joints of P people on the floor y = 0."""
    width, height, people = camera.width, camera.height, joints.shape[1]
    ground = joints * (1, 0, 1)
    pixels, depths = (part.reshape(len(part), people * JOINTS, -1) for part in camera.project(joints))
    shadows = camera.project(ground)[0].reshape(pixels.shape)  # (T, P * 22, 2)
    grid_lines, _ = camera.project(_grid(ground[:, :, 0].mean(axis=1), GRID_RADIUS * camera.distance))  # (T, L, 2, 2)
    bone_joints = (BONES + JOINTS * np.arange(people)[:, None, None]).reshape(-1, 2)  # (P * B, 2)
    colors = np.tile(BONE_COLORS, people)
    order = depths[:, bone_joints, 0].mean(axis=-1).argsort(axis=1)[:, ::-1]  # (T, P * B): far bones first

    renderer = RendererAgg(width, height, DPI)
    canvas = np.asarray(renderer.buffer_rgba())  # (H, W, 4)
    to_pixels = Affine2D.from_values(1, 0, 0, -1, 0, height)  # y points up in matplotlib
    thick = height / 72  # pixels: width of a bone

    def pen(color: str, width: float) -> GraphicsContextBase:
        context = renderer.new_gc()
        context.set_foreground(color)
        context.set_linewidth(width)
        context.set_capstyle("round")
        context.set_snap(False)
        return context

    def draw_lines(context: GraphicsContextBase, ends: np.ndarray) -> None:  # (N, 2 ends, 2)
        codes = np.tile(np.uint8((Path.MOVETO, Path.LINETO)), len(ends))
        renderer.draw_path(context, Path(ends.reshape(-1, 2), codes), to_pixels)

    grid, shadow, trail = pen(GRID, 0.08 * thick), pen(SHADOW, 0.8 * thick), pen(TRAJECTORY, 0.35 * thick)
    bones, head = {color: pen(color, thick) for color in LIMB_COLORS.values()}, pen(LIMB_COLORS["spine"], 0)
    for frame in range(len(joints)):
        canvas.view(np.uint32).fill(PAPER.view(np.uint32)[0])  # many times faster than four bytes per pixel
        draw_lines(grid, grid_lines[frame])
        draw_lines(shadow, shadows[frame, bone_joints])
        past, past_depth = camera.at(frame).project(ground[None, max(0, frame - round(TRAIL * fps)) : frame + 1, :, 0])
        for person in range(people):
            renderer.draw_path(trail, Path(past[0, :, person][past_depth[0, :, person] > 0.5]), to_pixels)
        for bone in order[frame]:
            renderer.draw_path(bones[colors[bone]], Path(pixels[frame, bone_joints[bone]]), to_pixels)
        for x, y in pixels[frame, HEAD::JOINTS]:
            ball = Affine2D.from_values(1.3 * thick, 0, 0, 1.3 * thick, x, y)
            renderer.draw_path(head, Path.unit_circle(), ball + to_pixels, to_rgb(LIMB_COLORS["spine"]))
        picture = np.empty((height, width, 3), np.uint8)
        for channel in range(3):  # twice as fast as all channels at once
            picture[..., channel] = canvas[..., channel]
        title.draw(picture)
        yield picture


def _grid(middles: np.ndarray, radius: float) -> np.ndarray:
    """Return lines (T, L, 2 ends, 3) of a grid fixed in the world, within a disc around each of (T, 3) points."""
    count = int(radius / GRID_STEP)
    lines = np.empty((len(middles), 2, 2 * count, 2, 3))  # along z, along x
    for along, across in ((2, 0), (0, 2)):
        group = lines[:, across // 2]
        first = np.ceil(middles[:, across] / GRID_STEP) - count
        position = (first[:, None] + np.arange(2 * count)) * GRID_STEP  # (T, 2 * count)
        half = np.sqrt(np.maximum(radius**2 - (position - middles[:, across, None]) ** 2, 0))
        group[..., across] = position[..., None]
        group[..., along] = middles[:, along, None, None] + half[..., None] * (-1, 1)
        group[..., 1] = middles[:, 1, None, None]
    return lines.reshape(len(middles), -1, 2, 3)
