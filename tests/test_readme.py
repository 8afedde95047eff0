"""What README and docs show works: Python runs, commands name what is there, the file tree is true."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
README = "\n".join(page.read_text() for page in (ROOT / "README.md", *sorted(ROOT.glob("docs/*.md"))))


@pytest.mark.parametrize("snippet", re.findall(r"```python\n(.*?)```", README, re.DOTALL))
def test_python_snippets_run(snippet, tmp_path, monkeypatch):
    (tmp_path / "checkpoints").symlink_to(ROOT / "checkpoints")
    monkeypatch.chdir(tmp_path)
    exec(compile(snippet, "README.md", "exec"), {})


def test_files_that_the_readme_names_are_there():
    folders = "assets|benchmarks|checkpoints/demo|configs|dataset|formats|models|motion|training|utils|visualize"
    named = set(re.findall(rf"\b(?:{folders})/[\w./-][\w./-]+\w", README))  # "motion/s" is a unit
    assert len(named) > 10
    missing = [name for name in named if not (ROOT / name).exists()]
    assert not missing


def test_options_that_the_readme_uses_exist():
    for script, rest in re.findall(r"python ((?:-m benchmarks\.)?\w+(?:\.py)?)\b((?:[^\n\\]|\\\n)*)", README):
        script = script.replace("-m benchmarks.", "benchmarks/").removesuffix(".py") + ".py"
        if not (ROOT / script).is_file():  # python -m of another package
            continue
        shared = ("training/options.py", "training/plan.py")
        source = "".join((ROOT / file).read_text() for file in (script, *shared))
        for option in re.findall(r"--([\w-]+)", rest):
            name = option.replace("-", "_")
            assert re.search(rf"\b{name}\b: ", source) or name in ("config", "help"), f"{script} has no --{option}"
