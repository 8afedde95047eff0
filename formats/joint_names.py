"""Assign the joints of a skeleton to the 22 SMPL-X joints by name and hierarchy; motion/retarget.py uses the geometry.

Head, hands and feet are found by name, the other joints by hierarchy: the pelvis joins legs and spine, the chest joins
the arms. Side letters, prefixes, spaces and separators may occur anywhere in a name.
"""

import re
from collections import Counter
from difflib import SequenceMatcher

import numpy as np

from motion.skeleton import JOINT_NAMES
from motion.source_motion import SourceMotion
from utils.errors import InputError, shown

# Names without side, prefix, digits and separators; the first that occurs in the file is used.
HEAD = ("head",)
WRIST = ("wrist", "hand", "palm")
ANKLE = ("ankle", "foot")
TOES = ("toe", "toes", "toebase", "ball", "foot", "toebone", "football")
ELBOW = ("forearm", "lowerarm", "lowarm", "elbow", "radius", "armlower", "arm2")
KNEE = ("knee", "shin", "calf", "lowerleg", "lowleg", "tibia", "leglower", "leg2")
USUAL = {"pelvis": ("pelvis", "hips"), "collar": ("clavicle", "collar", "shoulder"), "shoulder": ("upperarm", "arm"),
         "elbow": ELBOW, "wrist": WRIST, "hip": ("thigh", "upleg", "upperleg"), "knee": KNEE, "ankle": ANKLE,
         "foot": TOES}  # fmt: skip
TWISTS = ("roll", "twist", "share", "bendy")  # joints that take a part of the twist of a bone
SIDES = {"left": "left", "right": "right", "l": "left", "r": "right", "lft": "left", "rgt": "right", "lt": "left",
         "rt": "right", "lf": "left"}  # fmt: skip
MIDDLE = ("c", "m", "mid", "center")  # in the place of a side, for joints of the trunk
GLUED = ("femur", "tibia", "foot", "toes", "humerus", "radius", "wrist", "hand", "clavicle", "thigh", "shin", "calf",
         "shoulder", "upperarm", "forearm", "lowerarm", "knee", "ankle", "hip", "elbow", "collar", "toe", "upleg",
         "leg", "arm", "hipjoint")  # fmt: skip  # may follow a side letter without a separator: lfemur
# Words of the names in MikuMikuDance
JAPANESE = {"左": "Left ", "右": "Right ", "頭": "Head", "手首": "Wrist", "足首": "Ankle", "ひじ": "Elbow",
            "ひざ": "Knee", "つま先": "Toe", "首": "Neck", "腕": "Arm", "足": "Leg", "肩": "Shoulder",
            "捩": "Twist"}  # fmt: skip
RIGIFY_SPINE = 6  # joints named spine of which the last is the head
SAME_PLACE = 1e-4  # share of the largest offset up to which a joint is at the place of its parent
GUESSES = 3  # names in the message about a joint that is not found
ADVICE = "give a skeleton map with --skeleton; configs/data/bandai_skeleton.yaml explains how"


def find_joints(clip: SourceMotion, advice: str = ADVICE) -> dict[str, list[int]]:
    """Find the source joints of each of the 22 joints.

    Args:
        clip: Names and hierarchy of the source joints.
        advice: End of the error's sentence: how to name the joints by hand.

    Returns:
        Indices of the source joints by joint name: one, two (their orientations are averaged), or none (the joint
        follows its parent).

    Raises:
        InputError: a joint cannot be found.
    """
    try:
        return _find(clip, _split_names(clip.names))
    except InputError as error:
        raise InputError(f"{error}; {advice}") from error


