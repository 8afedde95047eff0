"""The 263-dim features of HumanML3D (22 joints) and the 251-dim ones of KIT-ML (21 joints): encoding and recovery.

Row t describes frame t and the step to frame t + 1, so T frames give T - 1 rows. Layout (``FeatureSkeleton.layout``),
for the root r, the heading rotation H_t (world to heading frame) and J joints:

    root_turn               1   half of the heading change from t to t + 1, radians
    root_velocity           2   x and z of H_{t+1} (r_{t+1} - r_t)
    root_height             1   y of r
    joint_positions   3 (J-1)   joints 1.., H_t (joint - (r_x, 0, r_z))
    joint_rotations   6 (J-1)   rotations of the bones that end in joints 1.., first two columns of the matrix
    joint_velocities      3 J   H_t (joint_{t+1} - joint_t)
    contacts                4   left ankle, left toe, right ankle, right toe: 1 while the joint stands

Positions have the unit of the data set: metres for HumanML3D, millimetres for KIT-ML.

The features are compatible with the published files, including their peculiarities: the hip vector of the smoothed
heading has the opposite sign of that of ``place``; frame 0 has the heading zero; the half angle of the heading is not
continuous, so that ``root_turn`` has the wrong sign in the frame where the heading passes 180 degrees; a rotation
belongs to the bone that ends in the joint and is no SMPL rotation; chains of the arms start at the root's heading.

Source: HumanML3D (Guo et al., CVPR 2022), motion_representation.ipynb and common/skeleton.py. Arrays are NumPy;
everything is computed in float64.
"""

from dataclasses import dataclass, field

import numpy as np
from scipy.ndimage import gaussian_filter1d

from motion.directions import shortest_turn, unit
from motion.rotation import rotation_6d_to_matrix, y_rotation
from utils.errors import InputError

HEADING_SIGMA = 20  # frames of the Gaussian filter of the heading
CONTACTS = 4
LARGEST = 1e6  # units of length; larger values are damaged data


@dataclass(frozen=True, eq=False)
class FeatureSkeleton:
    """A data set's skeleton and the parameters of its features."""

    name: str
    chains: tuple[tuple[int, ...], ...]
    """Joints from the start of each chain to its end; the first chains start at the root."""
    rest: tuple[str, ...]
    """Rest direction of the bone that ends in each joint after the root: +x, -y, ..."""
    across: tuple[int, int, int, int]
    """Right hip, left hip, right shoulder, left shoulder, from which the heading is computed."""
    feet: tuple[int, int, int, int]
    """Joints of the contacts."""
    leg: tuple[int, int]
    """Joints at the ends of the two bones whose length scales the root trajectory."""
    fps: float
    metres: float
    """Length of the unit of the positions in metres."""
    contact_threshold: float
    """Squared displacement per frame below which a foot stands."""
    bone_lengths: tuple[float, ...] | None = None
    """Lengths of the bones of the published clips, which end in joints 1..; None if they are not known."""
    parents: tuple[int, ...] = field(init=False)
    layout: dict[str, slice] = field(init=False)

    def __post_init__(self):
        above = {joint: parent for chain in self.chains for parent, joint in zip(chain, chain[1:], strict=False)}
        object.__setattr__(self, "parents", tuple(above.get(joint, -1) for joint in range(self.joints)))
        bones = self.joints - 1
        widths = {"root_turn": 1, "root_velocity": 2, "root_height": 1, "joint_positions": 3 * bones,
                  "joint_rotations": 6 * bones, "joint_velocities": 3 * self.joints, "contacts": CONTACTS}  # fmt: skip
        ends = np.cumsum(list(widths.values())).tolist()
        layout = {name: slice(end - width, end) for (name, width), end in zip(widths.items(), ends, strict=True)}
        object.__setattr__(self, "layout", layout)

    @property
    def joints(self) -> int:
        return len(self.rest) + 1

    @property
    def width(self) -> int:
        """Number of features per frame."""
        return self.layout["contacts"].stop

    def rest_directions(self) -> np.ndarray:
        """Return the unit vectors (J, 3) of the bones in the rest pose; zero for the root."""
        directions = np.zeros((self.joints, 3))
        for joint, axis in enumerate(self.rest, start=1):
            directions[joint, "xyz".index(axis[1])] = 1.0 if axis[0] == "+" else -1.0
        return directions


