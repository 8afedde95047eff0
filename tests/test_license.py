"""The license of the weights goes from the model card into files of the motions."""

import subprocess

import imageio_ffmpeg
import numpy as np
import pytest

from formats.clip import read_clip
from formats.gltf_file import read_gltf
from models.model_card import rights_of_motions
from motion.clip import Clip
from visualize.export import save_clip
from visualize.video import write_mp4

RIGHTS = "made with weights under CC BY-NC 4.0: name the source, no commercial use"


@pytest.mark.parametrize(
    ("card", "rights"),
    [
        ("---\nlicense: cc-by-nc-4.0\ntags: [a]\n---\n# demo", RIGHTS),
        ("---\ntags: [a]\nlicense: 'mit'\n---\n", "made with weights under mit"),
        ("---\nlicense: cc0-1.0\n---\n", "made with weights under cc0-1.0"),
        ("---\ntags: [a]\n---\nlicense: mit", ""),
        (None, ""),
    ],
)
def test_license_of_motions_is_that_of_the_model_card(tmp_path, card, rights):
    if card is not None:
        (tmp_path / "README.md").write_text(card)
    assert rights_of_motions(tmp_path) == rights


def test_files_state_the_license(tmp_path):
    motion = np.zeros((4, 85))
    motion[:, 73] = 0.95
    clip = Clip(motion, "a person stands", rights=RIGHTS)
    assert read_clip(save_clip(clip, tmp_path / "a.npz")).rights == RIGHTS
    assert read_gltf(save_clip(clip, tmp_path / "a.glb")).document["asset"]["copyright"] == RIGHTS
    assert f'<meta name="license" content="{RIGHTS}">' in save_clip(clip, tmp_path / "a.html").read_text()


def test_videos_state_the_license(tmp_path):
    file = write_mp4(tmp_path / "a.mp4", np.zeros((2, 32, 32, 3), np.uint8), 30, RIGHTS)
    told = subprocess.run([imageio_ffmpeg.get_ffmpeg_exe(), "-i", file], capture_output=True, text=True).stderr
    assert RIGHTS in told
