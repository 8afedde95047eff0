"""Generated motion: whole, or in the chunks of a stream."""

import html
import sys
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from control.constraints import Constraints
from control.poses import Placement
from control.report import ConstraintError
from motion.clip import Clip
from motion.features272 import local_rotations, recover_root, recover_rotations
from motion.rotation import y_rotation
from motion.skeleton import forward_kinematics
from motion.smplx import motion_to_smplx85
from utils.errors import InputError

ORIGIN = Placement(0.0, 0.0, 0.0)


@dataclass
class Motion:
    """One generated motion at 30 frames per second.

    Attributes:
        prompt: Text of the prompt; " | " separates the sentences of a sequence.
        seed: Seed of the sampling.
        tokens: (n,) int64.
        features: (T, 272) float32, not normalized; under constraints, after the corrections.
        start: Place of the first frame: x and z of the pelvis in metres, heading in radians (0 is +z).
        constraints: Constraints that it was generated under.
        errors: Remaining distance in metres from each of them.
        rights: License of the motion, in one line.
    """

    prompt: str
    seed: int
    tokens: np.ndarray
    features: np.ndarray
    start: Placement = ORIGIN
    constraints: Constraints | None = None
    errors: list[ConstraintError] = field(default_factory=list)
    rights: str = ""

    @cached_property
    def smplx85(self) -> np.ndarray:
        """(T, 85) SMPL-X body parameters; see ``motion.features272.features_to_smplx85``."""
        return motion_to_smplx85(*self._world())

    @cached_property
    def joints(self) -> np.ndarray:
        """(T, 22, 3) world joint positions in metres, y up, by forward kinematics."""
        return forward_kinematics(*self._world())

    @property
    def clip(self) -> Clip:
        """The motion for the functions that draw, edit and export motions."""
        return Clip(self.smplx85, self.prompt, rights=self.rights)

    def save(self, path: str | Path, **settings: Any) -> Path:
        """Write the motion into a file, which is replaced if it exists.

        Args:
            path: File; its suffix names the format: .npz, .npy, .bvh, .glb, .fbx, .html (player), .mp4, .gif or .png
                (a strip of poses).
            settings: Options of ``python -m visualize.export``: view="skeleton", size=256, names="mixamo",
                foot_lock=True, character="hero.glb" and so on.

        Raises:
            InputError: the suffix or a setting is unknown, or the file cannot be written.
        """
        from visualize.export import save_clip  # the renderers, imported on use

        made_from = {"features": self.features, "tokens": self.tokens, "text": self.prompt, "seed": self.seed}
        return save_clip(replace(self.clip, arrays=made_from), path, **settings)

    def show(self, height: int = 480) -> None:
        """Show the player of the motion below the cell of a notebook, ``height`` pixels high.

        Raises:
            InputError: the code does not run in a notebook.
        """
        shell = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
        if not hasattr(shell, "kernel"):
            raise InputError('show() needs a notebook; save the motion as a page, save("motion.html"), and open that')
        from IPython.display import display

        from visualize.page import player_page  # the renderers, imported on use

        page = html.escape(player_page([self.clip]))  # isolated from the notebook by its frame
        frame = (
            f'<iframe srcdoc="{page}" style="width:100%;height:{height}px;border:0" sandbox="allow-scripts"></iframe>'
        )
        display({"text/html": frame, "text/plain": f"motion: {self.prompt}"}, raw=True)

    def _world(self) -> tuple[np.ndarray, np.ndarray]:
        """Return local rotations (T, 22, 3, 3), the root's in the world, and the pelvis (T, 3)."""
        heading, position = place_of(self.start)
        return recover_rotations(
            self.features, heading.astype(self.features.dtype), position.astype(self.features.dtype)
        )


@dataclass
class MotionChunk:
    """The next frames of a streamed motion; the concatenated chunks are the motion.

    Attributes:
        part: Number of the sentence, from 0; -1 for the initial motion.
        tokens: (n,) int64.
        features: (T, 272) float32, not normalized.
        rotations: (T, 22, 3, 3) float64 local rotations, the root's in the world.
        pelvis: (T, 3) float64, metres.
    """

    part: int
    tokens: np.ndarray
    features: np.ndarray
    rotations: np.ndarray
    pelvis: np.ndarray

    @cached_property
    def smplx85(self) -> np.ndarray:
        """(T, 85) float32 SMPL-X body parameters."""
        return motion_to_smplx85(self.rotations, self.pelvis).astype(np.float32)

    @cached_property
    def joints(self) -> np.ndarray:
        """(T, 22, 3) float32 world joint positions in metres, y up, by forward kinematics."""
        return forward_kinematics(self.rotations, self.pelvis).astype(np.float32)

    @classmethod
    def of(
        cls, part: int, tokens: list[int], features: np.ndarray, rotations: np.ndarray, pelvis: np.ndarray
    ) -> "MotionChunk":
        """Return a chunk of the given tokens."""
        return cls(part, np.array(tokens, dtype=np.int64), features.astype(np.float32), rotations, pelvis)


class RootTracker:
    """World position and heading of the root after the frames so far."""

    def __init__(self, start: Placement = ORIGIN) -> None:
        self.heading, self.position = place_of(start)

    def place(self, features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Place the next frames (T, 272) where the previous ones ended.

        Returns:
            Local rotations (T, 22, 3, 3), the root's in the world, and the pelvis (T, 3), in float64.
        """
        exact = features.astype(np.float64)
        heading, pelvis = recover_root(exact, self.heading, self.position)
        self.heading, self.position = heading[-1], pelvis[-1]
        rotations = local_rotations(exact)
        rotations[:, 0] = heading @ rotations[:, 0]
        return rotations, pelvis


def place_of(start: Placement) -> tuple[np.ndarray, np.ndarray]:
    """Return the heading (3, 3) and the position (3,) of the root before the first frame."""
    return y_rotation(np.array(start.heading)), np.array([start.x, 0.0, start.z])
