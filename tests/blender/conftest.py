"""Tests with a real Blender, which are skipped where there is none; make test-blender installs it."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from dataset.synthetic import synthetic_clips
from formats.fbx import find_blender
from motion.clip import Clip
from motion.smplx import motion_to_smplx85
from utils.errors import InputError
from visualize.export import write_npz

PROBE = Path(__file__).with_name("probe.py")


def run_blender(script: Path, *arguments: object) -> str:
    """Run a script in Blender and return what it prints."""
    words = [*find_blender(), str(script), "--", *map(str, arguments)]
    done = subprocess.run(words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert done.returncode == 0, done.stdout[-3000:]
    return done.stdout


@pytest.fixture(scope="session", autouse=True)
def blender() -> None:
    try:
        find_blender()
    except InputError:
        pytest.skip("Blender is not installed; make test-blender installs it")


@pytest.fixture(scope="session")
def probe(tmp_path_factory) -> Callable[..., list[dict]]:
    """Returns what Blender imports from files: facts, and the places (T, 3) of each joint under "places"."""

    def run(*files: Path) -> list[dict]:
        result = tmp_path_factory.mktemp("probe") / "result"
        run_blender(PROBE, result, *files)
        facts, arrays = json.loads(result.with_suffix(".json").read_text()), np.load(result.with_suffix(".npz"))
        found = [facts[str(file)] for file in files]
        for number, each in enumerate(found):
            each["places"] = dict(zip(each["joints"], np.moveaxis(arrays[str(number)], 1, 0), strict=True))
        return found

    return run


@pytest.fixture(scope="session")
def walk(tmp_path_factory) -> Path:
    """The .npz file of a motion of 60 frames, titled "walk"."""
    name, rotations, pelvis, _ = next(clip for clip in synthetic_clips(12, seed=1) if "turn" in clip[0])
    clip = Clip(motion_to_smplx85(rotations.astype(float), pelvis.astype(float))[:60], "walk")
    path = tmp_path_factory.mktemp("motion") / "walk.npz"
    write_npz(path, clip)
    return path
