"""Turn motion files into what other tools open, and into pictures.

    python -m visualize.export clip.npz clip.bvh
    python -m visualize.export mine.bvh mine.mp4 --view skeleton
    python -m visualize.export target.npz reconstruction.npz both.mp4
    python -m visualize.export outputs/*.npz gallery.html

Reads .npz (ours, or AMASS), .bvh, and .npy (272 features, smplx_85 or smplx_322). Writes .npz (with the keys of AMASS),
.npy (272 features), .bvh, .glb (animated body), .html (player; of more than four motions a gallery), .mp4, .gif, and
.png (a strip of poses). Several motions stand side by side.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path

import numpy as np

from formats.amass import amass_arrays
from formats.bvh_import import ImportOptions, LengthUnit, UpAxis
from formats.bvh_writer import write_bvh
from formats.clip import Clip, read_clip
from motion.resample import FPS
from motion.skeleton import forward_kinematics
from motion.smplx import smplx85_to_motion
from utils.config import parse_options
from utils.errors import InputError, exit_on_input_error
from utils.files import atomic_write
from visualize.body import Body, body_from_options
from visualize.camera import CAMERAS
from visualize.foot_lock import lock_feet
from visualize.glb import write_glb
from visualize.page import clean, write_gallery, write_player
from visualize.smplx import draw_strip, render_mesh_video, visualize_smplx_85
from visualize.video import check_side

MOTIONS = (".npz", ".npy", ".bvh")  # read as well as written: such a file may be all that there is of a motion
SINGLE = (*MOTIONS, ".glb", ".png")  # one motion a file
FORMATS = (*SINGLE, ".html", ".mp4", ".gif")
PLAYED_TOGETHER = 4  # motions; a page of more is a gallery


@dataclass
class Options:
    """How to write; the files come first: one or more to read, then the one to write.

    Attributes:
        view: What videos show: mesh or skeleton.
        size: Width and height of videos, height of a strip of poses, in pixels.
        camera: Of videos: follow or fixed.
        poses: Number of poses in a .png.
        title: Text in pictures and pages; without it, the prompt or the file's name.
        foot_lock: Keep feet that stand on the floor from sliding.
        skeleton: YAML file that maps a BVH file's joints to ours, where their names do not tell.
        up: Axis that points up in the files to read: x, y, z, -x, -y or -z; by default it is decided from the motion.
        units: Length unit of the positions in the files to read: m, cm, mm, in or ft; by default the bones tell.
        fps: Frames per second of the files to read; by default those that they name.
        force: Take motion that no person makes, such as knees that bend forward.
        body_model: mannequin, or smplx with its file in --smplx-path; without it, whichever --smplx-path tells.
        smplx_path: Folder or file of SMPL-X.
        overwrite: Replace a motion file (.npz, .npy, .bvh) that is there already; pictures and pages always are.
    """

    view: str = "mesh"
    size: int = 512
    camera: str = "follow"
    poses: int = 6
    title: str | None = None
    foot_lock: bool = False
    skeleton: Path | None = None
    up: UpAxis | None = None
    units: LengthUnit | None = None
    fps: float | None = None
    force: bool = False
    body_model: str | None = None
    smplx_path: Path | None = None
    overwrite: bool = False

    def __post_init__(self):
        if self.view not in ("mesh", "skeleton"):
            raise InputError(f"--view {self.view} is unknown; use mesh or skeleton")
        if self.camera not in CAMERAS:
            raise InputError(f"--camera {self.camera} is unknown; use {' or '.join(CAMERAS)}")
        check_side(self.size)


def main(arguments: list[str]) -> None:
    files = [Path(word) for word in takewhile(lambda word: not word.startswith("--"), arguments)]
    options = parse_options(Options, __doc__, arguments[len(files) :])[0]
    if len(files) < 2:
        raise InputError("give one or more motion files and then the file to write; --help shows examples")
    *sources, target = files
    check_target(target, len(sources))
    check_kept(target, sources, options.overwrite)
    reading = ImportOptions(options.up, options.units, options.fps, options.force)
    clips = [read_clip(source, options.skeleton, reading) for source in sources]
    for source, clip in zip(sources, clips, strict=True):
        for note in clip.notes:
            print(f"note: {source}: {note}", file=sys.stderr)
        clip.smplx85 = lock_feet(clip.smplx85) if options.foot_lock else clip.smplx85
        clip.title = options.title if options.title is not None else clip.title
    export(clips, target, options, body_from_options(options.body_model, options.smplx_path))
    print(target)


def check_target(target: Path, count: int) -> None:
    """Raise InputError unless that many motions can become a file of this suffix."""
    suffix = target.suffix.lower()
    if suffix not in FORMATS:
        raise InputError(f"{target} has no suffix that can be written; give one of {', '.join(FORMATS)}")
    if count > 1 and suffix in SINGLE:
        raise InputError(f"{count} motions are given for {target}, which holds one; give one, or .html, .mp4 or .gif")


def check_kept(target: Path, sources: Sequence[Path], overwrite: bool) -> None:
    """Raise InputError if writing would replace one of the sources, or unasked another motion file."""
    if not target.exists():
        return
    if any(source.exists() and target.samefile(source) for source in sources):
        raise InputError(f"{target} is the file to write, after those to read, and is one of those; give another name")
    if target.suffix.lower() in MOTIONS and not overwrite:
        raise InputError(
            f"{target}, the last file given, is the one to write and is there already; give another name, or "
            "--overwrite true to replace it"
        )


def export(clips: Sequence[Clip], target: Path, options: Options, body: Body) -> None:
    """Write motions into a file of the format that its suffix names.

    Raises:
        InputError: too many motions for the format, unusable motion or options, or a target that cannot be written.
    """
    check_target(target, len(clips))
    suffix, first = target.suffix.lower(), clips[0]
    title = " | ".join(dict.fromkeys(clip.title for clip in clips))
    motions = [clip.smplx85 for clip in clips]
    size = (min(4096, options.size * (1 + len(clips)) // 2), options.size)  # wider for several
    if suffix == ".npz":
        write_npz(target, first)
    elif suffix == ".npy":
        with atomic_write(target) as file:
            np.save(file, first.features())
    elif suffix == ".bvh":
        write_bvh(target, first.smplx85)
    elif suffix == ".glb":
        write_glb(target, first.smplx85, title, body)
    elif suffix == ".png":
        draw_strip(first.smplx85, title, target, options.poses, options.size, body)
    elif suffix == ".html":
        (write_player if len(clips) <= PLAYED_TOGETHER else write_gallery)(target, clips, body)
    elif options.view == "skeleton":
        visualize_smplx_85(motions, title, target, FPS, size, camera=options.camera)
    else:
        render_mesh_video(motions, title, target, FPS, size, body, camera=options.camera)


def write_npz(path: Path, clip: Clip) -> None:
    """Write ``motion_arrays`` and the title, under the key prompt as inference_batch.py has it."""
    with atomic_write(path) as file:
        np.savez_compressed(file, **motion_arrays(clip.smplx85), prompt=clean(clip.title))


def motion_arrays(smplx85: np.ndarray) -> dict[str, np.ndarray]:
    """What an ``.npz`` holds of a motion: smplx_85, joints and fps, and the same in the keys of AMASS."""
    joints = forward_kinematics(*smplx85_to_motion(smplx85))
    ours = {"smplx_85": smplx85.astype(np.float32), "joints": joints.astype(np.float32), "fps": np.array(FPS)}
    return ours | amass_arrays(smplx85)


if __name__ == "__main__":
    with exit_on_input_error():
        main(sys.argv[1:])
