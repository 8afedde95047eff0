"""BVH files: reading any hierarchy, and retargeting it to the 22 SMPL-X joints.

The reader keeps position channels on every joint (they replace the joint's OFFSET), which motion capture exports use
and which rules out the BVH readers on PyPI at the time of writing.
"""

import warnings
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import yaml

from motion.resample import resample_positions, resample_rotations
from motion.rotation import slerp
from motion.skeleton import JOINT_INDEX, JOINT_NAMES, JOINTS, PARENTS, REST_OFFSETS
from utils.errors import InputError

AXES = {"L": (1, 0, 0), "R": (-1, 0, 0), "U": (0, 1, 0), "D": (0, -1, 0), "F": (0, 0, 1), "B": (0, 0, -1)}
CHANNELS = {axis + kind for axis in "XYZ" for kind in ("position", "rotation")}
BONE_CHILD = {  # joints whose rest bone is turned onto the source's, with the joint at the bone's other end
    f"{side}_{joint}": f"{side}_{child}"
    for side in ("left", "right")
    for joint, child in (("hip", "knee"), ("knee", "ankle"), ("shoulder", "elbow"), ("elbow", "wrist"))
}


@dataclass
class BvhClip:
    """A parsed file: J joints in file order, T frames, in the file's own length unit and axes."""

    names: list[str]
    parents: list[int]
    offsets: np.ndarray  # (J, 3)
    rotations: np.ndarray  # (T, J, 3, 3) local
    positions: np.ndarray  # (T, J, 3) local, relative to the parent
    fps: float

    def world(self) -> tuple[np.ndarray, np.ndarray]:
        """World rotations (T, J, 3, 3) and positions (T, J, 3)."""
        rotations, positions = self.rotations.copy(), self.positions.copy()
        for joint, parent in enumerate(self.parents):
            if parent >= 0:
                rotations[:, joint] = rotations[:, parent] @ self.rotations[:, joint]
                offset = rotations[:, parent] @ self.positions[:, joint, :, None]
                positions[:, joint] = positions[:, parent] + offset[..., 0]
        return rotations, positions


def read_bvh(path: str | Path) -> BvhClip:
    """Read a BVH file with any hierarchy, channel order and channel count.

    Raises:
        InputError: the file is missing, unreadable, truncated, or holds NaN or no frames.
    """
    path = Path(path)
    try:
        text = path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"{path} cannot be read as a BVH text file ({error}); check the path or export it again"
        ) from error
    hierarchy, _, motion = text.partition("MOTION")
    try:
        names, parents, offsets, channels = _parse_hierarchy(hierarchy)
        count_line, time_line, *values = motion.strip().split("\n", 2)
        frames, frame_time = int(count_line.split(":")[1]), float(time_line.split(":")[1])
        if not 0 < frame_time < np.inf:
            raise ValueError(f"its frame time is {frame_time}")
        with warnings.catch_warnings():
            warnings.simplefilter("error", DeprecationWarning)  # text that is not a number
            data = np.fromstring(values[0], sep=" ") if values else np.empty(0)
    except (ValueError, IndexError, TypeError, DeprecationWarning) as error:
        raise InputError(f"{path} is not a complete BVH file ({error}); export it again") from error
    width = sum(len(names_of_joint) for names_of_joint in channels)
    if frames < 1 or data.size != frames * width:
        raise InputError(
            f"{path} promises {frames} frames of {width} values and holds {data.size} values; export it again"
        )
    if not np.isfinite(data).all():
        raise InputError(f"{path} holds NaN or infinite values; export it again")
    rotations, positions = _apply_channels(data.reshape(frames, width), offsets, channels)
    fps = 1.0 / frame_time
    if abs(fps - round(fps)) < 5e-4 * fps:  # files round the frame time: 0.033333 means 30
        fps = round(fps)
    return BvhClip(names, parents, offsets, rotations, positions, fps)


def _parse_hierarchy(text: str) -> tuple[list[str], list[int], np.ndarray, list[list[str]]]:
    """Names, parents, offsets (J, 3) and channel names of each joint; end sites are left out."""
    names, parents, offsets, channels, stack, opened = [], [], [], [], [], None
    words = iter(text.split())
    for word in words:
        if word in ("ROOT", "JOINT"):
            parents.append(next((joint for joint in reversed(stack) if joint is not None), -1))
            names.append(next(words, ""))
            offsets.append(None)
            channels.append([])
            opened = len(names) - 1
        elif word == "End":
            opened = None
        elif word == "{":
            stack.append(opened)
        elif word == "}":
            stack.pop()
        elif word == "OFFSET":
            offset = [float(next(words, "")) for _ in range(3)]
            if stack[-1] is not None:
                offsets[stack[-1]] = offset
        elif word == "CHANNELS":
            channels[stack[-1]] = [next(words, "") for _ in range(int(next(words, "")))]
    if not names or stack or None in offsets:
        raise ValueError("its HIERARCHY is empty or not closed")
    unknown = sorted(set().union(*channels) - CHANNELS)
    if unknown:
        raise ValueError(f"it has the unknown channels {', '.join(unknown)}")
    return names, parents, np.array(offsets), channels


