"""Options of prepare_data.py; this module imports no PyTorch."""

import os
from dataclasses import dataclass, field
from pathlib import Path

from jsonargparse.typing import ClosedUnitInterval, NonNegativeInt, PositiveInt

from dataset.splits import split_of
from formats.import_options import ImportOptions
from utils.errors import InputError

CORES = os.cpu_count() or 1


@dataclass
class ConvertOptions:
    """Options of every conversion."""

    source: Path
    """Folder of the data set."""
    out: Path
    """Data folder to write."""
    val_share: ClosedUnitInterval = field(default=0.03, kw_only=True)
    """Share of the clips in the validation split, where the source defines no splits."""
    test_share: ClosedUnitInterval = field(default=0.05, kw_only=True)
    """Share of the clips in the test split, where the source defines no splits."""
    min_frames: PositiveInt = field(default=16, kw_only=True)
    """Minimum length of a clip in frames, after resampling to 30 fps; shorter clips are rejected."""
    workers: PositiveInt = field(default=CORES, kw_only=True)
    """Number of processes. (default: number of CPU cores)"""

    def __post_init__(self):
        if self.val_share + self.test_share >= 1:
            raise InputError(
                f"--val-share {self.val_share:g} and --test-share {self.test_share:g} leave no training clip; "
                "reduce them"
            )

    def split_of(self, clip_id: str) -> str:
        """Return the split of a clip of a source without splits."""
        return split_of(clip_id, self.val_share, self.test_share)


@dataclass
class HumanMl3dOptions(ConvertOptions):
    """Convert HumanML3D: 263-dim features, with its captions, mirrored copies and splits."""


@dataclass
class KitOptions(ConvertOptions):
    """Convert KIT-ML: 251-dim features, with its captions, mirrored copies and splits."""


@dataclass
class AmassOptions(ConvertOptions):
    """Convert AMASS, with the captions of HumanML3D, of BABEL, of a table, or without captions."""

    humanml3d: Path | None = None
    """Folder of HumanML3D with index.csv, texts and train.txt, val.txt, test.txt: its clips are cut out of AMASS,
    with its captions, mirrored copies and splits."""
    babel: Path | None = None
    """Folder of BABEL with train.json and val.json: whole sequences with its labels as captions of clips and parts."""
    captions: Path | None = None
    """CSV or JSON lines with the columns file, text, from and to, or YAML with caption rules."""
    mirrored: bool = True
    """Add a left-right mirrored copy of every training clip, with left and right exchanged in its captions; HumanML3D
    has copies of its own."""
    captions_per_clip: PositiveInt = 16
    """Maximum number of captions per clip from caption rules."""

    def __post_init__(self):
        super().__post_init__()
        given = [name for name in ("humanml3d", "babel", "captions") if getattr(self, name)]
        if len(given) > 1:
            raise InputError(f"--{given[0]} and --{given[1]} both give captions; give one of them")


@dataclass
class MotionXOptions(ConvertOptions):
    """Convert Motion-X: SMPL-X parameters of 322 values per frame, with its captions."""

    captions: Path | None = None
    """CSV or JSON lines with the columns file, text, from and to, or YAML with caption rules; by default the files in
    texts/semantic_labels."""
    mirrored: bool = True
    """Add a left-right mirrored copy of every training clip, with left and right exchanged in its captions."""
    captions_per_clip: PositiveInt = 16
    """Maximum number of captions per clip from caption rules."""


@dataclass
class BvhOptions(ConvertOptions, ImportOptions):
    """Convert a folder of BVH files, or of glTF or FBX files with an animation (.glb, .gltf, .vrma, .fbx)."""

    skeleton: Path | None = None
    """YAML file that maps the joints of the files to the 22 SMPL-X joints; by default joints are found by name and
    hierarchy."""
    captions: Path | None = None
    """CSV or JSON lines with the columns file, text, from and to, or YAML with caption rules; by default, a text file
    beside each motion file (walk.txt for walk.bvh)."""
    mirrored: bool = True
    """Add a left-right mirrored copy of every training clip, with left and right exchanged in its captions."""
    captions_per_clip: PositiveInt = 16
    """Maximum number of captions per clip from caption rules."""

    def __post_init__(self):
        ConvertOptions.__post_init__(self)
        ImportOptions.__post_init__(self)


@dataclass
class SyntheticOptions:
    """Write procedural motion (walk, run, turn, jump, squat, wave, ...) for tests and for a first try without data."""

    out: Path
    """Data folder to write."""
    count: PositiveInt = 200
    """Number of clips."""
    seed: NonNegativeInt = 0
    """Seed of the clips; the same seed gives the same clips."""


@dataclass
class PackOptions:
    """Pack the motions of a data folder into .tar files, so that training opens a few large files."""

    source: Path
    """Data folder in any layout that the trainings read, with one file per motion."""
    out: Path
    """Data folder to write."""
