"""Convert motion files into formats of other tools, videos, pages and pictures.

    python -m visualize.export clip.npz clip.bvh
    python -m visualize.export mine.bvh mine.mp4 --view skeleton
    python -m visualize.export target.npz reconstruction.npz both.mp4
    python -m visualize.export outputs/*.npz gallery.html
    python -m visualize.export outputs/*.npz contact_sheet.png
    python -m visualize.export walk.npz wave.npz out.glb --character hero.glb

OUTPUT, the last file, is written; the files before it are read. Reads .npz (ours, AMASS, Kimodo, HY-Motion), .bvh,
.glb, .gltf and .fbx with an animation, and .npy (272 features, smplx_85, smplx_322, features of HumanML3D or KIT-ML, or
joint positions). Writes .npz (including the keys of AMASS), .npy (272 features), .bvh, .glb and .fbx (animated body, or
a character with an animation per motion), .html (player; a gallery for more than four motions), .mp4, .gif, and .png (a
strip of poses; a contact sheet for several motions). Videos and players show several motions side by side. FBX needs
Blender (docs/blender.md).
"""

import utils.interrupt  # noqa: F401

# isort: split

import sys
from itertools import takewhile
from pathlib import Path

from utils.config import parse_options, spelled
from utils.errors import InputError, exit_on_input_error
from utils.paths import files_of
from visualize.options import MAX_SIDE, Options

USAGE = "%(prog)s INPUT [INPUT ...] OUTPUT [options]"


def read_arguments(arguments: list[str]) -> tuple[list[Path], Options]:
    """Return the files of a command line, the one to write last, and the options after them.

    Raises:
        InputError: an option is invalid, or there are fewer than two files.
    """
    words = list(takewhile(lambda word: not word.startswith("--"), arguments))
    options, files = parse_options(Options, __doc__, arguments[len(words) :], USAGE)[0], files_of(words)
    if len(files) < 2:
        raise InputError("give one or more motion files and then the file to write; --help shows examples")
    return files, options


if __name__ == "__main__":  # --help and invalid options end here, before the slow imports
    with exit_on_input_error():
        ARGUMENTS = read_arguments(sys.argv[1:])

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from characters.character import Character, load_character
from characters.write import write_character
from formats.amass import amass_arrays
from formats.bvh_writer import write_bvh
from formats.clip import read_clip
from formats.fbx import find_blender, write_fbx
from motion.clip import AnyMotion, Clip, rights_of
from motion.foot_lock import lock_feet
from motion.resample import FPS
from motion.skeleton import forward_kinematics
from motion.smplx import smplx85_to_motion
from utils.files import atomic_write
from visualize.actors import Actor, body_actor, render_actors
from visualize.body import Body, body_from_options
from visualize.character import CharacterMesh
from visualize.glb import write_glb
from visualize.page import clean, write_gallery, write_player
from visualize.smplx import render_mesh_video, visualize_smplx_85
from visualize.strips import write_sheet, write_strip
from visualize.video import write_video

CHARACTERS = (".glb", ".vrm", ".fbx")  # formats of a character with any number of motions
MOTIONS = (".npz", ".npy", ".bvh", *CHARACTERS)  # also read, so that such a file may be the only copy of its content
PICTURES = (".png", ".mp4", ".gif")
FORMATS = (*MOTIONS, ".html", *PICTURES)
PLAYED_TOGETHER = 4  # motions in a player; a page of more is a gallery


def main(files: list[Path], options: Options) -> None:
    *sources, target = files
    check_target(target, len(sources), options.character is not None)
    check_kept(target, [*sources, *([options.character] if options.character else [])], options.overwrite)
    clips, failures = [], []
    for source in sources:
        try:
            clips.append(read_clip(source, options.skeleton, options))
        except InputError as error:  # the other files are written nevertheless
            failures.append(error)
            continue
        for note in clips[-1].notes:
            print(f"note: {source}: {note}", file=sys.stderr)
    if not clips:
        raise failures[0]
    write(clips, target, options)
    print(target)
    if failures:
        raise InputError(f"{target} lacks {len(failures)} of {len(sources)} motions; the first reason: {failures[0]}")


def save_clip(clip: Clip, target: str | Path, **settings: Any) -> Path:
    """Write a motion into a file, which is replaced if it exists.

    Args:
        clip: Motion to write.
        target: File; its suffix, one of ``FORMATS``, names the format.
        settings: Fields of ``Options``, such as view="skeleton", size=256, names="mixamo" or foot_lock=True.

    Raises:
        InputError: a setting is unknown or invalid, or as in ``write``.
    """
    words = [f"{spelled(name)}={value}" for name, value in settings.items() if value is not None]
    write([clip], Path(target), parse_options(Options, "", words)[0])
    return Path(target)


def write(clips: Sequence[Clip], target: Path, options: Options) -> None:
    """Write motions into a file: after the corrections of the options, on their character or body.

    Raises:
        InputError: as in ``export``, or the character or the body cannot be used.
    """
    check_target(target, len(clips), options.character is not None)
    if options.foot_lock:
        clips = [replace(clip, smplx85=lock_feet(clip)) for clip in clips]
    if options.title is not None:
        clips = [replace(clip, title=options.title) for clip in clips]
    if options.character is not None:
        export_on_character(clips, target, options, load_character(options.character, options.character_map))
    else:
        export(clips, target, options, body_from_options(options.body_model, options.smplx_path))


