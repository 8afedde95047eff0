"""Process that draws one video for the web app: python -m serving.film

It reads one line of JSON: the folder that contains motion.npy and receives motion.mp4, the title, size and body. When
its standard input is closed, the app has ended; the process then removes the folder and exits, together with its
encoder.
"""

import json
import os
import shutil
import signal
import sys
import threading
from pathlib import Path

PRIORITY = 10  # below that of the app


def draw(job: dict) -> None:
    """Draw the video of a job."""
    import numpy as np

    from motion.clip import Clip
    from visualize.body import body_from_options
    from visualize.export import Options, export

    folder = Path(job["folder"])
    clip = Clip(np.load(folder / "motion.npy"), job["title"])
    body = body_from_options(None, Path(job["smplx_path"]) if job["smplx_path"] else None)
    export([clip], folder / "motion.mp4", Options(size=job["size"]), body)


def end_with_app(folder: str) -> None:
    """Wait for the end of the app, then remove the folder and kill the process group of this process."""
    while os.read(sys.stdin.fileno(), 1):  # without the lock of sys.stdin, which would be held when Python ends
        pass
    shutil.rmtree(folder, ignore_errors=True)
    os.killpg(0, signal.SIGKILL)


if __name__ == "__main__":
    os.nice(PRIORITY)
    job = json.loads(sys.stdin.buffer.readline())
    threading.Thread(target=end_with_app, args=(job["folder"],), daemon=True).start()  # before the slow imports
    draw(job)
