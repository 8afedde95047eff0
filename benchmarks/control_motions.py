"""Motions that benchmarks/control.py generates under constraints, and what is measured on them."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from benchmarks.control_paths import paths
from control.constraints import Constraints, Pin, RootPath
from control.paths import distances
from control.poses import Keyframe, MotionFrames
from dataset.captions import CaptionRules
from editing.loops import loop
from evaluation.evaluators.interface import Caption, Evaluator
from evaluation.physical.skating import skating
from evaluation.recorded import Recorded
from models.pipeline import Motion, TextToMotion
from motion.clip import Clip
from motion.features272 import features_to_smplx85, heading_angle
from motion.measures import frame_acceleration
from motion.resample import FPS
from motion.rotation import y_rotation
from motion.skeleton import JOINT_INDEX, forward_kinematics
from motion.smplx import smplx85_to_motion

FREE_SECONDS = 6.0
FREE_KEYFRAMES = 16  # free motions per prompt of motions with keyframes, whose prompts are many
KEYFRAMES = (1.5, 3.0, 4.5)  # seconds
AROUND = 15  # frames before and after a keyframe
WRISTS = {"a person raises the right hand": "right", "a person waves with the left hand": "left"}
PLACE = (0.3, 1.25, 0.3)  # metres to the side, up and ahead, of a pinned wrist
SPAN = (2.0, 3.0)  # seconds of the pin
LOOPED = ("a person walks", "a person runs", "a person waves with the right hand", "a person dances")


class Recognition:
    """Recognition of actions: the one whose caption is nearest to a motion in the space of an evaluator.

    Args:
        evaluator: Evaluator of the 272 features.
        rules: Rules of the captions of the data; the first phrase of each content is its caption.
    """

    def __init__(self, evaluator: Evaluator, rules: Path) -> None:
        contents = CaptionRules.from_yaml(rules).contents
        self.evaluator, self.actions = evaluator, list(contents)
        self.captions = evaluator.embed_texts([Caption(f"a person {phrases[0]}") for phrases in contents.values()])

    def __call__(self, motions: Sequence[Motion]) -> list[str]:
        """Return the action of each motion; its final poses are encoded, not its tokens."""
        embedded = self.evaluator.embed_motions([Clip(motion.smplx85).features() for motion in motions])  # (N, D)
        return [self.actions[nearest] for nearest in (embedded @ self.captions.T).argmax(axis=1)]


class FreeMotions:
    """Motions of a prompt without constraints, with which others are compared."""

    def __init__(self, model: TextToMotion, prompt: str, count: int) -> None:
        motions = model.generate([prompt] * count, list(range(count)), seconds=[FREE_SECONDS] * count)
        self.joints = [motion.joints for motion in motions]
        self.limit = np.quantile(np.concatenate([frame_acceleration(joints) for joints in self.joints]), 0.999)

    def relative_skating(self, clips: Sequence[np.ndarray]) -> float:
        """Return the mean skating ratio of clips of joints (T, 22, 3) divided by that of the free motions."""
        return skating_ratio(clips) / skating_ratio(self.joints)


def skating_ratio(clips: Sequence[np.ndarray]) -> float:
    """Return the mean share of frames in which a foot skates, as in GMD, of clips of joints (T, 22, 3)."""
    return float(np.mean([skating(joints[None], FPS).ratio for joints in clips]))


def above(clips: Sequence[np.ndarray], limit: float) -> int:
    """Return the number of frames of clips of joints (T, 22, 3) whose acceleration exceeds a limit."""
    return sum(int((frame_acceleration(joints) > limit).sum()) for joints in clips)


class Followed(NamedTuple):
    """Motions along paths."""

    motions: list[Motion]
    distances: list[float]  # metres of the pelvis from the path, mean over frames
    ends: list[float]  # metres from the pelvis in the last frame to the end of the path


def follow_paths(model: TextToMotion, prompt: str, most: int) -> Followed:
    """Generate a motion along each path."""
    lines = list(paths().values())[:most]
    asked = [Constraints(path=RootPath(tuple(map(tuple, line.tolist())))) for line in lines]
    motions = model.generate([prompt] * len(lines), list(range(len(lines))), constraints=asked)
    places = [motion.joints[:, 0][:, [0, 2]] for motion in motions]  # (T, 2) each
    return Followed(
        motions,
        [float(distances(line, place).mean()) for line, place in zip(lines, places, strict=True)],
        [float(np.linalg.norm(place[-1] - line[-1])) for line, place in zip(lines, places, strict=True)],
    )


class Poses(NamedTuple):
    """A prompt, and poses of recorded clips that have it as a caption or share one with a clip that has."""

    prompt: str
    keyframes: tuple[Keyframe, ...]


def poses_of_clips(recorded: Recorded, placed: bool, most: int) -> list[Poses]:
    """Draw three poses for each group of recorded clips with equivalent captions.

    Args:
        recorded: Recorded clips.
        placed: Give places on a line, at the mean velocity of the first clip of the group, and directions.
        most: Largest number of groups.
    """
    random, found = np.random.default_rng(0), []
    groups = recorded.groups()
    for group in np.unique(groups)[:most]:
        members = np.flatnonzero(groups == group)
        clips = [Clip(features_to_smplx85(recorded.features(number))) for number in members]
        pelvis = smplx85_to_motion(clips[0].smplx85)[1]
        velocity = (pelvis[-1] - pelvis[0])[[0, 2]] / len(pelvis) * FPS
        keyframes = []
        for time in KEYFRAMES:
            clip = clips[random.integers(len(clips))]
            pose = MotionFrames.of(clip, int(random.integers(len(clip.smplx85))))
            facing = float(np.rad2deg(heading_angle(pose.rotations[0, 0]))) if placed else None
            place = tuple((velocity * time).tolist()) if placed else "free"
            keyframes.append(Keyframe(time, pose, place, facing))
        found.append(Poses(recorded.captions[members[0]][0].text, tuple(keyframes)))
    return found


def keyframe_motions(model: TextToMotion, recorded: Recorded, placed: bool, most: int) -> tuple[list[float], list[int]]:
    """Generate motions through three poses each.

    Returns:
        Largest error of a joint in metres at each keyframe, and the number of frames around it whose acceleration is
        above the 99.9th percentile of free motions.
    """
    asked = poses_of_clips(recorded, placed, most)
    prompts, numbers = [each.prompt for each in asked], list(range(len(asked)))
    constraints = [Constraints(keyframes=each.keyframes, length=FREE_SECONDS) for each in asked]
    motions = model.generate(prompts, numbers, constraints=constraints)
    errors, jumps = [], []
    for each, motion in zip(asked, motions, strict=True):
        limit = FreeMotions(model, each.prompt, FREE_KEYFRAMES).limit
        for keyframe in each.keyframes:
            frame = round(keyframe.time * FPS)
            errors.append(keyframe_error(motion, frame, keyframe))
            jumps.append(above([motion.joints[frame - AROUND : frame + AROUND + 1]], limit))
    return errors, jumps


def keyframe_error(motion: Motion, frame: int, keyframe: Keyframe) -> float:
    """Return the largest distance in metres of a joint from a keyframe, in the world or relative to the root.

    If the keyframe has no place, both poses are over the origin and face +z.
    """
    rotations, pelvis = smplx85_to_motion(motion.smplx85[frame].astype(np.float64))
    asked, place = (part[0] for part in keyframe.pose.moved(keyframe.place, keyframe.facing))
    if keyframe.place == "free":
        (rotations, pelvis), (asked, place) = facing_forward(rotations, pelvis), facing_forward(asked, place)
    difference = forward_kinematics(rotations, pelvis) - forward_kinematics(asked, place)
    return float(np.linalg.norm(difference, axis=-1).max())


def facing_forward(rotations: np.ndarray, pelvis: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return a pose (22, 3, 3) that faces +z, and its pelvis (3,) over the origin."""
    root = y_rotation(-heading_angle(rotations[:1])) @ rotations[:1]
    return np.concatenate((root, rotations[1:])), pelvis * (0, 1, 0)


