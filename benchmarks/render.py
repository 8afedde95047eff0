"""Measure the speed of every renderer and exporter against the method of public code, a new figure per frame.

    python -m benchmarks.render

Renders six-second motions of the checkpoint in one process, while ffmpeg encodes in another. T2M-GPT and its successors
draw 960 x 960 pixels; our default is 512 x 512. The last line renders the mesh videos of many motions on all cores, as
inference_batch.py does.
"""

import utils.interrupt  # noqa: F401

# isort: split

import io
import os

os.environ |= dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS"), "1")  # before NumPy

import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jsonargparse.typing import NonNegativeInt, PositiveFloat, PositiveInt

from formats.bvh_writer import write_bvh
from models.pipeline import Motion, TextToMotion
from motion.clip import Clip
from motion.foot_lock import lock_feet
from motion.resample import FPS
from motion.skeleton import LIMBS
from utils.config import parse_options
from utils.errors import exit_on_input_error
from visualize.body import load_body
from visualize.export import write_npz
from visualize.glb import write_glb
from visualize.page import write_gallery, write_player
from visualize.renderers import Renderers
from visualize.smplx import render_mesh_video, visualize_smplx_85
from visualize.video import write_mp4

PROMPT = "a person walks and turns left"
SIZE = (512, 512)


@dataclass
class Options:
    """Options of the measurement."""

    checkpoint: Path = Path("checkpoints/demo")
    """Folder of a text-to-motion model."""
    seconds: PositiveFloat = 6.0
    """Length of the motions in seconds."""
    repeats: PositiveInt = 3
    """Number of runs, of which the fastest counts."""
    batch: NonNegativeInt = 32
    """Number of motions in the last line; 0 omits it."""


def main(options: Options) -> None:
    torch.set_num_threads(1)
    model, count = TextToMotion.from_pretrained(options.checkpoint), max(1, options.batch)
    motions = model.generate([PROMPT] * count, list(range(count)), seconds=[options.seconds] * count)
    frames, first = len(motions[0].smplx85), None
    with tempfile.TemporaryDirectory() as name:
        print(f"| {frames} frames | frames/s | relative to the first row |\n|---|---|---|")
        for label, work in cases(motions[0], Path(name)).items():
            if "figure" not in label:
                work()  # import and compile
            speed = frames * (100 if "100" in label else 1) / min(seconds_of(work) for _ in range(options.repeats))
            first = first or speed
            print(f"| {label} | {speed:,.0f} | {speed / first:.1f} |", flush=True)
        if options.batch:
            took = batch_seconds(Path(name), [motion.smplx85 for motion in motions])
            print(f"\n{count} motions of {frames} frames to mesh .mp4 with {os.cpu_count()} processes: {took:.0f} s")


def cases(motion: Motion, folder: Path) -> dict[str, Callable[[], object]]:
    """Return the functions to measure by their label in the table; "100" in a label means 100 motions."""
    clip, joints, body = Clip(motion.smplx85, PROMPT), motion.joints, load_body()
    return {
        "new figure per frame, 960 (.mp4)": lambda: write_mp4(folder / "a.mp4", figures(joints, 960), FPS),
        "new figure per frame, 512 (.mp4)": lambda: write_mp4(folder / "a.mp4", figures(joints, 512), FPS),
        "skeleton, 960 (.mp4)": lambda: visualize_smplx_85(clip, PROMPT, folder / "b.mp4", size=(960, 960)),
        "skeleton (.mp4)": lambda: visualize_smplx_85(clip, PROMPT, folder / "b.mp4"),
        "skeleton (.gif)": lambda: visualize_smplx_85(clip, PROMPT, folder / "b.gif"),
        "mesh (.mp4)": lambda: render_mesh_video(clip, PROMPT, folder / "c.mp4", body=body),
        "mesh, two people (.mp4)": lambda: render_mesh_video([clip, clip], "", folder / "d.mp4", body=body),
        ".npz": lambda: write_npz(folder / "e.npz", clip),
        ".bvh": lambda: write_bvh(folder / "e.bvh", clip),
        ".glb": lambda: write_glb(folder / "e.glb", clip, PROMPT, body),
        ".html, player": lambda: write_player(folder / "e.html", [clip], body),
        ".html, gallery of 100": lambda: write_gallery(folder / "f.html", [clip] * 100, body),
        "foot lock": lambda: lock_feet(clip),
    }


def seconds_of(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def figures(joints: np.ndarray, pixels: int) -> Iterator[np.ndarray]:
    """Draw (T, 22, 3) joints as public code does: a new figure with 3-D axes, floor, path and limbs per frame."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot
    from mpl_toolkits.mplot3d.art3d import Poly3DCollection

    low, high = joints.min(axis=(0, 1)), joints.max(axis=(0, 1))
    for frame, pose in enumerate(joints):
        figure = pyplot.figure(figsize=(pixels / 96, pixels / 96), dpi=96)
        axes = figure.add_subplot(projection="3d")
        axes.set(xlim=(low[0], high[0]), ylim=(low[2], high[2]), zlim=(0, 2), title=PROMPT)
        axes.view_init(elev=20, azim=-60)
        corners = [(x, z, 0) for x, z in ((low[0], low[2]), (low[0], high[2]), (high[0], high[2]), (high[0], low[2]))]
        axes.add_collection3d(Poly3DCollection([corners], facecolor=(0.5, 0.5, 0.5, 0.5)))
        axes.plot(joints[: frame + 1, 0, 0], joints[: frame + 1, 0, 2], 0, color="blue", linewidth=1)
        for chain in LIMBS.values():
            limb = pose[list(chain)]
            axes.plot(limb[:, 0], limb[:, 2], limb[:, 1], linewidth=3)
        axes.set_axis_off()
        buffer = io.BytesIO()
        figure.savefig(buffer, format="raw", dpi=96)
        pyplot.close(figure)
        yield np.frombuffer(buffer.getvalue(), np.uint8).reshape(pixels, pixels, 4)


def batch_seconds(folder: Path, motions: list[np.ndarray]) -> float:
    """Return the seconds from the start of the processes to the last video."""
    for number, smplx85 in enumerate(motions):
        write_npz(folder / f"{number}.npz", Clip(smplx85, PROMPT))
    start = time.perf_counter()
    with redirect_stdout(None), Renderers(os.cpu_count() or 1, SIZE[0], None, ["mesh"]) as renderers:
        for number in range(len(motions)):
            renderers.draw(folder / f"{number}.npz", folder / f"{number}.mp4", "mesh")
        failures = renderers.finish()
    assert not failures, failures
    return time.perf_counter() - start


if __name__ == "__main__":
    with exit_on_input_error():
        main(parse_options(Options, __doc__)[0])
