"""The bones of a character that move, and the joints that they follow."""

from dataclasses import dataclass

import numpy as np

from characters.bones import Bones
from formats.joint_names import is_twist
from motion.directions import turn_about, unit
from motion.rest_pose import REST, find_rest
from motion.rotation import slerp
from motion.skeleton import JOINT_INDEX, JOINT_NAMES
from motion.source_motion import SourceMotion

UP = np.array([0.0, 1.0, 0.0])
SPINE, NECK = ("pelvis", "spine1", "spine2", "spine3"), ("spine3", "neck")
BESIDE = 0.25  # of the length of a forearm: largest distance of a twist bone from its axis


@dataclass
class Drive:
    """A bone whose world rotation follows one or two of the 22 joints."""

    bone: int
    joints: tuple[int, int]
    share: float  # of the second joint
    rest: np.ndarray  # (3, 3) rotation of the bone where the joints are not rotated
    axis: np.ndarray | None = None  # (3) of the first joint, about which alone the bone follows the second

    def turns(self, world: np.ndarray) -> np.ndarray:
        """Return the world rotations (T, 3, 3) of the bone for those of the 22 joints (T, 22, 3, 3)."""
        lower, upper = (world[:, joint] for joint in self.joints)
        if self.axis is not None:
            angles = twist_angles(lower.swapaxes(-1, -2) @ upper, self.axis)
            return lower @ turn_about(self.axis, self.share * angles) @ self.rest
        joint = lower if self.share == 0 else slerp(lower, upper, np.full(len(world), self.share))
        return joint @ self.rest


def twist_angles(turns: np.ndarray, axis: np.ndarray) -> np.ndarray:
    """Return the twist angles (T) in radians of rotations (T, 3, 3) about a unit vector, without jumps over time."""
    along = np.stack(
        (turns[:, 2, 1] - turns[:, 1, 2], turns[:, 0, 2] - turns[:, 2, 0], turns[:, 1, 0] - turns[:, 0, 1])
    )
    return np.unwrap(2 * np.arctan2(axis @ along, 1 + np.trace(turns, axis1=1, axis2=2)))


def find_drives(rest: SourceMotion, bones: Bones, rest_turns: np.ndarray, rest_places: np.ndarray) -> list[Drive]:
    """Return the bones that move.

    Spines and necks of any number of bones follow the joints of ours. Twist bones of a forearm take their part of the
    twist of the hand. All other bones stay as they are: fingers, face, hair, clothes, twist bones of upper arm and leg.

    Args:
        rest: The skeleton in its rest pose, upright.
        rest_turns: World rotations (J, 3, 3) of the bones in the rest pose.
        rest_places: World positions (J, 3) of the bones in the rest pose.
    """
    turns, places = rest.world()
    constants = find_rest(rest, bones.sources(), turns, places, UP, None, [])

    def drive(bone: int, lower: str, upper: str, share: float) -> Drive:
        constant = next((constants[name, bone] for name in JOINT_NAMES if (name, bone) in constants), np.eye(3))
        return Drive(bone, (JOINT_INDEX[lower], JOINT_INDEX[upper]), share, constant.T @ rest_turns[bone])

    found = [drive(bone, name, name, 0.0) for name, bone in bones.joints.items()]
    for chain, names in ((bones.spine, SPINE), (bones.neck, NECK)):
        for number, bone in enumerate(chain, 1):
            at = number / len(chain) * (len(names) - 1)
            lower = int(at + 1e-9)
            found.append(drive(bone, names[lower], names[min(lower + 1, len(names) - 1)], max(at - lower, 0.0)))
    for side in ("left", "right"):
        elbow, wrist = f"{side}_elbow", f"{side}_wrist"
        constant = constants[elbow, bones.joints[elbow]]
        for bone, share in _twist_bones(rest, bones, side, rest_places):
            joints, axis = (JOINT_INDEX[elbow], JOINT_INDEX[wrist]), unit(REST[wrist])
            found.append(Drive(bone, joints, share, constant.T @ rest_turns[bone], axis))
    return sorted(found, key=lambda each: each.bone)


def _twist_bones(rest: SourceMotion, bones: Bones, side: str, places: np.ndarray) -> list[tuple[int, float]]:
    """Return the bones between elbow and wrist that twist, and their places along the forearm from 0 to 1."""
    elbow, wrist = bones.joints[f"{side}_elbow"], bones.joints[f"{side}_wrist"]
    forearm = places[wrist] - places[elbow]
    length, found = np.linalg.norm(forearm), []
    for bone in range(len(rest.names)):
        path = rest.ancestors(bone)
        is_inside = elbow in path[1:] and wrist not in path
        if is_inside and (bone in rest.ancestors(wrist) or is_twist(rest.names[bone])):
            along = (places[bone] - places[elbow]) @ forearm / length**2
            beside = np.linalg.norm(places[bone] - places[elbow] - along * forearm)
            if 0 < along <= 1 and beside < BESIDE * length:
                found.append((bone, float(along)))
    return found
