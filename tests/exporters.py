"""BVH files as 15 programs write them: our motion under their names, zero poses, axes, units and channel orders.

A source joint turns as G = A W C^T: W is the world rotation of our joint, A turns our axes to the file's, and C holds
our bones in the joint's local axes, so that the zero pose (all G = 1) shows the bones C b. The right answer is the
motion that went in.
"""

import warnings
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from scipy.spatial.transform import Rotation

from motion.resample import FPS, resample_positions, resample_rotations
from motion.skeleton import JOINT_INDEX, JOINT_NAMES, PARENTS, REST_OFFSETS

SIDES = ("left", "right")
CHILDREN = {name: [JOINT_NAMES[child] for child, parent in enumerate(PARENTS) if parent == JOINT_INDEX[name]]
            for name in JOINT_NAMES}  # fmt: skip
TIPS = {"head": (0, 0.18, 0), "left_wrist": (0.17, 0, 0), "right_wrist": (-0.17, 0, 0), "left_foot": (0, 0, 0.06),
        "right_foot": (0, 0, 0.06)}  # fmt: skip
Y_UP, Z_UP = np.eye(3), Rotation.from_euler("x", 90, degrees=True).as_matrix()
FACING_BACK = np.diag([-1.0, 1.0, -1.0])
Frames = Callable[[str, np.ndarray], np.ndarray]  # our joint, its world rotations (T, 3, 3) -> pose (3, 3)


@dataclass(frozen=True)
class Exporter:
    """The conventions of one program."""

    names: Callable[[str], str]  # our joint -> its name
    frames: Frames  # our joint -> C (3, 3), before the turn of the world
    world: np.ndarray = field(default_factory=lambda: Y_UP)  # A
    unit: float = 100.0  # units per metre
    order: str = "ZXY"
    fps: float = 30.0
    above: tuple[str, ...] = ()  # joints above the pelvis
    twists: dict[str, str] = field(default_factory=dict)  # our joint -> joint in the middle of its bone
    fingers: bool = False
    tips: bool = True
    positions_everywhere: bool = False
    offset: float = 0.0  # metres: height that the root's OFFSET holds; positions are relative to it
    leading_pose: bool = False  # the first frame is the zero pose


def t_pose(name: str, turns: np.ndarray) -> np.ndarray:
    return np.eye(3)


def arms_at(degrees: float) -> Frames:
    """Arms hang by so many degrees below the T-pose."""

    def frames(name: str, turns: np.ndarray) -> np.ndarray:
        side, _, joint = name.partition("_")
        if joint not in ("shoulder", "elbow", "wrist"):
            return np.eye(3)
        return Rotation.from_euler("z", -degrees if side == "left" else degrees, degrees=True).as_matrix()

    return frames


def first_frame(name: str, turns: np.ndarray) -> np.ndarray:
    return turns[0]


def along(axis: str) -> Frames:
    """Limbs, spine and head along a local axis, turned there from their direction in the T-pose by the shortest way."""
    end = np.eye(3)["xyz".index(axis)]

    def frames(name: str, turns: np.ndarray) -> np.ndarray:
        if name == "pelvis":
            return np.eye(3)
        _, _, joint = name.rpartition("_")
        side = 1 if name.startswith("left") else -1
        start = np.array(
            {"hip": (0, -1, 0), "knee": (0, -1, 0), "ankle": (0, -5 / 13, 12 / 13), "foot": (0, -5 / 13, 12 / 13)}.get(
                joint, (0, 1, 0) if joint == name else (side, 0, 0)
            )
        )
        if start @ end < -0.99:
            return np.diag([-1.0, -1.0, 1.0])
        return Rotation.align_vectors([end, np.cross(start, end)], [start, np.cross(start, end)])[0].as_matrix() if (
            start @ end < 0.99) else np.eye(3)  # fmt: skip

    return frames


def axes(**letters: str) -> Frames:
    """Local axes x, y and z point left, up, forward, ... (L R U D F B) in the T-pose, by joint and side."""
    directions = {"L": (1, 0, 0), "R": (-1, 0, 0), "U": (0, 1, 0), "D": (0, -1, 0), "F": (0, 0, 1), "B": (0, 0, -1)}

    def frames(name: str, turns: np.ndarray) -> np.ndarray:
        word = letters.get(name) or letters.get(name.rpartition("_")[2]) or letters["trunk"]
        return np.array([directions[letter] for letter in word], dtype=float)

    return frames


