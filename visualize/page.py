"""HTML pages: a player for one motion or a few side by side, and a gallery of many. They need no network.

A page is one file with three.js, the scripts of visualize/web, the mesh of the body, and a few kilobytes per motion.
Its content security policy (CSP) allows these scripts only and blocks all requests. The data are embedded as base64 of
compressed JSON and inserted as text, so prompts are never interpreted as HTML.
"""

import base64
import gzip
import hashlib
import html
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from motion.clip import Clip, rights_of, smplx85_of
from motion.resample import FPS
from motion.skeleton import PARENTS
from motion.smplx import SMPLX85
from utils.errors import InputError
from utils.files import atomic_write
from utils.prompts import MAX_PROMPT
from visualize.body import Body, floor_height, load_body
from visualize.results import GALLERY, check_own, saved_motions
from visualize.skin import quaternions, simplified, skin_of

WEB = Path(__file__).parent / "web"
MAX_TITLE = 400  # characters; longer texts are truncated
MAX_SIDE_BY_SIDE = 8
PLAYER_BODY = "<main></main>"
GALLERY_BODY = """<header><h1></h1><input type="search" placeholder="Search" aria-label="search"><output></output>
</header>
<main class="grid"></main>
<dialog><button type="button" class="close" aria-label="close">✕</button><div class="stage"></div></dialog>"""
APP_SCRIPTS = (
    "player.js",
    "standing.js",
    "document.js",
    "sentences.js",
    "timeline.js",
    "floor_path.js",
    "pinned_poses.js",
    "editor.js",
    "known_actions.js",
    "requests.js",
    "downloads.js",
    "link.js",
    "app.js",
)
ICON = (  # a person with raised arms
    "data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 16 16' fill='none' stroke='%23b8743a' "
    "stroke-width='2' stroke-linecap='round'%3E%3Ccircle cx='8' cy='3' r='1.6' fill='%23b8743a' stroke='none'/%3E"
    "%3Cpath d='M3 4l5 3 5-3M8 7v4M8 11l-3 4M8 11l3 4'/%3E%3C/svg%3E"
)
APP_BODY = f"""<main class="app"><form autocomplete="off">
<h1></h1>
<div class="sentences" role="group" aria-label="Sentences" data-longest="{MAX_PROMPT}"></div>
<p class="row"><button type="submit" name="go">Generate</button> <kbd>Ctrl+Enter</kbd>
<button type="button" name="stop" disabled>Stop</button></p>
<div class="state"><p role="status"></p><button type="button" name="retry" hidden>Retry</button></div>
<div class="downloads"></div>
<div class="known"></div>
<div class="fields">
<label>Seed<span><input name="seed" type="number" min="0" max="1000000000" value="0" required>
<button type="button" name="dice" aria-label="Random seed" title="Random seed">⚄</button></span></label>
<label>Variations<input name="variations" type="number" min="1" value="1" required></label>
<label>Temperature<input name="temperature" type="number" min="0" max="2" step="0.05" required></label>
<label>Guidance<input name="guidance" type="number" min="0" max="10" step="0.1" required></label>
<label class="wide"><input name="feet" type="checkbox" role="switch" checked>
Foot lock: standing feet do not slide</label>
</div>
<p class="row"><button type="button" name="link">Copy link</button></p>
<footer></footer>
</form><div class="stage"></div></main>"""


def write_player(path: str | Path, clips: Sequence[Clip], body: Body | None = None) -> Path:
    """Write ``player_page``; errors as in ``write_gallery``."""
    return _write(path, player_page(clips, body))


def player_page(clips: Sequence[Clip], body: Body | None = None) -> str:
    """Return the page that plays one motion, or up to eight side by side; errors as in ``write_gallery``."""
    if not 1 <= len(clips) <= MAX_SIDE_BY_SIDE:
        raise InputError(f"{len(clips)} motions are given for a player; give 1 to {MAX_SIDE_BY_SIDE}, or a gallery")
    title = clean(" | ".join(dict.fromkeys(clip.title for clip in clips)))
    return _page_of(("player.js", "single.js"), PLAYER_BODY, title, clips, body)


def write_gallery(path: str | Path, clips: Sequence[Clip], body: Body | None = None, notes: Sequence[str] = ()) -> Path:
    """Write a page of cards with search; a card plays under the pointer and opens in a player on a click.

    Args:
        path: Target; its folder is created if needed.
        clips: Motions; all are shown on one body, with the shape of the first motion.
        body: Body from ``load_body``; None is the mannequin.
        notes: Second line of each card; by default the length of the motion.

    Raises:
        InputError: no motions, or a target that cannot be written.
    """
    if not clips:
        raise InputError("a gallery needs motions, but none are given; give at least one")
    title = f"{len(clips)} motions"
    return _write(path, _page_of(("player.js", "gallery.js"), GALLERY_BODY, title, clips, body, notes))


