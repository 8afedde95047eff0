"""Quantities of a motion per frame: heights, distances, speeds, turns, bends and contacts with the floor.

The phrases of the conditions in evaluation/conditions.py measure them. A function takes a ``Performance`` and the
words of its phrase, and returns (T,) values, or (T, J) if the phrase names several joints. Distances are in metres,
angles in degrees and times in seconds.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.ndimage import gaussian_filter1d
from scipy.signal import find_peaks
from scipy.spatial.transform import Rotation

from motion.directions import unit
from motion.resample import FPS
from motion.skeleton import JOINT_INDEX, PARENTS, REST_OFFSETS, forward_kinematics

SIDES = ("left", "right")
SINGLE = {"head": "head", "neck": "neck", "chest": "spine3", "pelvis": "pelvis"}  # word -> joint
PAIRS = {
    "shoulder": "shoulder", "elbow": "elbow", "wrist": "wrist", "hand": "wrist",
    "hip": "hip", "knee": "knee", "ankle": "ankle", "foot": "foot",
}  # fmt: skip
PLURALS = {"feet": "foot"} | {f"{word}s": word for word in PAIRS if word != "foot"}
HINGES = {"elbow": ("shoulder", "wrist"), "knee": ("hip", "ankle")}  # joint -> the joints that it bends between
REST_HIPS = REST_OFFSETS[JOINT_INDEX["left_hip"]] - REST_OFFSETS[JOINT_INDEX["right_hip"]]
REST_HEADING = float(np.arctan2(-REST_HIPS[2], REST_HIPS[0]))  # the hip joints are not exactly side by side
# Height of a joint above the floor in metres, below which the body part touches the floor; 0.15 for the others.
TOUCHES = {"foot": 0.05, "head": 0.2, "pelvis": 0.22, "chest": 0.2}
LEVEL_LEFT = 0.3  # horizontal length of the unit vector across the hips, below which the heading is interpolated
SWING = 0.05  # metres: smaller movements are not counted as swings
STEP = 0.1  # metres: smallest displacement of a foot, or lift, that counts as a step
LIFT = 10.0  # metres per second per metre: weight of the height of a foot in its activity
SWING_ACTIVITY = 0.8  # metres per second: smallest difference of activity between rest and swing
PLACE = 0.5  # metres around the start that count as "in place"


@dataclass(frozen=True, eq=False)
class Performance:
    """A motion to be judged by conditions, at 30 frames per second."""

    joints: np.ndarray
    """(T, 22, 3) metres, y up."""
    floor: float
    """Height of the floor in metres."""

    @classmethod
    def of(cls, joints: np.ndarray) -> "Performance":
        """Judge joints (T, 22, 3) in metres; the floor is the lowest joint, except in the lowest 5 % of the frames."""
        return cls(joints, float(np.quantile(joints[..., 1].min(axis=1), 0.05)))

    def part(self, start: int, end: int) -> "Performance":
        return Performance(self.joints[start:end], self.floor)

    def joint(self, name: str) -> np.ndarray:
        """(T, 3) positions."""
        return self.joints[:, JOINT_INDEX[name]]

    @cached_property
    def heights(self) -> np.ndarray:
        """(T, 22) heights above the floor."""
        return self.joints[..., 1] - self.floor

    @cached_property
    def axes(self) -> np.ndarray:
        """(T, 3, 3) left, up and forward direction of the torso as columns."""
        up = unit(self.joint("neck") - self.joint("pelvis"))
        left = self.joint("left_hip") - self.joint("right_hip")
        left = unit(left - (left * up).sum(axis=1, keepdims=True) * up)
        return np.stack((left, up, np.cross(left, up)), axis=-1)

    @cached_property
    def heading(self) -> np.ndarray:
        """(T,) heading of the hips in radians, without jumps; 0 is +z, left is positive.

        It is the direction across the line of the hips, which is defined while a person crawls, rolls and lies.
        """
        left = unit(self.joint("left_hip") - self.joint("right_hip"))[:, [0, 2]]
        level = np.flatnonzero(np.linalg.norm(left, axis=1) > LEVEL_LEFT)
        if len(level) == 0:
            return np.zeros(len(left))
        angles = np.unwrap(np.arctan2(-left[level, 1], left[level, 0])) - REST_HEADING
        return np.interp(np.arange(len(left)), level, angles)

    def to_heading_frame(self, vectors: np.ndarray) -> np.ndarray:
        """Rotate world vectors (T or fewer, ..., 3) into (left, up, forward) of their frame."""
        heading = self.heading[: len(vectors)].reshape(-1, *[1] * (vectors.ndim - 2))
        sin, cos = np.sin(heading), np.cos(heading)
        x, y, z = np.moveaxis(vectors, -1, 0)
        return np.stack((cos * x - sin * z, y, sin * x + cos * z), axis=-1)

    @cached_property
    def velocity(self) -> np.ndarray:
        """(T - 1, 3) velocity of the pelvis to the left, up and forward."""
        return self.to_heading_frame(np.diff(self.joints[:, 0], axis=0) * FPS)


# --- Words


def joints_of(part: str) -> list[str]:
    """Return the joints that a part names: "left hand" is left_wrist, "both feet" are left_foot and right_foot."""
    word = part.split()[-1]
    if word in SINGLE:
        return [SINGLE[word]]
    joint = PAIRS[PLURALS.get(word, word)]
    sides = [side for side in SIDES if side in part.split()] or SIDES
    return [f"{side}_{joint}" for side in sides]


def indices_of(part: str) -> list[int]:
    return [JOINT_INDEX[name] for name in joints_of(part)]


def along(vectors: np.ndarray, direction: str) -> np.ndarray:
    """Return the component of vectors (..., 3) of a heading frame in a direction."""
    axis, sign = {"left": (0, 1), "right": (0, -1), "forward": (2, 1), "backward": (2, -1)}[direction]
    return sign * vectors[..., axis]


def standing_height(part: str) -> float:
    """Return the height of a joint above the lowest joint in the rest pose, in which the arms point sideways."""
    rest = forward_kinematics(np.eye(3)[None, None].repeat(len(PARENTS), axis=1), np.zeros((1, 3)), REST_OFFSETS)[0]
    return float((rest[indices_of(part), 1] - rest[:, 1].min()).mean())


# --- The body as a whole


def ground_speed(motion: Performance) -> np.ndarray:
    """Ground speed of the pelvis."""
    return np.linalg.norm(motion.velocity[:, [0, 2]], axis=-1)


def speed_along(motion: Performance, direction: str) -> np.ndarray:
    """Speed of the pelvis in a direction of the body."""
    return along(motion.velocity, direction)


def stray(motion: Performance, direction: str) -> np.ndarray:
    """Angle between the mean velocity of the pelvis over the ground and a direction of the body."""
    mean = motion.velocity.mean(axis=0) * [1, 0, 1] if len(motion.velocity) else np.zeros(3)
    length = np.linalg.norm(mean)
    return np.degrees(np.arccos(np.clip(along(mean, direction) / length, -1, 1)))[None] if length else np.full(1, 180.0)


def travelled(motion: Performance, direction: str) -> np.ndarray:
    """Distance covered in a direction of the body, which may turn."""
    return np.concatenate(([0], np.cumsum(along(motion.velocity, direction)) / FPS))


def distance_from_start(motion: Performance) -> np.ndarray:
    """Ground distance of the pelvis from its start."""
    ground = motion.joints[:, 0][:, [0, 2]]
    return np.linalg.norm(ground - ground[0], axis=1)


def turned(motion: Performance, side: str = "") -> np.ndarray:
    """Turn of the heading since the start, to the given side, or else to either side."""
    turn = np.degrees(motion.heading - motion.heading[0])
    return {"left": turn, "right": -turn, "": np.abs(turn)}[side]


def flipped(motion: Performance, way: str) -> np.ndarray:
    """Rotation of the torso about its left-right axis since the start: 360 in a somersault."""
    return (1 if way == "forward" else -1) * _rotated(motion, axis=0)


def wheeled(motion: Performance, side: str = "") -> np.ndarray:
    """Rotation of the torso about its front-back axis since the start: 360 in a cartwheel."""
    rolled = _rotated(motion, axis=2)  # the left side rises
    return {"left": -rolled, "right": rolled, "": np.abs(rolled)}[side]


def _rotated(motion: Performance, axis: int) -> np.ndarray:
    turns = motion.axes[:-1].swapaxes(-1, -2) @ motion.axes[1:]
    steps = Rotation.from_matrix(turns).as_rotvec()[:, axis] if len(turns) else np.zeros(0)
    return np.degrees(np.concatenate(([0], np.cumsum(steps))))


def tilt(motion: Performance) -> np.ndarray:
    """Angle of the torso from the vertical: 0 upright, 90 horizontal, 180 upside down."""
    return np.degrees(np.arccos(np.clip(motion.axes[:, 1, 1], -1, 1)))


def lean(motion: Performance, direction: str) -> np.ndarray:
    """Angle of the torso from the vertical in a direction of the body."""
    up = motion.to_heading_frame(motion.axes[:, :, 1])
    return np.degrees(np.arctan2(along(up, direction), up[:, 1]))


def mean_joint_speed(motion: Performance) -> np.ndarray:
    """Mean speed of all joints in the world."""
    return np.linalg.norm(np.diff(motion.joints, axis=0), axis=-1).mean(axis=1) * FPS


def duration(motion: Performance) -> np.ndarray:
    """Length of the motion."""
    return np.array([len(motion.joints) / FPS])


def steps(motion: Performance) -> np.ndarray:
    """Number of times that a foot is put down, after a lift or at another place."""
    return np.array([float(sum(_steps_of(motion.joint(foot)) for foot in ("left_foot", "right_foot")))])


def _steps_of(path: np.ndarray) -> int:
    """Count the steps of a foot (T, 3): it rests where it is low and slow, compared with the swings before and after.

    Nothing is compared with a fixed speed or the floor, so that sliding feet, running and sloping floors are counted.
    """
    path = gaussian_filter1d(path, 1.5, axis=0, mode="nearest")
    activity = (
        np.linalg.norm(np.gradient(path, axis=0), axis=1) * FPS + LIFT * path[:, 1] if len(path) > 1 else path[:, 1]
    )
    rests, _ = find_peaks(np.append(-activity, -np.inf), prominence=SWING_ACTIVITY)
    count, last = 0, 0
    for rest in rests.tolist():
        moved = np.linalg.norm((path[rest] - path[last])[[0, 2]])
        count += bool(max(moved, path[last : rest + 1, 1].max() - path[rest, 1]) > STEP)
        last = rest
    return count


# --- Parts of the body


def height(motion: Performance, part: str) -> np.ndarray:
    """Height above the floor."""
    return motion.heights[:, indices_of(part)]


def risen(motion: Performance, part: str, verb: str, relative: str | None = None) -> np.ndarray:
    """Height above that of the first frame (rises) or below it (sinks), in the world or relative to the pelvis."""
    heights = height(motion, part)
    if relative:
        heights = heights - motion.heights[:, :1]
    return (heights - heights[0]) * (1 if verb.startswith("rise") else -1)


def offset(motion: Performance, part: str, relation: str, other: str) -> np.ndarray:
    """Distance above, below, in front of, behind or beside another part, as seen by the person."""
    reference = motion.joints[:, indices_of(other)].mean(axis=1, keepdims=True)
    difference = motion.to_heading_frame(motion.joints[:, indices_of(part)] - reference)
    if relation in ("above", "below"):
        return difference[..., 1] * (1 if relation == "above" else -1)
    sides = {"in front of": "forward", "behind": "backward", "left of": "left", "right of": "right"}
    return along(difference, sides[relation])


def distance(motion: Performance, part: str, other: str) -> np.ndarray:
    """Distance from another part."""
    reference = motion.joints[:, indices_of(other)].mean(axis=1, keepdims=True)
    return np.linalg.norm(motion.joints[:, indices_of(part)] - reference, axis=-1)


def part_speed(motion: Performance, part: str) -> np.ndarray:
    """Speed relative to the pelvis, as the mean over two steps."""
    path = motion.joints[:, indices_of(part)] - motion.joints[:, :1]
    return np.linalg.norm(path[2:] - path[:-2], axis=-1) * FPS / 2


def bend(motion: Performance, part: str) -> np.ndarray:
    """Angle by which knees or elbows are bent: 0 is straight. Hips: angle between thigh and torso, 0 in standing."""
    angles = []
    for name in joints_of(part):
        side, _, joint = name.partition("_")
        ends = HINGES.get(joint, ("knee",))
        bones = [motion.joint(f"{side}_{end}") - motion.joint(name) for end in ends]
        first, second = bones if len(bones) == 2 else (bones[0], motion.axes[:, :, 1])
        angles.append(180 - np.degrees(np.arccos(np.clip((unit(first) * unit(second)).sum(axis=-1), -1, 1))))
    return np.stack(angles, axis=1)


def swings(motion: Performance, part: str, axis: str) -> np.ndarray:
    """Number of times that a part moves to and fro relative to the pelvis, by at least 5 cm."""
    path = motion.to_heading_frame(motion.joints[:, indices_of(part)] - motion.joints[:, :1])
    coordinate = {"left and right": 0, "up and down": 1, "forward and backward": 2}[axis]
    reversals = [
        sum(len(find_peaks(values * sign, prominence=SWING)[0]) for sign in (1, -1))
        for values in path[..., coordinate].T
    ]
    return np.array([[count // 2 for count in reversals]], dtype=float)


# --- States, (T,) or (T, J) booleans


def touches(motion: Performance, part: str) -> np.ndarray:
    """Whether a part is on the floor; a foot with its toes or its heel."""
    names = joints_of(part)
    heights = np.stack([motion.heights[:, JOINT_INDEX[name]] for name in names], axis=1)
    word = part.split()[-1]
    word = PLURALS.get(word, word)
    if word == "foot":
        heels = [motion.heights[:, JOINT_INDEX[name.replace("foot", "ankle")]] for name in names]
        heights = np.minimum(heights, np.stack(heels, axis=1) - standing_height("ankle"))
    return heights < TOUCHES.get(word, 0.15)


def in_air(motion: Performance, part: str) -> np.ndarray:
    """Whether a part is off the floor."""
    return ~touches(motion, part)


def torso_is(motion: Performance, state: str) -> np.ndarray:
    """Whether the torso is upright (within 30 degrees), horizontal (within 30 degrees) or upside down (over 120)."""
    angle = tilt(motion)
    return {"upright": angle < 30, "horizontal": np.abs(angle - 90) < 30, "upside down": angle > 120}[state]


def chest_faces(motion: Performance, face: str) -> np.ndarray:
    """Whether the chest faces up, as on the back, or down, as on all fours (within 45 degrees)."""
    return motion.axes[:, 1, 2] * (1 if face == "up" else -1) > np.sqrt(0.5)


def stays(motion: Performance) -> np.ndarray:
    """Whether the pelvis is within 50 cm of its start, seen from above."""
    return distance_from_start(motion) < PLACE