def _find(clip: SourceMotion, names: list[tuple[str, str]]) -> dict[str, list[int]]:

    def find(side: str, stems: tuple[str, ...], within: list[int] | None = None) -> int:
        if stems == HEAD and not {("", stem) for stem in HEAD} & set(names) and (end := _spine_end(clip, names)):
            return end
        for stem in stems:
            for joint in range(len(names)) if within is None else within:
                if names[joint] == (side, stem):
                    return joint
        wanted = f"{side} {stems[0]}".strip()
        raise InputError(
            f"no joint of the file is named like the {wanted}, from which others follow (nearest: "
            f"{', '.join(shown(name, 40) for name in _nearest(clip.names, names, side, stems))})"
        )

    head = find("", HEAD)
    ends = {f"{side}_{end}": find(side, stems) for side in ("left", "right") for end, stems in
            (("wrist", WRIST), ("ankle", ANKLE))}  # fmt: skip
    pelvis = _meeting(clip, [head, ends["left_ankle"], ends["right_ankle"]])
    found = _trunk(clip, names, pelvis, head, ends)
    trunk = set(clip.ancestors(head))
    for side in ("left", "right"):
        wrist, ankle = ends[f"{side}_wrist"], ends[f"{side}_ankle"]
        arm = _limb(clip, names, wrist, trunk, ELBOW)
        leg = _limb(clip, names, ankle, trunk, KNEE)
        below = [joint for joint in range(len(names)) if ankle in clip.ancestors(joint)[1:]]
        try:
            toes = [find(side, TOES, below)]
        except InputError:
            toes = [joint for joint in below if clip.parents[joint] == ankle][:1]
        found |= {f"{side}_wrist": [wrist], f"{side}_ankle": [ankle], f"{side}_foot": toes}
        found |= {f"{side}_elbow": [arm[0]], f"{side}_shoulder": [arm[1]], f"{side}_collar": arm[2:3]}
        found |= {f"{side}_knee": [leg[0]], f"{side}_hip": [leg[1]]}
    return {name: found[name] for name in JOINT_NAMES}


def _spine_end(clip: SourceMotion, names: list[tuple[str, str]]) -> int | None:
    """Return the head of Rigify, the last of a long spine of numbered joints; None for other skeletons."""
    spine = [joint for joint, name in enumerate(names) if name == ("", "spine")]
    end = max(spine, key=lambda joint: len(clip.ancestors(joint)), default=-1)
    return end if len(spine) >= RIGIFY_SPINE and set(spine) <= set(clip.ancestors(end)) else None


def nearest_names(given: list[str], joint: str) -> list[str]:
    """Return the names of a file that are most similar to those that one of the 22 joints usually has, best first."""
    side, _, part = joint.rpartition("_")
    return _nearest(given, _split_names(given), side, USUAL.get(part, (part.rstrip("123"),)))


def _nearest(given: list[str], names: list[tuple[str, str]], side: str, stems: tuple[str, ...]) -> list[str]:
    def likeness(joint: int) -> float:
        own_side, own = names[joint]
        same = max(SequenceMatcher(None, own, stem).ratio() for stem in stems)
        return same + (0.3 if own_side == side else 0)

    return [given[joint] for joint in sorted(range(len(given)), key=likeness, reverse=True)[:GUESSES]]


def _split_names(names: list[str]) -> list[tuple[str, str]]:
    """Return (side, stem) of each name: ``mixamorig:LeftUpLeg`` to (left, upleg), ``J_Bip_L_Foot`` to (left, foot)."""
    words = [_words(name) for name in names]
    for place, rest in ((0, slice(1, None)), (-1, slice(None, -1))):  # without prefixes and suffixes of most names
        while common := _most_common(words, place):
            words = [parts[rest] if len(parts) > 1 and parts[place] == common else parts for parts in words]
    return [_side_and_stem(parts) for parts in words]


def _most_common(words: list[list[str]], place: int) -> str | None:
    """Return the first (0) or last (-1) word of most names, or None; sides, and names of one word, do not count."""
    counts = Counter(parts[place] for parts in words if len(parts) > 1 and parts[place] not in SIDES)
    return next((word for word, count in counts.items() if count > len(words) / 2), None)


def _words(name: str) -> list[str]:
    """Return the lower-case words of a name without its namespace."""
    name = re.sub(r"^.*[:|]", "", name)
    for japanese, english in JAPANESE.items():
        name = name.replace(japanese, english)
    found = re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+", name)
    return [word.lower() for word in found]


def _side_and_stem(words: list[str]) -> tuple[str, str]:
    side, stem = "", []
    for word in words:
        if word in SIDES and not side:
            side = SIDES[word]
            continue
        for long in ("left", "right"):
            if not side and word != long and (word.startswith(long) or word.endswith(long)):
                side, word = long, word.removeprefix(long).removesuffix(long)
        if not side and word[:1] in ("l", "r") and word[1:] in GLUED:
            side, word = SIDES[word[0]], word[1:]
        stem.append(word)
    return side, "".join(word for word in stem if not word.isdigit() and word not in MIDDLE)