HUMANML3D = FeatureSkeleton(
    name="HumanML3D",
    chains=((0, 2, 5, 8, 11), (0, 1, 4, 7, 10), (0, 3, 6, 9, 12, 15), (9, 14, 17, 19, 21), (9, 13, 16, 18, 20)),
    rest=("+x", "-x", "+y", "-y", "-y", "+y", "-y", "-y", "+y", "+z", "+z", "+y", "+x", "-x", "+z", *["-y"] * 6),
    across=(2, 1, 17, 16),
    feet=(7, 10, 8, 11),
    leg=(5, 8),
    fps=20.0,
    metres=1.0,
    contact_threshold=0.002,
    bone_lengths=(0.103074, 0.109883, 0.131568, 0.393623, 0.390188, 0.143190, 0.432433, 0.425643, 0.057365, 0.143382,
                  0.149419, 0.219360, 0.137487, 0.143383, 0.103039, 0.131614, 0.122984, 0.256840, 0.263092, 0.266012,
                  0.269876),
)  # fmt: skip
KIT = FeatureSkeleton(
    name="KIT-ML",
    chains=((0, 11, 12, 13, 14, 15), (0, 16, 17, 18, 19, 20), (0, 1, 2, 3, 4), (3, 5, 6, 7), (3, 8, 9, 10)),
    rest=(*["+y"] * 4, "+x", "-y", "-y", "-x", "-y", "-y", "+x", "-y", "-y", "+z", "+z", "-x", "-y", "-y", "+z", "+z"),
    across=(11, 16, 5, 8),
    feet=(19, 20, 14, 15),
    leg=(17, 18),
    fps=12.5,
    metres=0.001,
    contact_threshold=0.05,
)
SKELETONS = (HUMANML3D, KIT)


def check_joints(joints: np.ndarray, skeleton: FeatureSkeleton, least: int = 1) -> np.ndarray:
    """Return joints as float64.

    Raises:
        InputError: another shape than (T, J, 3), fewer than ``least`` frames, or values that are not finite.
    """
    if joints.ndim != 3 or joints.shape[1:] != (skeleton.joints, 3):
        raise InputError(
            f"joints have shape {joints.shape} where {skeleton.name} needs (frames, {skeleton.joints}, 3); "
            "give the positions of its joints"
        )
    return _checked(joints, least)


def check_features(features: np.ndarray, skeleton: FeatureSkeleton) -> np.ndarray:
    """Return features as float64.

    Raises:
        InputError: another shape than (T, D), no frames, or values that are not finite.
    """
    if features.ndim != 2 or features.shape[1] != skeleton.width:
        raise InputError(
            f"features have shape {features.shape} where {skeleton.name} needs (frames, {skeleton.width}); "
            f"give features of {skeleton.name}"
        )
    return _checked(features, least=1)


def _checked(motion: np.ndarray, least: int) -> np.ndarray:
    if len(motion) < least:
        raise InputError(f"the motion has {len(motion)} frames; give at least {least}")
    if not np.isfinite(motion).all():
        raise InputError("the motion holds NaN or infinite values; remove it or convert it again")
    if motion.size and np.abs(motion).max() > LARGEST:
        raise InputError(f"the motion holds values up to {np.abs(motion).max():.3g}; convert it again")
    return motion.astype(np.float64)


# Joints to features


