"""Constraints in JSON and YAML files.

    length: 6
    keyframes:
      - {time: 2, pose: {file: kick.npz, seconds: 1.2}, place: [1, 2], facing: 90}
    pins:
      - {joint: left_hand, from: 3, to: 4, position: [0.4, 1.1, null]}

docs/control.md describes every key. Names of motion files are relative to the file with the constraints.
"""

from collections.abc import Callable, Collection
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from control.constraints import Constraints, Pin, RootPath, Waypoint
from control.poses import Keep, Keyframe, MotionFrames, frames_of_span
from control.values import check_number, check_span, check_time
from formats.clip import read_clip
from motion.clip import Clip
from motion.resample import FPS
from motion.smplx import SMPLX85_WIDTH
from utils.errors import InputError, counted, nearest, shown
from utils.reading.files import MB
from utils.reading.texts import read_json, read_yaml

ReadMotion = Callable[[str], Clip]
MAX_FILE = 4 * MB
MAX_ENTRIES = 1000  # of one kind
SUFFIXES = (".yaml", ".yml", ".json")


def read_constraints(path: Path) -> Constraints:
    """Read a ``.json``, ``.yaml`` or ``.yml`` file.

    Raises:
        InputError: the file, a motion file that it names, or one of its constraints is unusable; the message names it.
    """
    if path.suffix.lower() not in SUFFIXES:
        raise InputError(f"{shown(path, 200)} has no suffix of constraints; give a {', '.join(SUFFIXES)} file")
    value = read_json(path, MAX_FILE) if path.suffix.lower() == ".json" else read_yaml(path, MAX_FILE)
    try:
        return parse_constraints(value, motions_in(path.parent))
    except InputError as error:
        raise InputError(f"{shown(path, 200)}: {error}") from error


def motions_in(folder: Path) -> ReadMotion:
    """Return a function that reads motion files by their names relative to a folder, each of them once."""

    @lru_cache(maxsize=64)
    def read(name: str) -> Clip:
        return read_clip(folder / name)

    return read


def no_files(name: str) -> Clip:
    """Refuse the name of a motion file."""
    raise InputError(f"the motion file {shown(name, 60)} cannot be read here; give the rows of smplx_85 in its place")


def parse_constraints(value: Any, read: ReadMotion = no_files) -> Constraints:
    """Return the constraints of a JSON or YAML value; inverts ``Constraints.to_dict``.

    Args:
        value: mapping with the keys of ``Constraints``.
        read: returns the motion of a file name; by default, files are refused.

    Raises:
        InputError: a key or a value is unusable; the message names it.
    """
    values = _mapping(value, {*_PARSERS, "length"}, "constraints")
    parsed: dict[str, Any] = {
        key: tuple(_entries(values[key], key, parse, read)) if key in _LISTS else _entry(values[key], key, parse, read)
        for key, parse in _PARSERS.items()
        if values.get(key) is not None
    }
    return Constraints(**parsed, length=values.get("length"))


def _entries(value: Any, key: str, parse: Callable, read: ReadMotion) -> list[Any]:
    if not isinstance(value, list):
        raise InputError(f"{key} is {shown(value, 40)}; give a list")
    if len(value) > MAX_ENTRIES:
        raise InputError(f"{key} has {len(value)} entries; give at most {MAX_ENTRIES}")
    return [_entry(entry, f"{key}, entry {number}", parse, read) for number, entry in enumerate(value, 1)]


def _entry(value: Any, where: str, parse: Callable, read: ReadMotion) -> Any:
    try:
        return parse(value, read)
    except InputError as error:
        raise InputError(f"{where}: {error}") from error


def _mapping(value: Any, keys: Collection[str], noun: str, needed: Collection[str] = ()) -> dict[str, Any]:
    """Return a mapping whose keys are known, with those that are needed."""
    if not isinstance(value, dict):
        raise InputError(f"{noun} is {shown(value, 40)}; give a mapping with {', '.join(sorted(keys))}")
    for key in value:
        if key not in keys:
            raise InputError(f"the key {shown(key, 40)} is unknown; {nearest(key, sorted(keys))}")
    for key in needed:
        if value.get(key) is None:
            raise InputError(f"{key} is missing; give {', '.join(needed)}")
    return value


# --- Kinds of constraints


def _keyframe(value: Any, read: ReadMotion) -> Keyframe:
    values = _mapping(value, {"time", "pose", "place", "facing"}, "a keyframe", ("time", "pose"))
    return Keyframe(values["time"], _frames(values["pose"], read, 1, 0.0), **_placed(values))