def _meeting(clip: SourceMotion, joints: list[int]) -> int:
    """Return the lowest common ancestor of the joints."""
    paths = [clip.ancestors(joint) for joint in joints]
    shared = [joint for joint in paths[0] if all(joint in path for path in paths)]
    if not shared:
        raise InputError("head, hands and feet of the file do not hang below one root")
    return shared[0]


def without_pivots(clip: SourceMotion, joints: list[int]) -> list[int]:
    """Return the joints of a path without pivots: nodes by which an exporter divides the transform of a joint.

    A pivot is above its joint, at the same place, and its name is longer: Hand_$AssimpFbx$_PreRotation of Hand.

    Args:
        joints: Numbers of joints, from the end of a limb or the head upward.
    """
    kept = joints[:1]
    sizes = np.abs(clip.offsets).max(axis=1)
    for joint, below in zip(joints[1:], joints, strict=False):
        is_apart = sizes[below] > SAME_PLACE * sizes.max()
        if is_apart or not clip.names[joint].startswith(clip.names[kept[-1]]):
            kept.append(joint)
    return kept


def _trunk(clip: SourceMotion, names: list, pelvis: int, head: int, ends: dict[str, int]) -> dict[str, list[int]]:
    """Return the sources of pelvis, spine, neck and head; the spine joints of the file are distributed over three."""
    path = without_pivots(clip, clip.ancestors(head))
    between = path[1 : path.index(pelvis)][::-1]  # from the pelvis up to the head, both left out
    chest = _meeting(clip, [head, ends["left_wrist"], ends["right_wrist"]])
    necks = [joint for joint in between if names[joint][1].startswith("neck")]
    if not necks and chest in between:
        necks = between[between.index(chest) + 1 :]
    spine = [joint for joint in between if joint not in necks]
    if chest in spine:
        spine = spine[: spine.index(chest) + 1]
    spine = [joint for joint in spine if not _is_twist(names[joint])] or [pelvis]
    found = {"pelvis": [pelvis], "head": [head], "neck": necks[:1] or [spine[-1], head]}
    return found | spread_spine(pelvis, spine)


def spread_spine(pelvis: int, spine: list[int]) -> dict[str, list[int]]:
    """Return the sources of the three spine joints for the spine joints of a file, from below."""
    spine = spine or [pelvis]
    if len(spine) < 3:
        middle = [spine[0]] if len(spine) == 2 else [pelvis, spine[-1]]
        return {"spine1": [pelvis, spine[0]], "spine2": middle, "spine3": [spine[-1]]}
    chosen = [spine[0], spine[round((len(spine) - 1) / 2)], spine[-1]]
    return {f"spine{number}": [joint] for number, joint in enumerate(chosen, 1)}


def _limb(clip: SourceMotion, names: list, end: int, trunk: set[int], bends: tuple[str, ...]) -> list[int]:
    """Return the joints above the end of a limb, from elbow or knee to the trunk, without joints inside a bone."""
    chain: list[int] = []
    for joint in without_pivots(clip, clip.ancestors(end))[1:]:
        if joint in trunk:
            break
        chain.append(joint)
    side, above = names[end][0], [joint for joint in chain if not _is_twist(names[joint])]
    starts = [  # a bone in several segments of one name starts at the first
        joint for joint, upper in zip(above, [*above[1:], -1], strict=True)
        if upper < 0 or names[upper][1] != names[joint][1]
    ]  # fmt: skip
    above = starts if len(starts) > 1 else above
    named = [place for place, joint in enumerate(above) if names[joint][1] in bends]
    above = above[named[0] :] if named else above
    if len(above) < 2:
        raise InputError(f"too few joints hang above {shown(clip.names[end], 60)}")
    return above[:2] + [joint for joint in above[2:3] if names[joint][0] == side]


def is_twist(name: str) -> bool:
    """Whether the name of a joint says that it takes a part of the twist of a bone."""
    return any(word in name.lower() for word in (*TWISTS, "捩"))


def _is_twist(name: tuple[str, str]) -> bool:
    return any(word in name[1] for word in TWISTS)
