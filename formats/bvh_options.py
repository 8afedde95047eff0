"""Options of BVH files to write."""

from typing import Literal

Names = Literal["smplx", "lafan1", "mixamo", "cmu"]
Unit = Literal["cm", "m"]
