"""Skinned characters as many programs write them: names, rest poses, axes, units and additional bones."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from scipy.spatial.transform import Rotation

from formats.gltf_writer import write_glb
from motion.skeleton import JOINT_INDEX, JOINT_NAMES, PARENTS, REST_OFFSETS, forward_kinematics
from tests.exporters import MIXAMO, names

UNREAL = names(
    "pelvis|spine_01|spine_02|spine_03|neck_01|head",
    "clavicle_{s}|upperarm_{s}|lowerarm_{s}|hand_{s}",
    "thigh_{s}|calf_{s}|foot_{s}|ball_{s}",
)
RIGIFY = names(
    "DEF-spine|DEF-spine.001|DEF-spine.002|DEF-spine.003|DEF-spine.004|DEF-spine.006",
    "DEF-shoulder.{S}|DEF-upper_arm.{S}|DEF-forearm.{S}|DEF-hand.{S}",
    "DEF-thigh.{S}|DEF-shin.{S}|DEF-foot.{S}|DEF-toe.{S}",
)
UNITY = names(
    "Hips|Spine|Chest|UpperChest|Neck|Head",
    "{Side}Shoulder|{Side}UpperArm|{Side}LowerArm|{Side}Hand",
    "{Side}UpperLeg|{Side}LowerLeg|{Side}Foot|{Side}Toes",
)
BIPED = names(
    "Bip01 Pelvis|Bip01 Spine|Bip01 Spine1|Bip01 Spine2|Bip01 Neck|Bip01 Head",
    "Bip01 {S} Clavicle|Bip01 {S} UpperArm|Bip01 {S} Forearm|Bip01 {S} Hand",
    "Bip01 {S} Thigh|Bip01 {S} Calf|Bip01 {S} Foot|Bip01 {S} Toe0",
)
CREATOR = names(
    "CC_Base_Hip|CC_Base_Waist|CC_Base_Spine01|CC_Base_Spine02|CC_Base_NeckTwist01|CC_Base_Head",
    "CC_Base_{S}_Clavicle|CC_Base_{S}_Upperarm|CC_Base_{S}_Forearm|CC_Base_{S}_Hand",
    "CC_Base_{S}_Thigh|CC_Base_{S}_Calf|CC_Base_{S}_Foot|CC_Base_{S}_ToeBase",
)
VROID = names(
    "J_Bip_C_Hips|J_Bip_C_Spine|J_Bip_C_Chest|J_Bip_C_UpperChest|J_Bip_C_Neck|J_Bip_C_Head",
    "J_Bip_{S}_Shoulder|J_Bip_{S}_UpperArm|J_Bip_{S}_LowerArm|J_Bip_{S}_Hand",
    "J_Bip_{S}_UpperLeg|J_Bip_{S}_LowerLeg|J_Bip_{S}_Foot|J_Bip_{S}_ToeBase",
)
MMD_WORDS = {"pelvis": "センター", "spine1": "上半身", "spine2": "上半身2", "spine3": "上半身3", "neck": "首",
             "head": "頭",
             "collar": "肩", "shoulder": "腕", "elbow": "ひじ", "wrist": "手首", "hip": "足", "knee": "ひざ",
             "ankle": "足首", "foot": "つま先"}  # fmt: skip


def mmd(name: str) -> str:
    side, _, part = name.rpartition("_")
    return {"left": "左", "right": "右", "": ""}[side] + MMD_WORDS[part]


@dataclass(frozen=True)
class Rig:
    """A character to write; the defaults are a T-pose in metres, y up, that faces +z, with the names of Mixamo."""

    names: Callable[[str], str] = MIXAMO
    arms: float = 0.0  # degrees below the T-pose
    axes: str = "world"  # local axes of the bones: world, turned (90 degrees about several axes), random
    scale: float = 1.0  # units per metre
    armature: float = 1.0  # scale of the node above the bones, which the bones undo
    turn: np.ndarray = field(default_factory=lambda: np.eye(3))  # of the whole character
    node_turn: np.ndarray = field(default_factory=lambda: np.eye(3))  # of the node above the bones, which they undo
    legs: float = 1.0  # proportions against those of SMPL-X
    shins: float = 1.0
    hips: float = 1.0
    feet: float = 1.0
    above: tuple[str, ...] = ()  # bones above the pelvis
    missing: tuple[str, ...] = ()
    twists: bool = False  # a bone in the middle of each limb, beside its chain
    fingers: bool = True
    posed: bool = False  # the nodes hold another pose than the bind pose
    side_suffix: str = ""
    seed: int = 0


def rest_places(rig: Rig) -> np.ndarray:
    """Return the positions (22, 3) of the joints in the rest pose, in metres, with the soles at y = 0."""
    offsets = REST_OFFSETS.astype(np.float64).copy()
    for side, sign in (("left", 1), ("right", -1)):
        offsets[JOINT_INDEX[f"{side}_hip"]] *= (rig.hips, 1, 1)
        offsets[JOINT_INDEX[f"{side}_knee"]] *= rig.legs
        offsets[JOINT_INDEX[f"{side}_ankle"]] *= rig.legs * rig.shins
        offsets[JOINT_INDEX[f"{side}_foot"]] *= rig.feet
        turn = Rotation.from_euler("z", -sign * rig.arms, degrees=True)
        for joint in ("elbow", "wrist"):
            offsets[JOINT_INDEX[f"{side}_{joint}"]] = turn.apply(offsets[JOINT_INDEX[f"{side}_{joint}"]])
    places = forward_kinematics(np.tile(np.eye(3), (22, 1, 1)), np.zeros(3), offsets)
    return places + (0, 0.02 * rig.feet - places[:, 1].min(), 0)


@dataclass
class Bone:
    name: str
    parent: int
    place: np.ndarray
    joint: str = ""


def bones_of(rig: Rig) -> list[Bone]:
    """Return the bones, parents first."""
    places = rest_places(rig)
    bones = [Bone(name, number - 1, np.zeros(3)) for number, name in enumerate(rig.above)]
    number: dict[str, int] = {}
    for joint, name in enumerate(JOINT_NAMES):
        parent = PARENTS[joint]
        while parent >= 0 and JOINT_NAMES[parent] in rig.missing:
            parent = PARENTS[parent]
        if name in rig.missing:
            continue
        number[name] = len(bones)
        bones.append(Bone(rig.names(name), number[JOINT_NAMES[parent]] if joint else len(rig.above) - 1,
                          places[joint], name))  # fmt: skip
    for side, sign in (("left", 1), ("right", -1)):
        for start, end in (("shoulder", "elbow"), ("elbow", "wrist"), ("hip", "knee")) if rig.twists else ():
            middle = (places[JOINT_INDEX[f"{side}_{start}"]] + places[JOINT_INDEX[f"{side}_{end}"]]) / 2
            bones.append(Bone(f"{rig.names(f'{side}_{start}')}_twist", number[f"{side}_{start}"], middle))
        wrist = number.get(f"{side}_wrist")
        if rig.fingers and wrist is not None:
            fingers = [Bone(f"{bones[wrist].name}{name}1", wrist, bones[wrist].place + np.array(step) * (sign, 1, 1))
                       for name, step in (("Index", (0.09, 0, 0.03)), ("Pinky", (0.08, 0, -0.03)))]  # fmt: skip
            bones += fingers
    return bones


def write_rig(path: Path, rig: Rig, vertices: int = 8) -> Path:
    """Write a rig with a box of at least ``vertices`` vertices around each bone, and soles."""
    bones, random = bones_of(rig), np.random.default_rng(rig.seed)
    frames = [_frame(rig, number, random) for number in range(len(bones))]
    world = np.tile(np.eye(4), (len(bones), 1, 1))
    for number, bone in enumerate(bones):
        world[number, :3, :3] = rig.scale * rig.turn @ frames[number]
        world[number, :3, 3] = rig.scale * rig.turn @ bone.place
    top = np.eye(4)
    top[:3, :3] = rig.armature * rig.node_turn
    posed = world.copy()
    if rig.posed:
        for number, bone in enumerate(bones):
            if bone.joint.endswith(("shoulder", "elbow", "knee")):
                posed[number, :3, :3] = posed[number, :3, :3] @ Rotation.from_rotvec([0.3, 0.2, -0.4]).as_matrix()
        for number, bone in enumerate(bones):
            if bone.parent >= 0:
                local = np.linalg.inv(world[bone.parent]) @ world[number]
                turn = np.linalg.inv(world[number, :3, :3]) @ posed[number, :3, :3]
                local[:3, :3] = local[:3, :3] @ turn
                posed[number] = posed[bone.parent] @ local
    nodes = [{"name": "Armature", **_transform(top), "children": [1 + n for n, b in enumerate(bones) if b.parent < 0]}]
    for number, bone in enumerate(bones):
        above = posed[bone.parent] if bone.parent >= 0 else top
        children = [1 + child for child, other in enumerate(bones) if other.parent == number]
        nodes.append({"name": bone.name, **_transform(np.linalg.inv(above) @ posed[number])})
        nodes[-1] |= {"children": children} if children else {}
    nodes.append({"name": "Body", "mesh": 0, "skin": 0})
    points, faces, joints = _boxes(bones, vertices)
    arrays = _Arrays()
    attributes = {
        "POSITION": arrays.add((rig.scale * points @ rig.turn.T).astype("<f4"), 5126, "VEC3"),
        "JOINTS_0": arrays.add(np.pad(joints[:, None], ((0, 0), (0, 3))).astype("u1"), 5121, "VEC4"),
        "WEIGHTS_0": arrays.add(np.eye(4, dtype="<f4")[np.zeros(len(points), int)], 5126, "VEC4"),
    }
    inverse = np.linalg.inv(world).swapaxes(1, 2).reshape(-1, 16).astype("<f4")
    document = {
        "asset": {"version": "2.0"},
        "scene": 0,
        "scenes": [{"nodes": [0, len(nodes) - 1]}],
        "nodes": nodes,
        "meshes": [{"primitives": [{"attributes": attributes,
                                    "indices": arrays.add(faces.reshape(-1, 1).astype("<u4"), 5125, "SCALAR")}]}],
        "skins": [{"joints": list(range(1, len(bones) + 1)), "inverseBindMatrices": arrays.add(inverse, 5126, "MAT4")}],
        "accessors": arrays.accessors,
        "bufferViews": arrays.views,
        "buffers": [{"byteLength": len(arrays.data)}],
    }  # fmt: skip
    return write_glb(path, document, arrays.data)


def _frame(rig: Rig, number: int, random: np.random.Generator) -> np.ndarray:
    if rig.axes == "random":
        return Rotation.random(random_state=random).as_matrix()
    if rig.axes == "turned":
        return Rotation.from_euler("xyz"[number % 3], 90 * (1 + number % 4), degrees=True).as_matrix()
    return np.eye(3)


def _transform(matrix: np.ndarray) -> dict[str, list[float]]:
    scale = np.linalg.norm(matrix[:3, :3], axis=0)
    turn = Rotation.from_matrix(matrix[:3, :3] / scale).as_quat()
    return {"translation": matrix[:3, 3].tolist(), "rotation": turn.tolist(), "scale": scale.round(9).tolist()}


def _boxes(bones: list[Bone], vertices: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return vertices (V, 3), faces (F, 3) and bones (V) of a box at each bone; those of feet reach to y = 0."""
    corners = np.array([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)], dtype=float)
    sides = np.array([[0, 1, 3], [0, 3, 2], [4, 6, 7], [4, 7, 5], [0, 4, 5], [0, 5, 1], [2, 3, 7], [2, 7, 6], [0, 2, 6],
                      [0, 6, 4], [1, 5, 7], [1, 7, 3]])  # fmt: skip
    points, faces, joints = [], [], []
    for number, bone in enumerate(bones):
        box = bone.place + corners * 0.03
        if bone.joint.endswith(("ankle", "foot")):
            box[:, 1] = np.where(corners[:, 1] < 0, 0, bone.place[1])
            front = 0.05 if f"{bone.joint[:-5]}foot" in {other.joint for other in bones} else 0.15
            box[:, 2] += np.where(corners[:, 2] > 0, front if bone.joint.endswith("ankle") else 0.05, 0)
            box[:, 2] -= np.where((corners[:, 2] < 0) & bone.joint.endswith("ankle"), 0.03, 0)
        copies = max(1, vertices // 8)
        for _ in range(copies):
            faces.append(sides + 8 * len(points))
            points.append(box)
            joints.append(np.full(8, number))
    return np.concatenate(points), np.concatenate(faces), np.concatenate(joints)


class _Arrays:
    def __init__(self):
        self.data, self.views, self.accessors = bytearray(), [], []

    def add(self, values: np.ndarray, component: int, kind: str) -> int:
        self.data += b"\0" * (-len(self.data) % 4)
        self.views.append({"buffer": 0, "byteOffset": len(self.data), "byteLength": values.nbytes})
        accessor = {"bufferView": len(self.views) - 1, "componentType": component, "count": len(values), "type": kind}
        if kind == "VEC3":
            accessor |= {"min": values.min(axis=0).tolist(), "max": values.max(axis=0).tolist()}
        self.accessors.append(accessor)
        self.data += np.ascontiguousarray(values).tobytes()
        return len(self.accessors) - 1
