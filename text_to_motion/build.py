"""Build of the distribution: all packages inside ``text_to_motion``, so that their names clash with no other package.

``utils`` or ``models`` at the top of site-packages would hide packages of the same name, or be hidden by them.
Therefore the wheel holds text_to_motion/utils, text_to_motion/models and so on, beside the shipped checkpoints and
configs, and in their import statements ``utils.errors`` becomes ``text_to_motion.utils.errors``. The repository stays
as it is.
"""

import re
import shutil
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface
from hatchling.metadata.plugin.interface import MetadataHookInterface

PACKAGE = "text_to_motion"
NOT_INSTALLED = ("benchmarks", "tests", PACKAGE)
DATA = ("blender", "checkpoints/demo", "checkpoints/evaluator", "configs", "assets/demo_prompts.txt")
IGNORED = shutil.ignore_patterns("__pycache__", ".*")


class Dependencies(MetadataHookInterface):
    """Requirements of the distribution: those of requirements.txt."""

    def update(self, metadata: dict[str, Any]) -> None:
        lines = Path(self.root, "requirements.txt").read_text().splitlines()
        required = [line.partition("#")[0].strip() for line in lines]
        metadata["dependencies"] = [requirement for requirement in required if requirement]


class Wheel(BuildHookInterface):
    """Content of the wheel."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if version != "editable":  # an editable installation uses the repository
            self.folder = Path(mkdtemp())
            collect(Path(self.root), self.folder)
            build_data["force_include"][str(self.folder)] = PACKAGE

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        if version != "editable":
            shutil.rmtree(self.folder)


def collect(root: Path, target: Path) -> None:
    """Copy the packages, scripts and shipped files of the repository into a folder, as modules of ``PACKAGE``."""
    packages = {path.parent.name for path in root.glob("*/__init__.py")} - set(NOT_INSTALLED)
    for name in (*packages, *DATA, *(path.name for path in root.glob("*.py"))):
        copy = shutil.copy if (root / name).is_file() else lambda *paths: shutil.copytree(*paths, ignore=IGNORED)
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        copy(root / name, target / name)
    for name in ("__init__.py", "commands.py"):
        shutil.copy(root / PACKAGE / name, target)
    names = "|".join(sorted(packages))
    for path in target.rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        path.write_text(rename_imports(text, names), encoding="utf-8")


def rename_imports(text: str, names: str) -> str:
    """Put ``PACKAGE`` before the packages ``names`` in import statements and in commands of the form python -m."""
    text = re.sub(rf"^(\s*from )((?:{names})[\w.]* import )", rf"\1{PACKAGE}.\2", text, flags=re.MULTILINE)
    text = re.sub(rf"^(\s*import )((?:{names})\.\w)", rf"\1{PACKAGE}.\2", text, flags=re.MULTILINE)
    return re.sub(rf"(python -m )((?:{names})\b)", rf"\1{PACKAGE}.\2", text)
