"""The known actions and the closest known captions on the page of the web app, in a browser."""

from types import SimpleNamespace

import pytest

from models.known import Action, Closest
from tests.browser import wait_for

NAMES = ["walk", "bow", "walk left", "walk <b>back</b>", "jump", *(f"dance {number}" for number in range(60))]


@pytest.fixture
def app(server, model, page):
    """The page of an app whose model knows many actions and answers at once."""
    model.known = SimpleNamespace(actions=[Action(name, f"a person does the {name}") for name in NAMES])
    model.near = {"plays the violin": Closest("plays the violin", "a person <i>jumps</i>", 0.412)}
    model.go.set()
    client, _ = server()
    page.set_viewport_size({"width": 720, "height": 600})
    page.goto(str(client.base_url))
    return page


def chip(page, name: str):
    return page.get_by_role("toolbar", name="Known actions").get_by_role("button", name=name, exact=True)


def test_a_chip_fills_the_line_of_the_caret(app, model):
    text = app.locator("textarea")
    chip(app, "jump").click()
    assert text.input_value() == "a person does the jump"
    text.press("End")
    text.press("Enter")
    chip(app, "walk <b>back</b>").click()
    assert text.input_value() == "a person does the jump\na person does the walk <b>back</b>"
    text.press("Control+Home")
    chip(app, "bow").click()
    assert text.input_value() == "a person does the bow\na person does the walk <b>back</b>"
    assert app.locator(".bar").count() == 2  # the timeline has the sentences
    app.get_by_role("button", name="Undo").click()
    assert text.input_value().startswith("a person does the jump\n")


def test_chips_are_grouped_large_enough_and_reached_by_the_keyboard(app):
    chips = app.get_by_role("toolbar", name="Known actions")
    groups = [group.get_attribute("aria-label") for group in chips.get_by_role("group").all()]
    assert groups == ["various", "dance", "walk"]
    shown = [button.inner_text() for button in chips.get_by_role("button").all()]
    assert shown[:3] == ["bow", "jump", "dance 0"] and sorted(shown) == sorted(NAMES)  # text, not HTML
    assert shown.index("dance 2") < shown.index("dance 10")
    boxes = [button.bounding_box() for button in chips.get_by_role("button").all()]
    assert min(min(box["width"], box["height"]) for box in boxes) >= 24
    assert chips.evaluate("list => list.scrollHeight > 2 * list.clientHeight && list.clientHeight < 300")

    app.locator("textarea").focus()
    app.keyboard.press("Tab")  # one stop for all chips
    for key in ("End", "ArrowLeft", "ArrowUp", "ArrowRight", "ArrowDown"):
        app.keyboard.press(key)
    last = chip(app, "walk left")
    assert last.evaluate("button => button === document.activeElement")
    list_box, box = chips.bounding_box(), last.bounding_box()
    assert list_box["y"] <= box["y"] and box["y"] + box["height"] <= list_box["y"] + list_box["height"]  # scrolled
    app.keyboard.press("Enter")
    assert app.locator("textarea").input_value() == "a person does the walk left"
    app.keyboard.press("Tab")
    assert app.locator("[name=seed]").evaluate("input => input === document.activeElement")


def test_the_closest_known_caption_stands_by_a_far_sentence(app):
    app.locator("textarea").fill("walk\nplays the violin")
    app.get_by_role("button", name="Generate").click()
    wait_for(app, lambda: app.get_by_role("status").inner_text().startswith("Done"))
    far = app.locator("#far p")
    assert far.count() == 1 and "closest known: a person <i>jumps</i> (0.41)" in far.inner_text()
    assert "plays the violin" in far.inner_text() and app.locator("#far").get_attribute("aria-live") == "polite"
    contrast = far.evaluate(CONTRAST), chip(app, "bow").evaluate(CONTRAST), app.locator(".known p").evaluate(CONTRAST)
    assert min(contrast) > 4.5  # WCAG AA
    app.locator("textarea").fill("walk")
    app.get_by_role("button", name="Generate").click()
    wait_for(app, lambda: app.get_by_role("status").inner_text().startswith("Done"))
    assert far.count() == 0


CONTRAST = """element => {
  const light = (colour) => {
    const [r, g, b] = colour.match(/[0-9.]+/g).map((value) => value / 255)
      .map((value) => (value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  let behind = element;
  while (getComputedStyle(behind).backgroundColor === "rgba(0, 0, 0, 0)") behind = behind.parentElement;
  const values = [getComputedStyle(element).color, getComputedStyle(behind).backgroundColor].map(light);
  return (Math.max(...values) + 0.05) / (Math.min(...values) + 0.05);
}"""


def test_a_model_without_actions_has_no_list(server, page):
    client, _ = server()
    page.goto(str(client.base_url))
    assert page.get_by_role("toolbar").count() == 1 and page.locator(".known").inner_text() == ""
