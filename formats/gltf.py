"""The parts of a glTF file that motion needs: arrays, the hierarchy of nodes, and skeletons.

Matrices are 4 x 4 and act on columns. All lengths are in the unit of the file and all axes are its own.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.spatial.transform import Rotation

from formats.gltf_file import GltfFile, checked_index, whole
from motion.directions import fit_turn, nearest_axes, nearest_rotation, turn_angle
from utils.errors import InputError, shown

COMPONENTS = {5120: "<i1", 5121: "<u1", 5122: "<i2", 5123: "<u2", 5125: "<u4", 5126: "<f4"}
WIDTHS = {"SCALAR": 1, "VEC2": 2, "VEC3": 3, "VEC4": 4, "MAT4": 16}
MAX_VALUES = 2**26  # of an array; sparse arrays may be far larger than their file
MAX_NODES = 100_000
MAX_BONES = 4096
SAME_TURN, SAME_PLACE = 1.0, 0.01  # degrees, share of the skeleton's size: tolerance of the rest pose of nodes and skin
UPRIGHT = 30.0  # degrees: a bind pose within this angle of the axes is set to them
APART = 0.002  # share of the skeleton's size: distance of a joint from the end of the bone above
STEADY = 1e-4  # share of the skeleton's size: weight of the axes of a bone that is turned toward the bones below
SHEAR = 0.02  # relative spread of the scales of a bone along its axes that is taken for rounding


# --- Arrays


def read_accessor(file: GltfFile, index: Any) -> np.ndarray:
    """Return the values (N, width) of an accessor: float64 for floats and normalized integers, else integers.

    Raises:
        InputError: the accessor is damaged, too large, not inside its buffer, or holds NaN.
    """
    accessor = file.item("accessors", index)
    count, width = whole(accessor.get("count"), "a count"), WIDTHS.get(str(accessor.get("type")), 0)
    kind = np.dtype(COMPONENTS.get(_key(accessor.get("componentType")), "V"))
    if not width or kind.kind == "V" or count * width > MAX_VALUES:
        raise InputError(f"accessor {index} has {count} values of an unknown type, or too many")
    if "bufferView" in accessor:
        values = _strided(file, accessor, count, width, kind).copy()
    else:
        values = np.zeros((count, width), kind)
    if "sparse" in accessor:
        _fill_sparse(file, accessor["sparse"], values)
    if kind.kind == "f":
        if not np.isfinite(values).all():
            raise InputError(f"accessor {index} holds NaN or infinite values")
        return values.astype(np.float64)
    if accessor.get("normalized"):
        return np.maximum(values / np.iinfo(kind).max, -1.0)
    return values


def _key(value: Any) -> int:
    return value if isinstance(value, int) else -1


def _strided(file: GltfFile, part: dict[str, Any], count: int, width: int, kind: np.dtype) -> np.ndarray:
    """Return ``count`` elements of a buffer view, without a copy."""
    view = file.view(part.get("bufferView"))
    offset, size = whole(part.get("byteOffset", 0), "a byteOffset"), width * kind.itemsize
    stride = whole(file.item("bufferViews", part.get("bufferView")).get("byteStride", size), "a byteStride")
    if stride < size or offset + (count - 1) * stride + size > len(view) and count:
        raise InputError(f"{count} elements of {size} bytes do not fit into a buffer view of {len(view)} bytes")
    return np.ndarray((count, width), kind, view, offset, (stride, kind.itemsize)) if count else np.empty((0, width))


def _fill_sparse(file: GltfFile, sparse: dict[str, Any], values: np.ndarray) -> None:
    count = whole(sparse.get("count"), "a count")
    kind = np.dtype(COMPONENTS.get(_key(sparse["indices"].get("componentType")), "V"))
    if kind.kind != "u" or count > len(values):
        raise InputError("a sparse accessor has damaged indices")
    places = _strided(file, sparse["indices"], count, 1, kind)[:, 0]
    if count and places.max() >= len(values):
        raise InputError("a sparse accessor replaces values that it does not have")
    values[places.astype(np.int64)] = _strided(file, sparse["values"], count, values.shape[1], values.dtype)


# --- Nodes


@dataclass
class Nodes:
    """The N nodes of a file, with their transforms relative to their parents in the pose of the file."""

    names: list[str]
    parents: list[int]  # -1 for roots
    order: list[int]  # parents first
    translations: np.ndarray  # (N, 3)
    rotations: np.ndarray  # (N, 4) unit quaternions x, y, z, w
    scales: np.ndarray  # (N, 3)

    def local(self) -> np.ndarray:
        """Return the matrices (N, 4, 4) relative to the parents in the pose of the file."""
        local = np.tile(np.eye(4), (len(self.names), 1, 1))
        local[:, :3, :3] = Rotation.from_quat(self.rotations).as_matrix() * self.scales[:, None]
        local[:, :3, 3] = self.translations
        return local

    def world(self) -> np.ndarray:
        """Return the world matrices (N, 4, 4) in the pose of the file."""
        world = self.local()
        for node in self.order:
            if self.parents[node] >= 0:
                world[node] = world[self.parents[node]] @ world[node]
        return world


def read_nodes(file: GltfFile) -> Nodes:
    """Return the nodes of a file.

    Raises:
        InputError: a node has two parents or is below itself, a transform is unusable, or there are too many nodes.
    """
    items = file.items("nodes")
    if len(items) > MAX_NODES:
        raise InputError(f"it has {len(items)} nodes, more than the {MAX_NODES} that are read")
    parents = [-1] * len(items)
    for number, item in enumerate(items):
        for child in item.get("children", []):
            if parents[checked_index(child, len(items), "nodes")] >= 0:
                raise InputError(f"node {child} has two parents")
            parents[child] = number
    order = [number for number, parent in enumerate(parents) if parent < 0]
    for number in order:  # grows while it is read
        order.extend(items[number].get("children", []))
    if len(order) < len(items):
        raise InputError("its nodes form a cycle")
    transforms = [_transform(item, number) for number, item in enumerate(items)]
    names = [str(item.get("name") or f"node {number}") for number, item in enumerate(items)]
    moves, turns, scales = (np.array([part[k] for part in transforms]).reshape(-1, w) for k, w in enumerate((3, 4, 3)))
    return Nodes(names, parents, order, moves, turns, scales)


def _transform(item: dict[str, Any], number: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return translation (3), rotation (4) and scale (3) of a node."""

    def values(key: str, default: list[float]) -> np.ndarray:
        found = np.array(item.get(key, default), dtype=np.float64)
        if found.shape != (len(default),) or not np.isfinite(found).all() or np.abs(found).max() > 1e12:
            raise InputError(f"the {key} of node {number} is {shown(item.get(key), 40)}")
        return found

    if "matrix" in item:
        matrix = values("matrix", [0.0] * 16).reshape(4, 4).T
        scale = np.linalg.norm(matrix[:3, :3], axis=0)
        scale[0] *= np.sign(np.linalg.det(matrix[:3, :3])) or 1
        turn = nearest_rotation(matrix[:3, :3] / np.where(scale == 0, 1, scale))
        return matrix[:3, 3], Rotation.from_matrix(turn).as_quat(), scale
    turn = values("rotation", [0.0, 0.0, 0.0, 1.0])
    if not np.linalg.norm(turn) > 1e-6:
        raise InputError(f"the rotation of node {number} is {shown(item.get('rotation'), 40)}")
    return values("translation", [0.0] * 3), turn / np.linalg.norm(turn), values("scale", [1.0] * 3)


