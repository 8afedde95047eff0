"""The captions file of the demo: complete, grammatical when filled in, and true of mirrored clips."""

import re
from pathlib import Path

import pytest

from dataset.caption_sides import mirror_caption
from dataset.captions import CaptionRules
from dataset.takes import Take

SIDE = re.compile(r"\b(?:left|right)(?:ward)?\b")


@pytest.fixture(scope="module")
def rules():
    return CaptionRules.from_yaml(Path(__file__).parents[2] / "configs" / "data" / "demo_captions.yaml")


def test_all_labels_have_phrases(rules):
    used = {take.content for takes in rules.takes.values() for take in takes}
    assert used <= rules.contents.keys() and set(rules.continuous) <= rules.contents.keys()
    assert set(rules.labels.values()) | set(rules.content_overrides.values()) <= rules.contents.keys()
    assert all(len(set(phrases)) == len(phrases) for phrases in (rules.contents | rules.styles).values())


def test_sides_are_exchanged_in_every_phrase_that_names_one(rules):
    for label, phrases in rules.contents.items():
        for phrase in phrases:
            mirrored = mirror_caption(phrase)
            assert len(SIDE.findall(phrase)) == len(re.findall("left|right", phrase)) or "upright" in phrase or (
                "straight" in phrase), phrase  # fmt: skip
            exchanged = [{"left": "right", "right": "left"}[side.removesuffix("ward")] for side in SIDE.findall(phrase)]
            assert [side.removesuffix("ward") for side in SIDE.findall(mirrored)] == exchanged, phrase
            assert mirror_caption(mirrored) == phrase
        if side := re.search(r"-(left|right)\b", label):
            assert all(side[1] in phrase for phrase in phrases), label


def test_sides_of_captions_survive_forms_and_typing_errors(rules):
    for label in rules.contents:
        captions = rules.draw(label, Take(label), 150)
        assert len(set(captions)) >= 100, label
        for caption in captions:
            mirrored = mirror_caption(caption)
            assert mirror_caption(mirrored) == caption and bool(SIDE.search(caption)) == (mirrored != caption), caption


def test_every_phrase_has_a_command_and_a_gerund_or_is_a_state(rules):
    forms = rules._forms
    for phrase in (phrase for phrases in rules.contents.values() for phrase in phrases):
        command, gerund = forms.command(phrase), forms.gerund(phrase)
        if command is None:
            assert phrase.startswith("is "), phrase
            continue
        first = gerund.split()[1 if gerund.split()[0] in forms.modifiers else 0]
        assert first.rstrip(",").endswith("ing") and command.split()[0] not in ("does", "is", "has"), phrase
        assert not re.search(r"\b(?:and|then) (?:is|has|does|goes|makes|takes|gets|comes)\b", command), phrase
