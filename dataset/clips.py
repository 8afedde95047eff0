"""The clips of a split: rows of a memory-mapped Arrow file (dataset/clip_index.py), and the features they name."""

from collections import Counter
from collections.abc import Collection
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute

from dataset.feature_files import OWN_FILE, FeatureFiles, Place, checked_features
from utils.errors import InputError

FEW = 32  # clips below which a validation score means little
ATTEMPTS = 10  # clips that are tried for an item of a training
SCHEMA = pa.schema(
    {
        "id": pa.string(),
        "captions": pa.list_(pa.string()),
        "start": pa.int32(),
        "frames": pa.int32(),
        "is_part": pa.bool_(),
        "context": pa.int32(),
        "container": pa.int32(),
        "offset": pa.int64(),
        "size": pa.int64(),
    }
)


class Clip(NamedTuple):
    """A motion, or the part of it that captions with times describe."""

    id: str
    """Name of the motion."""
    captions: list[str]
    """Captions of the clip; empty for the clips of the tokenizer."""
    start: int
    """First frame of the clip in the motion."""
    frames: int
    """Number of frames."""
    is_part: bool
    """Whether the captions describe a part of the motion."""
    context: int = 0
    """Frames at the start that belong to an earlier action, which the captions do not describe."""
    container: int = OWN_FILE
    """This and the following: place of the motion (``Place``)."""
    offset: int = 0
    size: int = 0

    @property
    def name(self) -> str:
        """Name of the clip: that of the motion, with the first and last frame of a part."""
        return f"{self.id}_{self.start}_{self.start + self.frames}" if self.is_part else self.id

    @property
    def place(self) -> Place:
        """Place of the motion."""
        return Place(self.container, self.offset, self.size)


class Clips:
    """Clips of a split, as a sequence of ``Clip``. A copy for another process maps the files again.

    Args:
        file: Arrow file with the columns ``SCHEMA``, which ``read_table`` has passed.
        files: Files of the motions.
        left_out: Number of motions and parts that are not among the clips, by reason.
        example: Message about the first motion that cannot be read, or "".
        digest: Digest of the names, sizes and modification times of the files; changes if the data changed.
        strict: Whether a damaged motion is an error, as in our own data folders; otherwise it is left out.

    Attributes:
        table: The rows, memory-mapped.
    """

    def __init__(self, file: Path, files: FeatureFiles, left_out: Counter, example: str, digest: str, strict: bool):
        self.file, self.files, self.left_out, self.example, self.digest = file, files, left_out, example, digest
        self.strict, self.damaged = strict, set[str]()
        self.table = map_table(file)

    def __len__(self) -> int:
        return len(self.table)

    def __getitem__(self, row: int) -> Clip:
        if not -len(self) <= row < len(self):
            raise IndexError(row)
        try:
            return Clip(*(column[row % len(self)].as_py() for column in self.table.columns))
        except UnicodeDecodeError as error:
            raise InputError(f"{self.file} is damaged; remove it, and it is built again") from error

    @property
    def frames(self) -> np.ndarray:
        """Frames of each clip, (clips,)."""
        return self.table["frames"].to_numpy()

    @property
    def ids(self) -> list[str]:
        """Names of the motions, without repetitions."""
        return pa.compute.unique(self.table["id"]).to_pylist()

    def source(self, clip: Clip) -> str:
        """Return where the motion of a clip is, for messages."""
        return self.files.source(clip.id, clip.place)

    def open(self, clip: Clip) -> np.ndarray:
        """Map the features of a clip, (T, 272); their values are not validated.

        Raises:
            InputError: the file is missing, truncated or invalid.
        """
        motion = self.files.open(clip.id, clip.place)
        return motion[clip.start : clip.start + clip.frames]

    def features(self, clip: Clip, first: int = 0, last: int | None = None) -> np.ndarray:
        """Return the validated features of a clip, or of its frames ``first`` to ``last``, (T, 272) float32.

        Raises:
            InputError: the file is missing, truncated or invalid, or a value is not finite.
        """
        return checked_features(np.array(self.open(clip)[first:last]), self.source(clip))

    def valid_features(self, clip: Clip, first: int = 0, last: int | None = None) -> np.ndarray | None:
        """Return the same as ``features``, or None with a warning if a motion of published data is damaged.

        Headers are validated when the index is built, values only here. A process warns once per motion.

        Raises:
            InputError: a motion of our own data folder is damaged.
        """
        try:
            return self.features(clip, first, last)
        except InputError as error:
            if self.strict:
                raise
            if clip.id not in self.damaged:
                self.damaged.add(clip.id)
                print(f"warning: left out: {error}", flush=True)
            return None

    def named(self, names: Collection[str]) -> dict[str, Clip]:
        """Return the clips that have certain names, by name; rows are read until all are found."""
        found: dict[str, Clip] = {}
        for row in range(len(self)):
            clip = self[row]
            if clip.name in names:
                found[clip.name] = clip
                if len(found) == len(set(names)):
                    break
        return found

    def describe_left_out(self) -> str:
        """Return the numbers of motions and parts left out, with the reasons, or "" if there are none."""
        reasons = [f"{count:,} {reason}" for reason, count in self.left_out.items() if count]
        return ", ".join(reasons) + (f" ({self.example})" if self.example else "")

    def notes(self, split: str) -> list[str]:
        """Return messages about a split: what is left out, and whether it is too small to validate on."""
        left_out = self.describe_left_out()
        notes = [f"{split}: {len(self):,} clips; left out: {left_out}"] if left_out else []
        if split == "val" and 0 < len(self) < FEW:
            notes.append(
                f"warning: the validation split has {len(self)} clips; below {FEW}, its scores and the choice of best/ "
                "are dominated by chance"
            )
        return notes

    def __getstate__(self) -> dict:
        return self.__dict__ | {"table": None}

    def __setstate__(self, state: dict) -> None:
        self.__dict__ |= state | {"table": map_table(state["file"])}


def map_table(file: Path) -> pa.Table:
    """Map the rows of an Arrow stream into memory."""
    return pa.ipc.open_stream(pa.memory_map(str(file))).read_all()