def names(trunk: str, arm: str, leg: str) -> Callable[[str], str]:
    """Names of pelvis, spine (3), neck and head, and of arms and legs outward with {Side}, {side}, {S} or {s}."""
    table = dict(zip(("pelvis", "spine1", "spine2", "spine3", "neck", "head"), trunk.split("|"), strict=True))
    for side in SIDES:
        letters = {"Side": side.title(), "side": side, "S": side[0].upper(), "s": side[0]}
        for parts, joints in ((arm, ("collar", "shoulder", "elbow", "wrist")), (leg, ("hip", "knee", "ankle", "foot"))):
            for joint, part in zip(joints, parts.split("|"), strict=True):
                table[f"{side}_{joint}"] = part.format(**letters)
    return table.__getitem__


MIXAMO = names(
    "mixamorig:Hips|mixamorig:Spine|mixamorig:Spine1|mixamorig:Spine2|mixamorig:Neck|mixamorig:Head",
    "mixamorig:{Side}Shoulder|mixamorig:{Side}Arm|mixamorig:{Side}ForeArm|mixamorig:{Side}Hand",
    "mixamorig:{Side}UpLeg|mixamorig:{Side}Leg|mixamorig:{Side}Foot|mixamorig:{Side}ToeBase",
)
PLAIN = names(
    "Hips|Spine|Spine1|Spine2|Neck|Head",
    "{Side}Shoulder|{Side}Arm|{Side}ForeArm|{Side}Hand",
    "{Side}UpLeg|{Side}Leg|{Side}Foot|{Side}ToeBase",
)
CHARACTER = names(
    "Character1_Hips|Character1_Spine|Character1_Spine1|Character1_Spine2|Character1_Neck|Character1_Head",
    "Character1_{Side}Shoulder|Character1_{Side}Arm|Character1_{Side}ForeArm|Character1_{Side}Hand",
    "Character1_{Side}UpLeg|Character1_{Side}Leg|Character1_{Side}Foot|Character1_{Side}ToeBase",
)
UNREAL = names(
    "pelvis|spine_01|spine_02|spine_03|neck_01|head",
    "clavicle_{s}|upperarm_{s}|lowerarm_{s}|hand_{s}",
    "thigh_{s}|calf_{s}|foot_{s}|ball_{s}",
)
UNITY = names(
    "Hips|Spine|Chest|UpperChest|Neck|Head",
    "Shoulder_{S}|UpperArm_{S}|LowerArm_{S}|Hand_{S}",
    "UpperLeg_{S}|LowerLeg_{S}|Foot_{S}|Toes_{S}",
)
XSENS = names(
    "Hips|Chest|Chest2|Chest3|Neck|Head",
    "{Side}Collar|{Side}Shoulder|{Side}Elbow|{Side}Wrist",
    "{Side}Hip|{Side}Knee|{Side}Ankle|{Side}Toe",
)
SMPLX = names(
    "m_avg_Pelvis|m_avg_Spine1|m_avg_Spine2|m_avg_Spine3|m_avg_Neck|m_avg_Head",
    "m_avg_{S}_Collar|m_avg_{S}_Shoulder|m_avg_{S}_Elbow|m_avg_{S}_Wrist",
    "m_avg_{S}_Hip|m_avg_{S}_Knee|m_avg_{S}_Ankle|m_avg_{S}_Foot",
)
SOMA = names(
    "Hips|Spine1|Spine2|Chest|Neck1|Head",
    "{Side}Shoulder|{Side}Arm|{Side}ForeArm|{Side}Hand",
    "{Side}Leg|{Side}Shin|{Side}Foot|{Side}ToeBase",
)
VRM = names(
    "J_Bip_C_Hips|J_Bip_C_Spine|J_Bip_C_Chest|J_Bip_C_UpperChest|J_Bip_C_Neck|J_Bip_C_Head",
    "J_Bip_{S}_Shoulder|J_Bip_{S}_UpperArm|J_Bip_{S}_LowerArm|J_Bip_{S}_Hand",
    "J_Bip_{S}_UpperLeg|J_Bip_{S}_LowerLeg|J_Bip_{S}_Foot|J_Bip_{S}_ToeBase",
)
BIPED = names(
    "Bip01 Pelvis|Bip01 Spine|Bip01 Spine1|Bip01 Spine2|Bip01 Neck|Bip01 Head",
    "Bip01 {S} Clavicle|Bip01 {S} UpperArm|Bip01 {S} Forearm|Bip01 {S} Hand",
    "Bip01 {S} Thigh|Bip01 {S} Calf|Bip01 {S} Foot|Bip01 {S} Toe0",
)
RIGIFY = names(
    "DEF-spine|DEF-spine.001|DEF-spine.002|DEF-spine.003|DEF-neck|DEF-head",
    "DEF-shoulder.{S}|DEF-upper_arm.{S}|DEF-forearm.{S}|DEF-hand.{S}",
    "DEF-thigh.{S}|DEF-shin.{S}|DEF-foot.{S}|DEF-toe.{S}",
)
ASF = names(
    "root|lowerback|upperback|thorax|lowerneck|head",
    "{s}clavicle|{s}humerus|{s}radius|{s}wrist",
    "{s}femur|{s}tibia|{s}foot|{s}toes",
)
LAFAN = axes(trunk="UFL", pelvis="UFL", collar="LBU", shoulder="LBU", elbow="LBU", wrist="LBU",
             right_collar="RBD", right_shoulder="RBD", right_elbow="RBD", right_wrist="RBD",
             hip="DFR", knee="DFR", ankle="FUR", foot="FUR")  # fmt: skip