def features_from_joints(
    joints: np.ndarray, skeleton: FeatureSkeleton, bone_lengths: np.ndarray | None = None
) -> np.ndarray:
    """Encode joint positions as features.

    Args:
        joints: (T, J, 3) positions in the unit of the skeleton, y up, at its frame rate, at any place and heading.
        bone_lengths: (J - 1) bone lengths of the result; by default those of the published clips, or those of frame 0
            if the published ones are not known.

    Returns:
        (T - 1, D) features in float64, not normalized.

    Raises:
        InputError: another shape, fewer than two frames, values that are not finite, or legs without length.
    """
    joints = place(uniform_bones(check_joints(joints, skeleton, least=2), skeleton, bone_lengths), skeleton)
    half = half_heading(joints, skeleton)  # (T)
    turn = y_rotation(2 * half)[:, None]  # (T, 1, 3, 3) world to heading frame
    root = joints[:, 0]
    over_origin = joints - root[:, None] * (1.0, 0.0, 1.0)
    steps = np.diff(joints, axis=0)  # (T - 1, J, 3)
    blocks = (
        np.arcsin(np.sin(np.diff(half)))[:, None],
        _turned(turn[1:], steps[:, :1])[:, 0, ::2],
        root[:-1, 1:2],
        _turned(turn, over_origin)[:-1, 1:],
        bone_rotations(joints, half, skeleton)[:-1, 1:, :, :2].swapaxes(-1, -2),  # column after column
        _turned(turn[:-1], steps),
        (steps[:, list(skeleton.feet)] ** 2).sum(axis=-1) < skeleton.contact_threshold,
    )
    return np.concatenate([block.reshape(len(steps), -1) for block in blocks], axis=1)


def uniform_bones(joints: np.ndarray, skeleton: FeatureSkeleton, bone_lengths: np.ndarray | None = None) -> np.ndarray:
    """Give every bone of (T, J, 3) the same length in all clips; directions of the bones are kept.

    The root trajectory is multiplied by the ratio of the leg lengths. The source's lengths are those of frame 0.

    Args:
        bone_lengths: As in ``features_from_joints``.
    """
    parents = list(skeleton.parents)
    bones = joints - joints[:, parents]
    source = np.linalg.norm(bones[0], axis=-1)  # (J)
    if bone_lengths is None:
        bone_lengths = np.asarray(skeleton.bone_lengths or source[1:])
    target = np.array([0.0, *bone_lengths])
    leg = list(skeleton.leg)
    if not source[leg].sum() > 0:
        raise InputError("the legs have no length in the first frame; give the positions of the joints")
    bones = unit(bones) * target[:, None]
    uniform = np.empty_like(joints)
    uniform[:, 0] = joints[:, 0] * (target[leg].sum() / source[leg].sum())
    for chain in skeleton.chains:
        for parent, joint in zip(chain, chain[1:], strict=False):
            uniform[:, joint] = uniform[:, parent] + bones[:, joint]
    return uniform


def place(joints: np.ndarray, skeleton: FeatureSkeleton) -> np.ndarray:
    """Move (T, J, 3) so that its lowest joint is at y = 0 and the root starts over the origin, facing +z."""
    start = joints[0, 0]
    joints = joints - (start[0], joints[..., 1].min(), start[2])
    right_hip, left_hip, right_shoulder, left_shoulder = joints[0, list(skeleton.across)]
    forward = _forward(right_hip - left_hip + right_shoulder - left_shoulder)
    return joints @ y_rotation(-np.arctan2(forward[:1], forward[2:]))[0].T


def half_heading(joints: np.ndarray, skeleton: FeatureSkeleton) -> np.ndarray:
    """Return half the angle (T) about +y that turns each frame to +z, in [-pi/2, pi/2], smoothed over time."""
    right_hip, left_hip, right_shoulder, left_shoulder = joints[:, list(skeleton.across)].swapaxes(0, 1)
    forward = _forward(unit(left_hip - right_hip + right_shoulder - left_shoulder))
    forward = unit(gaussian_filter1d(forward, HEADING_SIGMA, axis=0, mode="nearest"))
    half = np.arctan2(-forward[:, 0], 1 + forward[:, 2])
    half[0] = 0
    return half


def bone_rotations(joints: np.ndarray, half: np.ndarray, skeleton: FeatureSkeleton) -> np.ndarray:
    """Return the rotations (T, J, 3, 3) of the bones that end in each joint, relative to the bone before; 0 is H.

    Args:
        joints: (T, J, 3) positions.
        half: (T) result of ``half_heading``.
    """
    world = shortest_turn(skeleton.rest_directions(), joints - joints[:, list(skeleton.parents)])
    world[:, 0] = y_rotation(2 * half)
    local = world.copy()
    for chain in skeleton.chains:
        for before, joint in zip((0, *chain[1:]), chain[1:], strict=False):  # every chain starts at the heading
            local[:, joint] = world[:, before].swapaxes(-1, -2) @ world[:, joint]
    return local


