"""Create the picture of docs/editing.md: strips of edited motions of the shipped checkpoint.

    python -m assets.make_editing_picture

Writes editing.png into assets.
"""

import utils.interrupt  # noqa: F401

# isort: split

import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

from assets.make_pictures import ROOT, save
from editing.generate import between, complete, redo
from models.pipeline import TextToMotion
from motion.clip import Clip
from utils.errors import exit_on_input_error
from visualize.smplx import draw_strip

WALK, WAVE = "a person walks forward", "a person waves with both hands"
RAISE = "a person raises the right hand"


def main() -> None:
    model = TextToMotion.from_pretrained(ROOT / "checkpoints" / "demo")
    walk, wave = (
        Clip(motion.smplx85, motion.prompt) for motion in model.generate([WALK, WAVE], [0, 0], seconds=[3.0, 3.0])
    )
    results = {
        f"redo: {WALK}, 1 to 2.5 s again: {RAISE}": redo(model, walk, RAISE, 1.0, 2.5, place="free"),
        f"between: {WALK}, 1.5 s: a person walks and turns left, {WAVE}": between(
            model, walk, wave, "a person walks and turns left", 1.5
        ),
        f"complete: the upper body of: {WAVE}, the rest: {WALK}": complete(model, wave, ["upper_body"], WALK),
    }
    with tempfile.TemporaryDirectory() as folder:
        strips = [
            draw_strip(clip, title, Path(folder) / f"{number}.png", poses=10, height=300, width=1215)
            for number, (title, clip) in enumerate(results.items())
        ]
        save(Image.fromarray(np.concatenate([np.asarray(Image.open(path)) for path in strips])), "editing.png")


if __name__ == "__main__":
    with exit_on_input_error():
        main()
