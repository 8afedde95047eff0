"""A headless Chromium with software WebGL for tests: the fixtures ``browser`` and ``page``, and what they see."""

import base64
import io
import shutil

import numpy as np
import pytest
from PIL import Image

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "google-chrome"))), None)
FLAGS = ["--no-sandbox", "--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"]
KEEP_DRAWN = """
const getContext = HTMLCanvasElement.prototype.getContext;
HTMLCanvasElement.prototype.getContext = function (kind, options) {
  return getContext.call(this, kind, { ...options, preserveDrawingBuffer: true });
};
"""  # lets toDataURL read the last frame of WebGL at any time
SECONDS = 1000  # the browser's unit is the millisecond; software WebGL on a busy machine is slow


@pytest.fixture(scope="module")
def browser():
    if CHROMIUM is None:
        pytest.skip("Chromium not installed; `make browser` installs it")
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as play:
        browser = play.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def page(browser):
    """A page that records its requests and must not write to the console."""
    yield from watched_page(browser)


def watched_page(browser, width: int = 480, height: int = 400, **options):
    context = browser.new_context(viewport={"width": width, "height": height}, accept_downloads=True, **options)
    context.add_init_script(KEEP_DRAWN)
    page, messages = context.new_page(), []
    page.set_default_timeout(60 * SECONDS)
    page.requested = []
    page.on("request", lambda request: page.requested.append(request.url))
    page.on("console", lambda message: messages.append(message.text))
    page.on("pageerror", lambda error: messages.append(str(error)))
    yield page
    context.close()
    assert not messages


def picture(canvas) -> np.ndarray:
    """Return the pixels of a canvas, read inside the page.

    A screenshot waits for the compositor, for a minute and more while several pages draw with software WebGL.
    """
    canvas.evaluate("canvas => canvas.scrollIntoView({block: 'nearest'})")
    drawn = canvas.evaluate("canvas => canvas.toDataURL()").partition(",")[2]
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(drawn))).convert("RGB")).astype(int)


def wood(frame: np.ndarray) -> np.ndarray:
    """Return the mask of the mannequin; everything else is grey or blue."""
    return frame[..., 0] - frame[..., 2] > 40


def write_sentences(page, text: str) -> None:
    """Enter sentences, one per line, in the place of those on the page of the app."""
    for _ in range(page.locator(".sentences li").count() - 1):
        page.get_by_role("button", name="Remove sentence 2").click()
    page.get_by_label("Sentence 1", exact=True).fill(text)


def sentences_of(page) -> list[str]:
    return [field.input_value() for field in page.locator("textarea").all()]


def wait_for(page, condition, seconds: float = 60) -> None:
    for _ in range(int(seconds * 10)):
        if condition():
            return
        page.wait_for_timeout(100)
    raise AssertionError(f"the condition did not hold within {seconds:g} s")
