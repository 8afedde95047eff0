"""The known actions and the closest known captions on the page of the web app, in a browser."""

from types import SimpleNamespace

import pytest

from models.known import Action, Closest
from tests.browser import sentences_of, wait_for, write_sentences

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


def test_a_chip_fills_the_sentence_edited_last(app):
    chip(app, "jump").click()
    assert sentences_of(app) == ["a person does the jump"]
    app.get_by_label("Sentence 1", exact=True).press("End")
    app.keyboard.press("Enter")
    chip(app, "walk <b>back</b>").click()
    assert sentences_of(app) == ["a person does the jump", "a person does the walk <b>back</b>"]
    app.get_by_label("Sentence 1", exact=True).focus()
    chip(app, "bow").click()
    assert sentences_of(app) == ["a person does the bow", "a person does the walk <b>back</b>"]
    assert app.locator(".bar").count() == 2  # the timeline has the sentences
    app.get_by_role("button", name="Undo").click()
    assert sentences_of(app)[0] == "a person does the jump"


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

    app.locator("[name=seed]").focus()
    app.keyboard.press("Shift+Tab")  # one stop for all chips
    for key in ("End", "ArrowLeft", "ArrowUp", "ArrowRight", "ArrowDown"):
        app.keyboard.press(key)
    last = chip(app, "walk left")
    assert last.evaluate("button => button === document.activeElement")
    list_box, box = chips.bounding_box(), last.bounding_box()
    assert list_box["y"] <= box["y"] and box["y"] + box["height"] <= list_box["y"] + list_box["height"]  # scrolled
    app.keyboard.press("Enter")
    assert sentences_of(app) == ["a person does the walk left"]
    app.keyboard.press("Tab")
    assert app.locator("[name=seed]").evaluate("input => input === document.activeElement")


def generate(app, text: str) -> None:
    write_sentences(app, text)
    app.get_by_role("button", name="Generate").click()
    wait_for(app, lambda: app.get_by_role("status").inner_text().startswith("Done"))


def test_a_word_stands_beside_sentences_that_may_not_be_followed(app):
    long = "walk and " * 40
    generate(app, f"walk\nplays the violin\neine Person tanzt\n{long}")
    rows = app.locator(".sentences li")
    notes = [row.locator(".notes").inner_text() for row in rows.all()]
    assert notes[0] == "" and "Not in English" in notes[2] and "only the beginning" in notes[3]
    assert "closest known: a person <i>jumps</i> (0.41)" in notes[1]
    far = rows.nth(1).locator(".notes p")
    contrast = far.evaluate(CONTRAST), chip(app, "bow").evaluate(CONTRAST), app.locator(".known p").evaluate(CONTRAST)
    assert min(contrast) > 4.5  # WCAG AA
    described = rows.nth(1).locator("textarea").get_attribute("aria-describedby")
    assert app.locator(f"#{described} p").inner_text() == far.inner_text()
    app.get_by_label("Sentence 2", exact=True).fill("plays")
    assert far.count() == 0
    app.get_by_role("button", name="Undo").click()
    assert far.count() == 1
    generate(app, "walk")
    assert app.locator(".notes p").count() == 0


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
