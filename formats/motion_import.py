"""Import of motion with a skeleton (BVH, glTF, FBX) as motion of the 22 SMPL-X joints: read, find the joints, retarget,
check."""

from dataclasses import replace
from functools import cache
from pathlib import Path

from formats.bvh import BvhClip, read_bvh
from formats.bvh_skeletons import lafan1_rest
from formats.gltf_animation import read_gltf_motion
from formats.import_options import ImportOptions, check_length
from formats.joint_names import find_joints, spread_spine
from formats.skeleton_map import SkeletonMap
from motion.plausibility import check_plausible
from motion.retarget import Axes, Retargeted, retarget
from motion.skeleton import JOINT_NAMES
from motion.source_motion import SourceMotion
from utils.errors import InputError
from utils.reading.files import naming

GLTF = (".glb", ".gltf", ".vrm", ".vrma", ".fbx")  # FBX through Blender
SUFFIXES = (".bvh", *GLTF)
KNOWN_SKELETONS = Path(__file__).resolve().parents[1] / "configs" / "data"  # *_skeleton.yaml


def import_motion(
    path: str | Path, fps: float, skeleton: SkeletonMap | None = None, options: ImportOptions | None = None
) -> Retargeted:
    """Read a file with a skeleton as motion of the 22 SMPL-X joints at ``fps`` frames per second.

    Args:
        path: ``.bvh``, or glTF with an animation (``GLTF``).
        skeleton: Names of the file's joints; by default they are found by name and hierarchy.

    Raises:
        InputError: the file cannot be read, its joints cannot be found, or the motion is not plausible.
    """
    options, path = options or ImportOptions(), Path(path)
    with naming(path):
        result = (_import_gltf if path.suffix.lower() in GLTF else _import_bvh)(path, fps, skeleton, options)
        if not options.force:
            check_plausible(result.rotations, result.pelvis, result.bones)
        return result


def _import_bvh(path: Path, fps: float, skeleton: SkeletonMap | None, options: ImportOptions) -> Retargeted:
    clip = read_bvh(path)
    if options.fps is not None:
        clip = replace(clip, fps=options.fps)
    check_length(len(clip.rotations), clip.fps)
    result = retarget_clip(clip, fps, skeleton, Axes(options.up, options.units))
    return result._replace(notes=[*clip.notes, *result.notes])


def _import_gltf(path: Path, fps: float, skeleton: SkeletonMap | None, options: ImportOptions) -> Retargeted:
    if options.fps is not None:
        raise InputError("its keys have times in seconds; leave out --fps")
    clip, humanoid = read_gltf_motion(path, options.animation)
    axes = Axes(options.up, options.units)
    if not humanoid or skeleton is not None:
        return retarget_clip(clip, fps, skeleton, axes)
    joints = {name: [humanoid[name]] if name in humanoid else [] for name in JOINT_NAMES}
    spine = [humanoid[name] for name in ("spine1", "spine2", "spine3") if name in humanoid]
    return retarget(clip, joints | spread_spine(humanoid["pelvis"], spine), fps, None, axes)


def retarget_clip(
    clip: SourceMotion, fps: float, skeleton: SkeletonMap | None = None, axes: Axes | None = None
) -> Retargeted:
    """Retarget a clip at ``fps`` frames per second, without the plausibility check."""
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


def _joints(clip: SourceMotion, skeleton: SkeletonMap | None) -> tuple[dict[str, list[int]], dict | None]:
    """Return the source joints of each of the 22 joints, and their rest rotations if they are known.

    The known skeletons are those of BVH files; the rest pose of a glTF file is in the file.
    """
    if skeleton is not None:
        return skeleton.find(clip), skeleton.rest_rotations(clip)
    joints = find_joints(clip)
    if not isinstance(clip, BvhClip):
        return joints, None
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


def _trees(clip: SourceMotion) -> list[SourceMotion]:
    """Return a clip per root of the file."""
    roots = [joint for joint, parent in enumerate(clip.parents) if parent < 0]
    if len(roots) == 1:
        return [clip]
    trees: dict[int, list[int]] = {root: [] for root in roots}
    root_of: list[int] = []
    for joint, parent in enumerate(clip.parents):
        root_of.append(root_of[parent] if parent >= 0 else joint)
        trees[root_of[joint]].append(joint)
    return [clip.joints(joints) for joints in trees.values()]
