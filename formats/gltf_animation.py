"""Animations of a glTF file as motion of its skeleton."""

from pathlib import Path
from typing import Any

import numpy as np
from scipy.spatial.transform import Rotation, Slerp

from formats.fbx import read_scene
from formats.gltf import Nodes, Skeleton, read_accessor, read_nodes, read_skeleton
from formats.gltf_file import ADVICE, GltfFile, whole
from formats.import_options import check_length
from formats.vrm import vrm_nodes
from motion.directions import nearest_rotation
from motion.resample import FPS
from motion.source_motion import SourceMotion
from utils.errors import InputError, shown
from utils.reading.files import refusing

MAX_POSES = 2**22  # frames times bones
WIDTH = {"translation": 3, "rotation": 4, "scale": 3}
PART = {"LINEAR": 1, "STEP": 1, "CUBICSPLINE": 3}  # values per key


def read_gltf_motion(path: str | Path, animation: str | None = None) -> tuple[SourceMotion, dict[str, int]]:
    """Read an animation as motion of the skeleton, sampled at 30 frames per second.

    The local axes of every joint are those of the world in the rest pose, so that the zero pose is the rest pose.

    Args:
        path: ``.glb``, ``.gltf``, ``.vrm``, ``.vrma`` or ``.fbx``.
        animation: Name of the animation; None reads the only one.

    Returns:
        The motion, and the joints that a VRM file names, by the names of the 22 joints.

    Raises:
        InputError: the file cannot be read, has no such animation, or one that is damaged or too long.
    """
    file = read_scene(path)
    chosen = _chosen(file, animation)
    with refusing(Path(path), "motion in glTF", ADVICE):
        nodes, humanoid = read_nodes(file), vrm_nodes(file)
        joints = None if file.items("skins") else list(humanoid.values()) or list(range(len(nodes.names)))
        skeleton = read_skeleton(file, nodes, joints)
        moves, turns, scales = _sampled(file, nodes, chosen, len(skeleton.nodes))
        motion = _of_skeleton(skeleton, nodes, moves, turns, scales)
        number = {node: bone for bone, node in enumerate(skeleton.nodes)}
        return motion, {name: number[node] for name, node in humanoid.items() if node in number}


def _chosen(file: GltfFile, name: str | None) -> dict[str, Any]:
    """Return the animation of a name, or the only one."""
    animations = file.items("animations")
    if not animations:
        raise InputError("it has no animation; give a file with one, or the character to visualize.export --character")
    names = [str(animation.get("name") or number) for number, animation in enumerate(animations)]
    listed = ", ".join(shown(each, 40) for each in names[:8]) + (" ..." if len(names) > 8 else "")
    if name is None and len(animations) > 1:
        raise InputError(f"it has {len(animations)} animations ({listed}); choose one with --animation")
    if name is not None and name not in names:
        raise InputError(f"it has no animation {shown(name, 40)!r}, and has {listed}")
    return animations[names.index(name) if name is not None else 0]


def _sampled(file: GltfFile, nodes: Nodes, animation: dict[str, Any], bones: int):
    """Return translations, rotations (quaternions) and scales of the animated nodes: {node: (T, width)} each."""
    samplers = animation.get("samplers", [])
    tracks = {}
    for channel in animation.get("channels", []):
        target = channel.get("target", {})
        node, path = target.get("node"), target.get("path")
        if path not in WIDTH or not isinstance(node, int) or not 0 <= node < len(nodes.names):
            continue  # blend shapes, and extensions
        sampler = samplers[whole(channel.get("sampler"), "a sampler")]
        tracks[node, path] = _keys(file, sampler, WIDTH[path])
    if not tracks:
        raise InputError("its animation moves no bone")
    start = min(times[0] for times, _, _ in tracks.values())
    end = max(times[-1] for times, _, _ in tracks.values())
    check_length(int((end - start) * FPS) + 1, FPS)
    frames = start + np.arange(int((end - start) * FPS + 1e-3) + 1) / FPS
    if len(frames) * bones > MAX_POSES:
        raise InputError(f"its animation has {len(frames)} frames of {bones} bones, more than are read")
    found: dict[str, dict[int, np.ndarray]] = {path: {} for path in WIDTH}
    for (node, path), track in tracks.items():
        found[path][node] = _interpolated(*track, frames, is_rotation=path == "rotation")
    return found["translation"], found["rotation"], found["scale"]