# --- Skeletons


@dataclass
class Skeleton:
    """The J bones of a file, parents first: the joints of its skins, and the nodes above and below them.

    The rest pose is that to which the meshes are bound; most files have the same pose in their nodes.
    """

    names: list[str]
    nodes: list[int]  # (J,) node of each bone
    parents: list[int]  # (J,) bone above, -1 for roots
    pose: np.ndarray  # (J, 4, 4) world matrices in the pose of the nodes
    rest: np.ndarray  # (J, 4, 4) world matrices in the rest pose
    bound: list[tuple[int, np.ndarray]]  # for each skin, its number and the matrix (4, 4) of its mesh in the rest pose
    unknown: set[int]  # bones that are no joints of a skin, and whose rest pose does not follow from those around them

    def turns(self, matrices: np.ndarray) -> np.ndarray:
        """Return the rotations (J, 3, 3) of world matrices (J, 4, 4), without their scale."""
        return nearest_rotation(matrices[:, :3, :3])

    def check_scales(self, bones: set[int]) -> None:
        """Raise InputError if bones are mirrored, flat, or scaled differently along their axes."""
        for bone in sorted(bones):
            for linear in (self.pose[bone, :3, :3], self.rest[bone, :3, :3]):
                sizes = np.linalg.svd(linear, compute_uv=False)
                if np.linalg.det(linear) <= 0 or sizes[0] > (1 + SHEAR) * sizes[2]:
                    raise InputError(
                        f"the bone {shown(self.names[bone], 60)} is mirrored or scaled unevenly; apply the scale of "
                        "the armature in a 3D editor and export the file again"
                    )

    def check_rest(self, bones: set[int]) -> None:
        """Raise InputError if the rest pose of a bone is unknown."""
        for bone in sorted(bones & self.unknown):
            raise InputError(
                f"the bone {shown(self.names[bone], 60)} is no joint of the skin, so that its rest pose is unknown; "
                "set the skeleton to its rest pose in a 3D editor and export the file again"
            )


