"""Feet of a character on the floor.

The proportions of a character differ from those of the source, so that its feet would slide and leave the floor where
those of the source stand. The corrections are made in this order, so that the directions of the limbs change least:

1. The pelvis rolls and turns, so that both feet are off their places by the same, and the hips are lifted until the
   ankles have the heights of those of the source.
2. The feet rotate about the ankles until their soles have the heights of those of the source.
3. The hips glide, so that a standing foot moves over the floor like that of the source.
4. The legs take up the rest by two-bone inverse kinematics.

Corrections of the hips are smooth, by least squares. A straight leg whose ankle moves by a centimetre bends by many
degrees, so legs are corrected only while their feet stand. Before and after, the correction fades, without its part
along the leg; the leg of another foot bends only if the foot would be deep in the floor.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.linalg import solveh_banded
from scipy.spatial.transform import Rotation
from scipy.special import softmax

from motion.directions import turn_about, unit
from motion.foot_lock import held_steps
from motion.limbs import LEGS, move_end
from motion.measures import standing_feet
from motion.skeleton import JOINT_INDEX, JOINT_NAMES, JOINTS
from motion.spread import smoothstep

if TYPE_CHECKING:
    from characters.character import Character, Posed

SIDES = ("left", "right")
UP = np.array([0.0, 1.0, 0.0])
HIPS, ANKLES, KNEES, FEET = ([JOINT_INDEX[f"{side}_{part}"] for side in SIDES]
                             for part in ("hip", "ankle", "knee", "foot"))  # fmt: skip
UNDER_ANKLE, UNDER_FOOT, BREADTH = 0.075, 0.017, 0.03
SOLE = tuple(  # points of the sole of SMPL-X relative to ankle and foot joint, in metres: heel, ball, tip of the toes
    (joints, (across, -under, ahead))
    for joints, under, aheads in ((ANKLES, UNDER_ANKLE, (-0.045, 0.11)), (FEET, UNDER_FOOT, (0.0, 0.07)))
    for ahead in aheads
    for across in (-BREADTH, BREADTH)
)
FLESH = 0.05  # metres by which the body extends below other joints than those of the feet
FLOOR_SHARE = 0.2  # quantile of the lowest points of the frames that is the floor, as for the bodies of the renderer
NEAR, FAR = 0.03, 0.10  # metres above the floor: a foot takes the height of the source's up to here, or not beyond
FLOATING = 0.005  # metres that the sole of a standing foot may be above its height before the leg bends
TOLERANCE = 0.004  # metres that the ankle of a standing foot may be off its height before the leg bends
SUNK = 0.008  # metres that the sole of another foot may be below the floor before the leg bends
FREE = 0.2  # weight, in the height of the hips, of a foot that does not stand
FADE = 6  # frames over which corrections of a standing foot fade before and after
STEEPEST = np.deg2rad(20)  # largest roll of the pelvis
MOST_BENT = np.deg2rad(50)  # largest bend of the toes
AHEAD = 0.02  # metres: bending lifts the points of the toes that are farther ahead of their joint in the rest pose
STIFF = 0.03  # metres per radian: error of the height of a sole against rotation of the foot
PITCH_STEP = 0.2  # radians: largest rotation of a foot in an iteration
SOFT = 0.004  # metres: points of a sole whose heights differ by less are on the floor together
SMOOTH, KEEP, STEP = 3.0, 3e-3, 100.0  # weights of the acceleration and the size of a correction, and of its steps


@dataclass
class Stance:
    """The feet of the source, with the floor at y = 0, in metres, for legs of mean length."""

    joints: np.ndarray  # (T, 22, 3)
    world: np.ndarray  # (T, 22, 3, 3) world rotations
    heights: np.ndarray  # (T, 2) of the lowest points of the soles, at least 0
    near: np.ndarray  # (T, 2) weights: 1 for a foot on the floor, 0 for one above ``FAR``
    stands: np.ndarray  # (T, 2) bool
    bears: np.ndarray  # (T, 2) weights: 1 for a foot that stands, fading before and after

    @classmethod
    def of(cls, world: np.ndarray, joints: np.ndarray) -> "Stance":
        """Return the stance of world rotations (T, 22, 3, 3) and positions (T, 22, 3)."""
        soles = np.min(
            [joints[:, parts, 1] + world[:, parts, 1] @ np.array(point) for parts, point in SOLE], axis=0
        )  # (T, 2)
        others = [joint for joint in range(JOINTS) if joint not in (*ANKLES, *FEET)]
        floor = np.quantile(np.minimum(soles.min(axis=1), joints[:, others, 1].min(axis=1) - FLESH), FLOOR_SHARE)
        heights = np.maximum(soles - floor, 0)
        near = 1 - smoothstep(np.clip((heights - NEAR) / (FAR - NEAR), 0, 1))
        stands = standing_feet(joints)
        return cls(joints - (0, floor, 0), world, heights, near, stands, near * _faded(np.ones(stands.shape), stands))


def _faded(values: np.ndarray, stands: np.ndarray) -> np.ndarray:
    """Return the values (T, 2) of standing feet, faded over ``FADE`` frames before and after."""
    frames = np.arange(len(values))[:, None]
    last = np.maximum.accumulate(np.where(stands, frames, -FADE), axis=0)  # last standing frame up to each frame
    following = np.minimum.accumulate(np.where(stands, frames, len(values) + FADE)[::-1], axis=0)[::-1]
    width = np.minimum(FADE, following - last)  # in a short gap one value blends into the next
    result = np.where(stands, values, 0)
    for edge in (last, following):
        share = np.where(stands, 0, 1 - smoothstep(np.minimum(np.abs(frames - edge) / np.maximum(width, 1), 1)))
        result += share * np.take_along_axis(values, np.clip(edge, 0, len(values) - 1), axis=0)
    return result


def ground(character: "Character", world: np.ndarray, stance: Stance) -> "Posed":
    """Pose a character with its feet where those of the source stand.

    Args:
        world: World rotations (T, 22, 3, 3) of the joints; those of pelvis, legs and feet are changed in place.
        stance: The feet of the source.
    """
    joints = character.bones.joints
    hips = stance.joints[:, HIPS].mean(axis=1)  # (T, 3)
    heights = stance.joints[:, ANKLES, 1] + [character.soles[side].height - UNDER_ANKLE for side in SIDES]  # (T, 2)
    posed = character.pose(world, hips)
    bones = [joints[f"{side}_ankle"] for side in SIDES]
    world[:, 0] = _pelvis_turns(character, posed, heights - posed.places[:, bones, 1], stance) @ world[:, 0]
    posed = character.pose(world, hips)
    off = heights - posed.places[:, bones, 1]
    lift = _lift(off, stance.near * np.maximum(stance.bears, FREE))
    rises = _faded(_beyond(off - lift[:, None], TOLERANCE), stance.stands)
    hips[:, 1] += lift
    heights = np.stack([_pitch(character, side, world, posed, lift + rises[:, side], stance) for side in range(2)], 1)
    off = stance.heights - heights
    held = _faded(np.maximum(off - TOLERANCE, 0) + np.minimum(off + FLOATING, 0), stance.stands)
    rises += held + np.where(stance.stands, 0, np.maximum(-heights - held - SUNK, 0))
    posed = character.pose(world, hips)
    steps = _glide(character, hips, posed, stance)
    legs = unit(posed.places[:, bones] - posed.places[:, [joints[f"{side}_hip"] for side in SIDES]])
    along = (steps * legs).sum(axis=-1)
    steps -= np.where(stance.stands, 0, along)[..., None] * legs  # this component would bend a leg that is free
    steps[..., 1] += rises
    places = np.zeros((len(world), JOINTS, 3))
    for name, bone in joints.items():
        places[:, JOINT_NAMES.index(name)] = posed.places[:, bone]
    for number, leg in enumerate(LEGS.values()):
        move_end(leg, world, places, steps[:, number])
    return character.pose(world, hips)


def _beyond(values: np.ndarray, tolerance: float) -> np.ndarray:
    return np.sign(values) * np.maximum(np.abs(values) - tolerance, 0)


def _pelvis_turns(character: "Character", posed: "Posed", off: np.ndarray, stance: Stance) -> np.ndarray:
    """Return rotations (T, 3, 3) of the pelvis about its forward axis and about the vertical axis.

    The first makes both ankles off (T, 2) their heights by the same; the second lets two standing feet move alike.
    """
    hips = posed.places[:, [character.bones.joints[f"{side}_hip"] for side in SIDES]]
    across = (hips[:, 0] - hips[:, 1]) * (1, 0, 1)
    width = np.maximum(np.linalg.norm(across, axis=-1), 0.01)  # (T,)
    forward = unit(np.cross(across, UP))
    weights = stance.near.prod(axis=1)
    rolls = _smoothest(weights, weights * np.clip((off[:, 0] - off[:, 1]) / width, -STEEPEST, STEEPEST))
    steps = np.diff(_ball_offsets(character, posed, stance), axis=0)  # (T - 1, 2, 3)
    apart = ((steps[:, 0] - steps[:, 1]) * forward[1:]).sum(axis=1) / width[1:]
    both = (stance.stands[1:] & stance.stands[:-1]).all(axis=1).astype(float)
    turns = _smoothest_steps(both, -both * apart)
    return turn_about(UP, turns) @ _turns_about(forward, rolls)


def _ball_offsets(character: "Character", posed: "Posed", stance: Stance) -> np.ndarray:
    """Return the horizontal steps (T, 2, 3) from the balls of the feet to those of the source; or from the ankles."""
    joints = character.bones.joints
    ends = [f"{side}_foot" if f"{side}_foot" in joints else f"{side}_ankle" for side in SIDES]
    sources = stance.joints[:, [JOINT_INDEX[end] for end in ends]]
    return (sources - posed.places[:, [joints[end] for end in ends]]) * (1, 0, 1)


def _turns_about(axes: np.ndarray, radians: np.ndarray) -> np.ndarray:
    """Return rotations (T, 3, 3) about axes (T, 3)."""
    return Rotation.from_rotvec(axes * radians[:, None]).as_matrix()


def _lift(off: np.ndarray, near: np.ndarray) -> np.ndarray:
    """Return the vertical correction (T) of the hips for ankles that are off (T, 2) their heights."""
    middle = np.average(off, weights=near) if near.sum() > 0 else 0.0
    return middle + _smoothest(near.sum(axis=1), (near * (off - middle)).sum(axis=1))


def _pitch(
    character: "Character", side: int, world: np.ndarray, posed: "Posed", rise: np.ndarray, stance: Stance
) -> np.ndarray:
    """Rotate a foot about its ankle, by the angle that puts the lowest point of its sole on the wanted height.

    The toes bend upward before, where they would be below. The angle follows by five Gauss-Newton steps on a soft
    minimum. A foot that stands on the tips of its toes has to rise or sink instead.

    Args:
        side: 0 for left, 1 for right.
        rise: Heights (T) by which the ankle will be moved before.

    Returns:
        Heights (T) of the lowest point of the sole after the rotation.
    """
    joints, soles = character.bones.joints, character.soles[SIDES[side]]
    ankle, toes = joints[f"{SIDES[side]}_ankle"], joints.get(f"{SIDES[side]}_foot", -1)
    lateral = world[:, ANKLES[side], :, 0] * (1, 0, 1)
    flat = np.linalg.norm(lateral, axis=-1)  # 0 for a foot that lies on its side
    axes = unit(lateral)
    forward = np.cross(axes, UP)
    points = soles.places(posed.turns, posed.places)  # (T, P, 3)
    of_toes = soles.bones == toes
    base = posed.places[:, ankle, 1] + rise  # (T,) height of the ankle
    arms = points - posed.places[:, [ankle]]
    near = stance.near[:, side]
    wanted = near * stance.heights[:, side] + (1 - near) * np.maximum(base + arms[..., 1].min(axis=1), 0)

    def ahead(vectors: np.ndarray) -> np.ndarray:
        return np.einsum("tpi,ti->tp", vectors, forward)

    if of_toes.any():
        joint = posed.places[:, [toes]] - posed.places[:, [ankle]]
        toe = arms[:, of_toes] - joint
        rising = (character.rest_turns[toes] @ soles.points[of_toes].T)[2] > AHEAD
        bends = flat * _bend(toe[:, rising, 1], ahead(toe[:, rising]), wanted - base - joint[:, 0, 1])
        turn = _turns_about(axes, -bends)
        world[:, FEET[side]] = turn @ world[:, FEET[side]]
        arms[:, of_toes] = joint + toe @ turn.swapaxes(-1, -2)
    high, front = arms[..., 1], ahead(arms)
    angles = np.zeros(len(world))
    for _ in range(5):
        sin, cos = np.sin(angles)[:, None], np.cos(angles)[:, None]
        heights = base[:, None] + high * cos - front * sin
        weights = softmax(-heights / SOFT, axis=1)
        error = (weights * heights).sum(axis=1) - wanted
        slope = (weights * (-high * sin - front * cos)).sum(axis=1)
        step = (slope * error + STIFF**2 * angles) / (slope**2 + STIFF**2)
        angles -= np.clip(step, -PITCH_STEP, PITCH_STEP)
    angles *= flat
    heights = base[:, None] + high * np.cos(angles)[:, None] - front * np.sin(angles)[:, None]
    turn = _turns_about(axes, angles)
    for part in (ANKLES[side], FEET[side]):
        world[:, part] = turn @ world[:, part]
    return heights.min(axis=1)


def _bend(high: np.ndarray, front: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Return the smallest angles (T) by which toes bend upward to be above the wanted heights (T), by bisection.

    Args:
        high, front: Heights and distances to the front (T, P) of points of the toes, relative to their joint.
    """
    if not high.shape[1]:
        return np.zeros(len(high))
    low, up = np.zeros(len(high)), np.full(len(high), MOST_BENT)
    for _ in range(12):
        middle = (low + up) / 2
        lowest = (high * np.cos(middle)[:, None] + front * np.sin(middle)[:, None]).min(axis=1)
        low, up = np.where(lowest < wanted, middle, low), np.where(lowest < wanted, up, middle)
    return np.where(high.min(axis=1) >= wanted, 0, up)


