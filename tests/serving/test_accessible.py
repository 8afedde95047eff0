"""axe-core finds nothing on the pages: on a desktop, light and dark, on a phone, and at a zoom of 200 %."""

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from models.known import Action, Closest
from motion.clip import Clip
from tests.browser import wait_for, watched_page, write_sentences
from visualize.page import write_gallery, write_player

AXE = Path(__file__).parents[2] / ".venv/npm/node_modules/axe-core/axe.min.js"
SIZES = [  # width and height of the page in CSS pixels; a zoom of 200 % halves them
    ("desktop", 1280, 760, "light"),
    ("desktop", 1280, 760, "dark"),
    ("phone", 390, 780, "light"),
    ("zoom", 640, 380, "light"),
]
RULES = {
    "runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"],
    "rules": {"target-size": {"enabled": True}},
}
SMALL = """() => [...document.querySelectorAll("button, a, input, select, textarea, [role=slider]")]
  .filter((each) => each.checkVisibility() && !each.closest("[hidden]"))
  .filter((each) => Math.min(each.getBoundingClientRect().width, each.getBoundingClientRect().height) < 24)
  .map((each) => each.outerHTML.slice(0, 120))"""


@pytest.fixture
def page(browser):
    """A large page without scripts of its own policy, which would keep axe-core out."""
    if not AXE.is_file():
        pytest.skip("axe-core not installed; `make browser` installs it")
    yield from watched_page(browser, 1280, 760, bypass_csp=True)


def check(page) -> None:
    """Run axe-core in all sizes, and measure the targets."""
    page.evaluate(AXE.read_text())
    for name, width, height, scheme in SIZES:
        page.set_viewport_size({"width": width, "height": height})
        page.emulate_media(color_scheme=scheme)
        found = page.evaluate("rules => axe.run(document, rules)", RULES)["violations"]
        facts = [(each["id"], each["help"], [node["html"][:200] for node in each["nodes"]]) for each in found]
        assert not facts, f"{name}, {scheme}: {json.dumps(facts, indent=1)}"
        assert page.evaluate(SMALL) == [], name


def test_the_app(server, model, page):
    model.known = SimpleNamespace(
        actions=[Action(name, f"a person does the {name}") for name in ("bow", "walk", "run")]
    )
    model.near = {"fly": Closest("fly", "a person jumps", 0.4)}
    model.go.set()
    client, _ = server()
    page.goto(str(client.base_url))
    page.locator("[name=variations]").fill("2")
    write_sentences(page, "walk\nfly")
    page.get_by_role("button", name="Generate").click()
    wait_for(page, lambda: page.get_by_role("status").inner_text().startswith("Done"))
    page.get_by_role("button", name="pause").click()
    page.get_by_role("button", name="Pin pose").click()
    page.locator(".bar").first.click()
    check(page)


def test_the_player_and_the_gallery(page, tmp_path):
    data = np.zeros((10, 85))
    data[:, 73] = 0.95
    clips = [Clip(data, f"person number {number}") for number in range(3)]
    write_player(tmp_path / "player.html", clips)
    page.goto((tmp_path / "player.html").as_uri())
    page.get_by_role("button", name="pause").click()
    check(page)
    write_gallery(tmp_path / "gallery.html", clips)
    page.goto((tmp_path / "gallery.html").as_uri())
    check(page)
    page.locator(".card").first.click()
    page.keyboard.press("Space")  # pauses, with the focus on the stage
    assert page.get_by_role("button", name="play", exact=True).count() == 1
    check(page)