def read_skeleton(file: GltfFile, nodes: Nodes, joints: list[int] | None = None) -> Skeleton:
    """Return the skeleton of a file.

    Args:
        joints: Nodes that are bones; None takes the joints of all skins.

    Raises:
        InputError: there are too many bones, or a skin is damaged.
    """
    used = joints if joints is not None else [joint for skin in file.items("skins") for joint in skin.get("joints", [])]
    kept: set[int] = set()
    for node in used:
        checked_index(node, len(nodes.names), "nodes")
        while node >= 0 and node not in kept:
            kept.add(node)
            node = nodes.parents[node]
    below = set(used)  # a bone that moves no vertex, such as a hand, may be missing among the joints of the skin
    for node in nodes.order:
        if nodes.parents[node] in below:
            below.add(node)
    kept |= below
    if len(kept) > MAX_BONES:
        raise InputError(f"its skeleton has {len(kept)} bones, more than the {MAX_BONES} that are read")
    order = [node for node in nodes.order if node in kept]
    number = {node: bone for bone, node in enumerate(order)}
    world = nodes.world()
    names, parents = [nodes.names[node] for node in order], [number.get(nodes.parents[node], -1) for node in order]
    skeleton = Skeleton(names, order, parents, world[order], world[order], [], set())
    return _bind(file, skeleton, number, nodes.local()[order])


