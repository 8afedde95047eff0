"""Process that draws one video for the web app: python -m serving.film

Its job names the folder that contains motion.npy and receives motion.mp4, the title, license, size and body.
"""

from pathlib import Path

from serving.jobs import take_job


def draw(job: dict) -> None:
    """Draw the video of a job."""
    import numpy as np

    from motion.clip import Clip
    from visualize.body import body_from_options
    from visualize.export import Options, export

    folder = Path(job["folder"])
    clip = Clip(np.load(folder / "motion.npy"), job["title"], rights=job["rights"])
    body = body_from_options(None, Path(job["smplx_path"]) if job["smplx_path"] else None)
    export([clip], folder / "motion.mp4", Options(size=job["size"]), body)


if __name__ == "__main__":
    draw(take_job())  # the job is taken before the slow imports
