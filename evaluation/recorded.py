"""The recorded clips of a split that an evaluation takes, and motions in the representation of an evaluator."""

import math
from collections import Counter
from contextlib import suppress

import numpy as np
import torch

from dataset.caption_groups import caption_groups
from dataset.captions import CaptionStyle
from dataset.clips import Clips
from dataset.motion_folder import MotionFolder
from dataset.splits import SPLITS
from evaluation.evaluators.interface import Caption, Evaluator
from evaluation.protocol import crop, takes
from evaluation.text_motion import POOL
from motion.features263 import HUMANML3D, features_from_joints
from motion.features272 import FEATURES, LAYOUT, recover_joints_fk
from motion.resample import FPS, resample_positions
from utils.errors import InputError
from utils.prompts import Prompt
from utils.reading.texts import read_lines

SHORTEST = 4  # frames at 30 fps; physical measures take a third derivative


class Recorded:
    """The captioned clips of a split that belong to the protocol of an evaluator.

    Args:
        folder: Data folder.
        split: Name of the split.
        evaluator: Evaluator whose limits of length apply; None for any length.

    Attributes:
        rows: (N,) numbers of the clips in the split.
        names: N names.
        captions: Captions of each clip; those that are no valid prompts are left out.
        left_out: Number of clips and captions left out, by reason.

    Raises:
        InputError: the split is missing or no clip of it can be used.
    """

    def __init__(self, folder: MotionFolder, split: str, evaluator: Evaluator | None = None):
        self.folder, self.split = folder, split
        self.clips: Clips = folder.clips(split)
        self.rows: list[int] = []
        self.names: list[str] = []
        self.captions: list[list[Caption]] = []
        self.left_out: Counter[str] = Counter()
        for row in range(len(self.clips)):
            clip = self.clips[row]
            if not is_taken(evaluator, clip.frames):
                self.left_out[f"clips of other lengths than {describe_limits(evaluator)}"] += 1
                continue
            texts = [text for text in clip.captions if is_prompt(text)]
            self.left_out["captions that are no prompts"] += len(clip.captions) - len(texts)
            if not texts:
                self.left_out["clips without a caption"] += 1
                continue
            tokens = word_tokens(folder, split, clip.id) if evaluator and evaluator.features != FEATURES else {}
            self.rows.append(row)
            self.names.append(clip.name)
            self.captions.append([Caption(text, tokens.get(text, "")) for text in texts])
        if not self.rows:
            raise InputError(f"no clip of the split {split} can be evaluated: {self.describe_left_out()}")

    def __len__(self) -> int:
        return len(self.rows)

    def features(self, number: int) -> np.ndarray:
        """Return the features (T, 272) of a clip."""
        return self.clips.features(self.clips[self.rows[number]])

    def groups(self) -> np.ndarray:
        """Return integers (N,) equal for clips that share a caption, directly or through others of any split."""
        captions = [[caption.text for caption in captions] for captions in self.captions]
        for split in SPLITS:
            with suppress(InputError):  # a split that the folder does not have
                captions += self.folder.clips(split, required=False).table["captions"].to_pylist()
        return caption_groups(captions)[: len(self)]

    def describe_left_out(self) -> str:
        """Return what is left out, with the reasons, or "" if nothing is."""
        ours = (f"{count:,} {reason}" for reason, count in self.left_out.items() if count)
        return ", ".join(filter(None, (self.clips.describe_left_out(), *ours)))


def is_prompt(text: str) -> bool:
    """Return whether a caption is a valid prompt of a generator."""
    try:
        Prompt.parse(text)
    except InputError:
        return False
    return True


def word_tokens(folder: MotionFolder, split: str, clip_id: str) -> dict[str, str]:
    """Return the word tokens of the captions of a clip, where its caption file has them: ``caption#tokens#...``."""
    if folder.layout.captions is CaptionStyle.LINE:
        return {}
    lines = read_lines(folder.path / folder.layout.text_folder(split) / f"{clip_id}.txt", "captions")
    parts = (line.rsplit("#", 3) for line in lines if line.count("#") >= 3)
    return {caption.strip(): tokens.strip() for caption, tokens, *_ in parts}