BANDAI = axes(trunk="UFL", pelvis="URF", collar="LUF", shoulder="LUF", elbow="LUF", wrist="LUF",
              right_collar="LDB", right_shoulder="LDB", right_elbow="LDB", right_wrist="LDB",
              hip="DLF", knee="DLF", right_hip="ULB", right_knee="ULB", ankle="FLU", right_ankle="BLD",
              foot="FLU", right_foot="BLD")  # fmt: skip

EXPORTERS = {
    "blender": Exporter(SMPLX, t_pose, Z_UP, 1.0, "XYZ", positions_everywhere=True),
    "mixamo": Exporter(MIXAMO, t_pose, Y_UP, 100.0, "ZXY", fingers=True),
    "cmu": Exporter(ASF, arms_at(20), Y_UP, 17.7, "ZYX", fps=120),
    "lafan": Exporter(PLAIN, LAFAN, Y_UP, 100.0, "ZYX", tips=False),
    "rokoko": Exporter(PLAIN, along("x"), Y_UP, 100.0, "YXZ", above=("Root",), fps=60),
    "xsens": Exporter(XSENS, t_pose, Y_UP, 100.0, "YXZ", fps=60, leading_pose=True),
    "motionbuilder": Exporter(CHARACTER, t_pose, Y_UP, 100.0, "XYZ", above=("Reference",),
                              twists={f"{side}_{joint}": f"Character1_{side.title()}{bone}Roll" for side in SIDES
                                      for joint, bone in (("shoulder", "Arm"), ("elbow", "ForeArm"), ("hip", "UpLeg"),
                                                          ("knee", "Leg"))}),
    "unreal": Exporter(UNREAL, arms_at(50), Z_UP @ FACING_BACK, 100.0, "ZYX", above=("root",), fingers=True),
    "unity": Exporter(UNITY, BANDAI, Y_UP, 100.0, "ZXY", above=("joint_Root",), tips=False),
    "vicon": Exporter(PLAIN, arms_at(90), Z_UP, 1000.0, "XYZ", fps=90),
    "smplx": Exporter(SMPLX, first_frame, Y_UP, 1.0, "ZYX"),
    "soma": Exporter(SOMA, arms_at(45), Y_UP, 100.0, "ZYX", above=("Root",), offset=0.95),
    "vrm": Exporter(VRM, t_pose, FACING_BACK, 1.0, "YZX", offset=0.9),
    "biped": Exporter(BIPED, along("x"), Z_UP, 39.37, "ZXY", above=("Bip01",)),
    "rigify": Exporter(RIGIFY, along("y"), Z_UP, 1.0, "XZY", positions_everywhere=True,
                       twists={"left_elbow": "DEF-forearm.L.001", "right_elbow": "DEF-forearm.R.001"}),
}  # fmt: skip


def world_rotations(rotations: np.ndarray) -> np.ndarray:
    """World rotations (T, 22, 3, 3) of local ones."""
    world = rotations.astype(np.float64).copy()
    for joint in range(1, len(PARENTS)):
        world[:, joint] = world[:, PARENTS[joint]] @ rotations[:, joint]
    return world


