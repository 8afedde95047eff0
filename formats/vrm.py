"""Humanoid bones that a VRM file names (VRM 0.x and 1.0, VRM animation), which are those of Unity's humanoid."""

from typing import Any

from formats.gltf_file import GltfFile, checked_index
from motion.skeleton import JOINT_NAMES
from utils.errors import InputError

TRUNK = {"hips": "pelvis", "spine": "spine1", "chest": "spine2", "upperChest": "spine3", "neck": "neck", "head": "head"}
LIMBS = {"UpperLeg": "hip", "LowerLeg": "knee", "Foot": "ankle", "Toes": "foot", "Shoulder": "collar",
         "UpperArm": "shoulder", "LowerArm": "elbow", "Hand": "wrist"}  # fmt: skip
EXTENSIONS = ("VRMC_vrm", "VRM", "VRMC_vrm_animation")
JOINTS = TRUNK | {f"{side}{bone}": f"{side}_{joint}" for side in ("left", "right") for bone, joint in LIMBS.items()}


def vrm_nodes(file: GltfFile) -> dict[str, int]:
    """Return the node of each of the 22 joints that a VRM file names; empty for other files.

    Raises:
        InputError: the extension names a node that the file does not have.
    """
    extensions = file.document.get("extensions") or {}
    extension: dict[str, Any] = next((extensions[name] for name in EXTENSIONS if name in extensions), {})
    bones: Any = extension.get("humanoid", {}).get("humanBones", {})
    if isinstance(bones, dict):
        bones = [{"bone": name, **bone} for name, bone in bones.items()]
    if not all(isinstance(bone, dict) for bone in bones):
        raise InputError("its humanoid bones are no list of objects")
    count = len(file.items("nodes"))
    found = {JOINTS[bone["bone"]]: checked_index(bone.get("node"), count, "nodes")
             for bone in bones if bone.get("bone") in JOINTS and bone.get("node") != -1}  # fmt: skip
    return {name: found[name] for name in JOINT_NAMES if name in found}