def _bind(file: GltfFile, skeleton: Skeleton, number: dict[int, int], local: np.ndarray) -> Skeleton:
    """Set the rest pose to that to which the skins bind their meshes.

    Args:
        number: Bones by node.
        local: Matrices (J, 4, 4) relative to the parents, which place the bones below a skin that are not its joints.
    """
    rest, is_set = skeleton.rest.copy(), np.zeros(len(skeleton.names), bool)
    size = np.ptp(skeleton.pose[:, :3, 3], axis=0).max() if len(rest) else 0.0
    for which, skin in enumerate(file.items("skins")):
        bones = [number[joint] for joint in skin.get("joints", []) if joint in number]
        if not bones or len(bones) != len(skin.get("joints", [])):
            continue
        inverse = np.tile(np.eye(4), (len(bones), 1, 1))
        if "inverseBindMatrices" in skin:
            values = read_accessor(file, skin["inverseBindMatrices"])
            if values.shape != (len(bones), 16):
                raise InputError(f"skin {which} has {len(bones)} joints and {len(values)} inverse bind matrices")
            inverse = values.reshape(-1, 4, 4).swapaxes(1, 2)
        moves = rest[bones] @ inverse  # of the mesh, by each bone; equal in the rest pose
        anchors = is_set[bones] if is_set[bones].any() else np.ones(len(bones), bool)  # bones of an earlier skin
        near = [_is_near(moves, move, size) for move in moves[anchors][:: max(1, anchors.sum() // 64)]]
        most = max(near, key=lambda each: np.count_nonzero(each & anchors))
        if not (most & anchors).any():
            raise InputError(f"skin {which} has bones of size zero")
        mesh = moves[most & anchors][0]
        if not most.all():
            mesh = _upright(mesh) if most.sum() < len(bones) / 2 and anchors.all() else mesh
            fresh = [place for place, bone in enumerate(bones) if not is_set[bone]]
            if np.abs(np.linalg.det(inverse[fresh])).min(initial=1.0) < 1e-18:
                raise InputError(f"skin {which} has inverse bind matrices that cannot be inverted")
            rest[[bones[place] for place in fresh]] = mesh @ np.linalg.inv(inverse[fresh])
        is_set[bones] = True
        skeleton.bound.append((which, mesh))
    skeleton.rest = rest
    _place_others(skeleton, is_set, local, size)
    return skeleton


def _place_others(skeleton: Skeleton, is_bound: np.ndarray, local: np.ndarray, size: float) -> None:
    """Set the rest pose of the bones that are no joints of a skin.

    They keep their places on the bones above, and turn toward the joints below them, as an elbow toward the wrist.

    Args:
        is_bound: Which bones (J) are joints of a skin; the rest pose of these is set.
        local: Matrices (J, 4, 4) relative to the parents in the pose of the nodes.
        size: Size of the skeleton.
    """
    rest, pose, parents, is_set = skeleton.rest, skeleton.pose, skeleton.parents, is_bound.copy()
    below: dict[int, list[int]] = {}  # the first joints below each of these bones
    for joint in np.flatnonzero(is_bound).tolist():
        bone = parents[joint]
        while bone >= 0 and not is_bound[bone]:
            below.setdefault(bone, []).append(joint)
            bone = parents[bone]
    for bone, parent in enumerate(parents):
        if is_bound[bone]:
            continue
        if parent >= 0 and is_set[parent]:
            rest[bone], is_set[bone] = rest[parent] @ local[bone], True
        if bone not in below:
            continue
        moved = rest[bone, :3, :3] @ np.linalg.pinv(pose[bone, :3, :3])
        found = (pose[below[bone], :3, 3] - pose[bone, :3, 3]) @ moved.T  # (N, 3)
        wanted = rest[below[bone], :3, 3] - rest[bone, :3, 3]
        if is_set[bone]:
            axes = STEADY * size * np.eye(3)
            turn = fit_turn(np.vstack((found, axes)), np.vstack((wanted, axes)))
            rest[bone, :3, :3], found = turn @ rest[bone, :3, :3], found @ turn.T
        if np.linalg.norm(found - wanted, axis=1).max() > APART * size:
            skeleton.unknown.add(bone)


def _is_near(moves: np.ndarray, move: np.ndarray, size: float) -> np.ndarray:
    """Return (J,) booleans: which matrices (J, 4, 4) equal ``move`` within the tolerance of the rest pose."""
    turn = np.einsum("jab,ab->j", moves[:, :3, :3], move[:3, :3]) / max((move[:3, :3] ** 2).sum(), 1e-30)
    return (turn > np.cos(np.deg2rad(SAME_TURN))) & (
        np.linalg.norm(moves[:, :3, 3] - move[:3, 3], axis=-1) < SAME_PLACE * size
    )


def _upright(mesh: np.ndarray) -> np.ndarray:
    """Set a matrix (4, 4) to the axes if its rotation is near them: the bone that it was computed from is posed."""
    turn = nearest_rotation(mesh[:3, :3])
    nearest = nearest_axes(turn)
    mesh = mesh.copy()
    if turn_angle(nearest, turn) < UPRIGHT:
        mesh[:3, :3] = nearest @ turn.T @ mesh[:3, :3]
    return mesh
