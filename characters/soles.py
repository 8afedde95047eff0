"""The soles of a character: the points of its feet that touch the floor in the rest pose."""

from typing import NamedTuple

import numpy as np

from characters.bones import Bones
from formats.gltf_mesh import MeshPart

FLAT = 0.015  # metres above the lowest point of a foot up to which it is sole
DIRECTIONS = 8  # sole points are the outermost in this number of directions
UNDER_ANKLE = 0.075  # metres: height of the ankle of SMPL-X, for a character without meshes and toes


class Soles(NamedTuple):
    """Points of one foot that move with the ankle or the toes, in the local axes of the bone; metres."""

    bones: np.ndarray  # (P,)
    points: np.ndarray  # (P, 3)
    height: float  # of the ankle above the sole, in the rest pose

    def places(self, turns: np.ndarray, places: np.ndarray) -> np.ndarray:
        """Return world positions (T, P, 3) for world rotations (T, J, 3, 3) and positions (T, J, 3) of the bones."""
        return (turns[:, self.bones] @ self.points[..., None])[..., 0] + places[:, self.bones]


def find_soles(
    parts: list[MeshPart],
    parents: list[int],
    bones: Bones,
    frame: tuple[np.ndarray, float],
    rest: tuple[np.ndarray, np.ndarray],
) -> dict[str, Soles]:
    """Return the soles of both feet, from the meshes, or from the bones if there are none.

    Args:
        frame: Axes (3, 3) and scale of the character; see ``Character``.
        rest: World rotations (J, 3, 3) and positions (J, 3) in the rest pose.
    """
    turns, places = rest
    found = {}
    for side in ("left", "right"):
        ankle = bones.joints[f"{side}_ankle"]
        toes = bones.joints.get(f"{side}_foot", ankle)
        groups = {bone: _below(parents, bone) for bone in {ankle, toes}}
        groups[ankle] -= groups[toes] if toes != ankle else set()
        points = {bone: _lowest(_vertices(parts, group, *frame)) for bone, group in groups.items()}
        lowest = min((each[:, 1].min() for each in points.values() if len(each)), default=None)
        if lowest is None:
            points = _under_bones(groups, places, ankle)
        else:  # the arch of a foot is no sole
            points = {bone: each[each[:, 1] < lowest + 2 * FLAT] for bone, each in points.items()}
        owners = np.concatenate([np.full(len(each), bone) for bone, each in points.items()]).astype(int)
        world = np.concatenate(list(points.values()))
        local = ((world - places[owners])[:, None] @ turns[owners])[:, 0]
        found[side] = Soles(owners, local, float(places[ankle, 1] - world[:, 1].min()))
    return found


def _below(parents: list[int], top: int) -> set[int]:
    """Return a bone and all bones below it."""
    found = {top}
    for bone, parent in enumerate(parents):
        if parent in found:
            found.add(bone)
    return found


def _vertices(parts: list[MeshPart], group: set[int], axes: np.ndarray, scale: float) -> np.ndarray:
    """Return the vertices (N, 3), in the normal frame, that follow the bones of a group most."""
    found = [np.zeros((0, 3))]
    for part in parts:
        owner = np.take_along_axis(part.bones, part.weights.argmax(axis=1)[:, None], axis=1)[:, 0]
        found.append(part.vertices[np.isin(owner, list(group))])
    return np.concatenate(found) @ axes / scale


def _lowest(vertices: np.ndarray) -> np.ndarray:
    """Return the outermost of the lowest points (N, 3)."""
    if not len(vertices):
        return vertices
    low = vertices[vertices[:, 1] < vertices[:, 1].min() + FLAT]
    angles = np.arange(DIRECTIONS) * 2 * np.pi / DIRECTIONS
    outer = (low[:, [0, 2]] @ np.stack((np.cos(angles), np.sin(angles)))).argmax(axis=0)
    return low[np.unique([*outer, low[:, 1].argmin()])]


def _under_bones(groups: dict[int, set[int]], places: np.ndarray, ankle: int) -> dict[int, np.ndarray]:
    """Return the points on the floor under the bones of a foot without vertices."""
    foot = places[sorted(set().union(*groups.values()))]
    floor = foot[:, 1].min() if len(foot) > 1 else places[ankle, 1] - UNDER_ANKLE
    return {bone: places[sorted(group)] * (1, 0, 1) + (0, floor, 0) for bone, group in groups.items()}
