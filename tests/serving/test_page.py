"""The page of the web app in a browser: first view, sentences, link, variations, lost connections, videos."""

import base64
import json
from types import SimpleNamespace

import numpy as np
import pytest

from models.known import Action
from tests.browser import picture, sentences_of, wait_for, wood, write_sentences

FETCH = """window.fetch = ((real) => async (address, options) => {
  const path = new URL(address, location).pathname;
  const answer = window.answers?.[path];
  if (answer === undefined) return real(address, options);
  if (answer === null) throw new TypeError("an error that browsers word differently");
  const body = new ReadableStream({ start: (control) => (window.streams[path] = control) });
  options?.signal?.addEventListener("abort", () => window.streams[path].error(options.signal.reason));
  return new Response(answer === "stream" ? body : answer || null, { status: answer === "" ? 204 : 200 });
})(window.fetch); window.streams = {};"""


@pytest.fixture
def app(server, model, page):
    """The page of an app whose model answers at once; tests can answer requests in its place."""
    client, _ = server()
    model.go.set()
    page.set_viewport_size({"width": 720, "height": 420})
    page.add_init_script(FETCH)
    page.goto(str(client.base_url))
    return page


def status(page) -> str:
    return page.get_by_role("status").inner_text()


def is_still(page, canvas) -> bool:
    before = picture(canvas)
    page.wait_for_timeout(500)
    return bool((picture(canvas) == before).all())


def generate(page, text: str) -> None:
    write_sentences(page, text)
    page.keyboard.press("Control+Enter")
    wait_for(page, lambda: status(page).startswith("Done"))
    page.get_by_role("button", name="pause").click()


def test_a_body_breathes_before_the_first_motion_and_space_pauses_it(app):
    canvas = app.locator(".view canvas")
    wait_for(app, lambda: wood(picture(canvas)).sum() > 300)
    before = picture(canvas)
    wait_for(app, lambda: (np.abs(picture(canvas) - before).max(axis=-1) > 20).sum() > 5)
    app.keyboard.press("Space")
    assert app.get_by_role("button", name="play", exact=True).count() == 1
    wait_for(app, lambda: is_still(app, canvas))
    assert app.locator("h1").inner_text() == "Text to motion" and "CC BY-NC 4.0" in app.locator("footer").inner_text()


def test_an_example_plays_at_once_and_can_be_downloaded(server, model, page):
    model.known = SimpleNamespace(actions=[Action("walk", "a person walks"), Action("bow", "a person bows")])
    model.go.set()
    client, service = server()
    wait_for(page, lambda: service.examples)
    service.results.clear()  # other motions take the places of finished ones
    page.goto(str(client.base_url))
    wait_for(page, lambda: status(page) == "Done: 1.0 s.")
    assert sentences_of(page) == ["a person walks"] and "#" not in page.url
    assert page.get_by_role("button", name="Undo").is_disabled()
    with page.expect_download() as download:
        page.get_by_role("link", name="npz").click()
    assert str(np.load(download.value.path())["license"]) == model.rights


def test_sentences_are_split_joined_and_marked_while_they_play(app, model):
    generate(app, "walk | wave\njump")
    assert sentences_of(app) == ["walk", "wave", "jump"]
    app.get_by_label("Seconds of sentence 2").fill("2.5")
    assert app.locator(".end").nth(1).get_attribute("aria-valuenow") == "2.50"
    app.get_by_label("time", exact=True).fill("1.5")
    current = app.locator(".sentences .current textarea, .timeline .current .bar")
    wait_for(
        app, lambda: [each.evaluate("e => e.value || e.textContent") for each in current.all()] == ["wave", "wave"]
    )
    app.get_by_label("Sentence 3", exact=True).focus()
    app.keyboard.press("End")
    app.keyboard.type("s | bow")
    assert sentences_of(app) == ["walk", "wave", "jumps", "bow"]
    app.keyboard.press("Control+A")
    app.keyboard.press("Delete")
    app.keyboard.press("Backspace")
    assert sentences_of(app) == ["walk", "wave", "jumps"]
    app.get_by_role("button", name="Add sentence").click()
    app.keyboard.press("Control+Enter")
    wait_for(app, lambda: model.asked[-1][0] == [None, 2.5, None])  # without the empty sentence


