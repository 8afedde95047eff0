"""Plausibility check, which detects a wrong up axis, unit, frame rate or skeleton map by impossible motion.

The thresholds are wide: none of 3,013 clips of motion capture and animation was rejected, including cartwheels, rolls,
falls, crawling, swimming and climbing (``python -m benchmarks.retarget`` counts the rejections of a folder).
"""

from typing import NamedTuple

import numpy as np

from motion.resample import FPS
from motion.skeleton import JOINT_INDEX, JOINT_NAMES, REST_OFFSETS, forward_kinematics
from motion.world_axes import up_of_body
from utils.errors import InputError

SIDES = ("left", "right")
UPSIDE_DOWN = 0.1  # metres: the head is lower than both feet by at least this
BENT = 30.0  # degrees: knees and elbows that bend less are not checked
WRONG_WAY = 130.0  # degrees between the actual and the anatomical direction of the bend
WRIST = 85.0  # degrees between hand and forearm
WRIST_TURN = 140.0  # degrees of the whole rotation of the wrist
FLOOR = (-0.5, 1.5)  # metres: level of the lowest joint
SPEED = 20.0  # metres per second of the pelvis
JOINT_SPEED = 40.0  # metres per second of the fastest joint
STRETCH = 0.25  # change of a bone's length
MOST = 0.5  # share of frames
SOME = 0.3
ADVICE = "skip this check with --force"


class Fault(NamedTuple):
    """A fault and the frames in which it occurs."""

    what: str
    frames: np.ndarray  # (T) booleans
    share: float  # share of frames above which the motion is rejected
    advice: str


def check_plausible(rotations: np.ndarray, pelvis: np.ndarray, bones: np.ndarray | None = None) -> None:
    """Raise InputError if the motion is humanly impossible; the message states the reason and the frames.

    Args:
        rotations: Local rotations (T, 22, 3, 3).
        pelvis: Pelvis (T, 3) in metres, y up, at 30 frames per second.
        bones: Lengths (T', N) of the source's limbs per source frame, in any unit.
    """
    rotations, pelvis = rotations.astype(np.float64), pelvis.astype(np.float64)
    joints = forward_kinematics(rotations, pelvis)
    for fault in (*_posture(joints), *_limbs(rotations), *_speeds(joints), *_bones(bones)):
        if fault.frames.mean() > fault.share:
            raise InputError(
                f"{fault.what} in {describe_frames(fault.frames)}, which is implausible; {fault.advice}, or {ADVICE}"
            )


def describe_frames(frames: np.ndarray) -> str:
    """Return number and range of the True frames in (T) booleans: 12 of 45 frames (3 to 20)."""
    numbers = np.flatnonzero(frames)
    return f"{len(numbers)} of {len(frames)} frames ({numbers[0]} to {numbers[-1]})"


def _posture(joints: np.ndarray) -> list[Fault]:
    heights = joints[..., 1]
    feet = heights[:, [JOINT_INDEX[f"{side}_{part}"] for side in SIDES for part in ("ankle", "foot")]]
    below = heights[:, JOINT_INDEX["head"]] < feet.min(axis=1) - UPSIDE_DOWN
    faults = [Fault("the head is below the feet", below, MOST, "give the file's up axis with --up")]
    if (up := up_of_body(joints, "y", [])) != "y":
        lying = np.ones(len(joints), bool)
        faults.append(Fault(f"the person stands along {up} and not upright", lying, MOST, "correct --up"))
    level = float(np.percentile(heights.min(axis=1), 5))
    away = np.full(len(joints), not FLOOR[0] < level < FLOOR[1])
    advice = "give the unit of the file's positions with --units, or its up axis with --up"
    return [*faults, Fault(f"the lowest joint is at {level:.2f} m, far from the floor,", away, MOST, advice)]


def _limbs(rotations: np.ndarray) -> list[Fault]:
    advice = "give or correct the skeleton map with --skeleton"
    faults = []
    for side in SIDES:
        for name, middle, end, forward in (
            ("knee", "knee", "ankle", (0, 0, -1)),
            ("elbow", "elbow", "wrist", (0, 0, 1)),
        ):
            turns = rotations[:, JOINT_INDEX[f"{side}_{middle}"]]
            bone, lower = _rest_bone(f"{side}_{middle}"), turns @ _rest_bone(f"{side}_{end}")
            bent = _degrees(lower @ bone) > BENT
            across = lower - (lower @ bone)[:, None] * bone
            right = np.array(forward) - np.array(forward) @ bone * bone
            wrong = bent & (across @ right < np.cos(np.deg2rad(WRONG_WAY)) * np.linalg.norm(across, axis=-1))
            way = "forward" if name == "knee" else "backward"
            if wrong.sum() > MOST * bent.sum():
                faults.append(Fault(f"the {side} {name} bends {way}", wrong, SOME, advice))
        wrist = rotations[:, JOINT_INDEX[f"{side}_wrist"]]
        hand = wrist @ np.array([1.0 if side == "left" else -1.0, 0, 0])
        bent = _degrees(hand @ _rest_bone(f"{side}_wrist")) > WRIST
        faults.append(Fault(f"the {side} wrist is bent by more than {WRIST:.0f} degrees", bent, MOST, advice))
        turned = _degrees((np.trace(wrist, axis1=1, axis2=2) - 1) / 2) > WRIST_TURN
        faults.append(Fault(f"the {side} wrist is turned by more than {WRIST_TURN:.0f} degrees", turned, MOST, advice))
    return faults


def _speeds(joints: np.ndarray) -> list[Fault]:
    if len(joints) < 2:
        return []
    speeds = np.linalg.norm(np.diff(joints, axis=0), axis=-1) * FPS  # (T - 1, 22)
    advice = "give the file's frame rate with --fps or the unit of its positions with --units"
    fastest = JOINT_NAMES[int(speeds.max(axis=0).argmax())].replace("_", " ")
    return [
        Fault(f"the pelvis moves faster than {SPEED:.0f} m/s", speeds[:, 0] > SPEED, 0, advice),
        Fault(f"the {fastest} moves faster than {JOINT_SPEED:.0f} m/s", speeds.max(axis=1) > JOINT_SPEED, 0.05, advice),
    ]


def _bones(bones: np.ndarray | None) -> list[Fault]:
    if bones is None:
        return []
    off = (np.abs(bones / np.median(bones, axis=0) - 1) > STRETCH).any(axis=1)
    return [Fault("bones change their length by more than a quarter", off, 0.1, "export it without stretching")]


def _rest_bone(name: str) -> np.ndarray:
    offset = REST_OFFSETS[JOINT_INDEX[name]].astype(np.float64)
    return offset / np.linalg.norm(offset)


def _degrees(cos: np.ndarray) -> np.ndarray:
    return np.degrees(np.arccos(np.clip(cos, -1, 1)))
