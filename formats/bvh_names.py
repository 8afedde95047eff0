"""Which joint of a BVH file is which of ours, told by its names and hierarchy, for files without a skeleton map.

Names end a limb (hand, foot, head), the hierarchy tells the rest: Mixamo, CMU, MotionBuilder, Blender, SMPL and most
other names work. The zero pose must be a person who stands upright, arms anywhere, along any of the axes.
"""

import re
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np

from formats.bvh import BvhClip, SkeletonMap
from motion.skeleton import JOINT_NAMES
from utils.errors import InputError

KNOWN_SKELETONS = Path(__file__).resolve().parents[1] / "configs" / "data"  # *_skeleton.yaml
# name of the joint without its side, best first
PELVIS, NECK, HEAD = ("pelvis", "hips", "hip", "root"), ("neck", "neck1", "neck01"), ("head",)
WRIST, ANKLE = ("wrist", "hand"), ("ankle", "foot")
ADVICE = "give a skeleton map with --skeleton; configs/data/bandai_skeleton.yaml explains how"


def guess_skeleton(clip: BvhClip) -> tuple[BvhClip, SkeletonMap]:
    """The clip, turned so that its zero pose stands along +y and faces +z, and the map of its joints to ours.

    Raises:
        InputError: the names or the zero pose do not tell.
    """
    if set(JOINT_NAMES) <= set(clip.names):
        return clip, SkeletonMap({name: name for name in JOINT_NAMES})
    for known in _known_skeletons():
        entries = known.joints.values()
        if {name for entry in entries for name in ([entry] if isinstance(entry, str) else entry)} <= set(clip.names):
            return clip, known
    joints = _match(clip)
    return _stand_up(clip, joints), SkeletonMap(joints)


@cache
def _known_skeletons() -> list[SkeletonMap]:
    return [SkeletonMap.from_yaml(path) for path in sorted(KNOWN_SKELETONS.glob("*_skeleton.yaml"))]


def _match(clip: BvhClip) -> dict[str, str | list[str]]:
    """Our joint names to those of the file."""
    sides = [_side_and_stem(name) for name in clip.names]

    def find(side: str, stems: tuple[str, ...]) -> int:
        for stem in stems:
            if (side, stem) in sides:
                return sides.index((side, stem))
        raise InputError(f"no joint of the file is named like the {side} {stems[0]}".replace("  ", " ") + f"; {ADVICE}")

    def above(joint: int, steps: int) -> int:
        for _ in range(steps):
            if clip.parents[joint] < 0:
                raise InputError(f"too few joints hang above {clip.names[joint]}; {ADVICE}")
            joint = clip.parents[joint]
        return joint

    pelvis, head = find("", PELVIS), find("", HEAD)
    spine = _between(clip, head, pelvis)  # from the pelvis to the head, both left out
    necks = [joint for joint in spine if sides[joint][1].startswith("neck")]
    spine = [joint for joint in spine if joint not in necks]
    if not spine:
        raise InputError(f"no joint lies between {clip.names[pelvis]} and {clip.names[head]}; {ADVICE}")
    found = {"pelvis": pelvis, "head": head, "neck": necks[0] if necks else head}
    for side in ("left", "right"):
        wrist, ankle = find(side, WRIST), find(side, ANKLE)
        shoulder = above(wrist, 2)
        collar = clip.parents[shoulder] if sides[clip.parents[shoulder]][0] == side else shoulder
        toes = [joint for joint, parent in enumerate(clip.parents) if parent == ankle]
        limbs = {"wrist": wrist, "elbow": above(wrist, 1), "shoulder": shoulder, "collar": collar}
        limbs |= {"foot": toes[0] if toes else ankle, "ankle": ankle, "knee": above(ankle, 1), "hip": above(ankle, 2)}
        found |= {f"{side}_{name}": joint for name, joint in limbs.items()}
    matched: dict[str, str | list[str]] = {name: clip.names[joint] for name, joint in found.items()}
    if len(spine) < 3:  # ours has three: in between, the mean of two
        lowest, highest = clip.names[spine[0]], clip.names[spine[-1]]
        middle = lowest if len(spine) == 2 else [clip.names[pelvis], highest]
        matched |= {"spine1": [clip.names[pelvis], lowest], "spine2": middle, "spine3": highest}
    else:
        chosen = np.linspace(0, len(spine) - 1, 3).round().astype(int)
        matched |= {f"spine{number}": clip.names[spine[index]] for number, index in enumerate(chosen, 1)}
    return matched


def _side_and_stem(name: str) -> tuple[str, str]:
    """``mixamorig:LeftUpLeg`` to (left, upleg), ``thigh_l`` to (left, thigh), ``Hips`` to ("", hips)."""
    name = re.sub(r"^(.*:|mixamorig\d*_?)", "", name)
    found = re.fullmatch(r"(?i:(left|right))[ _.-]?(.+)|([lLrR])(?:[ _.-](.+)|([A-Z].*))", name)
    if found:
        side, stem = found[1] or found[3], found[2] or found[4] or found[5]
    else:
        found = re.fullmatch(r"(?i)(.+?)(?:[ _.-](l|r)|[ _.-]?(left|right))", name)
        side, stem = (found[2] or found[3], found[1]) if found else ("", name)
    side = {"l": "left", "r": "right", "": ""}[side[:1].lower()]
    return side, re.sub(r"[^a-z0-9]", "", stem.lower())


def _between(clip: BvhClip, joint: int, ancestor: int) -> list[int]:
    """Joints on the way from ``ancestor`` down to ``joint``, both left out."""
    path, joint = [], clip.parents[joint]
    while joint not in (ancestor, -1):
        path.append(joint)
        joint = clip.parents[joint]
    if joint < 0:
        raise InputError(f"the head does not hang below {clip.names[ancestor]}; {ADVICE}")
    return path[::-1]


def _stand_up(clip: BvhClip, joints: dict[str, str | list[str]]) -> BvhClip:
    """Change the axes so that up is +y and the left side +x, as the zero pose has it."""
    zero = np.zeros((len(clip.names), 3))
    for joint, parent in enumerate(clip.parents):
        zero[joint] = clip.offsets[joint] + (zero[parent] if parent >= 0 else 0)
    at = {name: zero[clip.names.index(joints[name])] for name in JOINT_NAMES if isinstance(joints[name], str)}
    up, left = (_nearest_axis(at[high] - at[low]) for high, low in (("head", "pelvis"), ("left_hip", "right_hip")))
    legs_down = all((at[f"{side}_ankle"] - at[f"{side}_hip"]) @ up < 0 for side in ("left", "right"))
    if up @ left or not up.any() or not left.any() or not legs_down:
        raise InputError(f"the file's zero pose is no person who stands upright; {ADVICE}")
    turn = np.stack((left, up, np.cross(left, up)))  # (3, 3) from the file's axes to ours
    return replace(
        clip,
        offsets=clip.offsets @ turn.T,
        rotations=turn @ clip.rotations @ turn.T,
        positions=clip.positions @ turn.T,
    )


def _nearest_axis(direction: np.ndarray) -> np.ndarray:
    axis = np.zeros(3)
    largest = np.abs(direction).argmax()
    axis[largest] = np.sign(direction[largest])
    return axis
