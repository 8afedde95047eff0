"""Text to motion as one importable package: ``from text_to_motion import TextToMotion``.

In the repository, the packages it consists of (models, motion, utils ...) stand beside it. In an installed
distribution they are inside it, and their imports carry its name; see text_to_motion/build.py.
"""

import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from models.pipeline import TextToMotion

__all__ = ["TextToMotion"]

if not Path(__file__).with_name("models").is_dir():  # the repository, also in an editable installation
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    __path__.append(sys.path[0])


def __getattr__(name: str) -> type:
    """Import ``TextToMotion`` on use: the console commands import less."""
    if name == "TextToMotion":
        from models.pipeline import TextToMotion

        return TextToMotion
    raise AttributeError(f"module {__name__} has no attribute {name}")
