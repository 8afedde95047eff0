"""Import of BVH files as motion of the 22 SMPL-X joints: read, find the joints, retarget, check."""

from dataclasses import replace
from functools import cache
from pathlib import Path

from formats.bvh import BvhClip, read_bvh
from formats.bvh_skeletons import lafan1_rest
from formats.import_options import ImportOptions, check_length
from formats.joint_names import find_joints
from formats.skeleton_map import SkeletonMap
from motion.plausibility import check_plausible
from motion.retarget import Axes, Retargeted, retarget
from utils.errors import InputError

KNOWN_SKELETONS = Path(__file__).resolve().parents[1] / "configs" / "data"  # *_skeleton.yaml


def import_bvh(
    path: str | Path, fps: float, skeleton: SkeletonMap | None = None, options: ImportOptions | None = None
) -> Retargeted:
    """Read a BVH file as motion of the 22 SMPL-X joints at ``fps`` frames per second.

    Args:
        skeleton: Names of the file's joints; by default they are found by name and hierarchy.

    Raises:
        InputError: the file cannot be read, its joints cannot be found, or the motion is not plausible.
    """
    options = options or ImportOptions()
    clip = read_bvh(path)
    if options.fps is not None:
        clip = replace(clip, fps=options.fps)
    try:
        check_length(len(clip.rotations), clip.fps)
        result = retarget_clip(clip, fps, skeleton, Axes(options.up, options.units))
        if not options.force:
            check_plausible(result.rotations, result.pelvis, result.bones)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    return result._replace(notes=[*clip.notes, *result.notes])


def retarget_clip(
    clip: BvhClip, fps: float, skeleton: SkeletonMap | None = None, axes: Axes | None = None
) -> Retargeted:
    """Retarget a parsed file at ``fps`` frames per second, without the plausibility check."""
    people = _trees(clip)
    for number, person in enumerate(people):
        try:
            joints, rest = _joints(person, skeleton)
            result = retarget(person, joints, fps, rest, axes)
        except InputError:
            if number == len(people) - 1:
                raise
            continue
        if len(people) > 1:
            result.notes.insert(0, f"the file holds {len(people)} skeletons; {person.names[0]}, the first that is a "
                                   "person, is read")  # fmt: skip
        return result
    raise InputError("the file holds no skeleton")


def _joints(clip: BvhClip, skeleton: SkeletonMap | None) -> tuple[dict[str, list[int]], dict | None]:
    """Return the source joints of each of the 22 joints, and their rest rotations if they are known."""
    if skeleton is not None:
        return skeleton.find(clip), skeleton.rest_rotations(clip)
    joints = find_joints(clip)
    rest = lafan1_rest(clip)
    if rest is not None and {index for entry in joints.values() for index in entry} == rest.keys():
        return joints, rest
    for known in known_skeletons():
        if known.fits(clip.names) and known.find(clip) == joints:
            return joints, known.rest_rotations(clip)
    return joints, None


@cache
def known_skeletons() -> list[SkeletonMap]:
    """Return the skeleton maps in ``configs/data``."""
    return [SkeletonMap.from_yaml(path) for path in sorted(KNOWN_SKELETONS.glob("*_skeleton.yaml"))]


def _trees(clip: BvhClip) -> list[BvhClip]:
    """Return a clip per ROOT of the file."""
    roots = [joint for joint, parent in enumerate(clip.parents) if parent < 0]
    if len(roots) == 1:
        return [clip]
    ends = [*roots[1:], len(clip.names)]
    return [clip.joints(list(range(start, end))) for start, end in zip(roots, ends, strict=True)]
