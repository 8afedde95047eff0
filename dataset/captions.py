"""Captions for clips whose names contain labels, built from the phrases and templates of a YAML file."""

import random
import re
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from utils.errors import InputError

_SIDES = {"left": "right", "right": "left"}


def swap_left_right(text: str) -> str:
    """Exchange the words left and right, keeping their case, for the caption of a mirrored clip."""

    def swap(match: re.Match) -> str:
        word = match.group()
        swapped = _SIDES[word.lower()]
        return swapped.upper() if word.isupper() else swapped.capitalize() if word[0].isupper() else swapped

    return re.sub(r"\b(left|right)\b", swap, text, flags=re.IGNORECASE)


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
        tables = {"clips": self.clips, "contents": self.contents, "styles": self.styles}
        lists = {f"{key}.{label}": texts for key, table in tables.items() for label, texts in table.items()}
        if self.pattern:
            lists["templates"] = self.templates
        if self.styles_without_mention:
            lists["templates_without_style"] = self.templates_without_style
        for key, texts in lists.items():
            if not isinstance(texts, list) or not texts or not all(isinstance(text, str) and text for text in texts):
                raise InputError(f"{key} of the captions file is {texts!r}; give a list of texts")
        if self.pattern and not {"content", "style"} <= set(re.compile(self.pattern).groupindex):
            raise InputError(f"pattern {self.pattern} of the captions file lacks the group content or style; add it")
        for template in self.templates + self.templates_without_style:
            try:
                template.format(content="", style="")
            except (KeyError, IndexError, ValueError) as error:
                raise InputError(
                    f"template {template!r} of the captions file may contain only {{content}} and {{style}}; correct it"
                ) from error

    @classmethod
    def from_yaml(cls, path: str | Path) -> "CaptionRules":
        """Read the rules from a file.

        Raises:
            InputError: the file cannot be read, a key is unknown, or a value is invalid.
        """
        try:
            return cls(**yaml.safe_load(Path(path).read_text()))
        except (OSError, UnicodeDecodeError, yaml.YAMLError, re.error, TypeError, AttributeError) as error:
            reason = " ".join(str(error).split())
            raise InputError(
                f"{path} is not a captions file ({reason}); see the keys of configs/data/bandai_captions.yaml"
            ) from error

    def captions(self, clip_id: str, count: int) -> list[str]:
        """Return at most ``count`` distinct captions of a clip, the same on every call.

        Clips with the same labels draw from the same few dozen captions, so the distinct captions of a data set stay
        few enough to encode each of them once.

        Raises:
            InputError: the file has neither captions nor labels for the clip.
        """
        if clip_id in self.clips:
            return self.clips[clip_id][:count]
        match = re.fullmatch(self.pattern, clip_id) if self.pattern else None
        if not match:
            raise InputError(
                f"the captions file has no entry for the clip {clip_id}; add it under `clips` or correct `pattern`"
            )
        content, style = self.content_overrides.get(clip_id, match["content"]), match["style"]
        if content not in self.contents or style not in self.styles:
            raise InputError(f"the captions file has no phrases for {content} {style} (clip {clip_id}); add the labels")
        pool = self._pool(content, style, size=5 * count)
        return random.Random(clip_id).sample(pool, min(count, len(pool)))

    def _pool(self, content: str, style: str, size: int) -> list[str]:
        """At most ``size`` distinct captions of a content and a style."""
        generator = random.Random(f"{content} {style}")
        unstyled = style in self.styles_without_mention
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
