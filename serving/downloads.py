"""Finished motions as files. A thread writes small formats; each video is drawn in a process that can be killed."""

import asyncio
import contextlib
import logging
import shutil
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from motion.clip import Clip
from serving.errors import Refused
from serving.jobs import run_job
from serving.options import Options
from serving.places import Places
from serving.service import run_in
from utils.errors import InputError
from visualize.body import Body
from visualize.export import Options as ExportOptions
from visualize.export import export

logger = logging.getLogger(__name__)
MEDIA_TYPES = {  # of the formats that a motion can be downloaded in
    "bvh": "text/plain",
    "glb": "model/gltf-binary",
    "npz": "application/octet-stream",
    "mp4": "video/mp4",
}
CONTENTS = {  # of these formats
    "bvh": "skeleton and its rotations, for Blender, Maya and game engines",
    "glb": "body with an animation (glTF), or a character that was sent",
    "npz": "NumPy arrays: smplx_85 (T, 85), joints (T, 22, 3) in metres, the keys of AMASS",
    "mp4": "video of the body, drawn within minutes",
}
VIDEO_SIZE = 512  # pixels
VIDEO_SECONDS = 300  # maximum time to draw a video
PREFIX = "motion-app-"  # of temporary folders
LEFTOVER_SECONDS = 3600  # age from which a temporary folder belongs to an app that was killed


@dataclass
class Drawing:
    """A video in preparation."""

    frames: int
    """Number of its frames."""
    folder: Path | None = None
    """Folder of its process; None while it waits for its turn."""
    requests: int = 0
    """Number of requests that wait for it."""

    @property
    def percent(self) -> int:
        """Share of the frames that are drawn."""
        drawn = self.folder / "drawn" if self.folder else None
        return 100 * drawn.stat().st_size // self.frames if drawn and drawn.exists() else 0


class Downloads:
    """Prepares downloads: small formats one at a time and, concurrently, videos one at a time."""

    def __init__(self, body: Body, options: Options):
        self.body, self.smplx_path = body, options.smplx_path
        self.places, self.video_places = (  # separate, so that waiting videos do not block small files
            Places(
                options.capacity,
                options.per_address,
                full=f"too many {noun} are in preparation; try again in a minute",
                used=f"{noun} for your network address are already in preparation; wait until one is done",
                per_minute=options.jobs_per_minute,
            )
            for noun in ("downloads", "videos")
        )
        self.thread = ThreadPoolExecutor(1)
        self.video_turn = asyncio.Lock()
        self.drawings: dict[int, Drawing] = {}  # by the id of the clip, the oldest first

    def close(self) -> None:
        """Cancel waiting downloads and wait for the one in the thread, whose temporary folder is then removed."""
        self.thread.shutdown(cancel_futures=True)

    async def prepare(self, clip: Clip, kind: str, address: str) -> bytes:
        """Return the bytes of a motion in a format of ``MEDIA_TYPES``.

        If the task is cancelled, a video process is killed and nothing is left on the disk.

        Raises:
            Busy: too many downloads are in preparation, for all visitors or for this address.
            Refused: the file cannot be written, or the video cannot be drawn.
        """
        if kind == "mp4":
            with self.video_places.hold(address), self._listed(clip) as drawing:
                async with self.video_turn:
                    return await self._draw(clip, drawing)
        with self.places.hold(address):
            try:
                return await run_in(self.thread, self._write, clip, kind)
            except InputError as error:  # its sentence is for the owner of the server: a disk is full
                logger.exception("a download failed")
                raise Refused("the file could not be written; try again later", 500) from error

    def _write(self, clip: Clip, kind: str) -> bytes:
        with temporary_folder() as folder:
            target = folder / f"motion.{kind}"
            export([clip], target, ExportOptions(), self.body)
            return target.read_bytes()

    def progress(self, clip: Clip) -> tuple[int, int] | None:
        """Return the number of videos drawn before that of a motion, and the percentage of its frames that are drawn.

        Returns None if no video of it is in preparation.
        """
        drawing = self.drawings.get(id(clip))
        return (list(self.drawings).index(id(clip)), drawing.percent) if drawing else None

    @contextmanager
    def _listed(self, clip: Clip) -> Iterator[Drawing]:
        """Context manager that lists the video of a motion; one that is asked for twice is listed once."""
        drawing = self.drawings.setdefault(id(clip), Drawing(frames=len(clip.smplx85)))
        drawing.requests += 1
        try:
            yield drawing
        finally:
            drawing.requests -= 1
            if not drawing.requests:
                del self.drawings[id(clip)]

    async def _draw(self, clip: Clip, drawing: Drawing) -> bytes:
        """Draw a video in a process that also ends when this process is killed."""
        with temporary_folder() as folder:
            drawing.folder = folder
            np.save(folder / "motion.npy", clip.smplx85)
            smplx = str(self.smplx_path.resolve()) if self.smplx_path else None
            job = {"folder": str(folder), "title": clip.title, "rights": clip.rights, "size": VIDEO_SIZE}
            job["smplx_path"] = smplx
            try:
                status = await run_job("film", job, VIDEO_SECONDS)
            except TimeoutError as error:
                raise Refused(f"the video was not drawn within {VIDEO_SECONDS} s; try another format", 500) from error
            if status:
                raise Refused("the video could not be drawn; try another format", 500)
            return (folder / "motion.mp4").read_bytes()


@contextmanager
def temporary_folder() -> Iterator[Path]:
    """Context manager of a temporary folder with a name by which leftovers are recognized."""
    with tempfile.TemporaryDirectory(prefix=PREFIX, ignore_cleanup_errors=True) as folder:
        yield Path(folder)


def remove_leftovers() -> None:
    """Remove the temporary folders of apps that were killed."""
    for folder in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        with contextlib.suppress(OSError):
            if folder.stat().st_mtime < time.time() - LEFTOVER_SECONDS:
                shutil.rmtree(folder, ignore_errors=True)
