"""Videos drawn in processes of their own, beside the generation that feeds them."""

from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from functools import cache
from multiprocessing import get_context
from pathlib import Path

import numpy as np

from utils.motion272 import FPS
from visualize.body import Body, load_body


class Renderers:
    """A pool of processes that draw motions into videos; a context manager.

    Args:
        workers: Processes. size: Width and height of the videos in pixels.
        smplx_path: SMPL-X model file or folder, to draw its body; None for the mannequin.
        views: What will be drawn ("mesh", "skeleton"): the processes prepare for it at once, while a model loads.
    """

    def __init__(self, workers: int, size: int, smplx_path: Path | None, views: list[str]):
        self.size, self.smplx_path = size, smplx_path
        self.pool = ProcessPoolExecutor(workers, get_context("spawn"))
        self.targets: dict[Future, Path] = {}
        for _ in range(workers if views else 0):
            self.pool.submit(warm_up, views)

    def __enter__(self) -> "Renderers":
        return self

    def __exit__(self, kind: type | None, *_) -> None:
        self.pool.shutdown(cancel_futures=kind is not None)

    def draw(self, source: Path, target: Path, view: str) -> None:
        """Draw the motion of an npz file into ``target`` (.mp4 or .gif), some time soon."""
        try:
            future = self.pool.submit(draw_video, source, target, view, self.size, self.smplx_path)
        except BrokenProcessPool as error:  # a process was killed: the video fails, not the program
            future = Future()
            future.set_exception(error)
        self.targets[future] = target

    def finish(self) -> dict[str, str]:
        """Wait for all videos and print each as it is done; gives what failed, by file name, with the reason."""
        failures = {}
        for future in as_completed(self.targets):
            error = future.exception()
            if error is None:
                print(self.targets[future])
            else:
                failures[self.targets[future].name] = str(error) or repr(error)
        return failures


def warm_up(views: list[str]) -> None:
    """Import and compile what a process needs."""
    from visualize.smplx import render_body

    if "mesh" in views:
        next(iter(render_body(np.zeros((1, 85), dtype=np.float32), None, FPS, (64, 64))))


def draw_video(source: Path, target: Path, view: str, size: int, smplx_path: Path | None) -> None:
    """Draw the motion of an npz file into a video, under its prompt."""
    from visualize.smplx import render_mesh_video, visualize_smplx_85

    with np.load(source, allow_pickle=False) as saved:
        smplx85, title = saved["smplx_85"], str(saved["prompt"])
    if view == "skeleton":
        visualize_smplx_85(smplx85, title, target, FPS, (size, size))
    else:
        render_mesh_video(smplx85, title, target, FPS, (size, size), body_of(smplx_path))


@cache
def body_of(smplx_path: Path | None) -> Body:
    """The body to draw, loaded once a process."""
    return load_body("smplx", smplx_path) if smplx_path else load_body()
