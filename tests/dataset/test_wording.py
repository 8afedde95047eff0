"""Verb forms and typing errors of captions."""

from random import Random

import pytest

from dataset.caption_sides import mirror_caption
from dataset.captions import CaptionRules
from dataset.wording import VerbForms, with_typing_error

FORMS = [
    ("walks", "walk", "walking"),
    ("walks and turns left", "walk and turn left", "walking and turning left"),
    ("is walking", "walk", "walking"),
    ("is walking and turns right", "walk and turn right", "walking and turning right"),
    ("is sitting and talking", "sit and talk", "sitting and talking"),
    ("keeps jumping", "keep jumping", "jumping"),
    ("does a flip, lands and then slowly rises", "do a flip, land and then slowly rise",
     "doing a flip, landing and then slowly rising"),
    ("goes up and catches it", "go up and catch it", "going up and catching it"),
    ("power walks", "power walk", "power walking"),
    ("lies down, dies", "lie down, die", "lying down, dying"),
    ("climbs with hands and feet", "climb with hands and feet", "climbing with hands and feet"),
    ("uses arms and legs", "use arms and legs", "using arms and legs"),
    ("dances with jumps and turns", "dance with jumps and turns", "dancing with jumps and turns"),
    ("bends the knees and jumps", "bend the knees and jump", "bending the knees and jumping"),
    ("sits on the monkey bars and swings", "sit on the monkey bars and swing",
     "sitting on the monkey bars and swinging"),
    ("walks left, eyes to the right", "walk left, eyes to the right", "walking left, eyes to the right"),
    ("is out for a walk", None, None),
]  # fmt: skip


@pytest.mark.parametrize(("phrase", "command", "gerund"), FORMS)
def test_all_verbs_of_a_phrase_are_inflected_and_nouns_are_kept(phrase, command, gerund):
    forms = VerbForms([phrase])
    assert forms.command(phrase) == command and forms.gerund(phrase) == gerund


def test_typing_errors_change_one_long_word_and_never_a_side():
    text, random = "a person walks right and jumps clockwise with the left hand", Random(0)
    changed = {with_typing_error(text, random) for _ in range(300)} - {text}
    assert len(changed) > 20
    for wrong in changed:
        different = [old for old, new in zip(text.split(), wrong.split(), strict=True) if old != new]
        assert len(different) == 1 and different[0] in ("person", "walks", "jumps")
        assert mirror_caption(mirror_caption(wrong)) == wrong != mirror_caption(wrong)
    assert with_typing_error("he jogs", Random(0)) == "he jogs"


def test_pools_are_large_deterministic_and_hold_few_typing_errors():
    subjects = ("someone", "a person", "a woman", "the figure", "a robot", "a boy", "he", "she")
    forms = ("{content}", "is {gerund}", "{gerund}", "tries to {command}")
    templates = [f"{subject} {form}" for subject in subjects for form in forms]
    values = {
        "contents": {"walk": [f"strides along the corridor {number} times" for number in range(8)]},
        "templates_without_style": templates,
        "takes": {"walk": [{"content": "walk"}]},
    }
    rules = CaptionRules(**values)
    pool = rules.draw("walk_0", rules.takes["walk"][0], 1000)
    correct = {
        template.format(content=f"strides{rest}", command=f"stride{rest}", gerund=f"striding{rest}")
        for template in templates
        for rest in (f" along the corridor {number} times" for number in range(8))
    }
    assert len(pool) == 150 and 1 <= len(set(pool) - correct) <= 15
    assert pool == CaptionRules(**values).draw("walk_0", rules.takes["walk"][0], 1000)
    assert pool[:16] != rules.draw("walk_1", rules.takes["walk"][0], 16)
