"""The add-on in a real Blender, with a real server: sentences, a path, poses at markers, failures."""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from characters.character import load_character
from tests.blender.conftest import run_blender
from tests.conftest import ROOT
from tests.rigs import UNREAL, Rig, write_rig
from tests.starting import start_app

SCRIPT = Path(__file__).with_name("use_addon.py")


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """The address of a server with the shipped checkpoint, which follows a path."""
    process, address = start_app()
    yield address
    process.terminate()
    process.communicate()


@pytest.mark.timeout(900)
def test_the_addon_makes_actions_of_sentences_paths_and_poses(address, tmp_path, monkeypatch):
    subprocess.run(["make", "addon"], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    rig = write_rig(tmp_path / "hero.glb", Rig(UNREAL, arms=45, axes="turned", legs=1.2, above=("root",)))
    character = load_character(rig)
    bones = [character.skeleton.names[bone] for bone in character.bones.all()]
    job = {"zip": str(ROOT / "outputs" / "text_to_motion.zip"), "character": str(rig), "address": address,
           "bones": bones, "result": str(tmp_path / "found.json"),
           "folder": str(ROOT) if (ROOT / ".venv" / "bin" / "python").exists() else ""}  # fmt: skip
    (tmp_path / "job.json").write_text(json.dumps(job))
    monkeypatch.setenv("BLENDER_USER_RESOURCES", str(tmp_path / "user"))
    print(run_blender(SCRIPT, tmp_path / "job.json")[-2000:])
    found = json.loads((tmp_path / "found.json").read_text())

    assert found["nothing selected"]["failed"] and "select an armature" in found["nothing selected"]["state"]
    assert "does not answer" in found["no server"]["state"] and found["no server"]["failed"]
    for name in ("simple", "path", "markers", *(["own server"] if job["folder"] else [])):
        assert not found[name]["failed"], found[name]
    assert len(found["actions"]) == 2 and "seed5" in found["actions"][0] and "seed6" in found["actions"][1]
    places = np.array([found["places"][bone] for bone in bones])  # (J, T, 3)
    assert 60 <= places.shape[1] < 68 and np.ptp(places[..., 2]) > 1  # two sentences of one second, in whole tokens
    lengths = np.linalg.norm(places[0] - places[1], axis=-1)
    assert np.ptp(lengths) < 1e-4

    hips = np.array(found["path places"][bones[0]])[:, :2]
    start, end = (np.array(point)[:2] for point in found["path ends"])
    assert np.linalg.norm(hips[0] - start) < 0.15 and np.linalg.norm(hips[-1] - end) < 0.7 and hips[-1, 1] < -2.5
    assert found["marker error"] < 0.05
    assert not any("path." in name or name.endswith(".001") for name in found["objects"])  # nothing is left behind