def _forward(across: np.ndarray) -> np.ndarray:
    """Return y x ``across`` (..., 3), the direction that a person faces whose right side is toward ``across``."""
    return np.stack((across[..., 2], np.zeros_like(across[..., 0]), -across[..., 0]), axis=-1)


def _turned(rotations: np.ndarray, vectors: np.ndarray) -> np.ndarray:
    return (rotations @ vectors[..., None])[..., 0]


# Features to joints


def joints_from_features(features: np.ndarray, skeleton: FeatureSkeleton) -> np.ndarray:
    """Recover joints (T, J, 3) from the positions in (T, D) features, in float64 and the unit of the skeleton.

    Raises:
        InputError: another shape, no frames, or values that are not finite.
    """
    features = check_features(features, skeleton)
    half, root = recover_root(features, skeleton)
    local = features[:, skeleton.layout["joint_positions"]].reshape(len(features), -1, 3)
    joints = _turned(y_rotation(-2 * half)[:, None], local) + root[:, None] * (1.0, 0.0, 1.0)
    return np.concatenate((root[:, None], joints), axis=1)


def joints_from_rotations(
    features: np.ndarray, skeleton: FeatureSkeleton, bone_lengths: np.ndarray | None = None
) -> np.ndarray:
    """Recover joints (T, J, 3) from the rotations in (T, D) features, in float64 and the unit of the skeleton.

    Args:
        bone_lengths: (J - 1) bone lengths; by default those of the published clips, or the mean lengths in the position
            block if the published ones are not known.

    Raises:
        InputError: another shape, no frames, or values that are not finite.
    """
    features = check_features(features, skeleton)
    half, root = recover_root(features, skeleton)
    stored = features[:, skeleton.layout["joint_rotations"]].reshape(len(features), -1, 6)
    local = rotation_6d_to_matrix(stored).swapaxes(-1, -2)  # (T, J - 1, 3, 3); this file stores columns, not rows
    if bone_lengths is None:
        published = skeleton.bone_lengths
        bone_lengths = np.asarray(published or mean_bone_lengths(joints_from_features(features, skeleton), skeleton))
    bones = skeleton.rest_directions()[1:] * bone_lengths[:, None]
    joints = np.empty((len(features), skeleton.joints, 3))
    joints[:, 0] = root
    for chain in skeleton.chains:
        world = y_rotation(2 * half)
        for parent, joint in zip(chain, chain[1:], strict=False):
            world = world @ local[:, joint - 1]
            joints[:, joint] = joints[:, parent] + world @ bones[joint - 1]
    return joints


def recover_root(features: np.ndarray, skeleton: FeatureSkeleton) -> tuple[np.ndarray, np.ndarray]:
    """Integrate the root's turns and steps.

    Returns:
        Half heading (T) as in ``half_heading``, and root (T, 3); the clip starts over the origin, facing +z.
    """
    layout = skeleton.layout
    half = np.zeros(len(features))
    half[1:] = np.cumsum(features[:-1, 0])
    steps = np.zeros((len(features), 3))
    steps[1:, ::2] = features[:-1, layout["root_velocity"]]
    root = np.cumsum(_turned(y_rotation(-2 * half), steps), axis=0)
    root[:, 1] = features[:, layout["root_height"]][:, 0]
    return half, root


def mean_bone_lengths(joints: np.ndarray, skeleton: FeatureSkeleton) -> np.ndarray:
    """Return the mean lengths (J - 1) over time of the bones of (T, J, 3) that end in joints 1.."""
    return np.linalg.norm(joints - joints[:, list(skeleton.parents)], axis=-1)[:, 1:].mean(axis=0)


# Statistics


def block_std(std: np.ndarray, skeleton: FeatureSkeleton, bias: float = 1.0) -> np.ndarray:
    """Average a standard deviation (D) over each block of the features, as in the published ``Std.npy``.

    Args:
        std: Standard deviation of each feature over all frames.
        bias: Divisor of the blocks of the root and of the contacts, which weighs them more. Training of the published
            models uses 5; evaluators use the statistics that are published with them.
    """
    weighted = ("root_turn", "root_velocity", "root_height", "contacts")
    averaged = np.empty_like(std, dtype=np.float64)
    for name, block in skeleton.layout.items():
        averaged[block] = std[block].mean(dtype=np.float64) / (bias if name in weighted else 1.0)
    return averaged