def _apply_channels(data: np.ndarray, offsets: np.ndarray, channels: list[list[str]]) -> tuple[np.ndarray, np.ndarray]:
    """Local rotations (T, J, 3, 3) and positions (T, J, 3) from the channel values (T, C); angles in degrees."""
    frames = len(data)
    rotations = np.broadcast_to(np.eye(3), (frames, len(channels), 3, 3)).copy()
    positions = np.broadcast_to(offsets, (frames, len(channels), 3)).copy()
    column = 0
    for joint, joint_channels in enumerate(channels):
        for channel in joint_channels:
            axis = "XYZ".index(channel[0])
            if channel.endswith("position"):
                positions[:, joint, axis] = data[:, column]
            else:
                rotations[:, joint] = rotations[:, joint] @ _axis_rotation(axis, np.deg2rad(data[:, column]))
            column += 1
    return rotations, positions


def _axis_rotation(axis: int, angle: np.ndarray) -> np.ndarray:
    """Rotation (T, 3, 3) by ``angle`` (T) radians about x, y or z (axis 0, 1, 2)."""
    matrix = np.zeros((len(angle), 3, 3))
    after, last = (axis + 1) % 3, (axis + 2) % 3
    matrix[:, axis, axis] = 1.0
    matrix[:, after, after] = matrix[:, last, last] = np.cos(angle)
    matrix[:, last, after] = np.sin(angle)
    matrix[:, after, last] = -matrix[:, last, after]
    return matrix


