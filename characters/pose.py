"""Poses of a character for a motion of the 22 joints."""

import numpy as np

from characters.character import Character, Posed
from characters.feet import Stance, ground
from motion.body_shape import leg_scale, rest_offsets
from motion.clip import AnyMotion, smplx85_of
from motion.skeleton import JOINT_INDEX, JOINTS, world_pose
from motion.smplx import SMPLX85, smplx85_to_motion

FALLBACKS = {"foot": "ankle", "collar": "shoulder"}  # joints that a character may lack


def pose_character(character: Character, motion: AnyMotion) -> Posed:
    """Pose a character.

    The limbs have the directions of the motion. The hips follow those of the motion, scaled by leg length. Where a foot
    of the motion stands, that of the character stands; ``characters.feet`` corrects hips and legs for that.

    Args:
        motion: A clip or a (T, 85) array, at 30 frames per second.

    Raises:
        InputError: unusable motion.
    """
    smplx85 = smplx85_of(motion)
    betas = smplx85[0, SMPLX85["betas"]]
    rotations, pelvis = smplx85_to_motion(smplx85)
    world, joints = world_pose(rotations, rest_offsets(betas), root=pelvis)
    return ground(character, world.copy(), Stance.of(world, joints * leg_scale(betas)))


def joints_of(character: Character, posed: Posed) -> np.ndarray:
    """Return the positions (T, 22, 3) of the 22 joints on a posed character.

    A joint that the character lacks is at the nearest bone that it has.
    """
    sources = character.bones.sources()
    found = np.empty((len(posed.turns), JOINTS, 3))
    for name, joint in JOINT_INDEX.items():
        side, _, part = name.partition("_")
        others = sources[f"{side}_{FALLBACKS[part]}"] if part in FALLBACKS else character.bones.spine
        found[:, joint] = posed.places[:, [*sources[name], *others, character.pelvis][0]]
    return found
