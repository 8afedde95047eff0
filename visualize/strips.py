"""Poses of a motion side by side: strips, and contact sheets with a strip per motion.

All poses are seen from the same direction, so that only the motion turns them.
"""

from collections.abc import Iterable, Sequence
from itertools import islice
from pathlib import Path

import numpy as np

from utils.errors import InputError
from visualize.actors import Actor, body_actor, render_placed
from visualize.body import Body, load_body
from visualize.camera import FLESH, SIDE, place_far_camera, view_axes
from visualize.options import MAX_PEOPLE, MAX_SIDE
from visualize.results import SHEET, check_own, saved_motions
from visualize.video import Title, check_size, write_png

ROOM = 0.4  # metres between the joints of neighbours in a strip, of which stretched hands take almost all
TALL = 2.6  # metres that fit into the height of a picture of a standing person
TILE, GAP, COLUMNS = (480, 270), 4, 4  # of a contact sheet: size of a strip and space between them, in pixels
TILE_POSES, TILE_FONT = 4, 17
MAX_TILES = 60
SHEET_MARK = "contact sheet of text-to-motion"  # in the file, which distinguishes it from other pictures


def write_strip(
    actor: Actor,
    title: str | None,
    output_path: str | Path,
    poses: int = 6,
    height: int = 512,
    width: int | None = None,
) -> Path:
    """Draw poses of a person, evenly spaced in time, side by side into one PNG; see ``draw_strip``."""
    if Path(output_path).suffix.lower() != ".png":
        raise InputError(f"{output_path} does not end in .png; a strip of poses is a PNG picture")
    if not 1 <= poses <= MAX_PEOPLE:
        raise InputError(f"the number of poses is {poses}; give 1 to {MAX_PEOPLE}")
    people = [actor.at(moment) for moment in np.linspace(0, len(actor.joints) - 1, poses).round().astype(int)]
    if width is None:
        joints = _side_by_side(people)
        metres = (np.ptp(joints @ view_axes(joints[0])[0]) + 2 * FLESH) / SIDE
        width = min(MAX_SIDE, round(height * max(1, metres / TALL)))
    check_size((width, height))
    return write_png(output_path, _draw(people, (width, height), title, None))


def write_sheet(output_path: str | Path, titles: Sequence[str], actors: Iterable[Actor]) -> Path:
    """Draw a contact sheet: a titled strip per person, of the poses that differ the most.

    Args:
        output_path: PNG to write.
        titles: Text of each strip.
        actors: The people, in the order of the titles.

    Raises:
        InputError: no motions, too many, or a target that cannot be written.
    """
    if not 1 <= len(titles) <= MAX_TILES:
        raise InputError(f"{len(titles)} motions are given for a contact sheet; give 1 to {MAX_TILES}, or write .html")
    columns = min(COLUMNS, len(titles))
    rows = -(-len(titles) // columns)
    width, height = (side + GAP for side in TILE)
    sheet = np.full((rows * height - GAP, columns * width - GAP, 3), 255, np.uint8)
    for number, (title, actor) in enumerate(zip(titles, actors, strict=True)):
        top, left = number // columns * height, number % columns * width
        people = [actor.at(moment) for moment in telling_moments(actor.joints, TILE_POSES)]
        sheet[top : top + TILE[1], left : left + TILE[0]] = _draw(people, TILE, title, TILE_FONT)
    return write_png(output_path, sheet, SHEET_MARK)


def write_results_sheet(folder: Path, body: Body | None = None) -> Path:
    """Write ``contact_sheet.png`` with the first MAX_TILES motions that ``saved_motions`` finds in ``results.json``.

    Raises:
        InputError: as in ``write_sheet``, or a file in its place is of another program.
    """
    check_own_sheet(folder)
    body = body or load_body()
    clips = [clip for clip, _ in islice(saved_motions(folder, SHEET), MAX_TILES)]
    return write_sheet(folder / SHEET, [clip.title for clip in clips], (body_actor(body, clip) for clip in clips))


def check_own_sheet(folder: Path) -> None:
    """Raise InputError if ``contact_sheet.png`` exists and is a picture of another program."""
    check_own(folder / SHEET, SHEET_MARK)


def telling_moments(joints: np.ndarray, poses: int) -> list[int]:
    """Return the frame numbers, in order, of the poses that differ the most from each other.

    The first one differs the most from the mean pose, and each of the others from those chosen before.

    Args:
        joints: (T, 22, 3) joint positions in metres; the place on the floor does not count, the height does.
        poses: Number of poses; a shorter clip gives as many as it has frames.
    """
    shapes = (joints - joints[:, :1] * (1, 0, 1)).reshape(len(joints), -1)
    chosen = [int(np.linalg.norm(shapes - shapes.mean(axis=0), axis=1).argmax())]
    while len(chosen) < min(poses, len(joints)):
        nearest = np.linalg.norm(shapes[:, None] - shapes[chosen], axis=-1).min(axis=1)  # (T,)
        chosen.append(int(nearest.argmax()))
    return sorted(chosen)


def _draw(people: Sequence[Actor], size: tuple[int, int], title: str | None, font: int | None) -> np.ndarray:
    """Return a (H, W, 3) uint8 picture of people of one frame side by side."""
    joints = _side_by_side(people)
    steps = joints[:, 0] - [person.joints[0, 0] for person in people]  # (P, 3)
    frame = next(render_placed(people, steps, place_far_camera(joints, *size)))
    Title(title, *size, font).draw(frame)
    return frame


def _side_by_side(people: Sequence[Actor]) -> np.ndarray:
    """Return the joints (P, 22, 3) of people of one frame, moved side by side so that no two of them overlap."""
    joints = np.stack([person.joints[0] for person in people])  # (P, 22, 3)
    right = view_axes(joints[0])[0]
    across = (joints - joints[:, :1]) @ right  # (P, 22) from the pelvis
    places = np.cumsum([0, *(across.max(axis=1)[:-1] - across.min(axis=1)[1:] + ROOM)])
    return joints + ((places[:, None] * right - joints[:, 0]) * (1, 0, 1))[:, None]
