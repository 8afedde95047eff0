"""Captions: the lines of caption files, and captions for clips whose names contain labels, built from a YAML file."""

import math
import random
import re
from dataclasses import dataclass, field, fields
from enum import Enum
from pathlib import Path
from typing import Any, NamedTuple

import regex

from utils.errors import InputError
from utils.reading.files import shown
from utils.reading.texts import check_template, read_yaml

MAX_PATTERN = 1000  # characters
MAX_REPEATS = 10_000  # product of the counts in braces, which regex unrolls
MATCH_SECONDS = 1.0  # for one clip id; an ordinary pattern takes microseconds, others would backtrack for years
_TOKEN = re.compile(r"\S+/[A-Z]+")  # of HumanML3D, such as person/NOUN
_TIME = re.compile(r"\s*(?:nan|\d+\.\d*)\s*")  # as HumanML3D writes it: 3.0, never 3
_too_slow: set[str] = set()  # patterns that a process does not try again for every clip


class CaptionStyle(Enum):
    """Form of the lines of caption files."""

    ANY = "a caption, or HumanML3D's caption#tokens#from#to if the line looks like it"
    LINE = "a caption; # is a character"
    HUMANML3D = "caption#tokens#from#to with times in seconds"
    TWO_ACTIONS = "first*second#frames: captions of two actions in a row, and the frames of the first"


class TwoActions(NamedTuple):
    """A line about two actions in a row, of BABEL-272 stream."""

    first: str
    second: str
    frames: int
    """Frames of the first action."""

    @classmethod
    def parse(cls, line: str) -> "TwoActions":
        """Read ``first*second#frames``; fields between the second caption and the last ``#`` are not used.

        Raises:
            InputError: the line has another form; the message begins with "has" or "is".
        """
        first, star, rest = line.partition("*")
        second, *others = rest.split("#")
        if not star or not others:
            raise InputError(f"is {shown(repr(line), 60)} instead of first*second#frames; correct it")
        frames = others[-1].strip()
        if not (frames.isascii() and frames.isdigit() and len(frames) < 10):
            raise InputError(f"has {shown(frames, 40)} instead of a number of frames after the last #; correct it")
        return cls(first.partition("#")[0].strip(), second.strip(), int(frames))


class CaptionLine(NamedTuple):
    """A line of ``texts/<id>.txt``."""

    caption: str
    span: tuple[float, float] | None
    """The described part (from, to) in seconds; None for the whole clip."""

    @classmethod
    def parse(cls, line: str, style: CaptionStyle = CaptionStyle.ANY) -> "CaptionLine":
        """Read a line: HumanML3D's ``caption#tokens#from#to``, or a plain caption, in which ``#`` is a character.

        The times 0.0#0.0 and nan#nan mean the whole clip.

        Args:
            line: Line of a caption file.
            style: ANY decides by the tokens and times of the line; HUMANML3D takes every line with three ``#`` for one
                of HumanML3D; LINE takes every line as a plain caption.

        Raises:
            InputError: the line is of HumanML3D, but its times are not numbers; the message begins with "has".
        """
        if style is CaptionStyle.LINE:
            return cls(line.strip(), None)
        caption, *others = line.rsplit("#", 3)
        if len(others) == 3 and style is CaptionStyle.HUMANML3D:
            return cls(caption.strip(), _span(others[1].strip(), others[2].strip()))
        if len(others) == 3 and (_are_tokens(others[0]) or all(_TIME.fullmatch(time) for time in others[1:])):
            return cls(caption.strip(), _span(others[1].strip(), others[2].strip()))
        caption, _, tokens = line.rpartition("#")
        return cls((caption if _are_tokens(tokens) else line).strip(), None)


def _are_tokens(text: str) -> bool:
    words = text.split()
    return bool(words) and all(_TOKEN.fullmatch(word) for word in words)


def _span(start: str, end: str) -> tuple[float, float] | None:
    """Part of a clip in seconds; None for the whole clip."""
    try:
        times = [0.0 if math.isnan(time) else time for time in (float(start), float(end))]
    except ValueError as error:
        raise InputError(f"has {shown(f'{start}#{end}', 40)} instead of from#to in seconds; correct it") from error
    if math.inf in times or -math.inf in times:
        raise InputError("has an infinite time; give from#to in seconds")
    return (times[0], times[1]) if any(times) else None


