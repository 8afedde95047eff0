"""The captions file of the Bandai-Namco clips: complete, grammatical when filled in, and consistent under mirroring."""

import re
from pathlib import Path

import pytest

from dataset.caption_sides import mirror_caption
from dataset.captions import CaptionRules

CONTENTS = [
    "walk",
    "run",
    "dash",
    "walk-back",
    "walk-left",
    "walk-right",
    "walk-turn-left",
    "walk-turn-right",
    "bow",
    "bye",
    "byebye",
    "guide",
    "respond",
    "call",
    "punch",
    "kick",
    "slash",
    "dance-short",
    "wave-both-hands",
    "wave-left-hand",
    "wave-right-hand",
    "raise-up-both-hands",
    "raise-up-left-hand",
    "raise-up-right-hand",
]
STYLES = [
    "normal",
    "happy",
    "sad",
    "angry",
    "proud",
    "not-confident",
    "masculinity",
    "feminine",
    "childish",
    "old",
    "tired",
    "active",
    "musical",
    "giant",
    "chimpira",
    "elderly",
    "exhausted",
    "masculine",
    "youthful",
]
SINGLE_SIDE = {"bye": "right", "guide": "right", "respond": "left"}  # hand of each label that does not contain a side


@pytest.fixture(scope="module")
def rules():
    return CaptionRules.from_yaml(Path(__file__).parents[1] / "configs" / "data" / "bandai_captions.yaml")


def test_every_label_has_many_distinct_phrases(rules):
    assert sorted(rules.contents) == sorted(CONTENTS) and sorted(rules.styles) == sorted(STYLES)
    for label, phrases in (rules.contents | rules.styles).items():
        assert len(phrases) >= (8 if label in rules.contents else 6) and len(set(phrases)) == len(phrases), label


def test_templates_are_filled_in_completely(rules):
    assert all(template.count("{content}") == template.count("{style}") == 1 for template in rules.templates)
    assert all("{style}" not in template for template in rules.templates_without_style)
    misspelled = []
    for number, (content, style) in enumerate((content, style) for content in CONTENTS for style in STYLES):
        captions = rules.captions(f"dataset-{1 + number % 2}_{content}_{style}_{number:03d}", 4)
        assert len(set(captions)) == 4
        for caption in captions:
            assert re.fullmatch(r"[a-z0-9 ,'-]+", caption) and "  " not in caption, caption
            named = any(phrase in caption for phrase in rules.contents[content])
            if not named or style != "normal" and not any(phrase in caption for phrase in rules.styles[style]):
                misspelled.append(caption)
    assert 0 < len(misspelled) < 0.05 * 4 * number


def test_first_words_are_verbs_in_the_third_person(rules):
    for phrases in rules.contents.values():
        assert all(phrase.split()[0].endswith("s") for phrase in phrases)


def test_sides_are_whole_words_and_mirrored_labels_have_mirrored_phrases(rules):
    whole_words = re.compile(r"\b(left|right)\b")
    everything = [*rules.templates, *rules.templates_without_style, *sum((rules.contents | rules.styles).values(), [])]
    for text in everything:
        assert len(whole_words.findall(text)) == text.count("left") + text.count("right"), text
    assert not any(whole_words.search(phrase) for phrase in sum(rules.styles.values(), []))
    assert not any("clockwise" in text for text in everything)
    for label, phrases in rules.contents.items():
        mirrored = mirror_caption(label)
        if mirrored != label:
            side = "left" if "left" in label else "right"
            assert all(side in phrase for phrase in phrases), label
            assert sorted(mirror_caption(phrase) for phrase in phrases) == sorted(rules.contents[mirrored])
        elif label in SINGLE_SIDE:
            assert all(SINGLE_SIDE[label] in phrase for phrase in phrases), label


def test_clips_with_a_wrong_name_have_the_captions_of_their_motion(rules):
    for clip_id, label in rules.content_overrides.items():
        assert label in rules.contents and label not in clip_id
        side = "left" if "left" in label else "right"
        assert all(side in caption for caption in rules.captions(clip_id, 6))


@pytest.mark.parametrize(
    "labels, words",
    [
        (("active", "youthful"), ("energetically", "energy", "lively")),
        (("elderly", "old"), ("like an elderly person", "like an old man", "grandmother")),
        (("exhausted", "tired"), ("tiredly", "exhausted")),
        (("run", "dash"), ("jogs", "sprints")),
        (("raise-up-left-hand",), ("raises", "lifts", "hand", "arm")),
        (("wave-right-hand",), ("waves", "greets")),
    ],
)
def test_common_words_of_prompts_occur(rules, labels, words):
    text = " ".join(phrase for label in labels for phrase in (rules.contents | rules.styles)[label])
    assert all(word in text for word in words)
