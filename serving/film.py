"""Process that draws one video for the web app: python -m serving.film

Its job names the folder that contains motion.npy and receives motion.mp4, the title, license, size and body. The file
``drawn`` in that folder grows by one byte per frame.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from serving.jobs import take_job

if TYPE_CHECKING:
    import numpy as np


def draw(job: dict) -> None:
    """Draw the video of a job."""
    import numpy as np

    from motion.resample import FPS
    from visualize.body import body_from_options
    from visualize.smplx import render_body
    from visualize.video import write_mp4

    folder = Path(job["folder"])
    body = body_from_options(None, Path(job["smplx_path"]) if job["smplx_path"] else None)
    frames = render_body(np.load(folder / "motion.npy"), job["title"], size=(job["size"], job["size"]), body=body)
    write_mp4(folder / "motion.mp4", counted(frames, folder / "drawn"), FPS, job["rights"])


def counted(frames: "Iterable[np.ndarray]", file: Path) -> "Iterator[np.ndarray]":
    """Yield frames and write a byte into a file for each."""
    with file.open("wb", buffering=0) as progress:
        for frame in frames:
            yield frame
            progress.write(b".")


if __name__ == "__main__":
    draw(take_job())  # the job is taken before the slow imports
