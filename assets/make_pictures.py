"""Create the pictures of the README with the shipped checkpoint: strips of poses, an animation, web app and gallery.

    python -m assets.make_pictures

Writes demo.png, demo.gif, app.png and gallery.png into assets. The last two are screenshots of Chromium and need the
packages of requirements-dev.txt.
"""

import utils.interrupt  # noqa: F401

# isort: split

import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

from models.pipeline import Motion, TextToMotion
from motion.clip import Clip
from motion.resample import FPS
from utils.errors import exit_on_input_error
from utils.files import atomic_write
from utils.prompts import read_prompts
from visualize.page import write_gallery
from visualize.smplx import draw_strip, render_body
from visualize.video import write_gif

ROOT = Path(__file__).resolve().parent.parent
ASSETS = ROOT / "assets"
STRIPS = (
    "a person walks and turns left",
    "a person runs forward",
    "a woman waves with both hands",
    "someone takes a deep bow",
)
ANIMATED = ("a person runs forward", "a woman waves with both hands", "a person walks and turns left")
GIF_SECONDS, GIF_FPS, GIF_SIZE = 2.4, 15, (240, 280)
STEPS = np.linspace(0, 1, 30)  # of a drawn path
COLORS = 128  # palette size of the PNG files
BROWSER = ["--no-sandbox", "--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"]


def main() -> None:
    model = TextToMotion.from_pretrained(ROOT / "checkpoints" / "demo")
    listed = [item.prompt for item in read_prompts(ASSETS / "demo_prompts.txt", 0, 1)]
    prompts = list(dict.fromkeys((*listed, *STRIPS, *ANIMATED)))
    motions = dict(zip(prompts, model.generate(prompts, [0] * len(prompts)), strict=True))
    with tempfile.TemporaryDirectory() as name:
        strips(motions, Path(name))
        animation(motions)
        screenshots(motions, Path(name))


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


def screenshots(motions: dict[str, Motion], folder: Path) -> None:
    """Write app.png and gallery.png."""
    from playwright.sync_api import expect, sync_playwright

    write_gallery(folder / "gallery.html", [Clip(motion.smplx85, prompt) for prompt, motion in motions.items()])
    command = [sys.executable, ROOT / "app.py", "--port", "0"]
    server = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    try:
        address = next(found[0] for line in server.stdout if (found := re.search(r"http://\S+", line)))
        with sync_playwright() as play:
            browser = play.chromium.launch(executable_path=shutil.which("chromium"), args=BROWSER)
            page = browser.new_page(viewport={"width": 1100, "height": 620})
            page.goto(address)
            page.locator("textarea").fill("a person walks forward\na person waves with both hands")
            page.get_by_label("Seconds per sentence").fill("3")
            page.get_by_text("Draw path").click()
            draw_curve(page)
            for pinned in (True, False):
                page.get_by_text("Generate", exact=True).click()
                expect(page.get_by_role("button", name="Stop")).to_be_disabled(timeout=180_000)
                expect(page.get_by_role("status")).to_have_text(re.compile("Done"))
                page.get_by_label("pause").click()
                page.get_by_label("time", exact=True).fill("1.2" if pinned else "2.4")
                if pinned:
                    page.get_by_text("Pin pose").click()
            save_screenshot(page, "app.png", 4)
            page.goto((folder / "gallery.html").as_uri())
            save_screenshot(page, "gallery.png", 12)
            browser.close()
    finally:
        server.terminate()
        server.wait()


def draw_curve(page) -> None:
    """Draw a path from the left to the right of the stage."""
    box = page.locator(".view canvas").bounding_box()
    along, across = 0.3 + 0.3 * STEPS, 0.5 - 0.1 * STEPS**2  # shares of the stage
    places = list(zip(box["x"] + box["width"] * along, box["y"] + box["height"] * across, strict=True))
    page.mouse.move(*places[0])
    page.mouse.down()
    for place in places:
        page.mouse.move(*place)
    page.mouse.up()


def save_screenshot(page, name: str, seconds: float) -> None:
    """Save a screenshot after some seconds, which software WebGL needs to draw."""
    page.wait_for_timeout(1000 * seconds)
    with tempfile.NamedTemporaryFile(suffix=".png") as file:
        page.screenshot(path=file.name)
        save(Image.open(file.name).convert("RGB"), name)


def save(picture: Image.Image, name: str) -> None:
    """Save a picture into assets with a palette."""
    with atomic_write(ASSETS / name) as file:
        picture.quantize(COLORS).save(file, optimize=True)
    print(ASSETS / name)


if __name__ == "__main__":
    with exit_on_input_error():
        main()
