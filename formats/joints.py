"""Motion without rotations: joint positions, and the features of HumanML3D (263) and KIT-ML (251).

Inverse kinematics gives the rotations (``motion.inverse_kinematics``).
"""

import numpy as np

from formats.import_options import ImportOptions, check_length
from motion.clip import Clip
from motion.features263 import (
    HUMANML3D,
    KIT,
    SKELETONS,
    FeatureSkeleton,
    check_joints,
    joints_from_features,
)
from motion.inverse_kinematics import LEGS, fit_joints, fit_kit_joints, kit_to_smpl_joints
from motion.retarget import UNITS
from motion.skeleton import PARENTS
from motion.smplx import motion_to_smplx85
from motion.world_axes import TURNS, up_of_body
from utils.errors import InputError

FEATURE_WIDTHS = {skeleton.width: skeleton for skeleton in SKELETONS}
JOINT_COUNTS = {skeleton.joints: skeleton for skeleton in SKELETONS}
LEG = (0.35, 1.4)  # metres: length of thigh and shin of a person
ROOT_HEIGHT = (0.0, 3.0)  # metres, median over a clip


def clip_of_joints(joints: np.ndarray, title: str, options: ImportOptions) -> tuple[Clip, float]:
    """Convert joint positions to a clip.

    Args:
        joints: (T, 22, 3) joints of SMPL, as HumanML3D's ``new_joints``, or (T, 21, 3) of KIT-ML; a leading axis of
            length 1 is dropped.
        options: Up axis, unit and frame rate; by default up is found from the posture, the unit from the legs, and the
            rate is that of the data set.

    Returns:
        The clip at the frame rate of the file, and this rate.

    Raises:
        InputError: unusable positions, or no person's.
    """
    joints = joints[0] if joints.ndim == 4 and len(joints) == 1 else joints
    skeleton = JOINT_COUNTS[joints.shape[-2]]
    check_length(len(joints), options.fps or skeleton.fps)
    joints = check_joints(joints, skeleton)
    notes = [] if options.fps else [f"the file states no frame rate; {skeleton.fps:g} per second of {skeleton.name} is "
                                    "used, --fps overrides it"]  # fmt: skip
    joints = joints * (UNITS[options.units] if options.units else _unit(joints, skeleton, notes))
    up = options.up or up_of_body(_smpl_joints(joints, skeleton), "y", notes)
    return _fitted(joints @ TURNS[up].T, skeleton, title, notes), options.fps or skeleton.fps


def clip_of_features(features: np.ndarray, title: str, options: ImportOptions) -> tuple[Clip, float]:
    """Convert features of HumanML3D (T, 263) or KIT-ML (T, 251), not normalized, to a clip.

    Returns:
        The clip at the frame rate of the file, and this rate.

    Raises:
        InputError: unusable or normalized features.
    """
    skeleton = FEATURE_WIDTHS[features.shape[1]]
    check_length(len(features), options.fps or skeleton.fps)
    joints = joints_from_features(features, skeleton) * skeleton.metres
    leg, height = _leg_length(_smpl_joints(joints, skeleton)), float(np.median(joints[:, 0, 1]))
    if not (LEG[0] < leg < LEG[1] and ROOT_HEIGHT[0] < height < ROOT_HEIGHT[1]):
        raise InputError(
            f"its {skeleton.name} features have legs of {leg:.3g} m and a root height of {height:.3g} m, so they are "
            "probably normalized; multiply by Std.npy and add Mean.npy of their data set"
        )
    return _fitted(joints, skeleton, title, []), options.fps or skeleton.fps


def _fitted(joints: np.ndarray, skeleton: FeatureSkeleton, title: str, notes: list[str]) -> Clip:
    """Fit rotations to (T, J, 3) joints in metres, y up."""
    fit = fit_joints(joints) if skeleton is HUMANML3D else fit_kit_joints(joints / skeleton.metres)
    notes.append(
        f"rotations are fitted to {skeleton.joints} joint positions; the joints are {fit.error * 1000:.1f} mm off on "
        "average, after the change to our bone lengths; head, hands and toes follow their parents"
    )
    return Clip(motion_to_smplx85(fit.rotations, fit.pelvis), title, tuple(notes))


def _smpl_joints(joints: np.ndarray, skeleton: FeatureSkeleton) -> np.ndarray:
    return kit_to_smpl_joints(joints) if skeleton is KIT else joints


def _leg_length(joints: np.ndarray) -> float:
    """Return the mean length of thigh and shin of (T, 22, 3), in their unit."""
    lengths = np.linalg.norm(joints - joints[:, PARENTS], axis=-1)[:, LEGS]
    return float(np.median(lengths, axis=0).sum() / 2)


def _unit(joints: np.ndarray, skeleton: FeatureSkeleton, notes: list[str]) -> float:
    """Return the unit in metres: that of the data set, or another one in which the legs are those of a person."""
    leg = _leg_length(_smpl_joints(joints, skeleton))
    usual = next(name for name, metres in UNITS.items() if metres == skeleton.metres)
    for name in (usual, "m", "cm", "mm"):
        if LEG[0] < leg * UNITS[name] < LEG[1]:
            if name != usual:
                notes.append(f"positions are taken as {name} from the length of the legs; --units overrides it")
            return UNITS[name]
    raise InputError(
        f"the legs of its {skeleton.joints} joints are {leg:.3g} long, which no person's are in m, cm or mm; "
        "denormalize the positions, or give their unit with --units"
    )
