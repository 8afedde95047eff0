"""The pages and the web app in a real browser: drawing, animation, no network requests, any text shown as text.

The tests share one headless Chromium with software WebGL and one app process with the shipped checkpoint.
"""

import re

import numpy as np
import pytest

from control.paths import distances
from formats.clip import Clip, read_clip
from motion.skeleton import forward_kinematics
from motion.smplx import smplx85_to_motion
from tests.browser import SECONDS, picture, wait_for, watched_page, wood, write_sentences
from tests.starting import start_app
from visualize.body import load_body
from visualize.page import write_gallery, write_player

playwright = pytest.importorskip("playwright.sync_api")
HOSTILE = [
    "<img src=x onerror=\"document.title='owned'\">",
    "</script><script>document.title='owned'</script>",
    "\u202eright to left \u0645\u0631\u062d\u0628\u0627",
    "😀 " * 50,
    "x" * 10_000,
    "line\nbreak\0\ud800",
    "{{7*7}} ${7*7} &lt;b&gt;",
]


@pytest.fixture(scope="module")
def clips():
    """People who walk forward and swing an arm."""
    times = np.arange(45) / 30
    data = np.zeros((45, 85))
    data[:, 3 * 16 + 2], data[:, 3 * 17 + 2] = -1.2 + 0.8 * np.sin(4 * times), 1.2
    data[:, 73], data[:, 74] = 0.95, 0.8 * times
    return [Clip(data, f"person number {number}") for number in range(3)]


def show_and_check_motion(page, canvas) -> None:
    """Wait until the body is drawn, and then until it moves."""
    wait_for(page, lambda: wood(picture(canvas)).sum() > 300)
    before = picture(canvas)
    wait_for(page, lambda: (np.abs(picture(canvas) - before).max(axis=-1) > 20).sum() > 100)


def time_of(page) -> float:
    return float(page.locator(".clock").inner_text().split("/")[0])


def test_player_controls(page, clips, tmp_path):
    write_player(tmp_path / "clip.html", clips[:1])
    page.goto((tmp_path / "clip.html").as_uri())
    canvas = page.locator(".view canvas")
    show_and_check_motion(page, canvas)
    assert page.locator(".title").inner_text() == "person number 0"

    page.get_by_label("pause").click()
    page.get_by_label("time").fill("0.5")
    wait_for(page, lambda: time_of(page) == 0.5)
    still = picture(canvas)
    page.wait_for_timeout(400)
    assert (picture(canvas) == still).all()
    page.get_by_label("time").fill("1.4")
    wait_for(page, lambda: time_of(page) == 1.4)
    wait_for(page, lambda: (picture(canvas) != still).any())
    canvas.focus()
    for _ in range(4):
        page.keyboard.press("ArrowLeft")
    wait_for(page, lambda: time_of(page) < 1.4)

    followed = picture(canvas)
    page.mouse.move(240, 200)
    page.mouse.down()
    page.mouse.move(330, 200, steps=3)
    page.mouse.up()
    wait_for(page, lambda: (np.abs(picture(canvas) - followed).max(axis=-1) > 20).mean() > 0.05)  # orbited
    page.get_by_label("Follow").uncheck()
    page.get_by_label("speed").select_option("0.1")
    page.get_by_label("play").click()
    start = time_of(page)
    page.wait_for_timeout(500)
    assert time_of(page) - start < 0.2 or time_of(page) < start
    page.get_by_text("Reset view").click()
    assert page.requested == [(tmp_path / "clip.html").as_uri()]


