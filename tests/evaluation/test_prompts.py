"""Suites of prompts: reading, judging with a model, and evaluate.py prompts end to end."""

import json
import re
from dataclasses import replace

import numpy as np
import pytest

from evaluation.prompt_report import following_table, summary
from evaluation.prompts import follow, read_suite
from models.pipeline import DEFAULT_SAMPLING, Motion
from tests.conftest import ROOT, run_script
from utils.errors import InputError

SUITE = """
- prompt: a person raises the right hand
  same as: [right hand up]
  conditions:
    - right wrist rises relative to the pelvis by more than 35 cm
    - left hand swings left and right at most 2 times
  required: 0.9
  mirrored: true
- prompt: a person walks slowly
  conditions: [moves slower than in "a person runs"]
  seconds: 0.5
- prompt: a person dances
"""


class Walker:
    """A model whose motions move forward, faster with every seed, and twice as fast if the prompt is a run."""

    def generate_each(self, prompts, seeds, sampling, seconds, slots):
        for number in reversed(range(len(prompts))):
            features = np.zeros((20, 272), np.float32)
            features[:, [2, 6]] = 1  # no turns
            features[:, 140:].reshape(20, 22, 6)[:, :, [0, 4]] = 1  # the rest pose
            features[1:, 1] = (1 + seeds[number]) * (2 if "runs" in prompts[number] else 1) / 30
            yield number, Motion(prompts[number], seeds[number], np.zeros(5, np.int64), features)


def write(path, text):
    path.write_text(text)
    return path


def test_an_entry_is_read_with_rephrasings_and_mirror_images(tmp_path):
    cases = read_suite(write(tmp_path / "suite.yaml", SUITE))
    assert [(case.prompt, case.plain) for case in cases[:4]] == [
        ("a person raises the right hand", None),
        ("right hand up", "a person raises the right hand"),
        ("a person raises the left hand", None),
        ("left hand up", "a person raises the left hand"),
    ]
    assert [condition.text for condition in cases[3].conditions] == [
        "left wrist rises relative to the pelvis by more than 35 cm",
        "right hand swings left and right at most 2 times",
    ]
    assert (cases[0].required, cases[1].required, cases[4].seconds, cases[5].conditions) == (0.9, None, 0.5, ())


@pytest.mark.parametrize("name", ["demo.yaml", "actions.yaml"])
def test_shipped_suites_are_read(name):
    cases = read_suite(ROOT / "configs" / "prompts" / name)
    assert all(case.conditions for case in cases) and len({case.prompt for case in cases}) == len(cases)


@pytest.mark.parametrize(
    "name, text",
    [
        ("motionmillion.txt", "Jump rope\nA cute toddler is crawling on the floor.\n\nJump rope\n"),
        ("t2mbench.csv", 'prompt_id,category,prompt\nT2MB_1,Dance,Jump rope\nT2MB_2,Dance,"A cute toddler is crawling '
                         'on the floor."\n'),
        ("mbench.json", '[{"id": 0, "prompt": "Jump rope", "motion_duration": 5}, {"id": 0, "prompt": "Jump rope"}, '
                        '{"id": 1, "prompt": "A cute toddler is crawling on the floor."}]'),
        ("lines.jsonl", '{"prompt": "Jump rope", "tag": 1}\n{"prompt": "A cute toddler is crawling on the floor."}\n'),
    ],
)  # fmt: skip
def test_prompt_files_of_others_are_read(tmp_path, name, text):
    cases = read_suite(write(tmp_path / name, text))
    assert {case.prompt.strip() for case in cases} == {"Jump rope", "A cute toddler is crawling on the floor."}


@pytest.mark.parametrize(
    "text, problem",
    [
        ("- prompt: a person walks\n  condition: [x]", "entry 1: the key condition is unknown; use prompt, same as"),
        ("- prompt: a person walks\n- conditions: []", "entry 2: .* has no prompt"),
        ("- prompt: a person walks\n  conditions: [walks]", "entry 1: the condition 'walks' is not understood"),
        ("- prompt: a person walks\n  conditions: moves", "conditions is 'moves'; give a list of texts"),
        ("- prompt: a person walks\n  required: 90", "required is 90; give a number above 0 and at most 1"),
        ("- prompt: a person walks\n  seconds: true", "seconds is True; give a number"),
        ("- prompt: a person walks\n  mirrored: 1", "mirrored is 1; give true or false"),
        ("- prompt: '|'", "entry 1: a prompt is empty"),
        ("prompt: a person walks", "is not a list of entries"),
        ("[]", "holds no prompt"),
        ("- !!python/object:os.system {}", "tag"),
    ],
)
def test_faults_of_a_suite_name_the_entry(tmp_path, text, problem):
    with pytest.raises(InputError, match=problem):
        read_suite(write(tmp_path / "suite.yaml", text))


def test_motions_are_judged_per_seed(tmp_path):
    text = """
- prompt: a person walks
  conditions: [moves forward faster than 2.5 m/s, moves slower than in "a person runs"]
  required: 0.9
- prompt: a person stands
"""
    results = follow(Walker(), read_suite(write(tmp_path / "suite.yaml", text)), 4, DEFAULT_SAMPLING)
    fast, slower = results[0].conditions
    assert fast.values == pytest.approx([1, 2, 3, 4]) and fast.passed == [False, False, True, True]
    assert fast.worst == pytest.approx(1) and slower.limit == pytest.approx(5) and slower.worst == pytest.approx(4)
    assert results[0].share == 0.5 and results[1].share is None
    assert results[1].physical["speed"] == pytest.approx(2.5)
    assert "| 50 %  | 1.00 m/s (seed 0) |" in following_table(results)
    assert "below the required share: a person walks (50 % of 90 %)" in summary(results)
    assert following_table([replace(results[1])]) == ""


def test_evaluate_prompts_end_to_end(tmp_path):
    suite = write(tmp_path / "suite.yaml", SUITE)
    out = tmp_path / "out"
    demo = ROOT / "checkpoints/demo"
    printed = run_script("evaluate.py", "prompts", "--checkpoint", demo, "--prompts", suite, "--seeds", 2,
                         "--out-dir", out)  # fmt: skip
    assert re.search(r"\| a person raises the right hand +\| all conditions +\| \d+ % ", printed)
    assert "| (left hand up) " in printed and 'moves slower than in "a person runs" (' in printed
    numbers = json.loads((out / "evaluation.json").read_text())["prompts"]
    assert len(numbers["prompts"]) == 6 and numbers["seeds"] == 2 and numbers["sampling"]["top_p"] == 0.95
    assert all(len(row["values"]) == 2 for case in numbers["prompts"] for row in case["conditions"])
    assert numbers["prompts"][4]["physical"]["length"] == pytest.approx(0.5, abs=0.1)
    assert "a person dances" in (out / "evaluation.md").read_text()


def test_evaluate_refuses_what_it_cannot_use(tmp_path, refused, run_here):
    assert "there is no checkpoint folder" in refused("evaluate.py", "prompts", "--checkpoint", tmp_path / "none")
    suite = write(tmp_path / "suite.yaml", "- prompt: a person walks\n  conditions: [walks well]")
    problem = refused("evaluate.py", "prompts", "--prompts", suite)
    assert "entry 1: the condition 'walks well' is not understood" in problem
    assert "is no file of prompts" in refused("evaluate.py", "prompts", "--prompts", "motion.bvh")
    assert "| turns [{side}] | degrees | in total |" in run_here("evaluate.py", "prompts", "--list-conditions")
