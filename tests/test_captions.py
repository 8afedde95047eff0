"""Captions from labels: the rules of a captions file, and left and right in the captions of mirrored clips."""

import re

import pytest
import yaml

from dataset.captions import CaptionRules, swap_left_right
from utils.errors import InputError

RULES = {
    "clips": {"special": ["a person waves", "someone waves"]},
    "pattern": r"(?P<content>[a-z]+)_(?P<style>[a-z]+)_\d+",
    "contents": {"walk": ["walks", "strolls", "goes"]},
    "styles": {"glad": ["gladly", "with joy"], "plain": ["in the usual way", "as usual"]},
    "templates": ["a person {content} {style}", "someone {content} {style}", "{style}, he {content}"],
    "templates_without_style": ["a person {content}"],
    "styles_without_mention": ["plain"],
    "content_overrides": {"run_glad_9": "walk"},
}


def test_left_and_right_are_exchanged_as_whole_words():
    text = "Left, RIGHT and left; leftover copyright Right-handed"
    assert swap_left_right(text) == "Right, LEFT and right; leftover copyright Left-handed"
    assert swap_left_right(swap_left_right(text)) == text


def test_captions_come_from_labels_and_are_reproducible(tmp_path):
    (tmp_path / "captions.yaml").write_text(yaml.safe_dump(RULES))
    rules = CaptionRules.from_yaml(tmp_path / "captions.yaml")
    captions = rules.captions("walk_glad_1", 3)
    assert len(set(captions)) == 3 and captions == CaptionRules(**RULES).captions("walk_glad_1", 3)
    assert all(re.search("walks|strolls|goes", text) and re.search("gladly|with joy", text) for text in captions)
    assert any("usual" not in text for text in rules.captions("walk_plain_1", 30))
    assert rules.captions("special", 8) == RULES["clips"]["special"] and len(rules.captions("special", 1)) == 1
    assert re.search("walks|strolls|goes", rules.captions("run_glad_9", 1)[0])
    for clip_id, words in (("other", "no entry for the clip other"), ("fly_glad_1", "no phrases for fly glad")):
        with pytest.raises(InputError, match=words):
            rules.captions(clip_id, 3)


@pytest.mark.parametrize(
    "content, words",
    [
        (None, "is not a captions file"),
        (b"\xff\xfe\x00", "is not a captions file"),
        ("clips: [", "is not a captions file"),
        ("just a text", "is not a captions file"),
        ({"clip": {}}, "clip"),
        ({"clips": ["a"]}, "is not a captions file"),
        ({"clips": {"walk": "a person walks"}}, r"clips\.walk .* list of texts"),
        ({"clips": {"walk": []}}, r"clips\.walk .* list of texts"),
        ({**RULES, "styles": {"glad": "gladly"}}, r"styles\.glad .* list of texts"),
        ({**RULES, "contents": {"walk": [1, 2]}}, r"contents\.walk .* list of texts"),
        ({**RULES, "pattern": "(?P<content>.*"}, "is not a captions file"),
        ({**RULES, "pattern": "(?P<content>.*)"}, "lacks the group content or style"),
        ({**RULES, "templates": ["a person {what}"]}, "a person {what}"),
    ],
)
def test_invalid_captions_file_is_refused(tmp_path, content, words):
    path = tmp_path / "captions.yaml"
    if content is not None:
        path.write_bytes(content if isinstance(content, bytes) else yaml.safe_dump(content).encode())
    with pytest.raises(InputError, match=words) as caught:
        CaptionRules.from_yaml(path)
    assert "\n" not in str(caught.value)