def test_gallery_of_a_hundred_with_hostile_prompts(page, clips, tmp_path):
    texts = HOSTILE + [f"person number {number}" for number in range(100 - len(HOSTILE))]
    write_gallery(tmp_path / "gallery.html", [Clip(clips[0].smplx85, text) for text in texts], load_body())
    assert (tmp_path / "gallery.html").stat().st_size < 6e6
    page.goto((tmp_path / "gallery.html").as_uri())
    cards = page.locator(".card")
    playwright.expect(cards).to_have_count(100)
    first = cards.first.locator("canvas")
    wait_for(page, lambda: wood(picture(first)).sum() > 100)  # the poster is drawn
    cards.first.hover()
    before = picture(first)
    wait_for(page, lambda: (np.abs(picture(first) - before).max(axis=-1) > 20).sum() > 30)  # the card plays

    page.get_by_label("search").fill("NUMBER 92")
    playwright.expect(page.locator("header output")).to_have_text("1 of 100")
    shown = page.locator(".card:visible")
    playwright.expect(shown).to_have_count(1)
    wait_for(page, lambda: wood(picture(shown.locator("canvas"))).sum() > 100)  # drawn when it comes into view
    shown.click()
    show_and_check_motion(page, page.locator("dialog .view canvas"))
    assert page.locator("dialog .title").inner_text() == "person number 92"
    page.get_by_label("close").click()

    page.get_by_label("search").fill("<b>nobody</b>")
    playwright.expect(page.get_by_text('No motion matches "<b>nobody</b>"')).to_be_visible()
    page.get_by_label("search").fill("")
    playwright.expect(page.locator(".nothing")).to_be_hidden()
    assert page.locator(".card .prompt").nth(0).inner_text() == HOSTILE[0]
    assert page.title() == "100 motions" and page.locator("img").count() == 0
    assert page.requested == [(tmp_path / "gallery.html").as_uri()]


@pytest.fixture(scope="module")
def app(browser):
    """Start the app and return its address."""
    process, address = start_app("--running", 2)
    yield address
    process.terminate()
    process.communicate(timeout=30)


def test_app_serves_two_visitors_from_sentence_to_download(app, browser, page, tmp_path):
    others = watched_page(browser)
    other = next(others)
    for visitor, sentences in ((page, "a person walks forward"), (other, "someone takes a bow\na person stands")):
        visitor.goto(app)
        write_sentences(visitor, sentences)
        for field in visitor.get_by_label("Seconds of sentence").all():
            field.fill("2")
    other.get_by_label("Variations").fill("2")
    for visitor in (page, other):
        visitor.get_by_text("Generate", exact=True).click()
    for visitor in (page, other):
        playwright.expect(visitor.get_by_role("status")).to_have_text(re.compile("Done"), timeout=60 * SECONDS)
        show_and_check_motion(visitor, visitor.locator(".view canvas"))
        assert set(visitor.requested) == {app + "/", app + "/api/v1/generate"}
        columns = wood(picture(visitor.locator(".view canvas"))).any(axis=0)
        wide = np.convolve(columns, np.ones(15), "same") > 0  # elbows and other joints are dark
        people = np.diff(wide.astype(int)).clip(0).sum()
        assert people == (1 if visitor is page else 2)  # side by side
    assert page.locator(".downloads a").count() == 4 and other.locator(".downloads a").count() == 8
    for kind, frames in (("bvh", 60), ("npz", 60)):
        with page.expect_download() as download:
            page.get_by_role("link", name=kind).click()
        download.value.save_as(tmp_path / f"clip.{kind}")
        assert download.value.suggested_filename == f"a-person-walks-forward_seed0.{kind}"
        assert abs(len(read_clip(tmp_path / f"clip.{kind}").smplx85) - frames) <= 4

    write_sentences(other, "\n".join(HOSTILE[:3]))
    other.get_by_text("Generate", exact=True).click()
    playwright.expect(other.get_by_role("status")).to_have_text(re.compile("Done"), timeout=60 * SECONDS)
    assert HOSTILE[0] in other.locator(".title").inner_text() and other.locator("img").count() == 0
    assert other.title() == "Text to motion"
    write_sentences(other, "\n".join(["walk"] * 7))
    other.get_by_text("Generate", exact=True).click()
    playwright.expect(other.get_by_role("status")).to_have_text(re.compile("1 to 6 sentences"), timeout=60 * SECONDS)
    with pytest.raises(StopIteration):
        next(others)


