"""The editor of the web app in a browser: bars, path, poses, selection and undo, by mouse, touch and keyboard."""

import json
import re

import numpy as np
import pytest

from tests.browser import picture, sentences_of, wait_for, watched_page, write_sentences
from tests.serving.helpers import CHUNK, CHUNKS

PART = CHUNK * CHUNKS / 30  # seconds of a sentence of the model of these tests
BLUE = np.array([70, 150, 235])  # of a path on the floor


@pytest.fixture
def editor(server, model, page):
    """The page of an app whose model answers at once; a small stage is drawn fast."""
    client, _ = server()
    model.go.set()
    page.set_viewport_size({"width": 720, "height": 360})
    page.goto(str(client.base_url))
    return page


def generate(page, sentences: str | None = None) -> None:
    if sentences is not None:
        write_sentences(page, sentences)
    page.get_by_role("button", name="Generate").click()
    wait_for(page, lambda: page.get_by_role("status").inner_text().startswith("Done"))
    page.get_by_role("button", name="pause").click()  # nothing is drawn while it stands still


def lengths(page) -> list[float]:
    """Lengths of the bars in seconds."""
    return [value(end) for end in page.locator(".end").all()]


def value(handle) -> float:
    """Value of a handle of the timeline."""
    return float(handle.get_attribute("aria-valuenow"))


def drag(page, locator, pixels: float) -> None:
    """Drag an element to the right with the mouse."""
    x, y = centre(locator)
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x + pixels, y, steps=4)
    page.mouse.up()


def centre(locator) -> tuple[float, float]:
    box = locator.bounding_box()
    return box["x"] + box["width"] / 2, box["y"] + box["height"] / 2


def test_bars_follow_the_motion_and_their_ends_set_lengths(editor, model):
    generate(editor, "walk\nwave")
    assert lengths(editor) == [PART, PART] and model.asked[-1] == ([None, None], None)
    rows = editor.locator(".timeline .rows").bounding_box()["width"]
    drag(editor, editor.locator(".end").first, rows * 0.5 / 2.4)  # the scale is 1.2 times 2 s
    assert lengths(editor) == [1.5, PART]
    assert "Changed" in editor.get_by_role("status").inner_text()
    generate(editor)
    assert model.asked[-1] == ([1.5, None], None)

    handle = editor.get_by_role("slider", name="length of sentence 2")
    handle.focus()
    editor.keyboard.press("ArrowRight")
    editor.keyboard.press("Shift+ArrowRight")
    assert lengths(editor) == [1.5, 2.1] and handle.get_attribute("aria-valuetext") == "2.1 s"
    editor.keyboard.press("Delete")
    assert handle.get_attribute("aria-valuetext") == "1.0 s, automatic"
    editor.locator(".bar").nth(1).focus()
    editor.keyboard.press("Delete")
    assert sentences_of(editor) == ["walk"]
    editor.get_by_label("Seconds of sentence 1").fill("2.5")
    assert lengths(editor) == [2.5]


def test_edits_are_undone_one_by_one(editor, model):
    generate(editor, "walk\nwave")
    first = editor.locator(".downloads a").first.get_attribute("href")
    drag(editor, editor.locator(".end").first, 60)
    longer = lengths(editor)[0]
    generate(editor)
    editor.locator("canvas").focus()
    editor.keyboard.press("Control+z")
    assert lengths(editor)[0] == longer and editor.locator(".downloads a").first.get_attribute("href") == first
    editor.keyboard.press("Control+z")
    assert lengths(editor)[0] == PART
    editor.keyboard.press("Control+Shift+z")
    assert lengths(editor)[0] == longer
    editor.keyboard.press("Control+z")
    while editor.get_by_role("button", name="Undo").is_enabled():  # entering two sentences may take several steps
        editor.get_by_role("button", name="Undo").click()
    assert sentences_of(editor) == ["a person walks forward"]
    assert editor.locator(".downloads a").count() == 0


def stroke(page) -> list[tuple[float, float]]:
    """Places on the screen from the left to the right of the stage."""
    x, y = centre(page.locator(".view canvas"))
    return [(x + step, y + 20) for step in range(-90, 91, 15)]


def blue(page) -> int:
    """Number of pixels of the stage in the colour of a path."""
    return int((np.abs(picture(page.locator(".view canvas")) - BLUE).max(axis=-1) < 40).sum())


def check_path(page, model) -> None:
    """Check the path that a stroke left, on the stage and in a request."""
    wait_for(page, lambda: blue(page) > 50)
    generate(page)
    points = np.array(model.asked[-1][1].path.points)
    assert np.ptp(points[:, 1]) < 0.02 and 2 <= len(points) < 20  # a line of constant z
    assert (np.diff(points[:, 0]) > 0).all() and points[0, 0] == pytest.approx(-points[-1, 0], abs=0.1)
    page.get_by_role("button", name="Clear path").click()
    wait_for(page, lambda: blue(page) == 0)


