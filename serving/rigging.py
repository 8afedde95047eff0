"""Process that checks one character, or puts a motion onto it: python -m serving.rigging

Its job names the folder that contains character.glb. Without a title, the process writes character.json and, if the
file has one animation, its poses into poses.npy; with a title it puts motion.npy onto the character as motion.glb. A
refusal is one sentence in error.txt.
"""

import json
import resource
import sys
from pathlib import Path

from serving.jobs import take_job

MEMORY = 4 * 2**30  # bytes of address space
MAX_BONES = 1000
MAX_VERTICES = 500_000


def rig(job: dict) -> None:
    """Do a job.

    Raises:
        InputError: the character or the motion is unusable.
    """
    import numpy as np

    from characters.character import load_character
    from characters.write import write_character
    from formats.clip import read_clip
    from formats.import_options import ImportOptions
    from motion.clip import Clip
    from utils.errors import InputError

    folder = Path(job["folder"])
    file = folder / "character.glb"
    character = load_character(file)
    if job["title"] is not None:
        clip = Clip(np.load(folder / "motion.npy"), job["title"], rights=job["rights"])
        write_character(folder / "motion.glb", character, [clip])
        return
    bones, vertices = len(character.skeleton.names), sum(len(part.vertices) for part in character.parts)
    if bones > MAX_BONES or vertices > MAX_VERTICES:
        raise InputError(
            f"it has {bones} bones and {vertices} vertices; give a character with at most {MAX_BONES} and "
            f"{MAX_VERTICES}"
        )
    facts = {"bones": bones, "vertices": vertices, "scale": character.scale, "axes": character.axes.tolist()}
    (folder / "character.json").write_text(json.dumps(facts))
    if len(character.file.items("animations")) == 1:
        np.save(folder / "poses.npy", read_clip(file, options=ImportOptions(force=True)).smplx85)


def main(job: dict) -> int:
    """Do a job and return the exit status."""
    from utils.errors import InputError

    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    try:
        rig(job)
    except (InputError, MemoryError) as error:
        sentence = str(error) or "it does not fit into the memory of the server"
        place = f"{Path(job['folder']) / 'character.glb'}: "
        (Path(job["folder"]) / "error.txt").write_text(sentence.replace(place, ""))
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(take_job()))
