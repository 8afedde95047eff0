"""Make assets/demo.png, the picture of the README: four sentences, five moments of each motion.

python assets/make_demo_picture.py
"""

import sys
from pathlib import Path

import numpy as np
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from models.pipeline import TextToMotion
from visualize.smplx import render_body

PROMPTS = {  # prompt: seed
    "a person walks and turns left": 0,
    "a person runs forward": 0,
    "a woman waves with both hands": 0,
    "someone takes a deep bow": 0,
}
MOMENTS, SIZE = 5, (256, 320)


def main() -> None:
    model = TextToMotion.from_pretrained("checkpoints/demo")
    rows = []
    for motion in model.generate(list(PROMPTS), list(PROMPTS.values())):
        frames = list(render_body(motion.smplx85, motion.prompt, size=SIZE))
        chosen = np.linspace(0.05, 0.95, MOMENTS) * (len(frames) - 1)
        rows.append(np.concatenate([frames[round(moment)] for moment in chosen], axis=1))
    picture = np.concatenate(rows)  # (rows * H, MOMENTS * W, 3)
    Image.fromarray(picture).quantize(128).save("assets/demo.png", optimize=True)


if __name__ == "__main__":
    main()
