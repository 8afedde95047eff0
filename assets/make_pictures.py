"""Create the pictures of the README with the shipped checkpoint: strips of poses and an animation.

    python -m assets.make_pictures

Writes demo.png and demo.gif into assets.
"""

import utils.interrupt  # noqa: F401

# isort: split

import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

from models.pipeline import Motion, TextToMotion
from motion.resample import FPS
from utils.errors import exit_on_input_error
from utils.files import atomic_write
from visualize.smplx import draw_strip, render_body
from visualize.video import write_gif

ROOT = Path(__file__).resolve().parent.parent
ASSETS = ROOT / "assets"
STRIPS = (
    "a person does a backflip",
    "a person does a cartwheel",
    "someone does a spin kick",
    "a fighter swings a sword with both hands",
)
ANIMATED = ("a person dances salsa", "someone does a spin kick", "someone walks like a zombie")
GIF_SECONDS, GIF_FPS, GIF_SIZE = 2.4, 15, (240, 280)
COLORS = 128  # palette size of the PNG files


def main() -> None:
    model = TextToMotion.from_pretrained(ROOT / "checkpoints" / "demo")
    prompts = list(dict.fromkeys((*STRIPS, *ANIMATED)))
    motions = dict(zip(prompts, model.generate(prompts, [0] * len(prompts)), strict=True))
    with tempfile.TemporaryDirectory() as name:
        strips(motions, Path(name))
        animation(motions)


def strips(motions: dict[str, Motion], folder: Path) -> None:
    """Write demo.png: one row of poses per sentence."""
    rows = []
    for number, prompt in enumerate(STRIPS):
        path = folder / f"{number}.png"
        draw_strip(motions[prompt].smplx85, prompt, path, poses=7, height=300, width=900)
        rows.append(np.asarray(Image.open(path)))
    save(Image.fromarray(np.concatenate(rows)), "demo.png")


def animation(motions: dict[str, Motion]) -> None:
    """Write demo.gif: three motions in three panels."""
    moments = slice(0, round(GIF_SECONDS * FPS), FPS // GIF_FPS)
    panels = [render_body(motions[prompt].smplx85[moments], prompt, GIF_FPS, GIF_SIZE) for prompt in ANIMATED]
    frames = (np.concatenate(frame, axis=1) for frame in zip(*panels, strict=False))
    print(write_gif(ASSETS / "demo.gif", frames, GIF_FPS))


def save(picture: Image.Image, name: str) -> None:
    """Save a picture into assets with a palette."""
    with atomic_write(ASSETS / name) as file:
        picture.quantize(COLORS).save(file, optimize=True)
    print(ASSETS / name)


if __name__ == "__main__":
    with exit_on_input_error():
        main()
