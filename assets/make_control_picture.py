"""Draw assets/control.png for docs/control.md: the floor from above, with origin, axes, facings and constraints.

python -m assets.make_control_picture
"""

import utils.interrupt  # noqa: F401

# isort: split

import io
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Circle, Ellipse
from PIL import Image

from control.constraints import Constraints, RootPath
from models.pipeline import TextToMotion
from motion.smplx import SMPLX85
from utils.errors import exit_on_input_error
from utils.files import atomic_write
from visualize.body import face_colors, floor_height, load_body
from visualize.camera import place_camera
from visualize.mesh import render_mesh

ASSETS = Path(__file__).resolve().parent
PATH = RootPath(((0.0, 0.0), (0.2, 1.2), (1.2, 2.2), (2.6, 2.4)), "spline", (0.0, 1.0, 2.2, 3.5))
WALKED = RootPath(((0.0, 0.0), (0.3, 1.4), (-0.6, 2.6), (0.2, 4.0)), "spline")
POSES, SIZE, CROPPED = 7, (1000, 420), 70  # number of poses; pixels, of which some are cut off at the top
RIBBON = 0.08  # metres
WAYPOINT, WAYPOINT_FACING = (-1.0, 1.6), 180.0
PIN = (2.5, 2.95)
INK, PATH_COLOR, POSE_COLOR, PIN_COLOR, GRID = "#3f4756", "#2f7fd6", "#e0523f", "#2e9e63", "#d3d9e0"


def main(checkpoint: Path = ASSETS.parent / "checkpoints" / "demo") -> None:
    draw_floor()
    draw_motion(TextToMotion.from_pretrained(checkpoint))


def draw_floor() -> None:
    """Draw the floor from above, with origin, axes, facings and constraints."""
    figure = Figure(figsize=(9, 6.2), dpi=100, facecolor="#f4f6f8")
    axes = figure.add_axes((0.01, 0.01, 0.98, 0.98))
    axes.set(xlim=(4.0, -2.9), ylim=(-1.2, 3.55), aspect="equal")  # x points to the left
    axes.axis("off")
    for line in np.arange(-4, 5, 0.5):
        axes.axhline(line, color=GRID, linewidth=0.8, zorder=0)
        axes.axvline(line, color=GRID, linewidth=0.8, zorder=0)
    draw_axes(axes)
    draw_compass(axes, (-2.0, 0.1))
    curve = PATH.curve()
    axes.plot(*curve.T, color=PATH_COLOR, linewidth=3, zorder=2)
    for (x, z), time in zip(PATH.points, PATH.times or (), strict=True):
        axes.plot(x, z, "o", color=PATH_COLOR, markersize=9, zorder=3)
        axes.annotate(f"{time:g} s", (x, z), (11, 7), textcoords="offset points", color=PATH_COLOR, fontsize=11)
    axes.annotate("path", curve[28], (-46, -6), textcoords="offset points", color=PATH_COLOR, fontsize=13)
    draw_person(axes, (0.0, 0.0), 0.0, INK)
    draw_person(axes, PATH.points[-1], 90.0, POSE_COLOR)
    label(axes, (3.85, 1.75), "keyframe\nplace: [2.6, 2.4]\nfacing: 90", POSE_COLOR)
    axes.plot(*PIN, "o", color=PIN_COLOR, markersize=9, zorder=4)
    label(axes, (3.3, 3.08), "pin of right_hand\nposition: [2.5, 1.2, 2.95]", PIN_COLOR)
    draw_person(axes, WAYPOINT, WAYPOINT_FACING, PATH_COLOR, alpha=0.45)
    label(axes, (-1.35, 1.65), "waypoint\nposition: [-1, 1.6]\nfacing: 180", PATH_COLOR)
    label(axes, (1.9, -0.62), "first frame: origin, facing +z", INK)
    content = io.BytesIO()
    FigureCanvasAgg(figure).print_png(content)
    save(Image.open(content), "control.png")


def draw_axes(axes: Axes) -> None:
    """Draw the x and z axis, and y, which points to the reader."""
    style = {"arrowstyle": "-|>", "linewidth": 2.2, "color": INK, "mutation_scale": 20}
    for end, name, place in (((1.0, 0.0), "+x", (1.2, -0.28)), ((0.0, 0.85), "+z", (-0.1, 0.68))):
        axes.annotate("", end, (0, 0), arrowprops=style)
        label(axes, place, name, INK, 14)
    axes.add_patch(Circle((3.0, -0.5), 0.09, fill=False, color=INK, linewidth=1.8))
    axes.plot(3.0, -0.5, "o", color=INK, markersize=4)
    label(axes, (3.8, -0.58), "+y, up", INK)


