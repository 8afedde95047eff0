"""A skinned character of a glTF or VRM file, made ready for the motion of the 22 joints.

Inside, a character stands upright and faces +z, y up, and is scaled so that its legs have the length of those of
SMPL-X: the normal frame, in metres. ``Character.axes`` and ``Character.scale`` lead back to the file.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from characters.bones import Bones, bones_by_name, bones_of_map, bones_of_nodes, check_hierarchy, template
from characters.drives import Drive, find_drives
from characters.soles import Soles, find_soles
from formats.fbx import read_scene
from formats.gltf import Nodes, Skeleton, read_nodes, read_skeleton
from formats.gltf_file import ADVICE, GltfFile
from formats.gltf_mesh import MeshPart, read_meshes
from formats.vrm import vrm_nodes
from motion.retarget import BONE_CHILD, leg_scale
from motion.source_motion import SourceMotion
from motion.zero_pose import zero_pose_body
from utils.errors import InputError, shown
from utils.reading.files import naming, refusing

SUFFIXES = (".glb", ".gltf", ".vrm", ".fbx")
SHORTEST = 0.01  # metres: length that every limb has, for legs of mean length


@dataclass
class Posed:
    """T poses of a character, in its normal frame: metres, y up, the floor at y = 0."""

    turns: np.ndarray  # (T, J, 3, 3) world rotations of the bones
    places: np.ndarray  # (T, J, 3) world positions of the bones


@dataclass
class Character:
    """A character; J bones, parents first. Rotations and positions are in the normal frame."""

    file: GltfFile
    nodes: Nodes
    skeleton: Skeleton
    parts: list[MeshPart]
    bones: Bones
    axes: np.ndarray  # (3, 3) left, up and forward of the character in the file's axes (columns)
    scale: float  # lengths of the file per metre of the normal frame
    rest_turns: np.ndarray  # (J, 3, 3) world rotations in the rest pose
    rest_places: np.ndarray  # (J, 3) world positions in the rest pose
    local_turns: np.ndarray  # (J, 3, 3) rotations relative to the parents in the pose of the file
    offsets: np.ndarray  # (J, 3) positions relative to the parents in the pose of the file
    drives: list[Drive]
    soles: dict[str, Soles]

    @property
    def pelvis(self) -> int:
        return self.bones.joints["pelvis"]

    def pose(self, world: np.ndarray, hips: np.ndarray) -> "Posed":
        """Return the pose for world rotations (T, 22, 3, 3) of the joints and the midpoint (T, 3) of the hips."""
        drives = {drive.bone: drive for drive in self.drives}
        turns = np.empty((len(world), len(self.offsets), 3, 3))
        places = np.empty((len(world), len(self.offsets), 3))
        for bone, parent in enumerate(self.skeleton.parents):
            if parent < 0:
                turns[:, bone], places[:, bone] = self.local_turns[bone], self.offsets[bone]
            else:
                places[:, bone] = places[:, parent] + turns[:, parent] @ self.offsets[bone]
                turns[:, bone] = turns[:, parent] @ self.local_turns[bone]
            if bone in drives:
                turns[:, bone] = drives[bone].turns(world)
        middle = places[:, [self.bones.joints["left_hip"], self.bones.joints["right_hip"]]].mean(axis=1)
        return Posed(turns, places + (hips - middle)[:, None])


def load_character(path: str | Path, bone_map: str | Path | None = None) -> Character:
    """Load a character.

    Args:
        path: ``.glb``, ``.gltf``, ``.vrm`` or ``.fbx`` with a skin.
        bone_map: YAML file with the names of the bones; None finds them by the humanoid of a VRM file, or by name and
            hierarchy.

    Raises:
        InputError: the file cannot be read, has no skin, or has no body whose bones are found.
    """
    path = Path(path)
    file = _scene(path)
    with naming(path):
        with refusing(path, "a character", ADVICE):
            nodes = read_nodes(file)
            skeleton = read_skeleton(file, nodes)
            parts = read_meshes(file, nodes, skeleton)
        if not skeleton.bound:
            raise InputError("it has no skin, so that no bone moves its meshes; rig it in a 3D editor")
        return _prepared(file, nodes, skeleton, parts, bone_map)


def map_of_bones(path: str | Path) -> str:
    """Return the map of the bones of a character in YAML, to be edited.

    Raises:
        InputError: the file cannot be read, or has no skin.
    """
    path = Path(path)
    file = _scene(path)
    with refusing(path, "a character", ADVICE):
        skeleton = read_skeleton(file, read_nodes(file))
        if not skeleton.bound:
            raise InputError("it has no skin, so that no bone moves its meshes")
        rest = rest_motion(skeleton, skeleton.rest[:, :3, 3])
    try:
        return template(rest, _bones(file, skeleton, rest, None))
    except InputError:
        return template(rest, None)


def _scene(path: Path) -> GltfFile:
    if path.suffix.lower() not in SUFFIXES:
        raise InputError(f"{shown(path, 200)} is no character; give {', '.join(SUFFIXES)}")
    return read_scene(path)


def _prepared(
    file: GltfFile, nodes: Nodes, skeleton: Skeleton, parts: list[MeshPart], bone_map: str | Path | None
) -> Character:
    turns = skeleton.turns(skeleton.rest)
    upright = rest_motion(skeleton, skeleton.rest[:, :3, 3])
    bones = _bones(file, skeleton, upright, bone_map)
    check_hierarchy(upright, bones)
    skeleton.check_rest(set(bones.all()))
    skeleton.check_scales({above for bone in bones.all() for above in upright.ancestors(bone)})
    axes = zero_pose_body(upright, bones.sources())
    if axes is None:
        raise InputError(
            "its rest pose is no standing person; set the rest pose to a T-pose or an A-pose in a 3D editor"
        )
    rest = rest_motion(skeleton, skeleton.rest[:, :3, 3] @ axes)
    places = rest.world()[1]
    scale = 1 / leg_scale(places, bones.sources())
    for start, end in BONE_CHILD.items():
        first, last = bones.joints[start], bones.joints[end]
        for matrices in (skeleton.pose, skeleton.rest):
            if not np.linalg.norm(matrices[last, :3, 3] - matrices[first, :3, 3]) > SHORTEST * scale:
                names = (shown(skeleton.names[bone], 60) for bone in (first, last))
                raise InputError("the limb from {} to {} has no length; export the file again".format(*names))
    rest_turns, rest_places = axes.T @ turns, places[0] / scale
    local_turns, offsets = _local(skeleton, axes, scale)
    drives = find_drives(rest, bones, rest_turns, rest_places)
    soles = find_soles(parts, skeleton.parents, bones, (axes, scale), (rest_turns, rest_places))
    return Character(
        file, nodes, skeleton, parts, bones, axes, scale, rest_turns, rest_places, local_turns, offsets, drives, soles
    )


def rest_motion(skeleton: Skeleton, places: np.ndarray) -> SourceMotion:
    """Return a skeleton as a motion of one frame in which no bone is rotated.

    Args:
        places: World positions (J, 3) of the bones.
    """
    count = len(skeleton.names)
    parents = np.array(skeleton.parents)
    local = places - np.where(parents[:, None] >= 0, places[parents], 0)
    turns = np.tile(np.eye(3), (1, count, 1, 1))
    return SourceMotion(skeleton.names, skeleton.parents, local, turns, local[None], 30.0)


def _bones(file: GltfFile, skeleton: Skeleton, rest: SourceMotion, bone_map: str | Path | None) -> Bones:
    if bone_map is not None:
        return bones_of_map(bone_map, rest)
    number = {node: bone for bone, node in enumerate(skeleton.nodes)}
    named = {name: number[node] for name, node in vrm_nodes(file).items() if node in number}
    if named:
        return bones_of_nodes(named)
    people: dict[int, Bones] = {}
    for joints in {tuple(sorted(skin.get("joints", []))) for skin in file.items("skins")}:
        own = _with_relatives(rest, {number[joint] for joint in joints})
        try:
            found = bones_by_name(rest.joints(own))
        except InputError:
            continue
        moved = Bones(
            {name: own[bone] for name, bone in found.joints.items()},
            [own[bone] for bone in found.spine],
            [own[bone] for bone in found.neck],
        )
        people[moved.joints["pelvis"]] = moved
    if len(people) > 1:
        names = " and ".join(shown(skeleton.names[pelvis], 60) for pelvis in people)
        raise InputError(f"it holds {len(people)} skeletons, with the pelvis {names}; keep one, or name its bones")
    return next(iter(people.values())) if people else bones_by_name(rest)


def _with_relatives(rest: SourceMotion, joints: set[int]) -> list[int]:
    """Return these bones with all bones above and below them, parents first."""
    above = {bone for joint in joints for bone in rest.ancestors(joint)}
    below = {bone for bone in range(len(rest.names)) if joints & set(rest.ancestors(bone))}
    return sorted(above | below)


def _local(skeleton: Skeleton, axes: np.ndarray, scale: float) -> tuple[np.ndarray, np.ndarray]:
    """Return rotations (J, 3, 3) and positions (J, 3) relative to the parents, in the pose of the file."""
    turns, places = axes.T @ skeleton.turns(skeleton.pose), skeleton.pose[:, :3, 3] @ axes / scale
    local_turns, offsets = turns.copy(), places.copy()
    for bone, parent in enumerate(skeleton.parents):
        if parent >= 0:
            local_turns[bone] = turns[parent].T @ turns[bone]
            offsets[bone] = turns[parent].T @ (places[bone] - places[parent])
    return local_turns, offsets
