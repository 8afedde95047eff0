"""Groups of clips with equivalent captions."""

import re
from collections.abc import Sequence

import numpy as np

_SIDE = re.compile(r"\b(?:left|right|(?:(?:counter|anti|contra)[- ]?)?clock[- ]?wise|ccw|cw)\b")


def caption_groups(captions: Sequence[Sequence[str]]) -> np.ndarray:
    """Group clips that share a caption, directly or through other clips; upper case and spaces do not count.

    Args:
        captions: Captions of each of N clips.

    Returns:
        (N,) integers, equal within a group. A clip that shares no caption is a group of its own.
    """
    parents = list(range(len(captions)))  # a union-find forest over the clips

    def root(clip: int) -> int:
        while parents[clip] != clip:
            parents[clip] = clip = parents[parents[clip]]
        return clip

    first_clip: dict[str, int] = {}
    for clip, texts in enumerate(captions):
        for text in texts:
            parents[root(clip)] = root(first_clip.setdefault(" ".join(text.lower().split()), clip))
    return np.unique([root(clip) for clip in range(len(captions))], return_inverse=True)[1]


def named_sides(caption: str) -> list[str]:
    """Return the words of a caption that name a side or a direction of turning, in their order."""
    return _SIDE.findall(caption.lower())


def same_sides(captions: Sequence[str]) -> np.ndarray:
    """Return (N, N) booleans: whether two captions name the same sides, left and right, in the same order."""
    numbers: dict[str, int] = {}
    sides = np.array([numbers.setdefault(" ".join(named_sides(caption)), len(numbers)) for caption in captions])
    return sides[:, None] == sides
