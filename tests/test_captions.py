"""Captions from labels, and the lines of caption files."""

import re
import time

import pytest
import yaml

from dataset import captions
from dataset.captions import CaptionLine, CaptionRules
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
        (None, "the file is missing"),
        (b"\xff\xfe\x00", "save it as UTF-8"),
        (b"clips: [", "it is not YAML"),
        ("just a text", "it has no keys; use clips, pattern"),
        ({"clip": {}}, "the key clip is unknown; use clips, pattern"),
        ({1: {}}, "the key 1 is unknown"),
        ({"templates": {}}, "templates of the captions file is {}; give a list of texts"),
        ({"clips": {"walk": {"a": "b"}}}, r"clips\.walk .* list of texts"),
        ({None: {}}, "the key None is unknown"),
        ({"clips": ["a"]}, r"clips of the captions file is \['a'\]"),
        ({"clips": {1: ["a"]}}, "clips of the captions file"),
        ({"pattern": 5}, "pattern of the captions file is 5; give a regular expression"),
        ({"templates": "a person"}, "templates of the captions file is 'a person'; give a list of texts"),
        ({"content_overrides": {"a": {}}}, "content_overrides of the captions file"),
        (b"clips: &a {w: *a}", "alias a"),
        (b"clips: {w: !!python/name:os.system ''}", "tags are not read"),
        ({"clips": {"walk": "a person walks"}}, r"clips\.walk .* list of texts"),
        ({"clips": {"walk": []}}, r"clips\.walk .* list of texts"),
        ({**RULES, "styles": {"glad": "gladly"}}, r"styles\.glad .* list of texts"),
        ({**RULES, "contents": {"walk": [1, 2]}}, r"contents\.walk .* list of texts"),
        ({**RULES, "pattern": "(?P<content>.*"}, "is no regular expression"),
        ({**RULES, "pattern": "(" * 900}, "is no regular expression"),
        ({**RULES, "pattern": "(?P<content>((a{999}){999}){999})(?P<style>b)"}, "10000 repetitions"),
        ({**RULES, "pattern": "(?P<content>a)(?P<style>b)" + "c" * 1000}, "1000 characters"),
        ({**RULES, "templates": ["{content:9999999999}"]}, "without options"),
        ({**RULES, "templates": ["{content.__class__}"]}, "without options"),
        ({**RULES, "templates": ["{content"]}, "template .* damaged"),
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


def test_pattern_that_backtracks_is_stopped_and_not_tried_again(monkeypatch):
    monkeypatch.setattr(captions, "MATCH_SECONDS", 0.1)
    rules = CaptionRules(**RULES | {"pattern": "(?P<content>(?:a|a)*)(?P<style>(?:a|a)*)$^"})
    started = time.monotonic()
    with pytest.raises(InputError, match="takes too long"):
        rules.captions("a" * 60, 1)
    again = time.monotonic()
    for number in range(100):
        with pytest.raises(InputError, match="takes too long"):
            rules.captions("a" * 60 + str(number), 1)
    assert again - started < 10 and time.monotonic() - again < 1


def test_number_of_captions_is_limited_by_the_phrases():
    assert len(CaptionRules(**RULES).captions("walk_glad_1", 10**9)) == 3 * 3 * 2


@pytest.mark.parametrize(
    "line, caption, span",
    [
        ("a person walks", "a person walks", None),
        ("a person walks#a/DET person/NOUN walk/VERB#0.0#0.0", "a person walks", None),
        ("he walks#he/PRON walk/VERB#nan#nan", "he walks", None),
        ("he walks#he/PRON walk/VERB#1.5#3.0", "he walks", (1.5, 3.0)),
        ("he walks#he/PRON walk/VERB#1#3", "he walks", (1, 3)),
        ("he walks##1.5#3.0", "he walks", (1.5, 3.0)),
        ("with tokens only#with/ADP", "with tokens only", None),
        ("dances to #5#dance/VERB#nan#4.0", "dances to #5", (0, 4)),
        ("  #x#0.0#0.0", "", None),
        ("a person dances to song #5 and turns left", "a person dances to song #5 and turns left", None),
        ("#1 rule: never run", "#1 rule: never run", None),
        ("step # 2 then # 3 then # 4 slowly", "step # 2 then # 3 then # 4 slowly", None),
        ("steps on #2 #3 #4", "steps on #2 #3 #4", None),
        ("###", "###", None),
        ("#" * 100_000, "#" * 100_000, None),
    ],
)
def test_number_sign_belongs_to_a_caption_unless_the_line_is_of_humanml3d(line, caption, span):
    assert CaptionLine.parse(line) == (caption, span)


@pytest.mark.parametrize("times", ["soon#3.0", "1.0#", "1.0#1e999"])
def test_invalid_times_are_refused(times):
    with pytest.raises(InputError, match="from#to in seconds"):
        CaptionLine.parse(f"he runs#he/PRON#{times}")
