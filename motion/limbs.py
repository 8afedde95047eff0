"""Two-bone inverse kinematics of arms and legs.

A limb has an upper joint (hip, shoulder), a middle joint (knee, elbow) and an end (ankle, wrist). The upper and the
middle joint rotate so that the end reaches its target; the middle joint stays in its plane.
"""

from typing import NamedTuple

import numpy as np
from scipy.spatial.transform import Rotation

from motion.directions import shortest_turn, unit
from motion.skeleton import JOINT_INDEX

EASY = 0.985  # share of its length up to which a limb stretches with ease
REACH = 0.998  # share of its length that a stretched limb approaches, unless it was straighter before
FOLD = np.deg2rad(150)  # bend of knee and elbow to which a limb is folded at most, unless it was more bent before
STIFF = 0.003  # metres by which a limb that is straighter still stretches
STRAIGHT = 1e-6  # square metres: below this product of its bones, a limb has no plane


class Limb(NamedTuple):
    """Joints of a limb, and the axis of the upper joint about which a straight limb bends."""

    upper: int
    middle: int
    end: int
    axis: tuple[float, float, float]

    @property
    def joints(self) -> tuple[int, int, int]:
        return self.upper, self.middle, self.end


def _limb(side: str, names: tuple[str, str, str], axis: tuple[float, float, float]) -> Limb:
    upper, middle, end = (JOINT_INDEX[f"{side}_{name}"] for name in names)
    return Limb(upper, middle, end, axis)


LEGS = {side: _limb(side, ("hip", "knee", "ankle"), (1, 0, 0)) for side in ("left", "right")}
ARMS = {side: _limb(side, ("shoulder", "elbow", "wrist"), (0, sign, 0)) for side, sign in (("left", -1), ("right", 1))}


def move_end(
    limb: Limb, world: np.ndarray, joints: np.ndarray, steps: np.ndarray, exact: np.ndarray | None = None
) -> None:
    """Rotate the upper and the middle joint so that the end moves by the steps as far as the limb reaches.

    Near its full length, a limb bends by leaps: an end that moves evenly makes knee and elbow jump. Frames that need
    not be exact approach ``EASY`` gradually instead.

    Args:
        limb: The limb.
        world: (T, 22, 3, 3) world rotations, changed in place; that of the end stays.
        joints: (T, 22, 3) joint positions in metres; those of the middle joint and the end are changed in place.
        steps: (T, 3) displacement of the end in metres.
        exact: (T,) frames that use the whole reach of the limb; None means all.
    """
    moved = np.flatnonzero(np.abs(steps).max(axis=1) > 1e-6)  # (N,) frames
    upper = joints[moved, limb.middle] - joints[moved, limb.upper]  # (N, 3)
    lower = joints[moved, limb.end] - joints[moved, limb.middle]
    target = upper + lower + steps[moved]
    lengths = np.linalg.norm(upper, axis=1), np.linalg.norm(lower, axis=1)
    length = lengths[0] + lengths[1]
    before = np.linalg.norm(upper + lower, axis=1)
    shortest = np.sqrt(lengths[0] ** 2 + lengths[1] ** 2 + 2 * lengths[0] * lengths[1] * np.cos(FOLD))
    start, end = np.maximum(EASY * length, before), np.maximum(REACH * length, before + STIFF)
    if exact is not None:
        easy = before + np.maximum(EASY * length - before, STIFF)
        start = np.where(exact[moved], start, (before + easy) / 2)
        end = np.where(exact[moved], end, easy)
    distance = np.maximum(_saturated(np.linalg.norm(target, axis=1), start, end), np.minimum(shortest, before))

    def bend_at(chord: np.ndarray) -> np.ndarray:  # by the law of cosines; 0 for a straight limb
        cosine = (chord**2 - lengths[0] ** 2 - lengths[1] ** 2) / (2 * lengths[0] * lengths[1])
        return np.arccos(np.clip(cosine, -1, 1))

    hinge = unit(_across(world[moved, limb.upper] @ np.array(limb.axis, dtype=np.float64), unit(upper)))
    own = np.cross(upper, lower)
    own = unit(np.where(np.linalg.norm(own, axis=1, keepdims=True) < STRAIGHT, hinge, own))
    bend, wanted = bend_at(before), bend_at(distance)
    # A limb that was nearly straight has no reliable plane: the more it is bent, the more it bends about its hinge.
    kept = (np.minimum(bend / np.maximum(wanted, 1e-9), 1) ** 2)[:, None]
    axis = unit(kept * own + (1 - kept) * hinge)
    straightened = Rotation.from_rotvec(own * -bend[:, None])
    turn_middle = (Rotation.from_rotvec(axis * wanted[:, None]) * straightened).as_matrix()
    bent = upper + _apply(turn_middle, lower)
    turn = shortest_turn(bent, target)  # (N, 3, 3)
    world[moved, limb.upper] = turn @ world[moved, limb.upper]
    world[moved, limb.middle] = turn @ turn_middle @ world[moved, limb.middle]
    joints[moved, limb.middle] = joints[moved, limb.upper] + _apply(turn, upper)
    joints[moved, limb.end] = joints[moved, limb.upper] + _apply(turn, bent)


def _saturated(values: np.ndarray, start: np.ndarray, end: np.ndarray) -> np.ndarray:
    """Return values (N,) that stay up to ``start`` (N,) and beyond it approach ``end`` (N,) gradually."""
    room = np.maximum(end - start, 1e-9)
    return np.minimum(values, start - room * np.expm1(-np.maximum(values - start, 0) / room))


def _apply(turns: np.ndarray, vectors: np.ndarray) -> np.ndarray:
    """Return vectors (N, 3) rotated by turns (N, 3, 3)."""
    return (turns @ vectors[..., None])[..., 0]


def _across(vectors: np.ndarray, directions: np.ndarray) -> np.ndarray:
    """Return the part of vectors (N, 3) that is perpendicular to unit directions (N, 3)."""
    return vectors - (vectors * directions).sum(axis=1, keepdims=True) * directions


def out_of_reach(limb: Limb, joints: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Return the vectors (T, 3) by which targets (T, 3) of the end lie beyond the easy reach of a limb; 0 within it."""
    bones = np.diff(joints[:, limb.joints], axis=1)  # (T, 2, 3)
    longest = np.maximum(EASY * np.linalg.norm(bones, axis=2).sum(axis=1), np.linalg.norm(bones.sum(axis=1), axis=1))
    chord = targets - joints[:, limb.upper]
    distance = np.linalg.norm(chord, axis=1)
    return chord * np.maximum(1 - longest / np.maximum(distance, 1e-9), 0)[:, None]
