"""Render videos and export other formats in worker processes while generation continues.

The processes run at a lower priority than generation.
"""

from concurrent.futures import Future, as_completed
from functools import cache
from pathlib import Path

import numpy as np
from tqdm import tqdm

from formats.clip import read_clip
from motion.resample import FPS
from utils.processes import lower_priority, worker_pool
from visualize.body import Body, body_from_options
from visualize.export import Options, export


class Renderers:
    """A pool of processes that export motions to videos and other files; a context manager.

    If a process is killed, only its current file fails, and the process is replaced.

    Args:
        workers: Number of processes.
        size: Width and height of the videos in pixels.
        smplx_path: SMPL-X model file or its folder; None draws the mannequin.
        views: Views to draw ("mesh", "skeleton"); the processes warm up their renderers while a model loads.
    """

    def __init__(self, workers: int, size: int, smplx_path: Path | None, views: list[str]):
        self.workers, self.size, self.smplx_path, self.views = workers, size, smplx_path, views
        self.context = worker_pool(workers, lower_priority)
        self.targets: dict[Future, Path] = {}

    def __enter__(self) -> "Renderers":
        self.pool = self.context.__enter__()
        for _ in range(self.workers if self.views else 0):
            self.pool.submit(warm_up, self.views)
        return self

    def __exit__(self, *error) -> None:
        self.context.__exit__(*error)

    def draw(self, source: Path, target: Path, view: str) -> None:
        """Queue the motion of an npz file to be written into ``target``, in the format that its suffix names."""
        self.targets[self.pool.submit(write_file, source, target, view, self.size, self.smplx_path)] = target

    def finish(self) -> dict[str, str]:
        """Wait for all files, print each when it is done, and return the failure reasons by file name.

        On a terminal, a line shows the number of finished files and the time left.
        """
        failures, drawn = {}, sum(future.done() for future in self.targets)
        with tqdm(desc="drawing", unit="file", total=len(self.targets), initial=drawn, disable=None) as progress:
            for number, future in enumerate(as_completed(self.targets)):  # those that are done come first
                error = future.exception()
                if error is None:
                    progress.write(str(self.targets[future]))
                else:
                    failures[self.targets[future].name] = str(error) or repr(error)
                progress.update(number >= drawn)
        return failures


def warm_up(views: list[str]) -> None:
    """Import and compile the renderers of ``views`` in this process."""
    from visualize.smplx import render_body

    if "mesh" in views:
        next(iter(render_body(np.zeros((1, 85), dtype=np.float32), None, FPS, (64, 64))))


def write_file(source: Path, target: Path, view: str, size: int, smplx_path: Path | None) -> None:
    """Write the motion of an npz file in another format; videos and pages are titled with its prompt."""
    export([read_clip(source)], target, Options(view=view, size=size), body_of(smplx_path))


@cache
def body_of(smplx_path: Path | None) -> Body:
    """Load the body to draw, once per process."""
    return body_from_options(None, smplx_path)
