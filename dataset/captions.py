"""Captions for clips that carry labels in their names: phrases and templates from one YAML file."""

import random
import re
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from utils.errors import InputError

_SIDES = {"left": "right", "right": "left"}


def swap_left_right(text: str) -> str:
    """Exchange the words left and right, upper case kept: the caption of a mirrored clip."""

    def swap(match: re.Match) -> str:
        word = match.group()
        swapped = _SIDES[word.lower()]
        return swapped.upper() if word.isupper() else swapped.capitalize() if word[0].isupper() else swapped

    return re.sub(r"\b(left|right)\b", swap, text, flags=re.IGNORECASE)


@dataclass
class CaptionRules:
    """Captions built from labels, or given clip by clip; one YAML file (``configs/data/bandai_captions.yaml``).

    clips: clip id -> its captions, used as they are.
    pattern: regular expression with the groups ``content`` and ``style`` that matches the other clips' ids.
    contents, styles: label -> phrases. templates: texts with ``{content}`` and ``{style}``.
    templates_without_style: texts with ``{content}`` alone, for the styles in ``styles_without_mention`` only, so that
        a caption without a manner means the ordinary manner.
    content_overrides: clip id -> content label, where a file name is wrong.
    """

    clips: dict[str, list[str]] = field(default_factory=dict)
    pattern: str = ""
    contents: dict[str, list[str]] = field(default_factory=dict)
    styles: dict[str, list[str]] = field(default_factory=dict)
    templates: list[str] = field(default_factory=list)
    templates_without_style: list[str] = field(default_factory=list)
    styles_without_mention: list[str] = field(default_factory=list)
    content_overrides: dict[str, str] = field(default_factory=dict)

    def __post_init__(self):
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
                    f"template {template!r} of the captions file may hold {{content}} and {{style}} alone; mend it"
                ) from error

    @classmethod
    def from_yaml(cls, path: str | Path) -> "CaptionRules":
        """Read the file.

        Raises:
            InputError: the file cannot be read, or a key is unknown or holds something unfit.
        """
        try:
            return cls(**yaml.safe_load(Path(path).read_text()))
        except (OSError, UnicodeDecodeError, yaml.YAMLError, re.error, TypeError, AttributeError) as error:
            reason = " ".join(str(error).split())
            raise InputError(
                f"{path} is not a captions file ({reason}); see the keys in configs/data/bandai_captions.yaml"
            ) from error

    def captions(self, clip_id: str, count: int) -> list[str]:
        """Up to ``count`` different captions of a clip, the same at every call.

        Clips that share their labels draw from the same few dozen captions, so that a data set's distinct captions stay
        few enough to encode once.

        Raises:
            InputError: the file holds neither captions nor labels for the clip.
        """
        if clip_id in self.clips:
            return self.clips[clip_id][:count]
        match = re.fullmatch(self.pattern, clip_id) if self.pattern else None
        if not match:
            raise InputError(
                f"the captions file says nothing of the clip {clip_id}; add it under `clips` or mend `pattern`"
            )
        content, style = self.content_overrides.get(clip_id, match["content"]), match["style"]
        if content not in self.contents or style not in self.styles:
            raise InputError(f"the captions file has no phrases for {content} {style} (clip {clip_id}); add the labels")
        pool = self._pool(content, style, size=5 * count)
        return random.Random(clip_id).sample(pool, min(count, len(pool)))

    def _pool(self, content: str, style: str, size: int) -> list[str]:
        generator = random.Random(f"{content} {style}")
        unstyled = style in self.styles_without_mention
        pool = {}
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