def draw_compass(axes: Axes, middle: tuple[float, float]) -> None:
    """Draw the directions of facings."""
    axes.add_patch(Circle(middle, 0.42, fill=False, color=INK, linewidth=1))
    for facing in (0, 90, 180, -90):
        way = direction(facing)
        axes.annotate(
            "",
            tuple(middle + 0.42 * way),
            middle,
            arrowprops={"arrowstyle": "-|>", "color": INK, "linewidth": 1.2},
        )
        x, z = middle + 0.62 * way
        axes.text(x, z, f"{facing}", color=INK, fontsize=12, ha="center", va="center")
    axes.text(middle[0], middle[1] - 0.95, "facing, degrees", color=INK, fontsize=12, ha="center", va="center")


def draw_person(axes: Axes, place: tuple[float, float], facing: float, color: str, alpha: float = 1.0) -> None:
    """Draw shoulders, head and direction of a person from above."""
    x, z = place
    axes.add_patch(Ellipse(place, 0.46, 0.22, angle=-facing, color=color, alpha=0.35 * alpha, zorder=3))
    axes.add_patch(Circle(place, 0.09, color=color, alpha=alpha, zorder=4))
    style = {"arrowstyle": "-|>", "color": color, "linewidth": 2, "mutation_scale": 15, "alpha": alpha}
    dx, dz = 0.42 * direction(facing)
    axes.annotate("", (x + dx, z + dz), place, arrowprops=style, zorder=4)


def direction(facing: float) -> np.ndarray:
    """Return x and z of the direction of a facing in degrees."""
    return np.array([np.sin(np.radians(facing)), np.cos(np.radians(facing))])


def label(axes: Axes, place: tuple[float, float], text: str, color: str, size: int = 12) -> None:
    """Write a text; its left bottom corner is at a place."""
    axes.text(*place, text, color=color, fontsize=size, va="bottom", ha="left", zorder=5)


def draw_motion(model: TextToMotion) -> None:
    """Draw poses of a motion where they are, and the path that it follows."""
    constraints = Constraints(path=WALKED)
    motion = model.generate(["a person walks"], seeds=[0], constraints=[constraints])[0]
    body, moments = load_body(), np.linspace(0, len(motion.smplx85) - 1, POSES).round().astype(int)
    poses = motion.smplx85[moments].astype(np.float64)
    poses[:, SMPLX85["translation"]] -= (0, floor_height(body, motion.smplx85), 0)
    ribbon, ribbon_faces = ribbon_of(WALKED.curve())
    vertices = np.concatenate([*body.vertices(poses), ribbon])
    faces = np.concatenate([body.faces + person * len(body.colors) for person in range(POSES)])
    faces = np.concatenate([faces, ribbon_faces + POSES * len(body.colors)])
    path_colors = np.tile(to_rgb(PATH_COLOR), (len(ribbon_faces), 3, 1))
    colors = np.concatenate([np.tile(face_colors(body), (POSES, 1, 1)), path_colors])  # (F, 3, 3)
    camera = place_camera(body.joints(poses)[None], *SIZE)
    [frame] = render_mesh([vertices], faces, colors, camera)
    save(Image.fromarray(frame[CROPPED:]), "control_path.png")


def ribbon_of(line: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return vertices (2 P, 3) and faces of a band on the floor along a line (P, 2)."""
    across = np.gradient(line, axis=0)[:, ::-1] * (1, -1)
    across *= RIBBON / 2 / np.linalg.norm(across, axis=-1, keepdims=True)
    sides = np.stack([line + across, line - across], axis=1).reshape(-1, 2)  # (2 P, 2)
    first = 2 * np.arange(len(line) - 1)[:, None, None]
    faces = (first + np.array([[0, 1, 2], [1, 3, 2]])).reshape(-1, 3)  # counter-clockwise from above
    return np.insert(sides, 1, 0.01, axis=1), faces


def save(picture: Image.Image, name: str) -> None:
    """Save a picture with a palette."""
    with atomic_write(ASSETS / name) as file:
        picture.convert("RGB").quantize(128).save(file, optimize=True)
    print(ASSETS / name)


if __name__ == "__main__":
    with exit_on_input_error():
        main()