def test_path_is_drawn_with_the_mouse_and_the_keyboard(editor, model):
    editor.get_by_role("button", name="Draw path").click()
    first, *others = stroke(editor)
    editor.mouse.move(*first)
    editor.mouse.down()
    for place in others:
        editor.mouse.move(*place)
    editor.mouse.up()
    check_path(editor, model)

    editor.get_by_role("button", name="Draw path").click()
    for key in ("ArrowDown", "ArrowDown", "ArrowRight"):
        editor.keyboard.press(key)
    editor.keyboard.press("Escape")
    generate(editor)
    assert model.asked[-1][1].path.points == ((0, 0), (0, 0.25), (0, 0.5), (0.25, 0.5))
    editor.keyboard.press("Control+z")  # the motion
    editor.keyboard.press("Control+z")  # the path
    generate(editor)
    assert model.asked[-1][1] is None


def test_path_is_drawn_and_a_bar_dragged_by_touch_on_a_phone(server, model, browser):
    client, _ = server()
    model.go.set()
    pages = watched_page(browser, 390, 760, has_touch=True, is_mobile=True)
    phone = next(pages)
    phone.goto(str(client.base_url))
    touch = phone.context.new_cdp_session(phone)

    def swipe(places):
        for kind, place in (("Start", places[0]), *(("Move", place) for place in places), ("End", None)):
            points = [] if place is None else [dict(zip("xy", place, strict=True))]
            touch.send("Input.dispatchTouchEvent", {"type": f"touch{kind}", "touchPoints": points})

    phone.get_by_role("button", name="Draw path").tap()
    swipe(stroke(phone))
    check_path(phone, model)
    x, y = centre(phone.locator(".end"))
    swipe([(x + step, y) for step in range(0, 60, 10)])
    assert lengths(phone)[0] > PART + 0.1
    with pytest.raises(StopIteration):
        next(pages)


def test_pose_is_pinned_moved_and_removed(editor, model):
    generate(editor, "walk\nwave")
    editor.get_by_label("time", exact=True).fill("1.5")
    editor.get_by_role("button", name="Pin pose").click()
    mark = editor.get_by_role("slider", name="pose 1")
    assert mark.get_attribute("aria-valuetext") == "1.50 s"
    generate(editor)
    seconds, constraints = model.asked[-1]
    [keyframe] = constraints.keyframes
    assert seconds == [PART, None] and keyframe.time == 1.5 and keyframe.place == "file"
    made = np.zeros(3)
    made[1], made[2] = 0.95, 1.02  # of the model, at frame 45
    np.testing.assert_allclose(keyframe.pose.pelvis[0], made, atol=1e-4)

    mark.focus()
    editor.keyboard.press("Shift+ArrowLeft")
    assert mark.get_attribute("aria-valuetext") == "1.17 s"
    drag(editor, mark, 60)
    assert value(mark) > 1.3
    editor.get_by_role("button", name="Remove pose").click()
    assert mark.count() == 0
    editor.keyboard.press("Control+z")
    assert mark.count() == 1
    mark.focus()
    editor.keyboard.press("Delete")
    assert mark.count() == 0


def test_selection_is_swept_and_its_redo_requested(editor, model):
    generate(editor, "walk\nwave")
    x, y = centre(editor.locator(".bar").first)
    editor.mouse.move(x, y)
    editor.mouse.down()
    editor.mouse.move(x + 30, y)
    editor.mouse.move(centre(editor.locator(".bar").nth(1))[0], y, steps=3)
    editor.mouse.up()
    start, end = (editor.get_by_role("slider", name=f"{side} of the selection") for side in ("start", "end"))
    assert [value(start), value(end)] == pytest.approx([0.5, 1.5], abs=0.05)
    end.focus()
    editor.keyboard.press("ArrowLeft")
    assert value(end) == pytest.approx(1.4, abs=0.05)
    text = editor.get_by_label("sentence of the selection")
    assert text.input_value() == "walk"
    text.fill("jump")
    editor.route("**/api/v1/redo", lambda route: route.fulfill(body='{"error": "not now"}\n'))
    with editor.expect_request(re.compile("/api/v1/redo")) as request:
        editor.get_by_role("button", name="Redo selection").click()
    asked = json.loads(request.value.post_data)
    assert asked["prompt"] == "jump" and (asked["from"], asked["to"]) == pytest.approx((0.5, 1.4), abs=0.05)
    wait_for(editor, lambda: editor.get_by_role("status").inner_text() == "not now")
    editor.locator(".bar").nth(1).click(position={"x": 10, "y": 20})  # beside the handle
    assert value(start) == PART
    editor.get_by_role("button", name="Clear selection").click()
    assert not text.is_visible()