@dataclass
class SkeletonMap:
    """How a BVH hierarchy maps to ours; one YAML file (``configs/data/bandai_skeleton.yaml`` explains the keys).

    joints: for each of the 22 SMPL-X joints the source joint, or two source joints whose orientations are averaged.
    rest_axes: for each source joint, which way its local x, y, z axes point in a T-pose facing +z (L R U D F B),
        optionally with a pitch in degrees about +x. Joints left out: x to the left, y up, z forward.

    The file's length unit does not matter: motion is scaled by leg length.

    Raises:
        InputError: a joint is missing or unknown, or an entry is not of this form.
    """

    joints: dict[str, str | list[str]]
    rest_axes: dict[str, dict] = field(default_factory=dict)

    def __post_init__(self):
        wrong = sorted(set(JOINT_NAMES) ^ set(self.joints))
        if wrong:
            raise InputError(
                f"the skeleton map must name exactly the 22 joints of motion/skeleton.py; check {', '.join(wrong)}"
            )
        self._sources = {name: [entry] if isinstance(entry, str) else entry for name, entry in self.joints.items()}
        for name, entry in self._sources.items():
            if (
                not isinstance(entry, list)
                or len(entry) not in (1, 2)
                or not all(isinstance(part, str) for part in entry)
            ):
                raise InputError(
                    f"the skeleton map gives {entry!r} for {name}; give the name of one source joint, or two"
                )
        self.rest_axes = self.rest_axes or {}  # a key without a value in YAML
        self._rest_rotations = {name: _rest_rotation(name, **entry) for name, entry in self.rest_axes.items()}

    @classmethod
    def from_yaml(cls, path: str | Path) -> "SkeletonMap":
        try:
            return cls(**yaml.safe_load(Path(path).read_text()))
        except (OSError, UnicodeDecodeError, yaml.YAMLError, TypeError, AttributeError) as error:
            reason = " ".join(str(error).split())
            raise InputError(
                f"{path} is not a skeleton map ({reason}); start from configs/data/bandai_skeleton.yaml"
            ) from error

    def rest_rotation(self, source_joint: str) -> np.ndarray:
        """World rotation (3, 3) of a source joint in the T-pose."""
        return self._rest_rotations.get(source_joint, np.eye(3))

    def retarget(self, clip: BvhClip, fps: float) -> tuple[np.ndarray, np.ndarray]:
        """Move a clip onto our skeleton.

        World rotation of joint j: W_j = G_j REST_j^T A_j, with G the file's world rotation, REST its T-pose, and A the
        shortest turn from our rest bone to the file's T-pose bone (hips, knees, shoulders, elbows). The hips' midpoint
        follows the file's, scaled by leg length.

        Returns:
            rotations (T, 22, 3, 3) float32, local, and pelvis (T, 3) float32 in metres, at ``fps`` frames per second.

        Raises:
            InputError: the file lacks a joint that the map names.
        """
        sources = self._sources
        missing = sorted({source for entry in sources.values() for source in entry} - set(clip.names))
        if missing:
            raise InputError(
                f"the file has no joint {', '.join(missing)} (it has {', '.join(clip.names)}); change the skeleton map"
            )
        index = {name: joint for joint, name in enumerate(clip.names)}
        file_rotations, file_positions = clip.world()

        def from_rest(source: str) -> np.ndarray:  # (T, 3, 3): the joint's turn away from the T-pose
            return file_rotations[:, index[source]] @ self.rest_rotation(source).T

        world = np.empty((len(file_rotations), JOINTS, 3, 3))
        for name, entry in sources.items():
            turn = from_rest(entry[0])
            if len(entry) == 2:
                turn = slerp(turn, from_rest(entry[1]), np.full(len(turn), 0.5))
            if name in BONE_CHILD:
                child = sources[BONE_CHILD[name]][0]
                file_bone = self._rest_bone(clip, entry[0], child)
                turn = turn @ shortest_turn(REST_OFFSETS[JOINT_INDEX[BONE_CHILD[name]]], file_bone)
            world[:, JOINT_INDEX[name]] = turn

        local = world.copy()
        for joint in range(1, JOINTS):
            local[:, joint] = world[:, PARENTS[joint]].transpose(0, 2, 1) @ world[:, joint]
        pelvis = self._pelvis(world[:, 0], file_positions, {name: index[entry[0]] for name, entry in sources.items()})
        rotations = resample_rotations(local, clip.fps, fps)
        return rotations.astype(np.float32), resample_positions(pelvis, clip.fps, fps).astype(np.float32)

    def _rest_bone(self, clip: BvhClip, start: str, end: str) -> np.ndarray:
        """Direction (3) from joint ``start`` to its descendant ``end`` in the T-pose, over what joints lie between."""
        bone, joint = np.zeros(3), clip.names.index(end)
        while clip.names[joint] != start:
            parent = clip.parents[joint]
            if parent < 0:
                raise InputError(f"{end} does not hang below {start} in the file; change the skeleton map")
            bone += self.rest_rotation(clip.names[parent]) @ clip.positions[:, joint].mean(axis=0)
            joint = parent
        if np.linalg.norm(bone) < 1e-6:
            raise InputError(f"the bone from {start} to {end} has no length in the file; change the skeleton map")
        return bone

    @staticmethod
    def _pelvis(root: np.ndarray, positions: np.ndarray, source: dict[str, int]) -> np.ndarray:
        """Pelvis (T, 3) such that the midpoint of our hips follows that of the file's, scaled by leg length."""
        ours = file = 0.0
        for side in ("left", "right"):
            for joint, child in (("hip", "knee"), ("knee", "ankle")):
                ends = positions[:, source[f"{side}_{child}"]] - positions[:, source[f"{side}_{joint}"]]
                file += np.linalg.norm(ends, axis=-1).mean()
                ours += np.linalg.norm(REST_OFFSETS[JOINT_INDEX[f"{side}_{child}"]])
        hips = [JOINT_INDEX["left_hip"], JOINT_INDEX["right_hip"]]
        midpoint = positions[:, [source["left_hip"], source["right_hip"]]].mean(axis=1) * (ours / file)
        return midpoint - root @ REST_OFFSETS[hips].mean(axis=0).astype(np.float64)


def _rest_rotation(joint: str, axes: list[str], pitch: float = 0.0) -> np.ndarray:
    """World rotation (3, 3) of a joint whose local axes point so in the T-pose; see ``SkeletonMap.rest_axes``."""
    directions = np.array([AXES.get(letter, (0, 0, 0)) for letter in axes], dtype=np.float64).T  # columns: x, y, z
    if directions.shape != (3, 3) or round(np.linalg.det(directions)) != 1:
        raise InputError(
            f"rest_axes of {joint} are {axes}; name three right-handed axes with the letters {' '.join(AXES)}"
        )
    return _axis_rotation(0, np.deg2rad(np.array([pitch])))[0] @ directions


def shortest_turn(start: np.ndarray, end: np.ndarray) -> np.ndarray:
    """Rotation (3, 3) of least angle that turns direction ``start`` (3) to ``end`` (3); they must not be opposite."""
    start, end = (np.asarray(vector, dtype=np.float64) / np.linalg.norm(vector) for vector in (start, end))
    if start @ end < -0.999:
        raise InputError("a bone of the file points against ours in the T-pose; check rest_axes of the skeleton map")
    cross = np.cross(start, end)
    skew = np.array([[0, -cross[2], cross[1]], [cross[2], 0, -cross[0]], [-cross[1], cross[0], 0]])
    return np.eye(3) + skew + skew @ skew / (1.0 + start @ end)
