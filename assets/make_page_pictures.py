"""Create the screenshots of the pages with the shipped checkpoint: web app, player and gallery.

    python -m assets.make_page_pictures

Writes app.png, app_dark.png, app_phone.png, player.png, gallery.png and gallery_phone.png into assets. Needs Chromium
and the packages of requirements-dev.txt.
"""

import utils.interrupt  # noqa: F401

# isort: split

import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image

from assets.make_pictures import ASSETS, ROOT, save
from models.pipeline import TextToMotion
from motion.clip import Clip
from utils.errors import exit_on_input_error
from utils.prompts import read_prompts
from visualize.page import write_gallery, write_player

SENTENCES = "a person walks forward | a person waves with both hands"
PATIENCE, SETTLED = 180, 4  # seconds: for a step of the browser, between two equal screenshots
STEPS = np.linspace(0, 1, 12)  # of a drawn path
BROWSER = ["--no-sandbox", "--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"]
DESKTOP, PHONE = {"width": 1100, "height": 720}, {"width": 390, "height": 844}


def main() -> None:
    from playwright.sync_api import sync_playwright

    with tempfile.TemporaryDirectory() as name, app() as address, sync_playwright() as play:
        player, gallery = pages(Path(name))
        browser = play.chromium.launch(executable_path=shutil.which("chromium"), args=BROWSER)
        page = browser.new_page(viewport=DESKTOP, reduced_motion="reduce")  # nothing plays by itself
        page.set_default_timeout(1000 * PATIENCE)
        page.goto(address)
        edit(page)
        save_screenshot(page, "app.png")
        page.emulate_media(color_scheme="dark")
        save_screenshot(page, "app_dark.png")
        page.emulate_media(color_scheme="light")
        page.set_viewport_size(PHONE)
        save_screenshot(page, "app_phone.png")
        page.set_viewport_size(DESKTOP)
        page.goto(player)
        page.get_by_label("time", exact=True).fill("1.5")
        save_screenshot(page, "player.png")
        page.goto(gallery)
        save_screenshot(page, "gallery.png")
        page.set_viewport_size(PHONE)
        page.emulate_media(color_scheme="dark")
        save_screenshot(page, "gallery_phone.png")
        browser.close()


@contextmanager
def app() -> Iterator[str]:
    """Context manager of the web app; yields its address."""
    command = [sys.executable, ROOT / "app.py", "--port", "0"]
    server = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None
        yield next(found[0] for line in server.stdout if (found := re.search(r"http://\S+", line)))
    finally:
        server.terminate()
        server.wait()


def pages(folder: Path) -> tuple[str, str]:
    """Write a player and a gallery of the demo prompts; returns their addresses."""
    model = TextToMotion.from_pretrained(ROOT / "checkpoints" / "demo")
    prompts = list(dict.fromkeys(item.prompt for item in read_prompts(ASSETS / "demo_prompts.txt", 0, 1)))
    motions = model.generate(prompts, [0] * len(prompts))
    clips = [Clip(motion.smplx85, prompt) for prompt, motion in zip(prompts, motions, strict=True)]
    player = write_player(folder / "player.html", clips[:2])
    return player.as_uri(), write_gallery(folder / "gallery.html", clips).as_uri()


def edit(page) -> None:
    """Generate motion on a path, pin a pose of it, and generate it again."""
    from playwright.sync_api import expect

    page.get_by_label("Sentence 1", exact=True).fill(SENTENCES)
    for field in page.get_by_label("Seconds of sentence").all():
        field.fill("3")
    page.get_by_text("Draw path").click()
    draw_curve(page)
    for is_pinned in (True, False):
        page.get_by_text("Generate", exact=True).click()
        expect(page.get_by_role("button", name="Stop")).to_be_disabled(timeout=1000 * PATIENCE)
        expect(page.get_by_role("status")).to_have_text(re.compile("Done"))
        page.get_by_label("time", exact=True).fill("1.2" if is_pinned else "2.4")
        if is_pinned:
            page.get_by_text("Pin pose").click()


def draw_curve(page) -> None:
    """Draw a path from the left to the right of the stage."""
    from playwright.sync_api import expect

    box = page.locator(".view canvas").bounding_box()
    along, across = 0.28 + 0.4 * STEPS, 0.5 - 0.1 * STEPS**2  # shares of the stage
    places = list(zip(box["x"] + box["width"] * along, box["y"] + box["height"] * across, strict=True))
    page.mouse.move(*places[0])
    page.mouse.down()
    for place in places:
        page.mouse.move(*place)
    page.mouse.up()
    expect(page.get_by_role("button", name="Clear path")).to_be_visible(timeout=1000 * PATIENCE)


def save_screenshot(page, name: str) -> None:
    """Save a screenshot of a page that does not change any more; software WebGL takes seconds to draw."""
    before, now = b"", page.screenshot()
    while now != before:
        page.wait_for_timeout(1000 * SETTLED)
        before, now = now, page.screenshot()
    save(Image.open(BytesIO(now)).convert("RGB"), name)


if __name__ == "__main__":
    with exit_on_input_error():
        main()
