"""Read BVH files with any hierarchy, channel order and channel count.

Position channels of every joint are kept (they replace the joint's OFFSET), which motion capture exports use and which
rules out the BVH readers on PyPI at the time of writing.
"""

import re
import warnings
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from motion.source_motion import SourceMotion
from utils.errors import InputError
from utils.reading.files import MB, refusing
from utils.reading.texts import read_text

MAX_BYTES = 512 * MB
MAX_VALUE = 1e9  # degrees or any unit of length; squares of larger values lose all that is small
CHANNELS = {axis + kind for axis in "XYZ" for kind in ("position", "rotation")}


@dataclass
class BvhClip(SourceMotion):
    """A parsed BVH file."""

    notes: list[str] = field(default_factory=list)  # irregularities that do not prevent reading


def read_bvh(path: str | Path) -> BvhClip:
    """Read a BVH file.

    Raises:
        InputError: the file is missing, unreadable, truncated, or holds NaN or no frames.
    """
    path = Path(path)
    hierarchy, motion = _halves(read_text(path, "a BVH file", MAX_BYTES))
    with refusing(path, "a complete BVH file", "export it again"):
        names, parents, offsets, channels, tips = _parse_hierarchy(hierarchy)
        data, frames, fps = _parse_motion(motion)
        width = sum(len(names_of_joint) for names_of_joint in channels)
        notes = []
        if width and data.size > frames * width > 0 and data.size % width == 0:
            notes.append(f"it promises {frames} frames and holds {data.size // width}, all of which are read")
            frames = data.size // width
        if frames < 1 or not width or data.size != frames * width:
            raise InputError(f"it promises {frames} frames of {width} values and holds {data.size} values")
        if frames * len(names) > max(10**6, 4 * data.size):
            raise InputError(f"most of its {len(names)} joints have no channels")
        if not all((np.abs(values) < MAX_VALUE).all() for values in (data, offsets, *tips.values())):
            raise InputError("it holds NaN or infinite values")
        rotations, positions = _apply_channels(data.reshape(frames, width), offsets, channels)
        return BvhClip(names, parents, offsets, rotations, positions, fps, tips, notes)


def bvh_length(path: str | Path) -> tuple[int, float]:
    """Return the number of frames and the frames per second that a BVH file states, without reading its values.

    Raises:
        InputError: the file is missing or unreadable, or does not state them within the first megabyte.
    """
    path = Path(path)
    reading = refusing(path, "a complete BVH file", "export it again")
    with reading, path.open(encoding="utf-8", errors="replace") as file:
        _, frames, fps = _parse_times(_halves(file.read(MB))[1])
    return frames, fps


def _parse_motion(text: str) -> tuple[np.ndarray, int, float]:
    """Values, number of frames and frames per second of the text after MOTION."""
    end, frames, fps = _parse_times(text)
    with warnings.catch_warnings():
        warnings.simplefilter("error", DeprecationWarning)  # text that is not a number
        data = np.fromstring(text[end:], sep=" ")
    return data, frames, fps


def _parse_times(text: str) -> tuple[int, int, float]:
    """Place after Frames and Frame Time in the text after MOTION, number of frames, frames per second."""
    found = re.match(r"\s*Frames\s*:\s*(\S+)\s+Frame\s+Time\s*:\s*(\S+)", text)
    if not found:
        raise InputError("its MOTION has no Frames and Frame Time")
    frames, frame_time = int(found[1]), float(found[2])
    if not 1e-6 < frame_time < 1e6:
        raise InputError(f"its frame time is {frame_time}")
    fps = 1.0 / frame_time
    if abs(fps - round(fps)) < 5e-4 * fps:  # files round the frame time: 0.033333 means 30
        fps = round(fps)
    return found.end(), frames, fps


def _halves(text: str) -> tuple[str, str]:
    """Return the text before and after the line MOTION; a joint may also be called MOTION."""
    found = re.search(r"^[ \t]*MOTION[ \t]*\r?$", text, re.MULTILINE) or re.search(r"\bMOTION\s+(?=Frames)", text)
    return (text[: found.start()], text[found.end() :]) if found else (text, "")


def _parse_hierarchy(text: str):
    """Return names, parents, offsets (J, 3), channel names and end sites {joint: (3)} of the joints."""
    names, parents, offsets, channels, tips, stack, opened = [], [], [], [], {}, [], None
    lines = re.sub(r"([{}])", r"\n\1\n", text).split("\n")  # a joint name may contain spaces and ends with the line
    words = iter([word for line in lines for word in _words(line)])
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
            else:
                tips.setdefault(stack[-2], np.array(offset))
        elif word == "CHANNELS":
            count = int(next(words, ""))
            if not 0 <= count <= len(CHANNELS):
                raise ValueError(f"a joint has {count} channels")
            channels[stack[-1]] = [next(words, "") for _ in range(count)]
    if not names or stack or None in offsets:
        raise ValueError("its HIERARCHY is empty or not closed")
    unknown = sorted(set().union(*channels) - CHANNELS)
    if unknown:
        raise ValueError(f"it has the unknown channels {', '.join(unknown)}")
    return names, parents, np.array(offsets), channels, tips


def _words(line: str) -> list[str]:
    """Return the words of a line of the hierarchy; the name of a joint, which may contain spaces, is one word."""
    words = line.split()
    if len(words) > 2 and words[0] in ("ROOT", "JOINT"):
        return [words[0], " ".join(words[1:])]
    return words


def _apply_channels(data: np.ndarray, offsets: np.ndarray, channels: list[list[str]]) -> tuple[np.ndarray, np.ndarray]:
    """Return local rotations (T, J, 3, 3) and positions (T, J, 3) of channel values (T, C); angles in degrees."""
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
    """Return rotations (T, 3, 3) by ``angle`` (T) radians about x, y or z (axis 0, 1, 2)."""
    matrix = np.zeros((len(angle), 3, 3))
    after, last = (axis + 1) % 3, (axis + 2) % 3
    matrix[:, axis, axis] = 1.0
    matrix[:, after, after] = matrix[:, last, last] = np.cos(angle)
    matrix[:, last, after] = np.sin(angle)
    matrix[:, after, last] = -matrix[:, last, after]
    return matrix
