"""Captions: the lines of caption files, and captions for clips whose names contain labels, built from a YAML file."""

import math
import random
import re
from dataclasses import dataclass, field, fields
from enum import Enum
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import regex

from dataset.takes import Take
from dataset.wording import VerbForms, with_typing_error
from utils.errors import InputError
from utils.reading.files import shown
from utils.reading.texts import check_template, read_yaml

MAX_PATTERN = 1000  # characters
MAX_REPEATS = 10_000  # product of the counts in braces, which regex unrolls
MATCH_SECONDS = 1.0  # for one clip id; an ordinary pattern takes microseconds, others would backtrack for years
POOL = 150  # distinct captions of a content and a style
TYPING_ERRORS = 0.04  # share of captions with one
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
    """Rules that give each clip its captions; read from a YAML file such as ``configs/data/demo_captions.yaml``.

    Labels of a file are in its name, which ``pattern`` matches, or in its ``takes``.

    Raises:
        InputError: a field holds an invalid value.
    """

    clips: dict[str, list[str]] = field(default_factory=dict)
    """Captions by clip id, used unchanged."""
    pattern: str = ""
    """Regular expression with the groups ``content`` and ``style``; matches the names of other files."""
    takes: dict[str, list[Take]] = field(default_factory=dict)
    """Labelled parts of a file by its path below the source, without suffix: content, from, to, repeat and style. Each
    is a clip, whose captions name no manner if it has no style."""
    continuous: list[str] = field(default_factory=list)
    """Contents that any stretch of a few seconds shows."""
    balance: int = 0
    """Number of training clips that each content has at least; those with fewer are played at other speeds."""
    contents: dict[str, list[str]] = field(default_factory=dict)
    """Verb phrases in the third person by content label."""
    styles: dict[str, list[str]] = field(default_factory=dict)
    """Phrases by style label."""
    templates: list[str] = field(default_factory=list)
    """Texts with ``{style}`` and with ``{content}`` (walks), ``{command}`` (walk) or ``{gerund}`` (walking)."""
    templates_without_style: list[str] = field(default_factory=list)
    """Texts without ``{style}``, for ``styles_without_mention`` and takes without a style."""
    styles_without_mention: list[str] = field(default_factory=list)
    """Styles that a caption may omit: a caption without a manner then means the ordinary manner."""
    content_overrides: dict[str, str] = field(default_factory=dict)
    """Content labels by clip id, for clips with a wrong file name."""
    labels: dict[str, str] = field(default_factory=dict)
    """Content labels by those of the file names, where they differ."""

    def __post_init__(self) -> None:
        _check_types(self)
        tables = {"clips": self.clips, "contents": self.contents, "styles": self.styles}
        lists = {f"{key}.{label}": texts for key, table in tables.items() for label, texts in table.items()}
        if self.pattern:
            lists["templates"] = self.templates
        if self.styles_without_mention or self.takes:
            lists["templates_without_style"] = self.templates_without_style
        for key, texts in lists.items():
            if not _is_texts(texts) or not texts:
                raise InputError(f"{shown(key, 60)} of the captions file is {shown(repr(texts))}; give a list of texts")
        if self.pattern and not {"content", "style"} <= set(_compiled(self.pattern).groupindex):
            raise InputError(
                f"pattern {shown(self.pattern)} of the captions file lacks the group content or style; add it"
            )
        forms = ("content", "command", "gerund")
        for template in self.templates:
            check_template(template, (*forms, "style"))
        for template in self.templates_without_style:
            check_template(template, forms)
        self.takes = {name: [Take.parse(entry) for entry in entries] for name, entries in self.takes.items()}

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

    def takes_of(self, name: str) -> dict[str, Take]:
        """Return the clips of a file by id: its takes, or one that is the whole file.

        Args:
            name: Path of the file below the source, without suffix.

        Raises:
            InputError: the rules have neither takes nor captions for the file, and its name has no labels.
        """
        if name in self.takes:
            return {f"{name.replace('/', '_')}_{number}": take for number, take in enumerate(self.takes[name])}
        clip_id = PurePosixPath(name).name
        return {clip_id: self._labels(clip_id)}

    def _labels(self, clip_id: str) -> Take:
        if clip_id in self.clips:
            return Take("")
        match = self._match(clip_id) if self.pattern else None
        if not match:
            raise InputError(
                f"the captions file has no entry for the clip {shown(clip_id)}; "
                "add it under `clips` or `takes`, or correct `pattern`"
            )
        content = self.content_overrides.get(clip_id, match["content"])
        return Take(self.labels.get(content, content), match["style"])

    def captions(self, clip_id: str, count: int) -> list[str]:
        """Return at most ``count`` distinct captions of a file that is one clip; as ``draw``.

        Raises:
            InputError: the rules have neither captions nor labels for the clip.
        """
        return self.draw(clip_id, self._labels(clip_id), count)

    def draw(self, clip_id: str, take: Take, count: int) -> list[str]:
        """Return at most ``count`` distinct captions of a clip with the labels of a take, the same on every call.

        Clips with the same labels draw from the same ``POOL`` captions, so the distinct captions of a data set stay few
        enough to encode each of them once.

        Raises:
            InputError: the rules have no phrases for the labels.
        """
        if not take.content:
            return self.clips[clip_id][:count]
        if take.content not in self.contents or (take.style and take.style not in self.styles):
            labels = shown(f"{take.content} {take.style}".rstrip())
            raise InputError(f"the captions file has no phrases for {labels} (clip {shown(clip_id)}); add the labels")
        key = (take.content, take.style)
        if key not in self._pools:
            self._pools[key] = self._pool(*key)
        pool = self._pools[key]
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

    @cached_property
    def _pools(self) -> dict[tuple[str, str], list[str]]:
        """Pools by content and style, made when they are first drawn from."""
        return {}

    @cached_property
    def _forms(self) -> VerbForms:
        return VerbForms(phrase for phrases in self.contents.values() for phrase in phrases)

    def _pool(self, content: str, style: str) -> list[str]:
        """At most ``POOL`` distinct captions of a content and a style, or of a content without a style."""
        generator = random.Random(f"{content} {style}")
        unstyled = 0.7 if style in self.styles_without_mention else float(not style)
        pool: dict[str, None] = {}
        for _ in range(20 * POOL):
            bare = generator.random() < unstyled
            template = generator.choice(self.templates_without_style if bare else self.templates)
            phrase = generator.choice(self.contents[content])
            words: dict[str, str | None] = {"content": phrase}
            if style:
                words["style"] = generator.choice(self.styles[style])
            for form, inflect in (("command", self._forms.command), ("gerund", self._forms.gerund)):
                if f"{{{form}}}" in template:
                    words[form] = inflect(phrase)
            if None in words.values():  # the phrase has no such form
                continue
            pool[template.format(**words)] = None
            if len(pool) == POOL:
                break
        is_wrong = [generator.random() < TYPING_ERRORS for _ in pool]
        captions = zip(pool, is_wrong, strict=True)
        return [with_typing_error(caption, generator) if wrong else caption for caption, wrong in captions]


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
    for key in ("templates", "templates_without_style", "styles_without_mention", "continuous"):
        check(key, _is_texts(getattr(rules, key)), "a list of texts")
    for key in ("content_overrides", "labels"):
        table = getattr(rules, key)
        check(key, _is_table(table) and _is_texts([*table.values()]), "texts, each with a text")
    check("takes", _is_table(rules.takes) and all(isinstance(entries, list) for entries in rules.takes.values()),
          "files, each with a list of takes")  # fmt: skip
    check("balance", type(rules.balance) is int and rules.balance >= 0, "a number of clips")
    check("pattern", isinstance(rules.pattern, str), "a regular expression")


def _is_table(value: Any) -> bool:
    return isinstance(value, dict) and _is_texts([*value])


def _is_texts(values: Any) -> bool:
    return isinstance(values, list) and all(isinstance(text, str) and text for text in values)