def test_reload_keeps_the_document_and_a_link_makes_the_same_motion(app):
    app.context.grant_permissions(["clipboard-read", "clipboard-write"])
    generate(app, "walk\nwave & turn")
    app.emulate_media(reduced_motion="reduce")  # nothing plays from here on, which is easier for a busy machine
    app.get_by_label("time", exact=True).fill("0.5")
    app.get_by_role("button", name="Pin pose").click()
    app.get_by_role("button", name="Draw path").click()
    for key in ("ArrowDown", "ArrowRight", "Escape"):
        app.keyboard.press(key)
    app.locator("[name=seed]").fill("7")
    app.locator("[name=variations]").fill("2")
    app.get_by_role("switch").uncheck()
    wait_for(app, lambda: "feet=0" in app.evaluate("location.hash"))  # which follows changes after a moment
    app.reload()
    assert sentences_of(app) == ["walk", "wave & turn"] and app.locator("[name=seed]").input_value() == "7"
    assert not app.get_by_role("switch").is_checked() and app.get_by_role("slider", name="pose 1").count() == 1
    with app.expect_request("**/generate") as first:
        app.keyboard.press("Control+Enter")
    wait_for(app, lambda: status(app).startswith("Done"))
    app.get_by_role("button", name="Copy link").click()
    wait_for(app, lambda: "Link copied" in status(app))
    link = app.evaluate("navigator.clipboard.readText()")
    app.goto("about:blank")
    with app.expect_request("**/generate") as second:
        app.goto(link)
    wait_for(app, lambda: status(app).startswith("Done"))
    asked = json.loads(first.value.post_data)
    assert json.loads(second.value.post_data) == asked and len(asked["constraints"]["keyframes"][0]["pose"][0]) == 85
    assert asked["constraints"]["path"] == {"points": [[0, 0], [0, 0.25], [0.25, 0.25]]} and not asked["foot_lock"]
    wait_for(app, lambda: "play=1" not in app.evaluate("location.hash"))


def test_variations_are_numbered_and_one_is_kept(app):
    app.locator("[name=variations]").fill("2")
    generate(app, "walk")
    assert app.locator(".badges span").all_inner_texts() == ["1", "2"]
    assert app.locator(".downloads b").all_inner_texts() == ["1", "2"]
    app.get_by_role("button", name="Keep variation 2").click()
    assert app.locator(".badges span").count() == 0 and app.locator("[name=seed]").input_value() == "1"
    assert "seed1" in app.locator(".downloads a").first.get_attribute("href") and status(app).startswith("Done")
    with app.expect_request("**/loop") as request:
        app.get_by_role("button", name="Loop", exact=True).click()
    assert json.loads(request.value.post_data)["names"] == ["walk_seed1"]
    wait_for(app, lambda: app.get_by_role("button", name="Stop").is_disabled())
    while app.locator(".badges span").count() < 2:
        app.get_by_role("button", name="Undo").click()
    assert app.locator("[name=variations]").input_value() == "2"


def test_a_lost_connection_is_told_and_retried(app):
    app.evaluate("window.answers = { '/api/v1/generate': null }")
    write_sentences(app, "walk")
    app.get_by_role("button", name="Generate").click()
    wait_for(app, lambda: status(app) == "The connection to the server was lost.")
    app.evaluate("window.answers = {}")
    app.get_by_role("button", name="Retry").click()
    wait_for(app, lambda: status(app).startswith("Done"))
    assert not app.get_by_role("button", name="Retry").is_visible()


def test_a_stopped_motion_can_be_downloaded(app):
    app.evaluate("window.answers = { '/api/v1/generate': 'stream', '/api/v1/motion/T/stop': '' }")
    app.get_by_role("button", name="Generate").click()
    frames = {"variation": 0, "part": 0, "floor": 0, "rotations": zeros(22 * 4 * 2), "pelvis": zeros(3 * 4)}
    send(app, "/api/v1/generate", {"motion": "T"}, frames)
    wait_for(app, lambda: status(app).startswith("Generating"))
    app.get_by_role("button", name="Stop").click()
    assert status(app) == "Stopping …"
    send(app, "/api/v1/generate", {"done": "T", "names": ["walk"], "errors": [[]], "stopped": True}, end=True)
    wait_for(app, lambda: status(app).startswith("Stopped"))
    assert app.get_by_role("link", name="bvh").get_attribute("href") == "/api/v1/motion/T/walk.bvh"


def zeros(width: int) -> str:
    """Three frames of ``width`` zero bytes, as the server packs them; a zero quaternion stands for no rotation."""
    return base64.b64encode(bytes(3 * width)).decode()


def send(page, address: str, *lines: dict, end: bool = False) -> None:
    """Send lines of an answer that the test gives in the place of the server."""
    wait_for(page, lambda: page.evaluate("address => address in window.streams", address))
    text = "".join(json.dumps(line) + "\n" for line in lines)
    page.evaluate(
        "([address, text]) => window.streams[address].enqueue(new TextEncoder().encode(text))", [address, text]
    )
    if end:
        page.evaluate("address => window.streams[address].close()", address)


def test_a_video_shows_its_progress_and_can_be_cancelled(app):
    generate(app, "walk")
    link = app.get_by_role("link", name="mp4")
    path = link.get_attribute("href")
    share = app.get_by_role("group", name="video")
    for cancelled in (True, False):
        answers = {path: "stream", path.replace(".mp4", "/video"): json.dumps({"ahead": 0, "percent": 40})}
        app.evaluate("answers => (window.answers = answers)", answers)
        link.click()
        wait_for(app, lambda: "40 %" in share.inner_text())
        if cancelled:
            app.get_by_role("button", name="Cancel the video").click()
        else:
            with app.expect_download() as download:
                send(app, path, {}, end=True)
            assert download.value.suggested_filename == "walk_seed0.mp4"
        wait_for(app, lambda: link.is_visible() and not share.count())