def check_target(target: Path, count: int, on_character: bool = False) -> None:
    """Raise InputError unless ``count`` motions can be written into one file with the suffix of ``target``.

    Args:
        on_character: Whether the motions are put onto a character.
    """
    suffix = target.suffix.lower()
    if suffix not in FORMATS:
        raise InputError(f"{target} has no suffix that can be written; give one of {', '.join(FORMATS)}")
    if on_character and suffix not in (*CHARACTERS, *PICTURES):
        raise InputError(f"{target} cannot show a character; give one of {', '.join((*CHARACTERS, *PICTURES))}")
    if suffix == ".vrm" and not on_character:
        raise InputError(f"{target} is to hold a character; give one with --character, or write .glb")
    if suffix == ".fbx":
        find_blender()
    if count > 1 and suffix in MOTIONS and not (on_character and suffix in CHARACTERS):
        raise InputError(
            f"{count} motions are given for {target}, which holds one; give one, or .html, .png, .mp4 or .gif"
        )


def check_kept(target: Path, sources: Sequence[Path], overwrite: bool) -> None:
    """Raise InputError if ``target`` is one of the sources, or an existing motion file without ``overwrite``."""
    if not target.exists():
        return
    if any(source.exists() and target.samefile(source) for source in sources):
        raise InputError(f"{target} is the file to write, after those to read, and is one of those; give another name")
    if target.suffix.lower() in MOTIONS and not overwrite:
        raise InputError(
            f"{target}, the last file given, is the one to write and exists already; give another name, or "
            "--overwrite to replace it"
        )


def export(clips: Sequence[Clip], target: Path, options: Options, body: Body) -> None:
    """Write motions into a file of the format that its suffix names.

    Raises:
        InputError: too many motions for the format, unusable options, or a target that cannot be written.
    """
    check_target(target, len(clips))
    suffix, first = target.suffix.lower(), clips[0]
    title = " | ".join(dict.fromkeys(clip.title for clip in clips))
    size = picture_size(options.size, len(clips))
    if suffix == ".npz":
        write_npz(target, first)
    elif suffix == ".npy":
        with atomic_write(target) as file:
            np.save(file, first.features())
    elif suffix == ".bvh":
        write_bvh(target, first, options.names, options.bvh_units)
    elif suffix == ".glb":
        write_glb(target, first, title, body)
    elif suffix == ".fbx":
        write_fbx(target, lambda glb: write_glb(glb, first, title, body))
    elif suffix == ".png":
        _write_png(target, clips, [body_actor(body, clip) for clip in clips], options)
    elif suffix == ".html":
        (write_player if len(clips) <= PLAYED_TOGETHER else write_gallery)(target, clips, body)
    elif options.view == "skeleton":
        visualize_smplx_85(clips, title, target, FPS, size, camera=options.camera)
    else:
        render_mesh_video(clips, title, target, FPS, size, body, camera=options.camera)


def export_on_character(clips: Sequence[Clip], target: Path, options: Options, character: Character) -> None:
    """Write motions on a character: its file with an animation per motion, a video, or a picture.

    Raises:
        InputError: as in ``export``.
    """
    check_target(target, len(clips), on_character=True)
    if target.suffix.lower() in CHARACTERS:
        write_character(target, character, clips)
        return
    mesh = CharacterMesh(character)
    actors = [mesh.perform(clip) for clip in clips]
    if target.suffix.lower() == ".png":
        _write_png(target, clips, actors, options)
    else:
        title = " | ".join(dict.fromkeys(clip.title for clip in clips))
        frames = render_actors(actors, title, FPS, picture_size(options.size, len(clips)), options.camera)
        write_video(target, frames, FPS, rights_of(clips))


def _write_png(target: Path, clips: Sequence[Clip], actors: Sequence[Actor], options: Options) -> None:
    """Draw the strip of a motion, or the contact sheet of several."""
    titles = [clip.title for clip in clips]
    if len(clips) == 1:
        write_strip(actors[0], titles[0], target, options.poses, options.size)
    else:
        write_sheet(target, titles, actors)


def picture_size(height: int, people: int) -> tuple[int, int]:
    """Return the width and height of a video, wider for several people."""
    return min(MAX_SIDE, height * (1 + people) // 2), height


def write_npz(path: Path, clip: Clip) -> None:
    """Write ``motion_arrays`` of a clip, its further arrays, its title under the key ``prompt``, and its license."""
    rights = {"license": clip.rights} if clip.rights else {}
    with atomic_write(path) as file:
        np.savez_compressed(file, **motion_arrays(clip), **clip.arrays, prompt=clean(clip.title), **rights)


def motion_arrays(motion: AnyMotion) -> dict[str, np.ndarray]:
    """Return the arrays of a motion's ``.npz`` file: smplx_85, joints and fps, and the keys of AMASS.

    Args:
        motion: A clip or a (T, 85) array, at 30 frames per second.

    Raises:
        InputError: unusable motion, as in ``check_smplx85``.
    """
    clip = motion if isinstance(motion, Clip) else Clip(motion)
    joints = forward_kinematics(*smplx85_to_motion(clip.smplx85))
    ours = {"smplx_85": clip.smplx85.astype(np.float32), "joints": joints.astype(np.float32), "fps": np.array(FPS)}
    return ours | amass_arrays(clip)


if __name__ == "__main__":
    with exit_on_input_error():
        main(*ARGUMENTS)
