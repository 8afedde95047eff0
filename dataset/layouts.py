"""Layouts of data folders of 272-dim features, which are read as they are published: no file is moved or converted.

The motions of every layout are .npy files (T, 272), or members of uncompressed .tar files in the folder of the motions.
docs/data.md describes the layouts.
"""

from dataclasses import dataclass
from pathlib import Path

from dataset.captions import CaptionStyle
from utils.errors import InputError

ZIPS = ("motion_data.zip", "train_stream.zip")  # of the Hugging Face hub
VERSION1 = "split/version1"  # of MotionMillion


@dataclass(frozen=True)
class Layout:
    """A layout. Paths are relative to the data folder, and ``{split}`` stands for the name of a split."""

    title: str
    motions: str
    """Folder of the motions: NAME.npy, where NAME may contain ``/``."""
    texts: str
    """Folder of the captions: NAME.txt."""
    captions: CaptionStyle
    """Form of a line of captions."""
    statistics: tuple[str, ...]
    """Folders that may hold mean and standard deviation; the first that exists is used."""
    marks: tuple[str, ...]
    """Folders and files that a data folder of this layout has."""
    tokenizer_splits: tuple[str, ...] = ("split",)
    """Folders that may hold SPLIT.txt, the motions of a split of the tokenizer; the first that exists is used."""
    generator_splits: tuple[str, ...] = ("split",)
    """The same for the generator."""
    evaluated: range | None = None
    """Lengths in frames of the clips of val and test; the public evaluation leaves out all others."""
    strict: bool = False
    """Whether a clip without a motion or captions is an error; otherwise it is left out and counted."""

    def motion_folder(self, split: str) -> str:
        """Return the folder of the motions of a split."""
        return self.motions.format(split=split)

    def text_folder(self, split: str) -> str:
        """Return the folder of the captions of a split."""
        return self.texts.format(split=split)

    @property
    def lists_all(self) -> bool:
        """Whether each split has a motion folder of its own, of which all motions belong to the split."""
        return "{split}" in self.motions


@dataclass(frozen=True)
class Split:
    """A split of a data folder, for the tokenizer or for the generator."""

    path: Path
    """Data folder."""
    layout: Layout
    name: str
    """Name of the split: "train", "val" or "test"."""
    listed_in: Path | None
    """File that lists the motions; None if the folder of the motions determines them."""
    has_captions: bool
    """Whether the clips are those of the captions, for the generator; otherwise they are all motions."""

    @property
    def motions(self) -> Path:
        """Folder of the motions."""
        return self.path / self.layout.motion_folder(self.name)

    @property
    def texts(self) -> Path:
        """Folder of the captions."""
        return self.path / self.layout.text_folder(self.name)

    @property
    def lengths(self) -> range | None:
        """Lengths of the clips in frames; None for any."""
        return self.layout.evaluated if self.has_captions and self.name != "train" else None


OURS = Layout(
    title="data folder of prepare_data.py",
    motions="motion_data/vector_272",
    texts="texts",
    captions=CaptionStyle.ANY,
    statistics=("mean_std/vector_272",),
    marks=("motion_data/vector_272",),
    strict=True,
)
MOTIONMILLION = Layout(  # MotionMillion-Codes: README.md, dataset_TM_eval_motionmillion.py
    title="MotionMillion",
    motions="motion_data/vector_272",
    texts="texts",
    captions=CaptionStyle.LINE,
    statistics=("mean_std/vector_272", "mean_std"),
    marks=("motion_data/vector_272", VERSION1),
    tokenizer_splits=(f"{VERSION1}/tokenizer_96",),
    generator_splits=(f"{VERSION1}/t2m_60_300",),
    evaluated=range(60, 201),
)
MOTIONMILLION_HUB = Layout(  # archives of the Hugging Face hub
    title="MotionMillion as on the Hugging Face hub",
    motions="motion_272rpr",
    texts="texts",
    captions=CaptionStyle.LINE,
    statistics=("mean_std", "mean_std/vector_272"),
    marks=("motion_272rpr",),
    tokenizer_splits=(f"{VERSION1}/tokenizer_96", "split"),
    generator_splits=(f"{VERSION1}/t2m_60_300", "split"),
    evaluated=range(60, 201),
)
HUMANML3D_272 = Layout(  # MotionStreamer: README.md, humanml3d_272/dataset_eval_t2m.py
    title="HumanML3D-272",
    motions="motion_data",
    texts="texts",
    captions=CaptionStyle.HUMANML3D,
    statistics=("mean_std",),
    marks=("motion_data", "mean_std", "split"),
    evaluated=range(60, 300),
)
BABEL_272 = Layout(  # MotionStreamer: README.md
    title="BABEL-272",
    motions="motion_data",
    texts="texts",
    captions=CaptionStyle.HUMANML3D,
    statistics=("t2m_babel_mean_std",),
    marks=("motion_data", "t2m_babel_mean_std", "split"),
)
BABEL_272_STREAM = Layout(  # MotionStreamer: README.md, dataset_TM_train_motionstreamer.py
    title="BABEL-272 stream",
    motions="{split}_stream",
    texts="{split}_stream_text",
    captions=CaptionStyle.TWO_ACTIONS,
    statistics=("t2m_babel_mean_std", "../babel_272/t2m_babel_mean_std"),
    marks=("train_stream", "train_stream_text"),
)
LAYOUTS = (MOTIONMILLION, OURS, MOTIONMILLION_HUB, BABEL_272, HUMANML3D_272, BABEL_272_STREAM)


def find_layout(path: str | Path) -> Layout | None:
    """Return the layout of a data folder, or None if it has none of ``LAYOUTS``."""
    return next((one for one in LAYOUTS if all((Path(path) / mark).exists() for mark in one.marks)), None)


def layout_of(path: Path) -> Layout:
    """Return the layout of a data folder.

    Raises:
        InputError: it has none, because it is another folder, half a data set, or still packed.
    """
    layout = find_layout(path)
    if layout is not None:
        return layout
    has_motions = (path / "motion_data").is_dir()
    packed = next((name for name in ZIPS if (path / name).is_file()), None)
    if packed and not has_motions:
        raise InputError(f"{path} holds {packed} as downloaded; unzip the .zip files there")
    if (path / "texts").is_dir() and not has_motions:
        raise InputError(f"{path} holds no {OURS.motions}, only half of a data set (texts); add its motions")
    others = ", ".join(one.title for one in LAYOUTS if one is not OURS)
    raise InputError(
        f"{path} holds no {OURS.motions} and is no folder of {others}; create a data folder with prepare_data.py"
    )
