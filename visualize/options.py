"""Options of pictures, files and the export; this module imports no PyTorch, so that options can be read without it."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from formats.bvh_options import Names, Unit
from formats.import_options import ImportOptions
from utils.config import bounded
from utils.errors import InputError

# Formats and views of inference_batch.py
VIDEOS, FILES = ("mp4", "gif"), ("bvh", "glb", "fbx", "html")
FORMATS = ("npz", *VIDEOS, *FILES, "sheet")
VIEWS = ("mesh", "skeleton")
MIN_SIDE, MAX_SIDE = 64, 4096  # pixels: width and height of pictures
MAX_PEOPLE = 16  # in one picture
if TYPE_CHECKING:
    PictureSide = int
    Poses = int
else:
    PictureSide = bounded("PictureSide", int, (">=", MIN_SIDE), ("<=", MAX_SIDE))
    Poses = bounded("Poses", int, (">=", 1), ("<=", MAX_PEOPLE))


def smplx_file(model_path: str | Path | None) -> Path:
    """Return the SMPL-X model file, given the file or its folder.

    Raises:
        InputError: no path is given, or there is no such file.
    """
    if model_path is None:
        raise InputError(
            "the body model smplx needs the path of its model file; get SMPLX_NEUTRAL.npz from "
            "https://smpl-x.is.tue.mpg.de, or use the mannequin"
        )
    path = Path(model_path)
    path = path / "SMPLX_NEUTRAL.npz" if path.is_dir() else path
    if not path.is_file():
        raise InputError(f"SMPL-X model file {path} does not exist; give SMPLX_NEUTRAL.npz or its folder")
    return path


@dataclass
class Options(ImportOptions):
    """Options of the export, after the files: one or more motion files to read, then the file to write."""

    view: Literal["mesh", "skeleton"] = "mesh"
    """Content of videos: the shaded body (mesh) or the skeleton."""
    size: PictureSide = 512
    """Width and height of videos, and height of a strip of poses, in pixels."""
    camera: Literal["follow", "fixed"] = "follow"
    """Camera of videos: follow moves with the people, fixed shows all of their path."""
    poses: Poses = 6
    """Number of poses in a .png of one motion."""
    title: str | None = None
    """Title in pictures and pages; by default the prompt or the name of the file."""
    names: Names = "smplx"
    """Skeleton of a .bvh to write: joint names, additional joints and local axes of SMPL-X, of the LAFAN1 data set (for
    the robot retargeter GMR), of Mixamo, or of the CMU data set as BVH."""
    bvh_units: Unit = "cm"
    """Length unit of a .bvh to write."""
    foot_lock: bool = False
    """Remove foot sliding (adjusts hip, knee and ankle rotations)."""
    skeleton: Path | None = None
    """YAML file that maps the joints of a BVH or glTF file to the 22 SMPL-X joints; by default joints are found by name
    and hierarchy."""
    character: Path | None = None
    """Skinned character (.glb, .gltf, .vrm or .fbx) to put the motions onto."""
    character_map: Path | None = None
    """YAML file that names the bones of --character; by default they are found by name and hierarchy. python -m
    characters prints one to edit."""
    body_model: Literal["mannequin", "smplx"] | None = None
    """Body model to draw; by default smplx if --smplx-path is given, else mannequin."""
    smplx_path: Path | None = None
    """SMPL-X model file, or the folder that contains SMPLX_NEUTRAL.npz."""
    overwrite: bool = False
    """Replace an existing motion file (.npz, .npy, .bvh, .glb, .vrm, .fbx); existing pictures, videos and pages are
    always replaced."""

    def __post_init__(self):
        super().__post_init__()
        if self.character_map is not None and self.character is None:
            raise InputError("--character-map names the bones of a character; give the character with --character")