@dataclass
class CaptionRules:
    """Rules that give each clip its captions; read from a YAML file such as ``configs/data/bandai_captions.yaml``.

    Raises:
        InputError: a field holds an invalid value.
    """

    clips: dict[str, list[str]] = field(default_factory=dict)
    """Captions by clip id, used unchanged."""
    pattern: str = ""
    """Regular expression with the groups ``content`` and ``style``; matches the ids of all other clips."""
    contents: dict[str, list[str]] = field(default_factory=dict)
    """Phrases by content label."""
    styles: dict[str, list[str]] = field(default_factory=dict)
    """Phrases by style label."""
    templates: list[str] = field(default_factory=list)
    """Texts with ``{content}`` and ``{style}``."""
    templates_without_style: list[str] = field(default_factory=list)
    """Texts with ``{content}`` only, for ``styles_without_mention``."""
    styles_without_mention: list[str] = field(default_factory=list)
    """Styles that a caption may omit: a caption without a manner then means the ordinary manner."""
    content_overrides: dict[str, str] = field(default_factory=dict)
    """Content labels by clip id, for clips with a wrong file name."""

    def __post_init__(self) -> None:
        _check_types(self)
        tables = {"clips": self.clips, "contents": self.contents, "styles": self.styles}
        lists = {f"{key}.{label}": texts for key, table in tables.items() for label, texts in table.items()}
        if self.pattern:
            lists["templates"] = self.templates
        if self.styles_without_mention:
            lists["templates_without_style"] = self.templates_without_style
        for key, texts in lists.items():
            if not _is_texts(texts) or not texts:
                raise InputError(f"{shown(key, 60)} of the captions file is {shown(repr(texts))}; give a list of texts")
        if self.pattern and not {"content", "style"} <= set(_compiled(self.pattern).groupindex):
            raise InputError(
                f"pattern {shown(self.pattern)} of the captions file lacks the group content or style; add it"
            )
        for template in self.templates + self.templates_without_style:
            check_template(template, ("content", "style"))

    @classmethod
    def from_yaml(cls, path: str | Path) -> "CaptionRules":
        """Read the rules from a file.

        Raises:
            InputError: the file cannot be read, a key is unknown, or a value is invalid.
        """
        values, known = read_yaml(path), [field.name for field in fields(cls)]
        try:
            if not isinstance(values, dict):
                raise InputError(f"it has no keys; use {', '.join(known)}")
            for key in values:
                if key not in known:
                    raise InputError(f"the key {shown(key, 60)} is unknown; use {', '.join(known)}")
            return cls(**values)
        except InputError as error:
            raise InputError(f"{shown(path, 150)} is not a captions file: {error}") from error

    def captions(self, clip_id: str, count: int) -> list[str]:
        """Return at most ``count`` distinct captions of a clip, the same on every call.

        Clips with the same labels draw from the same few dozen captions, so the distinct captions of a data set stay
        few enough to encode each of them once.

        Raises:
            InputError: the file has neither captions nor labels for the clip.
        """
        if clip_id in self.clips:
            return self.clips[clip_id][:count]
        match = self._match(clip_id) if self.pattern else None
        if not match:
            raise InputError(
                f"the captions file has no entry for the clip {shown(clip_id)}; "
                "add it under `clips` or correct `pattern`"
            )
        content, style = self.content_overrides.get(clip_id, match["content"]), match["style"]
        if content not in self.contents or style not in self.styles:
            labels = shown(f"{content} {style}")
            raise InputError(f"the captions file has no phrases for {labels} (clip {shown(clip_id)}); add the labels")
        pool = self._pool(content, style, size=5 * count)
        return random.Random(clip_id).sample(pool, min(count, len(pool)))

    def _match(self, clip_id: str) -> regex.Match | None:
        if self.pattern not in _too_slow:
            try:
                return _compiled(self.pattern).fullmatch(clip_id, timeout=MATCH_SECONDS)
            except (TimeoutError, MemoryError):
                _too_slow.add(self.pattern)
        raise InputError(
            f"the pattern {shown(self.pattern)} of the captions file takes too long; do not repeat a group that repeats"
        )

    def _pool(self, content: str, style: str, size: int) -> list[str]:
        """At most ``size`` distinct captions of a content and a style."""
        generator = random.Random(f"{content} {style}")
        unstyled = style in self.styles_without_mention
        forms = len(self.templates) + len(self.templates_without_style)
        size = min(size, forms * len(self.contents[content]) * len(self.styles[style]))
        pool: dict[str, None] = {}
        for _ in range(20 * size):
            bare = unstyled and generator.random() < 0.7
            template = generator.choice(self.templates_without_style if bare else self.templates)
            caption = template.format(
                content=generator.choice(self.contents[content]), style=generator.choice(self.styles[style])
            )
            pool[caption] = None
            if len(pool) == size:
                break
        return list(pool)


def _compiled(pattern: str) -> regex.Pattern:
    """Compile the pattern of a captions file, in the syntax of ``re``; its matches can be given a time limit.

    Raises:
        InputError: it is too long, repeats too much or is no regular expression.
    """
    counts = re.findall(r"\{(\d*),?(\d*)\}", pattern[:MAX_PATTERN])
    repeats = math.prod(max(int(low or 1), int(high or 1), 1) for low, high in counts)
    if len(pattern) > MAX_PATTERN or repeats > MAX_REPEATS:
        raise InputError(
            f"pattern {shown(pattern)} has more than {MAX_PATTERN} characters or {MAX_REPEATS} repetitions; simplify it"
        )
    try:
        re.compile(pattern)  # refuses the extensions of regex
        return regex.compile(pattern)
    except (re.error, regex.error, ValueError, OverflowError, RecursionError, MemoryError) as error:
        raise InputError(f"pattern {shown(pattern)} is no regular expression ({shown(error)}); correct it") from error


def _check_types(rules: CaptionRules) -> None:
    """Raise InputError if a field has not the type of its annotation; lists inside tables are checked later."""

    def check(key: str, valid: bool, needed: str) -> None:
        if not valid:
            raise InputError(f"{key} of the captions file is {shown(repr(getattr(rules, key)))}; give {needed}")

    for key in ("clips", "contents", "styles"):
        check(key, _is_table(getattr(rules, key)), "texts, each with a list of texts")
    for key in ("templates", "templates_without_style", "styles_without_mention"):
        check(key, _is_texts(getattr(rules, key)), "a list of texts")
    overrides = rules.content_overrides
    check("content_overrides", _is_table(overrides) and _is_texts([*overrides.values()]), "texts, each with a text")
    check("pattern", isinstance(rules.pattern, str), "a regular expression")


def _is_table(value: Any) -> bool:
    return isinstance(value, dict) and _is_texts([*value])


def _is_texts(values: Any) -> bool:
    return isinstance(values, list) and all(isinstance(text, str) and text for text in values)
