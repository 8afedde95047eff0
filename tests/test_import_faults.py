"""Files in other conventions that lie beside the repository: each gives the right motion."""

import json
import os
from pathlib import Path

import numpy as np
import pytest

from formats.clip import read_clip
from motion.skeleton import JOINT_NAMES, forward_kinematics
from motion.smplx import smplx85_to_motion
from tests.conftest import ROOT, run_script
from tests.exporters import world_rotations

FAULTS = Path(os.environ.get("SHARED_DIR", ROOT.parent / "shared")) / "faults" / "motion"
needs_faults = pytest.mark.skipif(not FAULTS.is_dir(), reason=f"the files in other conventions are not in {FAULTS}")
MAPS = {"05_a_map_skips_every_check/bones_along_local_y.bvh": "05_a_map_skips_every_check/names_only_map.yaml"}
FILES = sorted(
    str(path.relative_to(FAULTS))
    for number in ("01", "02", "03", "04", "05", "06", "07", "08", "09", "10", "14", "15")
    for path in FAULTS.glob(f"{number}_*/*.*")
    if path.suffix in (".bvh", ".npz", ".npy")
)
# Written with the translation of an SMPL-X body, although its 72 values are those of SMPL, whose pelvis is elsewhere.
OTHER_PELVIS = "10_small_refusals_with_wrong_advice/smpl72.npz"


@needs_faults
@pytest.mark.parametrize("use_map", [False, True])
@pytest.mark.parametrize("name", FILES)
def test_file_gives_the_right_motion(name, use_map):
    if use_map and name not in MAPS:
        pytest.skip("no skeleton map comes with it")
    skeleton = FAULTS / MAPS[name] if use_map else None
    right = np.load(FAULTS / "tools" / "right.npz")["smplx_85"].astype(np.float64)
    rotations, pelvis = smplx85_to_motion(read_clip(FAULTS / name, skeleton).smplx85.astype(np.float64))
    expected, expected_pelvis = smplx85_to_motion(right)
    joints = forward_kinematics(rotations, pelvis * 0) - forward_kinematics(expected, pelvis * 0)
    assert np.linalg.norm(joints, axis=-1).max() < 5e-4
    cos = (np.einsum("tjab,tjab->tj", world_rotations(rotations), world_rotations(expected)) - 1) / 2
    assert np.degrees(np.arccos(np.clip(cos, -1, 1))).max() < 1, JOINT_NAMES
    if name != OTHER_PELVIS:
        assert np.abs(pelvis - expected_pelvis).max() < 0.01


@needs_faults
def test_prepared_folder_holds_upright_people_and_names_each_rejected_file(tmp_path):
    source = FAULTS / "05_a_map_skips_every_check"
    out = run_script("prepare_data.py", "bvh", "--source", source / "mocap", "--out", tmp_path / "data", "--skeleton",
                     source / "mixamo_map.yaml", "--workers", 1, "--mirrored", "false")  # fmt: skip
    rejected = json.loads((tmp_path / "data" / "report.json").read_text())["rejected"]
    assert not rejected and out.count("--up") == 1
    vectors = {path.stem: np.load(path) for path in (tmp_path / "data").rglob("*.npy") if len(np.load(path)) == 45}
    assert set(vectors) == {"good", "z_up", "rest_y_up_motion_z_up"}
    for features in vectors.values():
        np.testing.assert_allclose(features, vectors["good"], atol=2e-4)
