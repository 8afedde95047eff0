"""Values of options of edits; this module imports no PyTorch, so that options can be read without it."""

from typing import Literal

Place = Literal["file", "free"]
SHORTEST = 0.5  # seconds of the shortest cycle of a loop
