"""Characters of visitors: uploaded for one session, kept in memory, and given finished motions."""

import asyncio
import json
import secrets
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from motion.clip import Clip
from serving.downloads import temporary_folder
from serving.errors import Refused
from serving.jobs import run_job
from serving.options import Options
from serving.places import Places, keep
from utils.errors import InputError
from utils.reading.files import MB

MAX_BYTES = 32 * MB  # of a character
KEPT_BYTES = 256 * MB  # of all characters; the oldest are dropped
SECONDS = 120  # maximum time to check a character, or to put a motion onto it


@dataclass
class Kept:
    """A character that was checked."""

    content: bytes
    """The .glb file."""
    address: str
    poses: Clip | None
    """Motion of its animation, whose frames can be poses of constraints."""


class Characters:
    """Checks characters and puts motions onto them, in one process at a time that can be killed."""

    def __init__(self, options: Options):
        self.places = Places(
            options.capacity,
            options.per_address,
            full="too many characters are in preparation; try again in a minute",
            used="characters for your network address are already in preparation; wait until one is done",
            per_minute=options.jobs_per_minute,
        )
        self.turn = asyncio.Lock()
        self.kept: OrderedDict[str, Kept] = OrderedDict()  # by token, the oldest first

    async def add(self, content: bytes, address: str) -> dict[str, Any]:
        """Check a .glb or .vrm file and keep it.

        Returns:
            "character", a token; "bones" and "vertices", their numbers; "scale", units of the file per metre of motion;
            "axes" (3, 3), whose columns are left, up and forward of the character in the axes of the file.

        Raises:
            Busy: too many characters are in preparation, for all visitors or for this address.
            InputError: the file is no character that motion can be put onto.
        """
        with self.places.hold(address):
            async with self.turn:
                with temporary_folder() as folder:
                    (folder / "character.glb").write_bytes(content)
                    await self._run(folder, None)
                    facts = json.loads((folder / "character.json").read_text())
                    poses = folder / "poses.npy"
                    clip = Clip(np.load(poses), "poses") if poses.exists() else None
        token = secrets.token_urlsafe(16)
        keep(self.kept, token, Kept(content, address, clip), lambda kept: len(kept.content), KEPT_BYTES)
        return {"character": token} | facts

    async def put(self, token: str, clip: Clip, address: str) -> bytes:
        """Return the character as .glb with the motion as one more animation.

        Raises:
            Busy: as ``add``.
            InputError: the character is no longer kept, or the motion cannot be put onto it.
        """
        content = self._find(token).content
        with self.places.hold(address):
            async with self.turn:
                with temporary_folder() as folder:
                    (folder / "character.glb").write_bytes(content)
                    np.save(folder / "motion.npy", clip.smplx85)
                    await self._run(folder, clip)
                    return (folder / "motion.glb").read_bytes()

    def poses(self, token: str) -> Clip:
        """Return the motion of the animation of a character.

        Raises:
            InputError: the character is no longer kept, or has not one animation.
        """
        poses = self._find(token).poses
        if poses is None:
            raise InputError("the character has no animation, or several; give it one, whose frames are the poses")
        return poses

    async def _run(self, folder: Path, clip: Clip | None) -> None:
        job = {"folder": str(folder), "title": clip and clip.title, "rights": clip and clip.rights}
        try:
            status = await run_job("rigging", job, SECONDS)
        except TimeoutError as error:
            raise InputError(f"the character took more than {SECONDS} s; give one with fewer vertices") from error
        refused = folder / "error.txt"
        if status:
            sentence = refused.read_text() if refused.exists() else ""  # empty if the disk is full
            raise InputError(sentence or "the character cannot be read")

    def _find(self, token: str) -> Kept:
        if token not in self.kept:
            raise Refused("this character is no longer available; send it again", 404)
        return self.kept[token]