def _glide(character: "Character", hips: np.ndarray, posed: "Posed", stance: Stance) -> np.ndarray:
    """Glide the hips (T, 3), in place; return the steps (T, 2, 3) that are left to the ankles, horizontal."""
    off = _ball_offsets(character, posed, stance)
    both = (stance.stands[1:] & stance.stands[:-1]).astype(float)  # (T - 1, 2)
    speed = (both[..., None] * np.diff(off, axis=0)).sum(axis=1)  # (T - 1, 3)
    shift = np.stack([_smoothest_steps(both.sum(axis=1), speed[:, axis]) for axis in (0, 2)], axis=1)
    hips[:, [0, 2]] += shift
    off[..., [0, 2]] -= shift[:, None]
    return np.stack([held_steps(-off[:, side], stance.stands[:, side]) for side in range(2)], axis=1)


def _smoothest(weights: np.ndarray, pulls: np.ndarray) -> np.ndarray:
    """Minimize sum_t (w_t r_t^2 - 2 p_t r_t) + SMOOTH |r''|^2 + KEEP |r|^2 over r (T)."""
    bands = _smoothness(len(weights))
    bands[-1] += weights
    return solveh_banded(bands, pulls)


def _smoothest_steps(weights: np.ndarray, pulls: np.ndarray) -> np.ndarray:
    """Minimize STEP sum_t (w_t s_t^2 - 2 p_t s_t) + SMOOTH |r''|^2 + KEEP |r|^2 with the steps s of r (T)."""
    bands = _smoothness(len(weights) + 1)
    right = np.zeros(len(weights) + 1)
    for sign, part in ((1, slice(1, None)), (-1, slice(None, -1))):
        bands[-1, part] += STEP * weights
        right[part] += sign * STEP * pulls
    bands[-2, 1:] -= STEP * weights
    return solveh_banded(bands, right)


def _smoothness(count: int) -> np.ndarray:
    """Return the upper bands (3, T) of SMOOTH D^T D + KEEP, with the second differences D."""
    bands = np.zeros((3, count))
    bands[-1] = KEEP
    for place, here in enumerate((1.0, -2.0, 1.0)):
        for other, there in enumerate((1.0, -2.0, 1.0)):
            if other >= place and count > 2:
                bands[2 - (other - place), other : count - 2 + other] += SMOOTH * here * there
    return bands