def write_results_gallery(folder: Path, body: Body | None = None) -> Path:
    """Write ``gallery.html`` with all motions listed in ``results.json``, except those left out by ``saved_motions``.

    Raises:
        InputError: as in ``write_gallery``, or one of the two files is of another program.
    """
    check_own_gallery(folder)
    clips, notes = [], []
    for clip, entry in saved_motions(folder, GALLERY):
        clips.append(clip)
        notes.append(f"{entry['seconds']:.1f} s, seed {entry['seed']}")
    return write_gallery(folder / GALLERY, clips, body, notes)


def check_own_gallery(folder: Path) -> None:
    """Raise InputError if ``gallery.html`` exists and is a page of another program."""
    check_own(folder / GALLERY, GALLERY_BODY.partition("</header>")[2])


def _page_of(
    scripts: Sequence[str],
    content: str,
    title: str,
    clips: Sequence[Clip],
    body: Body | None,
    notes: Sequence[str] = (),
) -> str:
    body = body or load_body()
    motions = []
    for number, clip in enumerate(clips):
        smplx85 = smplx85_of(clip)
        note = clean(notes[number]) if notes else f"{len(smplx85) / FPS:.1f} s"
        motions.append({"title": clean(clip.title), "note": note, **pack_motion(smplx85, floor_height(body, smplx85))})
    data = {"title": title, "body": pack_body(body, clips[0].smplx85[0, SMPLX85["betas"]]), "motions": motions}
    return page(title, scripts, content, data, rights=rights_of(clips))


def _write(path: str | Path, text: str) -> Path:
    with atomic_write(Path(path)) as file:
        file.write_text(text, encoding="utf-8")
    return Path(path)


def app_page(data: dict) -> str:
    """Return the page of the web app, with an editor, which sends requests to its own server."""
    return page("Text to motion", APP_SCRIPTS, APP_BODY, data, ("page.css", "app.css"), "'self'", data["rights"])


def page(
    title: str,
    scripts: Sequence[str],
    content: str,
    data: dict,
    styles: Sequence[str] = ("page.css",),
    connect: str = "'none'",
    rights: str = "",
) -> str:
    """Return the HTML of a page.

    Args:
        title: Title of the page.
        scripts: Scripts of visualize/web to run after three.min.js and stage.js.
        content: HTML of the body element; an empty ``<h1>`` receives the title.
        data: Data for the scripts, anything JSON can hold.
        styles: Style sheets of visualize/web.
        connect: Source of the policy's connect-src, to which the scripts may send requests.
        rights: License of the motions, for the metadata.
    """
    sources = [(WEB / name).read_text(encoding="utf-8") for name in ("three.min.js", "stage.js", *scripts)]
    style = "".join((WEB / name).read_text(encoding="utf-8") for name in styles)
    allowed = " ".join(map(_hash, sources))
    policy = (
        f"default-src 'none'; script-src {allowed}; style-src {_hash(style)}; img-src data:; connect-src {connect}; "
        "base-uri 'none'; form-action 'none'"
    )
    packed = base64.b64encode(gzip.compress(json.dumps(data).encode(), mtime=0)).decode()
    lines = [
        '<!doctype html><html lang="en"><head><meta charset="utf-8">',
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">',
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><link rel="icon" href="{ICON}">',
        *([f'<meta name="license" content="{html.escape(rights)}">'] if rights else []),
        f"<title>{html.escape(title)}</title><style>{style}</style></head><body>",
        content.replace("<h1></h1>", f"<h1>{html.escape(title)}</h1>"),
        f'<script type="text/plain" id="data">{packed}</script>',
        *(f"<script>{source}</script>" for source in sources),
        "</body></html>",
    ]
    return "\n".join(lines)


def pack_body(body: Body, betas: np.ndarray | None = None) -> dict:
    """Pack the simplified skin of a body for the class BodyParts of stage.js."""
    skin = simplified(skin_of(body, betas))
    palette, colors = np.unique(skin.colors, axis=0, return_inverse=True)
    if len(palette) > 256:
        raise InputError(f"the body has {len(palette)} colours; use a body with at most 256")
    return {
        "vertices": _base64(skin.vertices.astype("<f4")),
        "faces": _base64(skin.faces.astype("<u4")),
        "colors": _base64(colors.astype(np.uint8)),
        "palette": palette.astype(float).round(4).tolist(),
        "joints": skin.joints.astype(float).round(6).tolist(),
        "parents": list(PARENTS),
        "indices": _base64(skin.indices),
        "weights": _base64(skin.weights),
    }


def pack_motion(smplx85: np.ndarray, floor: float | None = None) -> dict:
    """Pack frames for the class Motion of stage.js: quaternions in 32767ths and the pelvis in metres.

    Args:
        smplx85: (T, 85) poses.
        floor: Height of the floor in metres; None for later frames of a motion, whose first frames had it.
    """
    return {
        "rotations": _base64(np.round(quaternions(smplx85) * 32767).astype("<i2")),
        "pelvis": _base64(smplx85[:, SMPLX85["translation"]].astype("<f4")),
    } | ({} if floor is None else {"floor": floor})


def clean(text: str) -> str:
    """Truncate a text for a page or file and replace invalid Unicode."""
    return text[:MAX_TITLE].encode("utf-8", "replace").decode()


def _base64(values: np.ndarray) -> str:
    return base64.b64encode(np.ascontiguousarray(values).tobytes()).decode()


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
