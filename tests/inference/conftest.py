"""Fixtures of the inference tests.

The checkpoint is tiny and untrained, with weights large enough that its tokens depend on the text. Videos are drawn in
this process, except in the test of the command line: starting a renderer process takes seconds.
"""

from pathlib import Path

import pytest

import inference_batch
import models.pipeline
import visualize.renderers
from models.pipeline import TextToMotion
from models.text_encoder import TextEncoder, load_text_encoder
from tests.inference.helpers import PROMPTS, InProcess, save_tiny_checkpoint
from utils.config import parse_options
from utils.errors import exit_on_input_error


@pytest.fixture(scope="session")
def minilm() -> TextEncoder:
    return load_text_encoder("minilm")


@pytest.fixture(scope="module", autouse=True)
def load_minilm_once(minilm):
    """Let all models of a test file share one MiniLM."""

    def load(name, device, path):
        return minilm if name == minilm.name else load_text_encoder(name, device, path)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(models.pipeline, "load_text_encoder", load)
        yield


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Path:
    """A text-to-motion run folder; tests that damage it use a copy."""
    return save_tiny_checkpoint(tmp_path_factory.mktemp("run") / "tiny")


@pytest.fixture(scope="module")
def model(checkpoint) -> TextToMotion:
    return TextToMotion.from_pretrained(checkpoint)


@pytest.fixture
def run(checkpoint, tmp_path, monkeypatch, capsys):
    """A function that runs inference_batch.py with arguments and returns (exit status, output, errors)."""
    monkeypatch.setattr(visualize.renderers, "worker_pool", InProcess)
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str | Path, out: str = "out", checkpoint: Path = checkpoint) -> tuple[int, str, str]:
        words = [str(word) for word in arguments]
        if "--save" not in words:
            words += ["--save", "npz"]
        words += ["--checkpoint", str(checkpoint), "--out-dir", out]
        capsys.readouterr()
        status = 0
        try:
            with exit_on_input_error():
                inference_batch.main(parse_options(inference_batch.Options, "", words)[0])
        except SystemExit as exit:
            status = exit.code
        return status, *capsys.readouterr()

    return run


@pytest.fixture
def prompt_file(tmp_path) -> Path:
    file = tmp_path / "prompts.txt"
    file.write_text("\n".join(PROMPTS) + "\n")
    return file
