"""README and docs: Python snippets run, options and files exist, the map of the code and the index are complete."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGES = (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(ROOT.glob("docs/*.md")))
README = "\n".join(page.read_text() for page in PAGES)


@pytest.mark.parametrize("snippet", re.findall(r"```python\n(.*?)```", README, re.DOTALL))
def test_python_snippets_run(snippet, tmp_path, monkeypatch, notebook):
    (tmp_path / "checkpoints").symlink_to(ROOT / "checkpoints")
    monkeypatch.chdir(tmp_path)
    exec(compile(snippet, "README.md", "exec"), {})


def test_files_named_in_the_docs_exist():
    folders = (
        "assets|benchmarks|checkpoints/demo|configs|control|dataset|editing|evaluation|formats|models|motion|serving|"
        "training|utils|visualize"
    )
    named = set(re.findall(rf"(?<![\w/])(?:{folders})/[\w./-][\w./-]+\w", README))  # "motion/s" is a unit
    assert len(named) > 10
    missing = [name for name in named if not (ROOT / name).exists()]
    assert not missing


def test_options_used_in_the_docs_exist():
    for script, rest in re.findall(r"python ((?:-m benchmarks\.)?\w+(?:\.py)?)\b((?:[^\n\\]|\\\n)*)", README):
        script = script.replace("-m benchmarks.", "benchmarks/").removesuffix(".py") + ".py"
        if not (ROOT / script).is_file():  # python -m of another package
            continue
        shared = ("training/options.py", "training/plan.py", "serving/options.py", "evaluation/options.py")
        files = [ROOT / file for file in (script, *shared)]
        files += ROOT.glob("dataset/**/*.py") if script == "prepare_data.py" else []  # options of each kind of data
        source = "".join(file.read_text() for file in files)
        for option in re.findall(r"--([\w-]+)", rest):
            name = option.replace("-", "_")
            assert re.search(rf"\b{name}_?: ", source) or name in ("config", "help"), f"{script} has no --{option}"


def test_map_of_the_code_lists_existing_files_and_all_packages():
    tree = re.search(r"```\n(.*?)```", (ROOT / "docs" / "code.md").read_text(), re.DOTALL)[1]
    folder, top = ROOT, set()
    for line in tree.splitlines():
        name = line.split()[0]
        if not line.startswith(" "):
            folder = ROOT / name
            top.add(name.strip("/"))
        path = folder / name if line.startswith(" ") else folder
        assert path.exists(), name
    packages = {path.parent.name for path in ROOT.glob("*/__init__.py")}
    assert packages | {path.name for path in ROOT.glob("*.py")} <= top


@pytest.mark.parametrize("page", PAGES, ids=[page.name for page in PAGES])
def test_links_between_pages_lead_to_files(page):
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text()):
        assert target.startswith("https://") or (page.parent / target).exists(), target


def test_index_lists_every_docs_page():
    index = (ROOT / "docs" / "index.md").read_text()
    assert all(f"]({page.name})" in index for page in ROOT.glob("docs/*.md") if page.name != "index.md")