def _keys(file: GltfFile, sampler: dict[str, Any], width: int) -> tuple[np.ndarray, np.ndarray, str]:
    """Return times (K), values (K, parts, width) and interpolation of a sampler."""
    kind = sampler.get("interpolation", "LINEAR")
    if kind not in PART:
        raise InputError(f"its animation has the interpolation {shown(kind, 20)}")
    times = read_accessor(file, sampler.get("input")).astype(np.float64)[:, :1].reshape(-1)
    values = read_accessor(file, sampler.get("output")).astype(np.float64)
    if not len(times) or (np.diff(times) < 0).any() or np.abs(times).max() > 1e7:
        raise InputError("its animation has no keys, or keys whose times do not increase")
    if values.shape != (len(times) * PART[kind], width):
        raise InputError(f"its animation has {len(times)} keys and {len(values)} values of width {values.shape[1]}")
    return times, values.reshape(len(times), PART[kind], width), kind


def _interpolated(times: np.ndarray, values: np.ndarray, kind: str, at: np.ndarray, is_rotation: bool) -> np.ndarray:
    """Return the values (T, width) at the times ``at``."""
    at = np.clip(at, times[0], times[-1])
    after = np.clip(np.searchsorted(times, at, side="right"), 1, max(1, len(times) - 1))
    before, after = after - 1, np.minimum(after, len(times) - 1)
    span = times[after] - times[before]
    share = np.where(span > 0, (at - times[before]) / np.where(span > 0, span, 1), 0)[:, None]  # (T, 1)
    if kind == "STEP":
        return values[np.where(share[:, 0] >= 1, after, before), 0]
    if kind == "CUBICSPLINE":  # in-tangent, value, out-tangent
        start, end, span = values[before, 1], values[after, 1], span[:, None]
        found = (2 * share**3 - 3 * share**2 + 1) * start + (3 * share**2 - 2 * share**3) * end
        found += span * (
            (share**3 - 2 * share**2 + share) * values[before, 2] + (share**3 - share**2) * values[after, 0]
        )
        return found
    if not is_rotation or len(times) == 1:
        return values[before, 0] * (1 - share) + values[after, 0] * share
    distinct = np.r_[True, np.diff(times) > 0]
    turns = Rotation.from_quat(_checked(values[distinct, 0]))
    return Slerp(times[distinct], turns)(at).as_quat() if distinct.sum() > 1 else values[before, 0]


def _checked(quaternions: np.ndarray) -> np.ndarray:
    if np.linalg.norm(quaternions, axis=-1).min() < 1e-6:
        raise InputError("its animation holds a rotation of length zero")
    return quaternions


def _of_skeleton(skeleton: Skeleton, nodes: Nodes, moves: dict, turns: dict, scales: dict) -> SourceMotion:
    """Return the motion of a skeleton whose nodes have these translations, rotations and scales over time."""
    frames = next(len(values) for part in (moves, turns, scales) for values in part.values())
    linear = np.empty((frames, len(skeleton.nodes), 3, 3))
    places = np.empty((frames, len(skeleton.nodes), 3))
    for bone, (node, parent) in enumerate(zip(skeleton.nodes, skeleton.parents, strict=True)):
        turn = Rotation.from_quat(_checked(turns.get(node, nodes.rotations[[node]]))).as_matrix()
        local = turn * scales.get(node, nodes.scales[[node]])[:, None]
        place = moves.get(node, nodes.translations[[node]])
        if parent >= 0:
            linear[:, bone] = linear[:, parent] @ local
            places[:, bone] = places[:, parent] + (linear[:, parent] @ place[..., None])[..., 0]
        else:
            linear[:, bone], places[:, bone] = local, place
    world = _rotations(linear) @ skeleton.turns(skeleton.rest).swapaxes(-1, -2)
    local_turns, local_places = world.copy(), places.copy()
    for bone, parent in enumerate(skeleton.parents):
        if parent >= 0:
            local_turns[:, bone] = world[:, parent].swapaxes(-1, -2) @ world[:, bone]
            step = (places[:, bone] - places[:, parent])[:, None] @ world[:, parent]
            local_places[:, bone] = step[:, 0]
    offsets = local_places.mean(axis=0)
    return SourceMotion(skeleton.names, skeleton.parents, offsets, local_turns, local_places, float(FPS))


def _rotations(linear: np.ndarray) -> np.ndarray:
    """Return the rotations (..., 3, 3) of matrices without shear, or the nearest to others."""
    turns = linear / np.maximum(np.linalg.norm(linear, axis=-2, keepdims=True), 1e-30)
    off = np.abs(turns.swapaxes(-1, -2) @ turns - np.eye(3)).max(axis=(-1, -2)) > 1e-6
    off |= np.linalg.det(turns) < 0
    turns[off] = nearest_rotation(linear[off])
    return turns
