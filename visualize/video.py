"""Write frames to files (MP4 through moviepy, GIF through imageio's ffmpeg, PNG) and draw titles into frames.

Frames are uint8 (H, W, 3) arrays. They are encoded one by one, so that memory does not grow with the length of the
clip. Writes are atomic.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from functools import cache
from itertools import chain
from pathlib import Path
from subprocess import DEVNULL, PIPE, Popen

import numpy as np

from motion.resample import check_fps
from utils.errors import InputError
from utils.files import atomic_write
from visualize.options import MAX_SIDE, MIN_SIDE

TITLE_CHARACTERS = 400  # longer titles are truncated
TITLE_LINES = 3
TITLE_COLOR = np.float32((38, 42, 50))


def write_mp4(path: str | Path, frames: Iterable[np.ndarray], fps: float, comment: str = "") -> Path:
    """Write H.264 video (yuv420p, supported by all players; playback can start before the file is fully loaded).

    Odd sizes are padded to even ones.

    Args:
        path: Target; its folder is created if needed.
        frames: (T, H, W, 3) uint8 array or an iterator of (H, W, 3) frames.
        fps: Frames per second.
        comment: Text for the metadata of the file.

    Raises:
        InputError: no frames, frames of different sizes, fps not positive, or a target that cannot be written.
    """
    from moviepy.video.io.ffmpeg_writer import FFMPEG_VideoWriter

    def encode(target: Path, frames: Iterator[np.ndarray], width: int, height: int) -> None:
        pad = ((0, height % 2), (0, width % 2), (0, 0))
        size = (width + width % 2, height + height % 2)
        options = ["-crf", "21", "-movflags", "+faststart", *(["-metadata", f"comment={comment}"] if comment else [])]
        writer = FFMPEG_VideoWriter(str(target), size, fps, preset="superfast", ffmpeg_params=options, threads=1)
        encoder = writer.proc
        try:
            for frame in frames:
                writer.write_frame(np.pad(frame, pad, mode="edge") if any(map(any, pad)) else frame)
        finally:
            writer.close()
        if encoder.returncode:
            raise OSError(None, "the H.264 encoder stopped early")

    return _write(path, frames, fps, ".mp4", encode)


def write_gif(path: str | Path, frames: Iterable[np.ndarray], fps: float, comment: str = "") -> Path:
    """Write a looping GIF with a palette optimised for the clip; arguments and errors as in ``write_mp4``.

    The format has no place for the comment.
    """
    from imageio_ffmpeg import get_ffmpeg_exe

    def encode(target: Path, frames: Iterator[np.ndarray], width: int, height: int) -> None:
        palette = "split[a][b];[a]palettegen=stats_mode=diff[p];[b][p]paletteuse=dither=bayer:bayer_scale=4"
        source = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{width}x{height}", "-r", f"{fps:.02f}", "-i", "-"]
        command = [get_ffmpeg_exe(), "-y", *source, "-filter_complex", palette, "-loop", "0", str(target)]
        with suppress(BrokenPipeError), Popen(command, stdin=PIPE, stderr=DEVNULL) as encoder:
            assert encoder.stdin is not None
            for frame in frames:
                encoder.stdin.write(frame.tobytes())
        if encoder.returncode:
            raise OSError(None, "the GIF encoder stopped early")

    return _write(path, frames, fps, ".gif", encode)


def write_video(path: str | Path, frames: Iterable[np.ndarray], fps: float, comment: str = "") -> Path:
    """Write an MP4 or a GIF, according to the suffix of ``path``; arguments and errors as in ``write_mp4``."""
    writers = {".mp4": write_mp4, ".gif": write_gif}
    suffix = Path(path).suffix.lower()
    if suffix not in writers:
        raise InputError(f"{path} is neither .mp4 nor .gif; give one of these suffixes")
    return writers[suffix](path, frames, fps, comment)


def write_png(path: str | Path, frame: np.ndarray, mark: str | None = None) -> Path:
    """Write one (H, W, 3) uint8 frame as a PNG.

    Args:
        mark: Text that the file contains in its first bytes, unseen.

    Raises:
        InputError: the target cannot be written.
    """
    from PIL import Image, PngImagePlugin

    information = PngImagePlugin.PngInfo()
    if mark is not None:
        information.add_text("Software", mark)
    with atomic_write(Path(path)) as file:
        Image.fromarray(frame).save(file, format="png", optimize=True, pnginfo=information)
    return Path(path)


def check_size(size: tuple[int, int]) -> None:
    """Raise InputError unless ``size`` is (width, height) in whole pixels, each from MIN_SIDE to MAX_SIDE."""
    if len(size) != 2 or not all(isinstance(side, int | np.integer) and MIN_SIDE <= side <= MAX_SIDE for side in size):
        raise InputError(f"frame size is {size}; give (width, height) as whole pixels from {MIN_SIDE} to {MAX_SIDE}")


def check_side(side: int) -> None:
    """Raise InputError unless ``side`` is a valid --size, the side of a square picture in pixels."""
    if not MIN_SIDE <= side <= MAX_SIDE:
        raise InputError(f"--size is {side}; give {MIN_SIDE} to {MAX_SIDE} pixels")


def _write(path: str | Path, frames: Iterable[np.ndarray], fps: float, suffix: str, encode: Callable) -> Path:
    check_fps(fps)
    path = Path(path)
    if path.suffix.lower() != suffix:
        raise InputError(f"{path} does not end in {suffix}; give it that suffix")
    frames = _same_size(frames)
    first = next(frames, None)
    if first is None:
        raise InputError(f"there are no frames to write to {path}; give at least one")
    with atomic_write(path) as temporary:
        target = temporary.absolute()  # an encoder takes the start of "12:30/a.mp4" for a protocol
        encode(target, chain([first], frames), first.shape[1], first.shape[0])
    return path


def _same_size(frames: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    """Validate frames, uint8 (H, W, 3 or 4) of one size, and yield them without their alpha channel."""
    shape = None
    for frame in frames:
        frame = np.asarray(frame)
        shape = shape or frame.shape
        if frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] not in (3, 4) or frame.shape != shape:
            raise InputError(f"a video frame is {frame.dtype} {frame.shape}; give uint8 (height, width, 3) of one size")
        yield np.ascontiguousarray(frame[..., :3])


class Title:
    """A title that is wrapped and rasterised once, and then drawn over frames; safe for any string.

    Args:
        text: Any string. Line breaks and control characters become spaces; text beyond three lines is replaced by an
            ellipsis.
        width: Width of the frames in pixels.
        height: Height of the frames in pixels.
        font_size: Size of the font in pixels; by default it follows from the height.
    """

    def __init__(self, text: str | None, width: int, height: int, font_size: int | None = None):
        from PIL import Image, ImageDraw, ImageFont

        text = (text or "")[:TITLE_CHARACTERS]
        size, room = font_size or max(11, round(height / 25)), 0.92 * width
        font = ImageFont.truetype(font_for(text), size, layout_engine=ImageFont.Layout.BASIC)
        lines = wrap_title(text, lambda line: font.getlength(line) <= room)
        ascent, descent = font.getmetrics()
        step = round(1.12 * (ascent + descent))
        mask = Image.new("L", (width, min(height, step * len(lines) + descent)))
        for row, line in enumerate(lines):
            ImageDraw.Draw(mask).text((width / 2, step * row), line, fill=255, font=font, anchor="ma")
        alpha = np.asarray(mask, dtype=np.float32) / 255
        rows, columns = np.nonzero(alpha)  # a few thousand pixels of ink
        self.pixels = rows + min(round(0.035 * height), height - mask.height), columns
        alpha = alpha[rows, columns, None]
        self.clear, self.ink = 1 - alpha, alpha * TITLE_COLOR  # (P, 1), (P, 3)

    def draw(self, frame: np.ndarray) -> None:
        """Draw the title over an (H, W, 3) uint8 frame, in place."""
        frame[self.pixels] = frame[self.pixels] * self.clear + self.ink


def wrap_title(text: str, fits: Callable[[str], bool]) -> list[str]:
    """Break a title into at most three lines for which ``fits`` holds, between words where possible."""
    text = "".join(character if character.isprintable() else " " for character in text[:TITLE_CHARACTERS])
    words, lines = text.split(), []
    while words and len(lines) < TITLE_LINES:
        line = words.pop(0)
        while words and fits(f"{line} {words[0]}"):
            line = f"{line} {words.pop(0)}"
        cut = 1
        while cut < len(line) and fits(line[: cut + 1]):  # a word may be wider than the frame
            cut += 1
        words = [line[cut:], *words] if line[cut:] else words
        lines.append(line[:cut])
    if words:
        line = lines[-1]
        while len(line) > 1 and not fits(line + "…"):
            line = line[:-1]
        lines[-1] = line.rstrip() + "…"
    return lines


@cache
def font_for(text: str) -> str:
    """Return the path of a font for a text.

    DejaVu Sans, which ships with matplotlib (Latin, Greek, Cyrillic, Arabic, Hebrew and more); if it lacks characters
    of the text, the installed font that lacks the fewest.
    """
    import matplotlib
    from matplotlib.font_manager import findSystemFonts
    from matplotlib.ft2font import FT2Font

    wanted = {ord(character) for character in text if character.isprintable() and not character.isspace()}

    def missing(path: str) -> int:
        try:
            font = FT2Font(path)
            return len(wanted - font.get_charmap().keys()) if font.scalable else len(wanted)  # bitmap font
        except (OSError, RuntimeError):  # damaged
            return len(wanted)

    default = str(Path(matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf"))
    return default if missing(default) == 0 else min((default, *sorted(findSystemFonts())), key=missing)