def _first_or_last(value: Any, read: ReadMotion) -> Keyframe:
    values = _mapping(value, {"pose", "place", "facing"}, "a start or end pose", ("pose",))
    return Keyframe(0.0, _frames(values["pose"], read, 1, 0.0), **_placed(values))


def _keep(value: Any, read: ReadMotion) -> Keep:
    keys = {"from", "to", "motion", "joints", "place", "facing"}
    values = _mapping(value, keys, "a kept span", ("from", "to", "motion"))
    start, end = values["from"], values["to"]
    check_span(start, end)
    joints = values.get("joints", ("full_body",))
    if not isinstance(joints, list | tuple | str):
        raise InputError(f"joints is {shown(joints, 40)}; give a list of joints and groups")
    joints = (joints,) if isinstance(joints, str) else tuple(joints)
    count = frames_of_span(start, end)
    return Keep(start, end, _frames(values["motion"], read, count, start), joints, **_placed(values))


def _pin(value: Any, read: ReadMotion) -> Pin:
    keys = {"joint", "time", "from", "to", "position"}
    values = _mapping(value, keys, "a pin", ("joint", "position"))
    has_span = "from" in values and "to" in values
    if has_span == ("time" in values) or ("from" in values) != ("to" in values):
        raise InputError("give either time, or from and to, in seconds")
    start, end = (values["from"], values["to"]) if has_span else (values["time"], None)
    return Pin(values["joint"], values["position"], start, end)


def _waypoint(value: Any, read: ReadMotion) -> Waypoint:
    values = _mapping(value, {"time", "position", "facing"}, "a waypoint", ("time",))
    return Waypoint(values["time"], values.get("position"), values.get("facing"))


def _path(value: Any, read: ReadMotion) -> RootPath:
    values = _mapping(value, {"points", "kind", "times"}, "a path", ("points",))
    if isinstance(values["points"], list) and len(values["points"]) > MAX_ENTRIES:
        raise InputError(f"the path has {len(values['points'])} points; give at most {MAX_ENTRIES}")
    return RootPath(values["points"], values.get("kind", "polyline"), values.get("times"))


_LISTS: dict[str, Callable[[Any, ReadMotion], Any]] = {
    "keyframes": _keyframe,
    "pins": _pin,
    "waypoints": _waypoint,
    "keep": _keep,
}
_PARSERS = {**_LISTS, "path": _path, "start": _first_or_last, "end": _first_or_last}


# --- Parts of them


def _placed(values: dict[str, Any]) -> dict[str, Any]:
    return {key: values[key] for key in ("place", "facing") if values.get(key) is not None}


def _frames(value: Any, read: ReadMotion, count: int, seconds: float) -> MotionFrames:
    """Return ``count`` frames of ``{file, seconds or frame, digest}``, or the rows of smplx_85 themselves.

    Args:
        value: mapping or list.
        read: returns the motion of a file name.
        count: number of frames.
        seconds: time in the file of the first frame, if neither is given.
    """
    if isinstance(value, list):
        return _given_frames(value, count)
    values = _mapping(value, {"file", "seconds", "frame", "digest"}, "a pose or motion", ("file",))
    if not isinstance(values["file"], str):
        raise InputError(f"file is {shown(values['file'], 40)}; give the name of a motion file")
    if values.get("seconds") is not None and values.get("frame") is not None:
        raise InputError("both seconds and frame are given; leave one out")
    frame = values.get("frame")
    if frame is None:
        time = values.get("seconds", seconds)
        check_time(time)
        frame = int(time * FPS + 0.5)
    elif isinstance(frame, bool) or not isinstance(frame, int):
        raise InputError(f"frame is {shown(frame, 40)}; give a whole number, negative from the end")
    clip = read(values["file"])
    try:
        frames = MotionFrames.of(clip, frame, count, values["file"])
        if values.get("digest") not in (None, frames.digest):
            raise InputError("the file holds another motion than when digest was written; leave digest out to use it")
    except InputError as error:
        raise InputError(f"{shown(values['file'], 100)}: {error}") from error
    return frames


def _given_frames(value: list, count: int) -> MotionFrames:
    rows = value if value and isinstance(value[0], list) else [value]
    widths = sorted({len(row) if isinstance(row, list) else 1 for row in rows})
    if len(rows) != count or widths != [SMPLX85_WIDTH]:
        raise InputError(
            f"the pose has {counted(len(rows), 'row')} of {' or '.join(map(str, widths[:3]))} values; give {count} of "
            f"{SMPLX85_WIDTH} (smplx_85), or {{file, seconds}}"
        )
    for row in rows:
        for number in row:
            check_number(number, "a value of the pose")
    return MotionFrames.given(np.array(rows, dtype=np.float64))
