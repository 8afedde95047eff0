"""Use from Python and as an installed package: saved and shown motions, shipped files, caches, imports."""

import ast
import os
import subprocess
import sys
import tomllib
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from models.arguments import per_prompt
from models.motion import Motion
from models.pipeline import TextToMotion
from tests.conftest import ROOT
from utils import paths
from utils.errors import InputError
from utils.prompts import Prompt


@pytest.fixture(scope="module")
def model() -> TextToMotion:
    return TextToMotion.from_pretrained("checkpoints/demo", device="cpu")


@pytest.fixture(scope="module")
def motion(model) -> Motion:
    return model.generate("a person walks", seconds=0.4)


def test_a_sentence_gives_a_motion_and_a_list_gives_a_list(model, motion):
    listed = model.generate(["a person walks", Prompt.parse("a person runs")], seconds=0.4)
    assert [len(each.features) for each in listed] == [len(motion.features)] * 2
    np.testing.assert_array_equal(listed[0].tokens, motion.tokens)
    [(number, same)] = model.generate_each("a person walks", seconds=0.4)
    assert number == 0 and np.array_equal(same.tokens, motion.tokens)


def test_seeds_and_lengths_are_for_all_prompts_or_per_prompt():
    def asked(*arguments):
        return [(each.seed, each.seconds) for each in per_prompt(*arguments, None)]

    assert asked(["walk", "run", "walk"], 5, 2.0) == [(5, 2.0), (5, 2.0), (6, 2.0)]  # no motion twice
    assert asked(["walk", "walk"], [5, 5], [1.0, None]) == [(5, 1.0), (5, None)]
    assert asked("walk | run", 5, [1.0, 2.0]) == [(5, [1.0, 2.0])]  # one prompt: a length per sentence
    with pytest.raises(InputError, match="1 prompts, 2 seeds"):
        asked("walk", [1, 2], None)
    with pytest.raises(InputError, match="not a text"):
        asked(None, 0, None)


@pytest.mark.parametrize(
    ("words", "wrong"),
    [
        ("seed is '1'", {"seeds": "1"}),
        ("seed is None", {"seeds": None}),
        ("seed is 1.5", {"seeds": [1.5]}),
        ("length is '2'", {"seconds": "2"}),
        ("constraints are {'length': 2}", {"constraints": {"length": 2}}),
        ("constraints are 'path.yaml'", {"constraints": "path.yaml"}),
        (r"sampling is {'temperature': 1}; give", {"sampling": {"temperature": 1}}),
        (r"initial motion has shape \(2,\)", {"init": [1, 2]}),
        ("slots is 0; give at least 1", {"slots": 0}),
    ],
)
def test_values_of_other_types_are_refused(model, words, wrong):
    with pytest.raises(InputError, match=words):
        model.generate("a person walks", **{"seconds": 0.4} | wrong)


def test_saved_motion_has_the_arrays_of_generated_ones(motion, tmp_path):
    with np.load(motion.save(tmp_path / "walk.npz")) as saved:
        np.testing.assert_allclose(saved["smplx_85"], motion.smplx85, atol=1e-6)
        np.testing.assert_array_equal(saved["features"], motion.features)
        np.testing.assert_array_equal(saved["tokens"], motion.tokens)
        assert (str(saved["prompt"]), int(saved["seed"])) == ("a person walks", 0)


def test_motion_is_saved_in_the_format_of_the_suffix(motion, tmp_path):
    for name, begin in {"a.bvh": b"HIERARCHY", "a.glb": b"glTF", "a.html": b"<!doctype", "a.npy": b"\x93NUMPY"}.items():
        assert motion.save(str(tmp_path / name)).read_bytes().startswith(begin)
    first = (tmp_path / "a.bvh").read_text()
    assert motion.save(tmp_path / "a.bvh", names="mixamo").read_text() != first
    for name, settings, words in (
        ("a.txt", {}, "suffix"),
        ("a.bvh", {"nmes": 1}, "--nmes"),
        ("a.mp4", {"size": -1}, "size"),
    ):
        with pytest.raises(InputError, match=words):
            motion.save(tmp_path / name, **settings)


def test_player_is_shown_in_a_notebook_only(motion, request):
    with pytest.raises(InputError, match="notebook"):
        motion.show()
    shown = request.getfixturevalue("notebook")
    motion.show(height=300)
    assert "height:300px" in shown[0]["text/html"] and "&lt;!doctype html&gt;" in shown[0]["text/html"]


def test_shipped_files_are_found_from_any_folder_after_those_there(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert paths.find_shipped("configs/prompts/demo.yaml") == ROOT / "configs/prompts/demo.yaml"
    assert paths.find_shipped("checkpoints/../app.py") == Path("checkpoints/../app.py")
    assert paths.find_shipped("models") == Path("models")
    (tmp_path / "checkpoints" / "demo").mkdir(parents=True)
    assert paths.find_shipped("checkpoints/demo") == Path("checkpoints/demo")


def test_caches_of_a_user_without_a_home_are_private(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", "/proc/none")
    monkeypatch.setattr(paths.tempfile, "tempdir", str(tmp_path))
    folder = paths.cache_folder.__wrapped__()
    assert folder == tmp_path / f"text-to-motion-{os.getuid()}" and folder.stat().st_mode & 0o777 == 0o700
    folder.chmod(0o777)  # as another user may have made it
    assert paths.cache_folder.__wrapped__() != folder


@pytest.fixture
def installed(tmp_path, monkeypatch) -> Path:
    """The content of a wheel."""
    for name, kind in (("builders.hooks.plugin", "BuildHookInterface"), ("metadata.plugin", "MetadataHookInterface")):
        module = ModuleType("interface")
        setattr(module, kind, object)
        monkeypatch.setitem(sys.modules, f"hatchling.{name}.interface", module)
    build = ModuleType("build")
    SourceFileLoader("build", str(ROOT / "text_to_motion" / "build.py")).exec_module(build)
    build.collect(ROOT, tmp_path / "text_to_motion")
    return tmp_path


def test_installed_package_imports_only_itself_and_runs_anywhere(installed):
    own = {path.parent.name for path in ROOT.glob("*/__init__.py")} - {"text_to_motion"}
    for file in (installed / "text_to_motion").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            names = [each.name for each in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not own & {name.partition(".")[0] for name in names}, file
    (installed / "utils.py").write_text("")  # of another program
    options = ("--prompt", "a person walks", "--seconds", "0.4", "--save", "npz")
    environment = {
        "PYTHONPATH": str(installed),
        "OMP_NUM_THREADS": "1",
        "PATH": os.environ["PATH"],
        "HOME": "/proc/none",
    }
    start = "from text_to_motion.commands import generate; generate()"  # as t2m-generate does
    command = [sys.executable, "-c", start, *options]
    subprocess.run(command, cwd=installed, env=environment, check=True)
    assert list(installed.glob("outputs/*.npz"))


COMMANDS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_a_console_command_shows_its_own_name(command):
    start = "from {0} import {1}; {1}()".format(*COMMANDS[command].split(":"))  # as the installed command does
    ended = subprocess.run(
        [sys.executable, "-c", start, "--help"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert ended.stdout.startswith(f"usage: {command} ")
    assert f"\n    {command} " in ended.stdout and "python " not in ended.stdout