def write_exported(path, exporter: Exporter, rotations: np.ndarray, pelvis: np.ndarray) -> None:
    """Write local rotations (T, 22, 3, 3) and pelvis (T, 3) at 30 frames per second as the program would."""
    world = world_rotations(resample_rotations(rotations, FPS, exporter.fps))
    pelvis = resample_positions(pelvis, FPS, exporter.fps)
    turns = {name: exporter.world @ exporter.frames(name, world[:, joint]) for joint, name in enumerate(JOINT_NAMES)}
    if exporter.frames is LAFAN or exporter.frames is BANDAI or exporter.frames.__qualname__.startswith("along"):
        turns = {name: exporter.frames(name, world[:, joint]) for joint, name in enumerate(JOINT_NAMES)}
    source = {name: exporter.world @ world[:, joint] @ turns[name].T for joint, name in enumerate(JOINT_NAMES)}
    lines, columns, unit = ["HIERARCHY"], [], exporter.unit

    def joint_lines(name: str, offset: np.ndarray, turn: np.ndarray, place: np.ndarray | None) -> None:
        lines.extend([f"{'JOINT' if columns else 'ROOT'} {name}", "{", f"OFFSET {numbers(offset)}"])
        channels = [f"{axis}position" for axis in "XYZ"] if place is not None else []
        channels += [f"{axis}rotation" for axis in exporter.order]
        lines.append(f"CHANNELS {len(channels)} {' '.join(channels)}")
        if place is not None:
            columns.append(place)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # gimbal lock: one of many equal solutions will do
            columns.append(Rotation.from_matrix(turn).as_euler(exporter.order, degrees=True))

    def visit(name: str, above: np.ndarray) -> int:
        """Write a joint and those below; ``above`` are the world rotations of the joint above. Returns braces."""
        parent = JOINT_NAMES[PARENTS[JOINT_INDEX[name]]] if name != "pelvis" else None
        offset, opened = np.zeros(3), 1
        if parent:
            offset = turns[parent] @ REST_OFFSETS[JOINT_INDEX[name]] * unit
            if parent in exporter.twists:
                joint_lines(exporter.twists[parent], offset / 2, np.tile(np.eye(3), (len(world), 1, 1)), None)
                offset, opened = offset / 2, 2
        place = np.tile(offset, (len(world), 1)) if parent and exporter.positions_everywhere else None
        if not parent:
            place = pelvis @ exporter.world.T * unit
            offset = exporter.world @ np.array([0, exporter.offset, 0]) * unit
            place = place - offset
        joint_lines(exporter.names(name), offset, above.transpose(0, 2, 1) @ source[name], place)
        for child in CHILDREN[name]:
            lines.extend(["}"] * visit(child, source[name]))
        if exporter.fingers and name.endswith("wrist"):
            for number, spread in enumerate((-0.03, 0.0, 0.03)):
                finger = turns[name] @ (np.array(TIPS[name]) / 2 + [0, 0, spread]) * unit
                joint_lines(
                    f"{exporter.names(name)}Finger{number}", finger, np.tile(np.eye(3), (len(world), 1, 1)), None
                )
                lines.extend(["End Site", "{", f"OFFSET {numbers(finger / 2)}", "}", "}"])
        elif not CHILDREN[name]:
            tip = turns[name] @ np.array(TIPS[name]) * unit if exporter.tips else np.zeros(3)
            lines.extend(["End Site", "{", f"OFFSET {numbers(tip)}", "}"])
        return opened

    for name in exporter.above:
        joint_lines(name, np.zeros(3), np.tile(np.eye(3), (len(world), 1, 1)), None)
    opened = visit("pelvis", np.tile(np.eye(3), (len(world), 1, 1))) + len(exporter.above)
    lines.extend(["}"] * opened)
    rows = np.concatenate(columns, axis=1)
    if exporter.leading_pose:
        zero = rows[0] * 0
        zero[:3] = rows[0, :3]
        rows = np.concatenate((zero[None], rows))
    lines += ["MOTION", f"Frames: {len(rows)}", f"Frame Time: {1 / exporter.fps:.7f}", *map(numbers, rows)]
    path.write_text("\n".join(lines) + "\n")


def numbers(values: np.ndarray) -> str:
    return " ".join(f"{value:.6f}" for value in values)
