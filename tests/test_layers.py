"""The packages import each other only downward, so that each can be read and used without those above it."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ALLOWED = {  # package -> packages that it may import
    "blender": set(),
    "utils": set(),
    "motion": {"utils"},
    "formats": {"motion", "utils"},
    "characters": {"formats", "motion", "utils"},
    "control": {"formats", "motion", "utils"},
    "visualize": {"characters", "formats", "motion", "utils"},
    "models": {"control", "motion", "utils", "visualize"},
    "editing": {"control", "formats", "models", "motion", "utils"},
    "dataset": {"characters", "control", "formats", "models", "motion", "utils"},
    "training": {"characters", "control", "dataset", "evaluation", "formats", "models", "motion", "utils", "visualize"},
    "evaluation": {"characters", "control", "dataset", "formats", "models", "motion", "utils", "visualize"},
    "serving": {"characters", "control", "editing", "formats", "models", "motion", "utils", "visualize"},
}


def imported_packages(file: Path) -> set[str]:
    """First parts of the names of all modules that a file imports, at its top or inside functions."""
    names = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom):
            names.add((node.module or "").partition(".")[0])
        elif isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
    return names


@pytest.mark.parametrize("package", ALLOWED)
def test_packages_import_only_downward(package):
    files = sorted((ROOT / package).rglob("*.py"))
    assert files
    others = (
        {"text_to_motion"} | {path.stem for path in ROOT.glob("*.py")} | set(ALLOWED) - {package} - ALLOWED[package]
    )
    wrong = {str(file.relative_to(ROOT)): upward for file in files if (upward := imported_packages(file) & others)}
    assert not wrong
