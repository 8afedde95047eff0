"""The bones of a character that move: found by the humanoid of a VRM file, by a YAML map, or by name and hierarchy."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from formats.joint_names import find_joints, nearest_names, without_pivots
from formats.skeleton_map import listed
from motion.skeleton import JOINT_NAMES
from motion.source_motion import SourceMotion
from utils.errors import InputError, shown
from utils.reading.files import refusing
from utils.reading.texts import read_yaml

SPINE = ("spine1", "spine2", "spine3")
OPTIONAL = {*SPINE, "neck", "left_collar", "right_collar", "left_foot", "right_foot"}
REQUIRED = tuple(name for name in JOINT_NAMES if name not in OPTIONAL)
ADVICE = "name the bones in a map and give it with --character-map; python -m characters CHARACTER prints one to edit"


@dataclass
class Bones:
    """Bones by joint; indices of the bones of a skeleton."""

    joints: dict[str, int]  # the joints that the character has, except spine and neck
    spine: list[int]  # above the pelvis, from below, up to the bone that carries the arms
    neck: list[int]  # from below, without the head

    def all(self) -> list[int]:
        return [*self.joints.values(), *self.spine, *self.neck]

    def sources(self) -> dict[str, list[int]]:
        """Return the bones of each of the 22 joints, as ``motion.rest_pose.find_rest`` takes them."""
        found = {name: [self.joints[name]] if name in self.joints else [] for name in JOINT_NAMES}
        spine = self.spine[:1] + self.spine[1:-1][:1] + self.spine[1:][-1:]
        for name, bone in zip(SPINE[-len(spine) :] if spine else (), spine, strict=True):
            found[name] = [bone]
        return found | {"neck": self.neck[:1]}


def bones_by_name(rest: SourceMotion) -> Bones:
    """Find the bones by name and hierarchy.

    Raises:
        InputError: a bone cannot be found; the sentence names the nearest.
    """
    found = find_joints(rest, ADVICE)
    path = without_pivots(rest, rest.ancestors(found["head"][0]))[1:]
    between = path[: path.index(found["pelvis"][0])][::-1]
    chest, neck = found["spine3"][-1], found["neck"]
    necks = between[between.index(neck[0]) :] if len(neck) == 1 and neck[0] in between else []
    spine = between[: between.index(chest) + 1] if chest in between else []
    single = {name: entry[0] for name, entry in found.items() if entry and name not in (*SPINE, "neck")}
    return Bones(single, [bone for bone in spine if bone not in necks], necks)


def bones_of_map(path: str | Path, rest: SourceMotion) -> Bones:
    """Read a map from YAML: a table of joints (``pelvis``, ``left_hip`` ...) and the names of their bones.

    Spine, neck, collars and feet (toes) may be missing.

    Raises:
        InputError: the file is no such table, or names a bone that the character does not have.
    """
    values = read_yaml(path)
    with refusing(Path(path), "a character map", "python -m characters CHARACTER prints a map"):
        if not isinstance(values, dict) or not all(isinstance(value, str) for value in values.values()):
            raise InputError("it is no table of joints and the names of their bones")
        if unknown := sorted(set(map(str, values)) - set(JOINT_NAMES)):
            raise InputError(f"it has the keys {shown(', '.join(unknown), 60)}; the joints are {', '.join(REQUIRED)}")
        if missing := [name for name in values.values() if name not in rest.names]:
            raise InputError(f"the character has no bone {listed(missing, 6)} (it has {listed(rest.names, 12)})")
        return bones_of_nodes({name: rest.names.index(bone) for name, bone in values.items()})


def bones_of_nodes(found: dict[str, int]) -> Bones:
    """Return the bones of a table of joints and bones.

    Raises:
        InputError: a joint that a character must have is missing, or two joints have the same bone.
    """
    if missing := [name for name in REQUIRED if name not in found]:
        raise InputError(f"it names no bone for {', '.join(missing)}")
    if len(set(found.values())) < len(found):
        raise InputError("it names a bone twice")
    single = {name: bone for name, bone in found.items() if name not in (*SPINE, "neck")}
    return Bones(single, [found[name] for name in SPINE if name in found], [found["neck"]] if "neck" in found else [])


def template(rest: SourceMotion, bones: Bones | None) -> str:
    """Return a map in YAML for ``bones_of_map``: the bones that were found, or the names that are nearest to the usual.

    Args:
        rest: Names and hierarchy of the bones.
        bones: The bones, if they were found.
    """
    lines = ["# Joints and the names of their bones; spine, neck, collars and feet (toes) may be left out."]
    sources = bones.sources() if bones else {}
    for name in JOINT_NAMES:
        if bones and sources[name]:
            lines.append(f"{name}: {json.dumps(rest.names[sources[name][0]], ensure_ascii=False)}")
        elif not bones:
            best, *others = (json.dumps(guess, ensure_ascii=False) for guess in nearest_names(rest.names, name))
            lines.append(f"{name}: {best}  # guessed; or {', '.join(others)}")
    return "\n".join(lines) + "\n"


def check_hierarchy(rest: SourceMotion, bones: Bones) -> None:
    """Raise InputError unless limbs, spine and head hang below each other and below the pelvis."""
    chains: list[Iterable[int]] = [
        [bones.joints["pelvis"], *bones.spine, *bones.neck, bones.joints["head"]],
    ]
    for side in ("left", "right"):
        for limb in (("collar", "shoulder", "elbow", "wrist"), ("hip", "knee", "ankle", "foot")):
            chains.append([bones.joints["pelvis"], *(bones.joints[f"{side}_{joint}"] for joint in limb
                                                     if f"{side}_{joint}" in bones.joints)])  # fmt: skip
    for chain in chains:
        chain = list(chain)
        for above, below in zip(chain, chain[1:], strict=False):
            if above not in rest.ancestors(below)[1:]:
                names = (shown(rest.names[bone], 60) for bone in (below, above))
                raise InputError("the bone {} does not hang below {}; {}".format(*names, ADVICE))
