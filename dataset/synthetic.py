"""Procedural motion for tests and for training without motion capture data.

An action is a table of joint angles at equally spaced phases of one cycle. A clip interpolates this table with random
tempo, amplitude and number of cycles. The path of the body follows from the feet that stand on the floor.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from scipy.interpolate import PchipInterpolator
from scipy.ndimage import gaussian_filter1d
from scipy.special import softmax

from motion.resample import FPS
from motion.rotation import axis_angle_to_matrix, y_rotation
from motion.skeleton import JOINT_INDEX, JOINT_NAMES, REST_OFFSETS, forward_kinematics, mirror
from motion.spread import smoothstep
from utils.errors import InputError


class SyntheticClip(NamedTuple):
    """A procedural clip at 30 frames per second."""

    name: str  # unique; starts with the action
    rotations: np.ndarray  # (T, 22, 3, 3) float32, local; the pelvis' is its world rotation
    pelvis: np.ndarray  # (T, 3) float32, world position in metres; the floor is at y = 0
    captions: list[str]


@dataclass(frozen=True)
class Action:
    """One kind of motion. An action with a side is described for the right side; ``{side}`` is filled in."""

    phrases: tuple[str, ...]
    """Captions without their subject; ``{pace}`` becomes " slowly", " quickly" or nothing."""
    tracks: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    """Angles in degrees at equally spaced phases of the cycle, by ``joint.axis``; a single value is constant.

    A joint without a side means both sides: the right one is mirrored and, in a gait, half a cycle later. Forward bends
    of the trunk, backward swings of a limb and knee bends have positive pitch. Yaw and roll have the signs of the left
    side. ``ankle.pitch`` is the slope of the sole relative to the floor, positive with the toes down.
    """
    period: float = 1.5
    """Seconds per cycle."""
    flight: tuple[float, ...] = (0.0,)
    """Height of the lower foot above the floor in metres, at equally spaced phases."""
    gait: bool = False
    """Whether the cycle runs from the first to the last frame; otherwise the clip starts and ends in standing."""
    turn: tuple[float, float] = (0.0, 0.0)
    """Range of the turn to the right in degrees."""


# Phase 0 is the strike of the left heel. The legs approximate the sagittal curves of gait analysis (Winter 2009).
WALK = {
    "hip.pitch": (-28, -24, -12, 0, 11, 6, -18, -30),
    "knee.pitch": (5, 18, 13, 6, 10, 40, 62, 30),
    "ankle.pitch": (-14, 0, 0, 2, 18, 55, 42, 2),
    "pelvis.yaw": (-5, -3, 0, 3, 5, 3, 0, -3),
    "spine2.yaw": (8, 6, 0, -6, -8, -6, 0, 6),
    "shoulder.pitch": (20, 15, 0, -14, -20, -14, 0, 15),
    "elbow.yaw": (-12, -14, -18, -24, -28, -24, -18, -14),
    "pelvis.pitch": (2,),
}
RUN = {
    "hip.pitch": (-38, -28, -6, 14, 16, -12, -44, -50),
    "knee.pitch": (22, 40, 34, 20, 48, 98, 96, 48),
    "ankle.pitch": (0, 0, 4, 42, 75, 85, 55, 8),
    "pelvis.yaw": (-8, -5, 0, 5, 8, 5, 0, -5),
    "spine2.yaw": (14, 10, 0, -10, -14, -10, 0, 10),
    "shoulder.pitch": (42, 30, 4, -22, -36, -22, 4, 30),
    "elbow.yaw": (-85,),
    "pelvis.pitch": (6,),
    "spine1.pitch": (5,),
}
STEP = {
    "hip.pitch": (0, 0, 0, 0, -10, -28, -28, -10),
    "knee.pitch": (4, 2, 2, 4, 25, 55, 50, 20),
    "ankle.pitch": (0, 0, 0, 0, 12, 25, 15, 0),
    "shoulder.pitch": (4, 2, 0, -2, -4, -2, 0, 2),
}
WALK_BACKWARD = {key: (values[0], *values[:0:-1]) for key, values in WALK.items()}  # the cycle in reversed time

GUARD = {"shoulder.pitch": (-35,), "elbow.yaw": (-115,), "hip.pitch": (-12,), "knee.pitch": (22,), "spine1.pitch": (6,)}

ACTIONS = {
    "walk": Action(
        (
            "walks forward{pace}",
            "walks{pace}",
            "takes steps forward{pace}",
            "walks straight ahead{pace}",
            "strolls along{pace}",
        ),
        WALK,
        period=1.1,
        gait=True,
    ),
    "run": Action(
        ("runs forward{pace}", "runs{pace}", "jogs{pace} straight ahead", "is running{pace}"),
        RUN,
        period=0.75,
        flight=(0, 0, 0, 0.04) * 2,
        gait=True,
    ),
    "walk_backward": Action(
        ("walks backward{pace}", "steps backward{pace}", "walks backwards{pace}", "backs away{pace}"),
        WALK_BACKWARD,
        period=1.25,
        gait=True,
    ),
    "walk_turn_{side}": Action(
        (
            "walks and turns {side}{pace}",
            "walks forward, then turns to the {side}{pace}",
            "makes a {side} turn while walking{pace}",
            "walks{pace} in a curve to the {side}",
        ),
        WALK,
        period=1.1,
        gait=True,
        turn=(70, 120),
    ),
    "turn_{side}": Action(
        (
            "turns {side} on the spot{pace}",
            "turns the body to the {side}{pace}",
            "stands and turns to the {side}{pace}",
            "turns to the {side} in place{pace}",
        ),
        STEP,
        period=1.0,
        gait=True,
        turn=(80, 180),
    ),
    "step_in_place": Action(
        ("marches in place{pace}", "steps on the spot{pace}", "walks in place{pace}"), STEP, period=1.0, gait=True
    ),
    "stand": Action(
        ("stands still", "stands", "waits without moving", "stays in place"),
        {"spine2.pitch": (0, 1, 2, 1), "head.yaw": (0, 4, 0, -4), "shoulder.roll": (0, 1, 2, 1)},
        period=3.0,
    ),
    "jump": Action(
        ("jumps{pace}", "jumps up{pace}", "hops up from the floor{pace}", "leaps into the air{pace}"),
        {
            "hip.pitch": (0, -15, -50, -60, -4, -10, -16, -10, -8, -45, -35, -10),
            "knee.pitch": (0, 25, 75, 90, 8, 12, 25, 15, 12, 70, 52, 14),
            "ankle.pitch": (0, 0, 0, 0, 35, 50, 45, 40, 15, 0, 0, 0),
            "spine1.pitch": (0, 8, 22, 26, 4, 0, 0, 2, 5, 18, 14, 4),
            "shoulder.pitch": (0, 20, 40, 30, -40, -100, -125, -110, -75, -40, -15, 0),
        },
        period=1.6,
        flight=(0, 0, 0, 0, 0, 0.22, 0.3, 0.22, 0, 0, 0, 0),
    ),
    "squat": Action(
        (
            "squats{pace}",
            "does a squat{pace}",
            "bends the knees and squats down{pace}",
            "crouches down and stands up again{pace}",
        ),
        {
            "hip.pitch": (0, -45, -95, -95, -95, -45),
            "knee.pitch": (0, 55, 112, 112, 112, 55),
            "pelvis.pitch": (0, 8, 16, 16, 16, 8),
            "spine2.pitch": (0, 6, 12, 12, 12, 6),
            "shoulder.pitch": (0, -40, -75, -75, -75, -40),
        },
        period=2.0,
    ),
    "bow": Action(
        ("bows{pace}", "takes a bow{pace}", "bends forward{pace}", "bows politely{pace}"),
        {
            "pelvis.pitch": (26,),
            "hip.pitch": (-30,),
            "spine1.pitch": (10,),
            "spine2.pitch": (10,),
            "spine3.pitch": (8,),
            "neck.pitch": (12,),
            "shoulder.pitch": (-35,),
        },
    ),
    "wave_{side}_hand": Action(
        (
            "waves with the {side} hand{pace}",
            "waves the {side} hand{pace}",
            "greets someone with the {side} hand",
            "lifts the {side} arm and waves{pace}",
        ),
        {
            "right_shoulder.roll": (75,),
            "right_elbow.roll": (70, 40, 70, 100),
            "right_wrist.roll": (0, -15, 0, 15),
        },
        period=0.7,
    ),
    "wave_both_hands": Action(
        ("waves with both hands{pace}", "waves both hands{pace}", "lifts both arms and waves{pace}"),
        {"shoulder.roll": (75,), "elbow.roll": (70, 40, 70, 100), "wrist.roll": (0, -15, 0, 15)},
        period=0.7,
    ),
    "raise_{side}_hand": Action(
        (
            "raises the {side} hand{pace}",
            "lifts the {side} arm{pace}",
            "puts the {side} hand up{pace}",
            "raises the {side} arm over the head{pace}",
        ),
        {"right_shoulder.pitch": (-150,), "right_collar.roll": (12,)},
    ),
    "raise_both_hands": Action(
        ("raises both hands{pace}", "lifts both arms{pace}", "puts both hands up{pace}"),
        {"shoulder.pitch": (-150,), "collar.roll": (12,)},
    ),
    "punch_{side}": Action(
        ("punches with the {side} hand{pace}", "throws a {side} punch{pace}", "boxes with the {side} fist{pace}"),
        {
            **GUARD,
            "spine2.yaw": (-6, -6, 22, 8),
            "right_shoulder.pitch": (0, 5, -50, -20),
            "right_shoulder.roll": (0, 0, -8, 0),
            "right_elbow.yaw": (0, -10, 105, 40),
        },
        period=0.9,
    ),
    "kick_{side}": Action(
        (
            "kicks with the {side} leg{pace}",
            "kicks forward with the {side} foot{pace}",
            "does a {side} front kick{pace}",
        ),
        {
            "right_hip.pitch": (0, 15, -55, -85, -60, -10),
            "right_knee.pitch": (0, 45, 85, 8, 60, 30),
            "right_ankle.pitch": (0, 30, 0, -45, -10, 5),
            "spine1.pitch": (0, 4, -4, -10, -4, 0),
            "shoulder.pitch": (0, -10, -25, -30, -20, -5),
            "elbow.yaw": (-5, -30, -50, -50, -40, -10),
        },
        period=1.3,
    ),
}

AXES = ("pitch", "yaw", "roll")  # about x (left), y (up), z (forward)
ARMS_DOWN = {"shoulder.roll": (-68,), "elbow.yaw": (-12,)}  # from the T-pose of the rest pose to standing
SUBJECTS = ("a person", "someone", "a man", "a woman", "the figure", "the person")
ANKLES = [JOINT_INDEX["left_ankle"], JOINT_INDEX["right_ankle"]]
TOES = [JOINT_INDEX["left_foot"], JOINT_INDEX["right_foot"]]
VARIANTS = [(name, side) for name in ACTIONS for side in (("right", "left") if "{side}" in name else ("",))]


def synthetic_clips(count: int, seed: int = 0) -> Iterator[SyntheticClip]:
    """Yield procedural clips with captions, cycling through all actions; clip i depends only on ``seed`` and i.

    A clip lasts 2 to 6 seconds. The person starts at the origin and faces +z approximately.

    Args:
        count: Number of clips, not negative.
        seed: Seed, not negative.

    Raises:
        InputError: ``count`` or ``seed`` is negative.
    """
    if count < 0 or seed < 0:
        raise InputError(f"count and seed must not be negative (got {count} and {seed})")
    for index in range(count):
        name, side = VARIANTS[index % len(VARIANTS)]
        rng = np.random.default_rng((seed, index))
        rotations, pelvis, captions = _perform(ACTIONS[name], side, rng)
        yield SyntheticClip(
            f"{name.format(side=side)}_{index:05d}", rotations.astype(np.float32), pelvis.astype(np.float32), captions
        )


def _perform(action: Action, side: str, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Rotations (T, 22, 3, 3), pelvis (T, 3) and captions of one random performance of an action."""
    tempo, amplitude = rng.uniform(0.75, 1.3), rng.uniform(0.85, 1.12)
    phase, strength, heading = _timing(action, action.period / tempo, rng)
    angles = _angles(action.tracks, phase, half_cycle=0.5 * action.gait) * amplitude * strength[:, None, None]
    angles += _angles(ARMS_DOWN, phase)
    for leg in (("left_hip", "left_knee", "left_ankle"), ("right_hip", "right_knee", "right_ankle")):
        hip, knee, ankle = (JOINT_INDEX[joint] for joint in leg)
        angles[:, ankle, 0] -= angles[:, [0, hip, knee], 0].sum(axis=1)  # the track is the slope of the sole
    rotations = _matrices(angles)
    rotations[:, 0] = y_rotation(heading) @ rotations[:, 0]
    if side == "left":
        rotations, _ = mirror(rotations, np.zeros((len(rotations), 3)))
    pelvis = _pelvis_path(rotations, amplitude * _interpolate(action.flight, phase))
    pace = " slowly" if tempo < 0.9 else " quickly" if tempo > 1.12 else ""
    captions = [
        f"{rng.choice(SUBJECTS)} {phrase.format(side=side, pace=rng.choice(('', pace)))}" for phrase in action.phrases
    ]
    return rotations, pelvis, captions