def saved_clip(page, folder) -> Clip:
    """The motion on the page, downloaded."""
    with page.expect_download() as download:
        page.get_by_role("link", name="npz").click()
    download.value.save_as(folder / "clip.npz")
    return read_clip(folder / "clip.npz")


def press_and_wait(page, button: str) -> dict:
    """Press a button that starts a generation, wait for its end, and return what was requested."""
    with page.expect_request(lambda request: request.method == "POST") as sent:
        page.get_by_role("button", name=button, exact=True).click()
    playwright.expect(page.get_by_role("button", name="Stop")).to_be_disabled(timeout=60 * SECONDS)
    playwright.expect(page.get_by_role("status")).to_have_text(re.compile("Done"), timeout=60 * SECONDS)
    return sent.value.post_data_json


def sweep(page, box, places) -> None:
    """Press the mouse at the first place, relative to the middle of a box, and drag it over the others."""
    places = [(box["x"] + box["width"] / 2 + x, box["y"] + box["height"] / 2 + y) for x, y in places]
    page.mouse.move(*places[0])
    page.mouse.down()
    for place in places:
        page.mouse.move(*place)
    page.mouse.up()


def test_app_follows_a_path_keeps_a_pose_and_edits_the_motion(app, page, tmp_path):
    page.set_viewport_size({"width": 720, "height": 380})
    page.goto(app)
    page.get_by_role("button", name="Draw path").click()
    canvas = page.locator(".view canvas").bounding_box()
    sweep(page, canvas, [(x, 10 + 0.002 * x * x) for x in range(-50, 51, 10)])
    path = np.array(press_and_wait(page, "Generate")["constraints"]["path"]["points"])
    clip = saved_clip(page, tmp_path)
    places = clip.smplx85[:, [72, 74]]
    assert distances(path, places).max() < 0.1
    assert np.abs(places[[0, -1]] - path[[0, -1]]).max() < 0.1  # a stream: whole motions end exactly

    page.get_by_label("pause").click()
    page.get_by_label("time", exact=True).fill("0.8")
    page.get_by_role("button", name="Pin pose").click()
    page.locator("[name=seed]").fill("7")
    [keyframe] = press_and_wait(page, "Generate")["constraints"]["keyframes"]
    other = saved_clip(page, tmp_path)
    assert keyframe["time"] == 0.8 and np.abs(clip.smplx85[24] - keyframe["pose"][0]).max() < 1e-3
    poses = [forward_kinematics(*smplx85_to_motion(each.smplx85[[24, 12]].astype(float))) for each in (clip, other)]
    assert np.abs(poses[0] - poses[1])[0].max() < 0.02  # at the time of the keyframe
    assert np.abs(poses[0] - poses[1])[1].max() > 0.03  # at another time

    bars = page.locator(".bars").bounding_box()
    sweep(page, bars, [(x, 0) for x in range(-100, 1, 20)])
    page.get_by_label("sentence of the selection").fill("a person jumps")
    span = press_and_wait(page, "Redo selection")
    redone = saved_clip(page, tmp_path)
    first, last = (round(30 * span[key]) for key in ("from", "to"))
    assert 0 < first < last < len(redone.smplx85) == len(other.smplx85) and span["prompt"] == "a person jumps"
    same = np.abs(redone.smplx85 - other.smplx85).max(axis=1) < 1e-5
    assert same[:first].all() and same[last:].all() and not same[first + 5 : last - 5].any()
    press_and_wait(page, "Loop in place")
    assert len(saved_clip(page, tmp_path).smplx85) < len(redone.smplx85)
    page.get_by_role("button", name="Undo").click()
    assert (saved_clip(page, tmp_path).smplx85 == redone.smplx85).all()