# --- Representation of an evaluator


def check_representation(evaluator: Evaluator) -> None:
    """Raise InputError unless motions of this project can be converted to the features of an evaluator."""
    if evaluator.features not in (FEATURES, HUMANML3D.width):
        raise InputError(
            f"the evaluator {evaluator.name} takes {evaluator.features} features of another skeleton (KIT-ML has 21 "
            f"joints of its own); use an evaluator of {FEATURES} or {HUMANML3D.width} features"
        )


def is_taken(evaluator: Evaluator | None, frames: int) -> bool:
    """Return whether a clip of so many frames at 30 fps is evaluated."""
    fits = evaluator is None or takes(evaluator, converted_frames(evaluator, frames))
    return fits and frames >= SHORTEST


def describe_limits(evaluator: Evaluator | None) -> str:
    """Describe the lengths of clips that are evaluated."""
    if evaluator is None:
        return f"at least {SHORTEST} frames"
    return f"{evaluator.min_frames} to {evaluator.max_frames} frames at {evaluator.fps:g} fps ({evaluator.name})"


def draw_part(evaluator: Evaluator, frames: int, random: np.random.RandomState) -> slice:
    """Draw the part of a converted clip that enters a repeat; a clip that would become too short stays whole."""
    part = crop(frames, random, 0 if evaluator.features == FEATURES else 1 / 3)
    return part if part.stop - part.start >= evaluator.min_frames else slice(0, frames)


def converted_frames(evaluator: Evaluator, frames: int) -> int:
    """Return the number of frames that ``convert`` makes of frames at 30 fps."""
    if evaluator.features == FEATURES:
        return frames
    return math.floor((frames - 1) * HUMANML3D.fps / FPS + 1e-6)  # a row of these features is a step between frames


def convert(evaluator: Evaluator, features: np.ndarray) -> np.ndarray:
    """Convert features (T, 272) to those of an evaluator, (T', D) float32 at its frame rate."""
    if evaluator.features == FEATURES:
        return features.astype(np.float32, copy=False)
    joints = resample_positions(joints_of(features).astype(np.float64), FPS, HUMANML3D.fps)
    return features_from_joints(joints, HUMANML3D).astype(np.float32)


def convert_any_length(evaluator: Evaluator, features: np.ndarray) -> np.ndarray:
    """Convert features (T, 272) of any length: longer motions are cut, and the last pose of shorter ones is held."""
    if converted_frames(evaluator, len(features)) < evaluator.min_frames:
        features = hold(features, math.ceil(evaluator.min_frames * FPS / evaluator.fps) + 1)
    return convert(evaluator, features)[: evaluator.max_frames]


def hold(features: np.ndarray, frames: int) -> np.ndarray:
    """Extend features (T, 272) to ``frames`` frames, in which the last pose stands still."""
    still = features[-1:].copy()
    still[:, LAYOUT["root_velocity"]] = still[:, LAYOUT["joint_velocities"]] = 0
    still[:, LAYOUT["heading_change"]] = (1, 0, 0, 0, 1, 0)
    return np.concatenate((features, np.repeat(still, max(0, frames - len(features)), axis=0)))


def joints_of(features: np.ndarray) -> np.ndarray:
    """Return the joints (T, 22, 3) in metres of features (T, 272), by forward kinematics."""
    return recover_joints_fk(torch.from_numpy(np.asarray(features, np.float32))).numpy()


def check_pool(
    count: int,
    subject: str = "clips of the split that the evaluator takes",
    advice: str = "use a larger split, or an evaluator that takes more of its clips",
) -> None:
    """Raise InputError if there are fewer clips or motions, named ``subject``, than a pool of R-precision has."""
    if count < POOL:
        raise InputError(f"there are {count} {subject}, fewer than the {POOL} of a pool of R-precision; {advice}")