def pin_errors(model: TextToMotion, most: int) -> list[float]:
    """Return the largest distance in metres of a pinned wrist from its place, in each of 16 motions."""
    errors = []
    for prompt, side in WRISTS.items():
        place = np.array(PLACE) * (1 if side == "left" else -1, 1, 1)  # the left side is toward +x
        pinned = Constraints(pins=(Pin(f"{side}_wrist", tuple(place.tolist()), *SPAN),), length=FREE_SECONDS)
        count = min(8, most)
        motions = model.generate([prompt] * count, list(range(count)), constraints=[pinned] * count)
        frames = slice(round(SPAN[0] * FPS), round(SPAN[1] * FPS) + 1)
        wrist = JOINT_INDEX[f"{side}_wrist"]
        errors += [float(np.linalg.norm(each.joints[frames, wrist] - place, axis=-1).max()) for each in motions]
    return errors


def loops(model: TextToMotion, most: int) -> tuple[list[bool], list[bool]]:
    """Make loops of generated motions, two cycles each.

    Returns:
        Whether the velocity, and the acceleration, of the fastest joint at the seam is at most the 99th percentile of
        those inside the cycle.
    """
    slow, smooth = [], []
    prompts = [prompt for prompt in LOOPED for _ in range(min(8, most))]
    for motion in model.generate(prompts, list(range(len(prompts))), seconds=[FREE_SECONDS] * len(prompts)):
        cycles = loop(Clip(motion.smplx85), repeats=2)
        joints = forward_kinematics(*smplx85_to_motion(cycles.smplx85.astype(np.float64)))
        seam = len(joints) // 2  # first frame of the second cycle
        velocity = np.linalg.norm(np.diff(joints, axis=0), axis=-1).max(axis=1)
        acceleration = frame_acceleration(joints)  # number t is that of frame t + 1
        slow.append(bool(velocity[seam - 1] <= np.quantile(velocity[: seam - 1], 0.99)))
        smooth.append(bool(acceleration[seam - 2 : seam].max() <= np.quantile(acceleration[: seam - 2], 0.99)))
    return slow, smooth