def _timing(action: Action, period: float, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Phase of the cycle, strength of the action (0: standing, 1: full) and heading in radians, each (T,)."""
    if action.gait:
        time = np.arange(round(rng.uniform(2, 6) * FPS)) / FPS
        start, end = time[-1] * rng.uniform(0.1, 0.3), time[-1] * rng.uniform(0.7, 0.9)
        turned = np.radians(rng.uniform(*action.turn)) * smoothstep(np.clip((time - start) / (end - start), 0, 1))
        return rng.uniform() + time / period, np.ones_like(time), -turned
    rise = 0.35 * period**0.5  # seconds of the transition from standing to the action and back
    cycles = rng.integers(1, max(2, (5.8 - 2 * rise) / period))
    duration = max(2.0, 2 * rise + cycles * period)
    time = np.arange(round(duration * FPS)) / FPS
    strength = smoothstep(np.clip(time / rise, 0, 1)) * smoothstep(np.clip((duration - time) / rise, 0, 1))
    return np.clip((time - rise) / period, 0, cycles), strength, np.zeros_like(time)


def _angles(tracks: Mapping[str, tuple[float, ...]], phase: np.ndarray, half_cycle: float = 0.0) -> np.ndarray:
    """Angles of all joints in radians, (T, 22, 3) in the order of ``AXES``, of tracks in degrees at ``phase`` (T,)."""
    angles = np.zeros((len(phase), len(JOINT_NAMES), 3))
    for key, values in tracks.items():
        joint, axis = key.split(".")
        for name in (joint,) if joint in JOINT_INDEX else (f"left_{joint}", f"right_{joint}"):
            on_right = name.startswith("right_")
            delay = half_cycle if on_right and name != joint else 0.0
            sign = -1 if on_right and axis != "pitch" else 1
            angles[:, JOINT_INDEX[name], AXES.index(axis)] += sign * np.radians(_interpolate(values, phase + delay))
    return angles


def _matrices(angles: np.ndarray) -> np.ndarray:
    """Rotation matrices (T, 22, 3, 3) of angles (T, 22, 3): roll, then pitch, then yaw, about the parent's axes."""
    pitch, yaw, roll = (axis_angle_to_matrix(angles[..., axis, None] * np.eye(3)[axis]) for axis in range(3))
    return yaw @ pitch @ roll


def _pelvis_path(rotations: np.ndarray, flight: np.ndarray) -> np.ndarray:
    """Pelvis in the world (T, 3): the lower foot is ``flight`` (T,) above the floor, standing feet are fixed."""
    feet = forward_kinematics(rotations, np.zeros((len(rotations), 3)))[:, ANKLES + TOES]  # (T, 4, 3)
    above_sole = np.repeat([-REST_OFFSETS[TOES, 1].mean(), 0.0], 2)
    height = feet[..., 1] - above_sole  # (T, 4)
    standing = softmax(-height / 0.01, axis=1) * (flight < 1e-3)[:, None]
    weight = (standing[1:] * standing[:-1])[..., None]  # (T - 1, 4, 1)
    moved = -(weight * np.diff(feet[..., [0, 2]], axis=0)).sum(axis=1)  # (T - 1, 2)
    smooth = [gaussian_filter1d(values, sigma=1.5, axis=0) for values in (moved, weight.sum(axis=1))]
    path = np.zeros((len(rotations), 3))
    path[1:, [0, 2]] = np.cumsum(smooth[0] / (smooth[1] + 1e-6), axis=0)
    path[:, 1] = flight - height.min(axis=1)
    return path


def _interpolate(values: tuple[float, ...], phase: np.ndarray) -> np.ndarray:
    """Interpolate values at equally spaced phases of a cycle: piecewise cubic, periodic, without overshoot."""
    count = len(values)
    knots = np.arange(-count, 2 * count + 1) / count
    return PchipInterpolator(knots, np.resize(values, len(knots)))(phase % 1.0)
