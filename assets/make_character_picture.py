"""Create the picture of characters: one motion of the shipped checkpoint on the mannequin and on your characters.

    python -m assets.make_character_picture hero.glb other.glb

Writes characters.png into assets, with a row of poses for the mannequin and for each character.
"""

import utils.interrupt  # noqa: F401

# isort: split

import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

from assets.make_pictures import ROOT, save
from characters.character import load_character
from models.pipeline import TextToMotion
from utils.errors import exit_on_input_error
from visualize.actors import body_actor
from visualize.body import load_body
from visualize.character import CharacterMesh
from visualize.strips import write_strip

SENTENCE, POSES, HEIGHT, WIDTH = "a woman waves with both hands", 7, 300, 900


def main(characters: list[str]) -> None:
    model = TextToMotion.from_pretrained(ROOT / "checkpoints" / "demo")
    motion = model.generate([SENTENCE], [0])[0].smplx85
    people = [CharacterMesh(load_character(path)).perform(motion) for path in characters]
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for number, actor in enumerate([body_actor(load_body(), motion), *people]):
            path = Path(folder) / f"{number}.png"
            write_strip(actor, "" if number else SENTENCE, path, POSES, HEIGHT, WIDTH)
            rows.append(np.asarray(Image.open(path)))
    save(Image.fromarray(np.concatenate(rows)), "characters.png")


if __name__ == "__main__":
    with exit_on_input_error():
        main(sys.argv[1:])
